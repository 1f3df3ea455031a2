"""``ddfm fuse`` on sources of different sizes and cameras: what is written, what is kept, what is refused."""

import json
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from ddfm import cli, registration, samples
from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import files as files_module
from ddfm.io import from_array
from ddfm.registration import Transform, load_transforms
from ddfm.registration.transform import corner_error
from ddfm.sequence import SceneFuser

SHIFT = (3, -2)  # of the infrared picture's content, in its own pixels


def save(path, data):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def scene():
    """A street for two cameras, 160x200: infrared of 0.8 times the size, whose content is shifted."""
    street = samples.street((160, 200), 0)
    rolled = np.roll(street.infrared, SHIFT, (0, 1))
    small = np.asarray(Image.fromarray(rolled).resize((160, 128), Image.Resampling.BICUBIC))
    return np.clip(small, 0, 1), street.visible


@pytest.fixture
def folder(tmp_path, scene, monkeypatch):
    """ir/ and vis/ with pairs a and b, and c, whose infrared picture is noise."""
    infrared, visible = scene
    noise = np.random.default_rng(0).random(infrared.shape)
    for stem in "abc":
        save(tmp_path / "ir" / f"{stem}.png", noise if stem == "c" else infrared)
        save(tmp_path / "vis" / f"{stem}.png", visible)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)
    return tmp_path


@pytest.fixture
def ddfm(folder, tiny_prior, monkeypatch, capsys):
    """``ddfm fuse`` with these words: exit code and all that it printed."""

    def run(*words):
        words = ["ddfm", "fuse", *map(str, words), "--prior", str(tiny_prior), "--preset", "fast", "--noise-std", "0"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        text = "".join(capsys.readouterr())
        assert "Traceback" not in text
        return stop.value.code or 0, " ".join(text.split())

    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_other_sizes_stay_an_error_that_names_the_remedy(ddfm, folder):
    before = files(folder)
    code, text = ddfm("ir/a.png", "vis/a.png", "-o", "f.png")
    assert code == 2 and "160x128" in text and "200x160" in text and "--align resize" in text
    assert files(folder) == before


def test_resize_gives_the_size_of_the_last_source(ddfm, folder):
    assert ddfm("ir/a.png", "vis/a.png", "-o", "f.png", "--align", "resize")[0] == 0
    with Image.open(folder / "f.png") as image:
        assert image.size == (200, 160)


def test_of_one_size_resize_changes_no_byte(ddfm, folder):
    ddfm("vis/a.png", "vis/b.png", "-o", "plain.png")
    ddfm("vis/a.png", "vis/b.png", "-o", "resized.png", "--align", "resize")
    assert (folder / "plain.png").read_bytes() == (folder / "resized.png").read_bytes()


def test_a_transform_is_found_kept_used_again_and_told(ddfm, folder):
    words = ("ir/a.png", "vis/a.png", "--report", "r.jsonl")
    code, text = ddfm(
        *words, "-o", "f.png", "--align", "translation", "--save-transform", "t.json", "--checkerboard", "c.png"
    )
    assert code == 0, text
    (found,) = load_transforms(folder / "t.json")
    truth = np.array([[0.8, 0, 0.8 * (SHIFT[1] + 0.5) - 0.5], [0, 0.8, 0.8 * (SHIFT[0] + 0.5) - 0.5], [0, 0, 1]])
    assert corner_error(found.array, truth, (160, 200)) < 1
    with Image.open(folder / "c.png") as board:
        assert board.size == (200, 160)
    assert ddfm(*words, "-o", "g.png", "--transform", "t.json")[0] == 0
    assert (folder / "f.png").read_bytes() == (folder / "g.png").read_bytes()
    for line in (folder / "r.jsonl").read_text().splitlines():
        record = json.loads(line)
        (told,) = record["align"]["transforms"]
        assert told["matrix"] == [list(row) for row in found.matrix] and 0.9 < told["inside"] < 1
        assert record["size"] == [160, 200] and record["inputs"][0]["size"] == [128, 160]
    assert any("shows 9" in note for note in record["warnings"])


def test_nothing_is_overwritten_unasked(ddfm, folder):
    words = ("ir/a.png", "vis/a.png", "--align", "resize")
    for option, name in (("--save-transform", "t.json"), ("--checkerboard", "c.png")):
        (folder / name).write_bytes(b"mine")
        code, text = ddfm(*words, "-o", "f.png", option, name)
        assert code == 2 and f"{option}: got {name}, which exists" in text
        assert (folder / name).read_bytes() == b"mine" and not (folder / "f.png").exists()
        assert ddfm(*words, "-o", "f.png", option, name, "--overwrite")[0] == 0
        assert (folder / name).read_bytes() != b"mine"
        (folder / "f.png").unlink()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--checkerboard", "ir/a.png"), "--checkerboard: got ir/a.png, expected another file than a source"),
        (("--save-transform", "vis/a.png"), "--save-transform: got vis/a.png, expected another file than a source"),
        (("--checkerboard", "link.png"), "--checkerboard: got link.png, expected another file than a source"),
        (("-o", "hard.png"), "--output: got hard.png, expected another file than a source"),
        (("--checkerboard", "f.png"), "--checkerboard: got f.png, which is the file of --output too"),
        (("--checkerboard", "ir/../f.png"), "which is the file of --output too"),
        (("--save-transform", "f.png"), "--save-transform: got f.png, which is the file of --output too"),
        (("--save-transform", "x.png", "--checkerboard", "x.png"), "which is the file of --save-transform too"),
        (("--save-transform", "r.json", "--report", "r.json"), "--report: got r.json, which is the file of --save-tr"),
    ],
)
def test_no_source_is_replaced_and_no_two_files_are_one(ddfm, folder, words, match):
    (folder / "link.png").symlink_to(folder / "ir/a.png")
    (folder / "hard.png").hardlink_to(folder / "vis/a.png")
    before = {path: (folder / path).read_bytes() for path in files(folder)}
    code, text = ddfm("ir/a.png", "vis/a.png", "-o", "f.png", "--align", "resize", *words, "--overwrite")
    assert code == 2 and match in text, text
    assert {path: (folder / path).read_bytes() for path in files(folder)} == before


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--checkerboard", "ir"), "--checkerboard: got ir/a.png, expected another file than a source"),
        (("--checkerboard", "vis"), "--checkerboard: got vis/a.png, expected another file than a source"),
        (("--checkerboard", "link"), "--checkerboard: got link, the folder of the results"),
        (("--report", "out/.ddfm-journal.jsonl"), "--report: got out/.ddfm-journal.jsonl, which is the file of the j"),
    ],
)
def test_of_folders_no_source_of_any_pair_is_replaced(ddfm, folder, words, match):
    (folder / "out").mkdir()
    (folder / "link").symlink_to(folder / "out")
    before = {path: (folder / path).read_bytes() for path in files(folder)}
    code, text = ddfm("ir", "vis", "-o", "out", "--align", "resize", *words, "--overwrite")
    assert code == 2 and match in text, text
    assert {path: (folder / path).read_bytes() for path in files(folder)} == before


