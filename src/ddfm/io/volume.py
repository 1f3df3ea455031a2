"""A volume: slices on a grid in space, read one by one. What NIfTI and DICOM have in common.

Indices are (i, j, k): column, row and slice, as stored. A slice is an array (J, I), rows first, like any picture here.
Space is in millimetres with NIfTI's axes ("RAS+"): x grows to the patient's right, y to the front, z to the top.
DICOM's x and y have the other sign.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ddfm._checks import problem

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FUSED_LABEL", "ArrayVolume", "Geometry", "Volume", "check_one_grid", "differences"]

#: What every fused volume says of itself.
FUSED_LABEL = "FUSED - not for diagnosis"
#: Of the smallest spacing: so far apart may two grids be, anywhere, and count as one.
TOLERANCE = 0.05


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid in space.

    shape: (I, J, K), columns, rows and slices. affine: (4, 4) float64, index (i, j, k, 1) to millimetres, RAS+.
    known: whether the file says where the grid lies; else ``affine`` is a guess that nothing should rest on.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    known: bool = True

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from one column, row and slice to the next."""
        import numpy as np

        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return a, b, c

    @property
    def directions(self) -> np.ndarray:
        """(3, 3): unit vectors of the axes, one a column."""
        return self.affine[:3, :3] / self.spacing

    @property
    def axes(self) -> str:
        """Where the three axes run, such as "LPS": the letter of the nearest direction of each."""
        import numpy as np

        names = []
        for column in self.directions.T:
            axis = int(np.argmax(np.abs(column)))
            names.append(("LR", "PA", "IS")[axis][int(column[axis] > 0)])
        return "".join(names)

    def describe(self) -> dict[str, object]:
        """For reports."""
        told = {"spacing_mm": [round(s, 6) for s in self.spacing], "axes": self.axes}
        return {"shape": list(self.shape), **(told if self.known else {"position": "not stated"})}


class Volume(abc.ABC):
    """Slices of one scan, read when asked for.

    kind: "NIfTI" or "DICOM". name: how messages call it. is_color: RGB, else one value a voxel. window: values that the
    file wants black and white, or None. inverted: low values are bright (MONOCHROME1). notes: what the user should
    know, without a name in it. burned_in, lossy: what the file says of annotations in its pixels and of lossy
    compression.
    """

    kind: str
    name: str
    geometry: Geometry
    is_color: bool = False
    window: tuple[float, float] | None = None
    inverted: bool = False
    notes: tuple[str, ...] = ()
    burned_in: bool = False
    lossy: bool = False

    @abc.abstractmethod
    def slice(self, k: int) -> np.ndarray:
        """Slice ``k``: float32 (J, I) in the file's units, NaN where there is no value; RGB (J, I, 3) in [0, 1]."""

    @abc.abstractmethod
    def sha256(self) -> str:
        """Of what was read: of the file, or of the checksums of a series' files in the order of the slices."""

    def data(self) -> np.ndarray:
        """All slices at once, (K, J, I) or (K, J, I, 3), float32."""
        import numpy as np

        return np.stack([self.slice(k) for k in range(self.geometry.shape[2])])


class ArrayVolume(Volume):
    """A volume in memory: (K, J, I) in any unit, or (K, J, I, 3) in [0, 1]; float32 from slice to slice."""

    kind = "array"

    def __init__(self, samples: np.ndarray, geometry: Geometry, name: str = "array") -> None:
        if samples.shape[:3] != geometry.shape[::-1] or samples.shape[3:] not in ((), (3,)):
            raise problem(name, f"shape {samples.shape}", f"{geometry.shape[::-1]}, or with 3 channels after it")
        self.samples, self.geometry, self.name = samples, geometry, name
        self.is_color = samples.ndim == 4

    def slice(self, k: int) -> np.ndarray:
        """See ``Volume.slice``."""
        import numpy as np

        values = np.array(self.samples[k], np.float32)
        values[~np.isfinite(values)] = np.nan
        return values

    def sha256(self) -> str:
        """Of the samples."""
        import hashlib

        return hashlib.sha256(self.samples.tobytes()).hexdigest()


def check_one_grid(volumes: Sequence[Volume]) -> list[str]:
    """Refuse volumes that do not share one grid; return notes on what could not be checked. Raises DDFMError."""
    last, notes = volumes[-1], []
    for number, volume in enumerate(volumes[:-1], 1):
        if found := differences(volume.geometry, last.geometry):
            raise problem(
                f"{volume.name} and {last.name}",
                "; ".join(found),
                "volumes on one grid",
                f"Resample the others onto the grid of {Path(last.name).name} with --resample.",
            )
        if not (volume.geometry.known and last.geometry.known):
            notes.append(f"source {number} and the last one: one of them states no position, only sizes were compared")
    return notes


def differences(a: Geometry, b: Geometry) -> list[str]:
    """What tells two grids apart, in words; empty if no voxel lies ``TOLERANCE`` of a spacing from its counterpart."""
    import numpy as np

    found = []
    if a.shape != b.shape:
        found.append(f"shape {_times(a.shape)} and {_times(b.shape)} (columns x rows x slices)")
    if not (a.known and b.known):
        return found
    reach = np.maximum(a.shape, b.shape) - 1  # a single slice has no spacing to compare
    allowed = TOLERANCE * min(a.spacing if a.shape[2] > 1 else a.spacing[:2])
    if (np.abs(np.subtract(a.spacing, b.spacing)) * reach > allowed).any():
        found.append(f"spacing {_times(a.spacing)} and {_times(b.spacing)} mm")
    turned = np.linalg.norm(a.directions - b.directions, axis=0)
    if (turned * reach * a.spacing > allowed).any():
        angle = np.degrees(2 * np.arcsin(np.clip(turned.max() / 2, 0, 1)))
        told = f"{a.axes} and {b.axes}" if a.axes != b.axes else f"that differs by {angle:.3g} degrees"
        found.append(f"orientation {told}")
    if np.linalg.norm(a.affine[:3, 3] - b.affine[:3, 3]) > allowed:
        found.append(f"origin {_place(a)} and {_place(b)} mm")
    return found


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{v:.6g}" for v in values)


def _place(geometry: Geometry) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in geometry.affine[:3, 3]) + ")"
