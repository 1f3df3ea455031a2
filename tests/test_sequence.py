"""Frames of one scene: shared levels, scales and noise; what one picture alone would get is the reference."""

import dataclasses

import numpy as np
import pytest
import torch

import ddfm
from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.levels import Overall, Scene
from ddfm.likelihood import em_alone
from ddfm.pictures import to_luma
from ddfm.presets import get_preset
from ddfm.sequence import InScene, SceneFuser, follow, learn_scene

LIKELIHOOD = get_preset("balanced").likelihood


@pytest.fixture(scope="module")
def frames():
    """Six frames of a street, the thermal camera's gain and offset drifting, small."""
    scene = samples.street((72, 96), 2)
    drift = [(1 + 0.08 * (n % 2), 0.02 * (n % 3)) for n in range(6)]
    return [(np.clip(scene.infrared * g * 0.8 + o, 0, 1).astype(np.float32), scene.visible) for g, o in drift]


@pytest.fixture(scope="module")
def fuser(tiny_prior):
    return Fuser(FuseConfig(prior=str(tiny_prior)))


def stacked(frames):
    lumas = [[to_luma(ddfm.io.from_array(x)) for x in frame] for frame in frames]
    return torch.cat([torch.cat(frame, 1) for frame in lumas]) * 2 - 1


def test_a_scene_of_one_picture_is_that_picture(fuser, frames):
    """Levels, scales and shift learned from a picture alone are its own: nothing may change but rounding."""
    scene = SceneFuser(fuser)
    scene.learn(frames[:1])
    assert np.abs(scene.fuse(*frames[0]) - fuser.fuse(*frames[0]).data).max() < 1e-5


def test_scales_of_a_scene_are_those_of_its_pictures_side_by_side(frames):
    """Without texture every pixel is alone, so N pictures are one picture N times as large: gamma is Eq. 31's mean."""
    likelihood = dataclasses.replace(LIKELIHOOD, psi=0.0, texture=None, scale_maps=None, align=0.0)
    stack = stacked(frames)
    scene = learn_scene(likelihood, stack, 6)
    wide = torch.cat(list(stack.split(1)), -1)
    _, state = em_alone(likelihood, wide, 3)
    assert len(scene.gammas) == 6
    torch.testing.assert_close(scene.gammas[-1], state.gamma, rtol=1e-4, atol=1e-7)  # float32 sums in another order


def test_levels_of_a_scene_are_quantiles_of_all_pictures(frames):
    stack = stacked(frames)
    scene = learn_scene(LIKELIHOOD, stack, 1)
    expected = np.quantile(stack.transpose(0, 1).flatten(1).numpy(), LIKELIHOOD.level, axis=1)
    assert scene.overall.level.flatten().numpy() == pytest.approx(expected, abs=1e-6)


def test_a_learned_scene_knows_no_order(fuser, frames):
    scene = SceneFuser(fuser)
    scene.learn(frames)
    forward = [scene.fuse(*frame) for frame in frames]
    backward = [scene.fuse(*frame) for frame in reversed(frames)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))


def test_what_stands_still_stays_when_something_comes_in(fuser):
    """A large hot object in every second frame moves levels and scales of that frame alone; those of a scene stay."""
    scene = samples.street((72, 128), 2)
    grey = to_luma(ddfm.io.from_array(scene.visible))[0, 0].numpy()
    with_it = scene.infrared.copy()
    with_it[:, 80:] = 0.9
    frames = [(scene.infrared, grey), (with_it, grey)]
    shared = SceneFuser(fuser)
    shared.learn(frames)
    followed = SceneFuser(fuser, memory=0.9)
    ways = {
        "alone": [fuser.fuse(*frame).data for frame in frames],
        "shared": [shared.fuse(*frame) for frame in frames],
        "followed": [followed.fuse(*frame) for frame in frames],
    }
    still = {name: float(np.abs(a - b)[:, 20:40].mean()) for name, (a, b) in ways.items()}
    assert still["shared"] < 0.2 * still["alone"]
    assert still["followed"] < 0.4 * still["alone"]


def test_memory_one_keeps_the_first_frame_and_none_forgets(fuser, frames):
    keeping, forgetting = SceneFuser(fuser, memory=1.0), SceneFuser(fuser, memory=0.0)
    for frame in frames[:3]:
        keeping.fuse(*frame), forgetting.fuse(*frame)
    learned = SceneFuser(fuser)
    learned.learn(frames[:1])
    assert np.allclose(keeping.fuse(*frames[3]), learned.fuse(*frames[3]), atol=1e-5)
    previous = SceneFuser(fuser)
    previous.learn(frames[2:3])
    # the scales of frame 2 were found under those of frame 1: near its own, not the same
    assert np.abs(forgetting.fuse(*frames[3]) - previous.fuse(*frames[3])).mean() < 0.01


