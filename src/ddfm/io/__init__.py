"""Images in and out: PNG, JPEG, TIFF, BMP and WebP, with 8 or 16 bits.

Inside the package an image is float32 in [0, 1]: (H, W) grey or (H, W, 3) RGB. Integer files are
divided by 2**bits - 1 and written back by rounding, so that 8 and 16 bits survive a round trip
exactly (PNG and TIFF; 8 bits also in BMP and WebP, which is written lossless; JPEG is lossy).

What a file is, its content says and not its suffix. What is not the plain case (a palette, a
rotation, equal channels) is undone and told in ``Image.notes``; what would lose data in silence
(several frames, missing bytes, values out of range) is refused with a remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ddfm._checks import problem
from ddfm.io import raster
from ddfm.io.files import check_target, file_sha256, os_errors, write_bytes, write_together, writing, writing_folder
from ddfm.io.raster import MAX_PIXELS

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PILImage

    from ddfm.io.ranges import Range, Relation

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Image",
    "Samples",
    "encode_image",
    "file_sha256",
    "from_array",
    "from_pil",
    "image_size",
    "list_images",
    "read_image",
    "read_samples",
    "write_bytes",
    "write_image",
    "write_together",
    "writing",
    "writing_folder",
]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_FORMATS |= {".bmp": "BMP", ".webp": "WEBP"}
SUFFIXES = tuple(_FORMATS)  # read and written, in lower case


@dataclass(frozen=True, eq=False)
class Image:
    """One picture: ``data`` float32 in [0, 1], (H, W) grey or (H, W, 3) RGB, upright.

    ``bit_depth`` is 8 or 16 (of the file; floats count as 16), ``alpha`` (H, W) float32 in [0, 1] or
    None where all is opaque, ``path`` None if it is from memory, ``format`` such as "PNG", and ``notes``
    tell what was undone on the way in ("palette expanded"). ``relation`` leads back from levels to the
    source's own values where a range was put to them, see :mod:`ddfm.io.ranges`.
    """

    data: np.ndarray
    bit_depth: int
    alpha: np.ndarray | None
    path: Path | None
    format: str
    notes: tuple[str, ...] = ()
    relation: Relation | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.data.shape[0], self.data.shape[1]

    @property
    def is_color(self) -> bool:
        """True for RGB, False for grey."""
        return self.data.ndim == 3


# --- reading ----------------------------------------------------------------------------------------


def read_image(path: str | Path, span: Range | None = None) -> Image:
    """Read an image file of one frame; its content decides the format.

    ``span``: which values are black and white, for radiometric sources; None: all that the type can hold.
    Raises DDFMError, naming the file and a remedy, if it is missing, empty, cut short, damaged,
    animated, of several pages, larger than MAX_PIXELS, or of a kind that is not read here.
    """
    path = Path(path)
    name = str(path)
    raw, kind = _load(path)
    # A GIF's decoder refuses it with a better reason than the suffix.
    suffix_kind = kind if kind == "GIF" else _format_of(path.suffix, name)
    pixels = raster.decode(raw, kind, name, counts=_is_asked(span))
    notes = () if kind == suffix_kind else (f"suffix {path.suffix}, but the content is {kind}",)
    return _finish(pixels, path, kind, notes, span, name)


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file by its head, before any pixel is decoded. Raises DDFMError."""
    raw, kind = _load(Path(path))
    return raster.size_of(raw, kind, str(path))


class Samples(NamedTuple):
    """A picture as it is stored, upright, (H, W) or (H, W, 3); scale: what means 1, None where nothing says so."""

    array: np.ndarray
    scale: int | None
    bit_depth: int


def read_samples(path: str | Path, span: Range | None = None) -> Samples:
    """The samples that :func:`read_image` would put the range ``span`` to. Raises DDFMError as it does."""
    raw, kind = _load(Path(path))
    pixels = raster.decode(raw, kind, str(path), counts=_is_asked(span))
    array, _, _ = _plain(pixels)
    return Samples(array, pixels.scale or None, pixels.bit_depth)


def from_array(array: np.ndarray, name: str = "array", span: Range | None = None) -> Image:
    """Make an Image of a NumPy array (H, W) or (H, W, C): 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.

    uint8 and uint16 span their type; floats are in [0, 1] and count as 16 bits. ``name`` stands
    in the messages. ``span`` as in :func:`read_image`; with it integers and floats of any type and value will do.
    Raises DDFMError on other types and shapes, NaN, and floats outside [0, 1].
    """
    import numpy as np

    array = np.asarray(array)
    _check_shape(name, array)
    scale = {"uint8": 255, "uint16": 65535}.get(array.dtype.name, 1)
    if scale == 1 and _is_asked(span) and array.dtype.kind in "iuf":
        scale = 0
    elif scale == 1:
        raster.check_unit(name, array, raster.RANGE_REMEDY if array.dtype.kind in "iuf" else "")
    return _finish(raster.Pixels(array, scale, 8 if scale == 255 else 16), None, "array", (), span, name)


