"""Sources that are no ordinary pair, for every preset with a warm start: finite, in range, sensible, or refused.

Sensible means: equal sources come back; constants give a flat picture between them; beside a source with nothing in it
the other keeps its structure; where one source is burnt out the other shows; a pair that does not fit shows both and
nothing else. What is asserted is what anyone would expect, on structure rather than on brightness, which is a matter of
choice, and with wide margins: settings may be tuned, this must stay.
"""

import functools
import warnings

import numpy as np
import pytest

from ddfm import samples
from ddfm._checks import DDFMError
from ddfm.fusion import FuseConfig, Fuser
from ddfm.presets import PRESETS

WARM = [name for name, preset in PRESETS.items() if preset.start is not None]
KEPT = 0.8  # correlation of gradient magnitudes from which a picture's texture counts as kept
LEVEL = 1 / 255


@pytest.fixture(scope="module", params=WARM)
def fuse(request):
    """Fusion with the bundled prior: what a picture looks like depends on it."""
    fuser = Fuser(FuseConfig(preset=request.param))

    def run(a, b):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*same picture")
            result = fuser.fuse(np.float32(a), np.float32(b)).data
        assert result.shape == np.shape(a)
        assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
        return result

    run.preset = request.param
    return run


@functools.cache
def scene():
    """Infrared and visible luma of the sample street, 96x128."""
    street = samples.street((96, 128), 0)
    return street.infrared, np.clip(street.visible @ np.float32([0.299, 0.587, 0.114]), 0, 1)


def edges(image):
    return np.hypot(*np.gradient(np.asarray(image, np.float64)))


def kept(result, source, where=slice(None)):
    return np.corrcoef(edges(result)[where].ravel(), edges(source)[where].ravel())[0, 1]


def test_there_are_presets_with_a_warm_start():
    assert {"balanced", "fast"} <= set(WARM)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_constants_stay(fuse, value):
    plane = np.full((48, 64), value)
    assert np.abs(fuse(plane, plane) - value).max() < 2 * LEVEL


@pytest.mark.parametrize("values", [(0.2, 0.8), (0.8, 0.2), (0.0, 1.0), (0.4, 0.41)])
def test_two_constants_give_a_flat_picture_between_them(fuse, values):
    result = fuse(*(np.full((48, 64), value) for value in values))
    assert result.min() > min(values) - 2 * LEVEL and result.max() < max(values) + 2 * LEVEL
    assert result.std() < 2 * LEVEL


@pytest.mark.parametrize("which", [0, 1])
def test_equal_sources_come_back(fuse, which):
    source = scene()[which]
    difference = np.abs(fuse(source, source) - source)
    assert difference.mean() < 2 * LEVEL
    assert difference.max() < 16 * LEVEL  # no pixel is invented either


@pytest.mark.parametrize("which", [0, 1], ids=["infrared", "visible"])
@pytest.mark.parametrize("other", [0.0, 0.5, 1.0], ids=["black", "grey", "white"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_one_source_with_nothing_in_it_leaves_the_others_texture(fuse, which, other, first):
    source = scene()[which]
    empty = np.full_like(source, other)
    result = fuse(source, empty) if first else fuse(empty, source)
    assert kept(result, source) > KEPT
    if other == 0.0:  # what is black says nothing of brightness: the other's contrast stays too
        assert result.std() > 0.5 * source.std()


#: Least correlation and least share of the edges' strength, by the source that is burnt out. A road washed out by a
#: saturated thermal camera must be readable; a burnt-out visible image is bright, claims its place by that, and leaves
#: little of the infrared, as any white source does in a medical picture, where brightness is the finding.
@pytest.mark.parametrize(("which", "alike", "share"), [(0, KEPT, 0.25), (1, 0.3, 0.03)], ids=["infrared", "visible"])
def test_where_a_source_is_burnt_out_the_other_shows(fuse, which, alike, share):
    pair = list(scene())
    burnt = np.zeros(pair[which].shape, bool)
    burnt[24:72, 32:96] = True
    pair[which] = np.where(burnt, 1.0, pair[which])
    inside = np.s_[32:64, 40:88]
    result, other = fuse(*pair), pair[1 - which]
    if fuse.preset.startswith("medical"):
        alike, share = 0.3, 0.03
    assert kept(result, other, inside) > alike
    assert edges(result)[inside].mean() > share * edges(other)[inside].mean()


def test_both_saturated(fuse):
    a, b = (np.clip(3 * source, 0, 1) for source in scene())
    result = fuse(a, b)
    both = (a == 1) & (b == 1)
    assert both.sum() > 50
    assert result[both].mean() > 0.9
    assert result.std() > 0.1


@pytest.mark.parametrize("shape", [(16, 600), (600, 16), (17, 2000)])
def test_extreme_aspect_ratios(fuse, shape):
    rng = np.random.default_rng(0)
    height, width = (-(-n // 8) for n in shape)
    a, b = (np.kron(rng.random((height, width)), np.ones((8, 8)))[: shape[0], : shape[1]] for _ in range(2))
    result = fuse(a, b)
    assert min(kept(result, a), kept(result, b)) > 0.3


MISPLACED = {
    "down": lambda image: np.roll(image, image.shape[0] // 2, 0),
    "right": lambda image: np.roll(image, image.shape[1] // 2, 1),
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
}


@pytest.mark.parametrize("how", MISPLACED)
def test_pairs_that_do_not_fit_show_both_and_nothing_else(fuse, how):
    infrared, visible = scene()
    moved = np.ascontiguousarray(MISPLACED[how](visible))
    result = fuse(infrared, moved)
    strongest = np.maximum(edges(infrared), edges(moved))
    assert (edges(result) > strongest + 0.05).mean() < 0.01  # no edge that neither source has: no halos, no seams
    assert kept(result, infrared) > 0.2 and kept(result, moved) > 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused(fuse, value, which):
    pair = [source.copy() for source in scene()]
    pair[which][40, 50] = value
    with pytest.raises(DDFMError, match=f"source {which + 1}"):
        fuse(*pair)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (15, 64), (0, 0)])
def test_too_small_is_refused(fuse, shape):
    with pytest.raises(DDFMError, match=r"pixel|shape|empty"):
        fuse(np.zeros(shape), np.zeros(shape))


def test_unknown_sources_are_not_blamed_on_the_output(ddfm, pairs):
    (pairs / "a.xyz").write_bytes(b"1")
    code, text = ddfm("fuse", "a.xyz", "vis/a.png", "-o", "out.nii")
    assert code == 2 and "a.xyz" in text and "--output" not in text
