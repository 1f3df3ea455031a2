"""The command line: what a user types, what goes wrong, what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfm import engine
from ddfm.fusion import Fuser
from ddfm.presets import PRESETS
from ddfm.priors.known import KNOWN


def leftovers(folder):
    """Files that a stopped or failed run must not leave."""
    return [p for p in folder.rglob("*") if p.suffix == ".part"]


def test_a_pair(ddfm, pairs):
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert (code, text.startswith("f.png")) == (0, True)
    with Image.open(pairs / "f.png") as image:
        assert (image.size, image.mode) == ((24, 20), "RGB")


@pytest.mark.parametrize(
    ("name", "options", "hinted"),
    [
        ("ct.png", [], True),
        ("PET-12.png", ["--preset", "fast"], True),
        ("ct.png", ["--preset", "medical"], False),
        ("ct.png", ["--preset", "paper", "--steps", "1"], False),
        ("insect.png", [], False),  # a word of its own
    ],
)
def test_a_scan_is_told_of_the_settings_for_scans(ddfm, pairs, name, options, hinted):
    (pairs / "ir" / "a.png").rename(pairs / name)
    code, text = ddfm("fuse", name, "vis/a.png", "-o", "f.png", *options)
    assert (code, "--preset medical is made for scans" in text) == (0, hinted)


def test_folders_report_and_resume(ddfm, pairs):
    code, text = ddfm("fuse", "ir", "vis", "-o", "out", "--report", "r.jsonl")
    assert (code, text) == (0, "3 fused, 0 kept from an earlier run, 0 failed")
    records = [json.loads(line) for line in (pairs / "r.jsonl").read_text().splitlines()]
    assert [r["status"] for r in records] == ["fused"] * 3
    assert records[0]["output_sha256"] and records[0]["inputs"][0]["sha256"] and records[0]["versions"]["torch"]
    before = {p.name: p.stat().st_mtime_ns for p in (pairs / "out").glob("*.png")}
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("0 fused, 3 kept")
    assert before == {p.name: p.stat().st_mtime_ns for p in (pairs / "out").glob("*.png")}
    (pairs / "out" / "b.png").unlink()
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("1 fused, 2 kept")


def test_same_bytes_again_alone_and_in_another_order(ddfm, pairs, tiny_prior):
    from ddfm.fusion import FuseConfig

    ddfm("fuse", "ir", "vis", "-o", "one")
    jobs = engine.plan([Path("ir"), Path("vis")], Path("two"))
    list(engine.run(jobs[::-1], Fuser(FuseConfig(prior=str(tiny_prior)))))
    for stem in "abc":
        ddfm("fuse", f"ir/{stem}.png", f"vis/{stem}.png", "-o", f"{stem}.png")
        contents = [Path(p).read_bytes() for p in (f"one/{stem}.png", f"two/{stem}.png", f"{stem}.png")]
        assert contents[0] == contents[1] == contents[2]


def test_what_the_journal_does_not_vouch_for_is_refused_and_kept(ddfm, pairs):
    ddfm("fuse", "ir", "vis", "-o", "out")
    (pairs / "out" / "a.png").write_bytes(b"mine")
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 1 and "--overwrite" in text and "2 kept" in text
    assert (pairs / "out" / "a.png").read_bytes() == b"mine"
    assert ddfm("fuse", "ir", "vis", "-o", "out", "--seed", 1)[0] == 1  # other settings: nothing is replaced
    assert ddfm("fuse", "ir", "vis", "-o", "out", "--overwrite")[1].startswith("3 fused")


def test_a_half_line_in_the_journal_is_passed_over(ddfm, pairs):
    ddfm("fuse", "ir", "vis", "-o", "out")
    journal = pairs / "out" / engine.JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:40])
    (pairs / "out" / "c.png").unlink()
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("1 fused, 2 kept")
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("0 fused, 3 kept")


def test_one_bad_pair_is_reported_and_the_others_are_fused(ddfm, pairs):
    content = (pairs / "vis" / "b.png").read_bytes()
    (pairs / "vis" / "b.png").write_bytes(content[: len(content) // 2])
    code, text = ddfm("fuse", "ir", "vis", "-o", "out", "--report", "r.jsonl")
    assert code == 1
    assert "2 fused" in text and "1 failed" in text and "vis/b.png" in text
    failed = [json.loads(x) for x in (pairs / "r.jsonl").read_text().splitlines() if '"failed"' in x]
    assert len(failed) == 1 and "vis/b.png" in failed[0]["error"]
    assert sorted(p.name for p in (pairs / "out").glob("*.png")) == ["a.png", "c.png"]


def spoil(pairs, kind):
    """Make vis/a.png bad in one way."""
    path = pairs / "vis" / "a.png"
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "text":
        path.write_text("not a picture")
    elif kind == "size":
        Image.new("L", (30, 20)).save(path)
    elif kind == "small":
        for name in ("ir", "vis"):
            Image.new("L", (15, 20)).save(pairs / name / "a.png")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["vis/a.png", "no such file"]),
        ("empty", ["vis/a.png", "empty"]),
        ("truncated", ["vis/a.png"]),
        ("text", ["vis/a.png"]),
        ("size", ["24x20", "30x20", "--align"]),
        ("small", ["15x20", "16x16"]),
    ],
)
def test_bad_files(ddfm, pairs, kind, words):
    spoil(pairs, kind)
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert code == 2
    for word in words:
        assert word in text
    assert not (pairs / "f.png").exists()
    assert not leftovers(pairs)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--preset", "balnced"], "'balanced'"),
        (["--device", "tpu"], "cpu"),
        (["--dtype", "int8"], "bfloat16"),
        (["--tone", "loud"], "minmax"),
        (["--steps", "-1"], "steps"),
        (["--steps", "0", "--preset", "paper"], "steps"),
        (["--steps", "5000"], "steps"),
        (["--bit-depth", "12"], "8 or 16"),
        (["--report", "nowhere/r.jsonl"], "--report"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_bad_options(ddfm, pairs, options, word):
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", *options)
    assert code == 2 and word in text
    assert not (pairs / "f.png").exists()


def test_unknown_prior(ddfm):
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", prior="nowhere")
    assert code == 2 and "nowhere" in text and "ddfm prior list" in text


@pytest.mark.parametrize(
    ("output", "options", "word"),
    [
        ("f.jpg", ["--bit-depth", "16"], ".png or .tif"),
        ("f.xyz", [], ".png"),
        ("nowhere/f.png", [], "mkdir"),
    ],
)
def test_bad_outputs_are_refused_before_the_work(ddfm, monkeypatch, output, options, word):
    monkeypatch.setattr("ddfm.fusion.Fuser.__init__", lambda *_: pytest.fail("the prior was loaded"))
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", output, *options)
    assert code == 2 and word in text


def test_bad_suffix_of_a_folder_run(ddfm, monkeypatch):
    monkeypatch.setattr("ddfm.fusion.Fuser.__init__", lambda *_: pytest.fail("the prior was loaded"))
    code, text = ddfm("fuse", "ir", "vis", "-o", "out", "--suffix", "png2")
    assert code == 2 and ".png" in text


def test_unmatched_names_are_listed(ddfm, pairs):
    (pairs / "vis" / "b.png").rename(pairs / "vis" / "x.png")
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 2 and "b.png" in text and "x.png" in text and "--skip-unmatched" in text
    assert not (pairs / "out").exists()
    assert ddfm("fuse", "ir", "vis", "-o", "out", "--skip-unmatched")[1].startswith("2 fused")


def test_two_files_of_one_stem(ddfm, pairs):
    Image.new("L", (24, 20)).save(pairs / "ir" / "a.bmp")
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 2 and "a.bmp" in text and "a.png" in text


def test_a_file_and_a_folder(ddfm):
    assert ddfm("fuse", "ir", "vis/a.png", "-o", "out")[0] == 2


def test_the_same_file_twice_is_fused_with_a_warning(ddfm):
    code, text = ddfm("fuse", "ir/a.png", "ir/a.png", "-o", "f.png")
    assert code == 0 and "same picture" in text


def test_existing_output(ddfm, pairs):
    (pairs / "f.png").write_bytes(b"mine")
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert code == 2 and "--overwrite" in text
    assert (pairs / "f.png").read_bytes() == b"mine"
    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", "--overwrite")[0] == 0


def test_a_source_is_never_written_over(ddfm, pairs):
    before = (pairs / "ir" / "a.png").read_bytes()
    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "ir/a.png", "--overwrite")[0] == 2
    assert ddfm("fuse", "ir", "vis", "-o", "ir", "--overwrite")[0] == 2
    assert (pairs / "ir" / "a.png").read_bytes() == before


def test_a_report_must_be_a_report(ddfm, pairs):
    (pairs / "notes.txt").write_text("mine")
    code, _ = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", "--report", "notes.txt")
    assert code == 2
    assert (pairs / "notes.txt").read_text() == "mine"


def test_output_folder_that_cannot_be_made(ddfm, pairs):
    (pairs / "file").write_text("mine")
    code, text = ddfm("fuse", "ir", "vis", "-o", "file/out")
    assert code == 2 and "--output" in text


def test_disk_full(ddfm, pairs, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert code == 2 and "space" in text
    assert not (pairs / "f.png").exists()
    assert not leftovers(pairs)


def test_ctrl_c_while_fusing(ddfm, pairs, monkeypatch):
    fuse, seen = Fuser.fuse, []

    def stop(self, *sources, **options):
        seen.append(sources)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return fuse(self, *sources, **options)

    monkeypatch.setattr(Fuser, "fuse", stop)
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 130 and "1 of 3" in text and "again" in text
    assert sorted(p.name for p in (pairs / "out").glob("*.png")) == ["a.png"]
    assert not leftovers(pairs)
    monkeypatch.setattr(Fuser, "fuse", fuse)
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("2 fused, 1 kept")


def test_ctrl_c_while_loading(ddfm, monkeypatch):
    def stop(self, config):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fuser, "__init__", stop)
    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")[0] == 130


def test_ctrl_c_while_settings_are_read_is_told(ddfm, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddfm.config.FuseConfig.__init__", stop)
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert (code, text.strip()) == (130, "stopped")


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1.0])
def test_ctrl_c_in_the_first_seconds(pairs, seconds):
    """A true process, stopped while Python, the command line or torch is loaded: no traceback, nothing left."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import ddfm.__main__ as m; "
    code += f"signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(2)); signal.setitimer(0, {seconds}); "
    code += "import sys; sys.argv[1:] = ['fuse', 'ir', 'vis', '-o', 'out']; m.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=pairs, capture_output=True, text=True, check=False)
    if done.returncode != 0:  # a fast machine may have finished before
        assert done.returncode == 130 and "stopped" in done.stderr and "Traceback" not in done.stderr
    assert not leftovers(pairs)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_ctrl_c_again_and_again_until_the_end(pairs, tiny_prior, seconds):
    """A true process: what follows the first Ctrl-C breaks nothing off, also while Python takes itself down."""
    words = ["fuse", "ir", "vis", "-o", "out", "--prior", str(tiny_prior), "--preset", "paper"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import ddfm.__main__ as m, sys; "
    code += f"sys.argv[1:] = {words}; print('begun', flush=True); m.main()"
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=pairs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "begun\n"
    time.sleep(seconds)
    deadline = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < deadline:
        run.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, errors = run.communicate(timeout=5)
    if run.returncode != 0:  # a fast machine may have finished before
        assert run.returncode == 130 and "stopped" in errors and "Traceback" not in errors
    assert not leftovers(pairs)


@pytest.mark.slow
def test_killed_in_the_middle_and_taken_up_again(pairs, tiny_prior):
    """A true process, kill -9 after the first result: the same command finishes the rest."""
    words = ["fuse", "ir", "vis", "-o", "out", "--prior", str(tiny_prior), "--preset", "paper"]
    command = [sys.executable, "-m", "ddfm", *words]
    process = subprocess.Popen(command, cwd=pairs, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (pairs / "out" / "a.png").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=pairs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # whenever it was killed: a result's line is there before the result
    assert len(list((pairs / "out").glob("*.png"))) == 3
    assert "Traceback" not in done.stderr


def test_doctor_prior_list_and_info(ddfm):
    code, text = ddfm("doctor")
    assert code == 0 and "Research use" in text and "sha256" in text
    assert all(name in text for name in PRESETS)
    assert "extras" in text
    assert "bundled" in ddfm("prior", "list")[1]
    assert "4287588" in ddfm("prior", "info")[1]
    assert ddfm("prior", "info", "nowhere")[0] == 2


def test_doctor_sees_damaged_weights(ddfm, tmp_path, monkeypatch):
    import shutil

    from ddfm.priors import BUNDLED, WEIGHTS

    copy = tmp_path / "bundled"
    shutil.copytree(BUNDLED, copy)
    content = bytearray((copy / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (copy / WEIGHTS).write_bytes(bytes(content))
    monkeypatch.setattr("ddfm.priors.BUNDLED", copy)
    monkeypatch.setattr("ddfm.diagnosis.BUNDLED", copy)
    code, text = ddfm("doctor")
    assert code == 1 and "damaged" in text


def test_version_and_help(ddfm):
    assert ddfm("--version") == (0, "0.1.0")
    assert "--overwrite" in ddfm("fuse", "--help", prior=None)[1]
    for words in (["fuse", "--help"], ["prior", "info", "--help"]):
        assert all(name in ddfm(*words, prior=None)[1] for name in [*KNOWN, "bundled", "hub id"])


def test_train_and_use_by_name(ddfm, pairs):
    rng = np.random.default_rng(1)
    (pairs / "photos").mkdir()
    for n in range(2):
        Image.fromarray(rng.integers(0, 256, (140, 150), dtype=np.uint8)).save(pairs / "photos" / f"{n}.png")
    words = ["prior", "train", "photos", "-o", "run", "--batch-size", 1, "--channels", "16,16", "--device", "cpu"]
    assert ddfm(*words, "--steps", 2, "--licence", "CC0")[0] == 0
    assert "going on at step 2" in ddfm(*words, "--steps", 3)[1]
    assert "going on" in ddfm(*words, "--steps", 3)[1]
    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", prior="run/prior")[0] == 0
    assert ddfm("prior", "train", "nowhere")[0] == 2
    (pairs / "run" / "checkpoint.pt").write_bytes(b"PK broken")
    code, text = ddfm(*words, "--steps", 4)
    assert code == 2 and "checkpoint.pt" in text


# ---- found by a reader who tried to break it -----------------------------------------------------


def test_sixteen_bit_colour_into_png_is_exact_to_the_level(ddfm, pairs):
    from ddfm.io import read_image

    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", "--bit-depth", 16)[0] == 0
    assert ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.tif", "--bit-depth", 16)[0] == 0
    png, tiff = read_image(pairs / "f.png"), read_image(pairs / "f.tif")
    assert (png.bit_depth, png.is_color) == (16, True)
    assert np.array_equal(png.data, tiff.data)


def test_a_report_never_goes_into_a_picture(ddfm, pairs):
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", "--report", "f.png")
    assert (code, "another name than a picture's" in text) == (2, True)
    assert not (pairs / "f.png").exists()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(ddfm, pairs):
    (pairs / "dangling.jsonl").symlink_to(pairs / "missing" / "r.jsonl")
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", "--report", "dangling.jsonl")
    assert (code, "dangling.jsonl" in text, (pairs / "f.png").exists()) == (2, True, False)


def test_a_report_may_lie_in_the_output_folder_of_the_run(ddfm, pairs):
    assert ddfm("fuse", "ir", "vis", "-o", "out", "--report", "out/r.jsonl")[0] == 0
    assert len((pairs / "out/r.jsonl").read_text().splitlines()) == 3


def test_a_source_folder_is_no_output_folder(ddfm, pairs):
    code, text = ddfm("fuse", "ir", "vis", "-o", "vis", "--suffix", ".tif")
    assert (code, "a source folder" in text, len(list((pairs / "vis").iterdir()))) == (2, True, 3)


def test_an_output_that_exists_is_refused_before_the_prior_is_loaded(ddfm, pairs, monkeypatch):
    (pairs / "f.png").write_bytes(b"mine")
    monkeypatch.setattr("ddfm.fusion.Fuser.__init__", lambda *_: pytest.fail("loaded"))
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")
    assert (code, "--overwrite" in text, (pairs / "f.png").read_bytes()) == (2, True, b"mine")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that even root cannot write to")
def test_a_folder_that_cannot_be_written_is_refused_before_the_prior_is_loaded(ddfm, monkeypatch):
    monkeypatch.setattr("ddfm.fusion.Fuser.__init__", lambda *_: pytest.fail("loaded"))
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "/proc/self/f.png")
    assert (code, "a folder that can be written to" in text) == (2, True)


def test_ctrl_c_while_the_prior_is_loaded(ddfm, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddfm.fusion.Fuser.__init__", stop)
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert (code, "stopped after 0 of 3" in text) == (130, True)


def test_one_pair_without_memory_does_not_stop_the_others(ddfm, monkeypatch):
    fuse = Fuser.fuse

    def short(self, *sources, **options):
        if sources[0].stem == "b":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return fuse(self, *sources, **options)

    monkeypatch.setattr(Fuser, "fuse", short)
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert (code, "2 fused" in text, "b.png: got out of memory" in text) == (1, True, True)


def test_what_another_run_finished_meanwhile_is_kept(ddfm, pairs, tiny_prior):
    """Both runs planned all three; the second finds each output made and journalled by the first."""
    from ddfm.fusion import FuseConfig

    jobs = engine.plan([Path("ir"), Path("vis")], Path("out"))
    fuser = Fuser(FuseConfig(prior=str(tiny_prior)))
    second = engine.run(jobs, fuser, journal=Path("out") / engine.JOURNAL)
    assert next(second).status == "fused"
    assert [o.status for o in engine.run(jobs, fuser, journal=Path("out") / engine.JOURNAL)] == [
        "kept",
        "fused",
        "fused",
    ]
    assert [o.status for o in second] == ["kept", "kept"]


def test_a_warning_is_said_once(ddfm):
    code, text = ddfm("fuse", "ir/a.png", "ir/a.png", "-o", "f.png")
    assert (code, text.count("are the same picture")) == (0, 1)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("unet/diffusion_pytorch_model.safetensors", b"cut"),
        ("scheduler/scheduler_config.json", b"{"),
        ("model_index.json", b'{"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "NopeScheduler"]}'),
        ("unet/config.json", b"{"),
    ],
)
def test_a_damaged_prior_is_one_line(ddfm, pairs, tiny_prior, file, content):
    import shutil

    shutil.copytree(tiny_prior, pairs / "damaged")
    (pairs / "damaged" / file).write_bytes(content)
    code, text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png", prior="damaged")
    assert (code, text.startswith("error: prior: got damaged")) == (2, True)
    if "scheduler" in file or "safetensors" in file:
        assert ddfm("prior", "info", "damaged")[0] == 2


def test_an_empty_licence_is_refused_before_the_training(ddfm):
    code, text = ddfm("prior", "train", "vis", "-o", "run", "--licence", " ")
    assert (code, "--licence" in text) == (2, True)
