"""Tiles and strips: weights that sum to 1, exactness for local networks, and what a user sees of it."""

import itertools

import diffusers
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import ddfm
from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.large import can_fuse, fuse_large
from ddfm.likelihood import FusionLikelihood, em_alone
from ddfm.noisy import with_noise
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import PRESETS
from ddfm.saliency import StrongestGradient
from ddfm.strips import ALIGN, StripEM, supported
from ddfm.tiling import starts, tiled, weights


@pytest.mark.parametrize("length", [8, 64, 65, 96, 100, 161, 1000])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (64, 32), (48, 8)])
def test_weights_sum_to_one_everywhere(length, tile, overlap):
    begins = starts(length, tile, overlap)
    size = min(tile, length)
    total = torch.zeros(length, dtype=torch.float64)
    for begin, w in zip(begins, weights(begins, size, overlap, length), strict=True):
        total[begin : begin + size] += w
    assert torch.allclose(total, torch.ones_like(total), atol=1e-15)
    assert begins[0] == 0
    assert begins[-1] + size == length
    for one, following in itertools.pairwise(begins):
        assert following - one <= tile - overlap


@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("size", [(64, 64), (200, 136), (72, 640)])
def test_a_network_of_local_support_is_exact(stride, size):
    """Receptive field of 4 pixels, the halo of an overlap of 16; with a stride of 8 the blocks must line up too."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn((2, 1, 9, 9), generator=generator, dtype=torch.float64)

    def local(x):
        y = torch.tanh(F.conv2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), kernel))
        if stride > 1:  # something that depends on where the blocks begin
            y = y + F.interpolate(F.avg_pool2d(y, 4), scale_factor=4)
        return y

    x = torch.randn((2, 1, *size), generator=generator, dtype=torch.float64)
    overlap = 16 if stride == 1 else 32
    assert torch.allclose(tiled(local, x, 64, overlap, stride), local(x), atol=1e-13)


def test_memory_is_the_tiles():
    largest = []

    def spy(x):
        largest.append(max(x.shape[-2:]))
        return x

    x = torch.rand(1, 1, 496, 304)
    assert torch.allclose(tiled(spy, x, 128, 32, 16), x, atol=1e-6)
    assert max(largest) == 128


@pytest.mark.parametrize(("tile", "overlap"), [(60, 16), (64, 12), (64, 40), (64, 0)])
def test_tiles_that_do_not_fit(tile, overlap):
    with pytest.raises(DDFMError, match="multiples of 8"):
        tiled(lambda x: x, torch.zeros(1, 1, 100, 100), tile, overlap, 8)


# ---- in the pipeline ------------------------------------------------------------------------------


def pair(height, width):
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand((2, 1, height // 8, width // 8), generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return smooth[:1], smooth[1:]


def test_a_tile_as_large_as_the_image_changes_nothing(tiny_prior):
    pipe = DDFMPipeline.from_pretrained(tiny_prior)
    pipe.set_progress_bar_config(disable=True)
    a, b = pair(40, 56)
    whole = pipe(a, b, num_inference_steps=2).images
    assert torch.equal(pipe(a, b, num_inference_steps=2, tile=64).images, whole)
    tiled_ = pipe(a, b, num_inference_steps=2, tile=32).images
    assert tiled_.shape == whole.shape
    assert not torch.equal(tiled_, whole)


def test_the_network_never_sees_more_than_a_tile(tiny_prior, monkeypatch):
    pipe = DDFMPipeline.from_pretrained(tiny_prior)
    pipe.set_progress_bar_config(disable=True)
    seen = []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda x, t: seen.append(x.shape) or forward(x, t))
    pipe(*pair(72, 200), num_inference_steps=1, tile=64)
    assert len(seen) > 1
    assert max(max(shape[-2:]) for shape in seen) == 32  # unshuffled by two


def test_tiling_is_automatic_where_the_image_is_large(tiny_prior, monkeypatch):
    from ddfm import fusion

    monkeypatch.setattr(fusion, "AUTO_TILE", 32)
    monkeypatch.setattr(fusion, "AUTO_PIXELS", 1000)
    a, b = (x[0, 0].numpy() for x in pair(40, 56))
    auto = ddfm.fuse(a, b, prior=str(tiny_prior), preset="fast", steps=1)
    asked = ddfm.fuse(a, b, prior=str(tiny_prior), preset="fast", steps=1, tile=32)
    never = ddfm.fuse(a, b, prior=str(tiny_prior), preset="fast", steps=1, tile=0)
    assert np.array_equal(auto.data, asked.data)
    assert not np.array_equal(auto.data, never.data)
    assert (auto.report["tile"], asked.report["tile"], never.report["tile"]) == (32, 32, None)


def test_wrong_tiles(tiny_prior):
    for tile in (-1, 7, 20, 2.5, "big"):
        expected = "a multiple of 16 for this prior" if isinstance(tile, int) else "a whole number"
        with pytest.raises(DDFMError, match=f"tile: got .*{tile}.*, expected {expected}"):
            ddfm.fuse(*(x[0, 0].numpy() for x in pair(40, 56)), prior=str(tiny_prior), tile=tile)


def test_a_heavy_network_is_tiled_sooner_and_said_to_need_more(tmp_path):
    """256 channels a pixel, as ADM: 16 times the bundled prior's 64 on 2x2 pixels, and its memory."""
    unet = diffusers.UNet2DModel(
        block_out_channels=(256,), layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
    )
    DDFMPipeline(unet, diffusers.DDPMScheduler(), "rgb").save_pretrained(tmp_path / "heavy")
    heavy, light = Fuser(FuseConfig(prior=str(tmp_path / "heavy"))), Fuser(FuseConfig())
    assert [fuser._tile(1000, 1000) for fuser in (heavy, light)] == [None, None]
    assert [fuser._tile(1100, 1100) for fuser in (heavy, light)] == [512, None]
    assert [fuser._tile(2100, 2100) for fuser in (heavy, light)] == [512, 1024]
    assert heavy.bytes_needed(480, 640) == 16 * light.bytes_needed(480, 640)
    assert heavy.bytes_needed(1100, 1100) < heavy.bytes_needed(1000, 1000)


