"""DICOM series, files of one slice and multi-frame files: their slices in order along the normal, read one by one.

Values are those after the modality's rescaling (Hounsfield units for CT, Bq/ml for PET). What a header says of the
patient is never put into a message, a note or a report; messages name a tag that cannot be read, not what it holds.
Standard: DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups), C.11.1 and C.11.2 (rescale and window).
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddfm._checks import problem
from ddfm.io.files import file_sha256, os_errors
from ddfm.io.stacking import Frame, stack
from ddfm.io.tags import (
    bad_tag,
    check_pixels,
    damaged,
    is_uid,
    modality,
    numbers,
    photometric,
    quiet,
    reading,
    term,
    uid,
)
from ddfm.io.volume import Volume

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DicomVolume", "is_dicom", "open_dicom", "pydicom_or_error", "quiet", "read_head", "reading"]

_GREY = ("MONOCHROME1", "MONOCHROME2")
#: Sequences of a multi-frame file in which a frame's own tags lie (PS3.3, C.7.6.16.2).
_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
)


def is_dicom(path: Path) -> bool:
    """Whether a file's content is DICOM's (PS3.10, 7.1: "DICM" after 128 bytes)."""
    with os_errors(path), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


class DicomVolume(Volume):
    """A series, or one file. ``frames``: its slices in order; ``head``: the first one's header without the pixels."""

    kind = "DICOM"

    def __init__(self, name: str, frames: Sequence[Frame], head: Any, notes: tuple[str, ...]) -> None:
        self.name, self.head = name, head
        self.frames, self.geometry = stack(frames, name)
        kind = photometric(self.frames[0].path, head)
        self.is_color = kind not in _GREY
        self.inverted = kind == "MONOCHROME1"
        self.burned_in = term(head, "BurnedInAnnotation") == "YES"
        self.lossy = term(head, "LossyImageCompression") == "01"
        self.window, told = _one_window([frame.window for frame in self.frames])
        self.notes = notes + told + _not_linear(head)

    def slice(self, k: int) -> np.ndarray:
        """See ``Volume.slice``."""
        frame = self.frames[k]
        head = pydicom_or_error().Dataset()
        with reading(frame.path):
            samples = _samples(frame, head)
            return _rgb(samples, head) if self.is_color else _values(samples, head, frame)

    def sha256(self) -> str:
        """Of the checksums of its files, in order."""
        paths = dict.fromkeys(frame.path for frame in self.frames)
        return hashlib.sha256("".join(map(file_sha256, paths)).encode()).hexdigest()


def open_dicom(path: Path, series: str | None = None) -> DicomVolume:
    """The series in a folder, or the slices in one file. ``series``: the SeriesInstanceUID of the one to take.

    Raises DDFMError, naming a remedy, for several series in a folder, slices that are missing, doubled or do not fit
    together, tags that cannot be read, and what holds no picture.
    """
    pydicom_or_error()
    found, passed = _headers(path)
    chosen = _choose(found, series, path)
    notes = [f"{passed} files of the folder are no pictures and were passed over"] * bool(passed)
    first = chosen[0]
    for other in chosen[1:]:
        if (other.size, other.photometric) != (first.size, first.photometric):
            got = f"slices of {_size(first)} and of {_size(other)} in one series"
            raise problem(str(path), got, "slices of one size and kind", "Move what does not belong elsewhere.")
    frames = [frame for header in chosen for frame in header.frames]
    return DicomVolume(str(path), frames, read_head(frames[0].path), tuple(notes))


class _Header(NamedTuple):
    """What is kept of one file. series: as stated, UID or not."""

    series: str
    modality: str
    size: tuple[int, int]
    photometric: str
    frames: list[Frame]


def _size(header: _Header) -> str:
    return f"{header.size[1]}x{header.size[0]} {header.photometric}"


def _headers(path: Path) -> tuple[list[_Header], int]:
    """Of all pictures in a folder, or of the one file; and how many other files there are."""
    if path.is_dir():
        with os_errors(path):
            files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        files = [path]
    headers = [_header(p) for p in files if is_dicom(p)]
    kept = [header for header in headers if header]
    if not kept:
        got = "DICOM without pixels" if headers else "no DICOM (no DICM after 128 bytes)"
        raise problem(str(path), got, "pictures of a DICOM series", "Name a folder or a file of images.")
    return kept, len(files) - len(kept)


