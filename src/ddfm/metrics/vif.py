"""Visual information fidelity in the pixel domain (Sheikh and Bovik 2006): (B, 1, H, W) -> (B,).

symbol     meaning
r, d       reference (a source) and distorted (the fused image) of one scale
s_r, s_d   local variances, s_rd local covariance, Gaussian windows inside the image
g, s_v     gain and residual variance of d = g r + noise
s_n        2, variance of the eye's noise on 0..255 levels
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.metrics.statistics import check_convention, check_levels, check_sources
from ddfm.metrics.windows import gaussian_mean

__all__ = ["MINIMUM_SIZE", "vif", "vif_single"]

WINDOWS = (17, 9, 5, 3)  # one per scale; the standard deviation is a fifth of the size
NOISE = 2.0
EPS = 1e-10
MINIMUM_SIZE = 41  # pixels a side: the smallest whose fourth scale still holds one 3x3 window


def vif(fused: Tensor, infrared: Tensor, visible: Tensor, *, convention: str = "paper") -> Tensor:
    """VIF of F seen from A plus VIF seen from B, 2 for three equal images, in "paper"; their mean in "standard".

    Below 64 pixels a side the coarsest scale rests on a handful of windows; below 41 it has none and
    the images are refused.
    """
    f, a, b = check_sources(fused, infrared, visible)
    total = vif_single(f, a) + vif_single(f, b)
    return total if check_convention(convention) == "paper" else total / 2


def vif_single(fused: Tensor, source: Tensor) -> Tensor:
    """VIFp of ``fused`` with ``source`` as the reference: 1 for a copy, more where contrast is raised.

    The information of all four scales is summed before the division. A flat source carries none;
    the value is then 1, as in the reference implementation.
    """
    d, r = check_levels("fused", fused), check_levels("source", source)
    if min(d.shape[-2:]) < MINIMUM_SIZE:
        got = f"{d.shape[-2]} x {d.shape[-1]} pixels"
        raise problem("fused", got, f"at least {MINIMUM_SIZE} x {MINIMUM_SIZE} for VIF")
    kept = total = d.new_zeros(d.shape[0])
    for scale, size in enumerate(WINDOWS):
        if scale > 0:
            r, d = (_blur(image, size)[..., ::2, ::2] for image in (r, d))
        of_fused, of_source = _information(r, d, size)
        kept, total = kept + of_fused, total + of_source
    return torch.where(total > 0, kept / total, 1.0)


def _blur(image: Tensor, size: int) -> Tensor:
    """Gaussian mean of the windows inside the image."""
    return gaussian_mean(image, size, size / 5)


def _information(r: Tensor, d: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Information of the source that is in the fused image, and all of it; log10 units, (B,) each."""
    s_r, s_d, s_rd = _moments(r, d, size)
    silent_r, silent_d = s_r < EPS, s_d < EPS
    g = s_rd / (s_r + EPS)
    s_v = s_d - g * s_rd
    g = torch.where(silent_r | silent_d, 0.0, g)
    s_v = torch.where(silent_r, s_d, s_v)
    s_r = torch.where(silent_r, 0.0, s_r)
    s_v = torch.where(silent_d, 0.0, s_v)
    s_v = torch.where(g < 0, s_d, s_v)  # an inverted contrast is noise, not signal
    g, s_v = g.clamp(min=0), s_v.clamp(min=EPS)
    of_fused = torch.log10(1 + g * g * s_r / (s_v + NOISE))
    of_source = torch.log10(1 + s_r / NOISE)
    return of_fused.flatten(1).sum(1), of_source.flatten(1).sum(1)


def _moments(r: Tensor, d: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Local variances of r and d (none negative) and their covariance, windows inside the image."""
    m_r, m_d = _blur(r, size), _blur(d, size)
    s_r = (_blur(r * r, size) - m_r * m_r).clamp(min=0)
    s_d = (_blur(d * d, size) - m_d * m_d).clamp(min=0)
    return s_r, s_d, _blur(r * d, size) - m_r * m_d