@pytest.mark.slow
def test_with_the_bundled_prior_a_megapixel_in_tiles_is_the_whole():
    """1024x1024 in the tiles that very large pictures are given; benchmarks/tiling.py has more sizes and scenes."""
    from ddfm.fusion import STRIP_TILE

    scene = ddfm.samples.street((1024, 1024), 0)
    whole, parts = (
        ddfm.fuse(scene.infrared, scene.visible, preset="fast", steps=1, tile=tile).data * 255
        for tile in (0, STRIP_TILE)
    )
    assert (np.abs(np.rint(whole) - np.rint(parts)) <= 1).mean() >= 0.99
    apart = (parts - whole).mean(-1)
    for axis in (0, 1):  # a visible border would be a step of a whole row or column
        assert np.abs(np.diff(apart, axis=axis).mean(1 - axis)).max() < 0.25


@pytest.mark.slow
def test_with_the_bundled_prior_tiles_cannot_be_seen():
    """Its group norms see a tile and not the whole: at most a level on 99 % of pixels, and no step at the borders."""
    scene = ddfm.samples.street((512, 704), 0)
    whole = ddfm.fuse(scene.infrared, scene.visible, preset="fast", tile=0).data
    parts = ddfm.fuse(scene.infrared, scene.visible, preset="fast", tile=256).data
    apart = np.abs(whole - parts) * 255
    assert np.percentile(apart, 99) <= 1
    ramp = np.linspace(0.2, 0.8, 704, dtype=np.float32)[None].repeat(512, 0)
    smooth = ddfm.fuse(ramp, ramp * 0.999, preset="fast", tile=256).data
    assert np.abs(np.diff(smooth, n=2, axis=1)).max() * 255 < 1


