"""The scripts of benchmarks/ on tiny inputs: that they run, and that what they count is counted right."""

import importlib
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddfm import samples

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Import a script by name, as it imports its own helpers."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def write_pairs(root, block):
    """A data set mini of two pairs of 13 x 14 blocks."""
    rng = np.random.default_rng(0)
    for role in ("ir", "vi"):
        folder = root / "mini" / role
        folder.mkdir(parents=True)
        for name in ("a", "b.c"):
            coarse = rng.integers(0, 256, (13, 14), dtype=np.uint8)
            Image.fromarray(np.kron(coarse, np.ones(block, np.uint8))).save(folder / f"{name}.png")
    return root


@pytest.fixture
def pairs(tmp_path):
    """A data set mini of two pairs of 52x70 pixels, in a folder with another that holds nothing."""
    root = write_pairs(tmp_path / "pairs", (4, 5))
    (root / "empty").mkdir()
    return root


@pytest.fixture
def larger(tmp_path):
    """The same with 78x98 pixels, of which 64x96 are left by a crop to multiples of 32."""
    return write_pairs(tmp_path / "larger", (6, 7))


def run(module, *arguments):
    """Exit code of a script's main."""
    try:
        module.main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


# ---- gallery --------------------------------------------------------------------------------------


def test_gallery_lays_sources_and_results_at_full_size(script, pairs, tmp_path):
    gallery = script("gallery")
    out = tmp_path / "out"
    assert run(gallery, pairs, out, "--methods", "average,maximum", "--columns", 2, "--crops") == 0
    folder = out / "gallery/mini"
    sheet = np.asarray(Image.open(folder / "a.png"))
    cell = 52 + gallery.BAR + gallery.GAP, 70 + gallery.GAP
    a, b = (np.asarray(Image.open(pairs / "mini" / role / "a.png")) for role in ("ir", "vi"))
    expected = [a, b, np.rint((a.astype(float) + b) / 2), np.maximum(a, b)]
    for place, picture in enumerate(expected):
        y, x = (n * size for n, size in zip(divmod(place, 2), cell, strict=True))
        shown = sheet[y + gallery.BAR : y + gallery.BAR + 52, x : x + 70].astype(float)
        assert np.abs(shown - picture).max() <= (place == 2), place  # halves may round either way
    page = (folder / "index.html").read_text()
    for link in ("a.png", "a-hot-target.png", "a-texture.png", "b.c.png"):
        assert f'src="{link}"' in page and (folder / link).is_file()
    assert 'href="mini/index.html"' in (out / "gallery/index.html").read_text()


def test_gallery_uses_what_a_benchmark_kept(script, pairs, tmp_path, monkeypatch):
    from ddfm import cli

    out = tmp_path / "out"
    words = ["ddfm", "benchmark", str(pairs / "mini"), "-o", str(out), "-m", "average"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    monkeypatch.setattr("ddfm.bench.run._measure", lambda *_: pytest.fail("run again"))
    assert run(script("gallery"), pairs, out, "--methods", "average") == 0


@pytest.mark.parametrize("name", ["gallery", "ladder"])
def test_nothing_to_show_is_said(script, tmp_path, name, capsys):
    assert run(script(name), tmp_path / "nowhere", tmp_path / "out") == 2
    assert "expected a folder of data sets" in capsys.readouterr().err
    assert run(script(name), tmp_path, tmp_path / "out") == 2
    assert "without pairs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gallery", "ladder"])
def test_an_output_that_is_a_file_is_refused(script, pairs, tmp_path, name, capsys):
    (tmp_path / "out").write_text("mine")
    assert run(script(name), pairs, tmp_path / "out") == 2
    assert "OUT: got" in capsys.readouterr().err and (tmp_path / "out").read_text() == "mine"


# ---- ladder ---------------------------------------------------------------------------------------


def words(pairs, out, prior):
    return [
        pairs,
        out,
        "--prior",
        prior,
        "--rungs",
        2,
        1,
        "--samplers",
        "ddim",
        "unipc",
        "--starts",
        1,
        30,
        "--limit",
        1,
    ]


