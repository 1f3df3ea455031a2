"""The likelihood against numerical integration, dense solves, the literal paper form, and its invariants."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from ddfm._checks import DDFMError
from ddfm.likelihood import EPSILON, FusionLikelihood, em_alone
from ddfm.operators import adjoint, from_spectrum, grad, to_spectrum
from ddfm.saliency import LocalSaliency, StrongestGradient, blur

SIZE = (12, 17)


def random_sources(batch=2, count=2, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, count, *size, generator=generator, dtype=torch.float64) * 2 - 1


def random_estimate(batch=2, size=SIZE, seed=9):
    return random_sources(batch, 1, size, seed)


class RandomMaps:
    """Scale maps with known sum, to exercise a != 1."""

    def __call__(self, sources):
        generator = torch.Generator().manual_seed(5)
        maps = torch.rand(sources.shape, generator=generator, dtype=sources.dtype) + 0.2
        return sources.shape[1] * maps / maps.sum(1, keepdim=True)


def gig_moment(power, gamma, d):
    """E[m^power] under p(m | d) ~ N(d; 0, m) EXP(m; mean gamma), by integration over log m."""
    y = np.linspace(-40, 40, 400_001)
    m = np.exp(y)
    log = -0.5 * np.log(m) - d * d / (2 * m) - m / gamma + y  # dm = m dy
    density = np.exp(log - log.max())
    return float((m**power * density).sum() / density.sum())


@pytest.mark.parametrize("gamma", [0.03, 1.0])
@pytest.mark.parametrize("d", [0.05, 0.4, 1.7])
def test_e_step_against_numerical_integration(gamma, d):
    likelihood = FusionLikelihood()
    sources = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    state = likelihood.init(sources)
    state = dataclasses.replace(state, gamma=torch.full((1, 2, 1, 1), gamma, dtype=torch.float64))
    guarded = math.sqrt(d * d + EPSILON**2)
    weights = likelihood.weights(torch.full((1, 1, 4, 4), d, dtype=torch.float64), state)
    assert weights[0, 0, 0, 0].item() == pytest.approx(gig_moment(-1, gamma, guarded), rel=1e-9)
    scales = likelihood.scales(weights, state)
    assert scales[0, 0].item() == pytest.approx(gig_moment(1, gamma, guarded), rel=1e-9)


def test_scale_update_finds_the_scale_of_laplace_data():
    """LAP(scale b) is the mixture with gamma = 2 b^2 (Proposition 1): Eq. 31 iterated must find it."""
    b = 0.15
    draws = torch.distributions.Laplace(0.0, b)
    torch.manual_seed(0)
    residue = draws.sample((1, 1, 400, 400)).double()
    likelihood = FusionLikelihood(psi=0)
    state = likelihood.init(residue.expand(1, 2, -1, -1))
    for _ in range(60):
        weights = likelihood.weights(torch.zeros_like(residue), state)
        state = dataclasses.replace(state, gamma=likelihood.scales(weights, state))
    # 160,000 draws: the mean of |d| has a relative spread of 1/400, gamma twice that; three times the spread
    assert state.gamma[0, 0].item() == pytest.approx(2 * b * b, rel=0.015)


def test_k_against_a_dense_solve():
    likelihood = FusionLikelihood(psi=0.4, eta=0.7)
    sources = random_sources(1)
    state = likelihood.init(sources)
    f, u = random_estimate(1), random_sources(1, 2, seed=3)
    state = dataclasses.replace(state, carried=to_spectrum(adjoint(u)))
    k, _ = likelihood.solve_k(f, state)
    n = SIZE[0] * SIZE[1]
    basis = torch.eye(n, dtype=torch.float64).view(n, 1, *SIZE)
    dense = (basis + adjoint(grad(basis))).view(n, n).T
    right = f + adjoint(u + likelihood.texture_target(sources))
    expected = torch.linalg.solve(dense, right.view(n)).view(k.shape)
    torch.testing.assert_close(k, expected, rtol=0, atol=1e-12)


def literal_paper_step(x0, i, v, u, gamma, rho, psi, eta):
    """Eq. 16 (fraction turned), 31, 25, 27, 29, 30 as printed, in x = f - v; complex FFTs, nothing saved."""
    x, y = x0 - v, i - v
    m = torch.sqrt(2 / (gamma * ((y - x) ** 2 + EPSILON**2)))
    n = torch.sqrt(2 / (rho * (x**2 + EPSILON**2)))
    gamma, rho = (1 / m).mean() + gamma / 2, (1 / n).mean() + rho / 2
    kernels = []
    for axis in (0, 1):
        kernel = torch.zeros(x.shape[-2:], dtype=torch.float64)
        kernel[0, 0] -= 1
        kernel[(-1, 0) if axis == 0 else (0, -1)] += 1
        kernels.append(torch.fft.fft2(kernel))
    top = torch.fft.fft2(x) + sum(h.conj() * torch.fft.fft2(u[:, a : a + 1]) for a, h in enumerate(kernels))
    k = torch.fft.ifft2(top / (1 + sum(h.abs() ** 2 for h in kernels))).real
    u = eta / (2 * psi + eta) * grad(k)
    x = (2 * m * y + eta * k) / (2 * m + 2 * n + eta)
    return x + v, u, gamma, rho


@pytest.mark.parametrize(("psi", "eta"), [(0.5, 0.1), (2.0, 30.0)])
def test_equals_the_literal_paper_form(psi, eta):
    likelihood = FusionLikelihood(psi=psi, eta=eta)
    sources = random_sources(1)
    i, v = sources[:, :1], sources[:, 1:]
    state = likelihood.init(sources)
    u, gamma, rho = torch.zeros(1, 2, *SIZE, dtype=torch.float64), 1.0, 1.0
    for step in range(5):
        x0 = random_estimate(1, seed=step)
        expected, u, gamma, rho = literal_paper_step(x0, i, v, u, gamma, rho, psi, eta)
        f, state = likelihood.step(x0, state, snr=1.0)
        torch.testing.assert_close(f, expected, rtol=0, atol=1e-13)
    assert state.gamma.flatten().tolist() == pytest.approx([float(gamma), float(rho)], rel=1e-13)


def spatial_u(likelihood, k, state):
    """u of Eq. 27 in space, from the definition."""
    c = likelihood.eta / (2 * likelihood.psi + likelihood.eta)
    return c * (grad(k) - likelihood.texture_target(state.sources))


@pytest.mark.parametrize("block", ["k", "u", "f"])
def test_each_block_minimises_its_objective(block):
    """No small change of a block, in any of several directions, lowers Eq. 23."""
    likelihood = FusionLikelihood(psi=0.6, eta=1.5, prior_weight=0.3, scale_maps=RandomMaps())
    sources, x0 = random_sources(1), random_estimate(1, seed=4)
    state = likelihood.init(sources)
    f, u = random_estimate(1), random_sources(1, 2, seed=3)
    weights = likelihood.weights(f, state)
    k, _ = likelihood.solve_k(f, dataclasses.replace(state, carried=to_spectrum(adjoint(u))))
    if block != "k":
        u = spatial_u(likelihood, k, state)
    if block == "f":
        f = likelihood.solve_f(weights, k, x0, 2 * 0.3 * 2.0, state)
    values = {"f": f, "k": k, "u": u}

    def objective(**changed):
        arguments = values | changed
        return likelihood.objective(**arguments, weights=weights, state=state, x0=x0, snr=2.0)

    best = objective()
    for seed in range(5):
        direction = random_sources(1, values[block].shape[1], seed=10 + seed)
        for size in (1e-3, -1e-3):
            assert objective(**{block: values[block] + size * direction}) > best


def test_objective_never_rises_and_residual_vanishes_over_sweeps_with_fixed_weights():
    likelihood = FusionLikelihood(psi=0.5, eta=2.0, scale_maps=RandomMaps())
    state = likelihood.init(random_sources())
    f = random_estimate()
    weights = likelihood.weights(f, state)
    history, residuals = [], []
    for _ in range(40):
        k, carried = likelihood.solve_k(f, state)
        residuals.append(likelihood.residual(f, k, weights, state))
        f = likelihood.solve_f(weights, k, f, 0.0, state)
        state = dataclasses.replace(state, carried=carried)
        history.append(likelihood.objective(f, k, spatial_u(likelihood, k, state), weights, state))
    for before, after in itertools.pairwise(history):
        assert (after <= before * (1 + 1e-12)).all()
    assert (history[-1] < history[0]).all()
    assert (residuals[-1] < 1e-6 * residuals[0]).all()


def test_carried_spectrum_is_the_transform_of_u():
    likelihood = FusionLikelihood(psi=0.5, eta=2.0)
    state = likelihood.init(random_sources())
    k, carried = likelihood.solve_k(random_estimate(), state)
    expected = adjoint(spatial_u(likelihood, k, state))
    torch.testing.assert_close(from_spectrum(carried, SIZE), expected, rtol=0, atol=1e-12)


def test_without_texture_the_result_lies_between_the_sources():
    likelihood = FusionLikelihood(psi=0)
    sources = random_sources()
    low, high = sources.amin(1, keepdim=True), sources.amax(1, keepdim=True)
    for seed in range(3):
        f, _ = likelihood.step(3 * random_estimate(seed=seed), likelihood.init(sources), 0.0)
        assert (f >= low - 1e-12).all()
        assert (f <= high + 1e-12).all()


def test_behaviour_outside_the_interval_as_the_method_page_states():
    """Equal scales, sources at -0.5 and 0.5: 0.51 -> about 0.49, 3 -> 0.08, inside unchanged."""
    likelihood = FusionLikelihood(psi=0)
    sources = torch.tensor([-0.5, 0.5], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    for x, expected in ((0.51, 0.49), (3.0, 0.0833), (0.2, 0.2)):
        x0 = torch.full((1, 1, 4, 4), x, dtype=torch.float64)
        f, _ = likelihood.step(x0, likelihood.init(sources), 0.0)
        assert f.mean().item() == pytest.approx(expected, abs=1e-3)  # EPSILON's share


def test_swapping_the_sources_swaps_nothing_else():
    strongest = StrongestGradient()
    likelihood = FusionLikelihood(eta=3.0, texture=strongest)
    sources, x0 = random_sources(), random_estimate()
    f, state = likelihood.step(x0, likelihood.init(sources), 0.0)
    g, swapped = likelihood.step(x0, likelihood.init(sources.flip(1)), 0.0)
    torch.testing.assert_close(f, g, rtol=0, atol=1e-14)
    torch.testing.assert_close(state.gamma.flip(1), swapped.gamma, rtol=1e-14, atol=0)


def test_saliency_lets_a_hot_targets_outline_win_against_the_gains():
    """Among faint stripes that the gains favour 20 to 1, lengths alone lose the square's outline."""
    hot = torch.full((1, 1, 64, 64), -0.6, dtype=torch.float64)
    hot[..., 24:40, 24:40] = 0.8
    striped = 0.1 * torch.arange(64, dtype=torch.float64).fmod(2).expand(1, 1, 64, 64) - 0.9
    sources = torch.cat([hot, striped], 1)
    own = grad(sources.view(-1, 1, 64, 64))
    edge = (slice(None), slice(None), slice(23, 24), slice(26, 38))  # the square's upper outline
    plain = StrongestGradient(gains=(1, 20))
    torch.testing.assert_close(plain(sources)[edge], own[1:][edge], rtol=0, atol=0)
    weighed = StrongestGradient(gains=(1, 20), saliency=LocalSaliency(), power=1.0)
    torch.testing.assert_close(weighed(sources)[edge], own[:1][edge], rtol=0, atol=0)
    # far from the square both are dark and say little: the gains decide
    far = (slice(None), slice(None), slice(2, 8), slice(2, 60))
    torch.testing.assert_close(weighed(sources)[far], own[1:][far], rtol=0, atol=0)


