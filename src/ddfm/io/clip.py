"""What a clip is: frames with their times, and what is known of it before a frame is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from ddfm._checks import problem
from ddfm.io import Image
from ddfm.io.ranges import Relation

__all__ = ["UNSPECIFIED", "Clip", "ClipFrame", "ClipInfo", "check_frame_size"]

UNSPECIFIED = 2  # of colour matrix, primaries and transfer (ITU-T H.273)


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before a frame is decoded.

    size: height and width, upright. rate: frames a second, the average. time_base: the unit of its time stamps, in
    seconds. frames: how many, counted. end: seconds, end of the last frame. pixel_aspect: width of a pixel over its
    height. is_color: stored with colour (it may still be grey all over). breaks_off: seconds at which a file ends that
    announces more. primaries, transfer: of ITU-T H.273, 2 where unspecified. notes: what a user should know.
    relation: back to counts, where a range was put to them; its shares are of the frames that were read.
    """

    path: Path
    format: str
    codec: str
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    frames: int
    end: Fraction
    pixel_aspect: Fraction = Fraction(1)
    is_color: bool = True
    bit_depth: int = 8
    audio: str | None = None
    breaks_off: Fraction | None = None
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    notes: tuple[str, ...] = ()
    relation: Relation | None = None

    def describe(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {
            "path": str(self.path),
            "format": self.format,
            "codec": self.codec,
            "size": list(self.size),
            "fps": round(float(self.rate), 4),
            "time_base": str(self.time_base),
            "frames": self.frames,
            "seconds": round(float(self.end), 4),
            "pixel_aspect": str(self.pixel_aspect),
            "bit_depth": self.bit_depth,
            "audio": self.audio,
            **({"range": self.relation.plain()} if self.relation else {}),
        }


@dataclass(frozen=True, eq=False)
class ClipFrame:
    """One frame and its time in seconds from the beginning of the clip."""

    image: Image
    time: Fraction


class Clip(Protocol):
    """An open clip. ``notes`` grows while it is read: damaged frames are counted there."""

    info: ClipInfo

    def frames(self) -> Iterator[ClipFrame]:
        """The frames in order of time, one decoded at a time. Raises DDFMError where the size changes."""
        ...

    def notes(self) -> list[str]:
        """What a user should know, as far as the clip was read."""
        ...


def check_frame_size(name: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise DDFMError where a clip changes its size, (height, width)."""
    if size != expected:
        got = f"{size[1]}x{size[0]} pixels"
        remedy = "Bring the clip to one size first, or cut it where the size changes."
        raise problem(name, got, f"{expected[1]}x{expected[0]}, as the frames before", remedy)
