"""Scale maps a_k and texture targets g of the generalised likelihood: what should win where.

Scale maps are positive, (B, K, H, W), and sum to K over the sources at every pixel; a = 1 is the paper.
Texture targets are gradients, (B, 2, H, W). Settings are frozen; every map is a function of one image alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddfm._checks import check_range
from ddfm._provenance import later
from ddfm.filters import blur, guided_filter
from ddfm.levels import WHITE, Overall
from ddfm.operators import grad

__all__ = ["LocalSaliency", "StrongestGradient", "normalise"]

_TINY = 1e-3  # keeps powers of nothing apart from 0 / 0
_FINE, _NEARBY = 2.0, 5.0  # pixels: what counts as detail, and over what its amount is averaged
_BRIGHT, _SOFT = 0.8, 3.0  # where whiteness begins, on [-1, 1], and pixels over which it fades


def normalise(saliency: Tensor) -> Tensor:
    """Scale positive saliencies (B, K, H, W) to sum to K over the sources."""
    return saliency.shape[1] * saliency / saliency.sum(1, keepdim=True)


@dataclasses.dataclass(frozen=True)
class LocalSaliency:
    """Scale maps by what stands out from a source's ordinary level, and by its detail.

    With e = s - level, saliency = blur(bright max(e, 0) + dark max(-e, 0), window) + detail blur(|s - blur(s, 2)|, 5),
    sigmas in pixels; its share of the sources' sum, to the power ``power``, is smoothed by a guided filter with all
    sources as guides, so that a map ends where the thing ends that it is about; ``floor`` is left to every source.

    ``dark`` < 1: what is darker than usual says less than what is brighter; ``bright`` = ``dark`` = 0: detail alone
    decides, as for exposures and focus stacks. ``radius``, ``edge``: of the guided filter,
    pixels and the step on [0, 1] that counts as an edge; radius 0: none. ``glare``: a source other than the last is
    believed the less where it is white the more of it is white, and not at all from this share of its pixels on: a
    road in the sun saturates thermal cameras, a few hot people do not; 0: never.
    """

    window: float = 3.0
    dark: float = 0.25
    detail: float = 2.0
    power: float = 2.25
    radius: int = 12
    edge: float = 0.05
    glare: float = 0.2
    floor: float = 1e-3
    bright: float = later(1.0)

    def __post_init__(self) -> None:
        for name in ("window", "bright", "dark", "detail", "power", "radius"):
            check_range(name, getattr(self, name), 0, 1e4)
        check_range("glare", self.glare, 0, 1)
        for name in ("edge", "floor"):
            check_range(name, getattr(self, name), 0, 1, open_low=True)

    @property
    def reach(self) -> float:
        """Pixels beyond which nothing changes a map: of blurs, at 3.5 sigma, and of the filter, which looks twice."""
        return 3.5 * max(self.window + _SOFT, (_FINE + _NEARBY) * bool(self.detail)) + 2.5 * self.radius

    def __call__(self, sources: Tensor, overall: Overall) -> Tensor:
        """sources (B, K, H, W) in [-1, 1], what the whole image says -> a (B, K, H, W), sum over K is K."""
        above = sources - overall.level
        saliency = blur(self.bright * above.clamp(min=0) + self.dark * (-above).clamp(min=0), self.window)
        if self.detail:
            saliency = saliency + self.detail * blur((sources - blur(sources, _FINE)).abs(), _NEARBY)
        if self.glare:
            first = saliency[:, :-1] * self._belief(sources[:, :-1], overall.white[:, :-1])
            saliency = torch.cat([first, saliency[:, -1:]], 1)
        share = (saliency + _TINY).pow(self.power)
        share = share / share.sum(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        if self.radius:
            share = guided_filter((sources + 1) / 2, share, int(self.radius), self.edge**2).clamp(0, 1)
        return normalise(share + self.floor)

    def _belief(self, sources: Tensor, white: Tensor) -> Tensor:
        """1 where a source is not white, less where it is, by its share of white pixels."""
        whiteness = ((sources - _BRIGHT) / (WHITE - _BRIGHT)).clamp(0, 1)
        return blur(1 - whiteness * (white / self.glare).clamp(max=1), _SOFT)


@dataclasses.dataclass(frozen=True)
class StrongestGradient:
    """Texture target g: per pixel the whole gradient vector of the source where it is longest.

    ``gains``: factor on a source's length in the comparison, in the order of the sources, 1 for those not named.
    ``power``: of the scale maps a_k, which multiply the lengths as well, so that a hot target keeps its own outline
    although the gains favour the other source; 0 for lengths and gains alone. Ties (equal lengths) take the mean of
    the tied sources' gradients, so that the order of the sources does not matter.
    Where the gradient wraps around the border there is no edge of the scene: there g is the mean of the sources', and
    what it would be does not count as length.
    """

    gains: tuple[float, ...] = ()
    power: float = 0.0

    def __post_init__(self) -> None:
        check_range("power", self.power, 0, 1e4)
        for gain in self.gains:
            check_range("gains", gain, 0, 1e4)

    def __call__(self, sources: Tensor, maps: Tensor) -> Tensor:
        """sources (B, K, H, W), maps of that shape or (1, 1, 1, 1) -> g (B, 2, H, W)."""
        batch, count, height, width = sources.shape
        slopes = grad(sources.reshape(-1, 1, height, width)).view(batch, count, 2, height, width)
        gains = [*self.gains, *[1.0] * count][:count]
        squares = slopes.square()
        squares[:, :, 0, -1], squares[:, :, 1, :, -1] = 0, 0
        length = squares.sum(2).sqrt() * sources.new_tensor(gains).view(1, -1, 1, 1)
        if self.power:
            length = length * maps.pow(self.power)
        wins = (length == length.amax(1, keepdim=True)).to(sources.dtype)
        share = wins / wins.sum(1, keepdim=True)
        g = (share[:, :, None] * slopes).sum(1)
        mean = slopes.mean(1)
        g[:, 0, -1], g[:, 1, :, -1] = mean[:, 0, -1], mean[:, 1, :, -1]
        return g
