"""Fused slices as DICOM: a series of Secondary Capture images that says what it is.

SOP class Secondary Capture Image Storage (PS3.3, A.8.1), ImageType DERIVED\\SECONDARY, new UIDs. Position, orientation
and frame of reference are added as PS3.3, A.8.1.3, foresees, so that viewers show the slices in place. Grey levels are
levels and no measurement: no rescale slope, no units. Nothing is copied from a source but what ``_patient`` names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfm._provenance import versions
from ddfm.io import quantise
from ddfm.io.dicom import DicomVolume, is_dicom, pydicom_or_error, read_head
from ddfm.io.files import os_errors, writing, writing_folder
from ddfm.io.tags import bad_tag, is_uid, numbers, quiet, reading, term, uid
from ddfm.io.volume import FUSED_LABEL, Geometry, Volume, differences

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Origin", "writing_dicom"]

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: Marks, with the label and the derivation, the files that ``overwrite`` may replace.
_MAKER = "ddfm"
#: Copied from the last source when the patient is to be kept; the character set is what their text is written in.
_PATIENT: tuple[str, ...] = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
)
_PATIENT += ("PatientSex",)
_PATIENT += ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber")
_PATIENT += ("ReferringPhysicianName",)


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """Where fused slices come from. sources: the volumes read, before any resampling, the last one giving the grid.

    text: what was done, for DerivationDescription. label: SeriesDescription. keep_patient: copy identity and study of
    the last source, and name the source images. tags: put over those of each slice.
    """

    sources: Sequence[Volume]
    text: str = ""
    label: str = FUSED_LABEL
    keep_patient: bool = False
    tags: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def writing_dicom(
    path: Path, like: Volume, *, color: bool, bit_depth: int = 8, overwrite: bool = False, origin: Origin
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a series into a new folder, or one slice into a .dcm file: the function yielded takes the slices in order.

    Slices are float in [0, 1] on the grid of ``like``: (J, I), or (J, I, 3) with ``color``. Folder or file appear when
    all is written. Raises DDFMError.
    """
    common = _common(like, origin)
    single = path.suffix.lower() == ".dcm"

    def encode(plane: np.ndarray, k: int) -> Any:
        return _slice(common, like, origin, quantise(plane, "slice", bit_depth), k)

    if single:
        with writing(path, overwrite=overwrite) as file:
            yield _writer(encode, lambda k: file, path)
        return

    def ours(entry: Path) -> bool:
        return overwrite and entry.is_file() and is_dicom(entry) and _is_ours(entry, origin.label)

    with writing_folder(path, ours) as part:
        yield _writer(encode, lambda k: part / f"{k + 1:04d}.dcm", path)


def _writer(encode: Callable[[np.ndarray, int], Any], target: Callable[[int], Any], path: Path) -> Any:
    written = 0

    def write(plane: np.ndarray) -> None:
        nonlocal written
        with os_errors(path), quiet():
            dataset = encode(plane, written)
            dataset.save_as(target(written), enforce_file_format=True)
        written += 1

    return write


def _is_ours(path: Path, label: str) -> bool:
    """Whether ddfm wrote a file under that label: others write Secondary Captures too, and theirs stay."""
    head = read_head(path)
    with reading(path):
        marks = {"SOPClassUID": _SECONDARY_CAPTURE, "ConversionType": "WSD", "SeriesDescription": label}
        marks |= dict.fromkeys(("Manufacturer", "SecondaryCaptureDeviceManufacturer"), _MAKER)
        alike = all(str(head.get(tag, "")) == value for tag, value in marks.items())
        return alike and str(head.get("DerivationDescription", "")).endswith(FUSED_LABEL)


def _common(like: Volume, origin: Origin) -> Any:
    """What all slices say."""
    pydicom = pydicom_or_error()
    now, new_uid = datetime.datetime.now(), pydicom.uid.generate_uid
    ds = pydicom.Dataset()
    ds.SOPClassUID = _SECONDARY_CAPTURE
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.Modality, ds.ConversionType = "OT", "WSD"
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.SeriesDescription = new_uid(None), 9000, origin.label
    ds.SeriesDate = ds.ContentDate = ds.InstanceCreationDate = now.strftime("%Y%m%d")
    ds.SeriesTime = ds.ContentTime = ds.InstanceCreationTime = now.strftime("%H%M%S")
    ds.Manufacturer = ds.SecondaryCaptureDeviceManufacturer = _MAKER
    ds.SecondaryCaptureDeviceSoftwareVersions = versions()["ddfm"]
    ds.DerivationDescription = f"{origin.text}; {FUSED_LABEL}" if origin.text else FUSED_LABEL
    burned = any(source.burned_in for source in origin.sources)
    ds.BurnedInAnnotation = "YES" if burned else "NO"
    if any(source.lossy for source in origin.sources):
        ds.LossyImageCompression = "01"  # once lossy, always lossy: PS3.3, C.7.6.1.1.5
    _patient(ds, like, origin, new_uid(None), burned)
    if isinstance(like, DicomVolume) and like.geometry.known:
        ds.FrameOfReferenceUID = uid(like.head, "FrameOfReferenceUID") or new_uid(None)
        ds.PositionReferenceIndicator = None
    return ds


