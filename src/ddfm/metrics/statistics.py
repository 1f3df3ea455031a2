"""Metrics of grey levels and of linear correlation, in the convention that fusion papers print.

symbol   shape          meaning
F        (B, 1, H, W)   fused image, grey levels 0..255
A        (B, 1, H, W)   infrared (or functional) source
B        (B, 1, H, W)   visible (or structural) source

Every function returns one float64 value per image, shape (B,). No image of a batch sees another.

``convention="paper"`` (nats, sums over both sources, the image's own peak) is that of the evaluator published with
CDDFuse (Zhao et al., CVPR 2023), which most tables of the field come from; ``"standard"`` is what the metrics'
own papers and general image libraries compute (bits, peak 255).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddfm._checks import check_batch, check_choice, problem

__all__ = [
    "CONVENTIONS",
    "average_gradient",
    "check_convention",
    "check_levels",
    "check_sources",
    "correlation",
    "entropy",
    "gradients",
    "mse",
    "mutual_information",
    "mutual_information_single",
    "pearson",
    "psnr",
    "scd",
    "spatial_frequency",
    "standard_deviation",
]

CONVENTIONS = ("paper", "standard")
LEVELS = 256
NO_VARIANCE = 1e-20  # mean square below this is the rounding of a constant image, not contrast


# ---- inputs -------------------------------------------------------------------------------------


def check_convention(convention: str) -> str:
    """Return ``convention`` if it is "paper" or "standard", else raise."""
    return check_choice("convention", convention, CONVENTIONS)


def check_levels(argument: str, image: Tensor) -> Tensor:
    """Return ``image`` (B, 1, H, W) as float64 if its values lie on 0..255, else raise."""
    if not isinstance(image, Tensor):
        raise problem(
            argument, type(image).__name__, "a torch tensor (B, 1, H, W)", "Use torch.from_numpy(x)[None, None]."
        )
    image = image.detach()
    if image.device.type == "mps":  # has no float64; the values then come back on the CPU
        image = image.cpu()
    image = image.double()
    if image.ndim != 4 or image.shape[1] != 1:
        check_batch(argument, image, channels=1)  # raises, with the words for it
    if image.numel() == 0:
        raise problem(argument, f"shape {tuple(image.shape)}", "at least one pixel")
    low, high = (float(v) for v in image.aminmax())
    if not (low >= 0 and high <= LEVELS - 1):  # one pass over the pixels; NaN fails it too
        check_batch(argument, image, channels=1)
    if low < 0 or high > LEVELS - 1:
        got = f"values in [{low:g}, {high:g}]"
        raise problem(argument, got, "grey levels on 0..255", "Rescale and clip first.")
    _refuse_unit_range(argument, image)
    return image


def _refuse_unit_range(argument: str, image: Tensor) -> None:
    """Raise if any image of the batch is on 0..1: taken for levels it would be black, and every number wrong."""
    dark = image.flatten(1).amax(1) <= 1
    if bool(dark.any()) and bool((image[dark] != image[dark].round()).any()):
        raise problem(argument, "fractions in [0, 1]", "grey levels on 0..255", "Multiply by 255.")


def check_sources(fused: Tensor, infrared: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three images as float64 on 0..255 if their shapes agree, else raise."""
    named = {"fused": fused, "infrared": infrared, "visible": visible}
    checked = [check_levels(name, image) for name, image in named.items()]
    for name, image in zip(named, checked, strict=True):
        if image.shape != checked[0].shape:
            got = f"shape {tuple(image.shape)}"
            raise problem(name, got, f"the shape of fused, {tuple(checked[0].shape)}")
    return checked[0], checked[1], checked[2]


# ---- one image ----------------------------------------------------------------------------------


def entropy(fused: Tensor) -> Tensor:
    """EN: Shannon entropy of the rounded grey levels, bits, 0..8."""
    labels = _labels(check_levels("fused", fused))
    return _entropy_nats(labels, LEVELS) / math.log(2)


def standard_deviation(fused: Tensor) -> Tensor:
    """SD: population standard deviation, grey levels."""
    return check_levels("fused", fused).flatten(1).std(1, correction=0)


def spatial_frequency(fused: Tensor) -> Tensor:
    """SF: root of the summed mean squares of horizontal and vertical differences, grey levels."""
    image = check_levels("fused", fused)
    total = image.new_zeros(image.shape[0])
    for axis in (-1, -2):
        if image.shape[axis] > 1:  # a single row or column has no difference along itself
            total = total + image.diff(dim=axis).square().flatten(1).mean(1)
    return total.sqrt()


