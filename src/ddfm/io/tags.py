"""Tags of DICOM files, checked before they are used, shown or copied.

Nothing that a file states is put into a message unless it is what the tag is for: a UID, or a known term. A damaged
file may have a name anywhere. Standard: DICOM PS3.3, C.7.6.3 (pixels); PS3.5, 9.1 (UIDs).
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ddfm._checks import DDFMError, problem
from ddfm.io.files import os_errors

__all__ = ["bad_tag", "check_pixels", "damaged", "is_uid", "modality", "numbers", "photometric"]
__all__ += ["quiet", "reading", "term", "uid"]

#: No measure in any unit is larger; float32, in which values are given, ends a little above.
LARGEST = 1e30
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_PHOTOMETRIC = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "ARGB", "HSV", "CMYK", "XYB", "YBR_FULL"}
_PHOTOMETRIC |= {"YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT"}
_MODALITIES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "OT", "SC", "ES", "GM", "SM", "XC", "OP"}
_MODALITIES |= {"OPT", "OCT", "IVUS", "IO", "PX", "RG", "RTIMAGE", "RTDOSE", "SEG"}
#: What the pixels' own tags may be (PS3.3, C.7.6.3.1), and whether they must be there.
_PIXEL_TAGS = {
    "BitsAllocated": ((1, 8, 16, 32, 64), True),
    "SamplesPerPixel": ((1, 3, 4), True),
    "PixelRepresentation": ((0, 1), False),  # absent where samples are floats
}


def is_uid(value: Any) -> bool:
    """Whether a value has the form of a UID: numbers with dots between them, 64 characters at most."""
    text = str(value)
    return len(text) <= 64 and bool(_UID.fullmatch(text))


def uid(head: Any, tag: str) -> str:
    """The UID that a tag states, "" where it is absent, damaged or none."""
    text = term(head, tag)
    return text if is_uid(text) else ""


def term(head: Any, tag: str) -> str:
    """What a tag states as text, "" where it is absent or cannot be read. To compare, not to show."""
    with contextlib.suppress(Exception), quiet():  # a damaged value may raise anything
        return str(head.get(tag) or "")
    return ""


def modality(head: Any) -> str:
    """A known one, to show."""
    found = term(head, "Modality")
    return found if found in _MODALITIES else "unknown modality"


def photometric(path: Path, head: Any) -> str:
    """A known one. Raises DDFMError."""
    found = term(head, "PhotometricInterpretation") if "PhotometricInterpretation" in head else "MONOCHROME2"
    if found not in _PHOTOMETRIC:
        raise bad_tag(path, "PhotometricInterpretation", "MONOCHROME2, RGB or another term of PS3.3, C.7.6.3.1.2")
    return found


def check_pixels(path: Path, head: Any) -> None:
    """Refuse what says of its pixels what cannot be, before anything is built from it. Raises DDFMError."""
    from pydicom.uid import AllTransferSyntaxes

    if term(head.file_meta, "TransferSyntaxUID") not in AllTransferSyntaxes:
        raise bad_tag(path, "TransferSyntaxUID", "a known transfer syntax")
    for tag, (allowed, needed) in _PIXEL_TAGS.items():
        found = numbers(path, [head], tag, 1)
        if found[0] not in allowed if found else needed:
            raise bad_tag(path, tag, f"one of {', '.join(map(str, allowed))}")
    stored = numbers(path, [head], "BitsStored", 1)
    if stored and not 1 <= stored[0] <= numbers(path, [head], "BitsAllocated", 1)[0]:
        raise bad_tag(path, "BitsStored", "a number from 1 to BitsAllocated")
    _check_frames(path, head)


def _check_frames(path: Path, head: Any) -> None:
    """No more frames than the file has room for: a damaged number must not build a list of thousands of millions."""
    count = numbers(path, [head], "NumberOfFrames", 1)
    if not count or count[0] == 1:
        return
    if count[0] < 1 or count[0] % 1:
        raise bad_tag(path, "NumberOfFrames", "a whole number from 1")
    syntax = head.file_meta.TransferSyntaxUID
    factors = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
    bits = math.prod(numbers(path, [head], tag, 1)[0] for tag in factors)
    if "422" in term(head, "PhotometricInterpretation"):
        bits *= 2 / 3
    with os_errors(path):
        room = 8 * path.stat().st_size
    if syntax.is_deflated:
        room *= 1032  # no more than that comes out of deflate
    least = 64 if syntax.is_compressed and not syntax.is_deflated else bits  # the head of a fragment: 8 bytes
    if count[0] * least > room:
        raise bad_tag(path, "NumberOfFrames", "no more frames than the file has pixels for")


def numbers(
    path: Path, holders: Sequence[Any], tag: str, count: int | None, *, needed: bool = False
) -> tuple[float, ...]:
    """The numbers of a tag, () where it is absent or empty. Raises DDFMError naming the tag, never its value."""
    holder = next((h for h in holders if tag in h), None)
    values: tuple[float, ...] = ()
    if holder is not None:
        try:
            value = holder[tag].value  # pydicom converts here
            several = isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str))
            values = tuple(float(v) for v in (value if several else [value] if value not in (None, "") else []))
            damaged = not all(map(math.isfinite, values)) or (count is not None and len(values) not in (0, count))
            damaged = damaged or any(abs(v) > LARGEST for v in values)
        except Exception:  # a damaged value may raise anything
            damaged = True
        if damaged:
            raise bad_tag(path, tag, {None: "numbers", 1: "one number"}.get(count, f"{count} numbers"))
    if needed and not (values and values[0] >= 1):
        raise bad_tag(path, tag, "a number from 1")
    return values


def bad_tag(path: Path, tag: str, expected: str) -> DDFMError:
    """The error that names a file and a tag, and not what the tag holds."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    number = tag_for_keyword(tag)
    got = f"a damaged or absent tag {Tag(number) if number else ''} {tag}"
    return problem(str(path), got, expected, "Export the series again, or take the file out of the folder.")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What pydicom says of a damaged file as a DDFMError, without its text, which may quote a name."""
    try:
        with quiet(), os_errors(path):
            yield
    except (DDFMError, MemoryError):
        raise
    except Exception as error:  # a damaged file may raise anything
        raise damaged(path, type(error).__name__) from None


def damaged(path: Path, why: str) -> DDFMError:
    """The error for a file that cannot be read; ``why`` must quote nothing of it."""
    remedy = "Export it again, or take it out of the folder."
    return problem(str(path), f"a damaged or cut DICOM file ({why})", "a whole one", remedy)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """pydicom neither warns nor logs: both quote values, and a patient's may be among them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