def test_ladder_runs_and_goes_on(script, pairs, tmp_path, tiny_prior, monkeypatch):
    ladder, out = script("ladder"), tmp_path / "out"
    peers = tmp_path / "rows.json"
    row = {"SCD": 1.5, "Qabf": 0.5, "minVIF": 0.3, "cpu_s_per_Mpx": 100.0, "n": 1}
    peers.write_text(json.dumps({"rows": {"mini": {"NetX": row, "other pairs": row | {"n": 2}}}}))
    given = [*words(pairs, out, tiny_prior), "--baselines", "average", "maximum", "--rows", peers]
    plotted = {}
    monkeypatch.setattr("ddfm.bench.charts.against_time", lambda *a: plotted.update(curves=a[0], singles=a[1]) or b"")
    assert run(ladder, *given) == 0
    found = json.loads((out / "ladder.json").read_text())
    rows = found["rows"]
    assert {"average", "maximum", "ddim 2 noise", "unipc 1 noise", "start 30, 2 steps"} <= set(rows)
    assert list(rows)[:4] == ["average", "maximum", "ddim 2 warm (from 1)", "ddim 2 noise"]  # not as they ran
    assert {row.get("start") for row in rows.values()} >= {None, 1, 30}
    assert all(row["seconds"] > 0 and row["peak_memory_bytes"] > 10**7 for row in rows.values())
    ranks = [row["mean"]["mean rank"] for row in rows.values()]
    assert sum(ranks) == pytest.approx(len(ranks) * (len(ranks) + 1) / 2)  # every metric ranks all rows
    table = (out / "ladder.md").read_text()
    assert all(f"| {name} |" in table for name in rows) and "not finished" not in table and found["missing"] == []
    assert {label: [p[2] for p in points] for label, points in plotted["curves"].items()} == {
        "ddim warm": ["2", "1"],
        "ddim noise": ["2", "1"],
        "unipc warm": ["2", "1"],
        "unipc noise": ["2", "1"],
    }
    seconds = {name: s for s, _, name in plotted["singles"]}
    assert set(seconds) == {"average", "maximum", "NetX*"}
    assert seconds["NetX*"] == pytest.approx(100 * 52 * 70 / 1e6)
    assert (out / "ladder-starts.png").stat().st_size > 10_000
    monkeypatch.setattr("ddfm.bench.run._measure", lambda *_: pytest.fail("run again"))
    assert run(ladder, *given) == 0