def _patient(ds: Any, like: Volume, origin: Origin, study: str, burned: bool) -> None:
    """A placeholder and a study of its own, or the identity and the study of the last source."""
    if origin.keep_patient and isinstance(like, DicomVolume):
        for tag in _PATIENT:
            if tag in like.head:
                try:
                    with quiet():
                        ds[tag] = like.head[tag]
                except Exception:  # a damaged value may raise anything
                    raise bad_tag(like.frames[0].path, tag, "a value that can be copied") from None
    if not is_uid(term(ds, "StudyInstanceUID")):
        ds.StudyInstanceUID = study
    if not origin.keep_patient:
        ds.PatientID = f"ANON-{study[-12:]}"  # one that no other patient of an archive has
        ds.PatientName = "ANONYMOUS^FUSED"
        ds.PatientIdentityRemoved = "NO" if burned else "YES"
        if not burned:
            ds.DeidentificationMethod = "New object, patient and study not copied, position UID kept"
    for tag in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        if tag not in ds:
            setattr(ds, tag, None)  # may be empty, must be there
    for tag in ("AccessionNumber", "ReferringPhysicianName"):
        if tag not in ds:
            setattr(ds, tag, None)


def _slice(common: Any, like: Volume, origin: Origin, pixels: np.ndarray, k: int) -> Any:
    """One image; ``pixels``: unsigned, (J, I) or (J, I, 3)."""
    import copy

    pydicom = pydicom_or_error()
    ds = copy.deepcopy(common)
    ds.SOPInstanceUID, ds.InstanceNumber = pydicom.uid.generate_uid(None), k + 1
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    _place(ds, like, k)
    if origin.keep_patient:
        ds.SourceImageSequence = list(_references(origin, like, k))
    ds.Rows, ds.Columns = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = bits - 1, 0, 3 if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    else:
        ds.WindowCenter, ds.WindowWidth = 2 ** (bits - 1), 2**bits  # all levels, black to white
    content = pixels.astype(f"<u{bits // 8}").tobytes()
    for tag, value in origin.tags.items():
        setattr(ds, tag, value)
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", content + bytes(len(content) % 2))
    return ds


def _place(ds: Any, like: Volume, k: int) -> None:
    from pydicom.valuerep import DS

    def text(values: Sequence[float]) -> list[Any]:
        return [DS(float(value), auto_format=True) for value in values]  # at most 16 characters

    frame = like.frames[k] if isinstance(like, DicomVolume) else None
    if not like.geometry.known:
        if frame and frame.spacing:
            ds.PixelSpacing = text(frame.spacing)
        return
    across, down, step = like.geometry.spacing
    ds.PixelSpacing = text(frame.spacing if frame else (down, across))
    ds.ImageOrientationPatient = text(frame.orientation if frame else _orientation(like.geometry))
    ds.ImagePositionPatient = text(frame.position if frame else _position(like.geometry, k))
    if like.geometry.shape[2] > 1:
        ds.SpacingBetweenSlices = text([step])[0]
    own = numbers(like.frames[k].path, [like.head], "SliceThickness", 1) if isinstance(like, DicomVolume) else ()
    ds.SliceThickness = text([own[0] if any(own) else step])[0]


def _orientation(geometry: Geometry) -> list[float]:
    return [float(v) for axis in geometry.directions.T[:2] for v in (-axis[0], -axis[1], axis[2])]


def _position(geometry: Geometry, k: int) -> list[float]:
    x, y, z = geometry.affine[:3, 3] + k * geometry.affine[:3, 2]
    return [-float(x), -float(y), float(z)]


def _references(origin: Origin, like: Volume, k: int) -> Iterator[Any]:
    """The images that this slice was made of, of those sources that were not resampled."""
    pydicom = pydicom_or_error()
    for source in origin.sources:
        if isinstance(source, DicomVolume) and not differences(source.geometry, like.geometry):
            if not all(source.frames[k].uid):
                continue
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.frames[k].uid
            nth = source.frames[k].nth
            if nth is not None:
                item.ReferencedFrameNumber = nth + 1
            yield item