def average_gradient(fused: Tensor) -> Tensor:
    """AG: mean of sqrt((gx^2 + gy^2) / 2), central differences, grey levels per pixel."""
    gx, gy = gradients(check_levels("fused", fused))
    return ((gx.square() + gy.square()) / 2).sqrt().flatten(1).mean(1)


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical derivative (B, 1, H, W): central, one-sided at the border (numpy.gradient)."""
    return _derivative(image, -1), _derivative(image, -2)


def _derivative(image: Tensor, axis: int) -> Tensor:
    if image.shape[axis] < 2:
        return torch.zeros_like(image)
    return torch.gradient(image, dim=axis)[0]


# ---- fused against the sources ------------------------------------------------------------------


def mutual_information(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """MI: I(F; A) + I(F; B) of the rounded 8-bit grey levels (Qu et al. 2002); "paper" nats, "standard" bits."""
    f, a, b = check_sources(fused, infrared, visible)
    return sum(
        (mutual_information_single(f, source, convention=convention) for source in (a, b)),
        start=f.new_zeros(f.shape[0]),
    )


def mutual_information_single(fused: Tensor, source: Tensor, *, convention: str = "paper") -> Tensor:
    """I(F; S) with one source, 0 to the smaller of the two entropies; "paper" nats, "standard" bits."""
    check_convention(convention)
    f, s = _labels(check_levels("fused", fused)), _labels(check_levels("source", source))
    nats = _entropy_nats(f, LEVELS) + _entropy_nats(s, LEVELS) - _entropy_nats(f * LEVELS + s, LEVELS**2)
    return nats if convention == "paper" else nats / math.log(2)


def correlation(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """CC: mean of the Pearson correlations r(F, A) and r(F, B), -1..1."""
    f, a, b = check_sources(fused, infrared, visible)
    return (pearson(f, a) + pearson(f, b)) / 2


def scd(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """SCD: r(F - B, A) + r(F - A, B), -2..2 (Aslantas and Bendes 2015)."""
    f, a, b = check_sources(fused, infrared, visible)
    return pearson(f - b, a) + pearson(f - a, b)


def mse(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """MSE: mean of the mean squared errors against the two sources, grey levels squared."""
    f, a, b = check_sources(fused, infrared, visible)
    return ((f - a).square() + (f - b).square()).flatten(1).mean(1) / 2


def psnr(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """PSNR: 10 log10(peak^2 / MSE), decibels; the peak is max(F) in "paper", 255 in "standard".

    Infinite where F equals both sources, whatever its peak.
    """
    error = mse(fused, infrared, visible)
    own = check_levels("fused", fused).flatten(1).amax(1)
    peak = own if check_convention(convention) == "paper" else torch.full_like(own, LEVELS - 1)
    return torch.where(error == 0, torch.inf, 10 * (peak.square() / error).log10())


def pearson(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pearson r per image (B,) of x and y (B, 1, H, W), over ``mask`` where given.

    0 where one of them is constant: 0/0 by the formula, but nothing is shared. (The reference
    tables hold this too: SCD of a copy of a source counts its zero difference as 0.)
    """
    share = None if mask is None else mask.flatten(1) / mask.flatten(1).sum(1, keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return values.mean(1) if share is None else (share * values).sum(1)

    x, y = (v.flatten(1) - mean(v.flatten(1))[:, None] for v in (x, y))
    xx, yy, xy = mean(x * x), mean(y * y), mean(x * y)
    flat = (xx <= NO_VARIANCE) | (yy <= NO_VARIANCE)
    return torch.where(flat, 0.0, xy / (xx * yy).sqrt())


# ---- histograms ---------------------------------------------------------------------------------


def _labels(image: Tensor) -> Tensor:
    """Grey levels as integers (B, H W), rounded half to even."""
    return image.round().long().flatten(1)


def _entropy_nats(labels: Tensor, bins: int) -> Tensor:
    """Entropy (B,) of integer labels (B, N) in 0..bins-1, nats; one row of bins per image."""
    rows = torch.arange(labels.shape[0], device=labels.device)[:, None]
    counts = torch.bincount((labels + rows * bins).flatten(), minlength=labels.shape[0] * bins)
    p = counts.reshape(-1, bins).double() / labels.shape[1]
    return torch.special.entr(p).sum(1)
