"""Volumes in and out: NIfTI files, DICOM files, folders that hold a DICOM series. The content decides, not the name.

``read_volume`` gives slices that are read when asked for; ``writing_volume`` takes them one by one. Each format has its
room: ``nifti``, ``dicom`` (with ``stacking``), ``dicom_write``; ``volume`` says what they share, ``regrid`` resamples.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ddfm._checks import DDFMError, problem
from ddfm.io import SUFFIXES
from ddfm.io.dicom import DicomVolume, is_dicom, open_dicom
from ddfm.io.dicom_write import Origin, writing_dicom
from ddfm.io.files import os_errors
from ddfm.io.nifti import nifti_head, open_nifti, writing_nifti
from ddfm.io.volume import Volume

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Origin",
    "check_output",
    "is_read",
    "is_volume",
    "read_volume",
    "scans_below",
    "write_volume",
    "writing_volume",
]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
#: Files that ``scans_below`` looks at.
_MOST_LOOKS = 1000
_PREAMBLE = "DICOM without its preamble (DICM after 128 bytes)? dcmconv of dcmtk adds it."


def is_volume(path: Path) -> bool:
    """Whether a source is one for volumes: NIfTI or DICOM by content, a folder with DICOM in it, or called like them.

    What is only called so is refused by ``read_volume`` with a better reason than an image reader has.
    """
    if path.is_dir():
        with os_errors(path):
            files = (p for p in path.iterdir() if p.suffix.lower() not in SUFFIXES and not p.name.startswith("."))
            return any(p.is_file() and _is(is_dicom, p) for p in files)
    if not path.is_file() or path.suffix.lower() in SUFFIXES:
        return False
    if _is_called_nifti(path) or path.suffix.lower() == ".dcm":
        return True
    return _is(is_dicom, path) or _is(nifti_head, path)


def scans_below(folder: Path) -> str:
    """A hint for a folder in which nothing to fuse was found: where the nearest volume lies, "" if none is near."""
    below = (Path(root) / name for root, _, names in os.walk(folder) for name in sorted(names))
    for path in itertools.islice(below, _MOST_LOOKS):
        if is_volume(path):
            if path.suffix.lower() == ".dcm" and not _is(is_dicom, path):
                return f"{path} is called .dcm. {_PREAMBLE}"
            series = path if _is_called_nifti(path) else path.parent
            return f"There is a volume, {series}: name it instead."
    return ""


def _is(kind: Callable[[Path], object], path: Path) -> bool:
    """Whether the content is of that kind; of a file that cannot be read others will say what is wrong."""
    try:
        return bool(kind(path))
    except DDFMError:
        return False


def _is_called_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Open a volume; headers are checked now, samples are read when asked for.

    ``series``: the SeriesInstanceUID to take from a folder of several. Raises DDFMError, naming what is wrong and a
    remedy: damaged or cut files and tags, missing, doubled or uneven slices, several series, more than three axes.
    """
    path = Path(path)
    if not path.exists():
        raise problem(str(path), "no such file or folder", "a NIfTI file, a DICOM file or series", "Check the path.")
    if path.is_dir() or is_dicom(path):
        return open_dicom(path, series)
    if nifti_head(path) or _is_called_nifti(path):
        return open_nifti(path)
    raise problem(
        str(path), "neither NIfTI nor DICOM by its content", "a NIfTI file, a DICOM file or series", _PREAMBLE
    )


def check_output(path: Path, volumes: Sequence[Volume], *, color: bool, bit_depth: int, keep_patient: bool) -> None:
    """Refuse, before any work, a name or settings that the result does not fit. Raises DDFMError."""
    last, name = volumes[-1], path.name.lower()
    slices = last.geometry.shape[2]
    if _is_called_nifti(path):
        if keep_patient:
            raise problem("--keep-patient", "with NIfTI", "a DICOM output", "NIfTI has no place for a patient.")
    elif path.suffix.lower() in (*SUFFIXES, ".gz"):
        raise problem("--output", repr(path.suffix), "a name ending in .nii or .nii.gz, or a folder for DICOM")
    elif not isinstance(last, DicomVolume):
        raise problem("--output", path, "a name ending in .nii or .nii.gz, as the last source is NIfTI")
    elif name.endswith(".dcm") and slices > 1 and not path.is_dir():
        raise problem("--output", f"one file for {slices} slices", "a folder", "Leave out the .dcm.")
    if not path.absolute().parent.is_dir():
        raise problem("--output", path, "a place in an existing folder", f"Create it: mkdir -p {path.parent}")
    if color and bit_depth != 8:
        raise problem("bit_depth", f"{bit_depth} for a volume in colour", "8", "Viewers read 8 bits of RGB, no more.")
    if any(is_read(path, Path(volume.name), volume) for volume in volumes):
        raise problem("--output", path, "another place than a source", "Choose another name.")


def is_read(path: Path, source: Path, volume: Volume | None = None) -> bool:
    """Whether writing ``path`` would touch what is read: the source, a file of its folder, or a folder it lies in.

    volume: the source opened, whose files count too.
    """
    if not (path.exists() and source.exists()):
        return path.absolute() == source.absolute()
    files = {frame.path for frame in volume.frames} if isinstance(volume, DicomVolume) else set()
    if path.is_dir():  # a folder is replaced with all that lies in it
        here = path.resolve()
        return here in (source.resolve(), *(p.resolve().parent for p in (files | {source}) if p.is_file()))
    return path.samefile(source) or source.resolve() == path.resolve().parent or any(map(path.samefile, files))


def writing_volume(
    path: Path, like: Volume, *, color: bool, bit_depth: int = 8, overwrite: bool = False, origin: Origin
) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Write a volume on the grid of ``like``: NIfTI if the name ends so, else DICOM; see there."""
    if _is_called_nifti(path):
        return writing_nifti(path, like, color=color, bit_depth=bit_depth, overwrite=overwrite)
    return writing_dicom(path, like, color=color, bit_depth=bit_depth, overwrite=overwrite, origin=origin)


def write_volume(
    path: str | Path, data: np.ndarray, like: Volume, *, bit_depth: int = 8, overwrite: bool = False
) -> None:
    """Write slices ``data`` (K, J, I) or (K, J, I, 3), float in [0, 1], on the grid of ``like``. Raises DDFMError."""
    import numpy as np

    path, data = Path(path), np.asarray(data)
    wanted = like.geometry.shape[::-1]
    if data.shape[:3] != wanted or data.shape[3:] not in ((), (3,)):
        raise problem("data", f"shape {data.shape}", f"{wanted}, or with 3 channels after it")
    color = data.ndim == 4
    check_output(path, [like], color=color, bit_depth=bit_depth, keep_patient=False)
    with writing_volume(
        path, like, color=color, bit_depth=bit_depth, overwrite=overwrite, origin=Origin([like])
    ) as write:
        for plane in data:
            write(plane)
