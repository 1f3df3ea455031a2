"""NIfTI-1 and -2 in one file, .nii or .nii.gz: read slice by slice, written as the slices come.

Grey volumes of any real type with their scale (scl_slope, scl_inter), and RGB24 or RGBA32. What a header may say of a
patient (descrip, db_name, aux_file, extensions, where converters leave whole DICOM headers) is neither read nor copied.
Specification: https://nifti.nimh.nih.gov (nifti1.h, nifti2.h).
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ddfm._checks import DDFMError, problem
from ddfm._provenance import versions
from ddfm.io import quantise
from ddfm.io.files import file_sha256, os_errors, writing
from ddfm.io.volume import FUSED_LABEL, ArrayVolume, Geometry, Volume

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NiftiVolume", "encode_nifti", "is_gzip", "nifti_head", "open_nifti", "writing_nifti"]

_UNITS = {"meter": 1000.0, "micron": 0.001}
#: Where the grid lies, field by field: kept to the bit.
_PLACE: tuple[str, ...] = ("dim_info", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d")
_PLACE += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")


def is_gzip(path: Path) -> bool:
    """Whether a file's content is gzip's."""
    with os_errors(path), path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def nifti_head(path: Path) -> str:
    """What the first bytes say: "single" for NIfTI in one file, "pair" for a .hdr of two, "" for anything else."""
    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
            head = file.read(352)
    except (OSError, EOFError, zlib.error):  # gzip of something else, or cut short
        return ""
    if head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0":
        return "single"
    return "pair" if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0" else ""


class NiftiVolume(Volume):
    """A NIfTI file: its samples stay on disk (.nii) or as stored in memory (.nii.gz)."""

    kind = "NIfTI"

    def __init__(
        self, path: Path, image: Any, samples: np.ndarray, geometry: Geometry, notes: tuple[str, ...] = ()
    ) -> None:
        self.name, self.geometry, self.header = str(path), geometry, image.header
        self.is_color = samples.dtype.names is not None
        self._samples, self._path = samples.reshape(geometry.shape, order="F"), path
        self._slope, self._inter = float(image.dataobj.slope), float(image.dataobj.inter)
        self.notes = notes
        if samples.dtype.names == ("R", "G", "B", "A"):
            self.notes += ("the alpha channel of an RGBA volume is not used",)

    def slice(self, k: int) -> np.ndarray:
        """See ``Volume.slice``."""
        import numpy as np

        plane = self._samples[:, :, k].T
        if self.is_color:
            return np.stack([plane[c] for c in "RGB"], axis=-1).astype(np.float32) / 255
        values = plane.astype(np.float64) * self._slope + self._inter
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        values[~np.isfinite(values)] = np.nan
        return np.ascontiguousarray(values)

    def sha256(self) -> str:
        """Of the file."""
        return file_sha256(self._path)


def open_nifti(path: Path) -> NiftiVolume:
    """A 3-D NIfTI file; axes of length 1 at the end are dropped, one slice (2-D) will do. Raises DDFMError."""
    nib = _nibabel()
    if nifti_head(path) == "pair":
        raise problem(str(path), "one half of a .hdr/.img pair", "NIfTI in one file", "Convert it to .nii.gz first.")
    with _reading(path), _told(nib) as told, _holder(nib, path) as holder:
        kind = nib.Nifti2Image if _is_second(path) else nib.Nifti1Image
        image = kind.from_file_map({"image": holder})
        shape = _three(path, image.shape)
        _check_type(path, image.get_data_dtype(), shape)
        geometry = _geometry(path, image, shape)
        samples = image.dataobj.get_unscaled()
        if isinstance(holder.fileobj, gzip.GzipFile):
            while holder.fileobj.read(1 << 20):  # to the end, where the checksum is
                pass
    return NiftiVolume(path, image, samples, geometry, tuple(told))


@contextlib.contextmanager
def _told(nib: Any) -> Iterator[list[str]]:
    """What nibabel mends in a header, such as "qform_code 27904 not valid; setting to 0", as notes and not as a log."""
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(f"header: {record.getMessage()}")  # type: ignore[method-assign]
    logger = nib.imageglobals.logger
    before, propagate, logger.propagate = logger.handlers[:], logger.propagate, False
    logger.handlers[:] = [handler]
    try:
        yield told
    finally:
        logger.handlers[:], logger.propagate = before, propagate


@contextlib.contextmanager
def _holder(nib: Any, path: Path) -> Iterator[Any]:
    """By name if it is plain, to be mapped, else opened here: nibabel goes by the suffix, which may be wrong."""
    packed = is_gzip(path)
    if not packed and path.suffix.lower() != ".gz":
        yield nib.FileHolder(filename=str(path))
        return
    with gzip.open(path) if packed else path.open("rb") as file:
        yield nib.FileHolder(fileobj=file)


def _is_second(path: Path) -> bool:
    with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
        return file.read(8)[4:7] == b"n+2"


def _three(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        text = "x".join(map(str, shape))
        remedy = f"Take one of its {math.prod(shape[3:])} volumes first, such as the first: fslroi IN OUT 0 1."
        raise problem(str(path), f"{len(shape)} axes, {text}", "a volume of 3 axes", remedy)
    shape += (1,) * (3 - len(shape))
    if min(shape) < 1:
        raise problem(str(path), f"shape {shape}", "at least one voxel along each axis")
    return shape[0], shape[1], shape[2]


def _check_type(path: Path, dtype: np.dtype, shape: tuple[int, int, int]) -> None:
    import psutil

    if dtype.kind not in "iuf" and dtype.names not in (("R", "G", "B"), ("R", "G", "B", "A")):
        raise problem(str(path), f"samples of type {dtype}", "real numbers or RGB")
    need, free = math.prod(shape) * dtype.itemsize, psutil.virtual_memory().available
    if is_gzip(path) and need > 0.8 * free:  # what is not packed stays on disk
        got, expected = f"{need / 1e9:.1f} GB unpacked", f"what fits the {free / 1e9:.1f} GB of free memory"
        raise problem(str(path), got, expected, "Unpack it first: gunzip -k FILE. A .nii file is read slice by slice.")


def _geometry(path: Path, image: Any, shape: tuple[int, int, int]) -> Geometry:
    import numpy as np

    header = image.header
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _UNITS.get(header.get_xyzt_units()[0], 1.0)
    with np.errstate(all="ignore"):
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise problem(
                str(path), "an orientation that cannot be used", "a regular affine", "Repair sform and qform."
            )
    return Geometry(shape, affine, bool(header["sform_code"] or header["qform_code"]))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What nibabel and the codecs say of a damaged file as a DDFMError; their texts are left out, they may quote it."""
    try:
        yield
    except (DDFMError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything
        got = f"a damaged or cut NIfTI file ({type(error).__name__})"
        raise problem(str(path), got, "a whole one", "Copy or convert it again.") from error


def encode_nifti(volume: ArrayVolume, *, packed: bool) -> bytes:
    """A volume in memory as the content of a .nii (or ``packed``, .nii.gz) file, in the type of its samples.

    RGB is written as RGB24. The same samples give the same bytes.
    """
    import numpy as np

    nib = _nibabel()
    samples = volume.samples
    if volume.is_color:
        levels = np.rint(samples * 255).astype(np.uint8)
        samples = levels.view(np.dtype([(c, "u1") for c in "RGB"]))[..., 0]
    image = nib.Nifti1Image(samples.transpose(2, 1, 0), volume.geometry.affine)
    image.header.set_xyzt_units("mm")
    content: bytes = image.to_bytes()
    return gzip.compress(content, 6, mtime=0) if packed else content


@contextlib.contextmanager
def writing_nifti(
    path: Path, like: Volume, *, color: bool, bit_depth: int = 8, overwrite: bool = False
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a volume on the grid of ``like``: the function yielded takes its slices in order, in [0, 1].

    Grey as uint8 or uint16, RGB as RGB24. The file appears when all is written. Raises DDFMError.
    """
    header = _header(like, color, bit_depth)
    with writing(path, overwrite=overwrite) as file:
        packed = path.suffix.lower() == ".gz"
        out: IO[bytes] = gzip.GzipFile("", "wb", 6, file, 0) if packed else file  # type: ignore[assignment]
        with os_errors(path):
            header.write_to(out)  # with the four bytes that say: no extensions

        def write(plane: np.ndarray) -> None:
            with os_errors(path):
                out.write(quantise(plane, "slice", bit_depth).astype(f"<u{bit_depth // 8}").tobytes())

        yield write
        if packed:
            with os_errors(path):
                out.close()


def _header(like: Volume, color: bool, bit_depth: int) -> Any:
    import numpy as np

    nib = _nibabel()
    second = isinstance(like, NiftiVolume) and isinstance(like.header, nib.Nifti2Header)
    header = (nib.Nifti2Header if second else nib.Nifti1Header)(endianness="<")
    header.set_data_shape(like.geometry.shape)
    header.set_data_dtype(np.dtype([(c, "u1") for c in "RGB"]) if color else np.dtype(f"u{bit_depth // 8}"))
    if isinstance(like, NiftiVolume):
        for field in _PLACE:
            header[field] = like.header[field]
        header["pixdim"][:4] = like.header["pixdim"][:4]
    elif like.geometry.known:
        header.set_sform(like.geometry.affine, 1)  # 1: the scanner's coordinates
        header.set_qform(like.geometry.affine, 1, strip_shears=True)
        header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    header["cal_max"] = 0 if color else 2**bit_depth - 1
    header["vox_offset"] = 544 if second else 352
    header["descrip"] = f"{FUSED_LABEL}; ddfm {versions()['ddfm']}".encode()
    return header


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise problem("NIfTI", "no nibabel", "nibabel", "Install it: pip install 'ddfm[medical]'.") from None
    return nibabel
