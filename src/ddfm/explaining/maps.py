"""Numbers over a picture as colours: which source a pixel follows, and how far samples differ. Plain numpy.

The two ends of the map of two sources, orange and blue, and the palette of more of them (Okabe and Ito 2008) are told
apart with every common kind of colour blindness, and in print.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

__all__ = ["Legend", "palette", "share_legend", "share_map", "spread_legend", "spread_map", "spread_top"]

_FIRST, _LAST, _BOTH = (230, 97, 1), (33, 102, 172), (247, 247, 247)
#: Okabe and Ito's, between the first source's and the last's.
_BETWEEN = ((0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233), (0, 0, 0))
#: From nothing to much: places along matplotlib's "inferno", whose lightness rises evenly.
_HEAT = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)


@dataclasses.dataclass(frozen=True)
class Legend:
    """A bar of colours beside a map: stops from left to right, and a text under each end and the middle."""

    stops: tuple[tuple[int, int, int], ...]
    texts: tuple[str, ...]


def palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """A colour for each of ``count`` sources, the first's orange, the last's blue; beyond seven they come again."""
    between = [_BETWEEN[n % len(_BETWEEN)] for n in range(count - 2)]
    return (_FIRST, *between, _LAST)


def share_map(shares: np.ndarray) -> np.ndarray:
    """Which source each pixel follows, uint8 (H, W, 3), of shares (K, H, W) with sum 1.

    Two sources: from orange, the first alone, over white, both alike, to blue, the last alone. More: colours mixed.
    """
    if len(shares) == 2:
        return _along(shares[1], (_FIRST, _BOTH, _LAST))
    colors = np.array(palette(len(shares)), np.float64)
    return _levels(np.tensordot(shares, colors, ((0,), (0,))))


def share_legend(labels: tuple[str, ...]) -> Legend:
    """Of ``share_map`` for sources of these names."""
    if len(labels) == 2:
        return Legend((_FIRST, _BOTH, _LAST), (labels[0], "both alike", labels[1]))
    return Legend(palette(len(labels)), labels)


def spread_top(spread: np.ndarray) -> float:
    """The top of a scale for a spread in grey levels of 255: 1, 2 or 5 times a power of ten, 0.1 or more.

    Of a hundred pixels one at most lies beyond it.
    """
    wanted = max(float(np.quantile(spread, 0.99)), 0.1)
    unit = 10.0 ** math.floor(math.log10(wanted))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= wanted * (1 - 1e-9))


def spread_map(spread: np.ndarray, top: float) -> np.ndarray:
    """Dark for 0, bright for ``top`` and beyond, uint8 (H, W, 3), of (H, W)."""
    return _along(np.clip(spread / top, 0, 1), _HEAT)


def spread_legend(top: float) -> Legend:
    """Of ``spread_map``."""
    return Legend(_HEAT, ("0", f"{top / 2:g}", f"{top:g} and more"))


def _along(values: np.ndarray, stops: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Values (H, W) in [0, 1] as colours between evenly spaced stops."""
    places = np.linspace(0, 1, len(stops))
    planes = [np.interp(values, places, channel) for channel in np.array(stops, np.float64).T]
    return _levels(np.stack(planes, -1))


def _levels(values: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.rint(values).clip(0, 255).astype(np.uint8)
    return levels
