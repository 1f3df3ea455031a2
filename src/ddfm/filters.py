"""Smoothing of planes (B, C, H, W): Gaussian blur, and the guided filter. Both on a coarser grid where they are wide.

A coarse grid are means of n x n pixels, counted from the first row and column; in between values are linear.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["blur", "guided_filter"]


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), separable, borders replicated; sigma in pixels.

    A wide blur is computed on a coarser grid, n = sigma / 8, so that the cost does not grow with sigma: within 1 % of
    the range of x of the long kernel, but that the border continues by a mean of n x n pixels, not by one noisy pixel.
    """
    if sigma <= 0:
        return x
    coarse = int(sigma / 8)
    if coarse > 1 and min(x.shape[-2:]) > coarse:
        # means of n pixels and linear interpolation blur by themselves: variances n^2 / 12 and n^2 / 6
        rest = math.sqrt(sigma**2 - coarse**2 / 4) / coarse
        return _from_cells(blur(_cells(x, coarse), rest), coarse, x)
    radius = math.ceil(3 * sigma)
    weights = [math.exp(-0.5 * (n / sigma) ** 2) for n in range(radius + 1)]
    total = 2 * sum(weights) - weights[0]
    return _along(_along(x, [w / total for w in weights], -1), [w / total for w in weights], -2)


def _along(x: Tensor, weights: list[float], axis: int) -> Tensor:
    """Symmetric kernel, ``weights`` from its middle on, along one axis: by shifted sums, since torch's convolutions of
    one channel take ten times as long on a CPU."""
    radius, size = len(weights) - 1, x.shape[axis]
    ends = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    wide = F.pad(x, ends, mode="replicate")
    out = wide.narrow(axis, radius, size) * weights[0]
    for n, weight in enumerate(weights[1:], 1):
        for first in (radius - n, radius + n):
            out.add_(wide.narrow(axis, first, size), alpha=weight)
    return out


def guided_filter(guides: Tensor, x: Tensor, radius: int, eps: float) -> Tensor:
    """x (B, C, H, W) smoothed within windows of 2 radius + 1 pixels, but not across edges of ``guides`` (B, K, H, W).

    In each window x is taken as b + sum_k a_k guide_k, ridge ``eps`` on the a_k (He, Sun & Tang 2013, with as many
    guides as there are): steps of a guide well above sqrt(eps) stay. Moments are taken from all pixels, a and b live on
    a grid of n = radius / 4 (He & Sun 2015). Linear in x, and a constant stays: shares that sum to 1 still do.
    """
    n = max(radius // 4, 1)
    if min(x.shape[-2:]) <= n:
        n = 1
    reach, count = round(radius / n), guides.shape[1]
    products = guides[:, :, None] * torch.cat([guides, x], 1)[:, None]  # (B, K, K + C, H, W)
    means = _box(_cells(torch.cat([guides, x, products.flatten(1, 2)], 1), n), reach)
    first, second = means.split([count + x.shape[1], means.shape[1] - count - x.shape[1]], 1)
    covariance = second.unflatten(1, (count, -1)) - first[:, :count, None] * first[:, None]
    a = _solve(covariance, count, eps)
    b = first[:, count:] - (a * first[:, :count, None]).sum(1)
    planes = _from_cells(_box(torch.cat([a.flatten(1, 2), b], 1), reach), n, x)
    a, b = planes.split([count * x.shape[1], x.shape[1]], 1)
    return (a.unflatten(1, (count, -1)) * guides[:, :, None]).sum(1) + b


def _solve(system: Tensor, count: int, ridge: float) -> Tensor:
    """(M + ridge) a = r for every cell, ``system`` = [M | r] (B, K, K + C, h, w), M positive: a (B, K, C, h, w).

    Gauss-Jordan without pivots, which a positive matrix does not need; thousands of 2 x 2 at once.
    """
    rows = [row.clone() for row in system.unbind(1)]
    for j in range(count):
        rows[j][:, j] += ridge
    for j in range(count):
        rows[j] = rows[j] / rows[j][:, j : j + 1]
        rows = [row if i == j else row - row[:, j : j + 1] * rows[j] for i, row in enumerate(rows)]
    return torch.stack(rows, 1)[:, :, count:]


def _cells(x: Tensor, n: int) -> Tensor:
    """Means of n x n pixels; the last cells are filled up with the border's pixels."""
    if n == 1:
        return x
    height, width = x.shape[-2:]
    return F.avg_pool2d(F.pad(x, (0, -width % n, 0, -height % n), mode="replicate"), n)


def _from_cells(cells: Tensor, n: int, like: Tensor) -> Tensor:
    """Linear between the centres of cells, at the pixels of ``like``."""
    if n == 1:
        return cells
    size = [n * side for side in cells.shape[-2:]]
    smooth = F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
    return smooth[..., : like.shape[-2], : like.shape[-1]]


def _box(x: Tensor, reach: int) -> Tensor:
    """Means over 2 reach + 1 cells each way, as far as there are any: columns, then rows."""
    x = F.avg_pool2d(x, (1, 2 * reach + 1), 1, (0, reach), count_include_pad=False)
    return F.avg_pool2d(x, (2 * reach + 1, 1), 1, (reach, 0), count_include_pad=False)
