"""More than two sources: exposures, focus stacks, scans; the truth is the rendered scene."""

import itertools

import numpy as np
import pytest
import torch

import ddfm
from ddfm import color, samples, stacks
from ddfm._checks import DDFMError
from ddfm.filters import blur
from ddfm.io import from_array
from ddfm.pictures import to_luma

STREET = samples.street((120, 160), 1).visible


def luma(picture):
    return to_luma(from_array(np.asarray(picture, np.float32)))[0, 0].numpy()


def psnr(a, b):
    return -10 * np.log10(np.mean((np.asarray(a, np.float64) - b) ** 2))


@pytest.mark.parametrize("count", [2, 3])
def test_a_focus_stack_comes_back_sharp(count):
    pictures = stacks.focus_stack(STREET, count)
    fused = ddfm.fuse(*pictures, preset="stack").data
    best = max(psnr(luma(p), luma(STREET)) for p in pictures)
    assert psnr(luma(fused), luma(STREET)) > best + 8


def test_fused_exposures_keep_what_single_ones_lose():
    dark, _, bright = pictures = stacks.exposures(STREET)
    fused, truth = luma(ddfm.fuse(*pictures, preset="stack").data), luma(STREET)
    burnt = luma(bright) > 0.99
    assert burnt.mean() > 0.01 and truth[burnt].std() > 0.05  # there is something to lose
    assert fused[burnt].std() > 0.4 * truth[burnt].std()
    night = luma(dark) < 0.1
    slopes = [np.abs(np.diff(x, axis=1))[:, :][night[:, 1:]].mean() for x in (luma(dark), fused)]
    assert slopes[1] > 2 * slopes[0]


def test_order_does_not_matter_to_a_stack():
    pictures = stacks.exposures(STREET)
    first = ddfm.fuse(*pictures, preset="stack", noise_std=0).data
    for order in itertools.permutations(pictures):
        assert (
            np.abs(ddfm.fuse(*order, preset="stack", noise_std=0).data - first).max() < 2e-3
        )  # the FFT's and sums' rounding


def test_equal_sources_come_back_whatever_their_number():
    grey = luma(STREET)
    with pytest.warns(ddfm.DDFMWarning, match="same picture"):
        fused = ddfm.fuse(grey, grey, grey, grey, preset="stack").data
    assert np.abs(fused - grey).max() < 2 / 255


def test_chroma_of_all_by_hand():
    a = torch.tensor([0.2, -0.1]).view(1, 2, 1, 1)
    b = torch.tensor([-0.1, 0.0]).view(1, 2, 1, 1)
    mixed = color.mean_chroma([a, b]).flatten().tolist()
    assert mixed == pytest.approx([(0.2 * 0.2 - 0.1 * 0.1) / 0.3, -0.1])  # DeepFuse, Eq. 4
    assert torch.equal(color.mean_chroma([a]), a)
    assert torch.equal(color.mean_chroma([0 * a, 0 * b]), torch.zeros(1, 2, 1, 1))


def as_batch(picture):
    return torch.from_numpy(np.ascontiguousarray(picture, np.float32)).permute(2, 0, 1)[None]


def of_one_luma(height=96, width=128):
    """Red and green squares of one luma, (1, 3, H, W): all that is sharp in it is colour."""
    rows, columns = torch.arange(height)[:, None] // 12, torch.arange(width) // 12
    sign = ((rows + columns) % 2 * 2.0 - 1)[None, None]
    return color.merge(torch.full((1, 1, height, width), 0.5), torch.cat([0 * sign, 0.2 * sign], 1))


@pytest.mark.parametrize("scene", ["street", "colour alone"])
def test_a_focus_stack_takes_the_colour_where_it_is_sharp(scene):
    truth = as_batch(STREET) if scene == "street" else of_one_luma()
    soft, middle = blur(truth, 4.0), truth.shape[-1] // 2
    left, right = truth.clone(), truth.clone()
    left[..., middle:], right[..., :middle] = soft[..., middle:], soft[..., :middle]
    wanted = color.split(truth)[1]
    far = [abs(k - middle) > 20 for k in range(truth.shape[-1])]  # beyond the blurs of the weights

    def error(chroma):
        return float((chroma - wanted)[..., far].square().mean().sqrt())

    mixed = color.mean_chroma([color.split(x)[1] for x in (left, right)])
    best = color.stack_chroma([left, right])
    assert error(best) < 0.25 * error(mixed)
    assert torch.allclose(color.stack_chroma([right, left]), best, atol=1e-6)
    assert torch.equal(color.stack_chroma([left]), color.split(left)[1])


def test_exposures_take_the_colour_of_all():
    pictures = [as_batch(x) for x in stacks.exposures(STREET)]
    mixed = color.mean_chroma([color.split(x)[1] for x in pictures])
    chosen = color.stack_chroma(pictures)
    # nothing else where levels differ by a stop or more, which is everywhere but where all is black or white
    assert (chosen - mixed).abs().quantile(0.9) < 1e-4 and (chosen - mixed).abs().mean() < 1e-3


@pytest.mark.parametrize("rows", [7, 40, 64])
def test_the_colour_of_a_stack_does_not_depend_on_strips(rows):
    planes = [color.Plane(np.asarray(x, np.float32)) for x in stacks.focus_stack(STREET, 2)]
    luma = torch.full((1, 1, *planes[0].size), 0.5)
    assert np.array_equal(color.put_chroma(luma, planes, rows), color.put_chroma(luma, planes, 1000))


def test_whose_colours(tiny_prior):
    red, green = np.zeros((32, 40, 3), np.float32) + 0.3, np.zeros((32, 40, 3), np.float32) + 0.3
    red[..., 0], green[..., 1] = 0.6, 0.6
    last = ddfm.fuse(red, green, prior=str(tiny_prior)).data.mean((0, 1))
    every = ddfm.fuse(red, green, prior=str(tiny_prior), preset="stack").data.mean((0, 1))
    assert last[1] > last[0] + 0.1
    assert abs(every[0] - every[1]) < 0.12 and min(every[:2]) > every[2] + 0.02


def test_three_scans_show_all_three():
    pet = samples.phantom((96, 96), 0, "pet")
    t1, t2 = pet.visible, samples.phantom((96, 96), 0, "t2").infrared
    fused = ddfm.fuse(pet.infrared, t1, t2, preset="medical").data
    assert fused.shape == (96, 96, 3)
    for source in (luma(pet.infrared), t1, t2):
        assert np.corrcoef(luma(fused).ravel(), source.ravel())[0, 1] > 0.3
    csf = (t2 > 0.8) & (t1 < 0.2)  # fluid: bright in T2 alone
    assert luma(fused)[csf].mean() > t1[csf].mean() + 0.1


def test_one_seed_is_one_head():
    ct, t2 = samples.phantom((96, 96), 3, "ct"), samples.phantom((96, 96), 3, "t2")
    assert np.array_equal(ct.clean_visible, t2.clean_visible) and np.array_equal(ct.targets, t2.targets)


def test_bad_stacks():
    with pytest.raises(DDFMError, match="stops: got none"):
        stacks.exposures(STREET, [])
    with pytest.raises(DDFMError, match="count: got 0"):
        stacks.focus_stack(STREET, 0)
    with pytest.raises(DDFMError, match="one size"):
        ddfm.fuse(STREET, STREET, STREET[:60], preset="stack")
