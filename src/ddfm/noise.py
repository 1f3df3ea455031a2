"""Sources with Gaussian noise: the E-step that knows of it, what clipping did to it, and how much there is.

symbol     shape              meaning
sigma_k    (1|B, K, 1, 1)     standard deviation of source k's noise, in units of [-1, 1]: twice a user's ``noise_std``
d'         (B, K, H, W)       sqrt(a_k) |f - s_k|
c          (1|B, K, 1, 1)     sigma / sqrt(gamma)
p, q       (B, K, H, W)       c + delta, c - delta with delta = d' / (sqrt(2) sigma)
w_p, w_q   (B, K, H, W)       probability that the noise-free difference has the other, the same sign as d

s_k | f, m ~ N(f, (m + sigma^2) / a), m ~ EXP(mean gamma): what is left of d without the noise is a Laplace variable e,
and E[m] = gamma / 2 + sqrt(gamma / 2) E|e|. Given d it is a mixture of two truncated Gaussians, whose means need only
D(z) = 1 / sqrt(pi) - z erfcx(z), so that no two large terms are subtracted (docs/method.md).

A file's noise is clipped at black and white. What was clipped is a censored observation: ``complete`` draws it anew.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddfm._checks import check_range, problem

__all__ = [
    "LEAST",
    "MOST",
    "SMALLEST",
    "NoiseStd",
    "check_noise_std",
    "complete",
    "deviations",
    "estimate_noise",
    "noisy_log_density",
    "noisy_moments",
    "unbias",
]

#: Standard deviation on [0, 1]: none, one for all sources, one for each, (B, K) of a batch, or "auto".
NoiseStd = float | str | Sequence[float] | Tensor | None
#: The largest that is accepted, on [0, 1]: beyond it a picture on [0, 1] is mostly clipped.
MOST = 0.5

#: An estimate below it, on [0, 1], counts as none: clean photographs come to less (docs/noise.md).
LEAST = 0.012

#: Stands for a sigma of 0, in units of [-1, 1]: far below what float32 tells apart in a picture.
SMALLEST = 1e-5
_AUTO = "auto"
_LOWEST = -8.0  # erfcx(-8) = 1e28 still fits float32, and the other branch is 1e-28 of it
_FAR = 2.0  # from here on the continued fraction, before it the definition
_DEPTH = {torch.float32: 16, torch.float64: 64}  # of the fraction: its truncation at z = 2 is below the resolution
_ROOT_PI = math.sqrt(math.pi)


def check_noise_std(value: NoiseStd) -> str | tuple[float, ...] | Tensor | None:
    """``value`` as None, "auto", a tuple or a (B, K) tensor; text such as "0.06,0.02" is read. Raises DDFMError."""
    if value is None or (isinstance(value, str) and value == _AUTO):
        return value
    values = value.flatten().tolist() if isinstance(value, Tensor) and value.ndim == 2 else _numbers(value)
    for one in values:
        try:
            check_range("noise_std", one, 0, MOST)
        except ValueError as error:
            expected = f"a number in [0, {MOST:g}], of a range of 1"
            raise problem("noise_std", f"{one:g}", expected, _hint(one)) from error
    return value if isinstance(value, Tensor) and value.ndim == 2 else tuple(values)


def _hint(value: float) -> str:
    """What someone may have meant by a standard deviation out of range."""
    if 1 < value <= 255 * MOST:
        return f"In grey levels of 255? Then {value / 255:.3g}."
    if 255 * MOST < value <= 65535 * MOST:
        return f"In levels of 65535? Then {value / 65535:.3g}."
    return "Noise beyond it leaves little of a picture." if value > MOST else "0 is no noise."


def _numbers(value: Any) -> list[float]:
    """A number, a sequence of them, or text of them with commas between."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(value, str) and _AUTO in [part.strip() for part in parts]:
        each = "a number for each source"
        raise problem("noise_std", repr(value), f'"auto" alone, or {each}', "All are estimated, or none.")
    if isinstance(parts, numbers.Real) and not isinstance(parts, bool):
        parts = [parts]
    try:
        found = [float(part) for part in parts]
    except (TypeError, ValueError):
        found = []
    if not found or isinstance(value, bool):
        raise problem("noise_std", " ".join(repr(value).split()), 'numbers such as 0.06 or 0.06,0.02, or "auto"')
    return found


