"""Clips of counts and kelvins: one range for all frames; and what is kept beside a clip that was aligned."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
import tifffile
from PIL import Image

from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig
from ddfm.io.ranges import USUAL, Range, parse_ranges
from ddfm.io.video import open_clips
from ddfm.moving import moving_street
from ddfm.registration import Transform, load_transforms, save_transforms
from ddfm.registration.transform import corner_error
from ddfm.video import ClipConfig, fuse_videos

pytest.importorskip("av")
pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, COUNT = (32, 48), 6
AUTO = parse_ranges("auto")[0]


def levels(picture):
    return np.rint(picture * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def street():
    return list(moving_street(SIZE, COUNT))


@pytest.fixture
def config(tiny_prior):
    return FuseConfig(prior=str(tiny_prior), preset="fast", noise_std=0)


def counts_of(street):
    """14 bits in 16, a scene that gets warmer by some counts from frame to frame."""
    return [np.rint(21000 + 3000 * f.infrared + 50 * k).astype(np.uint16) for k, f in enumerate(street)]


@pytest.fixture
def folders(tmp_path, street):
    """counts/ and kelvin/, TIFF; grey/, PNG of 8 bits; vis/, colour."""
    for name in ("counts", "kelvin", "grey", "vis"):
        (tmp_path / name).mkdir()
    for k, (frame, count) in enumerate(zip(street, counts_of(street), strict=True)):
        tifffile.imwrite(tmp_path / f"counts/{k}.tif", count)
        tifffile.imwrite(tmp_path / f"kelvin/{k}.tif", (count / 80).astype(np.float32))
        Image.fromarray(levels(frame.infrared)).save(tmp_path / f"grey/{k}.png")
        Image.fromarray(levels(frame.visible)).save(tmp_path / f"vis/{k}.png")
    return tmp_path


def opened(path, span):
    (clip,) = open_clips([path], Fraction(25) if path.is_dir() else None, [span])
    return clip, [frame.image for frame in clip.frames()]


# ---- one range -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [USUAL, AUTO])
@pytest.mark.parametrize("name", ["counts", "kelvin", "video"])
def test_one_range_for_all_frames_and_the_counts_come_back(folders, make_clip, street, name, asked):
    stored = counts_of(street)
    path = make_clip(folders / "counts.mkv", stored) if name == "video" else folders / name
    if name == "kelvin":
        stored = [count / np.float32(80) for count in stored]
        if asked is USUAL:
            with pytest.raises(DDFMError, match="--range auto, or LOW:HIGH"):
                opened(path, asked)
            return
    clip, frames = opened(path, asked)
    low, high = np.percentile(np.stack(stored), (0.1, 99.9))
    relation = clip.info.relation
    assert (relation.offset, relation.offset + relation.slope) == pytest.approx((low, high), rel=1e-6)
    for image, values in zip(frames, stored, strict=True):
        inside = (values > low) & (values < high)
        np.testing.assert_allclose(relation.values(image.data)[inside], values[inside], rtol=1e-6)
    everything = np.stack(stored)
    assert relation.below == pytest.approx((everything < low).mean(), abs=2 / everything.size)
    assert relation.above == pytest.approx((everything > high).mean(), abs=2 / everything.size)
    assert bool(clip.notes()) == (asked is USUAL)
    if asked is USUAL:
        assert f"{path}: counts {low:.0f} to {high:.0f} of 16 bits" in clip.notes()[0]


def test_a_picture_of_16_bits_stays_as_it_was(folders, make_clip):
    pictures = [np.random.default_rng(k).integers(0, 65536, SIZE, dtype=np.uint16) for k in range(3)]
    path = make_clip(folders / "pale.mkv", pictures)
    for span in (None, USUAL, Range("full", deep_only=True)):
        clip, frames = opened(path, span)
        for image, picture in zip(frames, pictures, strict=True):
            assert np.array_equal(image.data, np.true_divide(picture, 65535, dtype=np.float32))
        assert not clip.notes()


def test_a_frame_beyond_the_range_is_clipped_and_the_clip_goes_on(folders):
    tifffile.imwrite(folders / "counts/3.tif", np.full(SIZE, 100, np.uint16))  # a shutter, say
    clip, frames = opened(folders / "counts", parse_ranges("21000:24000")[0])
    assert (frames[3].data == 0).all() and frames[2].data.std() > 0.05
    assert clip.info.relation.below == pytest.approx(1 / 6)
    with pytest.raises(DDFMError, match=r"counts: got values from 100 to 23\d+, expected some within the --range 1:9"):
        opened(folders / "counts", parse_ranges("1:9")[0])
    clip, _ = opened(folders / "counts", parse_ranges("21000:22000")[0])
    assert "of the values of its frames lie outside --range 21000:22000" in clip.notes()[0]


def test_a_clip_of_counts_shows_its_infrared(folders, config):
    """The range is the whole difference: a clip of counts is that of their levels in 8 bits, but for their rounding."""
    sources = [folders / "counts", folders / "vis"]
    clip = ClipConfig(fps=Fraction(25), lossless=True)
    told = fuse_videos(sources, folders / "f.mkv", config, clip)
    assert told["inputs"][0]["range"]["asked"] == "auto" and "range" not in told["inputs"][1]
    assert not told["inputs"][0]["range"]["local_contrast"]
    (note,) = [note for note in told["warnings"] if "--range" in note]
    assert note.startswith(f"{folders / 'counts'}: counts 21")
    low, slope = (told["inputs"][0]["range"][key] for key in ("offset", "slope"))
    (folders / "shown").mkdir()
    for file in (folders / "counts").iterdir():
        shown = np.clip((tifffile.imread(file) - low) / slope, 0, 1)
        Image.fromarray(levels(shown)).save(folders / f"shown/{file.stem}.png")
    fuse_videos([folders / "shown", folders / "vis"], folders / "g.mkv", config, clip)
    full = dataclasses.replace(config, range="full")
    fuse_videos(sources, folders / "h.mkv", full, clip)
    f, g, h = (np.stack([x.data for x in opened(folders / f"{n}.mkv", None)[1]]) for n in "fgh")
    assert np.abs(f - g).mean() < 1 / 255
    assert np.abs(h - g).mean() > 5 / 255  # flat grey in place of the infrared


def test_local_contrast_of_a_clip(folders, config):
    clip = ClipConfig(fps=Fraction(25), lossless=True)
    told = fuse_videos(
        [folders / "counts", folders / "vis"], folders / "f.mkv", dataclasses.replace(config, clahe=True), clip
    )
    assert told["inputs"][0]["range"]["local_contrast"]
    with pytest.raises(DDFMError, match="clahe: got sources of 8 bits only"):
        fuse_videos(
            [folders / "grey", folders / "vis"], folders / "g.mkv", dataclasses.replace(config, clahe=True), clip
        )
    assert not (folders / "g.mkv").exists()


# ---- the command line ------------------------------------------------------------------------------


@pytest.fixture
def ddfm(folders, tiny_prior, command_line, monkeypatch):
    monkeypatch.chdir(folders)
    words = ("--prior", tiny_prior, "--preset", "fast", "--noise-std", "0", "--fps", "25")
    return lambda *given: command_line("fuse", *given, *words)


@pytest.mark.parametrize("asked", ["270:300", "p1:p99", "auto", "auto,full"])
def test_kelvins_by_the_command_that_the_message_names(ddfm, folders, asked):
    code, text = ddfm("kelvin", "vis", "-o", "f.mp4")
    assert code == 2 and "--range auto, or LOW:HIGH" in text
    assert ddfm("kelvin", "vis", "-o", "f.mp4", "--range", asked, "--report", "r.jsonl")[0] == 0
    assert json.loads((folders / "r.jsonl").read_text())["inputs"][0]["range"]["asked"] == asked.split(",")[0]


def test_ranges_that_do_not_fit(ddfm, folders):
    before = sorted(folders.rglob("*"))
    for words, says in (
        (("grey", "vis", "--range", "auto"), "sources of 8 bits, or floats in [0, 1], only"),
        (("kelvin", "vis", "--range", "full"), "kelvin/0.tif: got float32 values from"),
        (("kelvin", "vis", "--range", "auto,full,full"), "3 ranges, expected one, or 2"),
    ):
        code, text = ddfm(*words, "-o", "f.mp4")
        assert code == 2 and says in text, text
    assert sorted(folders.rglob("*")) == before


# ---- what is kept beside an aligned clip -----------------------------------------------------------


@pytest.fixture
def apart(tmp_path):
    """left/ and right/: a scene of two cameras, 120x160, the first one's shifted by (3, -4)."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
    for k, frame in enumerate(moving_street((120, 160), 2)):
        Image.fromarray(levels(np.roll(frame.infrared, (3, -4), (0, 1)))).save(tmp_path / f"left/{k}.png")
        Image.fromarray(levels(frame.visible)).save(tmp_path / f"right/{k}.png")
    return tmp_path


