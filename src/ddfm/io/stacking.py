"""DICOM slices into a grid: sorted along their normal, and refused where they do not make one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ddfm._checks import problem
from ddfm.io.volume import Geometry

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Frame", "stack"]

#: Slices nearer to each other than this, in millimetres, lie at one position.
SAME = 0.01
#: How far a step may be from the others: this share of it, and ``SAME`` for what rounding to text does.
UNEVEN = 0.05


class Frame(NamedTuple):
    """One slice. Positions in DICOM's millimetres (LPS); () for what the file does not state.

    nth: of the frame in a multi-frame file. size: rows, columns. orientation: unit vectors along a row, then along a
    column. spacing: from row to row, then from column to column. thickness: of the slice, if there is but one.
    rescale: slope, intercept. window: values to show black and white. number: InstanceNumber. uid: SOP class, instance.
    """

    path: Path
    nth: int | None
    size: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    rescale: tuple[float, float]
    window: tuple[float, float] | None
    number: int | None
    uid: tuple[str, str]


def stack(frames: Sequence[Frame], name: str) -> tuple[list[Frame], Geometry]:
    """The frames in order along their normal, and the grid that they make. Raises DDFMError where they make none."""
    import numpy as np

    shape = (frames[0].size[1], frames[0].size[0], len(frames))
    if not all(f.position and f.orientation and f.spacing for f in frames):
        if len({f.path for f in frames}) > 1:
            remedy = "Name one file alone, or export the series with its geometry."
            raise problem(name, "slices without position, orientation or spacing", "ImagePositionPatient etc.", remedy)
        return list(frames), Geometry(shape, np.eye(4), known=False)  # one picture, or frames in the file's order
    _check_alike(frames, name)
    row, column = np.reshape(frames[0].orientation, (2, 3))
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 0.01:
        raise problem(name, "ImageOrientationPatient that is no right angle", "two unit vectors at a right angle")
    ordered = sorted(frames, key=lambda f: float(np.dot(f.position, normal)))
    places = np.array([f.position for f in ordered])
    _check_steps(ordered, places @ normal, name)
    count = len(ordered)
    step = (places[-1] - places[0]) / (count - 1) if count > 1 else normal * ordered[0].thickness
    _check_line(places, step, min(frames[0].spacing), name)
    affine = np.eye(4)
    down, across = frames[0].spacing
    affine[:3] = np.column_stack([row * across, column * down, step, places[0]])
    affine[:2] *= -1  # LPS to RAS
    return ordered, Geometry(shape, affine)


def _check_alike(frames: Sequence[Frame], name: str) -> None:
    """Localisers, and slices that turn round an axis, share a series and no grid."""
    import numpy as np

    for what, allowed in (("orientation", 1e-3), ("spacing", 1e-3)):
        values = np.array([getattr(f, what) for f in frames])
        far = np.abs(values - values[0]).max(1) > allowed
        if far.any():
            got = f"{far.sum()} of {len(frames)} slices with another {what} than the first"
            raise problem(name, got, "slices that lie side by side", "Move localisers and other series elsewhere.")


def _check_steps(frames: Sequence[Frame], places: np.ndarray, name: str) -> None:
    """Even steps along the normal, no position twice."""
    import numpy as np

    if len(frames) < 2:
        return
    steps = np.diff(places)
    twice = int((steps < SAME).sum())
    if twice:
        got = f"{twice} slices at the position of another one ({len(frames)} in all)"
        remedy = "Keep one echo, phase, time or b-value in the folder."
        raise problem(name, got, "one slice at each position", remedy)
    typical = float(np.median(steps))
    far = np.abs(steps - typical) > UNEVEN * typical + SAME
    if not far.any():
        return
    k = int(np.argmax(far))
    where = f"{steps[k]:.6g} mm after the slice at {places[k]:.6g} mm{_number(frames[k])}, others {typical:.6g} mm"
    gaps = steps[far] / typical
    if (np.abs(gaps - np.rint(gaps)) < UNEVEN * gaps).all() and (gaps > 1.5).all():
        missing = int((np.rint(gaps) - 1).sum())
        raise problem(name, f"{missing} missing slices: {where}", "a whole series", "Copy or export it again.")
    raise problem(name, f"uneven steps between slices: {where}", "even steps", "Resample the series evenly first.")


def _number(frame: Frame) -> str:
    return "" if frame.number is None else f" (instance {frame.number})"


def _check_line(places: np.ndarray, step: np.ndarray, pixel: float, name: str) -> None:
    import numpy as np

    line = places[0] + np.arange(len(places))[:, None] * step
    away = float(np.linalg.norm(places - line, axis=1).max())
    if away > 0.5 * pixel + UNEVEN * float(np.linalg.norm(step)):
        got = f"slices up to {away:.3g} mm off a straight line"
        raise problem(name, got, "slices in one stack", "Move other series elsewhere.")
