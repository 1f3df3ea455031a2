"""Fusion without a model: the rows that no table may lack.

Each takes infrared and visible (B, 1, H, W) in [0, 1] and returns the same shape and range. Copies of
a source score high on most metrics, the plain maximum beats many published methods; a method that
does not stand out against these has shown nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddfm._checks import check_batch, problem

__all__ = ["average", "copy_infrared", "copy_visible", "laplacian_pyramid", "maximum"]

WHITE = 255.0


def average(infrared: Tensor, visible: Tensor) -> Tensor:
    """Mean of the two sources.

    Summed on the 0..255 scale, where 8-bit levels are whole numbers in any float type: back on that
    scale the halves are then exact, and round half to even is (A + B) / 2 rounded, to the last level.
    """
    infrared, visible = _check(infrared, visible)
    return (infrared * WHITE + visible * WHITE) / (2 * WHITE)


def maximum(infrared: Tensor, visible: Tensor) -> Tensor:
    """The brighter source, pixel by pixel."""
    return torch.maximum(*_check(infrared, visible))


def copy_infrared(infrared: Tensor, visible: Tensor) -> Tensor:
    """The infrared image as it is."""
    return _check(infrared, visible)[0].clone()


def copy_visible(infrared: Tensor, visible: Tensor) -> Tensor:
    """The visible image as it is."""
    return _check(infrared, visible)[1].clone()


def laplacian_pyramid(infrared: Tensor, visible: Tensor, levels: int = 4) -> Tensor:
    """Laplacian pyramid fusion (Burt and Adelson 1983): the stronger detail, the mean base.

    ``levels`` band-pass levels, each pixel from the source with the larger magnitude; fewer where the
    image is too small to halve that often. Any size; clipped to [0, 1].
    """
    a, b = _check(infrared, visible)
    details: list[Tensor] = []
    while len(details) < levels and min(a.shape[-2:]) >= 4:  # the 5-tap filter reflects 2 pixels
        (detail_a, a), (detail_b, b) = _split(a), _split(b)
        details.append(torch.where(detail_a.abs() >= detail_b.abs(), detail_a, detail_b))
    fused = (a + b) / 2
    for detail in reversed(details):
        fused = detail + _expand(fused, detail)
    return fused.clamp(0, 1)


def _split(image: Tensor) -> tuple[Tensor, Tensor]:
    """Detail (B, 1, H, W) and base (B, 1, ceil(H / 2), ceil(W / 2)) of an image."""
    base = _binomial(image)[..., ::2, ::2]
    return image - _expand(base, image), base


def _expand(base: Tensor, like: Tensor) -> Tensor:
    """Base of the next level, brought to the size of ``like``: zeros between, then the same filter."""
    sparse = torch.zeros_like(like)
    sparse[..., ::2, ::2] = base
    return 4 * _binomial(sparse)


def _binomial(image: Tensor) -> Tensor:
    """Filter by (1, 4, 6, 4, 1) / 16 along both axes, reflected without repeating the border pixel."""
    weights = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    for axis in (-2, -1):
        length = image.shape[axis]
        padded = sum(
            (padded.narrow(axis, i, length) * w for i, w in enumerate(weights)),
            start=torch.zeros_like(padded.narrow(axis, 0, length)),
        )
    return padded


def _check(infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sources if they are (B, 1, H, W) of one shape in [0, 1], else raise."""
    for name, image in (("infrared", infrared), ("visible", visible)):
        check_batch(name, image, channels=1)
        if image.numel() == 0:
            raise problem(name, f"shape {tuple(image.shape)}", "at least one pixel")
        low, high = image.aminmax()
        if low < 0 or high > 1:
            raise problem(name, f"values in [{float(low):g}, {float(high):g}]", "values in [0, 1]")
    if infrared.shape != visible.shape:
        got = f"shape {tuple(visible.shape)}"
        raise problem("visible", got, f"the shape of infrared, {tuple(infrared.shape)}")
    return infrared, visible
