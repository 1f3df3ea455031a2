"""The sampler against known recursions and densities, and the invariances of the loop."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, DDPMScheduler, EulerDiscreteScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config

from ddfm._checks import DDFMError
from ddfm.diffusion import add_noise, alpha_bar, call_network, linear_betas
from ddfm.likelihood import FusionLikelihood
from ddfm.pipeline import DDFMPipeline, reflect_to
from ddfm.sampling import SAMPLERS, make_sampler, timestep_grid

MEAN, SPREAD = 0.1, 0.25  # clipping at +-1 is 3.6 spreads away


class GaussianNetwork(ModelMixin, ConfigMixin):
    """eps for x0 ~ N(MEAN, SPREAD^2) per pixel: the exact score of the noisy density."""

    @register_to_config
    def __init__(self, kind="epsilon", block_out_channels=(1,)):
        super().__init__()
        self.kind = kind
        self.unused = torch.nn.Parameter(torch.zeros(1))  # gives the model a dtype and a device

    def forward(self, x, t):
        abar, wide = alpha_bar(linear_betas())[int(t)], x.double()
        gain = abar.sqrt() * SPREAD**2 / (abar * SPREAD**2 + 1 - abar)
        x0 = MEAN + gain * (wide - abar.sqrt() * MEAN)  # E[x0 | x_t] of a Gaussian
        eps = (wide - abar.sqrt() * x0) / (1 - abar).sqrt()
        v = abar.sqrt() * eps - (1 - abar).sqrt() * x0
        return SimpleNamespace(sample={"epsilon": eps, "v_prediction": v, "sample": x0}[self.kind].float())


class PriorAlone:
    """A likelihood that leaves x0 as it is: unconditional sampling."""

    def init(self, sources):
        return FusionLikelihood().init(sources)

    def step(self, x0, state, snr):
        return x0, state


def gaussian_pipeline(prediction_type="epsilon"):
    scheduler = DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, prediction_type=prediction_type)
    pipe = DDFMPipeline(GaussianNetwork(prediction_type), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def tiny():
    """An untrained UNet with two levels and an unshuffle: sides must be padded to multiples of 4."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    pipe = DDFMPipeline(unet.eval(), scheduler, "luma", 2)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pair(size=(20, 27), batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, 1, *size, generator=generator) for _ in range(2))


def unit_noise(size, seed=0):
    return torch.randn(1, *size, generator=torch.Generator().manual_seed(seed))[None]


