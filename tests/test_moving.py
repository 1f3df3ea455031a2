"""Clips and what is seen in them: the moving street's truth, cuts, and the gain of a thermal camera."""

import itertools

import numpy as np
import pytest

from ddfm._checks import DDFMError
from ddfm.cuts import CutDetector, thumbnail
from ddfm.moving import moving_street, overlap, still
from ddfm.samples import NOISE
from ddfm.steady import GainFollower, relation

SIZE = (48, 64)


@pytest.fixture(scope="module")
def clip():
    return list(moving_street(SIZE, 30))


# ---- the rendered clip ----------------------------------------------------------------------------


def test_seed_decides_every_byte(clip):
    again, other = list(moving_street(SIZE, 3)), list(moving_street(SIZE, 3, seed=1))
    for a, b, c in zip(clip, again, other, strict=False):
        assert a.visible.tobytes() == b.visible.tobytes()
        assert np.abs(a.visible - c.visible).max() > 0.05
    assert np.array_equal(clip[2].clean_visible, again[2].clean_visible)


def test_what_stands_still_is_the_same_after_the_pan_and_people_are_not(clip):
    for before, after in itertools.pairwise(clip[:17]):  # then the pan turns round
        where, step = still(before, after)
        assert step == 1
        a, b = overlap(before.clean_visible, after.clean_visible, step)
        inside = where[:, : SIZE[1] - 1]
        assert np.abs(a - b)[inside].max() < 0.5 / 255
        assert where.mean() > 0.6
        assert not where[:, -1].any()  # what comes into view
    moved = [still(a, b)[0][b.targets].mean() for a, b in itertools.pairwise(clip)]
    assert np.mean(moved) < 0.5  # walkers walk


def test_the_pan_turns_round(clip):
    pans = [frame.pan for frame in moving_street(SIZE, 40, speed=2)]
    assert max(pans) == SIZE[1] // 4 and min(pans) == 0
    assert {abs(a - b) for a, b in itertools.pairwise(pans)} <= {2, 0}


def test_a_mirrored_clip_is_the_same_seen_in_a_mirror(clip):
    other = list(moving_street(SIZE, 3, mirrored=True))
    for a, b in zip(clip, other, strict=False):
        assert np.array_equal(a.clean_visible, b.clean_visible[:, ::-1])
    assert still(other[0], other[1])[0].mean() > 0.6


def test_noise_and_drift_are_what_was_asked(clip):
    calm = list(moving_street(SIZE, 5, drift=0, noise=0))
    assert all(np.array_equal(f.infrared, f.clean_infrared) for f in calm)
    grain = np.concatenate([(f.visible - f.clean_visible).ravel() for f in clip])
    assert grain.std() == pytest.approx(NOISE["visible"], rel=0.05)  # 276,000 samples, some clipped
    ratio = [np.polyfit(f.clean_infrared.ravel(), f.infrared.ravel(), 1)[0] for f in clip]
    assert max(ratio) - min(ratio) > 0.08  # of 0.12 either way


@pytest.mark.parametrize("bad", [{"frames": 0}, {"drift": 2}, {"size": (8, 8)}, {"speed": -1}, {"noise": -1}])
def test_bad_requests(bad):
    with pytest.raises(DDFMError):
        next(moving_street(**bad))


# ---- cuts -----------------------------------------------------------------------------------------


def cuts(frames):
    detector = CutDetector()
    return [k for k, frame in enumerate(frames) if any(detector(frame.infrared, frame.visible))]


@pytest.mark.parametrize(("speed", "noise"), [(0, 1), (4, 1), (1, 5)])
def test_a_known_cut_is_found_and_nothing_else(speed, noise):
    first = list(moving_street(SIZE, 12, speed=speed, noise=noise))
    second = list(moving_street(SIZE, 12, 1, speed=speed, noise=noise, mirrored=True))
    assert cuts([*first, *second, *first]) == [12, 24]