def test_saliency_of_power_zero_changes_nothing():
    sources = random_sources()
    weighed = StrongestGradient(gains=(1, 2), sigma=1.5, saliency=LocalSaliency(), power=0.0)
    torch.testing.assert_close(weighed(sources), StrongestGradient(gains=(1, 2), sigma=1.5)(sources), rtol=0, atol=0)


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


@pytest.mark.parametrize("count", [2, 3, 5])
def test_equal_constant_sources_give_the_constant(count):
    sources = torch.full((1, count, 16, 18), 0.3, dtype=torch.float64)
    likelihood = FusionLikelihood(eta=1.0, sweeps=3)
    f, state = em_alone(likelihood, sources, 3)
    torch.testing.assert_close(f, sources[:, :1], rtol=0, atol=1e-13)
    assert state.gamma.isfinite().all()
    assert (state.gamma > 0).all()


def test_k_sources_against_brute_force_median():
    """EM without texture minimises sum_k |f - s_k| for equal fixed scales: with three sources, the median."""
    likelihood = FusionLikelihood(psi=0)
    sources = random_sources(1, 3)
    f = sources.mean(1, keepdim=True)
    state = likelihood.init(sources)
    for _ in range(400):
        f = likelihood.solve_f(likelihood.weights(f, state), f, f, 0.0, state)
    expected = sources.median(1, keepdim=True).values
    # the guard rounds the corner of |d| over EPSILON, so the minimiser is within a few EPSILON
    assert (f - expected).abs().max() < 3 * EPSILON


