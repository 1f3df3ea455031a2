"""Noisy sources made clean by the prior before EM sees them: posterior means under what the file's clipping left.

symbol    shape              meaning
s_k       (B, K, H, W)       noisy sources in [-1, 1], clipped there
sigma_k   (B, K)             standard deviations of their noise, in units of [-1, 1]
y_k       (B, K, H, W)       a draw of the sources as they were before clipping
x0_k      (B, K, H, W)       the prior's estimate of a source from y, one network evaluation

A noisy source is a sample of the diffusion at the timestep with (1 - abar) / abar = sigma^2, but where black or white
cut the noise. There y is drawn from what is known, N(level, sigma^2) beyond the cut, and the level is renewed from the
network's answer: data augmentation (Tanner & Wong 1987), with the prior as its one step. Answers are averaged.

A network told of noise that is not there makes structure of what it sees. So where neighbouring pixels do not differ as
noise of sigma would make them, a source stays as it is (``shown``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddfm.filters import blur
from ddfm.noise import SMALLEST, complete, unbias

__all__ = ["Predict", "clean_sources", "level_of", "shown", "turned"]

#: (x_t (1, 1, H, W), timestep) -> x0 in [-1, 1].
Predict = Callable[[Tensor, int], Tensor]
_FIRST_BLUR = 2.0  # pixels: the level that the first draw is made from
_NEIGHBOURHOOD = 4.0  # pixels: the blur of what neighbours differ by
#: Mean of min(|difference of neighbours| / sigma, 1): 0.74 for noise of sigma, 0.45 where black cuts half of it, 0.1
#: at a clean edge. Below the first a source has no such noise, above the second it may.
_NO_NOISE, _NOISE = 0.15, 0.3


def clean_sources(
    predict: Predict,
    sources: Tensor,
    sigma: Tensor,
    draws: int,
    abar: Tensor,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Posterior means of the sources (B, K, H, W), clipped to [-1, 1]; what shows no noise stays as it is.

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
    return plane + shown(plane, sigma) * (total / draws - plane)


def shown(sources: Tensor, sigma: Tensor) -> Tensor:
    """Where sources (B, K, H, W) may hold noise of sigma (1|B, K, 1, 1) or more, from 0 (nowhere near) to 1.

    In the mean over a neighbourhood, along rows or along columns, whichever shows more: stripes show in one only.
    """
    along = []
    for axis in (-2, -1):
        steps = sources.diff(dim=axis).abs()
        steps = torch.cat([steps, steps.narrow(axis, -1, 1)], axis)
        along.append(blur((steps / sigma.clamp(min=SMALLEST)).clamp(max=1), _NEIGHBOURHOOD))
    share = ((torch.maximum(*along) - _NO_NOISE) / (_NOISE - _NO_NOISE)).clamp(0, 1)
    return share * share * (3 - 2 * share)


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
