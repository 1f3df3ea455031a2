"""Clips fused: frames find their partners, scenes their cuts, sound its place, and a stop leaves no half file."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfm import video
from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io.clip import ClipFrame
from ddfm.io.video import open_clips
from ddfm.moving import moving_street, overlap, still
from ddfm.partners import Follower
from ddfm.video import ClipConfig, Stopped, fuse_videos, partial_path

av = pytest.importorskip("av")
SIZE = (32, 48)
LUMA = np.array((0.299, 0.587, 0.114))
pytestmark = pytest.mark.usefixtures("one_thread")


def levels(picture):
    return np.rint(picture * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def street():
    return list(moving_street(SIZE, 16))


@pytest.fixture
def pair(tmp_path, make_clip, street):
    """ir.mkv, grey, and vis.mkv with sound: 12 frames at 25 a second, lossless."""
    make_clip(tmp_path / "ir.mkv", [levels(f.infrared) for f in street[:12]])
    make_clip(tmp_path / "vis.mkv", [levels(f.visible) for f in street[:12]], audio=0.48)
    return [tmp_path / "ir.mkv", tmp_path / "vis.mkv"]


@pytest.fixture
def config(tiny_prior):
    return FuseConfig(prior=str(tiny_prior), preset="fast", noise_std=0)


def read(path):
    (clip,) = open_clips([Path(path)])
    return list(clip.frames())


def lossless(**options):
    return ClipConfig(lossless=True, **options)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.suffix == ".part"]


# ---- a clip from end to end ------------------------------------------------------------------------


def test_frames_times_sound_and_report(pair, tmp_path, config):
    seen = []
    report = fuse_videos(
        pair, tmp_path / "f.mkv", config, lossless(), on_frame=lambda done, of: seen.append((done, of))
    )
    frames = read(tmp_path / "f.mkv")
    assert [f.time for f in frames] == [Fraction(k, 25) for k in range(12)]
    assert frames[0].image.data.shape == (*SIZE, 3)
    assert (report["frames"], report["left_out"], report["cuts"], report["codec"]) == (12, 0, [], "ffv1")
    assert report["audio"] == {"codec": "aac", "from": str(pair[1])}
    assert report["inputs"][0]["sha256"] and report["inputs"][1]["audio"] == "aac" and report["versions"]["av"]
    assert report["seconds_per_frame"] > 0 and report["warnings"] == []
    assert seen[0] == (1, 12) and seen[-1] == (12, 12)
    json.dumps(report)


def test_the_first_frame_is_what_fusing_the_two_pictures_gives(pair, tmp_path, config, street):
    """Nothing is shared yet; what follows shares the noise field, the scales and the steady gain."""
    fuse_videos(pair, tmp_path / "f.mkv", config, lossless())
    alone = Fuser(config).fuse(levels(street[0].infrared), levels(street[0].visible)).data
    assert np.abs(levels(read(tmp_path / "f.mkv")[0].image.data) - levels(alone).astype(int)).max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_same_bytes_again(pair, tmp_path, config, suffix):
    a, b = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (a, b):
        fuse_videos(pair, path, config)
    assert a.read_bytes() == b.read_bytes()


def test_two_grey_clips_give_a_grey_one_and_one_black_frame_no_other_colour(tmp_path, make_clip, street, config):
    grey = [levels(f.infrared) for f in street[:4]]
    make_clip(tmp_path / "a.mkv", grey)
    make_clip(tmp_path / "b.mkv", [levels(f.visible @ LUMA) for f in street[:4]])
    fuse_videos([tmp_path / "a.mkv", tmp_path / "b.mkv"], tmp_path / "f.mkv", config, lossless())
    assert read(tmp_path / "f.mkv")[0].image.data.shape == SIZE
    # a thermal clip stored as colour, faintly tinted by its coding, beside a visible one with a black frame
    tinted = [np.repeat(g[..., None], 3, axis=2) + np.array((3, 0, 0), np.uint8) * (g[..., None] < 250) for g in grey]
    visible = [levels(f.visible) for f in street[:4]]
    visible[2] = np.zeros_like(visible[2])
    make_clip(tmp_path / "c.mkv", tinted)
    make_clip(tmp_path / "d.mkv", visible)
    fuse_videos([tmp_path / "c.mkv", tmp_path / "d.mkv"], tmp_path / "g.mkv", config, lossless())
    black = levels(read(tmp_path / "g.mkv")[2].image.data).astype(int)
    assert np.ptp(black, axis=-1).max() <= 1  # grey, not red


# ---- frames that belong together -------------------------------------------------------------------


@dataclass
class Info:
    frames: int
    rate: Fraction = Fraction(1000)


class Times:
    """A clip of nothing but times."""

    def __init__(self, times):
        self.times = [Fraction(t) for t in times]
        self.info = Info(len(times))

    def frames(self):
        return (ClipFrame(None, t) for t in self.times)


@pytest.mark.parametrize("seed", range(5))
def test_partners_are_the_nearest_in_time(seed):
    rng = np.random.default_rng(seed)
    theirs = sorted({Fraction(int(t), 1000) for t in rng.integers(0, 2000, 25)})
    ours = sorted({Fraction(int(t), 1000) for t in rng.integers(0, 2000, 60)})
    offset, tolerance = Fraction(int(rng.integers(-200, 200)), 1000), Fraction(60, 1000)
    follower = Follower(Times(theirs), offset, tolerance)
    served = []
    for moment in ours:
        found = follower.at(moment)
        gaps = [abs(t + offset - moment) for t in theirs]
        if min(gaps) > tolerance:
            assert found is None
        else:
            assert found.time == theirs[gaps.index(min(gaps))]  # the first of two as near
            served.append(found.time)
    assert follower.used == len(set(served))
    assert follower.again == len(served) - len(set(served))


def numbered(tmp_path, make_clip, name, count, fps, **options):
    """A clip whose frames show their number, as a bar among texture."""
    rng = np.random.default_rng(len(name) + fps + count)
    base = rng.integers(40, 200, SIZE).astype(np.uint8)
    frames = []
    for k in range(count):
        frames.append(base.copy())
        frames[-1][:8, : k + 1] = 255
    return make_clip(tmp_path / name, frames, fps=fps, **options)


def fused_times(paths, tmp_path, config, **options):
    report = fuse_videos(paths, tmp_path / "f.mkv", config, lossless(**options), overwrite=True)
    return [float(f.time) for f in read(tmp_path / "f.mkv")], report


def test_different_rates_are_matched_by_time(tmp_path, make_clip, config):
    slow = numbered(tmp_path, make_clip, "ir.mkv", 9, 9)
    fast = numbered(tmp_path, make_clip, "vis.mkv", 30, 30)
    times, report = fused_times([slow, fast], tmp_path, config)
    assert times == pytest.approx([k / 30 for k in range(30)], abs=1e-3)
    assert report["partners"][str(slow)] == {"used": 9, "again": 21, "left_out": 0}
    times, report = fused_times([fast, slow], tmp_path, config)  # the slow one leads
    assert times == pytest.approx([k / 9 for k in range(9)], abs=1e-3)
    assert report["partners"][str(fast)] == {"used": 9, "again": 0, "left_out": 21}


def test_a_shorter_clip_ends_the_result_and_is_told(tmp_path, make_clip, config):
    short, long = (numbered(tmp_path, make_clip, f"{n}.mkv", n, 25) for n in (6, 12))
    times, report = fused_times([short, long], tmp_path, config)
    assert len(times) == 6 and report["left_out"] == 6
    assert "its last 6 frames have no partner; the result ends after 0.20 s" in report["warnings"][0]
    assert f"{short} ends at 0.24 s, {long} goes on to 0.48 s" in report["warnings"][0]
    times, report = fused_times([long, short], tmp_path, config)
    assert len(times) == 6 and "12.mkv: 6 frames are the nearest of none" in report["warnings"][0]
    assert report["warnings"][0].endswith(f"{short} ends at 0.24 s, {long} goes on to 0.48 s")
    fast = numbered(tmp_path, make_clip, "fast.mkv", 50, 50)  # some of its frames serve nowhere anyhow; its end is told
    assert "goes on to 1.00 s" in fused_times([fast, long], tmp_path, config)[1]["warnings"][0]
    shown = fused_times([fast, long], tmp_path, config, offset=Fraction(-52, 100))[1]["warnings"]
    assert shown == []


def test_a_transport_stream_that_was_cut_short_is_what_is_doubted(tmp_path, make_clip, config):
    options = {"codec": "libx264", "pixels": "yuv420p", "options": {"g": "1"}}
    whole = numbered(tmp_path, make_clip, "whole.ts", 20, 25, **options)
    other = numbered(tmp_path, make_clip, "other.mkv", 20, 25)
    assert fused_times([whole, other], tmp_path, config)[1]["warnings"] == []
    half = whole.read_bytes()[: whole.stat().st_size // 2 // 188 * 188]
    for extra, cut in ((0, False), (100, True)):
        (tmp_path / "half.ts").write_bytes(half + whole.read_bytes()[len(half) : len(half) + extra])
        for sources in ([tmp_path / "half.ts", other], [other, tmp_path / "half.ts"]):
            told = " ".join(fused_times(sources, tmp_path, config)[1]["warnings"])
            assert "half.ts ends at 0." in told and "other.mkv goes on to 0.80 s (half.ts is of a format that" in told
            assert ("its last packet is cut off" in told) == cut


def test_an_offset_moves_the_first_clip_and_the_result_begins_at_zero(tmp_path, make_clip, config):
    a, b = (numbered(tmp_path, make_clip, f"{n}.mkv", 12, 25) for n in ("a", "bb"))
    times, report = fused_times([a, b], tmp_path, config, offset=Fraction(16, 100))
    assert times == pytest.approx([k / 25 for k in range(8)], abs=1e-3)
    assert "its first 4 frames have no partner; the result begins at 0.16 s" in report["warnings"][0]


def test_sound_stays_with_its_pictures_when_the_beginning_is_left_out(tmp_path, make_clip, config):
    a = numbered(tmp_path, make_clip, "a.mkv", 12, 25)
    b = numbered(tmp_path, make_clip, "bb.mkv", 12, 25, audio=0.48)
    fuse_videos([a, b], tmp_path / "f.mkv", config, lossless(offset=Fraction(16, 100)))

    def sound(path):
        with av.open(str(path)) as file:
            return {bytes(p): float(p.pts * p.time_base) for p in file.demux(audio=0) if p.size}

    before, after = sound(b), sound(tmp_path / "f.mkv")
    assert len(after) > 8
    for content, moment in after.items():
        assert moment == pytest.approx(before[content] - 0.16, abs=2e-3)  # both count milliseconds


def test_the_last_frame_lasts_for_its_period_and_no_longer():
    follower = Follower(Times([0, Fraction(1, 10)]), Fraction(0), Fraction(2, 100))
    follower.clip.info.rate = Fraction(10)
    found = [follower.at(Fraction(k, 100)) is not None for k in range(25)]
    assert found == [k <= 2 or 8 <= k <= 19 for k in range(25)]


def test_a_gap_leaves_a_gap_and_is_told(tmp_path, make_clip, config):
    frames = [levels(np.full(SIZE, 0.5) + 0.2 * np.random.default_rng(0).random(SIZE))] * 8
    stamps = [0, 40, 80, 120, 280, 320, 360, 400]  # three frames were dropped
    gap = make_clip(tmp_path / "gap.mkv", frames, stamps=stamps)
    whole = numbered(tmp_path, make_clip, "whole.mkv", 11, 25)
    times, report = fused_times([gap, whole], tmp_path, config)
    assert times == pytest.approx([t / 1000 for t in stamps], abs=1e-3)
    assert "3 frames in between have no partner and are left out, at 0.16 s first" in report["warnings"][0]
    assert len(fused_times([gap, whole], tmp_path, config, tolerance=Fraction(1, 10))[0]) == 11


def test_folders_of_frames_make_a_clip(tmp_path, street, config):
    for name, key in (("ir", "infrared"), ("vis", "visible")):
        (tmp_path / name).mkdir()
        for k in (0, 1, 2, 4):
            Image.fromarray(levels(getattr(street[k], key))).save(tmp_path / name / f"{k}.png")
    sources = [tmp_path / "ir", tmp_path / "vis"]
    report = fuse_videos(sources, tmp_path / "f.mp4", config, ClipConfig(fps=Fraction(10)))
    assert [float(f.time) for f in read(tmp_path / "f.mp4")] == pytest.approx([0, 0.1, 0.2, 0.4])
    assert "1 frames are missing between" in " ".join(report["warnings"])


# ---- scenes ----------------------------------------------------------------------------------------


def test_after_a_known_cut_everything_begins_anew(tmp_path, make_clip, config, street):
    """What comes after the cut is, to the bit, what that scene alone gives."""
    other = list(moving_street(SIZE, 6, 1, mirrored=True))
    for name, frames in (("both", [*street[:6], *other]), ("alone", other)):
        make_clip(tmp_path / f"ir-{name}.mkv", [levels(f.infrared) for f in frames])
        make_clip(tmp_path / f"vis-{name}.mkv", [levels(f.visible) for f in frames])
        sources = [tmp_path / f"{kind}-{name}.mkv" for kind in ("ir", "vis")]
        report = fuse_videos(sources, tmp_path / f"{name}.mkv", config, lossless())
        assert report["cuts"] == ([0.24] if name == "both" else [])
    both, alone = read(tmp_path / "both.mkv"), read(tmp_path / "alone.mkv")
    for a, b in zip(both[6:], alone, strict=True):
        assert np.array_equal(a.image.data, b.image.data)


def test_a_cut_that_a_slower_camera_shows_later_is_one(tmp_path, make_clip, config, street):
    other = list(moving_street(SIZE, 9, 1, mirrored=True))
    frames = [*street[:9], *other]
    make_clip(tmp_path / "ir.mkv", [levels(f.infrared) for f in frames[2::3]], fps=10)
    make_clip(tmp_path / "vis.mkv", [levels(f.visible) for f in frames], fps=30)
    report = fuse_videos([tmp_path / "ir.mkv", tmp_path / "vis.mkv"], tmp_path / "f.mkv", config, lossless())
    assert len(report["cuts"]) == 1 and 0.25 < report["cuts"][0] <= 0.3


def flicker(frames, clip):
    """Of what stands still, laid over each other: grey levels."""
    found = []
    for (before, after), (old, new) in zip(itertools.pairwise(frames), itertools.pairwise(clip), strict=True):
        where, step = still(before, after)
        a, b = overlap(old, new, step)
        inside = where[:, max(0, -step) : where.shape[1] - max(0, step)]
        found.append(np.abs(a - b)[inside].mean())
    return 255 * float(np.mean(found))


def test_a_clip_flickers_less_than_its_frames_fused_alone(tmp_path, make_clip, config):
    frames = list(moving_street((48, 64), 14, noise=0.0))
    make_clip(tmp_path / "ir.mkv", [levels(f.infrared) for f in frames])
    make_clip(tmp_path / "vis.mkv", [levels(f.visible) for f in frames])
    fuse_videos([tmp_path / "ir.mkv", tmp_path / "vis.mkv"], tmp_path / "f.mkv", config, lossless())
    together = flicker(frames, [f.image.data @ LUMA for f in read(tmp_path / "f.mkv")])
    fuser = Fuser(config)
    alone = [fuser.fuse(levels(f.infrared), levels(f.visible)).data @ LUMA for f in frames]
    assert together < 0.75 * flicker(frames, alone)  # 0.5 and 0.9 levels or so; 0.3 is the rounding to 8 bits


# ---- bounded memory --------------------------------------------------------------------------------


def test_no_more_than_a_few_frames_are_held(pair, tmp_path, config, monkeypatch):
    alive, most = weakref.WeakSet(), []
    plain = video.Moment.__init__

    def counting(self, moment, images):
        plain(self, moment, images)
        alive.update(images)
        most.append(len(alive))

    monkeypatch.setattr(video.Moment, "__init__", counting)
    fuse_videos(pair, tmp_path / "f.mp4", config)
    assert len(most) == 12 and max(most) <= 6  # two of the first source, one of the second, and those being fused


# ---- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
def test_ctrl_c_in_the_middle(pair, tmp_path, config, keep):
    def stop(done, of):
        if done == 5:
            raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with pytest.raises(Stopped) as stopped:
        fuse_videos(pair, tmp_path / "f.mp4", config, ClipConfig(keep_partial=keep), on_frame=stop)
    left = set(tmp_path.iterdir()) - before
    assert left == ({tmp_path / "f.partial.mp4"} if keep else set())
    assert stopped.value.kept == (partial_path(tmp_path / "f.mp4") if keep else None)
    if keep:
        assert len(read(tmp_path / "f.partial.mp4")) == stopped.value.frames > 0


def test_a_size_that_changes_in_the_middle(tmp_path, make_clip, street, config):
    def part(name, size):
        frames = [np.resize(levels(f.visible), (*size, 3)) for f in street[:8]]
        return make_clip(
            tmp_path / name, frames, codec="mpeg2video", pixels="yuv420p", base=Fraction(1, 25)
        ).read_bytes()

    (tmp_path / "vis.ts").write_bytes(part("a.ts", SIZE) + part("b.ts", (48, 64)))
    make_clip(tmp_path / "ir.mkv", [levels(f.infrared) for f in street])
    sources = [tmp_path / "ir.mkv", tmp_path / "vis.ts"]
    with pytest.raises(DDFMError, match="got 64x48 pixels, expected 48x32"):
        fuse_videos(sources, tmp_path / "f.mp4", config)
    assert not (tmp_path / "f.mp4").exists() and leftovers(tmp_path) == []
    with pytest.raises(DDFMError, match=r"frames until then are in \S*f\.partial\.mp4"):
        fuse_videos(sources, tmp_path / "f.mp4", config, ClipConfig(keep_partial=True))
    assert len(read(tmp_path / "f.partial.mp4")) >= 6


def test_a_source_that_breaks_off_is_refused_or_taken_as_far_as_it_goes(pair, tmp_path, make_clip, config):
    rng = np.random.default_rng(0)
    long = make_clip(tmp_path / "long.mkv", [rng.integers(0, 255, SIZE, dtype=np.uint8) for _ in range(50)])
    raw = long.read_bytes()
    long.write_bytes(raw[: len(raw) // 2])
    sources = [long, pair[1]]
    with pytest.raises(DDFMError, match="breaks off at"):
        fuse_videos(sources, tmp_path / "f.mp4", config)
    report = fuse_videos(sources, tmp_path / "f.mp4", config, ClipConfig(keep_partial=True))
    assert report["frames"] == 12
    assert "breaks off" in " ".join(report["warnings"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offset": Fraction(100)}, "--offset"),
        ({"fps": Fraction(0)}, "--fps"),
        ({"memory": 2.0}, "memory"),
        ({"tolerance": Fraction(-1)}, "--tolerance"),
        ({"crf": 99}, "--crf"),
    ],
)
def test_settings_that_do_not_fit(pair, tmp_path, config, change, words):
    with pytest.raises(DDFMError, match=words):
        fuse_videos(pair, tmp_path / "f.mp4", config, ClipConfig(**change))
    assert not (tmp_path / "f.mp4").exists()


def test_sizes_that_differ_and_one_source(pair, tmp_path, make_clip, config):
    other = make_clip(tmp_path / "o.mkv", [np.zeros((48, 64), np.uint8)] * 3)
    with pytest.raises(DDFMError, match=r"o\.mkv is 64x48"):
        fuse_videos([other, pair[1]], tmp_path / "f.mp4", config)
    with pytest.raises(DDFMError, match="two or more"):
        fuse_videos(pair[:1], tmp_path / "f.mp4", config)


def test_a_smaller_clip_is_aligned_as_pictures_are(pair, tmp_path, make_clip, street, config):
    small = [levels(f.infrared)[::2, ::2] for f in street[:4]]
    other = make_clip(tmp_path / "small.mkv", small)
    aligned = dataclasses.replace(config, align="resize")
    fuse_videos([other, pair[1]], tmp_path / "f.mkv", aligned, lossless())
    frames = read(tmp_path / "f.mkv")
    alone = Fuser(aligned).fuse(small[0], levels(street[0].visible)).data
    assert len(frames) == 4
    assert np.abs(levels(frames[0].image.data) - levels(alone).astype(int)).max() <= 1


# ---- the command line ------------------------------------------------------------------------------


@pytest.fixture
def ddfm(pair, tmp_path, tiny_prior, command_line, monkeypatch):
    """Run ``ddfm fuse`` in the folder of the clips."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        quiet = [] if "--noise-std" in words else ["--noise-std", "0"]
        return command_line("fuse", *words, "--prior", tiny_prior, *quiet)

    return run


