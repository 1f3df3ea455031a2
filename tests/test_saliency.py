"""Filters, levels, scale maps and texture targets: another library, brute force, and what they are meant to do."""

import numpy as np
import pytest
import torch

from ddfm._checks import DDFMError
from ddfm.filters import blur, guided_filter
from ddfm.levels import Overall, lattice_step, offsets, quantile, shift
from ddfm.operators import grad
from ddfm.presets import PRESETS
from ddfm.saliency import LocalSaliency, StrongestGradient

NONE = torch.ones(1, 1, 1, 1, dtype=torch.float64)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 2 - 1


def maps_of(saliency, sources, q=0.5):
    return saliency(sources, Overall.of(sources, q))


# ---- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "tolerance"), [(3.0, 0.003), (20.0, 0.013), (40.0, 0.013)])
def test_blur_against_another_librarys(sigma, tolerance):
    """scipy cuts its kernel at 4 sigma, ours at 3: 0.3 % of the range of 3. Wide blurs may differ by 1 % of it more."""
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.zeros((100, 131))
    image[30:60, 40:90] = 2.0
    image[:, 120:] = -1.0
    ours = blur(torch.from_numpy(image)[None, None], sigma)[0, 0].numpy()
    theirs = ndimage.gaussian_filter(image, sigma, mode="nearest")
    assert abs(ours - theirs).max() < 3 * tolerance


def brute_guided(guides, x, radius, eps):
    """Every window by itself, by ridge regression, then the mean of a and b over the windows around a pixel."""
    count, height, width = guides.shape
    a, b = np.zeros_like(guides), np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            window = np.s_[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
            g, p = guides[(slice(None), *window)].reshape(count, -1), x[window].ravel()
            apart = g - g.mean(1, keepdims=True)
            a[:, i, j] = np.linalg.solve(apart @ apart.T / p.size + eps * np.eye(count), apart @ p / p.size)
            b[i, j] = p.mean() - a[:, i, j] @ g.mean(1)
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            window = np.s_[max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
            out[i, j] = a[(slice(None), *window)].mean((1, 2)) @ guides[:, i, j] + b[window].mean()
    return out


@pytest.mark.parametrize("count", [1, 2, 3])
def test_guided_filter_against_brute_force(count):
    """Radii below 8 have no coarse grid."""
    guides, x = random(count, 19, 23), random(2, 19, 23, seed=1)
    got = guided_filter(guides[None], x[None], 3, 0.04)[0]
    for channel in range(2):
        expected = brute_guided(guides.numpy(), x[channel].numpy(), 3, 0.04)
        np.testing.assert_allclose(got[channel].numpy(), expected, rtol=0, atol=1e-12)


def test_guided_filter_on_its_coarse_grid_stays_near_brute_force():
    """Blocks of 3 pixels, linear between: on piecewise smooth pictures, means within 2 % and no pixel beyond 15 %."""
    rows, columns = np.mgrid[:60, :66] / 60
    guide = 0.3 * np.sin(5 * rows + 3 * columns) + (columns > 0.6)
    x = (columns + 0.1 * rows > 0.62).astype(float)
    expected = brute_guided(guide[None], x, 12, 0.01)
    got = guided_filter(torch.from_numpy(guide)[None, None], torch.from_numpy(x)[None, None], 12, 0.01)[0, 0].numpy()
    assert np.abs(got - expected).mean() < 0.02
    assert np.abs(got - expected).max() < 0.15


def test_guided_filter_keeps_constants_and_follows_the_guides_edge():
    guide = torch.zeros(1, 1, 48, 48, dtype=torch.float64)
    guide[..., 20:] = 1.0
    constant = torch.full_like(guide, 0.4)
    torch.testing.assert_close(guided_filter(guide, constant, 12, 0.01), constant, rtol=0, atol=1e-12)
    ragged = guide.clone()
    ragged[..., 18:24] = random(1, 1, 48, 6, seed=3).sign().clamp(min=0)  # an unsure border
    smooth = guided_filter(guide, ragged, 12, 0.01)
    step = (smooth[..., 20] - smooth[..., 19]).mean()
    assert step > 0.6  # nearly all of the change at the guide's edge
    assert smooth[..., :14].max() < 0.2


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 3)])
def test_filters_of_tiny_planes_are_finite(size):
    x = random(1, 2, *size)
    for sigma in (0.0, 2.0, 20.0):
        assert blur(x, sigma).shape == x.shape
        assert blur(x, sigma).isfinite().all()
    assert guided_filter(x, x, 12, 0.01).isfinite().all()