def test_ladder_keeps_what_is_finished(script, pairs, tmp_path, tiny_prior, monkeypatch, capsys):
    from ddfm.bench import run as room

    ladder, out, measure, done = script("ladder"), tmp_path / "out", room._measure, []

    def stop_at_the_fourth(method, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(method.name)
        return measure(method, *rest)

    monkeypatch.setattr(room, "_measure", stop_at_the_fourth)
    assert run(ladder, *words(pairs, out, tiny_prior), "--baselines", "average") == 130
    assert "give the same command again" in capsys.readouterr().err
    found = json.loads((out / "ladder.json").read_text())
    assert set(found["rows"]) == set(done) == {"average", "ddim 1 warm (from 0)", "ddim 1 noise"}  # cheapest first
    assert "ddim 2 noise" in found["missing"] and "not finished: " in (out / "ladder.md").read_text()
    assert (out / "ladder.png").stat().st_size > 10_000
    monkeypatch.setattr(room, "_measure", lambda method, *rest: done.append(method.name) or measure(method, *rest))
    assert run(ladder, *words(pairs, out, tiny_prior), "--baselines", "average") == 0
    assert len(done) == len(set(done))


def test_ladder_does_without_matplotlib(script, pairs, tmp_path, monkeypatch, capsys, tiny_prior):
    out = tmp_path / "out"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ["--prior", tiny_prior, "--rungs", 1, "--samplers", "ddim", "--starts", "--baselines", "average"]
    assert run(script("ladder"), pairs, out, *options, "--limit", 1) == 0
    assert "pip install 'ddfm[report]'" in capsys.readouterr().err
    assert (out / "ladder.md").is_file() and not (out / "ladder.png").exists()


def test_ladder_counts_only_data_sets_that_all_have(script):
    ladder = script("ladder")
    facts = {"images": 1, "seconds": {"median": 1.0}, "peak_memory_bytes": 1}
    both = {"easy": facts | {"mean": {"SD": 1.0}}, "hard": facts | {"mean": {"SD": 0.0}}}
    rows = ladder.finished({"x": {"datasets": both}, "y": {"datasets": {"easy": both["easy"]}}}, ("SD",))
    assert rows["x"]["mean"] == rows["y"]["mean"] == {"SD": 1.0, "mean rank": 1.5}


def test_ladder_shows_beside_it_what_has_the_same_likelihood(script):
    from ddfm.presets import PRESETS

    ladder = script("ladder")
    for preset in PRESETS.values():
        names = ladder.beside(preset)
        assert preset.name in names and ("em-only" in names or f"em-only:{preset.name}" in names)


def test_ladder_names_every_configuration_once(script):
    ladder = script("ladder")
    from ddfm.presets import get_preset

    found = list(ladder.distinct(ladder.ladder(get_preset("balanced"), ladder.RUNGS, ladder.SAMPLERS, ladder.STARTS)))
    assert len({p.name for p in found}) == len(found)
    assert all(p.start is None or p.steps <= p.start + 1 for p in found)
    assert len([p for p in found if p.start is None]) == len(ladder.RUNGS) * len(ladder.SAMPLERS)


def test_ladder_wants_a_warm_start(script, pairs, tmp_path, capsys):
    assert run(script("ladder"), pairs, tmp_path, "--preset", "paper") == 2
    assert "warm start" in capsys.readouterr().err


# ---- GPU, engines ---------------------------------------------------------------------------------


def test_gpu_script_runs_small_on_a_cpu(script, tmp_path, monkeypatch):
    gpu, out = script("gpu"), tmp_path / "gpu.json"
    monkeypatch.setattr("ddfm.bench.run.release_freed_memory", lambda: None)  # a collection for each row takes longest
    assert run(gpu, "--device", "cpu", "--small", "--presets", "fast", "--output", out) == 0
    found = json.loads(out.read_text())
    assert found["provenance"]["machine"] and found["small"]
    kinds = {(r["network"], r["dtype"], r["channels_last"], r["batch"]) for r in found["rows"]}
    assert len(kinds) == len(found["rows"]) == 2 * 2 * 2 * 2
    for row in found["rows"]:
        assert row["milliseconds_a_pair"] == pytest.approx(1000 * row["seconds"] / row["batch"])


def test_gpu_script_says_what_cannot_be_compiled(script):
    import types

    gpu = script("gpu")

    def pipe(*_, **options):
        raise ValueError("no C++ compiler\nmore")

    options = types.SimpleNamespace(size=(32, 48), device="cpu", rounds=1)
    from ddfm.presets import get_preset

    row = gpu.measure(gpu.Case("adm", get_preset("fast"), "float32", True, True, 1), pipe, options)
    assert row["error"] == "not compiled: no C++ compiler" and row["compiled"]
    with pytest.raises(ValueError, match="compiler"):
        gpu.measure(gpu.Case("adm", get_preset("fast"), "float32", True, False, 1), pipe, options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_script_says_that_there_is_none(script, tmp_path, capsys):
    assert run(script("gpu"), "--output", tmp_path / "gpu.json") == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert run(script("gpu"), "--device", "gpu", "--output", tmp_path / "gpu.json") == 2
    assert "--device" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_adm_of_the_gpu_script_is_the_papers(script):
    from ddfm.priors.adm import all_names

    adm = script("gpu").ADM
    assert adm == script("reference").architecture(
        {
            "image_size": 256,
            "num_channels": 256,
            "num_res_blocks": 2,
            "channel_mult": "",
            "learn_sigma": True,
            "attention_resolutions": "32,16,8",
            "num_head_channels": 64,
            "use_scale_shift_norm": True,
            "resblock_updown": True,
        }
    )
    assert len(list(all_names(adm))) > 300


def test_engines_beside_each_other(script, tmp_path):
    engines, out = script("cpu_engines"), tmp_path / "engines.json"
    words = ["--threads", 1, "--rounds", 1, "--size", 32, 48, "--preset", "fast", "--output", out]
    assert run(engines, *words, "--engines", "channels_last") == 0
    rows = json.loads(out.read_text())["threads"]["1"]
    assert rows["channels_last"]["difference"]["fused_largest_levels"] < 0.01
    assert rows["channels_last"]["wall"]["median_ratio"] > 0


def test_an_engine_that_is_missing_says_so(script, monkeypatch, capsys):
    engines = script("cpu_engines")

    def missing(unet, size):
        raise ImportError("No module named 'onnxruntime'")

    monkeypatch.setitem(engines.ENGINES, "onnx", missing)
    threads = torch.get_num_threads()
    engines.work("onnx", threads, [32, 48], "fast")
    assert json.loads(capsys.readouterr().out) == {"missing": "ImportError: No module named 'onnxruntime'"}


def test_engines_refuse(script, tmp_path, capsys):
    engines = script("cpu_engines")
    assert run(engines, "--engines", "tensorflow") == 2
    assert "expected some of eager" in capsys.readouterr().err
    assert run(engines, "--preset", "fats", "--output", tmp_path / "x.json") == 2
    assert "Did you mean 'fast'" in capsys.readouterr().err


def test_engines_criterion(script):
    def row(wall, processor, levels):
        ratios = {"wall": {"median_ratio": wall}, "processor": {"median_ratio": processor}}
        return ratios | {"difference": {"fused_999_levels": levels}}

    meets = script("cpu_engines").meets
    assert meets(row(1.6, 1.5, 0.2))
    assert not meets(row(1.6, 1.4, 0.2))
    assert not meets(row(1.6, 1.6, 1.2))
    assert not meets({"missing": "no such package"})


# ---- seconds --------------------------------------------------------------------------------------


def test_step_share_accounts_for_all_of_a_call(script, tmp_path):
    from ddfm.presets import PRESETS

    module, out = script("step_share"), tmp_path / "share.json"
    assert run(module, "--calls", 2, "--size", 48, 64, "--output", out) == 0
    found = json.loads(out.read_text())["presets"]
    warm = [name for name, preset in PRESETS.items() if preset.start is not None]
    assert set(found) == {f"{name}{way}" for name in warm for way in ("", ", 2 steps", ", noisy")}
    for name, row in found.items():
        series = row["series"]
        assert len(series["step_seconds"]) == 2 * 2 * name.endswith("steps")  # the first call is not counted
        parts = np.sum([series[f"{part} seconds"] for part in module.PARTS], axis=0)
        assert parts == pytest.approx(series["seconds"])
        spent = {part for part in module.PARTS if all(value > 0 for value in series[f"{part} seconds"])}
        assert spent >= {"maps", "bookkeeping", "files"}
        assert ("network" in spent) == ("," in name)
        assert sum(row["shares"].values()) == pytest.approx(1)


def test_step_share_takes_its_clocks_away_again(script):
    from ddfm.fusion import FuseConfig, Fuser
    from ddfm.likelihood import FusionLikelihood
    from ddfm.pipeline import DDFMPipeline

    module = script("step_share")
    fuser = Fuser(FuseConfig(preset="fast"))
    before = FusionLikelihood.init, FusionLikelihood.step, DDFMPipeline.__call__, fuser.pipeline.unet.forward
    with module.watched(fuser, module.Clock()):
        assert FusionLikelihood.step is not before[1]
    after = FusionLikelihood.init, FusionLikelihood.step, DDFMPipeline.__call__, fuser.pipeline.unet.forward
    assert after == before and "_predict" not in vars(fuser.pipeline)


def test_step_share_refuses_a_preset_from_noise(script, tmp_path, capsys):
    assert run(script("step_share"), "--presets", "paper", "--output", tmp_path / "x.json") == 2
    assert "presets with a warm start" in capsys.readouterr().err
    assert run(script("step_share"), "--output", tmp_path) == 2
    assert "a folder, expected a file" in capsys.readouterr().err


# ---- the released code ----------------------------------------------------------------------------

#: Mimics the command line of a checkout, and nothing else: reads both folders, says what it does, writes averages.
FAKE = """
import os, sys, time
import numpy as np
from PIL import Image

model = [line.split(": ")[1].strip() for line in open("configs/model_config_imagenet.yaml") if "model_path" in line][0]
assert os.path.exists(model), model
os.makedirs("output/recon", exist_ok=True)
for i, name in enumerate(sorted(os.listdir("input/ir"))):
    a, b = (np.asarray(Image.open(os.path.join("input", role, name)), float) for role in ("ir", "vi"))
    assert a.shape[0] % 32 == 0 and a.shape[1] % 32 == 0, a.shape
    print("INFO: Inference for image", i, file=sys.stderr)
    time.sleep(0.3)
    Image.fromarray(np.uint8((a + b) / 2)).save(f"output/recon/{name.split('.')[0]}.png")
"""
CONFIG = """\
image_size: 64
num_channels: 32
num_res_blocks: 1
channel_mult: "1,2"
learn_sigma: True
attention_resolutions: 32
num_head_channels: 16
use_scale_shift_norm: True
resblock_updown: True
model_path: models/weights.pt
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "configs").mkdir(parents=True)
    (folder / "guided_diffusion").mkdir()
    (folder / "sample.py").write_text(textwrap.dedent(FAKE))
    (folder / "configs/model_config_imagenet.yaml").write_text(CONFIG)
    (folder / "configs/diffusion_config.yaml").write_text("timestep_respacing: 100\n")
    return folder


def test_reference_beside_a_checkout(script, checkout, larger, tmp_path, capsys):
    out = tmp_path / "reference.json"
    before = sorted(p.relative_to(checkout) for p in checkout.rglob("*"))
    words = [checkout, larger, "--random", "--presets", "fast", "--output", out]
    assert run(script("reference"), *words) == 0
    assert sorted(p.relative_to(checkout) for p in checkout.rglob("*")) == before  # only a copy is written to
    found = json.loads(out.read_text())
    assert found["pictures"] == ["a", "b_c"] and found["weights"]["random"] and found["complete"]
    theirs, ours = found["rows"]["reference"], found["rows"]["fast"]
    series = {m: [r["seconds"][n] for r in found["runs"][m] for n in ("a", "b_c")] for m in ("reference", "fast")}
    assert all(s >= 0.29 for s in series["reference"])  # the fake sleeps so long for each picture
    ratios = [a / b for a, b in zip(series["reference"], series["fast"], strict=True)]
    assert ours["times_as_fast"]["median_ratio"] == pytest.approx(np.median(ratios))
    memory = ours["reference_to_own_resident_bytes"]
    assert memory == pytest.approx(theirs["resident_bytes"] / ours["resident_bytes"]) and 0 < memory < 1
    assert theirs["mean"].keys() == ours["mean"].keys()
    deviations = []
    for name in ("a", "b.c"):  # the fake's average of the cropped sources is what is scored
        a, b = (np.asarray(Image.open(larger / "mini" / f / f"{name}.png"), float)[:64, :96] for f in ("ir", "vi"))
        deviations.append(np.floor((a + b) / 2).std())
    assert theirs["mean"]["SD"] == pytest.approx(np.mean(deviations))
    ratio = ours["times_as_fast"]["median_ratio"]
    assert f"takes {ratio:.2f} times as long and {memory:.2f} times the memory" in capsys.readouterr().out


def test_reference_measures_by_announcement_or_by_the_file_before(script, tmp_path):
    import os

    watch = object.__new__(script("reference").Watch)
    watch.begun, watch.lines = 100.0, [(103.0, "Inference for image 0"), (105.5, "INFO Inference for image 1")]
    for name, at in (("x", 105.0), ("y", 109.5), ("z", 111.0)):
        (tmp_path / f"{name}.png").write_bytes(b"")
        os.utime(tmp_path / f"{name}.png", (at, at))
    # 105 - 103; 109.5 - 105.5; not announced: since y
    assert watch.seconds(["z", "x", "y"], tmp_path) == {"x": 2.0, "y": 4.0, "z": 1.5}


def test_random_checkpoint_is_what_the_conversion_reads(script, tmp_path):
    from diffusers import UNet2DModel

    from ddfm.priors.adm import AdmConfig, infer_config, to_unet, unet_arguments

    reference = script("reference")
    for newer in (False, True):
        config = AdmConfig((32, 64), 1, (False, True), 16, 3, 6, True, True, newer)
        torch.manual_seed(0)
        weights = UNet2DModel(**unet_arguments(config)).state_dict()
        state = reference.to_checkpoint(weights, config)
        assert infer_config(state, 16, newer) == config
        back = to_unet(state, config).state_dict()
        assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_reference_keeps_what_it_measured(script, checkout, larger, tmp_path, monkeypatch, capsys):
    reference, out = script("reference"), tmp_path / "reference.json"
    start, names = reference.run, []

    def stop_at_the_third(name, *rest):
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return start(name, *rest)

    monkeypatch.setattr(reference, "run", stop_at_the_third)
    words = [checkout, larger, "--random", "--presets", "fast", "balanced", "--limit", 1, "--output", out]
    assert run(reference, *words) == 130
    assert "--output holds what was measured" in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert names == ["CHECKOUT", "fast", "balanced"]
    assert not found["complete"] and set(found["rows"]) == {"reference", "fast"}


def test_watched_program_ends_with_its_watch(script, tmp_path, monkeypatch):
    import subprocess

    reference, started = script("reference"), []

    def stopped(self):
        started.append(self.process)
        raise KeyboardInterrupt

    monkeypatch.setattr(reference.Watch, "_watch", stopped)
    with pytest.raises(KeyboardInterrupt):
        reference.Watch([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    try:
        assert started[0].wait(timeout=5) != 0
    except subprocess.TimeoutExpired:
        pytest.fail("it goes on")
    started[0].stdout.close()


def test_reference_refuses_with_a_remedy(script, checkout, larger, pairs, tmp_path, capsys):
    reference, out = script("reference"), ("--output", tmp_path / "out.json")

    def refused(*words):
        assert run(reference, *words, *out) == 2
        assert not (tmp_path / "out.json").exists()
        return capsys.readouterr().err

    assert "no folder" in refused(tmp_path / "nowhere", larger, "--random")
    assert "one of --weights FILE and --random" in refused(checkout, larger)
    assert "an existing checkpoint" in refused(checkout, larger, "--weights", tmp_path / "none.pt")
    assert "a of 70x52 pixels, expected 64x64 or more" in refused(checkout, pairs, "--random")
    assert "Did you mean 'fast'" in refused(checkout, larger, "--random", "--presets", "fats")
    (checkout / "sample.py").write_text("import sys; sys.exit('No module named cv2')")
    assert "No module named cv2" in refused(checkout, larger, "--random", "--presets", "fast")
    (checkout / "configs/model_config_imagenet.yaml").write_text("a list\n")
    assert "without num_channels" in refused(checkout, larger, "--random")
    (checkout / "sample.py").unlink()
    assert "without sample.py" in refused(checkout, larger, "--random")


# ---- noise ----------------------------------------------------------------------------------------


@pytest.fixture
def noise_pairs(tmp_path):
    """Two rendered pairs of 96x112 pixels, in the two of the three folders that the script is to find."""
    from ddfm import samples

    for name, seed in (("roadscene-dev", 0), ("tno-dev", 1)):
        scene = samples.street((96, 112), seed)
        for role, data in (("ir", scene.clean_infrared), ("vi", scene.clean_visible)):
            folder = tmp_path / "noise" / name / role
            folder.mkdir(parents=True)
            Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(folder / "a.png")
    return tmp_path / "noise"


def test_noise_runs_small_and_goes_on(script, noise_pairs, tmp_path, monkeypatch, capsys):
    noise, out = script("noise"), tmp_path / "noise.json"
    monkeypatch.setattr(noise, "keep_freed_memory", lambda: None)
    words = [noise_pairs, "--crop", 64, "--conditions", "gauss25", "--output", out]
    assert run(noise, *words, "--limit", 1) == 0
    assert "msrs-dev: not there" in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert found["complete"] and found["provenance"]["machine"] and found["prior"]["sha256"]
    images, table = found["images"]["gauss25"], found["summary"]["gauss25"]["means"]
    assert set(images) == {"roadscene-dev/a", "tno-dev/a"}
    assert {"em", "em-noise", "one-step", "ensemble", "given", "auto", "fast", "clean"} <= set(table)
    assert table["clean"]["PSNR"] == 100  # the cap of equal pictures
    assert table["given"]["PSNR"] > table["em"]["PSNR"] + 4
    gain = found["summary"]["gauss25"]["differences"]["given - one-step"]["PSNR"]
    assert gain["mean"] == pytest.approx(table["given"]["PSNR"] - table["one-step"]["PSNR"])
    assert gain["n"] == 2 and gain["interval"][0] <= gain["mean"] <= gain["interval"][1]
    for image in images.values():
        assert image["levels"] == [25, 25] and all(abs(v - 25) < 7 for v in image["estimated"])
    monkeypatch.setattr(noise.Rows, "table", lambda self: dict.fromkeys(table.keys() - {"clean"}, pytest.fail))
    assert run(noise, *words) == 0  # known: nothing is run again


def test_noise_lays_out_blind_crops(script, noise_pairs, tmp_path, monkeypatch):
    noise = script("noise")
    monkeypatch.setattr(noise, "keep_freed_memory", lambda: None)
    assert run(noise, noise_pairs, "--crops", tmp_path / "crops", "--crop", 96) == 0
    key = json.loads((tmp_path / "crops/key.json").read_text())
    assert set(key) == {p.name for p in (tmp_path / "crops").glob("*.png")}
    assert len(key) == 4 and all({"given", "em", "clean"} <= set(order) for order in key.values())


@pytest.mark.parametrize("condition", ["gauss15", "headroom25", "stripes", "jpeg15"])
def test_noise_degrades_as_it_says(script, condition):
    noise = script("noise")
    clean = (np.full((128, 160), 0.5, np.float32), np.tile(np.linspace(0.2, 0.8, 160, dtype=np.float32), (128, 1)))
    pair, levels = noise.degrade("x", condition, clean)
    assert all(np.array_equal(a, b) for a, b in zip(pair, noise.degrade("x", condition, clean)[0], strict=True))
    for degraded, level, truth in zip(pair, levels, clean, strict=True):
        assert np.abs(degraded * 255 - np.rint(degraded * 255)).max() < 1e-4
        # 20,480 pixels: a spread of 0.5 %; of stripes, half of it comes from 160 columns alone: 4 %
        rms = np.sqrt(np.mean((degraded - truth).astype(float) ** 2))
        assert rms == pytest.approx(level, rel=0.12 if condition == "stripes" else 0.02, abs=1e-3)
    columns = (pair[0] - clean[0]).mean(0).std() * 255
    assert (columns > 8) == (condition == "stripes")


def test_noise_statistics_of_pictures_that_are_known(script):
    """White noise has kurtosis 3 and a flat spectrum; an integral of it falls with the square of the frequency."""
    noise = script("noise")
    white = np.random.default_rng(0).standard_normal((256, 256))
    found = noise.statistics(white)
    assert found["kurtosis"] == pytest.approx(3, abs=0.1) and found["slope"] == pytest.approx(0, abs=0.15)
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    radius[0, 0] = 1
    pink = np.fft.ifft2(np.fft.fft2(white) / radius).real
    assert noise.statistics(pink)["slope"] == pytest.approx(-2, abs=0.15)


def test_noise_refuses_with_a_remedy(script, tmp_path, capsys):
    assert run(script("noise"), tmp_path, "--output", tmp_path / "x.json") == 2
    assert "expected a folder with some of" in capsys.readouterr().err


# ---- invention ------------------------------------------------------------------------------------


def test_invention_on_a_few_phantoms(script, tmp_path, monkeypatch):
    """As rendered and with noise no lesion vanishes and none is added, but by EM that is not told of the noise."""
    invention, out = script("invention"), tmp_path / "invention.json"
    monkeypatch.setattr(invention, "keep_freed_memory", lambda: None)
    assert run(invention, "--seeds", 2, "--size", 96, "--kinds", "ct", "--output", out) == 0
    found = json.loads(out.read_text())
    assert found["provenance"]["machine"] and found["prior"]["sha256"] and found["presets"]["medical"]
    table = found["kinds"]["ct"]["summary"]
    assert set(table) == {"average", "em", "em+noise"} | {
        name + noise for name in ("balanced", "fast", "medical") for noise in ("", "+noise")
    }
    for name, row in table.items():
        assert row["phantoms"] == 2 and row["vanished"] == 0, name
        assert row["appeared"] == 0 or name == "em+noise"  # grains of noise, which it was not told of
    assert table["medical"]["least_kept"] > 0.5
    # the mean of two gradients is no longer than the longer of them, the mean of two blobs no stronger
    assert table["average"]["exceeds_by_2"] == 0 and table["average"]["strongest_gain"] < 0.01
    assert table["average"]["median_kept"] == pytest.approx(0.5, abs=0.1)  # the MRI shows next to nothing there
    assert table["em+noise"]["exceeds_by_2"] > 2 * table["medical+noise"]["exceeds_by_2"]
    sheet = np.asarray(Image.open(tmp_path / "invention-ct.png"))
    assert sheet.shape == (3 * 98 + 14, 10 * 98)
    truth = invention.Truth.of("ct", 96, 0)
    for row, source in enumerate(truth.sources):
        assert np.array_equal(sheet[14 + 98 * row :][:96, :96], np.rint(source * 255).astype(np.uint8))


def test_invention_sees_what_was_put_in_and_taken_out(script):
    invention = script("invention")
    truth = invention.Truth.of("ct", 128, 0)
    ct, mri = truth.sources
    own = truth.score(ct)
    assert own["kept"] == 1 and not own["vanished"] and not own["appeared"] and own["exceeds"] == 0
    assert truth.score(mri)["vanished"]
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(y - 64, x - 122) <= 5  # beside the head, where both sources are black
    for level, seen in ((24, True), (16, False)):
        planted = truth.score(mri + level / 255 * disc.astype(np.float32))
        assert planted["appeared"] == seen
        assert planted["strongest_new"] == pytest.approx(level, rel=0.1)  # the ring touches the skin
    # in the middle of the brain too, where the sources have contrasts of their own; adding these up makes none
    spot = np.hypot(y - 64, x - 64) <= 5
    for level in (1.0, 0.0):
        assert truth.score(np.where(spot, np.float32(level), mri))["appeared"], level
    both = truth.score((ct + mri) / 1.25)
    assert both["strongest_new"] == 0 and not both["vanished"] and both["strongest_gain"] > 0
    ring = planted["exceeds_by_2"] - truth.score(mri)["exceeds_by_2"]
    assert ring * 128**2 == pytest.approx(2 * np.pi * 5, rel=0.5)  # the edge of the disc and nothing else


def test_invention_measures_contrast_of_discs_exactly(script):
    """A disc of the detector's own radius has its full contrast, dark or bright; a slope has none."""
    invention = script("invention")
    y, x = np.mgrid[:64, :64]
    for radius, found in zip(invention.RADII, range(3), strict=True):
        disc = (np.hypot(y - 32, x - 32) <= radius).astype(np.float32)
        assert invention.blobs(0.5 - 0.2 * disc, 1.0)[found, 32, 32].item() == pytest.approx(-51, rel=1e-4)
    assert abs(invention.blobs((x / 64).astype(np.float32), 1.0)[:, 32, 32]).max() < 1e-3


# ---- clips ----------------------------------------------------------------------------------------


def test_flicker_on_a_tiny_clip(script, tmp_path, tiny_prior):
    flicker, out = script("flicker"), tmp_path / "flicker.json"
    modes = ["frame by frame", "memory 0.5, gain", "memory 0.9, gain, carry 0.6"]
    words = ["--frames", 8, "--size", 48, 64, "--noise", 0, "--prior", tiny_prior, "--output", out, "--modes", *modes]
    assert run(flicker, *words) == 0
    rows = json.loads(out.read_text())["by_noise"]["0"]
    assert set(rows) == {"infrared", "visible", *modes}
    assert rows["memory 0.5, gain"]["flicker"] < rows["frame by frame"]["flicker"]
    assert rows["visible"]["flicker"] < 0.01 < rows["infrared"]["flicker"]  # the thermal gain drifts


def test_flicker_counts_what_was_put_in(script):
    """Of a clip that is its clean truth but for a step of 10 levels in its middle, or for a pattern of one level."""
    flicker = script("flicker")
    frames = list(flicker.moving_street((48, 64), 5, noise=0, drift=0))
    clean = [frame.clean_infrared for frame in frames]
    none = flicker.flicker(frames, clean)
    stepped = flicker.flicker(frames, [x + 10 / 255 * (k >= 2) for k, x in enumerate(clean)])
    for key in ("flicker", "pumping"):
        assert stepped[key] - none[key] == pytest.approx(10 / 4, abs=0.02)  # one of four changes
    checks = np.indices((48, 64)).sum(0) % 2 * 2 - 1  # the pan is one column: signs change from frame to frame
    grainy = flicker.flicker(frames, [x + 1 / 255 * checks for x in clean])
    assert grainy["flicker"] == pytest.approx(2, abs=0.02) and grainy["pumping"] < 0.1


@pytest.mark.slow
def test_memory_of_a_tiny_clip(script, tmp_path, tiny_prior, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    out = tmp_path / "memory.json"
    words = ("--frames", 6, "--size", 48, 64, "--prior", tiny_prior, "--output", out)
    assert run(script("video_memory"), *words) == 0
    found = json.loads(out.read_text())
    assert [row["frames"] for row in found["runs"]] == [6] and found["frame_bytes"] == 4 * 3 * 48 * 64
    assert all(row["peak"] > 1e8 for row in found["runs"])  # torch alone is more


@pytest.fixture
def streets(tmp_path):
    """A data set of two rendered streets, and a phantom among them, 200x260."""
    scenes = [samples.street((200, 260), 0), samples.street((200, 260), 1), samples.phantom((200, 260), 0)]
    for number, scene in enumerate(scenes):
        for role, data in (("ir", scene.infrared), ("vi", scene.visible)):
            folder = tmp_path / "pairs" / "tno-dev" / role
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pairs"


def test_align_finds_what_it_moved_and_goes_on(script, streets, tmp_path, monkeypatch, capsys):
    align = script("align")
    monkeypatch.setattr(align, "KINDS", ("translation",))
    monkeypatch.setattr(align, "MAGNITUDES", (5, 15))
    words = [
        "align",
        str(streets),
        "--limit",
        "1",
        "--parts",
        "recovery,measures",
        "--output",
        str(tmp_path / "a.json"),
    ]
    monkeypatch.setattr(sys, "argv", [*words, "--output", str(tmp_path / "a.json")])
    align.main()
    result = json.loads((tmp_path / "a.json").read_text())
    assert [(row["moved"], row["below_1"]) for row in result["recovery"]] == [(5, 1), (15, 1)]
    assert {row["measure"] for row in result["measures"]} == {"orientation", "magnitude", "mutual"}
    assert all(row["median"] < 2 for row in result["measures"])
    capsys.readouterr()
    align.main()
    assert capsys.readouterr().out == ""  # nothing left to do


def test_align_puts_scenes_together_that_do_not_belong(script, streets, tmp_path, monkeypatch):
    align = script("align")
    monkeypatch.setattr(align, "KINDS", ("translation",))
    monkeypatch.setattr(sys, "argv", ["align", str(streets), "--parts", "wrong", "--output", str(tmp_path / "a.json")])
    align.main()
    keys = [record["key"][2] for record in json.loads((tmp_path / "a.json").read_text())["records"]]
    assert keys == ["0 on 1", "0 on 2", "1 on 2", "1 on 0", "2 on 0", "2 on 1"]


@pytest.mark.parametrize("kind", ["translation", "affine", "homography"])
def test_align_moves_corners_as_far_as_it_says(script, kind):
    align = script("align")
    matrix = align.random_transform(kind, 15, (100, 130), np.random.default_rng(0))
    assert align.corner_error(matrix, np.eye(3), (100, 130)) == pytest.approx(15, rel=1e-4)
    assert np.array_equal(align.random_transform(kind, 0, (100, 130), np.random.default_rng(0)), np.eye(3))


@pytest.mark.parametrize(("words", "match"), [(["--parts", "some"], "--parts"), (["--parts", "finer"], "--fine")])
def test_align_refuses_with_a_remedy(script, streets, words, match, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["align", str(streets), "--output", str(tmp_path / "a.json"), *words])
    with pytest.raises(SystemExit):
        script("align").main()
    assert f"error: {match}: got" in capsys.readouterr().err


def test_pictures_of_the_pages_are_sheets(script):
    page = script("preparing").sheet({"a": np.zeros((320, 440)), "b": np.ones((320, 440, 3)), "c": np.eye(20)})
    assert page.size == (2 * 448 - 8, 2 * 346)
    assert page.getpixel((5, 200)) == (0, 0, 0) and page.getpixel((600, 200)) == (255, 255, 255)
