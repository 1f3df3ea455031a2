"""Noisy sources: the E-step against quadrature, clipping against its densities, the estimate, and the whole way."""

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

import ddfm
from ddfm import cli, color, samples
from ddfm._checks import DDFMError
from ddfm.denoising import clean_sources, level_of, shown, turned
from ddfm.diffusion import alpha_bar, linear_betas
from ddfm.fusion import FuseConfig, Fuser
from ddfm.likelihood import EPSILON, FusionLikelihood, em_alone
from ddfm.noise import (
    LEAST,
    check_noise_std,
    clipped_mean,
    clipped_variance,
    complete,
    deviations,
    estimate_noise,
    noisy_moments,
    unbias,
)
from ddfm.noisy import DRAWS, settled, with_noise
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import get_preset

ABAR = alpha_bar(linear_betas())
DOUBLE = torch.float64


def double(*values):
    return torch.tensor(values, dtype=DOUBLE)


def column(*values):
    """(1, K, 1, 1)."""
    return double(*values).view(1, -1, 1, 1)


# ---- the E-step -----------------------------------------------------------------------------------


def integrated_moments(d, gamma, sigma, a):
    """a E[1 / (m + sigma^2)] and E[m] of p(m | d) ~ N(d; 0, (m + sigma^2) / a) EXP(m; gamma), by Simpson's rule.

    Over log m, from where m is nothing beside sigma^2 and gamma to 60 means of its tail: 20,000 even steps.
    """
    square = a * d * d
    u = np.linspace(math.log(1e-16 * gamma), math.log(60 * gamma + 10 * math.sqrt(square * gamma)), 20_001)
    m = np.exp(u)
    log_density = -0.5 * np.log(m + sigma**2) - square / (2 * (m + sigma**2)) - m / gamma
    density = np.exp(log_density - log_density.max()) * m
    total = integrate.simpson(density, x=u)
    return a * integrate.simpson(density / (m + sigma**2), x=u) / total, integrate.simpson(density * m, x=u) / total


DISTANCES = (1e-3, 0.02, 0.3, 2.0)
SCALES = (1e-4, 1e-2, 1.0)
SIGMAS = (1e-3, 0.05, 0.2, 1.0)
MAPS = (0.05, 1.0, 1.9)


