"""The sample pairs keep what they promise: known targets, known texture, known noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ddfm._checks import DDFMError
from ddfm.samples import NOISE, Sample, phantom, street

MODALITIES = ("ct", "pet", "spect")
SIZES = ((16, 16), (17, 31), (64, 64), (121, 163), (16, 120), (120, 16))
night = cache(lambda seed=0: street((240, 320), seed))
brain = cache(lambda modality, seed=0: phantom((192, 192), seed, modality))


def grey(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=-1) if image.ndim == 3 else image


def surround(mask: np.ndarray, reach: int) -> np.ndarray:
    """The ring of ``reach`` pixels around a mask."""
    wide, grown = np.pad(mask, reach), np.zeros_like(mask)
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            grown |= wide[row : row + mask.shape[0], column : column + mask.shape[1]]
    return grown & ~mask


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    return float(grey(image)[mask].mean() - grey(image)[surround(mask, 4)].mean())


def energy(image: np.ndarray, mask: np.ndarray) -> float:
    down, right = np.gradient(grey(image).astype(np.float64))
    return float((down**2 + right**2)[mask].mean())


def pictures(sample: Sample) -> tuple[np.ndarray, ...]:
    return sample.infrared, sample.visible, sample.clean_infrared, sample.clean_visible


@pytest.mark.parametrize("make", [street, phantom])
def test_seed_decides_every_byte(make):
    first, again, other = (make((48, 64), seed) for seed in (3, 3, 4))
    for a, b, c in zip(pictures(first), pictures(again), pictures(other), strict=True):
        assert a.tobytes() == b.tobytes()
        assert np.abs(a - c).max() > 0.05  # another scene, not only another grain
    assert (first.targets != other.targets).any()


@pytest.mark.parametrize("size", SIZES)
def test_any_size_has_both_masks_and_the_right_range(size):
    for sample in (street(size), *(phantom(size, modality=name) for name in MODALITIES)):
        for image in pictures(sample):
            assert image.shape[:2] == size and image.dtype == np.float32
            assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
            assert image.max() - image.min() > 0.3
        for mask in (sample.targets, sample.texture):
            assert mask.shape == size and mask.dtype == bool
            assert 0 < mask.sum() < 0.6 * mask.size
        assert not (sample.targets & sample.texture).any()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_people_are_hot_and_nearly_invisible(seed):
    sample = night(seed)
    assert contrast(sample.clean_infrared, sample.targets) > 0.3
    assert abs(contrast(sample.clean_visible, sample.targets)) < 0.1
    assert grey(sample.clean_visible)[sample.targets].mean() < 0.25


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_lesion_is_bright_and_plain_in_mri(modality, seed):
    sample = brain(modality, seed)
    assert contrast(sample.clean_infrared, sample.targets) > 0.25
    assert abs(contrast(sample.clean_visible, sample.targets)) < 0.12


def test_texture_is_in_the_visible_source_only():
    for sample, least in ((night(), 30), (brain("ct"), 50), (brain("pet"), 3), (brain("spect"), 6)):
        ratio = energy(sample.clean_visible, sample.texture) / energy(sample.clean_infrared, sample.texture)
        assert ratio > least, sample.name
        # It stands above the noise too: a forward gradient of white noise carries its variance.
        noise = NOISE[sample.labels[1]]
        assert energy(sample.clean_visible, sample.texture) > 3 * noise**2


def test_visible_light_alone_has_colour():
    sample = night()
    assert sample.infrared.ndim == 2
    spread = np.ptp(sample.clean_visible, axis=2)[sample.texture]
    assert np.quantile(spread, 0.9) > 0.1


def test_sky_is_the_coldest():
    sample = night()
    sky = sample.clean_infrared[:10, 140:180]
    assert sky.mean() < np.quantile(sample.clean_infrared, 0.1)


@pytest.mark.parametrize("modality", MODALITIES)
def test_nothing_outside_the_head(modality):
    sample = phantom((128, 160), 1, modality)
    y, x = np.mgrid[0:128, 0:160].astype(float) + 0.5
    far = ((x / 80 - 1) / (0.80 + 1 / 64)) ** 2 + ((y / 64 - 1) / (0.94 + 1 / 64)) ** 2 > 1
    for image in pictures(sample):
        assert not image[far].any()
        assert grey(image)[~far].mean() > 0.1


@pytest.mark.parametrize(
    ("make", "side"), [(night, "infrared"), (night, "visible"), (brain, "infrared"), (brain, "visible")]
)
def test_noise_has_the_documented_deviation(make, side):
    sample = make("ct") if make is brain else make()
    image, clean = getattr(sample, side), getattr(sample, f"clean_{side}")
    inside = (clean > 0.03) & (clean < 0.97)  # three deviations from the clipping
    noise = (image - clean)[inside]
    expected = NOISE[sample.labels[side == "visible"]]
    # Standard errors of n samples: sigma / sqrt(n) of the mean, sigma / sqrt(2 n) of the deviation.
    assert abs(noise.mean()) < 4 * expected / np.sqrt(noise.size)
    assert abs(noise.std() / expected - 1) < 4 / np.sqrt(2 * noise.size) + 0.005  # and a little clipping


def test_uptake_noise_is_grainy_and_scales_with_the_root():
    for modality in ("pet", "spect"):
        sample = brain(modality)
        red, clean = sample.infrared[..., 0], sample.clean_infrared[..., 0]
        inside = (clean > 0.1) & (clean < 0.9)  # there red is 2.6 times the uptake
        share = (red - clean)[inside] / 2.6 / np.sqrt(clean[inside] / 2.6)
        # Grains a few pixels wide leave some hundred independent samples.
        assert share.std() == pytest.approx(NOISE[modality], rel=0.2)


@pytest.mark.parametrize("size", [(15, 64), (64, 8), (0, 0), (64,), (64.5, 64)])
def test_small_or_odd_shapes_are_refused(size):
    for make in (street, phantom):
        with pytest.raises(DDFMError, match="size: got"):
            make(size)


def test_bad_seed_and_modality_are_refused():
    with pytest.raises(DDFMError, match="seed: got -1"):
        street((16, 16), -1)
    with pytest.raises(DDFMError, match="Did you mean 'spect'"):
        phantom((16, 16), modality="spekt")
