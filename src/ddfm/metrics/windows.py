"""Gaussian windows for VIF and MS-SSIM: means over the windows that lie inside the image."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussian_mean"]


def gaussian_mean(image: Tensor, size: int, sigma: float) -> Tensor:
    """Gaussian mean of the windows inside the image: (B, 1, H, W) -> (B, 1, H - size + 1, W - size + 1).

    ``size``: odd, pixels; ``sigma``: pixels. Two passes of shifted sums, taps of equal weight added first: torch's
    float64 convolution on the CPU is several times slower.
    """
    weights = _gaussian(size, sigma)
    for axis in (-2, -1):
        length, half = image.shape[axis] - size + 1, size // 2
        out = image.narrow(axis, half, length) * weights[half]
        for i in range(half):
            pair = image.narrow(axis, i, length) + image.narrow(axis, size - 1 - i, length)
            out = out.add_(pair, alpha=weights[i])
        image = out
    return image


def _gaussian(size: int, sigma: float) -> list[float]:
    """Weights of a Gaussian window, sum 1."""
    x = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-x.square() / (2 * sigma**2))
    return (weights / weights.sum()).tolist()