@pytest.mark.parametrize("gamma", SCALES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_moments_against_numerical_integration(gamma, sigma):
    for d, a in itertools.product(DISTANCES, MAPS):
        expected = integrated_moments(d, gamma, sigma, a)
        exact = noisy_moments(double(d * d), double(a), double(gamma), double(sigma))
        single = noisy_moments(*(torch.tensor(x) for x in (d * d, a, gamma, sigma)))
        for value, short, truth in zip(exact, single, expected, strict=True):
            assert value.item() == pytest.approx(truth, rel=1e-9)  # the quadrature's own
            assert short.item() == pytest.approx(truth, rel=2e-5)  # some hundred roundings of float32


def test_single_precision_keeps_to_double_over_every_magnitude():
    """d from the guard to the range of a picture, scales that EM can reach, maps of 1e-6: no NaN, five digits."""
    d = torch.logspace(-3, 0.4, 30, dtype=DOUBLE).view(-1, 1, 1, 1)
    gamma = torch.logspace(-8, 1, 20, dtype=DOUBLE).view(1, -1, 1, 1)
    sigma = torch.cat([torch.zeros(1, dtype=DOUBLE), torch.logspace(-6, 0.3, 20, dtype=DOUBLE)]).view(1, 1, -1, 1)
    maps = torch.logspace(-6, 0.3, 6, dtype=DOUBLE)
    exact = noisy_moments(d * d, maps, gamma, sigma)
    single = noisy_moments((d * d).float(), maps.float(), gamma.float(), sigma.float())
    for value, truth in zip(single, exact, strict=True):
        assert (truth > 0).all() and truth.isfinite().all()
        torch.testing.assert_close(value.double(), truth, rtol=2e-5, atol=0)


@pytest.mark.parametrize("sigma", [0.0, 1e-7])
def test_without_noise_the_moments_are_those_of_the_noiseless_e_step(sigma):
    likelihood = FusionLikelihood(noise=(sigma, 0.1))
    sources = torch.rand(2, 2, 9, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    f = sources.mean(1, keepdim=True)
    state = likelihood.init(sources)
    weights, gamma = likelihood.e_step(f, state)
    plain = dataclasses.replace(state, sigma=None)
    expected, scales = FusionLikelihood().e_step(f, plain)
    # SMALLEST stands for 0: its share of E|d| is (1e-5)^2 over the distances
    torch.testing.assert_close(weights[:, 0], expected[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gamma[:, 0], scales[:, 0], rtol=1e-6, atol=0)
    assert (weights[:, 1] <= expected[:, 1] * (1 + 1e-12)).all()  # noise can only make a source say less
    assert weights[:, 1].min() < expected[:, 1].max() / 2


def test_moments_in_the_limits():
    """Noise beyond everything: W = a / sigma^2 and m as before the data. Far off: W = sqrt(2 a / gamma) / d."""
    weight, mean = noisy_moments(double(0.01), double(0.7), double(1e-6), double(1.0))
    assert weight.item() == pytest.approx(0.7, rel=1e-5)
    assert mean.item() == pytest.approx(1e-6, rel=1e-5)
    weight, _ = noisy_moments(double(4.0), double(0.7), double(0.01), double(0.001))
    assert weight.item() == pytest.approx(math.sqrt(2 * 0.7 / 0.01) / 2, rel=1e-5)


def log_densities(square, maps, gamma, sigma):
    """log of the density of d' = sqrt(maps square): a Laplace variable plus Gaussian noise, in closed form."""
    d, b = (maps * square).sqrt().numpy(), (gamma / 2).sqrt().numpy()
    s = sigma.numpy()

    def log_erfc(z):
        return math.log(2) + special.log_ndtr(-math.sqrt(2) * z)

    tails = [sign * d / b + log_erfc((s / b + sign * d / s) / math.sqrt(2)) for sign in (1, -1)]
    return s**2 / (2 * b**2) + np.logaddexp(*tails) - np.log(4 * b)


def test_em_never_lowers_the_likelihood():
    """Without texture and prior each iteration is EM of the marginal density, for f and the scales together."""
    generator = torch.Generator().manual_seed(1)
    sources = torch.rand(1, 3, 12, 10, dtype=DOUBLE, generator=generator) * 2 - 1
    maps = torch.rand(1, 3, 12, 10, dtype=DOUBLE, generator=generator) + 0.1
    likelihood = FusionLikelihood(psi=0, scale_maps=lambda s, overall: maps, noise=(0.3, 0.05, 0.1))
    state = likelihood.init(sources)
    f, history = sources.mean(1, keepdim=True), []
    for _ in range(30):
        square = (f - state.sources).square() + EPSILON**2
        history.append(log_densities(square, maps, state.gamma, state.sigma).sum())
        f, state = likelihood.step(f, state, 0.0)
    assert history[-1] > history[0] + 1
    assert all(after >= before - 1e-9 * abs(before) for before, after in itertools.pairwise(history))


def test_scale_update_rests_at_the_scale_behind_the_noise():
    """The mean of E[m | d] over all d that gamma and sigma make is gamma itself: noise is left out of the scales."""
    for gamma, sigma, a in itertools.product((0.01, 0.3), (0.02, 0.2, 0.7), (0.3, 1.5)):
        reach = (8 * sigma + 20 * math.sqrt(gamma)) / math.sqrt(a)
        d = torch.linspace(-reach, reach, 8001, dtype=DOUBLE).view(1, 1, 1, -1)
        maps = torch.full_like(d, a)
        density = np.exp(log_densities(d.square(), maps, column(gamma), column(sigma)))[0, 0, 0]
        mean = noisy_moments(d.square(), maps, column(gamma), column(sigma))[1][0, 0, 0].numpy()
        points = d.flatten().numpy()
        assert integrate.simpson(density, x=points) == pytest.approx(1 / math.sqrt(a), rel=1e-6)
        found = integrate.simpson(density * mean, x=points) * math.sqrt(a)
        assert found == pytest.approx(gamma, rel=1e-5)  # the kink of the density at d = 0 between two points


def test_the_noisier_source_counts_less():
    """Sources +-0.2 and no more: told that one has noise, EM moves to the other; told nothing, it stays between."""
    sources = double(-0.2, 0.2).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    between, _ = em_alone(FusionLikelihood(psi=0), sources, 1)
    assert between.abs().max() < 1e-12
    towards, _ = em_alone(FusionLikelihood(psi=0, noise=(0.2, 0.0)), sources, 1)
    assert (towards > 0.02).all()
    with pytest.raises(DDFMError, match="noise: got 1 values"):
        em_alone(FusionLikelihood(noise=(0.2,)), sources, 1)


# ---- clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("level", [-1.0, -0.9, 0.2, 1.0])
def test_mean_of_clipped_noise_against_integration(level, sigma):
    law = stats.norm(level, sigma)
    inside, _ = integrate.quad(lambda x: x * law.pdf(x), -1, 1, points=[min(max(level, -0.99), 0.99)], epsabs=1e-12)
    expected = inside - law.cdf(-1) + law.sf(1)
    assert clipped_mean(double(level), double(sigma)).item() == pytest.approx(expected, abs=1e-9)


def test_unbias_inverts_the_mean():
    level = torch.linspace(-1, 1, 41, dtype=DOUBLE).view(1, 1, 1, -1)
    for sigma in (0.0, 0.1, 0.4):
        smooth = clipped_mean(level, column(max(sigma, 1e-9)))
        # twelve bisections of [-1, 1]
        torch.testing.assert_close(unbias(smooth, column(sigma)), level, rtol=0, atol=1.001 * 2**-12)


@pytest.mark.parametrize(("level", "sigma"), [(-0.95, 0.2), (0.9, 0.4), (0.0, 0.1), (-1.0, 0.1)])
def test_what_was_clipped_is_drawn_anew(level, sigma):
    """The completed picture follows the unclipped noise's law (Kolmogorov-Smirnov); what was not clipped is kept."""
    generator = torch.Generator().manual_seed(0)
    size = (1, 1, 200, 200)
    noisy = level + sigma * torch.randn(size, dtype=DOUBLE, generator=generator)
    file = noisy.clamp(-1, 1)
    uniform = torch.rand(size, dtype=DOUBLE, generator=generator)
    drawn = complete(file, torch.full(size, level, dtype=DOUBLE), column(sigma), uniform)
    inside = file.abs() < 1 - 1 / 255
    assert torch.equal(drawn[inside], file[inside])
    test = stats.kstest(drawn.flatten().numpy(), stats.norm(level, sigma).cdf)
    # clipped means within half a grey level of the end, which moves that share of the draws by as much
    assert test.statistic < 1.63 / 200 + 0.4 * (1 / 255) / sigma  # the 1 % point for 40,000 draws


def test_nothing_is_drawn_without_noise():
    file = torch.tensor([-1.0, 0.3, 1.0]).view(1, 1, 1, 3)
    assert torch.equal(complete(file, file, torch.zeros(1, 1, 1, 1), torch.full_like(file, 0.5)), file)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.75])
def test_variance_of_clipped_noise_against_integration(share):
    z = stats.norm.isf(share)
    moments = [integrate.quad(lambda x, n=n: x**n * stats.norm.pdf(x, z), 0, max(z, 0) + 12)[0] for n in (1, 2)]
    assert clipped_variance(double(share)).item() == pytest.approx(moments[1] - moments[0] ** 2, rel=1e-8)


# ---- how much there is ----------------------------------------------------------------------------


def luma(picture):
    """(H, W) or (H, W, 3) -> (1, 1, H, W) in [0, 1]."""
    tensor = torch.from_numpy(picture)
    return tensor[None, None] if tensor.ndim == 2 else color.to_luma(tensor.permute(2, 0, 1)[None])


def noisy_file(clean, sigma, seed=0):
    """With white noise of ``sigma`` grey levels, clipped and rounded as a file is."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return ((clean + sigma / 255 * noise).clamp(0, 1) * 255).round() / 255


@pytest.fixture(scope="module")
def scenes():
    """The four pictures of two streets, before and after their sensors' noise of 2.5 grey levels."""
    found = [samples.street((240, 320), seed) for seed in (0, 1)]
    return [
        [luma(getattr(s, prefix + role)) for s in found for role in ("infrared", "visible")]
        for prefix in ("clean_", "")
    ]


def test_pictures_that_look_clean_are_taken_for_clean(scenes):
    for picture in scenes[0] + scenes[1]:
        assert estimate_noise(picture * 2 - 1).item() == 0
    for value in (0.0, 0.5, 1.0):
        assert estimate_noise(torch.full((1, 1, 96, 96), value) * 2 - 1).item() == 0


@pytest.mark.parametrize(("sigma", "tolerance"), [(5, 0.15), (15, 0.06), (25, 0.06), (50, 0.06)])
def test_white_noise_is_found(scenes, sigma, tolerance):
    """30 of 300 blocks count, each of 256 responses: the median has a spread of 2 %. What is in the pictures themselves
    adds its own, a tenth at 5 grey levels.
    """
    for seed, picture in enumerate(scenes[0]):
        found = 255 * estimate_noise(noisy_file(picture, sigma, seed) * 2 - 1).item()
        assert found == pytest.approx(sigma, rel=tolerance)


@pytest.mark.parametrize("level", [0.02, 0.98])
def test_noise_that_is_half_clipped_is_found(level):
    picture = noisy_file(torch.full((1, 1, 256, 256), level), 25)
    assert 255 * estimate_noise(picture * 2 - 1).item() == pytest.approx(25, rel=0.06)


def test_estimate_is_each_planes_own(scenes):
    planes = torch.cat([noisy_file(p, 10 * n, n) for n, p in enumerate(scenes[0])], 1)
    together = estimate_noise(torch.cat([planes, planes.flip(1)]) * 2 - 1)
    alone = [estimate_noise(planes[:, n : n + 1] * 2 - 1).item() for n in range(4)]
    assert together[0].tolist() == alone and together[1].tolist() == alone[::-1]
    assert alone[0] == 0 and alone == sorted(alone)


def test_too_small_to_tell():
    assert estimate_noise(torch.rand(1, 2, 63, 200)).tolist() == [[0, 0]]
    assert LEAST < 2 * 5 / 255  # what counts as none is below what the tests above find


# ---- noise_std ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("auto", "auto"),
        (0.06, (0.06,)),
        (0, (0.0,)),
        (np.float32(0.25), (0.25,)),
        ("0.06", (0.06,)),
        ("0.06, 0.02", (0.06, 0.02)),
        ([0.1, 0], (0.1, 0.0)),
        (torch.tensor([0.5, 0.25]), (0.5, 0.25)),
    ],
)
def test_noise_std_is_read(value, expected):
    assert check_noise_std(value) == expected


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (-0.1, "0 is no noise"),
        (25, "Then 0.098"),
        ("25,10", "Then 0.098"),
        (float("nan"), "0 is no noise"),
        (float("inf"), "leaves little"),
        (1, "leaves little"),
        (600, "Then 0.00916"),
        ("auto,0.1", "All are estimated, or none"),
        ("loud", '"auto"'),
        ("", '"auto"'),
        ("0.1;0.2", '"auto"'),
        (True, '"auto"'),
        ([], '"auto"'),
        ([0.1, None], '"auto"'),
        (torch.full((1, 2, 1, 1), 0.1), '"auto"'),
        (torch.tensor([[0.1, 3.0]]), "Then 0.0118"),
    ],
)
def test_a_bad_noise_std_is_refused(value, hint):
    with pytest.raises(DDFMError, match="noise_std: got") as caught:
        check_noise_std(value)
    assert hint in str(caught.value)