# ---- levels ---------------------------------------------------------------------------------------


def test_quantile_is_numpys_on_small_images_and_near_it_on_large_ones():
    x = random(2, 3, 61, 37)
    assert lattice_step(61, 37) == 1
    expected = np.quantile(x.numpy().reshape(2, 3, -1), 0.3, axis=2)
    np.testing.assert_allclose(quantile(x, 0.3)[..., 0, 0].numpy(), expected, atol=1e-12)
    large = random(1, 1, 700, 900)
    assert lattice_step(700, 900) == 4
    # 39,375 draws: the spread of a quantile is sqrt(q (1 - q) / n) / density = 0.0046 here; four times it
    assert abs(float(quantile(large, 0.3)) - float(np.quantile(large.numpy(), 0.3))) < 0.019


def test_offsets_sum_to_nothing_and_the_shift_brings_back():
    levels = random(4, 3, 1, 1)
    torch.testing.assert_close(offsets(levels, 0.7).sum(1), torch.zeros(4, 1, 1, dtype=torch.float64))
    for low, high, expected in ((-0.5, 0.5, 0.0), (-1.2, 0.5, 0.2), (-0.5, 1.3, -0.3)):
        assert float(shift(torch.tensor(low), torch.tensor(high))) == pytest.approx(expected, abs=1e-6)


# ---- scale maps -----------------------------------------------------------------------------------


def test_scale_maps_sum_to_the_count_and_are_positive():
    for saliency in (LocalSaliency(), LocalSaliency(radius=0, glare=0, detail=0)):
        a = maps_of(saliency, random(2, 3, 40, 50))
        torch.testing.assert_close(a.sum(1), torch.full((2, 40, 50), 3.0, dtype=torch.float64), rtol=0, atol=1e-12)
        assert (a > 0).all()


def test_equal_sources_share_equally():
    a = maps_of(LocalSaliency(glare=0), random(1, 1, 40, 50).expand(1, 2, 40, 50))
    torch.testing.assert_close(a, torch.ones_like(a), rtol=0, atol=1e-12)


def test_a_hot_square_wins_in_the_thermal_source_and_the_rest_in_the_other():
    thermal = torch.full((1, 1, 96, 96), -0.7, dtype=torch.float64)
    thermal[..., 40:56, 40:56] = 0.8
    visible = 0.2 * random(1, 1, 96, 96)
    a = maps_of(LocalSaliency(), torch.cat([thermal, visible], 1))
    assert a[0, 0, 44:52, 44:52].min() > 1.7
    assert a[0, 0, :20].mean() < 0.3


def test_glare_takes_weight_from_a_white_area_and_not_from_a_small_target():
    rows = torch.arange(200)[:, None]
    thermal = torch.full((1, 1, 200, 200), -0.5, dtype=torch.float64)
    thermal[..., 100:, :] = 1.0  # half of the picture saturates
    thermal[..., 20:26, 20:26] = 1.0  # and one small target
    visible = 0.3 * random(1, 1, 200, 200)
    sources = torch.cat([thermal, visible], 1)
    plain, careful = (maps_of(LocalSaliency(glare=g), sources, 0.3)[0, 0] for g in (0.0, 0.2))
    assert careful[110:].mean() < 0.1 < 1.5 < plain[110:].min()
    alone = torch.cat([thermal.where(rows < 100, torch.tensor(-0.5).double()), visible], 1)
    plain, careful = (maps_of(LocalSaliency(glare=g), alone, 0.3)[0, 0] for g in (0.0, 0.2))
    assert careful[20:26, 20:26].mean() > 0.98 * plain[20:26, 20:26].mean()


def test_maps_of_a_batch_are_those_of_its_images():
    sources = random(3, 2, 64, 70)
    whole = maps_of(LocalSaliency(), sources)
    for n in range(3):
        torch.testing.assert_close(whole[n : n + 1], maps_of(LocalSaliency(), sources[n : n + 1]), rtol=0, atol=1e-12)