def test_one_command_for_a_clip(ddfm, tmp_path):
    code, text = ddfm("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "r.jsonl")
    assert code == 0
    assert text.startswith("f.mp4 (12 frames, ") and "s each" in text and text.endswith("libx264, audio aac)")
    (record,) = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert (record["status"], record["frames"], record["fps"]) == ("fused", 12, 25.0)
    code, text = ddfm("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "r.jsonl")
    assert code == 2 and "--overwrite" in text
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[1])["status"] == "failed"
    assert ddfm("ir.mkv", "vis.mkv", "-o", "f.mp4", "--overwrite", "--crf", 30)[0] == 0


def test_the_content_decides_and_a_folder_takes_the_first_name(ddfm, tmp_path):
    (tmp_path / "ir.mkv").rename(tmp_path / "ir.png")
    (tmp_path / "out").mkdir()
    assert ddfm("ir.png", "vis.mkv", "-o", "out")[0] == 0
    assert (tmp_path / "out" / "ir.mp4").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ir.mkv", "none.mkv", "-o", "f.mp4"), "none.mkv: got no such file"),
        (("ir.mkv", "still.png", "-o", "f.mp4"), "still.png: got a file that is no video"),
        (("still.png", "still.png", "-o", "f.mp4"), "still.png: got a file that is no video"),
        (("ir.mkv", "vis.mkv", "-o", "f.png"), "a name ending in .mp4, .mov, .mkv, .webm"),
        (("ir.mkv", "vis.mkv", "-o", "no/f.mp4"), "mkdir -p no"),
        (("ir.mkv", "vis.mkv", "-o", "vis.mkv", "--overwrite"), "another file than a source"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--bit-depth", "16"), "--lossless"),
        (
            ("ir.mkv", "vis.mkv", "-o", "f.mp4", "--suffix", ".tif"),
            "--suffix: got a clip, expected pictures or volumes",
        ),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--offset", "soon"), "--offset: got 'soon'"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--offset", "nan"), "expected seconds such as 0.04"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--fps", "1/0"), "--fps: got '1/0', expected frames a second such as 25"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--fps", "50"), "--fps: got 50 without a folder of frames"),
        (("ir.mkv", "vis.mkv", "-o", "f.avi"), ".avi is read, not written: write f.mkv or f.mp4."),
        (("frames", "frames", "-o", "f.avi", "--fps", "25"), ".avi is read, not written: write f.mkv or f.mp4."),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "f.mp4"), "--report: got f.mp4, expected another name"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "f.partial.mp4"), "--report: got f.partial.mp4"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "new.mkv"), "a clip's or a volume's"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--report", "link"), "--report: got link, expected another name"),
        (("still.png", "still.png", "-o", "f.png", "--report", "new.avi"), "a clip's or a volume's"),
        (("ir.mkv", "vis.mkv", "-o", "f.mp4", "--noise-std", "0.1,0.1,0.1"), "noise_std: got 3 values"),
        (("still.png", "still.png", "-o", "f.png", "--fps", "25"), "--fps: got no clip among the sources"),
        (("frames", "frames", "-o", "f.mp4"), "--fps 25"),
        (("empty.mp4", "vis.mkv", "-o", "f.mp4"), "empty.mp4: got an empty file"),
    ],
)
def test_bad_requests_teach(ddfm, tmp_path, words, says):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "still.png")
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "frames" / "1.png")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "link").symlink_to("f.mp4")
    before = {path: path.stat().st_size for path in tmp_path.iterdir() if path.is_file()}
    code, text = ddfm(*words)
    assert (code, says in text) == (2, True), text
    assert {path: path.stat().st_size for path in tmp_path.iterdir() if path.is_file()} == before


