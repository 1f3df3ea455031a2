"""A thermal camera's automatic gain, followed from frame to frame and taken out of them.

Thermal cameras stretch each frame by what is in it, and jump when their shutter recalibrates them; fused frame by
frame, the whole picture breathes. Between two frames that follow each other most of the scene is the same, so that gain
and offset can be seen:

    y = a x + b     block means of a frame, against those of the frame before as it was handed on

over the blocks that agree (the others moved), with a from the spreads of both, which motion leaves alike, and not from
regression, which it would bias. What is found is undone, and let go of slowly, so that a lasting change comes through
as a slow one.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ddfm._checks import check_range
from ddfm.cuts import block_means

__all__ = ["GainFollower"]

Array = npt.NDArray[np.floating]

_BLACK, _WHITE = 0.02, 0.96  # of [0, 1]: blocks beyond may be clipped and tell nothing
_SPREAD = 0.02  # of [0, 1]: a frame that varies less tells nothing of the gain
_AGREE = 0.8  # correlation of the blocks from which the gain is believed
_FEW = 16  # blocks; fewer tell nothing
_MOST = 1.5  # a frame's gain against the one before lies within this factor


class GainFollower:
    """Takes the fast changes of gain and offset out of frames in [0, 1]; ``reset`` it at a cut.

    seconds: in so many, what was taken out comes back but for a third (1/e), > 0. gain, offset: what is being taken out
    now: a frame is gain * steady + offset.
    """

    def __init__(self, seconds: float = 8.0) -> None:
        check_range("seconds", seconds, 0, 1e6, open_low=True)
        self.seconds = seconds
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.gain, self.offset = 1.0, 0.0
        self._before: Array | None = None

    def __call__(self, frame: Array, passed: float) -> npt.NDArray[np.float32]:
        """The steady frame, float32 of the same shape (H, W), in [0, 1]; ``passed``: seconds since the last one."""
        blocks = block_means(frame)
        if self._before is not None:
            gain, offset = relation(self._before, blocks)
            kept = math.exp(-max(passed, 0.0) / self.seconds)
            self.gain, self.offset = gain**kept, offset * kept
        self._before = (blocks - self.offset) / self.gain
        return np.clip((frame - self.offset) / self.gain, 0, 1).astype(np.float32)


def relation(before: Array, after: Array) -> tuple[float, float]:
    """Gain and offset with after = gain * before + offset, over the blocks that agree; 1, 0 where nothing tells."""
    seen = (after > _BLACK) & (after < _WHITE) & (before > _BLACK) & (before < _WHITE)
    if seen.sum() < _FEW:
        return 1.0, 0.0
    x, y = before[seen], after[seen]
    beside = np.abs(y - x - np.median(y - x))
    agree = beside <= 2.5 * np.median(beside) + 1 / 255
    x, y = x[agree], y[agree]
    gain = 1.0
    if min(x.std(), y.std()) > _SPREAD and np.corrcoef(x, y)[0, 1] > _AGREE:
        gain = float(np.clip(y.std() / x.std(), 1 / _MOST, _MOST))
    return gain, float(y.mean() - gain * x.mean())