def _header(path: Path) -> _Header | None:
    head = read_head(path)
    with reading(path):
        if "Rows" not in head and "Columns" not in head:
            if "Image" in _sop_class(head):
                raise damaged(path, "no Rows")
            return None
        rows, columns = (int(numbers(path, [head], tag, 1, needed=True)[0]) for tag in ("Rows", "Columns"))
        check_pixels(path, head)
        kind = photometric(path, head)
        return _Header(term(head, "SeriesInstanceUID"), modality(head), (rows, columns), kind, _frames(path, head))


def _sop_class(head: Any) -> str:
    """What kind of object a file says that it is, in words; "Image" where it does not even say that."""
    from pydicom.uid import UID

    found = term(head.file_meta, "MediaStorageSOPClassUID") or term(head, "SOPClassUID")
    return UID(found).name if found else "Image"


def read_head(path: Path) -> Any:
    """A file's header, without the pixels."""
    with reading(path):
        return pydicom_or_error().dcmread(path, stop_before_pixels=True)


def _shown(name: str) -> str:
    return name if is_uid(name) else "not a UID"


def _choose(found: list[_Header], series: str | None, path: Path) -> list[_Header]:
    groups: dict[str, list[_Header]] = {}
    for header in found:
        groups.setdefault(header.series, []).append(header)
    listed = "; ".join(
        f"{_shown(name)} ({group[0].modality}, {sum(len(h.frames) for h in group)} slices of {_size(group[0])})"
        for name, group in sorted(groups.items())
    )
    if series is not None and series not in groups:
        raise problem("--series", f"{series}, which is not in {path}", f"one of: {listed}")
    if series is None and len(groups) > 1:
        got = f"{len(groups)} series: {listed}"
        raise problem(str(path), got, "one series", "Choose one for each source: --series UID,UID.")
    return groups[series if series is not None else next(iter(groups))]


# --- one file ---------------------------------------------------------------------------------------


def _frames(path: Path, head: Any) -> list[Frame]:
    count = numbers(path, [head], "NumberOfFrames", 1)
    if not count or (count[0] == 1 and "PerFrameFunctionalGroupsSequence" not in head):
        return [_frame(path, head, [head], None)]
    return [_frame(path, head, _holders(head, n), n) for n in range(int(count[0]))]


def _holders(head: Any, n: int) -> list[Any]:
    """Where to look for a frame's tags, the nearest first."""
    groups = [*head.get("PerFrameFunctionalGroupsSequence", [])[n : n + 1]]
    groups += head.get("SharedFunctionalGroupsSequence", [])[:1]
    return [group[macro].value[0] for group in groups for macro in _MACROS if group.get(macro)] + [head]


def _frame(path: Path, head: Any, holders: list[Any], n: int | None) -> Frame:
    def get(tag: str, count: int | None) -> tuple[float, ...]:
        return numbers(path, holders, tag, count)

    # an older multi-frame file states one position for all frames: of use for none of them
    placed = n is None or "PerFrameFunctionalGroupsSequence" in head
    slope, intercept = get("RescaleSlope", 1), get("RescaleIntercept", 1)
    if slope and not slope[0]:
        raise bad_tag(path, "RescaleSlope", "a number other than 0")
    number = get("InstanceNumber", 1)
    apart, thick = get("SpacingBetweenSlices", 1), get("SliceThickness", 1)  # both, so that damage is found now
    thickness = apart or thick
    return Frame(
        path,
        n,
        (int(head.Rows), int(head.Columns)),
        get("ImagePositionPatient", 3) if placed else (),
        get("ImageOrientationPatient", 6) if placed else (),
        get("PixelSpacing", 2),
        abs(thickness[0]) if thickness and thickness[0] else 1.0,
        (slope[0] if slope else 1.0, intercept[0] if intercept else 0.0),
        _window(get("WindowCenter", None), get("WindowWidth", None), holders),
        int(number[0]) if number else None,
        (uid(head, "SOPClassUID"), uid(head, "SOPInstanceUID")),
    )


def _window(center: tuple[float, ...], width: tuple[float, ...], holders: Sequence[Any]) -> tuple[float, float] | None:
    """The values that are to be black and white: the ends of the first window (PS3.3, C.11.2.1.2 and .3)."""
    if not center or not width:
        return None
    exact = any(term(h, "VOILUTFunction") not in ("", "LINEAR") for h in holders)
    middle, reach = (center[0], width[0]) if exact else (center[0] - 0.5, width[0] - 1)
    return middle - reach / 2, middle + reach / 2  # the wrong way round where it is no window