def deviations(noise_std: str | tuple[float, ...] | Tensor | None, sources: Tensor) -> Tensor:
    """sigma (B, K), in units of [-1, 1], of a checked ``noise_std`` for sources (B, K, H, W). Raises DDFMError."""
    batch, count = sources.shape[:2]
    if noise_std is None:
        return sources.new_zeros(batch, count)
    if isinstance(noise_std, str):
        return 2 * estimate_noise(sources)
    if isinstance(noise_std, Tensor):
        if noise_std.shape != (batch, count):
            raise problem("noise_std", f"shape {tuple(noise_std.shape)}", f"{(batch, count)}, images by sources")
        return 2 * noise_std.to(sources)
    if len(noise_std) not in (1, count):
        raise problem("noise_std", f"{len(noise_std)} values", f"one, or {count}, one for each source")
    values = noise_std if len(noise_std) == count else noise_std * count
    return 2 * sources.new_tensor(values).expand(batch, count)


def noisy_moments(square: Tensor, maps: Tensor, gamma: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """W = a E[1 / (m + sigma^2)] and E[m] of the posterior of m, each (B, K, H, W).

    square: (f - s)^2 > 0. maps: a. A sigma below ``SMALLEST`` counts as that; W and E[m] are then those without noise
    wherever d' is some times larger.
    """
    sigma = sigma.clamp(min=SMALLEST)
    centre = sigma / gamma.sqrt()
    distance = (maps * square).sqrt()
    delta = distance / (math.sqrt(2) * sigma)
    q, p = centre - delta, centre + delta
    scaled_q, slope_q = _erfcx_and_slope(q)
    scaled_p, slope_p = _erfcx_and_slope(p)
    total = scaled_q + scaled_p
    mean = gamma / 2 + gamma.sqrt() * sigma * (slope_q / total + slope_p / total)
    # (erfcx(q) - erfcx(p)) / (4 delta) is the mean of D over [q, p]: by Simpson's rule where the difference cancels
    _, slope_c = _erfcx_and_slope(centre)
    short = torch.finfo(square.dtype).eps ** 0.2  # the rule's error, delta^4, is there the difference's, eps / delta
    average = torch.where(
        delta < short * (1 + centre),
        (slope_q + 4 * slope_c + slope_p) / 6,
        (scaled_q - scaled_p) / (4 * delta),
    )
    return 4 * maps / (gamma.sqrt() * sigma) * (average / total), mean


def noisy_log_density(square: Tensor, maps: Tensor, gamma: Tensor, sigma: Tensor) -> Tensor:
    """log p(s | f) with m integrated out, of the same arguments: a Laplace convolved with N(0, sigma^2), (B, K, H, W).

    p = sqrt(a / (8 gamma)) exp(-delta^2) (erfcx(q) + erfcx(p)), by logarithms of Gaussian tails, which do not overflow.
    """
    sigma = sigma.clamp(min=SMALLEST)
    centre = sigma / gamma.sqrt()
    delta = (maps * square).sqrt() / (math.sqrt(2) * sigma)
    tails = [
        torch.special.log_ndtr(-math.sqrt(2) * (centre + sign * delta)) + centre.square() + 2 * sign * centre * delta
        for sign in (-1, 1)
    ]
    return torch.logaddexp(*tails) + (maps / (2 * gamma)).log() / 2


def _erfcx_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
    """erfcx(z) and D(z) = 1 / sqrt(pi) - z erfcx(z) = -erfcx'(z) / 2 > 0; below -8 D keeps its ratio to erfcx, -z."""
    scaled = torch.special.erfcx(z.clamp(min=_LOWEST))
    near = 1 / _ROOT_PI - z * scaled
    return scaled, torch.where(z > _FAR, scaled * _tail(z.clamp(min=_FAR)), near)


def _tail(z: Tensor) -> Tensor:
    """1 / (sqrt(pi) erfcx(z)) - z, z >= 2: Laplace's continued fraction (1/2)/(z + (2/2)/(z + (3/2)/(z + ...)))."""
    value = z
    for n in range(_DEPTH.get(z.dtype, 16), 1, -1):
        value = z + (n / 2) / value
    return 0.5 / value


def clipped_mean(level: Tensor, sigma: Tensor) -> Tensor:
    """E[clip(level + N(0, sigma^2))] to [-1, 1]: what a smoothed picture shows where its noise was clipped."""
    return -1 + _positive_part(level + 1, sigma) - _positive_part(level - 1, sigma)


def _positive_part(mean: Tensor, sigma: Tensor) -> Tensor:
    """E[max(N(mean, sigma^2), 0)]."""
    z = mean / sigma
    return mean * torch.special.ndtr(z) + sigma / math.sqrt(2 * math.pi) * torch.exp(-z.square() / 2)


def unbias(smooth: Tensor, sigma: Tensor) -> Tensor:
    """The level in [-1, 1] whose clipped noise has the mean ``smooth``: the inverse of ``clipped_mean``.

    smooth (B, K, H, W); sigma (1|B, K, 1, 1). Black with noise looks grey: at level -1 the mean is 0.4 sigma above it.
    """
    low, high = torch.full_like(smooth, -1.0), torch.ones_like(smooth)
    for _ in range(12):  # bisection, to an eighth of a grey level
        middle = (low + high) / 2
        below = clipped_mean(middle, sigma.clamp(min=SMALLEST)) < smooth
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def complete(sources: Tensor, level: Tensor, sigma: Tensor, uniform: Tensor) -> Tensor:
    """The sources as they were before clipping: N(level, sigma^2) given that it lies beyond, where they are clipped.

    All (B, K, H, W), sigma (1|B, K, 1, 1); ``uniform`` in [0, 1] makes the draw. Clipped: within half an 8-bit step
    of black or white.
    """
    sigma = sigma.clamp(min=SMALLEST)

    def beyond(excess: Tensor) -> Tensor:
        """excess - sigma |tail|: a draw of N(excess, sigma^2) given that it is negative."""
        share = (torch.special.ndtr(-excess / sigma) * uniform).clamp(1e-6, 1 - 1e-6)
        return (excess + sigma * torch.special.ndtri(share)).clamp(max=0)

    black = sources <= -1 + 1 / 255
    white = sources >= 1 - 1 / 255
    drawn = torch.where(black, -1 + beyond(level + 1), 1 - beyond(1 - level))
    return torch.where((black | white) & (sigma > SMALLEST), drawn, sources)


_BLOCK = 16  # pixels a side of a block of the estimate
_SHARE = 0.1  # of the blocks, the flattest, count
_FULL = 0.75  # share of clipped pixels above which a block says too little


def estimate_noise(sources: Tensor) -> Tensor:
    """Standard deviation of white noise on [0, 1], (B, K), of sources (B, K, H, W) in [-1, 1]; 0 below ``LEAST``.

    The response to [1 -2 1]^T [1 -2 1] / 6 keeps white noise and answers little to a picture (Immerkaer 1996). Its
    energy is taken in blocks of 16 x 16, mended for the clipped share of each, and the median over the tenth of the
    blocks that is flattest when smoothed counts. Images below 64 pixels a side have too few blocks: 0.
    """
    if min(sources.shape[-2:]) < 4 * _BLOCK:
        return sources.new_zeros(sources.shape[:2])
    found = sources.new_tensor([[_estimate_plane(plane) for plane in image] for image in sources]) / 2
    return torch.where(found < LEAST, torch.zeros_like(found), found)


def _estimate_plane(plane: Tensor) -> float:
    """sigma in units of [-1, 1] of one plane (H, W)."""
    x = plane[None, None]
    row = x.new_tensor([[1.0, -2.0, 1.0]])
    response = F.conv2d(x, (row.T @ row / 6)[None, None])[..., 2:-2, 2:-2]
    smooth = F.avg_pool2d(x, 5, 1)
    slope = (smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]).square()
    slope = slope + (smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]).square()
    clipped = (x.abs() >= 1 - 1 / 255).to(x.dtype)[..., 3:-3, 3:-3]
    energy, steep, share = (F.avg_pool2d(t, _BLOCK).flatten() for t in (response.square(), slope, clipped))
    known = (share <= _FULL) | (energy == 0)  # nothing stirs in a block without noise, clipped or not
    energy = energy / clipped_variance(share.clamp(1e-6, _FULL))
    if not known.any():
        return 0.0
    energy, steep = energy[known], steep[known]
    flattest = steep.argsort()[: max(4, int(_SHARE * len(energy)))]
    return float(energy[flattest].median().sqrt())


def clipped_variance(share: Tensor) -> Tensor:
    """Variance of max(z + N(0, 1), 0) where a ``share`` of it is 0: what clipping leaves of unit noise."""
    z = -torch.special.ndtri(share)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    mean = z * (1 - share) + density
    return (z.square() + 1) * (1 - share) + z * density - mean.square()