def test_deviations_are_on_the_range_of_the_pipeline():
    sources = torch.zeros(2, 3, 70, 64)
    assert deviations(None, sources).tolist() == [[0] * 3] * 2
    assert torch.equal(deviations((0.25,), sources), torch.full((2, 3), 0.5))
    assert deviations((0.25, 0, 0.5), sources)[1].tolist() == [0.5, 0, 1]
    each = torch.tensor([[0.0, 0.25, 0.5], [0.5, 0.25, 0.0]])
    assert torch.equal(deviations(each, sources), 2 * each)
    noisy = noisy_file(torch.full((1, 1, 70, 64), 0.5), 25) * 2 - 1
    assert torch.equal(deviations("auto", noisy), 2 * estimate_noise(noisy))
    for bad in ((0.1, 0.2), torch.zeros(3, 2)):
        with pytest.raises(DDFMError, match="noise_std: got"):
            deviations(bad, sources)


# ---- the prior cleans the sources -----------------------------------------------------------------

MEAN, SPREAD = 0.1, 0.25


def gaussian_predict(x_t, t, mean=MEAN, spread=SPREAD):
    """E[x0 | x_t] for x0 ~ N(mean, spread^2) per pixel."""
    abar = ABAR[t]
    gain = abar.sqrt() * spread**2 / (abar * spread**2 + 1 - abar)
    return mean + gain * (x_t - abar.sqrt() * mean)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.2, 1.0, 3.0])