def test_batch_equals_images_one_by_one():
    likelihood = FusionLikelihood(eta=2.0, scale_maps=None, sweeps=2, prior_weight=0.1)
    sources, x0 = random_sources(3).float(), random_estimate(3).float()
    whole, state = likelihood.step(x0, likelihood.init(sources), 3.0)
    for b in range(3):
        one, single = likelihood.step(x0[b : b + 1], likelihood.init(sources[b : b + 1]), 3.0)
        torch.testing.assert_close(whole[b : b + 1], one, rtol=0, atol=1e-6)
        torch.testing.assert_close(state.gamma[b : b + 1], single.gamma, rtol=1e-5, atol=0)


def test_prior_weight_pulls_towards_x0_in_proportion():
    """A huge lambda gives x0; the pull at one pixel is the closed form of a weighted mean."""
    sources, x0 = random_sources(1), random_estimate(1)
    strong = FusionLikelihood(psi=0, prior_weight=1e6)
    f, _ = strong.step(x0, strong.init(sources), 1e4)
    torch.testing.assert_close(f, x0, rtol=0, atol=1e-5)
    mild = FusionLikelihood(psi=0, prior_weight=0.5)
    state = mild.init(sources)
    weights = mild.weights(x0, state)
    f, _ = mild.step(x0, state, 4.0)
    expected = (2 * (weights * sources).sum(1, keepdim=True) + 4.0 * x0) / (2 * weights.sum(1, keepdim=True) + 4.0)
    torch.testing.assert_close(f, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("setting", [{"psi": -1}, {"eta": float("nan")}, {"sweeps": 0}, {"prior_weight": -0.1}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(DDFMError, match=next(iter(setting))):
        FusionLikelihood(**setting)


def test_one_source_and_nan_are_refused():
    with pytest.raises(DDFMError, match="two or more"):
        FusionLikelihood().init(random_sources(1, 1))
    with pytest.raises(DDFMError, match="NaN"):
        FusionLikelihood().init(random_sources() * float("nan"))