def test_nothing_beyond_its_reach_changes_a_map():
    """What the margins of blocks in ``strips`` rely on; a corner of another picture, levels given."""
    saliency = LocalSaliency()
    reach = int(np.ceil(saliency.reach / 240)) * 240
    sources, overall = random(1, 2, 24, 480).float(), Overall(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    other = sources.clone()
    other[..., 240 + 12 :] = random(1, 2, 24, 228, seed=9).float()
    assert reach == 240
    assert saliency.reach < 240
    a, b = (saliency(s, overall)[..., : 252 - int(saliency.reach) - 1] for s in (sources, other))
    assert a.shape[-1] > 100
    assert (a - b).abs().max() < 2e-3  # Gaussian tails at 3.5 sigma, to the power 2.5


@pytest.mark.parametrize("setting", [{"window": -1}, {"floor": 0}, {"edge": 0}, {"glare": 1.5}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(DDFMError, match=next(iter(setting))):
        LocalSaliency(**setting)


# ---- texture --------------------------------------------------------------------------------------


def test_maps_let_a_hot_targets_outline_win_against_the_gains():
    """Among faint stripes that the gains favour 20 to 1, lengths alone lose the square's outline."""
    hot = torch.full((1, 1, 64, 64), -0.6, dtype=torch.float64)
    hot[..., 24:40, 24:40] = 0.8
    striped = 0.1 * torch.arange(64, dtype=torch.float64).fmod(2).expand(1, 1, 64, 64) - 0.9
    sources = torch.cat([hot, striped], 1)
    own = grad(sources.view(-1, 1, 64, 64))
    edge = (slice(None), slice(None), slice(23, 24), slice(26, 38))  # the square's upper outline
    plain = StrongestGradient(gains=(1, 20))
    torch.testing.assert_close(plain(sources, NONE)[edge], own[1:][edge], rtol=0, atol=0)
    weighed = StrongestGradient(gains=(1, 20), power=1.0)
    maps = maps_of(LocalSaliency(radius=0), sources)
    torch.testing.assert_close(weighed(sources, maps)[edge], own[:1][edge], rtol=0, atol=0)


def test_strongest_gradient_by_hand():
    """Per pixel the longer gradient, gains in the comparison only; ties take the mean; the wrapped border the mean."""
    a = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    b = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    a[..., 2] = 1.0
    b[..., 4] = 0.4
    sources = torch.cat([a, b], 1)
    slopes = grad(sources.view(-1, 1, 6, 6))
    g = StrongestGradient()(sources, NONE)
    assert g[0, 1, 0].tolist() == pytest.approx([0, 1, -1, 0.4, -0.4, 0])
    favoured = StrongestGradient(gains=(1, 5))(sources + 0, NONE)
    assert favoured[0, 1, 0].tolist() == pytest.approx([0, 1, -1, 0.4, -0.4, 0])
    tied = StrongestGradient()(torch.cat([a, -a], 1), NONE)
    torch.testing.assert_close(tied, torch.zeros_like(tied), rtol=0, atol=0)
    wrapped = torch.cat([torch.linspace(0, 1, 6).double().expand(1, 1, 6, 6), b], 1)
    own = grad(wrapped.view(-1, 1, 6, 6))
    expected = own[:, 1, :, -1].mean(0)
    torch.testing.assert_close(StrongestGradient()(wrapped, NONE)[0, 1, :, -1], expected, rtol=0, atol=1e-15)
    assert slopes.shape == (2, 2, 6, 6)


def test_the_order_of_the_sources_does_not_matter_without_gains():
    sources, maps = random(2, 3, 20, 22), random(2, 3, 20, 22, seed=4).abs()
    texture = StrongestGradient(power=0.5)
    torch.testing.assert_close(texture(sources, maps), texture(sources.flip(1), maps.flip(1)), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["balanced", "medical"])
def test_presets_scale_maps_keep_black_with_black(name):
    """Two black pictures with one bright square each: every square comes from its own source, nothing from black."""
    a, b = (torch.full((1, 1, 96, 96), -1.0) for _ in range(2))
    a[..., 20:40, 20:40] = 0.6
    b[..., 60:80, 60:80] = 0.6
    likelihood = PRESETS[name].likelihood
    state = likelihood.init(torch.cat([a, b], 1))
    start = likelihood.start(state)
    assert start[..., 25:35, 25:35].min() > 0.4
    assert start[..., 65:75, 65:75].min() > 0.4
    assert start[..., :10, :].max() < -0.99
