"""Feature mutual information (Haghighat et al. 2011, in the windowed form of Haghighat and Razian 2014).

symbol   shape        meaning
p, q     (N, 9)       feature values of a 3x3 window of F and of a source, scaled to 0..1, divided by their sum
P, Q     (N, 9)       their running sums along the window, column after column
c        (N,)         Pearson correlation of p and q
h        (N, 9, 9)    joint distribution: from independence to a Frechet bound, as far as c asks (Nelsen 1987)

Windows are read as if they were distributions over nine places; the value is 2 I / (H + H) of each, averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddfm._checks import check_choice, problem
from ddfm.metrics.statistics import check_sources, gradients

__all__ = ["FEATURES", "fmi", "fmi_single"]

FEATURES = ("pixel", "gradient")
WINDOW = 3
CHUNK = 65536  # windows at once: 9 x 9 joint probabilities of each in float64 are 42 MB a tensor


def fmi(fused: Tensor, infrared: Tensor, visible: Tensor, *, feature: str = "pixel") -> Tensor:
    """FMI: mean over the two sources of the feature information kept, 0..1, (B,).

    ``feature``: "pixel" (grey levels, the published code's default when none is named) or "gradient" (horizontal
    central differences, as that code takes). At least 3 x 3 pixels.
    """
    f, a, b = check_sources(fused, infrared, visible)
    return (fmi_single(f, a, feature=feature) + fmi_single(f, b, feature=feature)) / 2


def fmi_single(fused: Tensor, source: Tensor, *, feature: str = "pixel") -> Tensor:
    """FMI with one source, 0..1; 1 for a copy."""
    check_choice("feature", feature, FEATURES)
    f, s, _ = check_sources(fused, source, source)
    if min(f.shape[-2:]) < WINDOW:
        raise problem("fused", f"{f.shape[-2]} x {f.shape[-1]} pixels", f"at least {WINDOW} x {WINDOW} for FMI")
    if feature == "gradient":
        f, s = gradients(f)[0], gradients(s)[0]
    values = [_image(f_one, s_one) for f_one, s_one in zip(_windows(f), _windows(s), strict=True)]
    return torch.stack(values)


def _windows(image: Tensor) -> Tensor:
    """All 3x3 windows: (B, 1, H, W) -> (B, N, 9), each column by column, as the published code reads them."""
    windows = image.unfold(2, WINDOW, 1).unfold(3, WINDOW, 1)  # (B, 1, H - 2, W - 2, 3, 3)
    return windows.transpose(-2, -1).flatten(-2)[:, 0].flatten(1, 2)


def _image(f: Tensor, s: Tensor) -> Tensor:
    parts = [_kept(*pair) for pair in zip(f.split(CHUNK), s.split(CHUNK), strict=True)]
    return torch.cat(parts).mean()


def _kept(f: Tensor, s: Tensor) -> Tensor:
    """2 I / (H + H) of each window: (N, 9), (N, 9) -> (N,)."""
    p, q = _distribution(f), _distribution(s)
    h_p, h_q = _entropy(p), _entropy(q)
    information = h_p + h_q - _entropy(_joint(p, q).flatten(1))
    total = h_p + h_q
    value = torch.where(total > 0, 2 * information / total.clamp(min=1e-300), 0.0)
    return torch.where((f == s).all(1), 1.0, value)


def _distribution(window: Tensor) -> Tensor:
    """Values scaled to 0..1 and divided by their sum; a flat window is uniform."""
    low, high = window.amin(1, keepdim=True), window.amax(1, keepdim=True)
    scaled = torch.where(high > low, (window - low) / (high - low).clamp(min=1e-300), 1.0)
    return scaled / scaled.sum(1, keepdim=True)


def _joint(p: Tensor, q: Tensor) -> Tensor:
    """Joint distribution (N, 9, 9) with these margins and, as far as they allow it, their correlation."""
    c = _correlation(p, q)
    cdf_p, cdf_q = p.cumsum(1)[:, :, None], q.cumsum(1)[:, None, :]
    upper = torch.minimum(cdf_p, cdf_q)
    lower = (cdf_p + cdf_q - 1).clamp(min=0)
    bound = torch.where((c >= 0)[:, None, None], upper, lower)
    spread = _deviation(p) * _deviation(q)
    covariance = (bound - cdf_p * cdf_q).sum((1, 2))  # Hoeffding: of the places under the bound
    usable = (c != 0) & (spread > 0) & (covariance != 0)
    share = torch.where(usable, c * spread / torch.where(usable, covariance, 1.0), 0.0)[:, None, None]
    return share * _density(bound) + (1 - share) * p[:, :, None] * q[:, None, :]


def _correlation(p: Tensor, q: Tensor) -> Tensor:
    """Pearson r (N,); 0 where one is uniform."""
    x, y = p - p.mean(1, keepdim=True), q - q.mean(1, keepdim=True)
    scale = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(scale > 0, (x * y).sum(1) / scale.clamp(min=1e-300), 0.0)


def _deviation(p: Tensor) -> Tensor:
    """Standard deviation of the place 1..9 under p, (N,)."""
    place = torch.arange(1, p.shape[1] + 1, dtype=p.dtype, device=p.device)
    return ((p * place**2).sum(1) - (p * place).sum(1).square()).clamp(min=0).sqrt()


def _density(cdf: Tensor) -> Tensor:
    """Probabilities (N, 9, 9) of a joint distribution function."""
    padded = torch.nn.functional.pad(cdf, (1, 0, 1, 0))
    return padded.diff(dim=1).diff(dim=2)


def _entropy(p: Tensor) -> Tensor:
    """-sum p log2 |p| of each row (N,), bits; the sign convention of the published code for a joint below 0."""
    return -(p * torch.where(p == 0, 1.0, p.abs()).log2()).sum(1)
