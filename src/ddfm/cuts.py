"""Cuts of a film: where one scene ends and another begins.

Each frame becomes a thumbnail of block means, its large shapes taken off; two frames that follow each other are of one
scene if these thumbnails correlate, at the best of some small shifts. Correlation does not see a camera's gain or
level, so that automatic gain and flashes are no cuts; the shifts follow a camera that pans. Libraries for this read
files of their own and look at one stream; here two cameras are looked at together, in passing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["CutDetector", "block_means", "thumbnail"]

Array = npt.NDArray[np.float32]

SIDE = 32  # blocks across and down
_REACH = 3  # blocks that a frame may move against the one before
_SHAPES = 7  # blocks: means over so many a side are the large shapes
_FLAT = 0.004  # of [0, 1]: a thumbnail that varies less shows nothing, as a thermal camera's closed shutter
# In film and in pairs of different pictures of the development sets, frames that follow each other have 0.38 or more (a
# fast pan; 0.99 is usual), different scenes 0.3 or less in at least one of two cameras.
_ALIKE = 0.3
_MEAN_ALIKE = 0.5
_DROP = 0.2  # a cut comes at once; a whip pan takes some frames
_LATER, _LATER_ALIKE = 8, 0.6  # so many moments after another source's cut, less is believed to be one


class CutDetector:
    """Called with the frames of one moment, one a source, says which of them begin another scene.

    A slower camera shows a cut some frames later, and is expected to. Where one source cuts and the mean of all says so
    too, all do.
    """

    def __init__(self) -> None:
        self._last: list[Array | None] = []
        self._before: list[float] = []
        self._expected: list[int] = []  # for how many moments a source's cut is expected

    def __call__(self, *frames: npt.NDArray[np.floating]) -> tuple[bool, ...]:
        """frames: (H, W) or (H, W, 3) in [0, 1], always as many. The first moment is no cut."""
        thumbnails = [thumbnail(frame) for frame in frames]
        if not self._last:
            self._last, self._before, self._expected = [None] * len(frames), [1.0] * len(frames), [0] * len(frames)
        alike = [
            similarity(a, b) if a is not None and varies(b) else None
            for a, b in zip(self._last, thumbnails, strict=True)
        ]
        self._last = [b if varies(b) else a for a, b in zip(self._last, thumbnails, strict=True)]
        limits = [_LATER_ALIKE if expected else _ALIKE for expected in self._expected]
        cuts = [
            a is not None and a < min(limit, before - _DROP)
            for a, limit, before in zip(alike, limits, self._before, strict=True)
        ]
        known = [a for a in alike if a is not None]
        if any(cuts) and sum(known) < _MEAN_ALIKE * len(known):
            cuts = [True] * len(cuts)
        for k, (value, cut) in enumerate(zip(alike, cuts, strict=True)):
            self._before[k] = 1.0 if cut else self._before[k] if value is None else value
            self._expected[k] = 0 if cut else _LATER if any(cuts) else max(0, self._expected[k] - 1)
        return tuple(cuts)


def thumbnail(frame: npt.NDArray[np.floating]) -> Array:
    """(H, W) or (H, W, 3) -> at most (SIDE, SIDE): block means of luma, less their own means over the neighbourhood."""
    blocks = block_means(frame)
    return (blocks - _local_mean(blocks)).astype(np.float32)


def block_means(frame: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Luma of (H, W) or (H, W, 3), averaged over blocks: at most (SIDE, SIDE)."""
    blocks = _means_along(_means_along(frame, 0), 1)
    return blocks @ np.array((0.299, 0.587, 0.114), np.float32) if blocks.ndim == 3 else blocks  # BT.601


def varies(thumb: Array) -> bool:
    """Whether there is anything to recognise."""
    return float(thumb.std()) > _FLAT


def similarity(before: Array, after: Array) -> float:
    """Correlation of two thumbnails at the best shift, -1 to 1."""
    rows, columns = (min(_REACH, (side - 1) // 4) for side in after.shape)
    height, width = after.shape
    inner = before[rows : height - rows, columns : width - columns]
    shifts = ((y, x) for y in range(2 * rows + 1) for x in range(2 * columns + 1))
    return max(_correlation(inner, after[y : y + inner.shape[0], x : x + inner.shape[1]]) for y, x in shifts)


def _means_along(array: npt.NDArray[np.floating], axis: int) -> npt.NDArray[np.floating]:
    length = array.shape[axis]
    edges = np.linspace(0, length, min(SIDE, length) + 1).astype(int)
    sums = np.add.reduceat(array, edges[:-1], axis, dtype=np.float32)
    counts = np.diff(edges).astype(np.float32)
    return sums / counts.reshape(_along(axis, array.ndim))


def _along(axis: int, ndim: int) -> Sequence[int]:
    return [-1 if k == axis else 1 for k in range(ndim)]


def _local_mean(blocks: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    pad = _SHAPES // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(blocks, pad, mode="edge"), (_SHAPES, _SHAPES))
    return windows.mean((2, 3))


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 0 else 0.0
