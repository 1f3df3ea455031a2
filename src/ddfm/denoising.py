"""Noisy sources made clean by the prior before EM sees them: posterior means under what the file's clipping left.

symbol    shape              meaning
s_k       (B, K, H, W)       noisy sources in [-1, 1], clipped there
sigma_k   (B, K)             standard deviations of their noise, in units of [-1, 1]
y_k       (B, K, H, W)       a draw of the sources as they were before clipping
x0_k      (B, K, H, W)       the prior's estimate of a source from y, one network evaluation

A noisy source is a sample of the diffusion at the timestep with (1 - abar) / abar = sigma^2, but where black or white
cut the noise. There y is drawn from what is known, N(level, sigma^2) beyond the cut, and the level is renewed from the
network's answer: data augmentation (Tanner & Wong 1987), with the prior as its one step. Answers are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddfm.filters import blur
from ddfm.noise import SMALLEST, complete, unbias

__all__ = ["Predict", "clean_sources", "level_of", "turned"]

#: (x_t (1, 1, H, W), timestep) -> x0 in [-1, 1].
Predict = Callable[[Tensor, int], Tensor]
_FIRST_BLUR = 2.0  # pixels: the level that the first draw is made from


def clean_sources(
    predict: Predict,
    sources: Tensor,
    sigma: Tensor,
    draws: int,
    abar: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Posterior means of the sources (B, K, H, W), clipped to [-1, 1]; a source without noise stays as it is.

    ``draws`` network evaluations for each noisy source, each on a turned copy (flips and a transposition), whose
    errors differ. abar: the schedule (T,). The noise is drawn on the CPU from the image's own generator.
    """
    images = []
    for image, deviations, generator in zip(sources, sigma, generators, strict=True):
        planes = [
            _clean_plane(predict, plane[None, None], deviation, draws, abar, generator)
            if deviation > SMALLEST
            else plane[None, None]
            for plane, deviation in zip(image, deviations, strict=True)
        ]
        images.append(torch.cat(planes, 1))
    return torch.cat(images)


def _clean_plane(
    predict: Predict, plane: Tensor, sigma: Tensor, draws: int, abar: Tensor, generator: torch.Generator
) -> Tensor:
    """One source (1, 1, H, W)."""
    t = level_of(float(sigma), abar)
    sigma = sigma.view(1, 1, 1, 1)
    level = unbias(blur(plane, _FIRST_BLUR), sigma)
    total = torch.zeros_like(plane)
    for n in range(draws):
        uniform = torch.rand(plane.shape, generator=generator).to(plane)
        y = complete(plane, level, sigma, uniform)
        x_t = abar[t].sqrt().to(plane.device, plane.dtype) * y
        level = turned(predict(turned(x_t, n), t), n, back=True)
        total += level
    return total / draws


def level_of(sigma: float, abar: Tensor) -> int:
    """The timestep whose noise, sqrt((1 - abar) / abar), is nearest to sigma."""
    return int((((1 - abar) / abar).sqrt() - sigma).abs().argmin())


def turned(x: Tensor, n: int, *, back: bool = False) -> Tensor:
    """One of four positions of (B, C, H, W): as it is, half a turn, and each of them transposed; ``back`` undoes it."""
    if back and n % 4 in (1, 3):
        x = x.transpose(-2, -1)
    if n % 4 in (2, 3):
        x = x.flip(-2, -1)
    return x.transpose(-2, -1) if not back and n % 4 in (1, 3) else x
