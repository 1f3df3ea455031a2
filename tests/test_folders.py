"""``ddfm fuse`` over trees, patterns and manifests, from the command to the files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfm.fusion import Fuser
from ddfm.journal import JOURNAL


def save(path, seed, shape=(16, 18)):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(data).save(path)


@pytest.fixture
def tree(pairs):
    """A tree of three kinds, pet/, t1/, t2/: a, day/a and day/late/b."""
    for k, kind in enumerate(("pet", "t1", "t2")):
        for n, name in enumerate(("a", "day/a", "day/late/b")):
            save(pairs / kind / f"{name}.png", 10 * k + n)
    return pairs


def results(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL)


def test_a_tree_of_results_mirrors_the_sources_and_is_taken_up_again(ddfm, tree):
    command = ["fuse", "pet", "t1", "-o", "out", "--recursive"]
    assert ddfm(*command)[1].startswith("3 fused, 0 kept from an earlier run, 0 failed")
    assert results(tree / "out") == results(tree / "pet") == ["a.png", "day/a.png", "day/late/b.png"]
    assert ddfm(*command)[1].startswith("0 fused, 3 kept")
    (tree / "out/day/a.png").unlink()
    assert ddfm(*command)[1].startswith("1 fused, 2 kept")
    names = [json.loads(line)["name"] for line in (tree / "out" / JOURNAL).read_text().splitlines()]
    assert names == ["a.png", "day/a.png", "day/late/b.png", "day/a.png"]
    # files of one name in two folders are two: neither vouches for the other
    (tree / "out/a.png").write_bytes((tree / "out/day/a.png").read_bytes())
    code, text = ddfm(*command)
    assert (code, "error: a.png:" in text, "2 kept" in text) == (1, True, True)


def test_the_same_bytes_by_folder_by_pattern_by_manifest_and_alone(ddfm, tree):
    """Three sources; how they were found changes nothing."""
    for kind in ("pet", "t1", "t2"):
        for name in ("a", "day/a", "day/late/b"):
            target = tree / "mixed" / f"{name}_{kind}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((tree / kind / f"{name}.png").read_bytes())
    rows = [f"{name},pet/{name}.png,t1/{name}.png,t2/{name}.png" for name in ("a", "day/a", "day/late/b")]
    (tree / "m.csv").write_text("\n".join(["output,pet,t1,t2", *rows]))
    for output, words in {
        "one": ["pet", "t1", "t2", "-r"],
        "two": ["mixed", "-r", *(w for k in ("pet", "t1", "t2") for w in ("--pattern", f"{{stem}}_{k}.png"))],
        "three": ["m.csv"],
        "four": ["mixed", "-r", *(w for k in ("pet", "t1", "t2") for w in ("--pattern", f"{{stem}}_{k}.*"))],
    }.items():
        assert ddfm("fuse", *words, "-o", output)[1].startswith("3 fused"), output
    assert ddfm("fuse", "pet/day/a.png", "t1/day/a.png", "t2/day/a.png", "-o", "alone.png")[0] == 0
    for output in ("two", "three", "four"):
        for name in results(tree / "one"):
            assert (tree / output / name).read_bytes() == (tree / "one" / name).read_bytes()
    assert (tree / "alone.png").read_bytes() == (tree / "one/day/a.png").read_bytes()
    # and the third source counts
    ddfm("fuse", "pet/day/a.png", "t1/day/a.png", "-o", "without.png")
    assert (tree / "alone.png").read_bytes() != (tree / "without.png").read_bytes()


def test_noise_is_given_for_each_of_three_sources(ddfm, tree):
    code, text = ddfm("fuse", "pet", "t1", "t2", "-o", "out", "--noise-std", "0.1,0.1")
    assert (code, "noise_std: got 2 values, expected one, or 3" in text) == (2, True)
    (tree / "m.csv").write_text("pet,t1,t2\npet/a.png,t1/a.png,t2/a.png\n")
    assert ddfm("fuse", "m.csv", "-o", "out", "--noise-std", "0.1,0.1")[0] == 2
    assert not (tree / "out").exists()


def test_names_by_template_and_several_presets_in_one_folder(ddfm, tree):
    for preset in ("fast", "medical"):
        command = ["fuse", "pet", "t1", "-o", "out", "-r", "--preset", preset, "--name", "{stem}_{preset}"]
        assert ddfm(*command, "--suffix", ".tif")[1].startswith("3 fused")
    assert len(results(tree / "out")) == 6 and "day/late/b_medical.tif" in results(tree / "out")


def test_results_beside_their_sources(ddfm, pairs):
    for name in ("a", "b"):
        save(pairs / "s" / f"{name}_ir.png", 1)
        save(pairs / "s" / f"{name}_vis.png", 2)
    command = ["fuse", "s", "-o", "s", "--name", "{stem}_fused"]
    command += ["--pattern", "{stem}_ir.png", "--pattern", "{stem}_vis.png"]
    assert ddfm(*command)[1].startswith("2 fused")
    assert ddfm(*command)[1].startswith("0 fused, 2 kept")
    assert [name for name in results(pairs / "s") if "fused" in name] == ["a_fused.png", "b_fused.png"]


def test_one_bad_file_of_a_manifest_does_not_stop_the_others(ddfm, tree):
    """What was written before and after it stays, and is kept by the next run."""
    (tree / "t1/day/a.png").write_bytes(b"no picture")
    rows = [f"pet/{name}.png,t1/{name}.png,{name}" for name in ("a", "day/a", "day/late/b")]
    (tree / "m.csv").write_text("\n".join(["pet,t1,output", *rows]))
    code, text = ddfm("fuse", "m.csv", "-o", "out", "--report", "out/r.jsonl")
    assert (code, "error: day/a.png: t1/day/a.png" in text) == (1, True)
    assert [p for p in results(tree / "out") if p.endswith("png")] == ["a.png", "day/late/b.png"]
    save(tree / "t1/day/a.png", 9)
    assert ddfm("fuse", "m.csv", "-o", "out")[1].startswith("1 fused, 2 kept")


def test_nothing_is_written_where_the_manifest_is_bad(ddfm, tree, monkeypatch):
    monkeypatch.setattr(Fuser, "__init__", lambda *_: pytest.fail("the prior was loaded"))
    (tree / "m.csv").write_text("pet,t1\npet/a.png,t1/a.png\npet/b.png,t1/a.png\n")
    code, text = ddfm("fuse", "m.csv", "-o", "out")
    assert (code, "m.csv: got 1 missing" in text, "line 3: column pet: no file 'pet/b.png'" in text) == (2, True, True)
    assert not (tree / "out").exists()


def test_a_format_that_cannot_hold_one_of_the_results_is_refused_before_the_work(ddfm, tree, monkeypatch):
    monkeypatch.setattr(Fuser, "__init__", lambda *_: pytest.fail("the prior was loaded"))
    (tree / "m.csv").write_text("pet,t1,output\npet/a.png,t1/a.png,x.png\npet/a.png,t1/day/a.png,y.jpg\n")
    code, text = ddfm("fuse", "m.csv", "-o", "out", "--bit-depth", 16)
    assert (code, ".png or .tif" in text, (tree / "out").exists()) == (2, True, False)


def test_ctrl_c_in_a_tree(ddfm, tree, monkeypatch):
    fuse, seen = Fuser.fuse, []

    def stop(self, *sources, **options):
        seen.append(sources)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return fuse(self, *sources, **options)

    monkeypatch.setattr(Fuser, "fuse", stop)
    command = ["fuse", "pet", "t1", "-o", "out", "-r"]
    code, text = ddfm(*command)
    assert (code, "stopped after 2 of 3" in text) == (130, True)
    assert results(tree / "out") == ["a.png", "day/a.png"]
    monkeypatch.setattr(Fuser, "fuse", fuse)
    assert ddfm(*command)[1].startswith("1 fused, 2 kept")


def test_a_manifest_through_a_pipe(ddfm, tree):
    import threading

    os.mkfifo(tree / "pipe")
    text = "pet,t1\npet/a.png,t1/a.png\n"
    thread = threading.Thread(target=(tree / "pipe").write_text, args=(text,))
    thread.start()
    try:
        assert ddfm("fuse", "pipe", "-o", "out")[1].startswith("1 fused")
    finally:
        thread.join()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_devices_are_no_sources(ddfm):
    code, text = ddfm("fuse", "ir/a.png", "/dev/zero", "-o", "f.png")
    assert (code, "/dev/zero: got a pipe or a device" in text) == (2, True)


def test_a_scan_of_a_manifest_is_told_of_the_settings_for_scans(ddfm, tree):
    (tree / "m.csv").write_text("pet,t1\npet/a.png,t1/a.png\n")
    assert "--preset medical" in ddfm("fuse", "m.csv", "-o", "out")[1]


def test_what_is_skipped_is_told(ddfm, tree):
    save(tree / "pet" / "lonely.png", 7)
    code, text = ddfm("fuse", "pet", "t1", "-o", "out", "--recursive", "--skip-unmatched")
    assert code == 0 and "1 left out" in text and "lonely.png has no partner in t1" in text
