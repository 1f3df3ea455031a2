"""A picture to judge a registration by."""

from __future__ import annotations

import numpy as np

from ddfm._checks import problem

__all__ = ["checkerboard"]


def checkerboard(first: np.ndarray, second: np.ndarray, squares: int = 8) -> np.ndarray:
    """Squares of two pictures of one size in turn, float32 (H, W) or, where one is coloured, (H, W, 3), in [0, 1].

    first, second: float (H, W) or (H, W, 3) in [0, 1]; the first has the top left square. squares: along the shorter
    side. Edges that go on from square to square show that the pictures fit. Each picture is stretched by its own
    0.5 and 99.5 percentiles, because a pale one would hide what its edges do. Raises DDFMError.
    """
    if first.shape[:2] != second.shape[:2]:
        raise problem("second", f"shape {second.shape}", f"{first.shape[:2]}, the size of the first")
    if squares < 2:
        raise problem("squares", squares, "2 or more")
    height, width = first.shape[:2]
    side = max(1, min(height, width) // squares)
    dark = (np.arange(height)[:, None] // side + np.arange(width)[None] // side) % 2 == 0
    a, b = _stretched(first), _stretched(second)
    if a.ndim != b.ndim:
        a, b = (np.repeat(x[..., None], 3, 2) if x.ndim == 2 else x for x in (a, b))
    return np.where(dark if a.ndim == 2 else dark[..., None], a, b).astype(np.float32)


def _stretched(picture: np.ndarray) -> np.ndarray:
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.clip((picture - low) / (high - low), 0, 1) if high > low else np.clip(picture, 0, 1)
