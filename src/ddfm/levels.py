"""How bright sources are as a whole, and what brings them to one level.

symbol     shape              meaning
level_k    (B, K, 1, 1)       a quantile of source k: what most of the scene looks like to that camera
white_k    (B, K, 1, 1)       the share of its pixels that are white
offset_k   (B, K, 1, 1)       strength (level_k - mean of the levels), taken off source k
shift      (B, 1, 1, 1)       brings a picture whose ends lie outside [-1, 1] back, as far as both ends allow

Quantiles are those of every n-th row and column, at most 65,536 pixels or so: sorting megapixels says no more.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

__all__ = ["ENDS", "WHITE", "Overall", "Scene", "lattice_step", "offsets", "quantile", "quantile_of_all", "shift"]

ENDS = (0.005, 0.995)  # quantiles that count as a picture's ends: a few dead or glaring pixels do not
WHITE = 0.96  # from here on, of [-1, 1], a source is taken to be saturated: 250 of 255
_MOST = 65_536


@dataclasses.dataclass(frozen=True)
class Overall:
    """What an image says as a whole about each of its sources, both (B, K, 1, 1)."""

    level: Tensor
    white: Tensor

    @classmethod
    def of(cls, sources: Tensor, q: float) -> Overall:
        """Of sources (B, K, H, W) in [-1, 1]; q: the quantile that is a source's level."""
        step = lattice_step(*sources.shape[-2:])
        return cls.of_lattice(sources[..., ::step, ::step], q)

    @classmethod
    def of_lattice(cls, sources: Tensor, q: float) -> Overall:
        """The same of the lattice's pixels alone."""
        white = (sources >= WHITE).to(sources.dtype).mean((2, 3), keepdim=True)
        return cls(quantile_of_all(sources, q), white)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What pictures of one scene share, so that they do not flicker: (1, K, 1, 1) each, ``shift`` (1, 1, 1, 1).

    gammas: the scales after each EM iteration; () where every picture has its own.
    """

    overall: Overall
    shift: Tensor
    gammas: tuple[Tensor, ...] = ()


def lattice_step(height: int, width: int) -> int:
    """Every how many-th row and column a quantile looks at."""
    return math.ceil(math.sqrt(height * width / _MOST))


def quantile(x: Tensor, q: float) -> Tensor:
    """The q-quantile of each plane of (B, C, H, W), on the lattice: (B, C, 1, 1)."""
    step = lattice_step(*x.shape[-2:])
    return quantile_of_all(x[..., ::step, ::step], q)


def quantile_of_all(values: Tensor, q: float) -> Tensor:
    """The q-quantile of each plane of (B, C, h, w), which has the lattice's points alone: (B, C, 1, 1)."""
    wide = values if values.dtype == torch.float64 else values.float()
    return torch.quantile(wide.flatten(2), q, dim=2)[..., None, None].to(values.dtype)


def offsets(levels: Tensor, strength: float) -> Tensor:
    """What each source is too bright by, (B, K, 1, 1); the offsets of an image sum to 0."""
    return strength * (levels - levels.mean(1, keepdim=True))


def shift(low: Tensor, high: Tensor) -> Tensor:
    """What is to be added to a picture with these ends, any shape, so that it lies in [-1, 1]; 0 if it does."""
    return (-1 - low).clamp(min=0) - (high - 1).clamp(min=0)
