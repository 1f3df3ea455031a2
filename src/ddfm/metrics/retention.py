"""Are the hot target and the visible texture both still there? (B, 1, H, W) on 0..255 -> (B,).

The six customary metrics rise when one source is copied and the other is lost. These two cannot
both be high then, so they are read together, by their minimum.

hot targets   contrast of warm regions against what surrounds them, fused over infrared
texture       correlation of the gradient magnitudes of fused and visible image, textured half only
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddfm.metrics.statistics import check_levels, gradients, pearson

__all__ = ["connected_components", "hot_retention", "texture_retention"]

HOT_PERCENTILE = 98.0
MIN_AREA = 9  # pixels; smaller components are noise or dead pixels
OUTER, INNER = 15, 3  # pixels; the surround lies between them, clear of the target's blurred rim
CEILING = 1.5  # a stretch beyond this is no more retention
LEAST_CONTRAST = 1.0  # grey levels in the infrared; below, the ratio measures noise
SMOOTHING = 2.0  # pixels, standard deviation for the visible image's gradient


# ---- hot targets --------------------------------------------------------------------------------


def hot_retention(fused: Tensor, infrared: Tensor) -> Tensor:
    """Contrast of the hot targets kept in ``fused``: 1 as in the infrared, 0 lost, at most 1.5.

    Targets are the 8-connected components, 9 pixels or more, of infrared >= its 98th percentile. Per
    target: (mean inside - mean of the surround) in ``fused`` over the same in ``infrared``, clipped
    to [0, 1.5]; then their plain mean. The surround is the target dilated by 15 pixels less the target
    dilated by 3. Dilation is by a square (Chebyshev distance): it is the ball that goes with
    8-connectivity, and separable. Targets that stand out by less than one grey level are left out;
    NaN where none is left, as on a flat infrared image.
    """
    f, a = check_levels("fused", fused), check_levels("infrared", infrared)
    pairs = zip(f[:, 0].cpu().numpy(), a[:, 0].cpu().numpy(), strict=True)
    return torch.tensor([_hot_one(*pair) for pair in pairs], dtype=f.dtype, device=f.device)


def _hot_one(fused: np.ndarray, infrared: np.ndarray) -> float:
    """Retention of one image, arrays (H, W)."""
    labels, count = connected_components(infrared >= np.percentile(infrared, HOT_PERCENTILE))
    kept = []
    for label, window in _windows(labels, count):
        target = labels[window] == label
        surround = _dilate(target, OUTER) & ~_dilate(target, INNER)
        if not surround.any():  # the target fills the image
            continue
        contrast_f, contrast_a = (
            image[window][target].mean() - image[window][surround].mean() for image in (fused, infrared)
        )
        if contrast_a >= LEAST_CONTRAST:
            kept.append(np.clip(contrast_f / contrast_a, 0, CEILING))
    return float(np.mean(kept)) if kept else float("nan")


def _windows(labels: np.ndarray, count: int) -> list[tuple[int, tuple[slice, slice]]]:
    """(label, window) of each component that is large enough: bounding box grown by the outer dilation."""
    y, x = np.nonzero(labels)
    label = labels[y, x]
    area = np.bincount(label, minlength=count + 1)
    low = np.full((count + 1, 2), np.iinfo(np.int64).max)
    high = np.zeros((count + 1, 2), dtype=np.int64)
    where = np.stack([y, x], axis=1)
    np.minimum.at(low, label, where)
    np.maximum.at(high, label, where)
    low, high = np.maximum(low - OUTER, 0), high + OUTER + 1
    return [
        (k, (slice(low[k, 0], high[k, 0]), slice(low[k, 1], high[k, 1])))
        for k in range(1, count + 1)
        if area[k] >= MIN_AREA
    ]


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilation of a boolean (H, W) by a square of side 2 radius + 1, by running sums along each axis."""
    for axis in (0, 1):
        edge = [(radius + 1, radius) if k == axis else (0, 0) for k in (0, 1)]
        sums = np.cumsum(np.pad(mask, edge), axis=axis, dtype=np.int64)
        side, size = 2 * radius + 1, mask.shape[axis]
        later, earlier = (np.take(sums, np.arange(first, first + size), axis=axis) for first in (side, 0))
        mask = later > earlier
    return mask


def connected_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 8-connected components of a boolean (H, W).

    Returns labels (H, W) of int64, 0 outside and 1..count in order of each component's first pixel,
    and the count. Union-find on the runs of each row, so its cost follows the runs, not the pixels.
    """
    height, width = mask.shape
    stride = width + 2  # one empty column on each side keeps the runs of two rows apart
    padded = np.zeros((height, stride), dtype=np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded.ravel(), prepend=np.int8(0))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)  # flat, end exclusive
    # A run touches those of the row above with start' <= end and end' >= start: diagonals count.
    first = np.searchsorted(ends, starts - stride, side="left")
    last = np.searchsorted(starts, ends - stride, side="right")
    roots = _union(first.tolist(), last.tolist())
    _, numbers = np.unique(roots, return_inverse=True)
    runs = np.repeat(numbers + 1, ends - starts)
    labels = np.zeros((height, stride), dtype=np.int64)
    labels[padded == 1] = runs
    return labels[:, 1:-1], int(numbers.max(initial=-1)) + 1


def _union(first: list[int], last: list[int]) -> np.ndarray:
    """Root of each run, the lowest of its component; run i touches the runs first[i]..last[i]-1."""
    parent = list(range(len(first)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, span in enumerate(zip(first, last, strict=True)):
        for j in range(*span):
            low, high = sorted((root(i), root(j)))
            parent[high] = low
    return np.array([root(i) for i in range(len(parent))], dtype=np.int64)


# ---- texture ------------------------------------------------------------------------------------


def texture_retention(fused: Tensor, visible: Tensor) -> Tensor:
    """Pearson r of the gradient magnitudes of ``fused`` and ``visible``, -1..1; 1 for a copy.

    Taken where the gradient magnitude of the visible image, smoothed by a Gaussian of 2 pixels, is
    above its median: the textured half. Central differences. 0 where ``fused`` has no texture there,
    NaN where the visible image has none.
    """
    g_f, g_v = (
        torch.hypot(*gradients(check_levels(name, image))) for name, image in (("fused", fused), ("visible", visible))
    )
    smooth = _smooth(g_v)
    median = smooth.flatten(1).median(1).values  # the lower median: the same pixels lie above it
    mask = smooth > median[:, None, None, None]
    r = pearson(g_f, g_v, mask)
    return torch.where(mask.flatten(1).any(1), r, torch.nan)


def _smooth(image: Tensor) -> Tensor:
    """Gaussian mean (B, 1, H, W), cut at four standard deviations, border pixels repeated."""
    radius = int(4 * SMOOTHING)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    gaussian = torch.exp(-x.square() / (2 * SMOOTHING**2))
    weights = (gaussian / gaussian.sum()).tolist()
    image = torch.nn.functional.pad(image, (radius,) * 4, mode="replicate")
    for axis in (-2, -1):
        length = image.shape[axis] - 2 * radius
        image = sum(
            (image.narrow(axis, i, length) * w for i, w in enumerate(weights)),
            start=torch.zeros_like(image.narrow(axis, 0, length)),
        )
    return image
