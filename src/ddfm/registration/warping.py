"""A moving picture onto the reference's grid, and what stands where it shows nothing.

Interpolation by cubic splines, which reproduce planes exactly; the cubic kernels of OpenCV and of Pillow's transform do
not, and shift edges by a twentieth of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddfm._checks import problem
from ddfm.registration.transform import Transform, resizing

__all__ = ["apply", "fill_outside", "inside_of", "luma"]

#: Over what share of the shorter side the border of a moving picture fades into the reference.
FADE = 1 / 8
ROWS = 256  # at a time: coordinates are doubles, four times the memory of the picture
PAD = 12  # of border pixels, for the spline: it feels a border at a quarter of its size a pixel, 1e-7 there


def apply(transform: Transform, moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The moving picture on the reference's grid, and where it shows the scene.

    moving: float32 (H, W) or (H, W, 3) in [0, 1], of the transform's ``moving_size``. Returns float32 of the
    reference's size in [0, 1], its border pixels repeated outside; and bool (h, w), False outside. A picture that
    shrinks is blurred first, so that fine texture does not turn into moire. Raises DDFMError.
    """
    if moving.shape[:2] != transform.moving_size:
        raise problem("moving", _size_text(moving.shape), f"{_size_text(transform.moving_size)}, as the transform says")
    if transform.is_identity:
        return moving, np.ones(moving.shape[:2], bool)
    plain = np.allclose(transform.matrix, resizing(transform.moving_size, transform.fixed_size), rtol=0, atol=1e-9)
    planes = moving[..., None] if moving.ndim == 2 else moving
    done = [(_resized if plain else _warped)(planes[..., c], transform) for c in range(planes.shape[2])]
    warped = np.clip(done[0] if moving.ndim == 2 else np.dstack(done), 0, 1)
    return warped, inside_of(transform)


def inside_of(transform: Transform) -> np.ndarray:
    """bool (h, w): where the moving picture shows the scene."""
    inside = np.empty(transform.fixed_size, bool)
    for rows, points in _grid(transform.fixed_size):
        inside[rows] = transform.inside(points).reshape(inside[rows].shape)
    return inside


def _grid(size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows at a time, and their pixel centres (N, 2), x first."""
    columns = np.arange(size[1], dtype=np.float64)
    for top in range(0, size[0], ROWS):
        y = np.arange(top, min(top + ROWS, size[0]), dtype=np.float64)
        yield slice(top, top + ROWS), np.column_stack([np.tile(columns, len(y)), np.repeat(y, size[1])])


def fill_outside(warped: np.ndarray, inside: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``warped`` with the reference where the moving picture shows nothing, so that there only the reference speaks.

    warped: what ``apply`` gives, float32 (H, W) or (H, W, 3) in [0, 1]. inside: bool (H, W). reference: as large; of a
    coloured one and a grey one the luma is taken. Outside, over some eighth of the shorter side, the moving picture's
    border pixels fade into the reference: a seam between two levels would be an edge of neither source. On the way
    they are blurred, as border pixels that go on unchanged are streaks.
    """
    if inside.all():
        return warped
    from scipy.ndimage import distance_transform_edt, uniform_filter

    away = np.maximum(distance_transform_edt(~inside) - 1, 0).astype(np.float32)  # 0 at the first pixel outside
    band = max(2.0, FADE * min(inside.shape))
    weight, far = np.exp(-away / band), np.minimum(away / (band / 2), 1)
    other = luma(reference) if warped.ndim == 2 else reference
    if warped.ndim == 3:
        weight, far, other = weight[..., None], far[..., None], other if other.ndim == 3 else other[..., None]
    side = (round(band), round(band), 1)[: warped.ndim]
    soft = uniform_filter(
        uniform_filter(warped, side, mode="nearest"), side, mode="nearest"
    )  # whatever the side, quick
    mixed: np.ndarray = np.where(weight == 1, warped, weight * (far * soft + (1 - far) * warped) + (1 - weight) * other)
    return mixed


def luma(picture: np.ndarray) -> np.ndarray:
    """BT.601 luma, float32 (H, W) in [0, 1], of (H, W) or (H, W, 3)."""
    return picture if picture.ndim == 2 else np.clip(picture @ np.array([0.299, 0.587, 0.114], np.float32), 0, 1)


def _resized(plane: np.ndarray, transform: Transform) -> np.ndarray:
    """Pillow's resize: when it shrinks its kernel grows."""
    from PIL import Image

    height, width = transform.fixed_size
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _warped(plane: np.ndarray, transform: Transform) -> np.ndarray:
    from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

    (mh, mw), (height, width) = transform.moving_size, transform.fixed_size
    # how many pixels of the moving picture make one, by axis; the blur is scikit-image's rule for resize
    sigma = [max(0.0, (many / one - 1) / 2) for many, one in ((mh, height), (mw, width))]
    if max(sigma) > 0.05:
        plane = gaussian_filter(plane, sigma, mode="nearest")
    spline = spline_filter(np.pad(plane, PAD, mode="edge"), 3, np.float32, "mirror")
    warped = np.empty((height, width), np.float32)
    for rows, points in _grid(transform.fixed_size):
        x, y = transform.points(points).T
        at = [np.clip(y, 0, mh - 1) + PAD, np.clip(x, 0, mw - 1) + PAD]
        values = map_coordinates(spline, at, order=3, output=np.float32, mode="mirror", prefilter=False)
        warped[rows] = values.reshape(warped[rows].shape)
    return warped


def _size_text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