def test_a_transform_or_a_manifest_that_is_read_is_not_written(ddfm, folder):
    (folder / "m.csv").write_text("ir,vis\nir/a.png,vis/a.png\n")
    words = ("--align", "resize", "--overwrite", "-o")
    for manifest, target in (("m.csv", "out"),):
        (folder / "out").mkdir()
        (folder / "out/a.json").symlink_to(folder / manifest)
        code, text = ddfm(manifest, *words, target, "--save-transform", "t")
        assert code == 0, text
        (folder / "t/a.json").unlink()
        (folder / "t/a.json").symlink_to(folder / manifest)
        code, text = ddfm(manifest, *words, target, "--save-transform", "t")
        assert code == 2 and "t/a.json, expected another file than a source" in text
    ddfm("ir/a.png", "vis/a.png", *words, "f.png", "--save-transform", "t.png")
    code, text = ddfm("ir/a.png", "vis/a.png", "--transform", "t.png", "-o", "t.png", "--overwrite")
    assert code == 2 and "--output: got t.png, expected another file than a source" in text


def test_where_one_file_fails_none_is_left_behind_and_what_was_there_is_back(folder, monkeypatch):
    real, names = files_module.publish, ("t.json", "c.png", "f.png")

    def fail(part, path):
        if path.name == "f.png":
            raise OSError(28, "No space left on device")
        real(part, path)

    monkeypatch.setattr(files_module, "publish", fail)
    contents = {folder / name: b"new" for name in names}
    before = files(folder)
    with pytest.raises(DDFMError, match="No space"):
        files_module.write_together(contents)
    assert files(folder) == before
    (folder / "t.json").write_bytes(b"mine")
    (folder / "f.png").mkdir()
    with pytest.raises(DDFMError, match="a folder, expected a file name"):
        files_module.write_together(contents, overwrite=True)
    assert (folder / "t.json").read_bytes() == b"mine" and files(folder) == sorted([*before, "t.json"])


