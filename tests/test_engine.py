"""Folder runs: the journal, two runs at once, what is said about many files."""

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfm import engine
from ddfm.fusion import FuseConfig, Fuser
from ddfm.journal import JOURNAL, Journal


def meanwhile(monkeypatch, other):
    """Let ``other`` run once while the first picture is being fused."""
    fuse = Fuser.fuse

    def slow(self, *sources, **options):
        monkeypatch.setattr(Fuser, "fuse", fuse)
        fused = self.fuse(*sources, **options)
        other()
        return fused

    monkeypatch.setattr(Fuser, "fuse", slow)


def test_a_picture_that_another_run_finished_while_this_one_worked_on_it_is_kept(ddfm, pairs, tiny_prior, monkeypatch):
    jobs = engine.plan([Path("ir"), Path("vis")], Path("out"))
    options = {"journal": Path("out") / JOURNAL}
    fuser = Fuser(FuseConfig(prior=str(tiny_prior)))
    seen = []
    meanwhile(monkeypatch, lambda: seen.extend(o.status for o in engine.run(jobs, fuser, **options)))
    assert [o.status for o in engine.run(jobs, fuser, **options)] == ["kept"] * 3
    assert seen == ["fused"] * 3
    assert sorted(p.name for p in (pairs / "out").iterdir()) == [JOURNAL, "a.png", "b.png", "c.png"]


def test_the_picture_of_a_run_with_other_settings_is_not_taken_for_ours(ddfm, pairs, tiny_prior, monkeypatch):
    jobs = engine.plan([Path("ir"), Path("vis")], Path("out"))[:1]
    journal = Path("out") / JOURNAL
    first, second = (Fuser(FuseConfig(prior=str(tiny_prior), tone=tone)) for tone in ("none", "minmax"))
    meanwhile(monkeypatch, lambda: list(engine.run(jobs, second, journal=journal)))
    (outcome,) = engine.run(jobs, first, journal=journal)
    assert (outcome.status, "a file that exists" in outcome.record["error"]) == ("failed", True)
    # both have a line now; only that of the file's maker vouches
    assert [o.status for o in engine.run(jobs, second, journal=journal)] == ["kept"]
    assert [o.status for o in engine.run(jobs, first, journal=journal)] == ["failed"]


def test_two_runs_at_once_report_no_failure(ddfm, pairs, tiny_prior):
    jobs = engine.plan([Path("ir"), Path("vis")], Path("out"))
    outcomes = []

    def work():
        fuser = Fuser(FuseConfig(prior=str(tiny_prior)))
        outcomes.extend(engine.run(jobs, fuser, journal=Path("out") / JOURNAL))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [(o.job.output.name, o.status) for o in outcomes]
    assert sorted(name for name, status in made if status == "fused") == ["a.png", "b.png", "c.png"]
    assert {status for _, status in made} <= {"fused", "kept"} and len(made) == 6


def test_the_line_is_there_before_the_picture(ddfm, pairs, tiny_prior, monkeypatch):
    jobs = engine.plan([Path("ir"), Path("vis")], Path("out"))[:1]
    fuser = Fuser(FuseConfig(prior=str(tiny_prior)))

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ddfm.engine.write_together", killed)
    with pytest.raises(KeyboardInterrupt):
        list(engine.run(jobs, fuser, journal=Path("out") / JOURNAL))
    monkeypatch.undo()
    monkeypatch.chdir(pairs)
    assert len((pairs / "out" / JOURNAL).read_text().splitlines()) == 1
    # a line without its picture vouches for nothing, and not for another picture of that name
    assert [o.status for o in engine.run(jobs, fuser, journal=Path("out") / JOURNAL)] == ["fused"]
    Image.new("L", (24, 20)).save(pairs / "out" / "a.png")
    assert [o.status for o in engine.run(jobs, fuser, journal=Path("out") / JOURNAL)] == ["failed"]


def test_a_journal_reads_what_others_append_and_knows_outputs_by_their_path(tmp_path):
    writer, reader = Journal(tmp_path / JOURNAL), Journal(tmp_path / JOURNAL)
    (tmp_path / "day").mkdir()
    files = {name: tmp_path / name for name in ("a.png", "day/a.png")}
    for number, (name, path) in enumerate(files.items()):
        path.write_bytes(name.encode())
        assert reader.vouched(path, "key") is None
        checksum = hashlib.sha256(name.encode()).hexdigest()
        writer.append(path, {"output": str(path), "key": "key", "output_sha256": checksum, "number": number})
        assert reader.vouched(path, "key")["number"] == number
        assert reader.vouched(path, "another key") is None
    files["a.png"].write_bytes(b"day/a.png")  # the other file's bytes under this name
    assert reader.vouched(files["a.png"], "key") is None


