"""Counts to grey levels: which values of a radiometric source are black and white, and how to get back.

A thermal camera writes counts (14 bits in 16 are usual), kelvins or degrees. A :class:`Range` says which of them become
0 and 1, a :class:`Relation` what was done, so that ``value = slope * level + offset`` gives the counts again.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddfm._checks import DDFMError, problem

__all__ = ["USUAL", "Range", "Relation", "ends", "local_contrast", "parse_ranges", "sliver", "to_levels"]

#: Percentiles of ``auto``: a person far away stays.
AUTO = (0.1, 99.9)
#: What lies between these is the bulk of a picture; what is beyond it by so many of its spans, and has fewer than so
#: many of its kind among the nine pixels around and with it, is taken for a dead pixel.
BULK = (2.0, 98.0)
FAR, FEW = 2.0, 4
#: Less of the levels than this taken by so many of the values is worth a word.
SLIVER, MOST = 1 / 10, 0.9
#: Less of a 16-bit source's range than this, between those percentiles, and it is taken for counts, not for a picture.
NARROW = 1 / 8
#: Pixels that percentiles are taken from, at most; of larger pictures every n-th.
MOST_SAMPLES = 1 << 22
#: Grey levels and clip limit of the local contrast, and its tiles each way.
CLAHE_LEVELS, CLAHE_LIMIT, CLAHE_TILES = 1024, 2.0, 8

_KINDS = ("auto", "full", "values", "percentiles", "usual")
_FORMS = "auto, full, LOW:HIGH (values) or pLOW:pHIGH (percentiles)"


@dataclasses.dataclass(frozen=True)
class Range:
    """Which values become black and white.

    kind: "auto" (percentiles 0.1 and 99.9, dead pixels left out), "full" (what the type can hold), "values" or
    "percentiles" with ``low`` and ``high``, or "usual": full, but auto for 16-bit grey whose values keep to less than
    an eighth of it. deep_only: leave sources of 8 bits, and floats in [0, 1], as they are. lenient: let a picture pass
    that lies beyond the range as a whole, as one of many.
    """

    kind: str
    low: float = math.nan
    high: float = math.nan
    deep_only: bool = False
    lenient: bool = False

    def __str__(self) -> str:
        if self.kind == "values":
            return f"{self.low:g}:{self.high:g}"
        if self.kind == "percentiles":
            return f"p{self.low:g}:p{self.high:g}"
        return "auto" if self.kind == "usual" else self.kind


#: What holds where the user says nothing.
USUAL = Range("usual", deep_only=True)


@dataclasses.dataclass(frozen=True)
class Relation:
    """value = slope * level + offset, for levels in [0, 1] (divide an 8-bit level by 255 first).

    slope, offset: in the source's own unit; a slope below 0 is that of a picture whose zero is white. below, above:
    share of the pixels that were clipped to 0 and to 1, whose values are lost. asked: the range in words.
    local_contrast: True where the level was changed afterwards by CLAHE, so that the relation holds before it.
    """

    slope: float
    offset: float
    below: float
    above: float
    asked: str
    local_contrast: bool = False

    def values(self, levels: Any) -> np.ndarray:
        """Levels in [0, 1] to the source's values, float64."""
        return self.slope * np.asarray(levels, np.float64) + self.offset

    @property
    def span(self) -> Range:
        """The range by its values."""
        one, other = self.offset, self.offset + self.slope
        return Range("values", min(one, other), max(one, other))

    @property
    def inverted(self) -> Relation:
        """That of the picture's negative."""
        return dataclasses.replace(
            self, slope=-self.slope, offset=self.offset + self.slope, below=self.above, above=self.below
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self) | {"formula": "value = slope * level + offset, level in [0, 1]"}


def parse_ranges(text: str | tuple[Range, ...] | None) -> tuple[Range, ...] | None:
    """``--range`` as ranges: one for all sources of counts, or one for each. Raises DDFMError."""
    if text is None or isinstance(text, tuple):
        return text
    if not isinstance(text, str):
        raise problem("range", repr(text), f"text: {_FORMS}")
    parts = [part.strip() for part in text.split(",")]
    return tuple(_parse(part, deep_only=len(parts) == 1) for part in parts)


def _parse(part: str, deep_only: bool) -> Range:
    if part in ("auto", "full"):
        return Range(part, deep_only=deep_only)
    number = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
    match = re.fullmatch(rf"(p?){number}:(p?){number}", part, re.IGNORECASE)
    if not match or bool(match[1]) != bool(match[3]):
        raise problem("range", repr(part), f"{_FORMS}; one for each source with commas between")
    low, high = float(match[2]), float(match[4])
    if not (low < high and math.isfinite(high - low)):
        raise problem("range", repr(part), "LOW below HIGH")
    if match[1] and not 0 <= low < high <= 100:
        raise problem("range", repr(part), "percentiles from 0 to 100")
    return Range("percentiles" if match[1] else "values", low, high, deep_only)