def test_what_is_replaced_comes_back(folder, monkeypatch):
    one, two = folder / "one", folder / "two"
    one.write_bytes(b"mine")
    monkeypatch.setattr(files_module, "publish", lambda part, path: (_ for _ in ()).throw(FileExistsError))
    real = type(one).replace
    monkeypatch.setattr(type(one), "replace", lambda self, to: real(self, to) if to.name != "two" else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files_module.write_together({one: b"new", two: b"new"}, overwrite=True)
    assert one.read_bytes() == b"mine" and not [name for name in files(folder) if name.endswith(".part")]


def test_files_beside_results_that_were_kept_are_made_when_asked_for_later(ddfm, folder, monkeypatch):
    words = ("ir", "vis", "-o", "out", "--align", "resize")
    assert "3 fused" in ddfm(*words)[1]
    monkeypatch.setattr(Fuser, "fuse", None)  # needs no fusion
    assert "3 kept" in ddfm(*words, "--save-transform", "t", "--checkerboard", "c")[1]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert "3 fused" in ddfm("ir", "vis", "-o", "new", *words[4:], "--save-transform", "T", "--checkerboard", "C")[1]
    for stem in "abc":
        assert (folder / f"t/{stem}.json").read_bytes() == (folder / f"T/{stem}.json").read_bytes()
        assert (folder / f"c/{stem}.png").read_bytes() == (folder / f"C/{stem}.png").read_bytes()


def test_folders_estimate_for_each_pair_and_leave_out_what_cannot_be_trusted(ddfm, folder):
    words = ("ir", "vis", "-o", "out", "--align", "translation", "--save-transform", "t", "--checkerboard", "c")
    code, text = ddfm(*words)
    assert code == 1 and "2 fused, 0 kept from an earlier run, 1 failed" in text
    assert "error: c.png: ir/c.png: got no trustworthy translation" in text
    assert {path for path in files(folder) if path[:2] in ("t/", "c/", "ou")} == {
        *(f"t/{stem}.json" for stem in "ab"),
        *(f"c/{stem}.png" for stem in "ab"),
        *(f"out/{stem}.png" for stem in "ab"),
        "out/.ddfm-journal.jsonl",
    }
    assert "0 fused, 2 kept from an earlier run, 1 failed" in ddfm(*words)[1]
    # once for all: the noise is fused too, by the transform of another pair
    assert "3 fused" in ddfm("ir", "vis", "-o", "again", "--transform", "t/a.json")[1]
    assert (folder / "again/b.png").read_bytes() == (folder / "out/b.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--align", "afine"), "Did you mean 'affine'"),
        (("--align", "affine", "--transform", "t.json"), "align: got 'affine' beside a transform"),
        (("--transform", "missing.json"), "missing.json: got No such file"),
        (("--transform", "vis/a.png"), "vis/a.png: got what is not JSON"),
        (("--transform", "other.json"), "ir/a.png with 160x128 pixels, expected 40x30, which the transform is for"),
        (("--transform", "two.json"), "transform: got 2 for 2 sources, expected 1"),
        (("--save-transform", "new.json"), "--save-transform: got new.json, expected it beside --align"),
        (("--checkerboard", "new.png"), "--checkerboard: got new.png, expected it beside --align"),
        (("--align", "resize", "--checkerboard", "new.txt"), "a name ending in .png"),
        (("--align", "resize", "--checkerboard", "no/new.png"), "a file in an existing folder"),
        (("--align", "resize", "--save-transform", "ir"), "a file in an existing folder"),
        (("--transform", "t.json", "--save-transform", "new.json"), "That file has it already"),
    ],
)
def test_refused_before_anything_is_written(ddfm, folder, words, match):
    known = Transform("affine", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), (128, 160), (160, 200))
    other = Transform("affine", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), (30, 40), (30, 40))
    for name, several in (("t", [known]), ("other", [other]), ("two", [known, known])):
        registration.save_transforms(folder / f"{name}.json", several)
    before = files(folder)
    code, text = ddfm("ir/a.png", "vis/a.png", "-o", "f.png", *words)
    assert code == 2 and match in text
    assert files(folder) == before


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--checkerboard", "ir/a.png"), "--checkerboard: got ir/a.png, a file, expected a folder"),
        (("--save-transform", "out"), "--save-transform: got out, the folder of the results"),
    ],
)
def test_of_folders_these_are_folders(ddfm, folder, words, match):
    code, text = ddfm("ir", "vis", "-o", "out", "--align", "resize", *words)
    assert code == 2 and match in text and not (folder / "out").exists()