def test_reset_forgets(fuser, frames):
    scene = SceneFuser(fuser, memory=0.9, carry=0.5)
    fresh = scene.fuse(*frames[4])
    for frame in frames[:3]:
        scene.fuse(*frame)
    assert not np.array_equal(scene.fuse(*frames[4]), fresh)
    scene.reset()
    assert np.array_equal(scene.fuse(*frames[4]), fresh)


def test_follow_is_a_weighted_mean():
    def scene(value):
        one = torch.full((1, 2, 1, 1), value)
        return Scene(Overall(one, one), torch.full((1, 1, 1, 1), value), (one, 2 * one))

    mixed = follow(scene(1.0), scene(3.0), 0.75)
    assert float(mixed.overall.level[0, 0, 0, 0]) == 1.5 == float(mixed.shift)
    assert [float(g[0, 0, 0, 0]) for g in mixed.gammas] == [1.5, 3.0]


def test_carry_begins_at_the_last_frame(frames):
    stack = stacked(frames[:1])
    scene = learn_scene(LIKELIHOOD, stack, 6)
    last = torch.full((1, 1, 72, 96), 0.25)
    inside = InScene(LIKELIHOOD, scene, last)
    state = inside.init(stack)
    assert torch.equal(inside.start(state), last)
    assert torch.equal(InScene(LIKELIHOOD, scene).start(state), LIKELIHOOD.start(state))


def test_one_noise_field_for_all(tiny_prior):
    """With noise to draw, equal sources in another frame get the same noise; alone, the content seeds it."""
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), steps=4))
    rng = np.random.default_rng(0)
    a, b = (rng.random((24, 28)).astype(np.float32) for _ in range(2))
    scene = SceneFuser(fuser)
    scene.learn([(a, b)])
    first, again, near = scene.fuse(a, b), scene.fuse(a, b), scene.fuse(a, np.clip(b + 1e-4, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(near - first).max() < 0.01  # another noise field moves it by ten times that
    alone = [fuser.fuse(a, x).data for x in (b, np.clip(b + 1e-4, 0, 1))]
    assert np.abs(alone[0] - alone[1]).max() > 0.02


def test_noise_is_settled_once(tiny_prior):
    """One frame with noise of 0.1 found makes no other frame's noise another: the median of the sample counts."""
    rng = np.random.default_rng(1)
    scene = samples.street((96, 128), 1)
    clean = (scene.clean_infrared, scene.clean_visible)
    noisy = [np.clip(x + 0.1 * rng.standard_normal(x.shape), 0, 1).astype(np.float32) for x in clean]
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), steps=1))
    sequence = SceneFuser(fuser)
    sequence.learn([tuple(noisy)] * 3 + [clean])
    assert sequence.noise[0] == pytest.approx(0.1, rel=0.1)
    assert sequence.noise[1] > 0.05  # most of this scene is black, where half of the noise is cut off
    sequence.learn([clean] * 3 + [tuple(noisy)])
    assert not any(sequence.noise)


@pytest.mark.parametrize("tone", ["minmax", "percentile"])
def test_a_stretch_has_the_same_ends_for_all(tiny_prior, tone):
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), tone=tone))
    ramp = np.tile(np.linspace(0.2, 0.6, 40, dtype=np.float32), (32, 1))
    scene = SceneFuser(fuser)
    scene.learn([(ramp, ramp.T[:32, :32].repeat(2, 1)[:, :40]), (ramp / 2, ramp / 2 + 1e-3)])
    bright, dark = scene.fuse(ramp, ramp[::-1].copy() + 1e-4), scene.fuse(ramp / 2, ramp / 2 + 1e-4)
    assert bright.max() > 0.9 and dark.max() < 0.7  # alone, the dark one would be stretched to white
    assert fuser.fuse(ramp / 2, ramp / 2 + 1e-4).data.max() > 0.9


def test_presets_from_noise_share_the_noise_alone(tiny_prior):
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), preset="paper", steps=2))
    rng = np.random.default_rng(0)
    a, b = (rng.random((24, 28)).astype(np.float32) for _ in range(2))
    scene = SceneFuser(fuser)
    scene.learn([(a, b)])
    assert np.array_equal(scene.fuse(a, b), scene.fuse(a, b))


def test_bad_arguments(fuser, frames):
    with pytest.raises(DDFMError, match="memory: got"):
        SceneFuser(fuser, memory=1.5)
    with pytest.raises(DDFMError, match="carry: got -1"):
        SceneFuser(fuser, carry=-1)
    with pytest.raises(DDFMError, match="frames: got none"):
        SceneFuser(fuser).learn([])
    with pytest.raises(DDFMError, match="one size"):
        SceneFuser(fuser).fuse(frames[0][0], frames[0][1][:40])
