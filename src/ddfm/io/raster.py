"""The codecs: file content to samples and back, for PNG, JPEG, TIFF, BMP and WebP.

``decode`` turns bytes into :class:`Pixels` (samples as stored, with what a value of 1 is), ``encode``
turns 8- or 16-bit samples into bytes; both know nothing of paths. Pillow does 8 bits, imagecodecs
16-bit PNG (Pillow would silently cut its colour to 8 bits), tifffile TIFF; each is imported where it
is needed. Decoders that fill missing parts in silence are checked beforehand: PNG chunk by chunk
(PNG specification, section 5), TIFF tag by tag and strip by strip (TIFF 6.0, section 2).
"""

from __future__ import annotations

import io
import logging
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ddfm._checks import DDFMError, problem

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PILImage

__all__ = [
    "MAX_PIXELS",
    "Pixels",
    "check_unit",
    "decode",
    "decode_pil",
    "encode",
    "size_of",
    "sniff",
]

MAX_PIXELS = 178_956_970  # height x width; beyond it lies a mistake or a decompression bomb

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF8": "GIF"}
_SIGNATURES |= {b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF"}
#: To say what can be done about counts, kelvins and degrees.
RANGE_REMEDY = "Of a thermal camera? Then say what is black and white: --range auto, or LOW:HIGH."
_ORIENTATION = 0x0112  # the tag of EXIF and TIFF alike
_PILLOW = threading.Lock()
_SILENT = logging.NullHandler()
# Tags that decide what the pixels mean: a damaged one must not be taken for an absent one.
_TIFF_TAGS = frozenset({256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320})
_TIFF_TAGS |= {322, 323, 324, 325, 338, 339, 347, 530}


class Pixels(NamedTuple):
    """Samples as stored, (H, W) or (H, W, C); with C = 2 or 4 the last channel is alpha.

    ``scale`` is the sample that means 1.0 (255, 65535, 1 for floats; 0 where nothing says so, for values that
    a range is still to be put to), ``bit_depth`` 8 or 16, ``orientation`` the EXIF value 1 to 8, still to be
    applied, ``notes`` what is undone, ``inverted`` whether 0 means white, still to be undone.
    """

    array: np.ndarray
    scale: int
    bit_depth: int
    orientation: int = 1
    notes: tuple[str, ...] = ()
    inverted: bool = False


# --- checks -----------------------------------------------------------------------------------------


def check_unit(name: str, array: np.ndarray, hint: str = "") -> None:
    """Raise DDFMError unless ``array`` holds finite floats in [0, 1]; ``hint`` ends the remedy."""
    if array.dtype.kind != "f":
        remedy = "Scale it to floats in [0, 1], or give uint8 or uint16 samples to ddfm.io.from_array."
        raise problem(name, f"dtype {array.dtype}", "floats in [0, 1]", remedy)
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN and both infinities end up here
        raise problem(name, "NaN or infinite values", "floats in [0, 1]", "Repair or mask them first.")
    if low < 0 or high > 1:
        remedy = f"Scale to [0, 1] by the range that the values may take, or clip. {hint}".rstrip()
        raise problem(name, f"floats in [{low:.7g}, {high:.7g}]", "floats in [0, 1]", remedy)


def _check_size(name: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise problem(name, f"{height} x {width} pixels", "at least one pixel", "Export it again.")
    if height * width > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS} pixels in all"
        raise problem(name, f"{height} x {width} pixels", expected, "Crop or reduce it first.")


def _damaged(name: str, kind: str, error: Exception) -> DDFMError:
    got = f"{kind} content that cannot be decoded ({error or type(error).__name__})"
    return problem(name, got, "a complete file", "It is cut short or damaged: copy or export it again.")


def _several(name: str, count: int, what: str) -> DDFMError:
    return problem(name, f"{count} {what}", "a single image", f"Extract the {what} to files of their own.")


# --- samples to bytes -------------------------------------------------------------------------------


def encode(array: np.ndarray, kind: str) -> bytes:
    """Return the file content of uint8 or uint16 samples (H, W) or (H, W, C), C = 2 to 4.

    16 bits go into PNG and TIFF, alpha (C = 2 or 4) into PNG, TIFF and WebP; the caller sees to it.
    Raises DDFMError if the format cannot hold the size.
    """
    try:
        if kind == "TIFF":
            return _encode_tiff(array)
        if array.dtype.itemsize == 2:
            import imagecodecs
            import numpy as np

            return bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
        return _encode_pillow(array, kind)
    except (ValueError, OSError) as error:  # WebP ends at 16383 pixels a side, JPEG at 65500
        size = f"{array.shape[0]} x {array.shape[1]} pixels ({error})"
        raise problem("data", size, f"a size that {kind} can hold", "Write .png or .tif.") from error


def _encode_tiff(array: np.ndarray) -> bytes:
    import tifffile

    file = io.BytesIO()
    channels = 1 if array.ndim == 2 else array.shape[2]
    options: dict[str, Any] = {"photometric": "rgb" if channels >= 3 else "minisblack"}
    if channels in (2, 4):
        options |= {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(file, array, compression="zlib", metadata=None, **options)
    return file.getvalue()


def _encode_pillow(array: np.ndarray, kind: str) -> bytes:
    from PIL import Image as PILImage

    image = PILImage.fromarray(array)
    if kind == "WEBP" and image.mode == "LA":
        image = image.convert("RGBA")
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},  # exact: colour under transparency stays
    }
    file = io.BytesIO()
    image.save(file, kind, **options.get(kind, {}))
    return file.getvalue()


