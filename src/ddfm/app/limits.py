"""What a stranger's file may be: checked by size and content before any pixel is decoded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ddfm._checks import DDFMError, check_range, problem
from ddfm.io import image_size

__all__ = ["Limits", "check_upload", "told"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes.

    megabytes: of one upload. megapixels: of one picture. pairs: of one batch. waiting: requests in the queue.
    minutes: after which results are deleted. unpacked: how many times ``megabytes`` the files of a zip, or the uploads
    of one request, may be in all. gigabytes: of everything that lies here at a time.
    Raises DDFMError for values out of range.
    """

    megabytes: float = 64
    megapixels: float = 40
    pairs: int = 200
    waiting: int = 64
    minutes: float = 60
    unpacked: int = 16
    gigabytes: float = 8

    def __post_init__(self) -> None:
        check_range("--max-mb", self.megabytes, 0, 1e5, open_low=True)
        check_range("--max-mp", self.megapixels, 0, 178, open_low=True)
        check_range("--max-pairs", self.pairs, 1, 1e5)
        check_range("--max-waiting", self.waiting, 1, 1e5)
        check_range("--keep-minutes", self.minutes, 0, 1e5, open_low=True)
        check_range("--max-gb", self.gigabytes, 0, 1e5, open_low=True)

    @property
    def bytes(self) -> int:
        """Of one upload."""
        return int(self.megabytes * 2**20)


def check_upload(path: Path, name: str, limits: Limits) -> tuple[int, int]:
    """Height and width of an uploaded picture, by its head. ``name``: how the user calls it. Raises DDFMError."""
    size = path.stat().st_size
    if size > limits.bytes:
        raise problem(name, f"{size / 2**20:.1f} MB", f"at most {limits.megabytes:g} MB", "Crop or compress it.")
    try:
        height, width = image_size(path)
    except DDFMError as error:
        raise told(error, {path: name}) from error
    if height * width > limits.megapixels * 1e6:
        got = f"{width} x {height} pixels"
        raise problem(name, got, f"at most {limits.megapixels:g} megapixels", "Crop or reduce it.")
    return height, width


def told(error: Exception, names: dict[Path, str]) -> DDFMError:
    """The error as a stranger may read it: files by the names that they know, without the folders that these lie in."""
    text = str(error)
    for path in sorted(names, key=lambda path: len(str(path)), reverse=True):
        text = text.replace(str(path), names[path])
    for folder in sorted({str(path.parent) for path in names}, key=len, reverse=True):
        text = text.replace(f"{folder}/", "").replace(folder, "the uploads")
    return DDFMError(text)
