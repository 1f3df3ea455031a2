"""DDFM as a diffusers pipeline: the loop of Algorithm 1, with any prior, sampler and likelihood.

symbol   shape              meaning
x_t      (B, C, H, W)       noisy image, C channels of the prior; float32, the image's own size throughout
x0       (B, C, H, W)       the prior's estimate (Eq. 4), clipped to [-1, 1]
f_hat    (B, 1, H, W)       its luma after one E and M step (Eq. 30)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from ddfm._checks import check_batch, check_choice, check_range, problem
from ddfm.denoising import clean_sources
from ddfm.diffusion import add_noise, alpha_bar, call_network, snr, to_x0
from ddfm.likelihood import FusionLikelihood, Likelihood, em_alone
from ddfm.noise import NoiseStd, check_noise_std, deviations
from ddfm.priors import check_noise_model, load_prior
from ddfm.sampling import SAMPLERS, Sampler, draw_noise, make_sampler, timestep_grid
from ddfm.tiling import tiled

__all__ = ["MIN_SIZE", "DDFMOutput", "DDFMPipeline"]

MIN_SIZE = 16
#: BT.601 weights, which sum to 1: the luma of values in [-1, 1] lies in [-1, 1].
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass
class DDFMOutput(BaseOutput):
    """``images``: the fused luma, float32 (B, 1, H, W) in [0, 1], on the CPU. ``state``: the EM's last state.

    ``unclipped``: the same luma before it was brought into [0, 1]; a stretch begins with it.
    """

    images: Tensor
    state: Any
    unclipped: Tensor


class DDFMPipeline(DiffusionPipeline):
    """Fusion by diffusion posterior sampling (Algorithm 1).

    unet: a diffusers ``UNet2DModel``; scheduler: gives betas and the prediction type.
    color: what the network models, "luma" (1 channel) or "rgb" (3). unshuffle: pixel-unshuffle factor in front.
    """

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: Any, scheduler: Any, color: str = "luma", unshuffle: int = 1) -> None:
        super().__init__()
        check_choice("color", color, ("luma", "rgb"))
        _check_scheduler(scheduler)
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(color=color, unshuffle=unshuffle)

    @classmethod
    def from_pretrained(cls, name: Any = "bundled", **options: Any) -> DDFMPipeline:
        """Load a prior by name: "bundled", or a folder written by ``save_pretrained``.

        ``torch_dtype``: dtype of the network, float32 unless given. Raises DDFMError for an unknown name.
        """
        dtype = options.pop("torch_dtype", torch.float32)
        if options:
            raise problem("from_pretrained", sorted(options), "torch_dtype and nothing else by keyword")
        prior = load_prior(name, dtype)
        return cls(prior.unet, prior.scheduler, prior.color, prior.unshuffle)

    @torch.no_grad()
    def __call__(
        self,
        *sources: Tensor,
        num_inference_steps: int = 100,
        likelihood: Likelihood | None = None,
        sampler: str = "ddim",
        sigma: float = 0.0,
        start: int | None = None,
        warm_sweeps: int = 1,
        start_noise: float = 1.0,
        luma: str = "full",
        tile: int | None = None,
        noise_std: NoiseStd = None,
        draws: int = 4,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Tensor]], Any] | None = None,
    ) -> DDFMOutput:
        """Fuse K >= 2 sources, each (B, 1, H, W) or (H, W), float in [0, 1], all of one size, 16x16 or more.

        num_inference_steps: network evaluations; 0, with a start, is the fusion without the prior.
        likelihood: default ``FusionLikelihood()``, the paper's.
        sampler: one of ``SAMPLERS``; sigma: noise of "eq5" in units of DDPM's, 0 to 1.
        start: None samples from pure noise (the paper); a timestep t0 < T starts from the fusion without the
        prior (``warm_sweeps`` likelihood steps), noised to t0 (CCDF, SDEdit). start_noise: how much of that noise is
        drawn, 0 to 1; with 0 the prior takes away what looks like noise of t0 and nothing has to be found again.
        luma: of an RGB prior, the BT.601 range in which it meets the sources: "full", or "studio" as the released code.
        tile: the network sees at most so many pixels a side at a time, a quarter shared with its neighbours; EM always
        sees the whole image. None: the whole image at once.
        noise_std: standard deviation of the sources' noise on [0, 1], one for all, one for each, (B, K), or "auto" to
        estimate it; the prior then cleans them first (``draws`` more network evaluations for each noisy source).
        generator: CPU generators, one per image; by default each image has its own with seed 0, so a result
        depends neither on the batch nor on the order. callback_on_step_end(pipeline, i, t, tensors) sees x_t
        (after the step), x0 and f_hat; what it returns is ignored.

        Raises DDFMError naming the argument for anything out of range.
        """
        likelihood = likelihood or FusionLikelihood()
        stack = self._stack(sources)
        generators = _generators(generator, len(stack))
        sampling = self._sampler(sampler, num_inference_steps, start, sigma)
        self.check_tile(tile)
        to_luma, gain = _LUMAS[check_choice("luma", luma, tuple(_LUMAS))]
        abar = self._alpha_bar()
        stack = self._clean(stack, noise_std, draws, tile, generators)
        check_range("start_noise", start_noise, 0, 1)
        level = None if start is None else abar[int(sampling.timesteps[0])] if num_inference_steps else torch.ones(())
        x_t, state = self._begin(likelihood, stack, level, warm_sweeps, start_noise, generators)
        for i, t in enumerate(self.progress_bar(sampling.timesteps)):
            level = abar[t]
            x0 = self._predict(x_t, t, level, tile).clamp(-1, 1)  # Eq. 4
            y = to_luma(x0)
            f_hat, state = likelihood.step(y, state, float(snr(level)))  # Eq. 16, 31, 25-30
            x_t = sampling.step(x0 + gain(x0) * (f_hat - y), t, x_t, generators)  # Eq. 5; the chroma stays
            if callback_on_step_end:
                tensors = {"x_t": x_t, "x0": x0, "f_hat": f_hat}
                callback_on_step_end(self, i, int(t), tensors)
        fused = ((_luma(x_t) + 1) / 2).cpu()
        return DDFMOutput(fused.clamp(0, 1), state, fused)

    def compile_network(self) -> None:
        """``torch.compile`` for the network, in place: the first call of a size takes a minute or more, later ones less
        than before; results change by rounding. Raises DDFMError where nothing can be compiled.
        """
        try:  # something small first: the network's own failure would come late and by the page
            torch.compile(torch.square)(torch.ones(64, device=self.device))
        except Exception as error:  # no compiler, no headers, no Triton, a Python without support: a kind for each
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            expected = "a C++ compiler that torch can use, or Triton on a GPU"
            remedy = "Install g++ or clang and Python's headers, or leave it out."
            raise problem("compile", reason[:200], expected, remedy) from error
        self.unet.compile()

    def _stack(self, sources: Sequence[Tensor]) -> Tensor:
        """Sources as (B, K, H, W) in [-1, 1] on the pipeline's device."""
        if len(sources) < 2:
            raise problem("sources", f"{len(sources)} source(s)", "two or more")
        batches = [_as_batch(f"source {k}", s) for k, s in enumerate(sources, 1)]
        shapes = {tuple(b.shape) for b in batches}
        if len(shapes) > 1:
            raise problem("sources", f"sizes {sorted(shapes)}", "one size", "Resize or register them first.")
        return torch.cat(batches, 1).to(self.device, torch.float32) * 2 - 1

    def _clean(
        self, stack: Tensor, noise_std: NoiseStd, draws: int, tile: int | None, generators: list[torch.Generator]
    ) -> Tensor:
        """The sources without their noise, where they have any."""
        sigma = deviations(check_noise_std(noise_std), stack)
        if not bool((sigma > 0).any()):
            return stack
        self.check_cleans()
        abar = self._alpha_bar()

        def predict(x_t: Tensor, t: int) -> Tensor:
            return self._predict(x_t, torch.tensor(t), abar[t], tile).clamp(-1, 1)

        check_range("draws", draws, 1, 1000)
        return clean_sources(predict, stack, sigma, draws, abar, generators)

    def check_cleans(self) -> None:
        """Refuse a prior that cannot remove noise from sources. Raises DDFMError."""
        if self.config.color != "luma":
            raise problem("noise_std", "a prior of RGB", "a prior of luma", "Use the bundled one.")

    def _alpha_bar(self) -> Tensor:
        return alpha_bar(self.scheduler.betas)

    def _sampler(self, name: str, count: int, start: int | None, sigma: float) -> Sampler:
        check_choice("sampler", name, SAMPLERS)
        check_range("sigma", sigma, 0, 1)
        last = len(self.scheduler.betas) - 1
        check_range("start", last if start is None else start, 0, last)
        if count == 0 and start is not None:
            return Sampler(torch.empty(0, dtype=torch.long), None)
        grid = timestep_grid(count, last if start is None else start)
        return make_sampler(name, self.scheduler.betas, grid, sigma)

    def _begin(
        self,
        likelihood: Likelihood,
        stack: Tensor,
        level: Tensor | None,
        warm_sweeps: int,
        start_noise: float,
        generators: list[torch.Generator],
    ) -> tuple[Tensor, Any]:
        """x_T from pure noise (line 1), or x_t0 from the fusion without the prior, where abar is ``level``."""
        channels = 3 if self.config.color == "rgb" else 1
        batch, _, height, width = stack.shape
        image = stack.new_empty(batch, channels, height, width)
        if level is None:
            return draw_noise(image, generators), likelihood.init(stack)
        f, state = em_alone(likelihood, stack, check_range_int("warm_sweeps", warm_sweeps))
        noise = start_noise * draw_noise(image, generators) if start_noise else torch.zeros_like(image)
        return add_noise(f.expand_as(image), noise, level), state

    def check_tile(self, tile: int | None) -> None:
        """Refuse a tile that this prior's network cannot be given; None is the whole image. Raises DDFMError."""
        least = 4 * self.multiple  # a quarter is shared, and must be a multiple too
        if tile is not None and (tile < least or tile % least):
            raise problem("tile", tile, f"a multiple of {least} for this prior", "0, or nothing, for the whole image.")

    def _predict(self, x_t: Tensor, t: Tensor, abar: Tensor, tile: int | None) -> Tensor:
        """The prior's x0; padding and tiles exist only around the network call."""
        height, width = x_t.shape[-2:]
        padded = reflect_to(x_t, self.multiple).to(self.unet.dtype)

        def network(part: Tensor) -> Tensor:
            return call_network(self.unet, part, t.to(self.device), self.config.unshuffle)

        output = tiled(network, padded, tile, tile // 4, self.multiple) if tile else network(padded)
        output = output[..., :height, :width].float()
        return to_x0(output, x_t, abar, self.scheduler.config.prediction_type)

    @property
    def multiple(self) -> int:
        """Sides of a network input must be multiples of this: unshuffle times the UNet's down-sampling."""
        return self.config.unshuffle * 2 ** (len(self.unet.config.block_out_channels) - 1)


def reflect_to(x: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, H, W) below and to the right, by reflection, to multiples of ``multiple``.

    By index, because ``F.pad`` refuses a reflection longer than the image, which a 17-pixel side needs.
    """
    for axis in (-2, -1):
        length = x.shape[axis]
        wanted = -(-length // multiple) * multiple
        if wanted != length:
            period = torch.arange(wanted, device=x.device) % (2 * length - 2)
            x = x.index_select(axis, torch.minimum(period, 2 * length - 2 - period))
    return x


def check_range_int(argument: str, value: int) -> int:
    """A count of 0 or more."""
    return int(check_range(argument, value, 0, 10_000))


def _check_scheduler(scheduler: Any) -> None:
    name = type(scheduler).__name__
    check_noise_model(name, scheduler.config.get("prediction_type", "epsilon"), "scheduler")
    if not hasattr(scheduler, "betas"):
        expected = "a variance-preserving scheduler with betas"
        raise problem("scheduler", name, expected, "Use DDPMScheduler with the prior's betas.")


def _as_batch(argument: str, source: Any) -> Tensor:
    """One source as (B, 1, H, W) in [0, 1], checked."""
    tensor = torch.as_tensor(source)
    if tensor.ndim == 2:
        tensor = tensor[None, None]
    check_batch(argument, tensor, channels=1)
    low, high = float(tensor.min()), float(tensor.max())
    if low < 0 or high > 1:
        raise problem(argument, f"values in [{low:g}, {high:g}]", "values in [0, 1]", "Scale them.")
    if min(tensor.shape[-2:]) < MIN_SIZE:
        size = f"{tensor.shape[-2]}x{tensor.shape[-1]}"
        raise problem(argument, f"{size} pixels", f"{MIN_SIZE}x{MIN_SIZE} or more")
    return tensor


def _generators(given: Any, batch: int) -> list[torch.Generator]:
    if given is None:
        return [torch.Generator().manual_seed(0) for _ in range(batch)]
    generators = [given] if isinstance(given, torch.Generator) else list(given)
    if len(generators) != batch:
        raise problem("generator", f"{len(generators)} for a batch of {batch}", "one generator per image")
    if any(g.device.type != "cpu" for g in generators):
        raise problem("generator", "a generator on a device", "CPU generators", "Noise is drawn there.")
    return generators


def _luma(image: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) -> (B, 1, H, W)."""
    if image.shape[1] == 1:
        return image
    weights = image.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def _studio(image: Tensor) -> Tensor:
    """Y of BT.601 in studio range, over 255, of RGB in [-1, 1]: -0.80 to 0.92; the released code's luma."""
    if image.shape[1] == 1:
        return image
    weights = image.new_tensor((65.481, 128.553, 24.966)).view(1, 3, 1, 1)
    return ((image * weights).sum(1, keepdim=True) + 16) / 255


def _studio_gain(image: Tensor) -> float:
    """How much each of R, G, B follows a change of the studio luma when the chroma stays."""
    return 255 / 219 if image.shape[1] == 3 else 1.0


#: luma of x0, and the change of x0 for a change of it.
_LUMAS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], float]]] = {
    "full": (_luma, lambda image: 1.0),
    "studio": (_studio, _studio_gain),
}
