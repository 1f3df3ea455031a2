"""Samplers that take the fused estimate f_hat itself as the model's output: step 4 of the method, Eq. 5.

A diffusers scheduler in sample-prediction mode does the arithmetic. Only line 16 of Algorithm 1 with a free
sigma is written here, because diffusers' DDPM always adds the posterior's noise.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfm._checks import check_choice, check_range, problem
from ddfm.diffusion import alpha_bar

__all__ = ["SAMPLERS", "PosteriorMean", "Sampler", "make_sampler", "timestep_grid"]

#: "ddim" is DDIM with eta = 0; "eq5" is line 16 as printed.
SAMPLERS = ("ddim", "dpm++", "unipc", "ddpm", "eq5")


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The timesteps of one call, descending, and the scheduler that steps along them."""

    timesteps: Tensor
    scheduler: Any

    def step(self, f_hat: Tensor, t: Tensor, x_t: Tensor, generators: list[torch.Generator]) -> Tensor:
        """x at the timestep that follows t; schedulers that draw noise get the generators."""
        options: dict[str, Any] = {"return_dict": False}
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            options["generator"] = generators
        following: Tensor = self.scheduler.step(f_hat, t, x_t, **options)[0]
        return following


def timestep_grid(count: int, start: int) -> list[int]:
    """``count`` integers from ``start`` down to 0, evenly spaced, no two alike: a warm start is a shorter list.

    A single step starts at ``start`` and ends at its f_hat.
    """
    check_range("num_inference_steps", count, 1, start + 1)
    return [round(t) for t in np.linspace(start, 0, count)]


class PosteriorMean:
    """Line 16 of Algorithm 1 (Eq. 5): the DDPM posterior's mean, plus sigma_tilde z.

    ``sigma`` is sigma_tilde / sqrt(beta_tilde_t): 0 adds no noise (the paper's "usually set to 0", which
    over-smooths), 1 is DDPM.
    """

    def __init__(self, betas: Tensor, timesteps: list[int], sigma: float) -> None:
        self.alphas_cumprod = alpha_bar(betas)
        self.timesteps = torch.tensor(timesteps)
        self._following = dict(zip(timesteps, [*timesteps[1:], -1], strict=True))
        self._sigma = sigma

    def step(
        self,
        f_hat: Tensor,
        t: Any,
        x_t: Tensor,
        generator: list[torch.Generator] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Eq. 5 between t and the timestep that follows it (abar = 1 after the last)."""
        following = self._following[int(t)]
        abar = float(self.alphas_cumprod[int(t)])
        abar_next = float(self.alphas_cumprod[following]) if following >= 0 else 1.0
        alpha = abar / abar_next
        keep = alpha**0.5 * (1 - abar_next) / (1 - abar)
        take = abar_next**0.5 * (1 - alpha) / (1 - abar)
        x = keep * x_t + take * f_hat
        spread = self._sigma * ((1 - abar_next) / (1 - abar) * (1 - alpha)) ** 0.5
        return (x + spread * draw_noise(x, generator) if spread > 0 else x,)


def draw_noise(like: Tensor, generators: list[torch.Generator] | None) -> Tensor:
    """Unit noise of the shape of ``like``, drawn on the CPU, one generator per image."""
    shape = like.shape[1:]
    draws = [torch.randn(shape, generator=g) for g in generators or [torch.Generator()] * len(like)]
    return torch.stack(draws).to(like)


def make_sampler(name: str, betas: Tensor, timesteps: list[int], sigma: float = 0.0) -> Sampler:
    """The named sampler over ``timesteps`` (descending), for a schedule ``betas`` (T,).

    Made anew for every call, so that nothing is left over from the one before; the prior's stored scheduler
    keeps its own prediction type. Raises DDFMError for an unknown name.
    """
    check_choice("sampler", name, SAMPLERS)
    if name == "eq5":
        return Sampler(torch.tensor(timesteps), PosteriorMean(betas, timesteps, sigma))
    if sigma:
        raise problem("sigma", sigma, 'sampler="eq5"', "The other samplers have no such argument.")
    common = {
        "num_train_timesteps": len(betas),
        "trained_betas": betas.numpy(),
        "prediction_type": "sample",
    }
    if name == "unipc":
        return _unipc(common, timesteps)
    scheduler = _ddpm(common) if name == "ddpm" else _dpm(common, order=1 if name == "ddim" else 2)
    scheduler.set_timesteps(timesteps=timesteps)
    return Sampler(scheduler.timesteps, scheduler)


def _ddpm(common: dict[str, Any]) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(**common, clip_sample=False, thresholding=False)


def _dpm(common: dict[str, Any], order: int) -> Any:
    """DPM-Solver++; of order 1 it is DDIM with eta = 0, and steps to whatever timestep follows in the list."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        **common,
        solver_order=order,
        algorithm_type="dpmsolver++",
        thresholding=False,
        lower_order_final=True,
    )


def _unipc(common: dict[str, Any], timesteps: list[int]) -> Sampler:
    """UniPC takes no list: its own finer grid is made so that the wanted number of steps lies below t0."""
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(**common, thresholding=False, solver_order=2)
    total = len(common["trained_betas"])
    wanted, start = len(timesteps), timesteps[0]
    count = wanted
    scheduler.set_timesteps(count)
    while count < total and int((scheduler.timesteps <= start).sum()) < wanted:
        count += 1
        scheduler.set_timesteps(count)
    begin = len(scheduler.timesteps) - wanted
    scheduler.set_begin_index(begin)
    return Sampler(scheduler.timesteps[begin:], scheduler)