def ddim_recursion(x, grid):
    """DDIM with eta = 0 in float64, scalar by scalar, from its definition."""
    levels = alpha_bar(linear_betas())
    for t, following in zip(grid, [*grid[1:], None], strict=True):
        abar = levels[t]
        eps = (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / (abar * SPREAD**2 + 1 - abar)
        x0 = ((x - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-1, 1)
        eps = (x - abar.sqrt() * x0) / (1 - abar).sqrt()
        after = levels[following] if following is not None else torch.ones(())
        x = after.sqrt() * x0 + (1 - after).sqrt() * eps
    return x


def eq5_recursion(x, grid):
    """Line 16 with sigma = 0, printed form with alpha_t = abar_t / abar_next."""
    levels = alpha_bar(linear_betas())
    for t, following in zip(grid, [*grid[1:], None], strict=True):
        abar = levels[t]
        after = levels[following] if following is not None else torch.ones(())
        alpha, beta = abar / after, 1 - abar / after
        eps = (1 - abar).sqrt() * (x - abar.sqrt() * MEAN) / (abar * SPREAD**2 + 1 - abar)
        x0 = ((x - (1 - abar).sqrt() * eps) / abar.sqrt()).clamp(-1, 1)
        x = alpha.sqrt() * (1 - after) / (1 - abar) * x + after.sqrt() * beta / (1 - abar) * x0
    return x


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize(("sampler", "recursion"), [("ddim", ddim_recursion), ("eq5", eq5_recursion)])
@pytest.mark.parametrize("start", [None, 400])
def test_sampler_follows_the_scalar_recursion(steps, sampler, recursion, start):
    pipe = gaussian_pipeline("sample")  # eps at t = 999 loses five digits when divided by sqrt(abar) = 0.006
    infrared, visible = pair()
    out = pipe(infrared, visible, likelihood=PriorAlone(), num_inference_steps=steps, sampler=sampler, start=start)
    noise = unit_noise((20, 27)).double()
    grid = timestep_grid(steps, 999 if start is None else start)
    x = noise
    if start is not None:
        x = add_noise(infrared.double() + visible.double() - 1, noise, alpha_bar(linear_betas())[start])
    expected = ((recursion(x, grid) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(out.images.double(), expected, rtol=0, atol=2e-6)  # 50 steps of float32


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_prediction_types_agree(kind):
    """From t0 = 500, where dividing by sqrt(abar) = 0.28 costs no digits."""
    infrared, visible = pair()
    first, second = (
        gaussian_pipeline(k)(infrared, visible, likelihood=PriorAlone(), num_inference_steps=10, start=500)
        for k in ("epsilon", kind)
    )
    torch.testing.assert_close(first.images, second.images, rtol=0, atol=1e-5)


def ddim_spread(steps):
    """Spread of N-step DDIM samples of the Gaussian prior: the recursion is affine, this is its slope."""
    ends = [ddim_recursion(torch.tensor(x, dtype=torch.float64), timestep_grid(steps, 999)) for x in (0.5, -0.5)]
    return float(ends[0] - ends[1])


def test_spread_of_the_recursion_reaches_the_priors_own_as_steps_grow():
    errors = [abs(ddim_spread(n) - SPREAD) for n in (10, 30, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 2e-3


@pytest.mark.parametrize(("sampler", "steps"), [("ddim", 100), ("dpm++", 200), ("unipc", 200), ("ddpm", 500)])
def test_samples_have_the_priors_mean_and_spread(sampler, steps):
    pipe = gaussian_pipeline()
    infrared, visible = pair((128, 128))
    out = pipe(infrared, visible, likelihood=PriorAlone(), num_inference_steps=steps, sampler=sampler)
    x = out.images * 2 - 1
    expected = ddim_spread(steps) if sampler == "ddim" else SPREAD
    # 16,384 pixels: standard errors 0.002 and 0.0014, five of them; 2 % for the other solvers' own steps
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(expected, abs=0.007 if sampler == "ddim" else 0.012)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_samplers_give_f_hat_when_the_likelihood_ignores_the_prior(sampler):
    """If f_hat is the same at every step, every consistent sampler must end on it."""

    class Fixed(PriorAlone):
        def step(self, x0, state, snr):
            return state.sources[:, :1], state

    infrared, visible = pair()
    pipe = gaussian_pipeline()
    out = pipe(infrared, visible, likelihood=Fixed(), num_inference_steps=8, sampler=sampler, start=600)
    # UniPC and DPM-Solver++ of order 2 end at t = 0 with abar = 0.9999, the others exactly on f_hat
    assert (out.images - infrared).abs().max() < 2e-2
    if sampler in ("ddim", "eq5", "dpm++"):
        torch.testing.assert_close(out.images, infrared, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("count", "start"), [(1, 999), (4, 300), (10, 999), (3, 50)])
def test_samplers_make_as_many_steps_as_asked_within_the_start(sampler, count, start):
    grid = timestep_grid(count, start)
    sampling = make_sampler(sampler, linear_betas().float(), grid)
    assert len(sampling.timesteps) == count
    assert int(max(sampling.timesteps)) <= start
    assert all(a > b for a, b in zip(sampling.timesteps, sampling.timesteps[1:], strict=False))


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (20, 27), (33, 16)])
def test_output_size_equals_input_size(tiny, size):
    out = tiny(*pair(size), num_inference_steps=2)
    assert out.images.shape == (1, 1, *size)
    assert 0 <= float(out.images.min()) <= float(out.images.max()) <= 1


def test_padding_is_a_reflection_and_only_where_needed():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    expected = np.pad(x[0, 0].numpy(), ((0, 5), (0, 3)), mode="reflect")
    assert np.array_equal(reflect_to(x, 8)[0, 0].numpy(), expected)
    assert reflect_to(x, 1) is x


def test_a_batch_equals_its_images_one_by_one_in_any_order(tiny):
    infrared, visible = pair((20, 27), batch=3)

    def seeds(*numbers):
        return [torch.Generator().manual_seed(n) for n in numbers]

    whole = tiny(infrared, visible, num_inference_steps=3, generator=seeds(1, 2, 3)).images
    turned = tiny(infrared.flip(0), visible.flip(0), num_inference_steps=3, generator=seeds(3, 2, 1)).images
    # the network sees another batch size, so its convolutions may round otherwise
    torch.testing.assert_close(whole, turned.flip(0), rtol=0, atol=1e-5)
    for b in range(3):
        one = tiny(infrared[b : b + 1], visible[b : b + 1], num_inference_steps=3, generator=seeds(b + 1)).images
        torch.testing.assert_close(whole[b : b + 1], one, rtol=0, atol=1e-5)


def test_same_seed_same_bytes_other_seed_other_picture(tiny):
    runs = [tiny(*pair(), num_inference_steps=3, generator=torch.Generator().manual_seed(s)).images for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_save_and_load_give_the_same_picture(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "prior")
    loaded = DDFMPipeline.from_pretrained(tmp_path / "prior")
    loaded.set_progress_bar_config(disable=True)
    assert (loaded.config.color, loaded.config.unshuffle) == ("luma", 2)
    first, second = (p(*pair(), num_inference_steps=3).images for p in (tiny, loaded))
    assert torch.equal(first, second)


def test_callback_sees_every_step(tiny):
    seen = []
    tiny(
        *pair(),
        num_inference_steps=4,
        start=300,
        callback_on_step_end=lambda pipe, i, t, tensors: seen.append((i, t, sorted(tensors))),
    )
    assert [s[:2] for s in seen] == [(0, 300), (1, 200), (2, 100), (3, 0)]
    assert seen[0][2] == ["f_hat", "x0", "x_t"]


def test_a_one_step_warm_start_at_zero_is_the_likelihood_of_the_denoised_start(tiny):
    """start = 0, one step: x_0 is nearly the EM fusion itself, whatever the prior."""
    infrared, visible = pair()
    out = tiny(infrared, visible, num_inference_steps=1, start=0, likelihood=FusionLikelihood(psi=0))
    low, high = torch.minimum(infrared, visible), torch.maximum(infrared, visible)
    assert (out.images >= low - 1e-5).all()
    assert (out.images <= high + 1e-5).all()


def test_rgb_prior_keeps_its_chroma_and_takes_our_luma():
    torch.manual_seed(0)
    unet = UNet2DModel(
        in_channels=3,
        out_channels=6,
        block_out_channels=(16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    pipe = DDFMPipeline(unet.eval(), DDPMScheduler(), "rgb")
    pipe.set_progress_bar_config(disable=True)
    seen = {}
    infrared, visible = pair((24, 24))
    pipe(
        infrared,
        visible,
        num_inference_steps=1,
        callback_on_step_end=lambda p, i, t, tensors: seen.update(tensors),
    )
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    final, before = seen["x_t"], seen["x0"]
    torch.testing.assert_close((final * weights).sum(1, keepdim=True), seen["f_hat"], rtol=0, atol=1e-5)
    chroma = [x - (x * weights).sum(1, keepdim=True) for x in (final, before)]
    torch.testing.assert_close(*chroma, rtol=0, atol=1e-5)


def test_three_sources(tiny):
    infrared, visible = pair()
    out = tiny(infrared, visible, visible, num_inference_steps=2)
    assert out.state.gamma.shape == (1, 3, 1, 1)


def test_call_network_unshuffle_is_the_identity_around_an_identity():
    class Identity(torch.nn.Module):
        def forward(self, x, t):
            return SimpleNamespace(sample=torch.cat([x, 7 * x], 1))  # learned variance: dropped

    x = torch.rand(2, 1, 8, 12)
    assert torch.equal(call_network(Identity(), x, 5, 2), x)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sampler": "ddmi"}, "ddim"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 60, "start": 50}, "num_inference_steps"),
        ({"start": 1000}, "start"),
        ({"sigma": 0.5}, "sigma"),
        ({"generator": [torch.Generator(), torch.Generator()]}, "generator"),
        ({"warm_sweeps": -1, "start": 50}, "warm_sweeps"),
    ],
)
def test_bad_arguments_are_named(tiny, change, word):
    with pytest.raises(DDFMError, match=word):
        tiny(*pair(), **({"num_inference_steps": 2} | change))


@pytest.mark.parametrize(
    ("sources", "word"),
    [
        (pair((15, 20)), "16x16"),
        ((pair()[0],), "two or more"),
        ((pair((20, 20))[0], pair((20, 21))[1]), "one size"),
        (tuple(x * 255 for x in pair()), r"\[0, 1\]"),
        (tuple(x * math.nan for x in pair()), "NaN"),
        (tuple((x * 255).to(torch.uint8) for x in pair()), "floating-point"),
    ],
)
def test_bad_sources_are_named(tiny, sources, word):
    with pytest.raises(DDFMError, match=word):
        tiny(*sources, num_inference_steps=2)


def test_schedulers_that_are_not_variance_preserving_are_refused(tiny):
    with pytest.raises(DDFMError, match="variance-preserving"):
        DDFMPipeline(tiny.unet, EulerDiscreteScheduler())


def test_state_is_returned_and_frozen(tiny):
    state = tiny(*pair(), num_inference_steps=2).state
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.gamma = None
