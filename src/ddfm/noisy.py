"""A preset for sources with noise: (preset, noise) -> preset. Which settings, and why: docs/noise.md."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.denoising import shown
from ddfm.noise import check_noise_std, deviations
from ddfm.presets import Preset

__all__ = ["DRAWS", "notes", "settled", "with_noise"]

#: Network evaluations for each noisy source where neither preset nor user says: a fifth gains nothing.
DRAWS = 4
#: Share of a source that may lie without its stated noise before a note says so.
_HALF = 0.5


def with_noise(preset: Preset, noise_std: str | float | tuple[float, ...] | None, draws: int | None = None) -> Preset:
    """``preset`` for sources with that noise on [0, 1]: one value for all, one for each, or "auto"; 0: none.

    None: as the preset says. draws: network evaluations for each noisy source, the preset's by default.
    Raises DDFMError for a value out of range.
    """
    noise = check_noise_std(noise_std)
    if draws == 0 and noise_std is not None and not _nothing(noise):
        raise problem("steps", "0, with noise_std", "1 or more", "The network is what removes the noise.")
    if isinstance(noise, Tensor):
        raise problem("noise_std", f"a tensor {tuple(noise.shape)}", "numbers", "A tensor (B, K) is for the pipeline.")
    if noise is None:
        noise = preset.noise_std
    if _nothing(noise) or draws == 0:
        return dataclasses.replace(preset, noise_std=None, draws=0)
    return dataclasses.replace(preset, noise_std=noise, draws=draws or preset.draws or DRAWS)


def _nothing(noise: str | tuple[float, ...] | Tensor | None) -> bool:
    return noise is None or (not isinstance(noise, str) and not any(noise))


def settled(preset: Preset, lumas: list[Tensor]) -> tuple[Preset, tuple[float, ...]]:
    """What is run on sources (1, 1, H, W) in [0, 1], and the noise on [0, 1] of each.

    With noise, a warm start is left without evaluations of its own, EM iterations staying as many: the prior has then
    acted on the sources, and more of it on the fused image gains nothing. Where "auto" finds none, or the preset knows
    of none, the plain preset.
    """
    if preset.noise_std is None:
        return preset, ()
    noise = tuple((deviations(preset.noise_std, torch.cat(lumas, 1) * 2 - 1)[0] / 2).tolist())
    if not any(noise):
        return dataclasses.replace(preset, noise_std=None, draws=0), noise
    preset = dataclasses.replace(preset, noise_std=noise)
    if preset.start is None:
        return preset, noise
    return dataclasses.replace(preset, start=0, steps=0, warm_sweeps=preset.warm_sweeps + preset.steps), noise


def notes(lumas: list[Tensor], noise: tuple[float, ...]) -> list[str]:
    """What to tell of sources (1, 1, H, W) in [0, 1] that hardly show the noise which they are said to have."""
    found = []
    for n, (luma, sigma) in enumerate(zip(lumas, noise or [0.0] * len(lumas), strict=True), 1):
        without = 1 - float(shown(luma, luma.new_tensor(sigma).view(1, 1, 1, 1)).mean()) if sigma else 0.0
        if without > _HALF:
            found.append(
                f"source {n}: noise of {sigma:.3g} is not to be seen in {without:.0%} of it; that part is left as it is"
            )
    return found
