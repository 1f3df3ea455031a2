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
from ddfm.saliency import LocalSaliency, StrongestGradient

SIZE = (12, 17)


def random_sources(batch=2, count=2, size=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, count, *size, generator=generator, dtype=torch.float64) * 2 - 1


def random_estimate(batch=2, size=SIZE, seed=9):
    return random_sources(batch, 1, size, seed)


class RandomMaps:
    """Scale maps with known sum, to exercise a != 1."""

    def __call__(self, sources, overall=None):
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


@pytest.mark.parametrize("reach", [1.0, 5.0])
def test_k_against_a_dense_solve(reach):
    likelihood = FusionLikelihood(psi=0.4, eta=0.7, reach=reach)
    sources = random_sources(1)
    state = likelihood.init(sources)
    f, u = random_estimate(1), random_sources(1, 2, seed=3)
    state = dataclasses.replace(state, carried=to_spectrum(adjoint(u)))
    k, _ = likelihood.solve_k(f, state)
    n = SIZE[0] * SIZE[1]
    basis = torch.eye(n, dtype=torch.float64).view(n, 1, *SIZE)
    dense = (basis + reach * adjoint(grad(basis))).view(n, n).T
    right = f + reach * adjoint(u + likelihood.texture_target(sources, state.maps))
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
    c = likelihood.eta * likelihood.reach / (2 * likelihood.psi + likelihood.eta * likelihood.reach)
    return c * (grad(k) - likelihood.texture_target(state.sources, state.maps))


@pytest.mark.parametrize("reach", [1.0, 4.0])
@pytest.mark.parametrize("block", ["k", "u", "f"])
def test_each_block_minimises_its_objective(block, reach):
    """No small change of a block, in any of several directions, lowers Eq. 23."""
    likelihood = FusionLikelihood(psi=0.6, eta=1.5, prior_weight=0.3, scale_maps=RandomMaps(), reach=reach)
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
    likelihood = FusionLikelihood(psi=0.5, eta=2.0, scale_maps=RandomMaps(), reach=3.0)
    state = likelihood.init(random_sources())
    f = random_estimate()
    weights = likelihood.weights(f, state)
    history, residuals = [], []
    for _ in range(60):
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


def test_start_is_the_mixture_by_the_scale_maps():
    likelihood = FusionLikelihood(scale_maps=RandomMaps())
    sources = random_sources(count=3)
    state = likelihood.init(sources)
    expected = sum(state.maps[:, k] * sources[:, k] for k in range(3))[:, None] / 3
    torch.testing.assert_close(likelihood.start(state), expected, rtol=0, atol=1e-14)
    plain = FusionLikelihood()
    torch.testing.assert_close(plain.start(plain.init(sources)), sources.mean(1, keepdim=True), rtol=0, atol=1e-14)


@pytest.mark.parametrize("align", [0.4, 1.0])
def test_aligned_sources_differ_by_constants_and_share_a_level(align):
    """At full strength the quantiles agree; at any strength a source keeps its shape, and the mean level stays."""
    sources = 0.5 * random_sources(2, 3) + torch.tensor([-0.3, 0.0, 0.3], dtype=torch.float64).view(1, 3, 1, 1)
    state = FusionLikelihood(align=align, level=0.5).init(sources)
    moved = state.sources - sources
    torch.testing.assert_close(moved, moved[..., :1, :1].expand_as(moved), rtol=0, atol=1e-12)
    before, after = (x.flatten(2).quantile(0.5, dim=2) for x in (sources, state.sources))
    spread = [(x - x.mean(1, keepdim=True)) for x in (before, after)]
    torch.testing.assert_close(spread[1], (1 - align) * spread[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(after.mean(1), before.mean(1), rtol=0, atol=1e-12)  # nothing had to be shifted back


def test_aligned_mixture_is_shifted_back_into_range():
    """A black source with a white half, and a bright one: aligned, the white half would lie above white."""
    a = torch.full((1, 1, 32, 32), -1.0, dtype=torch.float64)
    a[..., :12] = 1.0
    maps = torch.tensor([1.98, 0.02], dtype=torch.float64).view(1, 2, 1, 1)
    b = torch.full((1, 1, 32, 32), 0.6, dtype=torch.float64)
    likelihood = FusionLikelihood(align=1.0, scale_maps=lambda s, overall: maps)
    state = likelihood.init(torch.cat([a, b], 1))
    start = likelihood.start(state)
    assert start.max() == pytest.approx(1.0, abs=1e-12)
    assert start.min() > -1
    plain = dataclasses.replace(likelihood, align=0.0).init(torch.cat([a, b], 1))
    torch.testing.assert_close(start - start.min(), likelihood.start(plain) - likelihood.start(plain).min())


def test_brightness_of_a_source_as_a_whole_does_not_matter_when_aligned():
    """A constant added to one source changes the result by a constant: what is compared are levels, not lumas."""
    likelihood = FusionLikelihood(
        psi=20.0, eta=8.0, sweeps=2, align=1.0, scale_maps=LocalSaliency(glare=0), texture=StrongestGradient()
    )
    sources = 0.3 * random_sources(1, size=(40, 44))
    brighter = sources + torch.tensor([0.4, 0.0], dtype=torch.float64).view(1, 2, 1, 1)
    edge = dataclasses.replace(likelihood, scale_maps=dataclasses.replace(likelihood.scale_maps, radius=0))
    f, g = (em_alone(edge, s, 2)[0] for s in (sources, brighter))
    torch.testing.assert_close(g - f, torch.full_like(f, 0.2), rtol=0, atol=1e-9)


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


@pytest.mark.parametrize(
    "setting", [{"psi": -1}, {"eta": float("nan")}, {"sweeps": 0}, {"prior_weight": -0.1}, {"reach": 0}, {"align": 1.1}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(DDFMError, match=next(iter(setting))):
        FusionLikelihood(**setting)


def test_one_source_and_nan_are_refused():
    with pytest.raises(DDFMError, match="two or more"):
        FusionLikelihood().init(random_sources(1, 1))
    with pytest.raises(DDFMError, match="NaN"):
        FusionLikelihood().init(random_sources() * float("nan"))
