"""SSIM, MS-SSIM, Qabf and Nabf: (B, 1, H, W) grey levels on 0..255 -> (B,) float64.

``convention="paper"`` is what fusion papers print, accidents included; ``"standard"`` is data range 255, the mean over
the two sources, and Qabf without the fault of its published code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.metrics.statistics import check_convention, check_levels, check_sources
from ddfm.metrics.windows import gaussian_mean

__all__ = ["MS_SSIM_MINIMUM", "ms_ssim", "ms_ssim_single", "nabf", "qabf", "ssim", "ssim_single"]

WINDOW = 7
#: Of "paper": scikit-image's default for floats, -1..1, which the tables were made with, on levels of 0..255.
DATA_RANGE = {"paper": 2.0, "standard": 255.0}
K1, K2 = 0.01, 0.03
MS_SSIM_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest scale first
MS_SSIM_MINIMUM = 161  # pixels a side: four halvings leave the 11 of one window

# Xydeas and Petrovic 2000: sigmoids of the preserved edge strength and orientation
STRENGTH = (0.9994, -15.0, 0.5)  # gain, slope, centre
ORIENTATION = (0.9879, -22.0, 0.8)
# The same for Nabf, with the least weight and the strength from which an edge counts in full
NABF_STRENGTH = (0.9999, -19.0, 0.5)
NABF_ORIENTATION = (0.9995, -22.0, 0.5)
NABF_LEAST, NABF_STRONG = 0.001, 2.0


# ---- SSIM ---------------------------------------------------------------------------------------


def ssim(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """SSIM of F to both sources: their sum, at most 2, in "paper"; their mean, at most 1, in "standard"."""
    f, a, b = check_sources(fused, infrared, visible)
    total = ssim_single(f, a, convention=convention) + ssim_single(f, b, convention=convention)
    return total if convention == "paper" else total / 2


def ssim_single(fused: Tensor, source: Tensor, *, convention: str = "paper") -> Tensor:
    """Mean structural similarity to one source (Wang et al. 2004), -1..1.

    7x7 uniform windows that lie inside the image, sample covariance (n - 1). "standard" has data range 255. "paper"
    has 2 although the levels span 255: the constants then hardly matter, and flat areas count for more.
    """
    x, y = check_levels("fused", fused), check_levels("source", source)
    if min(x.shape[-2:]) < WINDOW:
        got = f"{x.shape[-2]} x {x.shape[-1]} pixels"
        raise problem("fused", got, f"at least {WINDOW} x {WINDOW} for SSIM")
    n = WINDOW**2
    moments = tuple(_box_mean(v) for v in (x, y, x * x, y * y, x * y))
    luminance, structure = _similarity(moments, DATA_RANGE[check_convention(convention)], n / (n - 1))
    return (luminance * structure).flatten(1).mean(1)


def _similarity(moments: tuple[Tensor, ...], data_range: float, sample: float = 1.0) -> tuple[Tensor, Tensor]:
    """Luminance term, and contrast times structure term, from E[x], E[y], E[xx], E[yy], E[xy]."""
    mx, my, xx, yy, xy = moments
    var_x, var_y, cov = sample * (xx - mx * mx), sample * (yy - my * my), sample * (xy - mx * my)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return luminance, (2 * cov + c2) / (var_x + var_y + c2)


def ms_ssim(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """MS-SSIM of F to both sources: their sum in "paper", their mean in "standard"; data range 255 in both."""
    f, a, b = check_sources(fused, infrared, visible)
    total = ms_ssim_single(f, a) + ms_ssim_single(f, b)
    return total if check_convention(convention) == "paper" else total / 2


def ms_ssim_single(fused: Tensor, source: Tensor) -> Tensor:
    """Multi-scale structural similarity to one source (Wang, Simoncelli and Bovik 2003), 0..1; range 255.

    Five scales, Gaussian windows of 11 pixels (sigma 1.5) inside the image, halved by 2x2 means. (torchmetrics takes
    reflected borders into the last scale, and drops an odd row; both move the third digit.) A scale whose mean
    contrast-structure term is negative counts 0. Needs 161 x 161 pixels, or the fifth scale holds no window.
    """
    x, y = check_levels("fused", fused), check_levels("source", source)
    if min(x.shape[-2:]) < MS_SSIM_MINIMUM:
        got = f"{x.shape[-2]} x {x.shape[-1]} pixels"
        raise problem("fused", got, f"at least {MS_SSIM_MINIMUM} x {MS_SSIM_MINIMUM} for MS-SSIM")
    value = x.new_ones(x.shape[0])
    for scale, power in enumerate(MS_SSIM_POWERS):
        moments = tuple(gaussian_mean(v, 11, 1.5) for v in (x, y, x * x, y * y, x * y))
        luminance, structure = _similarity(moments, DATA_RANGE["standard"])
        last = scale == len(MS_SSIM_POWERS) - 1
        term = (luminance * structure if last else structure).flatten(1).mean(1)
        value = value * term.clamp(min=0) ** power
        x, y = _half(x), _half(y)
    return value


def _box_mean(image: Tensor) -> Tensor:
    """Mean of each 7x7 window inside the image: (B, 1, H, W) -> (B, 1, H - 6, W - 6).

    Shifted sums, not a convolution: on whole grey levels they are exact in float64.
    """
    h, w = (size - WINDOW + 1 for size in image.shape[-2:])
    rows = sum((image[..., i : i + h, :] for i in range(1, WINDOW)), start=image[..., :h, :])
    return sum((rows[..., i : i + w] for i in range(1, WINDOW)), start=rows[..., :w]) / WINDOW**2


def _half(image: Tensor) -> Tensor:
    """Means of 2x2 pixels, the last row or column of an odd size taken twice: ceil(H / 2) x ceil(W / 2)."""
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, (0, width % 2, 0, height % 2), mode="replicate")
    return torch.nn.functional.avg_pool2d(padded, 2)


# ---- Qabf and Nabf ------------------------------------------------------------------------------


def qabf(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """Qabf: edges kept from both sources, weighted by the sources' edge strength, 0..1 (Xydeas and Petrovic 2000).

    Sobel gradients with zero padding. In "paper", as in every published copy, a pixel where fused and source
    have *equal* strength takes the strength itself as their ratio in place of 1. On whole grey levels
    an edge is at least 1 strong, so this adds less than 6e-4 there; on fractions it can take away
    much. "standard" takes 1. 0 where neither source has an edge.
    """
    quirk = check_convention(convention) == "paper"
    edges_f, edges_a, edges_b = (_edges(image) for image in check_sources(fused, infrared, visible))
    kept = _preserved(edges_f, edges_a, quirk) * edges_a[0] + _preserved(edges_f, edges_b, quirk) * edges_b[0]
    weight = (edges_a[0] + edges_b[0]).flatten(1).sum(1)
    return torch.where(weight > 0, kept.flatten(1).sum(1) / weight, 0.0)


def _edges(image: Tensor, padding: str = "constant") -> tuple[Tensor, Tensor]:
    """Sobel edge strength and orientation in [-pi/2, pi/2], each (B, 1, H, W)."""
    p = torch.nn.functional.pad(image, (1, 1, 1, 1), mode=padding)
    column = p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]
    row = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]
    # Signs of a true convolution (kernel flipped); only their product reaches the orientation.
    gx = column[..., :-2] - column[..., 2:]
    gy = row[..., 2:, :] - row[..., :-2, :]
    upright = gx == 0
    angle = torch.atan(gy / torch.where(upright, 1.0, gx))
    return (gx * gx + gy * gy).sqrt(), torch.where(upright, math.pi / 2, angle)


def _preserved(fused: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], quirk: bool) -> Tensor:
    """Edge preservation Q of one source, pixel by pixel, 0..1."""
    (g_f, a_f), (g_s, a_s) = fused, source
    strength = torch.minimum(g_f, g_s) / torch.maximum(g_f, g_s)
    strength = torch.where(g_f == g_s, g_f if quirk else 1.0, strength)  # also removes 0/0
    orientation = 1 - (a_s - a_f).abs() / (math.pi / 2)
    return _sigmoid(strength, *STRENGTH) * _sigmoid(orientation, *ORIENTATION)


def _sigmoid(value: Tensor, gain: float, slope: float, centre: float) -> Tensor:
    return gain * torch.sigmoid(-slope * (value - centre))


def nabf(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Nabf: edges of the fused image that neither source has, 0..1, lower is better.

    Petrovic's fusion artefacts as modified by Shreyamsha Kumar (2013): where F's edge is stronger than both sources',
    what each source's edge lost, weighted by that source's strength to 1.5 (0.001 below a strength of 2).
    Sobel gradients divided by 8, border pixels repeated.
    """
    edges = [_edges(image, "replicate") for image in check_sources(fused, infrared, visible)]
    (g_f, a_f), *sources = [(strength / 8, torch.where(strength == 0, 0.0, angle)) for strength, angle in edges]
    new = torch.stack([g_f > g_s for g_s, _ in sources]).all(0)
    lost, weights = torch.zeros_like(g_f), torch.zeros_like(g_f)
    for g_s, a_s in sources:
        weight = torch.where(g_s >= NABF_STRONG, g_s**1.5, NABF_LEAST)
        lost = lost + new * (1 - _nabf_preserved(g_f, a_f, g_s, a_s)) * weight
        weights = weights + weight
    return lost.flatten(1).sum(1) / weights.flatten(1).sum(1)


def _nabf_preserved(g_f: Tensor, a_f: Tensor, g_s: Tensor, a_s: Tensor) -> Tensor:
    """Edge preservation of one source with Petrovic's constants for artefacts, 0..1."""
    ratio = torch.minimum(g_f, g_s) / torch.maximum(g_f, g_s).clamp(min=1e-300)  # 0 where either has no edge
    aligned = ((a_s - a_f).abs() - math.pi / 2).abs() * 2 / math.pi
    return (_sigmoid(ratio, *NABF_STRENGTH) * _sigmoid(aligned, *NABF_ORIENTATION)).sqrt()