def test_the_transform_of_a_clip_is_told_kept_and_used_again(ddfm, apart):
    words = ("left", "right", "--report", "r.jsonl", "--lossless")
    beside = ("--save-transform", "t.json", "--checkerboard", "c.png")
    code, text = ddfm(*words, "-o", "f.mkv", "--align", "translation", *beside)
    assert code == 0, text
    (found,) = load_transforms("t.json")
    truth = np.array([[1, 0, -4], [0, 1, 3], [0, 0, 1]])
    assert corner_error(found.array, truth, (120, 160)) < 1
    record = json.loads((apart / "r.jsonl").read_text())
    (told,) = record["align"]["transforms"]
    assert told["matrix"] == [list(row) for row in found.matrix] and told["evidence"]["agree"] > 5
    assert 0.9 < told["inside"] < 1 and record["align"]["estimated_at"] == 0
    with Image.open("c.png") as board:
        assert board.size == (160, 120)
    assert ddfm(*words, "-o", "g.mkv", "--transform", "t.json")[0] == 0
    assert (apart / "f.mkv").read_bytes() == (apart / "g.mkv").read_bytes()
    again = json.loads((apart / "r.jsonl").read_text().splitlines()[1])
    assert "estimated_at" not in again["align"] and again["align"]["transforms"][0]["matrix"] == told["matrix"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--checkerboard", "left/0.png"), "--checkerboard: got left/0.png, expected another file than a source"),
        (("--save-transform", "right/1.png"), "--save-transform: got right/1.png, expected another file than a source"),
        (("--save-transform", "f.mkv"), "--save-transform: got f.mkv, which is the file of --output too"),
        (("--report", "f.mkv"), "--report: got f.mkv, expected another name than the clip's"),
        (("--checkerboard", "left"), "a file in an existing folder"),
        (("--transform", "t.json", "--report", "t.json"), "t.json, which is not a ddfm report"),
    ],
)
def test_no_frame_is_replaced(ddfm, apart, words, says):
    known = Transform("translation", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), (120, 160), (120, 160))
    save_transforms("t.json", [known])
    before = {path: path.read_bytes() for path in apart.rglob("*") if path.is_file()}
    align = () if "--transform" in words else ("--align", "resize")
    code, text = ddfm("left", "right", "-o", "f.mkv", *align, *words, "--overwrite")
    assert code == 2 and says in text, text
    assert {path: path.read_bytes() for path in apart.rglob("*") if path.is_file()} == before


def test_checkerboard_needs_an_alignment(ddfm, apart):
    code, text = ddfm("left", "right", "-o", "f.mkv", "--checkerboard", "c.png")
    assert code == 2 and "beside --align or --transform" in text