def _one_window(windows: list[tuple[float, float] | None]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """One window for the whole volume, and what was done for it: slices with windows of their own would flicker."""
    given = [window for window in windows if window]
    if any(high <= low for low, high in given):
        return None, ("its WindowWidth is 0 or less, so the file's window is not used, an automatic one is",)
    if len(given) < len(windows):
        return None, ("only some slices state a window, so none of them is used",) * bool(given)
    if len(set(given)) == 1:
        return given[0], ()
    low, high = (statistics.median(ends) for ends in zip(*given, strict=True))
    told = "slices state different windows; all are shown with the median of their ends"
    return (low, high), (told,)


def _not_linear(head: Any) -> tuple[str, ...]:
    """What a file wants done to its values beside a linear window, and is not done."""
    stated = term(head, "FrameOfReferenceUID")
    notes = ("its FrameOfReferenceUID is not a UID and is not copied",) * bool(stated and not is_uid(stated))
    notes += ("a sigmoid window is taken as its linear ends",) * (term(head, "VOILUTFunction") == "SIGMOID")
    if "VOILUTSequence" in head and "WindowCenter" not in head:
        notes += ("its lookup table of grey levels (VOI LUT) is not used, an automatic window is",)
    return notes


# --- pixels -----------------------------------------------------------------------------------------


def _samples(frame: Frame, head: Any) -> np.ndarray:
    """Samples as stored, YBR made RGB; ``head`` is filled with the tags beside the pixels."""
    from pydicom.pixels import pixel_array

    try:
        if frame.nth is not None:  # by path, so that no more than one frame is read
            return pixel_array(frame.path, ds_out=head, index=frame.nth)
        whole = pydicom_or_error().dcmread(frame.path)
        samples = pixel_array(whole)
        head.update(whole)
        return samples
    except AttributeError:  # pydicom's word for a tag that is not there
        whole = pydicom_or_error().dcmread(frame.path, defer_size=1024)
        if not any(tag in whole for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise bad_tag(frame.path, "PixelData", "pixels") from None
        for tag in ("BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
            if tag not in whole:
                raise bad_tag(frame.path, tag, "a value") from None
        raise
    except (RuntimeError, NotImplementedError) as error:
        meta = getattr(read_head(frame.path), "file_meta", None)
        syntax = getattr(meta, "TransferSyntaxUID", None)
        if syntax is None or not syntax.is_compressed:
            raise
        remedy = "Unpack them first with dcmtk or GDCM (gdcmconv --raw IN OUT), or: pip install 'pylibjpeg[all]'."
        got = f"pixels compressed as {syntax.name}, which cannot be decoded here"
        raise problem(str(frame.path), got, "another compression or none", remedy) from error


def _values(samples: np.ndarray, head: Any, frame: Frame) -> np.ndarray:
    """Float32 (H, W) after the modality's rescaling, NaN where the scanner has padded."""
    import numpy as np
    from pydicom.pixels import apply_modality_lut

    if samples.shape != frame.size:
        raise problem(str(frame.path), f"pixels of shape {samples.shape}", f"{frame.size}")
    if "ModalityLUTSequence" in head:
        values = np.asarray(apply_modality_lut(samples, head), np.float32)
    else:
        slope, intercept = frame.rescale
        values = (samples.astype(np.float64) * slope + intercept).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if padded := numbers(frame.path, [head], "PixelPaddingValue", 1):
        padding = padded[0]
        other = (numbers(frame.path, [head], "PixelPaddingRangeLimit", 1) or padded)[0]
        values[(samples >= min(padding, other)) & (samples <= max(padding, other))] = np.nan
    return values


def _rgb(samples: np.ndarray, head: Any) -> np.ndarray:
    """Float32 (H, W, 3) in [0, 1]."""
    import numpy as np
    from pydicom.pixels import apply_color_lut

    bits = int(head.get("BitsStored", 8))
    if head.PhotometricInterpretation == "PALETTE COLOR":
        samples = apply_color_lut(samples, head)
        bits = 8 * samples.dtype.itemsize
    return np.true_divide(samples[..., :3], 2**bits - 1, dtype=np.float64).astype(np.float32)


def pydicom_or_error() -> Any:
    """The module; a DDFMError with the extra to install where it is missing."""
    try:
        import pydicom
    except ImportError:
        raise problem("DICOM", "no pydicom", "pydicom", "Install it: pip install 'ddfm[medical]'.") from None
    return pydicom