def to_levels(values: np.ndarray, asked: Range, scale: int | None, name: str) -> tuple[np.ndarray, Relation]:
    """Values of any real type to float32 levels in [0, 1], and the relation back.

    scale: what the type can hold, None where nothing says so. Raises DDFMError for values that are not finite, none of
    them within the range, or without any range of their own where it is to be found.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise problem(name, "NaN or infinite values", "finite ones", "Repair or mask them first.")
    low, high = ends([values], asked, scale, name)
    levels = np.empty(values.shape, np.float32)
    below = above = 0
    for top in range(0, len(values), 256):  # some rows at a time: no second picture of doubles
        with np.errstate(over="ignore"):  # infinity is clipped as well
            part = (values[top : top + 256].astype(np.float64) - low) / (high - low)
        below, above = below + int((part < 0).sum()), above + int((part > 1).sum())
        levels[top : top + 256] = np.clip(part, 0, 1)
    if below + above == values.size and not asked.lenient:
        got = f"values from {values.min():g} to {values.max():g}"
        raise problem(name, got, f"some within the --range {asked}", "Name their own range, or use --range auto.")
    return levels, Relation(high - low, low, below / values.size, above / values.size, str(asked))


def is_picture(values: np.ndarray) -> bool:
    """Whether these are floats in [0, 1], as a picture has them."""
    return values.dtype.kind == "f" and bool(values.min() >= 0 and values.max() <= 1)  # NaN: False


def is_narrow(pictures: Sequence[np.ndarray], scale: int | None) -> bool:
    """Whether 16-bit values look like counts of a camera rather than like a picture."""
    if scale != 65535 or any(values.ndim != 2 for values in pictures):
        return False
    low, high = _percentiles(pictures, AUTO, scale)
    return bool(0 < high - low < NARROW * scale)


def ends(pictures: Sequence[np.ndarray], asked: Range, scale: int | None, name: str) -> tuple[float, float]:
    """What is black and what is white in pictures (H, W) or (H, W, 3) of one source, as ``asked``. Raises DDFMError."""
    if asked.kind == "values":
        return asked.low, asked.high
    least, most = min(float(x.min()) for x in pictures), max(float(x.max()) for x in pictures)
    if asked.kind == "full":
        if scale is None:
            got = f"{pictures[0].dtype} values from {least:g} to {most:g}, which have no full range"
            raise problem(name, got, "--range auto or LOW:HIGH")
        return 0.0, float(scale)
    given = asked.kind == "percentiles"
    low, high = _percentiles(pictures, (asked.low, asked.high) if given else AUTO, scale, all_of_them=given)
    if low == high:  # a flat picture with a few outliers, or a flat one
        low, high = least, most
    if low == high:
        remedy = "There is nothing to stretch; use --range LOW:HIGH, or full."
        raise problem(name, f"one value everywhere, {low:g}", "a picture", remedy)
    if not math.isfinite(high - low):
        got = f"values from {low:g} to {high:g}"
        raise problem(name, got, "a difference that a number can hold", "Scale them, or name a --range LOW:HIGH.")
    return low, high


def sliver(levels: np.ndarray) -> float:
    """The narrowest part of [0, 1] that holds ``MOST`` of the levels; 1 where that is one level."""
    values = np.sort(levels.ravel()[:: max(1, levels.size // (1 << 16))])
    many = min(len(values) - 1, round(MOST * len(values)))
    return float((values[many:] - values[: len(values) - many]).min()) or 1.0


def _percentiles(
    pictures: Sequence[np.ndarray], which: tuple[float, float], scale: int | None, all_of_them: bool = False
) -> tuple[float, float]:
    """Of the values of all pictures together, dead pixels left out unless ``all_of_them`` are wanted."""
    pooled = _pooled(pictures)
    if not all_of_them:
        low, high = _at(pooled, BULK)
        if 0 < high - low < math.inf:
            reach = FAR * (high - low)
            pooled = _pooled([_alive(x, low - reach, high + reach, scale) for x in pictures])
    return _at(pooled, which)


def _at(values: np.ndarray, which: tuple[float, float]) -> tuple[float, float]:
    wide = math.isinf(float(values.max()) - float(values.min()))  # too wide to interpolate
    low, high = np.percentile(values, which, method="nearest" if wide else "linear")
    return float(low), float(high)


def _alive(values: np.ndarray, low: float, high: float, scale: int | None) -> np.ndarray:
    """The values that are no dead pixels, (N,): isolated ones below ``low`` or above ``high``, or stuck at the ends."""
    far = (values < low) | (values > high)
    if not far.any():
        return values.ravel()
    from scipy.ndimage import uniform_filter

    dead = np.zeros_like(far)
    for side in (values < low, values > high):
        size = (3, 3, 1)[: side.ndim]
        dead |= side & (uniform_filter(side.astype(np.float32), size, mode="constant") * 9 < FEW - 0.5)
    if scale:
        dead |= far & ((values == 0) | (values == scale))
    return values[~dead]


def _pooled(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([_sample(x, len(pictures)) for x in pictures])


def _sample(values: np.ndarray, of: int = 1) -> np.ndarray:
    return values.ravel()[:: max(1, values.size * of // MOST_SAMPLES)]


def local_contrast(levels: np.ndarray) -> np.ndarray:
    """CLAHE (Zuiderveld 1994) of float32 (H, W) in [0, 1], 8 x 8 tiles, clip limit 2, by OpenCV.

    The picture is put on 1024 levels first: tiles of some thousand pixels hold no histogram of more.
    """
    try:
        import cv2
    except ImportError as error:
        raise DDFMError("--clahe needs OpenCV: pip install 'ddfm[align]'") from error
    steps = np.rint(levels * (CLAHE_LEVELS - 1)).astype(np.uint16)
    spread = np.rint(np.arange(CLAHE_LEVELS) * (65535 / (CLAHE_LEVELS - 1))).astype(np.uint16)
    # OpenCV counts the limit in means over 65536 bins, of which only CLAHE_LEVELS are ever filled
    clahe = cv2.createCLAHE(CLAHE_LIMIT * 65536 / CLAHE_LEVELS, (CLAHE_TILES, CLAHE_TILES))
    return np.true_divide(clahe.apply(spread[steps]), 65535, dtype=np.float32)