# ---- strips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["balanced", "medical", "paper", "per pixel", "no texture term"])
def test_em_in_strips_is_em(name):
    """Strips, blocks and a rest, against the whole: half-precision planes move it by less than a tenth of a level."""
    extra = {
        "per pixel": FusionLikelihood(psi=5.0, eta=5.0, sweeps=2, texture=StrongestGradient(gains=(1, 3))),
        "no texture term": FusionLikelihood(psi=0.0, sweeps=2),
    }
    likelihood = extra.get(name) or PRESETS[name].likelihood
    scene = samples.street((560, 520), 1)
    sources = [torch.from_numpy(np.ascontiguousarray(x))[None, None] for x in (scene.infrared, grey(scene.visible))]
    expected, state = em_alone(likelihood, torch.cat(sources, 1) * 2 - 1, 2)
    em = StripEM(likelihood, sources, block=ALIGN)
    assert len(list(em.strips())) == 3
    f = em.start()
    spare = torch.empty_like(f)
    for _ in range(2):
        f, spare = em.step(f, spare)
    apart = (f - expected).abs() * 127.5
    assert np.percentile(apart.numpy(), 99.9) < 0.1
    assert apart.max() < 2  # where half precision decides otherwise between two sources
    assert torch.allclose(em.gamma, state.gamma, rtol=1e-4)


def grey(image):
    return image if image.ndim == 2 else (image @ np.array([0.299, 0.587, 0.114])).astype(np.float32)


@pytest.mark.parametrize("name", ["balanced", "fast", "paper"])
@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_a_large_image_is_fused_as_any_other(name, kind, tiny_prior):
    """The whole loop of `large` against the pipeline with the same tile, noise and prior; 270 is no multiple of 4."""
    pipe = DDFMPipeline.from_pretrained(tiny_prior)
    pipe.register_modules(scheduler=diffusers.DDPMScheduler(prediction_type=kind))
    pipe.set_progress_bar_config(disable=True)
    preset = with_noise(PRESETS[name], 0).with_steps(3)
    assert can_fuse(preset, pipe)
    a, b = pair(272, 48)
    a, b = a[..., :270, :], b[..., :270, :]
    expected = pipe(
        a,
        b,
        num_inference_steps=3,
        likelihood=preset.likelihood,
        start=preset.start,
        warm_sweeps=preset.warm_sweeps,
        tile=64,
        generator=torch.Generator().manual_seed(7),
    ).unclipped
    got = fuse_large(pipe, [a, b], preset, torch.Generator().manual_seed(7), 64)
    apart = (got - expected).abs() * 255
    assert np.percentile(apart.numpy(), 99.9) < 1  # sources and network are noise here, all edges: pictures differ less
    assert apart.max() < 4  # where half precision decides otherwise between two sources


def test_strips_are_automatic_above_their_size(tiny_prior, monkeypatch):
    from ddfm import fusion

    a, b = (x[0, 0].numpy() for x in pair(272, 48))
    whole = ddfm.fuse(a, b, prior=str(tiny_prior), preset="fast", tile=64)
    monkeypatch.setattr(fusion, "STRIP_PIXELS", 1000)
    strips = ddfm.fuse(a, b, prior=str(tiny_prior), preset="fast", tile=64)
    assert np.abs(strips.data - whole.data).max() * 255 < 0.5
    assert not np.array_equal(strips.data, whole.data)  # it did go another way
    colored = np.stack([b, 0.5 * b, 1 - b], -1)
    strips = ddfm.fuse(a, colored, prior=str(tiny_prior), preset="fast", tile=64)
    released = ddfm.fuse(a, b, prior=str(tiny_prior), preset="released", steps=2, tile=64)  # cannot: goes as before
    assert released.data.shape == a.shape
    monkeypatch.undo()
    whole = ddfm.fuse(a, colored, prior=str(tiny_prior), preset="fast", tile=64)
    assert strips.data.shape == whole.data.shape == (272, 48, 3)
    assert np.abs(strips.data - whole.data).max() * 255 < 1


def test_what_strips_cannot_do_is_known():
    assert supported(FusionLikelihood())
    assert not supported(FusionLikelihood(prior_weight=0.5))
    assert not supported(FusionLikelihood(texture=lambda sources: sources))
    assert not supported(PRESETS["released"].likelihood)
