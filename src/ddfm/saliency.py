"""Scale maps a_k and texture targets g of the generalised likelihood: what should win where.

Scale maps are positive, (B, K, H, W), and sum to K over the sources at every pixel; a = 1 is the paper.
Texture targets are gradients, (B, 2, H, W). Settings are frozen; every map is a function of one image alone.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ddfm._checks import check_range
from ddfm.operators import grad

__all__ = ["LocalSaliency", "StrongestGradient", "blur", "normalise"]


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W), separable, borders replicated; sigma in pixels.

    A wide blur is computed on a coarser grid (means of n x n pixels, n = sigma / 8, linear between them), so that
    the cost does not grow with sigma: within 1 % of the range of x of the long kernel, but that the border
    continues by a mean of n x n pixels, not by one noisy pixel.
    """
    if sigma <= 0:
        return x
    coarse = int(sigma / 8)
    if coarse > 1 and min(x.shape[-2:]) > coarse:
        return _coarse_blur(x, sigma, coarse)
    radius = math.ceil(3 * sigma)
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    for _ in range(2):  # columns, then rows
        flat = F.pad(x.flatten(0, 1)[:, None], (radius, radius, 0, 0), mode="replicate")
        x = F.conv2d(flat, kernel).view(x.shape).transpose(-2, -1)
    return x


def _coarse_blur(x: Tensor, sigma: float, n: int) -> Tensor:
    height, width = x.shape[-2:]
    whole = F.pad(x, (0, -width % n, 0, -height % n), mode="replicate")
    cells = F.avg_pool2d(whole, n)
    # means of n pixels and linear interpolation blur by themselves: variances n^2 / 12 and n^2 / 6
    rest = math.sqrt(sigma**2 - n**2 / 4) / n
    smooth = F.interpolate(blur(cells, rest), size=whole.shape[-2:], mode="bilinear", align_corners=False)
    return smooth[..., :height, :width]


def normalise(saliency: Tensor) -> Tensor:
    """Scale positive saliencies (B, K, H, W) to sum to K over the sources."""
    return saliency.shape[1] * saliency / saliency.sum(1, keepdim=True)


@dataclasses.dataclass(frozen=True)
class LocalSaliency:
    """Scale maps by local contrast and brightness: a thermal target and a lit wall win where they stand out.

    With c = s - blur(s, background), level = blur(s, window) on [0, 1], all sigmas in pixels:
    saliency = (blur(max(c, 0) + dark max(-c, 0), window) + brightness level)^power + floor.

    ``dark`` < 1 because what lies beside a hot target is darker than its surround in the thermal image and says
    nothing: with 1 a black rim of the cold sky is taken along around a warm roof.
    """

    background: float = 40.0
    window: float = 3.0
    brightness: float = 0.5
    dark: float = 0.3
    power: float = 3.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("background", "window", "brightness", "dark", "power"):
            check_range(name, getattr(self, name), 0, 1e4)
        check_range("floor", self.floor, 0, 1, open_low=True)

    def __call__(self, sources: Tensor) -> Tensor:
        """sources (B, K, H, W) in [-1, 1] -> a (B, K, H, W), sum over K is K."""
        above = sources - blur(sources, self.background)
        contrast = above.clamp(min=0) + self.dark * (-above).clamp(min=0)
        level = ((blur(sources, self.window) + 1) / 2).clamp(0, 1)
        saliency = (blur(contrast, self.window) + self.brightness * level).pow(self.power) + self.floor
        return normalise(saliency)


@dataclasses.dataclass(frozen=True)
class StrongestGradient:
    """Texture target g: per pixel the whole gradient vector of the source where it is longest.

    ``gains``: factor on a source's length in the comparison, in the order of the sources, 1 for those not named.
    ``sigma``: blur of the lengths that are compared, in pixels; 0 decides each pixel alone. Ties (equal
    lengths) take the mean of the tied sources' gradients, so that the order of the sources does not matter.
    ``saliency``: scale maps a_k whose ``power``-th power multiplies the lengths as well, so that a hot target
    keeps its own outline although the gains favour the other source; None for lengths and gains alone.
    Where the gradient wraps around the border there is no edge of the scene: there g is the mean of the sources'.
    """

    gains: tuple[float, ...] = ()
    sigma: float = 0.0
    saliency: LocalSaliency | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 0, 1e4)
        check_range("power", self.power, 0, 1e4)
        for gain in self.gains:
            check_range("gains", gain, 0, 1e4)

    def __call__(self, sources: Tensor) -> Tensor:
        """sources (B, K, H, W) -> g (B, 2, H, W)."""
        batch, count, height, width = sources.shape
        slopes = grad(sources.reshape(-1, 1, height, width)).view(batch, count, 2, height, width)
        gains = [*self.gains, *[1.0] * count][:count]
        length = blur(slopes.square().sum(2).sqrt(), self.sigma)
        length = length * sources.new_tensor(gains).view(1, -1, 1, 1)
        if self.saliency is not None:
            length = length * self.saliency(sources).pow(self.power)
        wins = (length == length.amax(1, keepdim=True)).to(sources.dtype)
        share = wins / wins.sum(1, keepdim=True)
        g = (share[:, :, None] * slopes).sum(1)
        mean = slopes.mean(1)
        g[:, 0, -1], g[:, 1, :, -1] = mean[:, 0, -1], mean[:, 1, :, -1]
        return g
