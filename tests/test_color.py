"""Luma is kept exactly, hue is kept, and no more saturation is lost than the gamut demands."""

import itertools

import pytest
import torch

from ddfm import color
from ddfm._checks import DDFMError

WEIGHTS = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)


def random_rgb(seed=0, size=(40, 50), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, *size, generator=generator, dtype=torch.float64).to(dtype)


def exact_luma(rgb):
    return torch.einsum("c,bchw->bhw", WEIGHTS, rgb.double())[:, None]


def corners():
    """The eight corners of the RGB cube, as a batch of one row."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).T.reshape(1, 3, 1, 8)


def wild(dtype=torch.float32, seed=1):
    """Any luma beside any chroma: most of it is out of gamut."""
    generator = torch.Generator().manual_seed(seed)
    luma = torch.rand(2, 1, 40, 50, generator=generator, dtype=torch.float64)
    luma[:, :, 0], luma[:, :, 1] = 0.0, 1.0
    chroma = torch.rand(2, 2, 40, 50, generator=generator, dtype=torch.float64) - 0.5
    return luma.to(dtype), chroma.to(dtype)


def test_known_colours():
    # BT.601 at full range; pure red has Cr = 0.5 and pure blue Cb = 0.5 by definition.
    rgb = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0]]).T.reshape(1, 3, 1, 4)
    luma, chroma = color.split(rgb)
    torch.testing.assert_close(luma.flatten(), torch.tensor([0.299, 0.587, 0.114, 1.0]))
    expected = torch.tensor([[-0.299 / 1.772, 0.5], [-0.587 / 1.772, -0.587 / 1.402], [0.5, -0.114 / 1.402]])
    torch.testing.assert_close(chroma[0, :, 0].T[:3], expected)
    torch.testing.assert_close(chroma[0, :, 0, 3], torch.zeros(2), atol=1e-7, rtol=0)


def test_luma_is_the_grey_of_pillow():
    # Pillow's "L" is the same sum in fixed point, so it is within one level of 255.
    import numpy as np
    from PIL import Image

    levels = (random_rgb() * 255).round()
    pixels = levels[0].permute(1, 2, 0).numpy().astype(np.uint8)
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    ours = color.to_luma(levels / 255)[0, 0].numpy() * 255
    assert np.abs(ours - grey).max() <= 1


@pytest.mark.parametrize("rgb", [random_rgb(), corners()], ids=["random", "corners"])
def test_merge_inverts_split(rgb):
    # At a face of the cube luma's rounding (6e-8) can move a channel by 1 / 0.114 as much.
    torch.testing.assert_close(color.merge(*color.split(rgb)), rgb, atol=1e-6, rtol=0)


def test_grey_stays_grey_to_the_bit():
    luma, chroma = wild()
    rgb = color.merge(luma, torch.zeros_like(chroma))
    assert torch.equal(rgb, luma.expand_as(rgb))


def test_luma_is_kept_out_of_gamut():
    luma, chroma = wild()
    rgb = color.merge(luma, chroma)
    assert rgb.min() >= 0 and rgb.max() <= 1
    torch.testing.assert_close(exact_luma(rgb), luma.double(), atol=1e-6, rtol=0)


def test_hue_is_kept_and_saturation_never_grows():
    luma, chroma = wild(torch.float64)
    _, result = color.split(color.merge(luma, chroma))
    cross = result[:, 0] * chroma[:, 1] - result[:, 1] * chroma[:, 0]
    torch.testing.assert_close(cross, torch.zeros_like(cross), atol=1e-14, rtol=0)
    assert (result * chroma).sum(1).min() >= -1e-14  # the same direction, not the opposite one
    assert (result.norm(dim=1) - chroma.norm(dim=1)).max() <= 1e-14


def test_the_largest_factor_that_fits():
    # The answer by bisection, with the textbook inverse of BT.601 and no closed form.
    luma, chroma = wild(torch.float64)

    def raw(factor):
        cb, cr = (factor * chroma).split(1, dim=1)
        red, blue = luma + 1.402 * cr, luma + 1.772 * cb
        return torch.cat([red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue], dim=1)

    low, high = torch.zeros_like(luma), torch.ones_like(luma)
    for _ in range(60):
        middle = (low + high) / 2
        rgb = raw(middle)
        fits = ((rgb >= -1e-12) & (rgb <= 1 + 1e-12)).all(dim=1, keepdim=True)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    torch.testing.assert_close(color.merge(luma, chroma), raw(low), atol=1e-9, rtol=0)


def test_no_step_in_colour_without_a_step_in_luma():
    # Along a ramp of luma, in and out of gamut, each channel moves at most 1 / 0.114 as fast: the
    # steepest edge of the RGB cube itself (yellow to white). A jump would be a fringe.
    steps = 2001
    luma = torch.linspace(0, 1, steps, dtype=torch.float64).expand(100, 1, 1, steps)
    _, chroma = wild(torch.float64)
    chroma = chroma[0].flatten(1).T[:100, :, None, None].expand(100, 2, 1, steps)
    slope = color.merge(luma, chroma).diff(dim=3).abs().max() * (steps - 1)
    assert 4 < slope <= 1 / 0.114 + 1e-6


def test_a_hot_edge_over_colour_makes_no_other_hue():
    # Brown ground, a white target with a soft rim: every pixel is brown's hue or neutral. Clipped
    # channels turn the rim's hue: the comparison shows that the case tests something.
    ground = torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64).reshape(1, 3, 1, 1).expand(1, 3, 8, 200)
    luma, chroma = color.split(ground)
    rim = torch.sigmoid((torch.arange(200, dtype=torch.float64) - 100) / 10)
    fused = luma + (1 - luma) * rim

    def turned(rgb):
        c = color.split(rgb)[1]
        return (c[:, 0] * chroma[:, 1] - c[:, 1] * chroma[:, 0]).abs().max()

    difference = ground - luma
    assert turned(color.merge(fused, chroma)) < 1e-14
    assert turned((fused + difference).clamp(0, 1)) > 1e-3


def test_white_survives_the_round_trip():
    white = torch.ones(1, 3, 2, 2)
    luma, chroma = color.split(white)
    assert luma.max() <= 1  # else merge would refuse what split made
    torch.testing.assert_close(color.merge(luma, chroma), white)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_luma_out_of_range_is_refused(value):
    with pytest.raises(DDFMError, match=r"luma: .*\[0, 1\]"):
        color.merge(torch.full((1, 1, 4, 4), value), torch.zeros(1, 2, 4, 4))


def test_bad_input_is_refused():
    with pytest.raises(DDFMError, match="rgb"):
        color.split(torch.rand(1, 3, 4, 4) * 2 - 1)
    with pytest.raises(DDFMError, match="1 channels"):
        color.to_luma(torch.rand(1, 1, 4, 4))
    with pytest.raises(DDFMError, match="NaN"):
        color.to_luma(torch.full((1, 3, 4, 4), float("nan")))
    with pytest.raises(DDFMError, match="chroma"):
        color.merge(torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 5))
    with pytest.raises(DDFMError, match="at least one pixel"):
        color.to_luma(torch.zeros(1, 3, 0, 4))