def test_false_colours_are_told_of(ddfm, tmp_path, make_clip):
    frames = list(moving_street((240, 320), 1))
    table = np.array([(0, 0, 0), (32, 0, 140), (200, 20, 110), (250, 160, 0), (255, 255, 246)], np.float32)
    places = np.linspace(0, 1, 5)
    painted = [
        np.stack([np.interp(f.infrared, places, table[:, k]) for k in range(3)], axis=-1).round().astype(np.uint8)
        for f in frames
    ]
    make_clip(tmp_path / "iron.mkv", painted)
    make_clip(tmp_path / "large.mkv", [levels(f.visible) for f in frames])
    code, text = ddfm("iron.mkv", "large.mkv", "-o", "f.mp4")
    assert code == 0 and "iron.mkv: looks painted with a colour palette" in text


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "again"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGINT, (0.0, 0.02, 0.05, 0.1, 0.2, 0.3))],
)
def test_a_signal_leaves_no_half_file(tmp_path, make_clip, street, tiny_prior, number, again):
    """A run of its own, stopped once its temporary file is there; then again by who does not wait for its end."""
    make_clip(tmp_path / "ir.mkv", [levels(f.infrared) for f in street] * 40)
    make_clip(tmp_path / "vis.mkv", [levels(f.visible) for f in street] * 40)
    words = [
        "fuse",
        "ir.mkv",
        "vis.mkv",
        "-o",
        "f.mp4",
        "--keep-partial",
        "--prior",
        str(tiny_prior),
        "--noise-std",
        "0",
    ]
    run = subprocess.Popen(
        [sys.executable, "-m", "ddfm", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if leftovers(tmp_path) or run.poll() is not None:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    run.send_signal(number)
    for pause in again:
        time.sleep(pause)
        run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert "they are in f.partial.mp4" in errors
    assert leftovers(tmp_path) == [] and not (tmp_path / "f.mp4").exists()
    assert read(tmp_path / "f.partial.mp4")
