"""Fusion of one very large image: the pipeline's loop with EM in strips, the network in tiles, and few planes alive.

The same arithmetic as ``DDFMPipeline`` with DDIM, for the likelihoods that ``strips`` supports. Scale maps, texture
target and splitting variable are kept in half precision, which moves a result by less than a tenth of a grey level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddfm.color import Plane
from ddfm.diffusion import call_network
from ddfm.pipeline import DDFMPipeline, reflect_to
from ddfm.presets import Preset
from ddfm.sampling import timestep_grid
from ddfm.strips import StripEM, supported
from ddfm.tiling import tiled

__all__ = ["can_fuse", "fuse_large"]


def can_fuse(preset: Preset, pipeline: DDFMPipeline) -> bool:
    """Whether this preset and prior can be run on a very large image: luma, DDIM, a supported likelihood, no noise."""
    if preset.noise_std is not None:
        return False
    return preset.sampler == "ddim" and pipeline.config.color == "luma" and supported(preset.likelihood)


def fuse_large(
    pipeline: DDFMPipeline,
    sources: Sequence[Plane | Tensor],
    preset: Preset,
    generator: torch.Generator,
    tile: int,
    on_step: Callable[[int, int], Any] = lambda done, of: None,
) -> Tensor:
    """Fused luma (1, 1, H, W), not clipped, of planes or (1, 1, H, W) in [0, 1] on the CPU, wherever the network is."""
    abar = pipeline._alpha_bar()
    start = len(abar) - 1 if preset.start is None else preset.start
    times = timestep_grid(preset.steps, start) if preset.steps else []
    em = StripEM(preset.likelihood, sources)  # type: ignore[arg-type]
    x_t = _begin(em, preset, float(abar[times[0]]) if times else 1.0, generator)
    for i, t in enumerate(times):
        f, spare = _x0(pipeline, x_t, t, abar, tile), torch.empty_like(x_t)
        f, spare = em.step(f, spare)
        del spare
        _ddim(x_t, f, float(abar[t]), float(abar[times[i + 1]]) if i + 1 < len(times) else 1.0)
        on_step(i + 1, len(times))
    return x_t.add_(1).div_(2)


def _begin(em: StripEM, preset: Preset, level: float, generator: torch.Generator) -> Tensor:
    """x_T from pure noise, or x_t0 from EM without the prior, where abar is ``level``."""
    if preset.start is None:
        return torch.randn((1, em.height, em.width), generator=generator)[None]
    f = em.start()
    spare = torch.empty_like(f)
    for _ in range(preset.warm_sweeps):
        f, spare = em.step(f, spare)
    del spare
    if not preset.start_noise:
        return f.mul_(level**0.5)
    noise = torch.randn((1, em.height, em.width), generator=generator)[None]
    return noise.mul_(preset.start_noise * (1 - level) ** 0.5).add_(f, alpha=level**0.5)


def _x0(pipeline: DDFMPipeline, x_t: Tensor, t: int, abar: Tensor, tile: int) -> Tensor:
    """The prior's clipped x0, one plane, made in place of the network's answer."""
    height, width = x_t.shape[-2:]
    device, dtype = pipeline.device, pipeline.unet.dtype

    def network(part: Tensor) -> Tensor:
        moved = part.to(device, dtype)
        return (
            call_network(pipeline.unet, moved, torch.tensor(t, device=device), pipeline.config.unshuffle).float().cpu()
        )

    with torch.no_grad():
        out = tiled(network, reflect_to(x_t, pipeline.multiple), tile, tile // 4, pipeline.multiple)
    out = out[..., :height, :width]
    a, s = float(abar[t]) ** 0.5, (1 - float(abar[t])) ** 0.5
    kind = pipeline.scheduler.config.prediction_type
    if kind == "v_prediction":
        out.mul_(-s).add_(x_t, alpha=a)
    elif kind == "epsilon":
        out.mul_(-s).add_(x_t).div_(a)
    return out.clamp_(-1, 1)


def _ddim(x_t: Tensor, f: Tensor, abar: float, following: float) -> None:
    """x_t in place to the following timestep, DDIM with eta = 0 and x0 = f."""
    ratio = ((1 - following) / (1 - abar)) ** 0.5
    x_t.mul_(ratio).add_(f, alpha=following**0.5 - abar**0.5 * ratio)