def test_gain_flashes_black_frames_and_a_closed_shutter_are_no_cuts(clip):
    detector = CutDetector()
    for k, frame in enumerate(clip):
        infrared, visible = frame.infrared, frame.visible
        if k == 10:
            visible = np.clip(2.5 * visible + 0.2, 0, 1)  # a flash
        if k in (15, 16):
            infrared = np.full_like(infrared, 0.5)  # the thermal camera's shutter
        if k in (20, 21):
            visible = np.zeros_like(visible)
        assert not any(detector(infrared, visible))


def test_a_slower_camera_cuts_later_and_alone():
    first, second = (list(moving_street(SIZE, 9, seed, mirrored=bool(seed))) for seed in (0, 1))
    frames = [*first, *second]
    detector = CutDetector()
    # the infrared camera shows every third frame, the cut at 9 with the one that it takes at 11
    found = [detector(frames[max(0, k - (k + 1) % 3)].infrared, frame.visible) for k, frame in enumerate(frames)]
    assert [k for k, (infrared, _) in enumerate(found) if infrared] == [11]
    assert [k for k, (_, visible) in enumerate(found) if visible] == [9]


def test_a_thumbnail_does_not_see_level_and_scales_with_gain(clip):
    picture = clip[0].visible.astype(np.float64)
    assert thumbnail(0.5 * picture + 0.2) == pytest.approx(0.5 * thumbnail(picture), abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (16, 200), (33, 47)])
def test_cuts_in_any_size(size):
    a, b = list(moving_street(size, 4)), list(moving_street(size, 4, 1, mirrored=True))
    assert len(cuts([*a, *b])) <= 1  # tiny pictures may all look alike, but nothing fails


# ---- gain -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (1.1, -0.02), (0.8, 0.1)])
def test_the_relation_of_two_frames_is_found_though_a_quarter_of_them_moved(gain, offset):
    rng = np.random.default_rng(0)
    before = rng.uniform(0.2, 0.7, (32, 32))
    after = gain * before + offset
    after[:16, :16] = rng.uniform(0.2, 0.7, (16, 16))
    found = relation(before, after)
    # blocks of the moved quarter that agree by chance are left in, and bring their own spread
    assert found == pytest.approx((gain, offset), abs=0.03)


def test_nothing_is_learned_from_nothing():
    assert relation(np.full((8, 8), 0.5), np.full((8, 8), 1.0)) == (1.0, 0.0)  # white: clipped, tells nothing
    gain, offset = relation(np.full((8, 8), 0.5), np.full((8, 8), 0.6))
    assert (gain, offset) == (1.0, pytest.approx(0.1))  # flat: an offset, no gain


def test_drift_is_taken_out_and_a_still_scene_is_left_alone():
    """Of a scene that stands still, with drift alone: what remains is the letting go, and the noise."""
    frames = list(moving_street(SIZE, 25, speed=0))
    follower = GainFollower(1e6)
    steady = [follower(frame.infrared, 0.04) for frame in frames]
    level = [float(np.median(x)) for x in steady]
    raw = [float(np.median(f.infrared)) for f in frames]
    assert np.ptp(level) < 0.15 * np.ptp(raw)
    calm = GainFollower(1e6)
    for frame in moving_street(SIZE, 10, speed=0, drift=0):
        assert np.abs(calm(frame.infrared, 0.04) - frame.infrared).max() < 2 / 255


def test_a_lasting_change_comes_through_in_the_time_named():
    scene = np.tile(np.linspace(0.2, 0.6, 64), (48, 1)).astype(np.float32)
    follower = GainFollower(2.0)
    follower(scene, 0.04)
    found = [float((follower(scene + 0.1, 0.04) - scene).mean()) for _ in range(100)]  # 4 s
    assert found[0] < 0.01
    assert found[49] == pytest.approx(0.1 * (1 - np.exp(-1)), abs=0.003)  # after 2 s
    follower.reset()
    assert follower(scene + 0.1, 0.04) == pytest.approx(scene + 0.1, abs=1e-6)
