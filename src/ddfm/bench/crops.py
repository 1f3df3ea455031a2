"""Crops for a report: the same window of sources and results, where there is most to lose in each source."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfm._checks import DDFMError
from ddfm.io import read_image
from ddfm.metrics.retention import HOT_PERCENTILE, MIN_AREA, connected_components

__all__ = ["SIDE", "sheets", "window"]

SIDE = 128  # pixels of a crop
MOST = 4  # images of a data set that are shown


def sheets(runs: Sequence[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    """For some images of a data set: name, and crops of both sources and every method as PNG in base64.

    An image whose sources or results are no longer there is left out: a report never fails for want of a picture.
    """
    names = list(runs[0]["images"])
    chosen = [names[i] for i in sorted({round(k) for k in np.linspace(0, len(names) - 1, MOST)})]
    found = []
    for name in chosen:
        try:
            a, b = (_grey(Path(path)) for path in runs[0]["sources"][name])
            for focus, (y, x) in window(a, b).items():
                pictures = {runs[0]["dataset"]["roles"][0]: a, runs[0]["dataset"]["roles"][1]: b}
                pictures |= {run["method"]: _grey(out / run["pictures"] / f"{name}.png") for run in runs}
                cut = {k: _png(v[y : y + SIDE, x : x + SIDE]) for k, v in pictures.items()}
                found.append({"name": f"{name}, {focus}", "pictures": cut})
        except (DDFMError, KeyError):
            continue
    return found


def window(a: np.ndarray, b: np.ndarray) -> dict[str, tuple[int, int]]:
    """Upper left corners of the windows on the clearest hot target of A and on the most texture of B."""
    texture = np.abs(np.diff(b, axis=0))[:, 1:] + np.abs(np.diff(b, axis=1))[1:]
    target = clearest_target(a)
    return {"hot target": _around(target, a.shape) if target else _best(a), "texture": _best(texture)}


def clearest_target(a: np.ndarray) -> tuple[int, int] | None:
    """Centre of the hot target, as the retention metric sees targets, that stands out most for its size."""
    labels, count = connected_components(a >= np.percentile(a, HOT_PERCENTILE))
    best, place = 0.0, None
    for label in range(1, count + 1):
        rows, columns = np.nonzero(labels == label)
        if len(rows) >= MIN_AREA and max(np.ptp(rows), np.ptp(columns)) < SIDE:
            near = a[max(rows.min() - 15, 0) : rows.max() + 16, max(columns.min() - 15, 0) : columns.max() + 16]
            clear = (a[rows, columns].mean() - near.mean()) * len(rows) ** 0.5
            if clear > best:
                best, place = clear, (int(rows.mean()), int(columns.mean()))
    return place


def _around(place: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """Corner of the window with ``place`` in its middle, inside the image."""
    y, x = (min(max(p - SIDE // 2, 0), max(n - SIDE, 0)) for p, n in zip(place, shape, strict=True))
    return y, x


def _best(weight: np.ndarray) -> tuple[int, int]:
    """Corner of the SIDE x SIDE window with the largest sum, on a grid of 16 pixels."""
    height, width = weight.shape
    sums = np.pad(weight.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    rows, columns = (np.arange(0, max(n - SIDE, 0) + 1, 16) for n in (height, width))
    low_y, low_x = np.minimum(rows + SIDE, height), np.minimum(columns + SIDE, width)
    total = sums[np.ix_(low_y, low_x)] - sums[np.ix_(rows, low_x)] - sums[np.ix_(low_y, columns)]
    total += sums[np.ix_(rows, columns)]
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    return int(rows[i]), int(columns[j])


def _grey(path: Path) -> np.ndarray:
    data = read_image(path).data
    return data if data.ndim == 2 else data @ np.array([0.299, 0.587, 0.114], dtype=data.dtype)


def _png(image: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