# --- bytes to samples -------------------------------------------------------------------------------


def sniff(head: bytes, name: str) -> str:
    """Return the format that the first 16 bytes of a file show; raise DDFMError if none."""
    if not head:
        raise problem(name, "an empty file", "an image", "Copy or export it again.")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for start, kind in _SIGNATURES.items():
        if head.startswith(start):
            return kind
    expected = "a PNG, JPEG, TIFF, BMP or WebP image"
    raise problem(name, f"content that begins with {head[:8]!r}", expected, "Convert it to PNG.")


def decode(raw: bytes, kind: str, name: str, *, counts: bool = False) -> Pixels:
    """Decode the content of a file of one frame, of the ``kind`` that :func:`sniff` found.

    ``counts``: let TIFF samples of any real type and value pass, which have no place in [0, 1] yet.
    Raises DDFMError, beginning with ``name``, if it is cut short, damaged, animated, of several
    pages, larger than MAX_PIXELS, or of a kind of samples that is not read here.
    """
    decoder = partial(_decode_tiff, counts=True) if counts and kind == "TIFF" else _DECODERS.get(kind)
    try:
        return decoder(raw, name) if decoder else _decode_pillow(kind, raw, name)
    except (DDFMError, MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise anything on damaged bytes: KeyError, struct.error, ...
        raise _damaged(name, kind, error) from error


def size_of(raw: bytes, kind: str, name: str) -> tuple[int, int]:
    """Height and width that the head of a file states; no pixel is decoded. Raises DDFMError."""
    try:
        return _size_of(raw, kind)
    except Exception as error:  # decoders raise anything on damaged bytes
        raise _damaged(name, kind, error) from error


def _size_of(raw: bytes, kind: str) -> tuple[int, int]:
    if kind == "PNG":
        width, height = struct.unpack_from(">II", raw, 16)
        return int(height), int(width)
    if kind == "TIFF":
        import tifffile

        logging.getLogger("tifffile").addHandler(_SILENT)
        with tifffile.TiffFile(io.BytesIO(raw)) as tif:
            page: Any = max(tif.pages, key=lambda page: page.imagelength * page.imagewidth)
            return int(page.imagelength), int(page.imagewidth)
    from PIL import Image as PILImage

    with _strict_pillow(), PILImage.open(io.BytesIO(raw), formats=[kind]) as image:
        return image.height, image.width


# --- reading: Pillow --------------------------------------------------------------------------------


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Hold Pillow's process-wide switches: no warning escapes, no missing part is filled with grey."""
    from PIL import ImageFile

    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of, MAX_PIXELS and the checks below decide
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _decode_pillow(kind: str, raw: bytes, name: str) -> Pixels:
    from PIL import Image as PILImage

    try:
        with _strict_pillow(), PILImage.open(io.BytesIO(raw), formats=[kind]) as image:
            _check_size(name, image.height, image.width)
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and kind != "JPEG":  # a JPEG's further pictures are previews (MPO)
                raise _several(name, frames, "frames")
            return _pil_pixels(image, name)
    except PILImage.DecompressionBombError as error:
        raise problem(name, error, f"at most {MAX_PIXELS} pixels", "Crop or reduce it first.") from error


def _decode_gif(raw: bytes, name: str) -> Pixels:
    from PIL import Image as PILImage

    with _strict_pillow(), PILImage.open(io.BytesIO(raw), formats=["GIF"]) as image:
        frames = getattr(image, "n_frames", 1)
    raise (
        _several(name, frames, "frames")
        if frames > 1
        else problem(name, "a GIF", "PNG, JPEG, TIFF, BMP or WebP", "Convert it to PNG.")
    )


def decode_pil(image: PILImage.Image, name: str) -> Pixels:
    """Return the samples of a Pillow image of any mode; raise DDFMError if they do not load or fit."""
    _check_size(name, image.height, image.width)
    try:
        with _strict_pillow():
            return _pil_pixels(image, name)
    except (OSError, SyntaxError) as error:
        raise _damaged(name, image.format or "Pillow", error) from error


def _pil_pixels(image: PILImage.Image, name: str) -> Pixels:
    import numpy as np

    image.load()  # before the EXIF: a truncated file must fail here, not in a swallowed exception
    turn = _exif_orientation(image)
    mode, alpha = image.mode, image.has_transparency_data
    if mode == "F":
        check_unit(name, np.asarray(image))
        return Pixels(np.asarray(image), 1, 16, turn)
    if mode.startswith("I"):  # "I;16" and its byte orders, and "I" (32 bits)
        return Pixels(_narrow(np.asarray(image), name), 65535, 16, turn)
    target = ("L" if mode in ("1", "L", "LA", "La") else "RGB") + ("A" if alpha else "")
    notes = {"1": "1-bit expanded", "P": "palette expanded", "PA": "palette expanded"}
    plain = mode in ("L", "LA", "RGB", "RGBA")
    note = () if plain else (notes.get(mode, f"{mode} converted to {target}"),)
    return Pixels(np.asarray(image.convert(target)), 255, 8, turn, note)


def _narrow(array: np.ndarray, name: str) -> np.ndarray:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        remedy = "Scale it to 16 bits."
        raise problem(name, f"integers in [{low}, {high}]", "values in [0, 65535]", remedy)
    return array.astype("uint16")


def _exif_orientation(image: PILImage.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF beside sound pixels: upright is all one can say
        return 1


# --- reading: PNG -----------------------------------------------------------------------------------


def _decode_png(raw: bytes, name: str) -> Pixels:
    chunks = _png_chunks(raw)
    width, height, depth = struct.unpack(">IIB", chunks[b"IHDR"][:9])
    _check_size(name, height, width)
    frames = struct.unpack(">I", chunks.get(b"acTL", b"\0\0\0\1")[:4])[0]
    if frames > 1:
        raise _several(name, frames, "frames")
    if depth < 16:
        return _decode_pillow("PNG", raw, name)
    import imagecodecs
    from PIL import Image as PILImage

    exif = PILImage.Exif()
    exif.load(bytes(chunks.get(b"eXIf", b"")))
    turn = int(exif.get(_ORIENTATION, 1))
    return Pixels(imagecodecs.png_decode(raw), 65535, 16, turn)


def _png_chunks(raw: bytes) -> dict[bytes, memoryview]:
    """Return the first chunk of each kind; raise if the file ends early or a checksum is wrong."""
    view, at = memoryview(raw), 8
    chunks: dict[bytes, memoryview] = {}
    while b"IEND" not in chunks:
        length, kind = struct.unpack_from(">I4s", raw, at)
        body, end = view[at + 8 : at + 8 + length], at + 12 + length
        if end > len(raw):
            raise EOFError(f"the file ends inside its {kind.decode('latin-1')} part")
        critical = kind[:1].isupper()  # PNG, section 5.4: the rest may be skipped
        if critical and zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", raw, end - 4)[0]:
            raise EOFError(f"the checksum of its {kind.decode('latin-1')} part is wrong")
        chunks.setdefault(kind, body)
        at = end
    return chunks


# --- reading: TIFF ----------------------------------------------------------------------------------


def _decode_tiff(raw: bytes, name: str, counts: bool = False) -> Pixels:
    import tifffile

    logging.getLogger("tifffile").addHandler(_SILENT)  # the checks below speak instead
    with tifffile.TiffFile(io.BytesIO(raw)) as tif:
        pages: list[Any] = list(tif.pages)
        pages = [page for page in pages if not page.is_reduced] or pages[:1]  # without thumbnails
        count = max(len(pages), int((tif.imagej_metadata or {}).get("images", 1)))
        if count > 1:
            raise _several(name, count, "pages")
        page = pages[0]
        _check_size(name, page.imagelength, page.imagewidth)
        _check_tiff_complete(tif, page, raw)
        return _tiff_pixels(page, name, counts)


def _check_tiff_complete(tif: Any, page: Any, raw: bytes) -> None:
    """Raise EOFError if a tag or a piece of the picture is missing; tifffile fills gaps with zeros."""
    form, order = tif.tiff, tif.byteorder
    (tags,) = struct.unpack_from(form.tagnoformat, raw, page.offset)
    first = page.offset + form.tagnosize
    codes = {struct.unpack_from(order + "H", raw, first + i * form.tagsize)[0] for i in range(tags)}
    lost = (codes & _TIFF_TAGS) - {tag.code for tag in page.tags}
    if lost:
        raise EOFError(f"the tags {sorted(lost)} cannot be read")
    (following,) = struct.unpack_from(form.offsetformat, raw, first + tags * form.tagsize)
    if following and len(tif.pages) == 1:
        raise EOFError("a further page is announced but missing")
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(pieces) < math.prod(page.chunked):
        raise EOFError(f"{len(pieces)} of {math.prod(page.chunked)} strips or tiles")
    if any(start <= 0 or size <= 0 or start + size > len(raw) for start, size in pieces):
        raise EOFError("a strip or tile lies outside the file")


def _tiff_pixels(page: Any, name: str, counts: bool) -> Pixels:
    import numpy as np

    ink, channels = int(page.photometric), page.samplesperpixel
    wanted = {0: 1, 1: 1, 2: 3, 3: 1}.get(ink, 3 if ink == 6 and page.compression == 7 else 0)
    if not 0 <= channels - wanted <= (0 if ink == 3 else 1) or wanted == 0:
        got = f"{channels} channels of {getattr(page.photometric, 'name', ink)}"
        raise problem(name, got, "grey, RGB or palette, with one alpha at most", "Export it as RGB.")
    array, scale, depth = _tiff_levels(page, name, counts)
    if array.ndim == 3 and page.axes.startswith("S"):  # one plane after the other
        array = np.moveaxis(array, 0, -1)
    notes: tuple[str, ...] = ()
    if ink == 0:
        notes = ("white is zero: inverted",)
    if ink == 3:  # as Pillow and libtiff: the upper byte of the 16-bit table
        array, scale, depth = (page.colormap >> 8).astype(np.uint8)[:, array].transpose(1, 2, 0), 255, 8
        notes = ("palette expanded",)
    if channels > wanted:
        array, scale, more = _tiff_extra(page, array, scale, name)
        notes += more
    turn = page.tags.get(_ORIENTATION)
    return Pixels(array, scale, depth, int(turn.value) if turn else 1, notes, ink == 0)


def _tiff_levels(page: Any, name: str, counts: bool) -> tuple[np.ndarray, int, int]:
    """Return the samples as stored, the sample value that means 1 (0: unknown), and 8 or 16."""
    array, bits = page.asarray(), page.bitspersample
    if array.dtype.kind == "f":
        if not counts:
            check_unit(name, array, RANGE_REMEDY)
        return array, 0 if counts else 1, 16
    if array.dtype.kind not in "bu" or not isinstance(bits, int) or bits > 16:
        if counts and array.dtype.kind in "iu":
            return array, 0, 16
        remedy = f"Convert it to 16 bits, or to floats in [0, 1]. {RANGE_REMEDY}"
        raise problem(name, f"{array.dtype} samples", "1 to 16 bits without sign, or floats", remedy)
    array = array.astype("uint8" if bits <= 8 else "uint16")
    return array, 2**bits - 1, 8 if bits <= 8 else 16


def _tiff_extra(page: Any, array: np.ndarray, scale: int, name: str) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Handle the one channel beyond the colour: 2 is alpha, 1 premultiplied alpha, else unknown."""
    import numpy as np

    kind = int(page.extrasamples[0]) if page.extrasamples else 0
    if kind == 2:
        return array, scale, ()
    if kind == 0:
        return array[..., :-1], scale, ("extra channel of unknown meaning dropped",)
    if scale == 0 and array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:  # NaN: no
        scale = 1
    if scale == 0:  # what an opaque pixel has is then unknown
        got = f"premultiplied transparency of {array.dtype} values, which have no full range"
        raise problem(name, got, "none, or one of its own", "Save it without transparency.")
    values = array.astype(np.float64)
    color, alpha = values[..., :-1], values[..., -1:]
    color = np.divide(color * scale, alpha, out=np.zeros_like(color), where=alpha > 0)
    return np.concatenate([np.clip(color, 0, scale), alpha], axis=2), scale, ("premultiplied alpha undone",)


_DECODERS: dict[str, Callable[[bytes, str], Pixels]] = {
    "PNG": _decode_png,
    "TIFF": _decode_tiff,
    "GIF": _decode_gif,
}