# ---- from Python ----------------------------------------------------------------------------------


@pytest.fixture
def fuser(tiny_prior):
    return lambda **options: Fuser(FuseConfig(prior=str(tiny_prior), preset="fast", noise_std=0, **options))


def test_settings_without_alignment_are_what_they_were(fuser):
    plain = fuser().settings
    assert not {"align", "range", "clahe"} & set(plain)
    aligned = fuser(align="affine").settings
    assert aligned.pop("align") == {"kind": "affine"} and aligned == plain


def test_results_that_were_not_aligned_have_nothing_to_show(fuser):
    fused = fuser().fuse(*np.random.default_rng(0).random((2, 20, 30)))
    for attempt in (fused.checkerboard, lambda: fused.save_transform("t.json")):
        with pytest.raises(DDFMError, match="align='affine'"):
            attempt()


def test_a_transform_by_hand(fuser, scene):
    """A whole shift: the fused picture is that of the shifted source, but for the border."""
    visible = scene[1]
    known = Transform("translation", ((1, 0, 5), (0, 1, 0), (0, 0, 1)), (160, 200), (160, 200))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*same picture")
        fused = fuser(transform=known).fuse(visible, np.roll(visible, -5, 1))
        alone = fuser().fuse(np.roll(visible, -5, 1), np.roll(visible, -5, 1))
    assert fused.transforms == (known,)
    assert np.abs(fused.data - alone.data)[:, :150].mean() < 0.5 / 255  # levels are of the whole picture


def test_three_sources_have_two_transforms(fuser, scene):
    infrared, visible = scene
    fused = fuser(align="resize").fuse(infrared, visible[::2, ::2], visible)
    assert [one.moving_size for one in fused.transforms] == [(128, 160), (80, 100)]
    assert fused.data.shape == (160, 200, 3)
    assert fused.checkerboard(2).shape == (160, 200, 3)
    with pytest.raises(DDFMError, match="1 to 2"):
        fused.checkerboard(3)


def test_a_stretch_and_a_reduction_are_told(fuser):
    random = np.random.default_rng(0).random
    notes = fuser(align="resize").fuse(random((100, 40)), random((40, 40))).report["warnings"]
    assert any("stretched 2.50 times in one direction" in note for note in notes)
    assert any("reduced from 40x100 to the 40x40" in note for note in notes)
    notes = fuser(align="resize").fuse(random((20, 20)), random((70, 50))).report["warnings"]
    assert any("enlarged from 20x20 to the 50x70 of the last source" in note for note in notes)
    with pytest.raises(DDFMError, match="source 1: got 15x20 pixels, expected 16x16 or more"):
        fuser(align="resize").fuse(random((20, 15)), random((70, 50)))


def test_transparency_of_what_was_moved_is_told(fuser):
    rgba, other = np.random.default_rng(0).random((2, 40, 40, 4))
    notes = fuser(align="resize").fuse(rgba[:30], other[..., 0]).report["warnings"]
    assert "source 1: transparency is not used, the fused image is opaque" in notes
    both = fuser(align="resize").fuse(rgba, other).report["warnings"]
    assert [note[:22] for note in both if "transp" in note] == ["source 1: transparency", "source 2: transparency"]


def test_of_three_sources_the_others_show_what_one_does_not(fuser):
    pictures = np.random.default_rng(0).random((3, 40, 40))
    known = Transform("translation", ((1, 0, 10), (0, 1, 0), (0, 0, 1)), (40, 40), (40, 40))
    for count, rest in ((2, "the other source alone"), (3, "the other sources alone")):
        notes = fuser(transform=(known,) * (count - 1)).fuse(*pictures[:count]).report["warnings"]
        assert [note.endswith(rest) for note in notes if "shows" in note] == [True] * (count - 1)


def test_scenes_keep_the_transform_of_their_first_picture(fuser, scene, monkeypatch):
    infrared, visible = (from_array(x) for x in scene)
    scenes = SceneFuser(fuser(align="translation"))
    first = scenes.fuse(infrared, visible)
    monkeypatch.setattr("ddfm.registration.gathering.estimate", None)  # would be called in vain
    assert np.array_equal(scenes.fuse(infrared, visible), first)
    dark = from_array(np.zeros_like(infrared.data))
    assert scenes.fuse(dark, visible).shape == (160, 200, 3)


@pytest.mark.parametrize("value", [7, ("t.json",), (), [object()]])
def test_what_is_no_transform_is_refused(value):
    with pytest.raises(DDFMError, match="transform: got"):
        FuseConfig(transform=value)