def from_pil(image: PILImage.Image, name: str = "image", span: Range | None = None) -> Image:
    """Make an Image of a Pillow image: any mode, its EXIF orientation applied.

    Note that Pillow itself opens 16-bit colour PNG with 8 bits; :func:`read_image` does not. ``span`` as there;
    modes I and F are read as the array that they hold.
    Raises DDFMError if the pixels cannot be loaded or do not fit 16 bits.
    """
    if _is_asked(span) and image.mode in ("I", "F"):
        import numpy as np

        return from_array(np.asarray(image), name, span)
    return _finish(raster.decode_pil(image, name), None, image.format or "PIL", (), span, name)


def list_images(folder: str | Path) -> list[Path]:
    """Return the files with a known suffix directly in ``folder``, sorted by name, none hidden.

    Raises DDFMError if ``folder`` is not a folder that can be read.
    """
    folder = Path(folder)
    with os_errors(folder):
        if not folder.is_dir():
            got = "a file" if folder.exists() else "no such folder"
            raise problem(str(folder), got, "a folder of images", "Check the path.")
        files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()]
    return sorted(p for p in files if not p.name.startswith("."))


def _format_of(suffix: str, name: str) -> str:
    if suffix.lower() not in _FORMATS:
        got = f"suffix {suffix!r}" if suffix else "no suffix"
        raise problem(name, got, f"one of {', '.join(SUFFIXES)}", "Convert or rename the file.")
    return _FORMATS[suffix.lower()]


def _load(path: Path) -> tuple[bytes, str]:
    """Return the bytes of a file and what its first ones say it is."""
    with os_errors(path), path.open("rb") as file:
        kind = raster.sniff(file.read(16), str(path))  # before the rest: it might be a film
        file.seek(0)
        return file.read(), kind


def _is_asked(span: Range | None) -> bool:
    """Whether the user named a range, so that values of any kind can be read."""
    return span is not None and span.kind != "usual"


def _finish(
    pixels: raster.Pixels,
    path: Path | None,
    kind: str,
    notes: tuple[str, ...] = (),
    span: Range | None = None,
    name: str = "",
) -> Image:
    """Turn samples into an Image: upright, alpha apart, equal channels made grey, floats in [0, 1]."""
    import numpy as np

    array, alpha, undone = _plain(pixels)
    data, relation, more = _levels(array, pixels, span, name)
    if alpha is not None:
        alpha = _unit(alpha, pixels.scale or (np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1))
    return Image(data, pixels.bit_depth, alpha, path, kind, notes + undone + more, relation)


def _plain(pixels: raster.Pixels) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Samples upright, grey (H, W) where the channels are equal, else (H, W, 3); the alpha apart; what was undone."""
    array, notes = pixels.array, pixels.notes
    if 2 <= pixels.orientation <= 8:
        array = _upright(array, pixels.orientation)
        notes += (f"EXIF orientation {pixels.orientation} applied",)
    array = array[..., None] if array.ndim == 2 else array
    alpha = None
    if array.shape[2] in (2, 4):
        array, alpha = array[..., :-1], array[..., -1]
        if (alpha == pixels.scale).all():
            alpha = None
            notes += ("opaque alpha dropped",)
    if array.shape[2] == 3 and (array == array[..., :1]).all():
        array = array[..., :1]
        notes += ("equal channels: read as grey",)
    return array[..., 0] if array.shape[2] == 1 else array, alpha, notes


def _levels(
    array: np.ndarray, pixels: raster.Pixels, span: Range | None, name: str
) -> tuple[np.ndarray, Relation | None, tuple[str, ...]]:
    """Samples as floats in [0, 1]; where a range was put to them the relation back, and a note if nobody asked."""
    from ddfm.io.ranges import is_narrow, is_picture, to_levels

    shallow = span is None or (span.deep_only and (pixels.bit_depth == 8 or is_picture(array)))
    if span is None or shallow or (span.kind == "usual" and not is_narrow([array], pixels.scale)):
        data = _unit(pixels.scale - array if pixels.inverted else array, pixels.scale or 1)
        notes = () if shallow or array.ndim == 3 else _sliver_note(data, "their type's range")
        return data, None, notes
    levels, relation = to_levels(array, span, pixels.scale or None, name)
    notes = _range_notes(levels, relation, span)
    if pixels.inverted:
        return 1 - levels, relation.inverted, notes
    return levels, relation, notes


def _range_notes(levels: np.ndarray, relation: Relation, span: Range) -> tuple[str, ...]:
    """What should be known of a range that was put to a picture."""
    low, high = relation.values((0, 1))
    if span.kind == "usual":
        note = f"counts {low:.0f} to {high:.0f} of 16 bits shown as black to white, as --range auto does"
        note += f"; for a series say --range {low:.0f}:{high:.0f}, to leave it --range full"
        return (note, *_sliver_note(levels, f"{low:.0f} to {high:.0f}"))
    lost = relation.below + relation.above
    text = f"{lost:.0%} of the values lie outside --range {span} and are clipped"
    few = () if span.kind == "full" or lost > 0.2 else _sliver_note(levels, f"{low:g} to {high:g}")
    return (text,) * (lost > 0.2 and not span.lenient) + few


def _sliver_note(levels: np.ndarray, of: str) -> tuple[str, ...]:
    from ddfm.io.ranges import SLIVER, sliver

    share = sliver(levels)
    text = f"most values keep to {share:.1%} of {of}, and differ little in the picture; name theirs with --range"
    return (f"{text} LOW:HIGH",) * (share < SLIVER)


def _unit(array: np.ndarray, scale: int) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(np.true_divide(array, scale, dtype=np.float32))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF orientation 2 to 8 (EXIF 2.32, table 6: which side holds row 0 and column 0)."""
    if orientation >= 5:  # rows and columns exchanged
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


