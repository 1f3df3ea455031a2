"""Every command and snippet of the documents is run, every link resolves."""

import os
import re
import shlex
import shutil
import sys
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile
from PIL import Image

from ddfm import cli, moving, samples
from ddfm.io.video_writer import ClipWriter
from ddfm.presets import PRESETS
from served import serving

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)


def blocks(kind):
    return [
        pytest.param(m[2], id=f"{path.name}-{n}")
        for path in DOCUMENTS
        for n, m in enumerate(BLOCK.finditer(path.read_text("utf-8")))
        if m[1] == kind
    ]


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with ir.mp4 and vis.mp4: six frames of the street in motion."""
    folder = tmp_path_factory.mktemp("clips")
    with ExitStack() as stack:
        common = {"size": (64, 80), "rate": Fraction(25), "time_base": Fraction(1, 25)}
        infrared, visible = (
            stack.enter_context(ClipWriter(folder / f"{name}.mp4", color=name == "vis", **common))
            for name in ("ir", "vis")
        )
        for k, frame in enumerate(moving.moving_street((64, 80), 6, noise=0)):
            infrared.write(frame.infrared, Fraction(k, 25), Fraction(1, 25))
            visible.write(frame.visible, Fraction(k, 25), Fraction(1, 25))
    return folder


@pytest.fixture
def folder(tmp_path, clips, monkeypatch):
    """Where the snippets run: ir and vis as .png and .mp4, pairs in folders of every kind, a manifest, photographs."""
    for name in ("ir", "vis", "photographs"):
        (tmp_path / name).mkdir()
    for seed in (0, 1):
        scene = samples.street((64, 80), seed)
        for name, data in (("ir", scene.infrared), ("vis", scene.visible)):
            image = Image.fromarray(np.rint(data * 255).astype(np.uint8))
            image.save(tmp_path / name / f"{seed}.png")
            image.save(tmp_path / f"{name}.png")
            for more in {"ir": ("dark", "near", "pet", "t1", "nir"), "vis": ("middle", "bright", "far", "t2")}[name]:
                image.save(tmp_path / f"{more}.png")
            image.resize((160, 128)).save(tmp_path / "photographs" / f"{name}{seed}.png")
            for copy in (f"shots/{seed}_{name}.png", f"scenes/{seed}/{name}.png", f"{name}/day/{seed}.png"):
                (tmp_path / copy).parent.mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / copy)
    _thermal_files(tmp_path)
    for name in ("pet", "t1", "t2"):
        (tmp_path / name).symlink_to("ir")
    rows = ["ir/0.png,vis/0.png,first", "ir/1.png,vis/1.png,night/second"]
    (tmp_path / "pairs.csv").write_text("\n".join(["ir,vis,output", *rows]))
    for clip in clips.iterdir():
        shutil.copy(clip, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)
    return tmp_path


def _thermal_files(folder):
    """A thermal picture of half the size of the visible one and of a part of its field; counts; kelvins."""
    scene = samples.street((240, 320), 0)
    picture = Image.fromarray(np.rint(scene.visible * 255).astype(np.uint8))
    picture.save(folder / "visible.png")
    part = Image.fromarray(np.rint(scene.infrared[8:232, 12:308] * 255).astype(np.uint8))
    part.resize((148, 112)).save(folder / "thermal.png")
    infrared = samples.street((64, 80), 1).infrared
    tifffile.imwrite(folder / "counts.tiff", np.rint(20000 + 5000 * infrared).astype(np.uint16))
    tifffile.imwrite(folder / "kelvin.tiff", (280 + 30 * infrared).astype(np.float32))


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands(text, folder, monkeypatch):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for line in text.splitlines():
        words = shlex.split(line.replace("--clip 10", "--clip 0.2"), comments=True)  # ten seconds take a minute
        while "=" in words[0]:
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        if words[:2] == ["ddfm", "app"]:
            serve(words[2:], folder)
            continue
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M)
            continue
        assert words[0] == "ddfm", f"not known how to run: {line}"
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, line


def serve(words, folder):
    """``ddfm app`` with these options, at a port that is free, answers, and asks for a password where one was set."""
    if "--port" in words:
        del words[words.index("--port") : words.index("--port") + 2]
    pytest.importorskip("gradio")
    with serving(folder, *words) as server:
        port = server.address.rpartition(":")[2]
        answer = requests.get(f"http://127.0.0.1:{port}/config", timeout=30)
        assert answer.status_code == (401 if "DDFM_APP_AUTH" in os.environ else 200)


@pytest.mark.parametrize("text", blocks("python"))
def test_snippets(text, folder):
    if "http://127.0.0.1:7860" in text:
        pytest.importorskip("gradio")
        with serving(folder) as server:
            text = text.replace("http://127.0.0.1:7860", server.address)
            exec(compile(text, "snippet", "exec"), {"__name__": "snippet"})
        return
    exec(compile(text, "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_resolve_and_no_path_of_a_machine(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
    assert not re.search(r"/(home|root|work|Users)/", text)


def test_the_architecture_page_names_every_room():
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    source = ROOT / "src/ddfm"
    rooms = {p.relative_to(source).parts[0].removesuffix(".py") for p in source.rglob("*.py")}
    assert [room for room in sorted(rooms) if f"`{room}`" not in page] == []


def test_the_table_of_presets_has_each():
    table = (ROOT / "docs/howto.md").read_text("utf-8")
    assert [name for name in PRESETS if not re.search(rf"^\| `{name}` \|", table, re.M)] == []


def test_the_recipe_of_the_bundled_prior_is_a_valid_one(folder, monkeypatch):
    """Its commands as printed, but for a step instead of thousands and a network that takes a moment."""
    text = (ROOT / "docs/howto.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("ddfm prior train PHOTOS")]
    assert len(lines) == 2
    for line in lines:
        small = re.sub(r"--steps \d+", "--steps 1 --channels 16,16 --batch-size 4", line).replace(
            "PHOTOS", "photographs"
        )
        monkeypatch.setattr(sys, "argv", shlex.split(small))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, line