def test_a_journal_of_earlier_versions_is_read(ddfm, pairs):
    """Lines had no name, and an output's path as the command had it."""
    ddfm("fuse", "ir", "vis", "-o", "out")
    journal = pairs / "out" / JOURNAL
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        del record["name"]
        record["output"] = "../elsewhere/out/" + Path(record["output"]).name
    journal.write_text("[]\n{}\nnonsense\n" + "".join(json.dumps(record) + "\n" for record in records))
    assert ddfm("fuse", "ir", "vis", "-o", "out")[1].startswith("0 fused, 3 kept")


def test_a_journal_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    empty = hashlib.sha256(b"").hexdigest()
    journal = Journal(tmp_path / JOURNAL)
    journal.append(path, {"output": "a.png", "key": "long " * 50, "output_sha256": empty})
    assert journal.vouched(path, "long " * 50)
    journal.path.unlink()
    journal.append(path, {"output": "a.png", "key": "short", "output_sha256": empty})
    assert journal.vouched(path, "short") and not journal.vouched(path, "long " * 50)


def grey_as_colour(folder):
    """Save every picture of a folder again with three equal channels."""
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            grey = image.convert("L")
        Image.merge("RGB", [grey] * 3).save(path)


def test_equal_notes_of_many_files_are_one_line(ddfm, pairs):
    grey_as_colour(pairs / "ir")
    Image.fromarray(np.full((20, 24, 4), 128, np.uint8)).save(pairs / "vis" / "b.png")
    code, text = ddfm("fuse", "ir", "vis", "-o", "out")
    assert code == 0
    assert "warning: 4 files: equal channels: read as grey" in text  # three, and the grey one with alpha
    assert text.count("equal channels") == 1
    assert text.count("warning: vis/b.png: transparency is not used") == 1


def test_notes_of_a_pair_name_each_file(ddfm, pairs):
    grey_as_colour(pairs / "ir")
    grey_as_colour(pairs / "vis")
    text = ddfm("fuse", "ir/a.png", "vis/a.png", "-o", "f.png")[1]
    assert "warning: ir/a.png: equal channels" in text and "warning: vis/a.png: equal channels" in text


def test_a_note_that_names_no_file_names_the_result_in_a_folder_run(ddfm, pairs):
    Image.open(pairs / "ir" / "a.png").save(pairs / "vis" / "a.png")
    text = ddfm("fuse", "ir", "vis", "-o", "out")[1]
    assert "warning: a.png: ir/a.png and vis/a.png are the same picture" in text


# ---- settings that the prior does not allow ------------------------------------------------------


@pytest.mark.parametrize("tile", [100, 4, -64])
def test_a_tile_that_the_prior_does_not_allow_is_refused_once(ddfm, pairs, tile):
    code, text = ddfm("fuse", "ir", "vis", "-o", "out", "--tile", tile)
    assert (code, text.count("tile: got"), "a multiple of 16 for this prior" in text) == (2, 1, True)
    assert not (pairs / "out").exists()


@pytest.fixture
def rgb_prior(tiny_prior, tmp_path):
    """The tiny prior's network for three channels."""
    import torch

    from ddfm.pipeline import DDFMPipeline

    luma = DDFMPipeline.from_pretrained(tiny_prior)
    torch.manual_seed(0)
    unet = type(luma.unet).from_config({**luma.unet.config, "in_channels": 12, "out_channels": 12})
    DDFMPipeline(unet.eval(), luma.scheduler, "rgb", 2).save_pretrained(tmp_path / "rgb")
    return tmp_path / "rgb"


@pytest.mark.parametrize("noise", ["0.1", "auto"])
def test_noise_with_a_prior_that_cannot_remove_it_is_refused_once(ddfm, pairs, rgb_prior, noise):
    code, text = ddfm("fuse", "ir", "vis", "-o", "out", "--noise-std", noise, prior=rgb_prior)
    assert (code, text.count("noise_std: got a prior of RGB")) == (2, 1)
    assert not (pairs / "out").exists()
    assert ddfm("fuse", "ir", "vis", "-o", "out", "--noise-std", "0", prior=rgb_prior)[1].startswith("3 fused")