# --- writing ----------------------------------------------------------------------------------------


def write_image(
    path: str | Path,
    data: np.ndarray,
    *,
    bit_depth: int = 8,
    alpha: np.ndarray | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``data`` (H, W) or (H, W, 3), float in [0, 1], in the format of the suffix of ``path``.

    See :func:`encode_image` for what fits where and :func:`write_bytes` for how. Raises DDFMError.
    """
    path = Path(path)
    check_target(path, overwrite)  # before the work of encoding
    write_bytes(path, encode_image(data, path.suffix, bit_depth=bit_depth, alpha=alpha), overwrite=overwrite)


def encode_image(data: np.ndarray, suffix: str, *, bit_depth: int = 8, alpha: np.ndarray | None = None) -> bytes:
    """Return the file content for ``data`` (H, W) or (H, W, 3), float in [0, 1], as ``suffix`` asks.

    ``alpha`` (H, W) in [0, 1] goes into PNG, TIFF and WebP; 16 bits into PNG and TIFF. JPEG is
    written at quality 95 with full chroma. Raises DDFMError on what the format cannot hold.
    """
    import numpy as np

    kind = _format_of(suffix, "suffix")
    if bit_depth not in (8, 16):
        raise problem("bit_depth", bit_depth, "8 or 16")
    if bit_depth == 16 and kind not in ("PNG", "TIFF"):
        raise problem("bit_depth", f"16 for {kind}", "8", "Write .png or .tif to keep 16 bits.")
    if alpha is not None and kind in ("JPEG", "BMP"):
        raise problem("alpha", f"one for {kind}", "None", "Write .png, .tif or .webp to keep it.")
    data = np.asarray(data)
    _check_shape("data", data, channels=(1, 3))
    array = quantise(data.reshape(*data.shape[:2], -1), "data", bit_depth)
    if alpha is not None:
        if np.shape(alpha) != data.shape[:2]:
            raise problem("alpha", f"shape {np.shape(alpha)}", f"{data.shape[:2]}, the size of the data")
        array = np.dstack([array, quantise(np.asarray(alpha), "alpha", bit_depth)])
    return raster.encode(array[..., 0] if array.shape[2] == 1 else array, kind)


def quantise(values: np.ndarray, name: str, bit_depth: int) -> np.ndarray:
    import numpy as np

    raster.check_unit(name, values)
    out = np.empty(values.shape, f"uint{bit_depth}")
    for top in range(0, len(values), 256):  # some rows at a time: no second picture of floats
        part = values[top : top + 256]
        wide = part.astype(np.float32) if part.dtype == np.float16 else part  # float16 ends at 65504
        out[top : top + 256] = np.rint(wide * (2**bit_depth - 1))
    return out


def _check_shape(name: str, array: np.ndarray, channels: tuple[int, ...] = (1, 2, 3, 4)) -> None:
    shape = array.shape
    if array.size and (array.ndim == 2 or (array.ndim == 3 and shape[2] in channels)):
        return
    expected = f"(H, W) or (H, W, C) with C in {channels}, not empty"
    first = array.ndim == 3 and shape[0] in channels
    raise problem(name, f"shape {shape}", expected, "Channels first? Use x.transpose(1, 2, 0)." * first)