def test_level_has_the_noise_of_the_source(sigma):
    t = level_of(sigma, ABAR)
    noise = ((1 - ABAR) / ABAR).sqrt()
    assert all(abs(noise[t] - sigma) <= abs(noise[other] - sigma) for other in (max(t - 1, 0), t + 1))
    assert sigma == 0 or noise[t] == pytest.approx(sigma, rel=0.06)  # steps are 6 % at 0.05, less above


def test_turned_is_undone_and_meets_four_positions():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    for n in range(8):
        assert torch.equal(turned(turned(x, n), n, back=True), x)
    positions = {tuple(turned(x, n).flatten().tolist()) + tuple(turned(x, n).shape) for n in range(8)}
    assert len(positions) == 4


def test_clean_sources_are_posterior_means_and_a_clean_one_stays():
    sources = torch.rand(1, 2, 20, 17, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8  # nothing is clipped
    cleaned = clean_sources(gaussian_predict, sources, torch.tensor([[0.2, 0.0]]), 3, ABAR, seeded(0))
    t = level_of(0.2, ABAR)
    noise = (1 - ABAR[t]) / ABAR[t]
    expected = MEAN + SPREAD**2 / (SPREAD**2 + noise) * (sources[:, :1] - MEAN)
    torch.testing.assert_close(cleaned[:, :1], expected.float(), rtol=0, atol=1e-6)
    assert torch.equal(cleaned[:, 1:], sources[:, 1:])


def test_each_evaluation_sees_another_position():
    seen = []

    def predict(x_t, t):
        seen.append(x_t.shape[-2:])
        return x_t

    clean_sources(predict, torch.zeros(1, 2, 18, 24), torch.tensor([[0.1, 0.1]]), 2, ABAR, seeded(0))
    assert seen == [(18, 24), (24, 18)] * 2


def test_black_does_not_turn_grey():
    """Dark pixels, their noise clipped: the prior's answer to the file is too bright, ours less than half as much."""
    mean, spread, sigma = -0.7, 0.2, 0.2
    torch.manual_seed(0)
    truth = mean + spread * torch.randn(1, 1, 128, 128)
    file = (truth + sigma * torch.randn(truth.shape)).clamp(-1, 1)

    def predict(x_t, t):
        return gaussian_predict(x_t, t, mean, spread)

    t = level_of(sigma, ABAR)
    ignored = predict(ABAR[t].sqrt().float() * file, t) - truth
    known = clean_sources(predict, file, torch.tensor([[sigma]]), 4, ABAR, seeded(0)) - truth
    # sigma sqrt(2) ahead of black by 0.3: clipping adds 0.021 to the mean, of which the prior takes half
    assert ignored.mean() == pytest.approx(0.0105, abs=0.0012)  # 16,384 pixels of 0.15: their mean's spread
    assert abs(known.mean()) < ignored.mean() / 2
    assert known.square().mean() < ignored.square().mean()


def test_clean_sources_of_a_batch_are_those_one_by_one():
    sources = torch.rand(3, 2, 20, 24, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    sources, sigma = sources.clamp(-1, 1), torch.tensor([[0.2, 0.1], [0.0, 0.3], [0.4, 0.0]])
    together = clean_sources(gaussian_predict, sources, sigma, 2, ABAR, seeded(1, 2, 3))
    for n in range(3):
        alone = clean_sources(gaussian_predict, sources[n : n + 1], sigma[n : n + 1], 2, ABAR, seeded(n + 1))
        assert torch.equal(alone[0], together[n])


# ---- the pipeline ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_prior):
    pipe = DDFMPipeline.from_pretrained(tiny_prior)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pair(size=(20, 27), batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, 1, *size, generator=generator) for _ in range(2))


WARM = {"num_inference_steps": 1, "start": 1, "draws": 2}


@pytest.mark.parametrize("nothing", [0, (0, 0.0), "0,0", torch.zeros(1, 2), "auto"])
def test_no_noise_is_as_not_told_bit_for_bit(tiny, nothing):
    """20 x 27 pixels are too few for an estimate: "auto" finds none."""
    told, plain = (tiny(*pair(), **WARM, noise_std=value).unclipped for value in (nothing, None))
    assert torch.equal(told, plain)


def test_noise_given_in_each_form_is_the_same(tiny):
    results = [tiny(*pair(), **WARM, noise_std=n).unclipped for n in (0.1, "0.1", (0.1, 0.1), torch.full((1, 2), 0.1))]
    assert all(torch.equal(r, results[0]) for r in results)
    assert not torch.equal(results[0], tiny(*pair(), **WARM).unclipped)


def test_each_source_has_its_own_noise(tiny):
    """Cleaning by hand the one that has noise, and fusing then, is the same; which of the two matters."""
    first, second = pair()
    told = tiny(first, second, **WARM, noise_std=(0.1, 0)).unclipped
    stack = torch.cat([first, second], 1) * 2 - 1
    cleaned = tiny._clean(stack, (0.1, 0), 2, None, seeded(0))
    assert torch.equal(cleaned[:, 1:], stack[:, 1:]) and not torch.equal(cleaned[:, :1], stack[:, :1])
    assert not torch.equal(told, tiny(first, second, **WARM, noise_std=(0, 0.1)).unclipped)


def test_noise_of_a_batch_is_each_images_own(tiny):
    first, second = pair(batch=3)
    sigma = torch.tensor([[0.1, 0.05], [0.0, 0.2], [0.0, 0.0]])
    together = tiny(first, second, **WARM, noise_std=sigma, generator=seeded(4, 5, 6)).unclipped
    for n in range(3):
        one = [x[n : n + 1] for x in (first, second)]
        alone = tiny(*one, **WARM, noise_std=sigma[n : n + 1], generator=seeded(4 + n)).unclipped
        torch.testing.assert_close(alone[0], together[n], rtol=0, atol=1e-6)  # rounding of the network


def test_the_pipeline_refuses_by_name(tiny):
    for value in (0.7, (0.1, 0.1, 0.1), torch.zeros(2, 2)):
        with pytest.raises(DDFMError, match="noise_std: got"):
            tiny(*pair(), **WARM, noise_std=value)
    with pytest.raises(DDFMError, match="draws: got 0"):
        tiny(*pair(), **WARM | {"draws": 0}, noise_std=0.1)
    colored = DDFMPipeline(tiny.unet, tiny.scheduler, "rgb", 2)
    with pytest.raises(DDFMError, match="noise_std: got a prior of RGB"):
        colored(*pair(), **WARM, noise_std=0.1)


def test_the_prior_earns_its_place():
    """Sigma 25 on both sources of a street: nearer to the fusion of the clean ones than EM alone, by far."""
    scene = samples.street((128, 160), 3)
    clean = [(luma(x) * 255).round() / 255 for x in (scene.clean_infrared, scene.clean_visible)]
    noisy = [noisy_file(x, 25, seed) for seed, x in enumerate(clean)]
    plain = get_preset("balanced")

    def alone(pictures):
        return em_alone(plain.likelihood, torch.cat(pictures, 1) * 2 - 1, plain.warm_sweeps + plain.steps)[0]

    def psnr(f):
        return -10 * math.log10(((f - reference).clamp(-2, 2) / 2).square().mean())

    reference = alone(clean).clamp(-1, 1)
    arrays = [x[0, 0].numpy() for x in noisy]
    told = torch.from_numpy(ddfm.fuse(*arrays, noise_std=25 / 255).data)[None, None] * 2 - 1
    found = ddfm.fuse(*arrays, noise_std="auto")
    assert psnr(told) > psnr(alone(noisy).clamp(-1, 1)) + 6
    assert psnr(torch.from_numpy(found.data)[None, None] * 2 - 1) > psnr(told) - 1
    assert found.report["noise_std"] == pytest.approx([25 / 255] * 2, rel=0.1)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_flat_source_told_of_noise_stays_as_it_is(value):
    """The prior must make nothing of nothing: without the check 77 came out between 56 and 100."""
    flat = np.full((96, 112), value, np.uint8)
    with pytest.warns(ddfm.DDFMWarning, match="same picture"):
        fused = ddfm.fuse(flat, flat, noise_std=0.1)
    assert np.abs(fused.data - value / 255).max() < 1 / 255 / 100  # the guard of the E-step is the rest
    assert [n for n in fused.report["warnings"] if "not to be seen in 100%" in n]


def test_clean_edges_and_ramps_told_of_noise_stay_as_they_are():
    block = np.full((96, 112), 0.25, np.float32)
    block[30:60, 40:80] = 0.8
    ramp = np.tile(np.linspace(0.2, 0.8, 112, dtype=np.float32), (96, 1))
    told, plain = (ddfm.fuse(block, ramp, noise_std=n).data for n in (0.1, 0))
    assert np.abs(told - plain).max() < 1e-5


@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_noise_is_shown_wherever_it_is(sigma):
    """On black, where half of it is cut off, as on grey."""
    level = torch.cat([torch.full((1, 1, 80, 80), v) for v in (0.0, 0.5, 1.0)], -1)
    noise = sigma / 255 * torch.randn(level.shape, generator=torch.Generator().manual_seed(sigma))
    share = shown((level + noise).clamp(0, 1), torch.tensor(sigma / 255).view(1, 1, 1, 1))
    # of 19,200 pixels a few corners of the black part may lack noise by chance
    assert share.mean() > 0.999 and (share > 0.9).float().mean() > 0.999
    assert shown(level[..., :80], torch.tensor(sigma / 255).view(1, 1, 1, 1)).max() == 0


def test_stripes_along_columns_are_shown():
    stripes = 0.5 + 0.04 * torch.randn((1, 1, 1, 90), generator=torch.Generator().manual_seed(1)).expand(1, 1, 70, 90)
    assert shown(stripes, torch.tensor(0.04).view(1, 1, 1, 1)).mean() > 0.9


# ---- presets, files, command line -----------------------------------------------------------------


def test_preset_for_noise():
    preset = get_preset("balanced")
    assert with_noise(preset, None) == preset and (preset.noise_std, preset.draws) == ("auto", 4)
    assert with_noise(preset, 0) == with_noise(preset, (0, 0))
    assert (with_noise(preset, 0).noise_std, with_noise(preset, 0).draws) == (None, 0)
    assert [with_noise(get_preset(name), 0.1).draws for name in ("balanced", "fast", "medical")] == [4, 1, DRAWS]
    assert with_noise(preset, 0.1, 9).draws == 9
    assert with_noise(preset, None, 0) == with_noise(preset, 0)  # no evaluations: no noise is looked for
    with pytest.raises(DDFMError, match="noise_std"):
        with_noise(preset, 2)
    with pytest.raises(DDFMError, match="steps: got 0, with noise_std"):
        with_noise(preset, 0.1, 0)


def test_settled_keeps_the_number_of_em_iterations():
    lumas = list(pair((80, 80)))
    for name in ("balanced", "fast", "medical"):
        plain = get_preset(name)
        noisy, noise = settled(with_noise(plain, (0.1, 0.25)), lumas)
        assert noise == pytest.approx((0.1, 0.25))
        assert (noisy.start, noisy.steps) == (0, 0)
        assert noisy.warm_sweeps + noisy.steps == plain.warm_sweeps + plain.steps
    paper, _ = settled(with_noise(get_preset("paper"), 0.1), lumas)
    assert (paper.start, paper.steps) == (None, 100)


def test_settled_without_noise_is_the_plain_preset(scenes):
    plain = with_noise(get_preset("balanced"), 0)
    assert settled(plain, scenes[0]) == (plain, ())
    assert settled(get_preset("balanced"), scenes[0][:2]) == (plain, (0.0, 0.0))


def test_settings_tell_of_noise_only_where_it_is():
    plain, told = (FuseConfig(noise_std=n).resolve().settings() for n in (0, "0.06,0.02"))
    assert "noise_std" not in plain and "draws" not in plain
    assert told["noise_std"] == [0.06, 0.02] and told["draws"] == DRAWS
    assert FuseConfig(noise_std="auto").resolve() == FuseConfig().resolve()
    assert FuseConfig(noise_std=0.1, steps=7).resolve().draws == 7


@pytest.mark.parametrize("value", ["loud", 25, (0.1, -1), torch.full((1, 2), 0.1)])
def test_config_refuses_by_name(value):
    with pytest.raises(DDFMError, match="noise_std: got"):
        FuseConfig(noise_std=value).resolve()


def test_count_is_checked_before_any_work(tiny_prior):
    fuser = Fuser(FuseConfig(prior=str(tiny_prior), noise_std=(0.1, 0.1, 0.1)))
    with pytest.raises(DDFMError, match="noise_std: got 3 values"):
        fuser.fuse(np.zeros((20, 24)), np.ones((20, 24)))


def test_auto_that_finds_nothing_is_as_without_the_option(tiny_prior, scenes):
    arrays = [x[0, 0, :80, :96].numpy() for x in scenes[0][:2]]
    results = [ddfm.fuse(*arrays, prior=str(tiny_prior), noise_std=n, steps=3) for n in ("auto", 0)]
    assert np.array_equal(results[0].data, results[1].data)
    assert results[0].report["noise_std"] == [0, 0] and "noise_std" not in results[1].report


@pytest.fixture
def command(tmp_path, tiny_prior, monkeypatch, capsys):
    """``ddfm fuse`` on a noisy pair, in process: exit code, what was printed, and the report's line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddfm._runtime.keep_freed_memory", lambda: None)
    scene = samples.street((80, 96), 0)
    for name in ("infrared", "visible"):
        picture = noisy_file(luma(getattr(scene, f"clean_{name}")), 20)[0, 0].numpy()
        ddfm.fusion.Fused(picture, {}).save(f"{name}.png")

    def run(*words):
        files = ["infrared.png", "visible.png", "-o", "f.png", "--overwrite", "--report", "r.jsonl"]
        monkeypatch.setattr(sys, "argv", ["ddfm", "fuse", *files, "--prior", str(tiny_prior), *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        text = " ".join((captured.out + captured.err).split())
        assert "Traceback" not in text
        report = tmp_path / "r.jsonl"
        return stop.value.code or 0, text, json.loads(report.read_text().splitlines()[-1]) if report.exists() else {}

    return run


@pytest.mark.parametrize(
    ("words", "noise", "tolerance"),
    [(["0.06"], [0.06, 0.06], 1e-5), (["0.06,0.02"], [0.06, 0.02], 1e-5), (["auto"], [20 / 255] * 2, 0.2)],
)
def test_command_line(command, words, noise, tolerance):
    code, text, report = command("--noise-std", *words)
    assert code == 0, text
    assert report["noise_std"] == pytest.approx(noise, rel=tolerance)


@pytest.mark.parametrize("value", ["loud", "25", "-0.1", "0.1,0.1,0.1", "", "nan"])
def test_command_line_refuses_with_one_line(command, tmp_path, value):
    code, text, _ = command(f"--noise-std={value}")
    assert code == 2 and "noise_std: got" in text
    assert not (tmp_path / "f.png").exists()
