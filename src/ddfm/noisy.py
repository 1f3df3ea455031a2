"""A preset for sources with noise: (preset, noise) -> preset. Which settings, and why: docs/noise.md."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.noise import check_noise_std, deviations
from ddfm.presets import Preset

__all__ = ["MOST_DRAWS", "settled", "with_noise"]

#: Network evaluations for each source, at most, unless the user asks for more: a fifth gains nothing.
MOST_DRAWS = 4


def with_noise(preset: Preset, noise_std: str | float | tuple[float, ...] | None, draws: int | None = None) -> Preset:
    """``preset`` for sources with that noise on [0, 1]: one value for all, one for each, or "auto"; 0, None: as it is.

    draws: network evaluations for each noisy source; by default twice the preset's steps, ``MOST_DRAWS`` at most.
    Raises DDFMError for a value out of range.
    """
    noise = check_noise_std(noise_std)
    if isinstance(noise, Tensor):
        raise problem("noise_std", f"a tensor {tuple(noise.shape)}", "numbers", "A tensor (B, K) is for the pipeline.")
    if noise is None or (not isinstance(noise, str) and not any(noise)):
        return preset
    draws = min(2 * preset.steps, MOST_DRAWS) if draws is None else draws
    return dataclasses.replace(preset, noise_std=noise, draws=draws)


def settled(preset: Preset, lumas: list[Tensor]) -> tuple[Preset, tuple[float, ...]]:
    """What is run on sources (1, 1, H, W) in [0, 1], and the noise on [0, 1] of each.

    With noise, the tail of a warm start shrinks to one evaluation at the lowest noise, EM iterations staying as many:
    the prior has then acted on the sources, and more of it on the fused image gains nothing. Where "auto" finds none,
    or the preset knows of none, the plain preset.
    """
    if preset.noise_std is None:
        return preset, ()
    noise = tuple((deviations(preset.noise_std, torch.cat(lumas, 1) * 2 - 1)[0] / 2).tolist())
    if not any(noise):
        return dataclasses.replace(preset, noise_std=None, draws=0), noise
    preset = dataclasses.replace(preset, noise_std=noise)
    if preset.start is None:
        return preset, noise
    return dataclasses.replace(preset, start=0, steps=1, warm_sweeps=preset.warm_sweeps + preset.steps - 1), noise
