"""SSIM and Qabf as fusion papers print them: (B, 1, H, W) grey levels on 0..255 -> (B,) float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.metrics.statistics import check_levels, check_sources

__all__ = ["qabf", "ssim", "ssim_single"]

WINDOW = 7
DATA_RANGE = 2.0  # scikit-image's default for floats, -1..1: what the tables were made with, on 0..255
K1, K2 = 0.01, 0.03

# Xydeas and Petrovic 2000: sigmoids of the preserved edge strength and orientation
STRENGTH = (0.9994, -15.0, 0.5)  # gain, slope, centre
ORIENTATION = (0.9879, -22.0, 0.8)


# ---- SSIM ---------------------------------------------------------------------------------------


def ssim(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """SSIM(F, A) + SSIM(F, B), at most 2; data range 2 on 0..255 levels (see :func:`ssim_single`)."""
    f, a, b = check_sources(fused, infrared, visible)
    return ssim_single(f, a) + ssim_single(f, b)


def ssim_single(fused: Tensor, source: Tensor) -> Tensor:
    """Mean structural similarity to one source (Wang et al. 2004), -1..1.

    7x7 uniform windows that lie inside the image, sample covariance (n - 1), data range 2 although
    the levels span 255: the constants then hardly matter, and flat areas count for more.
    """
    x, y = check_levels("fused", fused), check_levels("source", source)
    if min(x.shape[-2:]) < WINDOW:
        got = f"{x.shape[-2]} x {x.shape[-1]} pixels"
        raise problem("fused", got, f"at least {WINDOW} x {WINDOW} for SSIM")
    n = WINDOW**2
    mx, my, xx, yy, xy = (_box_mean(v) for v in (x, y, x * x, y * y, x * y))
    sample = n / (n - 1)
    var_x, var_y, cov = sample * (xx - mx * mx), sample * (yy - my * my), sample * (xy - mx * my)
    c1, c2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2
    luminance = (2 * mx * my + c1) / (mx * mx + my * my + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(1)


def _box_mean(image: Tensor) -> Tensor:
    """Mean of each 7x7 window inside the image: (B, 1, H, W) -> (B, 1, H - 6, W - 6).

    Shifted sums, not a convolution: on whole grey levels they are exact in float64.
    """
    h, w = (size - WINDOW + 1 for size in image.shape[-2:])
    rows = sum((image[..., i : i + h, :] for i in range(1, WINDOW)), start=image[..., :h, :])
    return sum((rows[..., i : i + w] for i in range(1, WINDOW)), start=rows[..., :w]) / WINDOW**2


# ---- Qabf ---------------------------------------------------------------------------------------


def qabf(fused: Tensor, infrared: Tensor, visible: Tensor) -> Tensor:
    """Qabf: edges kept from both sources, weighted by the sources' edge strength, 0..1.

    Sobel gradients with zero padding. As in every published copy, a pixel where fused and source
    have *equal* strength takes the strength itself as their ratio in place of 1. On whole grey levels
    an edge is at least 1 strong, so this adds less than 6e-4 there; on fractions it can take away
    much. 0 where neither source has an edge.
    """
    edges_f, edges_a, edges_b = (_edges(image) for image in check_sources(fused, infrared, visible))
    kept = _preserved(edges_f, edges_a) * edges_a[0] + _preserved(edges_f, edges_b) * edges_b[0]
    weight = (edges_a[0] + edges_b[0]).flatten(1).sum(1)
    return torch.where(weight > 0, kept.flatten(1).sum(1) / weight, 0.0)


def _edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel edge strength and orientation in [-pi/2, pi/2], each (B, 1, H, W)."""
    p = torch.nn.functional.pad(image, (1, 1, 1, 1))
    column = p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]
    row = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]
    # Signs of a true convolution (kernel flipped); only their product reaches the orientation.
    gx = column[..., :-2] - column[..., 2:]
    gy = row[..., 2:, :] - row[..., :-2, :]
    upright = gx == 0
    angle = torch.atan(gy / torch.where(upright, 1.0, gx))
    return (gx * gx + gy * gy).sqrt(), torch.where(upright, math.pi / 2, angle)


def _preserved(fused: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor]) -> Tensor:
    """Edge preservation Q of one source, pixel by pixel, 0..1."""
    (g_f, a_f), (g_s, a_s) = fused, source
    strength = torch.minimum(g_f, g_s) / torch.maximum(g_f, g_s)
    strength = torch.where(g_f == g_s, g_f, strength)  # the quirk; it also removes 0/0
    orientation = 1 - (a_s - a_f).abs() / (math.pi / 2)
    return _sigmoid(strength, *STRENGTH) * _sigmoid(orientation, *ORIENTATION)


def _sigmoid(value: Tensor, gain: float, slope: float, centre: float) -> Tensor:
    return gain * torch.sigmoid(-slope * (value - centre))
