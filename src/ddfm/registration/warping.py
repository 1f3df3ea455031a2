"""A moving picture onto the reference's grid, and what stands where it shows nothing."""

from __future__ import annotations

import numpy as np

from ddfm._checks import problem
from ddfm.registration._opencv import opencv
from ddfm.registration.transform import Transform, resizing

__all__ = ["apply", "fill_outside", "inside_of", "luma"]

#: OpenCV counts pixels with 16 bits when it resamples.
MOST_SIDE = 32766


def apply(transform: Transform, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The moving picture on the reference's grid, and where it shows the scene.

    moving: float32 (H, W) or (H, W, 3) in [0, 1], of the transform's ``moving_size``. Returns float32 of the
    reference's size in [0, 1], cubic interpolation, its border pixels repeated outside; and bool (h, w), False outside.
    A picture that shrinks is blurred first, so that fine texture does not turn into moire. Raises DDFMError.
    """
    if moving.shape[:2] != transform.moving_size:
        raise problem("moving", _size_text(moving.shape), f"{_size_text(transform.moving_size)}, as the transform says")
    if transform.is_identity:
        return moving, np.ones(moving.shape[:2], bool)
    plain = np.allclose(transform.matrix, resizing(transform.moving_size, transform.fixed_size), rtol=0, atol=1e-9)
    warped = _resize(moving, transform) if plain else _warp(moving, transform)
    return np.clip(warped, 0, 1), inside_of(transform)


def luma(picture: np.ndarray) -> np.ndarray:
    """BT.601 luma, float32 (H, W) in [0, 1], of (H, W) or (H, W, 3)."""
    return picture if picture.ndim == 2 else np.clip(picture @ np.array([0.299, 0.587, 0.114], np.float32), 0, 1)


def inside_of(transform: Transform, rows: int = 256) -> np.ndarray:
    """bool (h, w): where the moving picture shows the scene."""
    height, width = transform.fixed_size
    inside = np.empty((height, width), bool)
    columns = np.arange(width, dtype=np.float64)
    for top in range(0, height, rows):
        y = np.arange(top, min(top + rows, height), dtype=np.float64)
        points = np.column_stack([np.tile(columns, len(y)), np.repeat(y, width)])
        inside[top : top + rows] = transform.inside(points).reshape(len(y), width)
    return inside


def fill_outside(warped: np.ndarray, inside: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``warped`` with the reference where the moving picture shows nothing, so that there only the reference speaks.

    warped: what ``apply`` gives, float32 (H, W) or (H, W, 3) in [0, 1]. inside: bool (H, W). reference: as large;
    of a coloured one and a grey one the luma is taken. Just outside, over some fiftieth of the shorter side, the moving
    picture's border pixels fade into the reference: a hard seam between two levels would be an edge of neither source.
    """
    if inside.all():
        return warped
    away = opencv("--align").distanceTransform((~inside).astype(np.uint8), 2, 5)  # Euclidean, 5x5 mask
    weight = np.exp(-away / max(2.0, min(inside.shape) / 50), dtype=np.float32)
    other = luma(reference) if warped.ndim == 2 else reference
    if warped.ndim == 3:
        weight, other = weight[..., None], other if other.ndim == 3 else other[..., None]
    mixed: np.ndarray = np.where(weight == 1, warped, weight * warped + (1 - weight) * other)
    return mixed


def _resize(moving: np.ndarray, transform: Transform) -> np.ndarray:
    """Cubic, blurred when it shrinks; by Pillow, which is always there."""
    from PIL import Image

    height, width = transform.fixed_size
    planes = moving[..., None] if moving.ndim == 2 else moving
    done = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(planes[..., c])).resize((width, height), Image.Resampling.BICUBIC)
        )
        for c in range(planes.shape[2])
    ]
    return done[0] if moving.ndim == 2 else np.dstack(done)


def _warp(moving: np.ndarray, transform: Transform) -> np.ndarray:
    cv2 = opencv("--align")
    if max(*transform.moving_size, *transform.fixed_size) > MOST_SIDE:
        got = f"{_size_text(transform.moving_size)} onto {_size_text(transform.fixed_size)}"
        raise problem("sources", got, f"at most {MOST_SIDE} pixels a side to register", "Crop or reduce them first.")
    (mh, mw), (h, w) = transform.moving_size, transform.fixed_size
    # how many pixels of the moving picture make one, by axis; the blur is scikit-image's rule for resize
    sigma_x, sigma_y = max(0.0, (mw / w - 1) / 2), max(0.0, (mh / h - 1) / 2)
    if sigma_x > 0.05 or sigma_y > 0.05:
        moving = cv2.GaussianBlur(moving, (0, 0), max(sigma_x, 1e-3), sigmaY=max(sigma_y, 1e-3))
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped: np.ndarray = cv2.warpPerspective(
        np.ascontiguousarray(moving, np.float32), transform.array, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return warped


def _size_text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
