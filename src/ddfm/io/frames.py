"""Folders of pictures as clips: which picture stands where in time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from ddfm._checks import problem
from ddfm.io import read_image
from ddfm.io.clip import ClipFrame, ClipInfo, check_frame_size

__all__ = ["FolderClip", "places"]


def places(folders: Sequence[Sequence[Path]]) -> list[list[int]]:
    """At which frame of its clip each picture stands, from 0, sorted.

    Numbered names give their numbers, so that a picture that is missing leaves a gap. Folders that share names share
    their first number; others begin with their own. Names without numbers stand in their order.
    """
    names = [[path.stem for path in folder] for folder in folders]
    shared = len(names) > 1 and bool(set.intersection(*map(set, names)))
    groups = [[n for folder in names for n in folder]] if shared else names
    lookups = [_numbering(group) for group in groups]
    return [[(lookups[0] if shared else lookups[k])[n] for n in folder] for k, folder in enumerate(names)]


def _numbering(names: Sequence[str]) -> dict[str, int]:
    if not names:
        return {}
    unique = sorted(set(names), key=_natural)
    numbers = [int(found[-1]) if (found := re.findall(r"\d+", name)) else None for name in unique]
    counted = [n for n in numbers if n is not None]
    in_order = {name: place for place, name in enumerate(unique)}
    if len(set(counted)) < len(unique):
        return in_order
    first, step = min(counted), math.gcd(*(n - min(counted) for n in counted)) or 1
    places = {name: (n - first) // step for name, n in zip(unique, counted, strict=True)}
    # mostly empty places: the numbers are times, or something else, but no count
    return places if max(places.values()) < 2 * len(unique) else in_order


def _natural(name: str) -> list[tuple[int, str]]:
    """frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


class FolderClip:
    """A folder of pictures as a clip of constant rate."""

    def __init__(self, path: Path, files: Sequence[Path], places: Sequence[int], fps: Fraction) -> None:
        if not files:
            raise problem(str(path), "a folder without pictures", "frames", "Check the path.")
        self._files = sorted(zip(places, files, strict=True))
        first, (last, _) = read_image(self._files[0][1]), self._files[-1]
        missing = last - self._files[0][0] + 1 - len(files)
        self.info = ClipInfo(
            path,
            "folder",
            first.format,
            first.size,
            rate=fps,
            time_base=1 / fps,
            frames=len(files),
            end=(last + 1) / fps,
            is_color=first.is_color,
            bit_depth=first.bit_depth,
            notes=(f"{path}: {missing} frames are missing between those that are there",) if missing else (),
        )

    def frames(self) -> Iterator[ClipFrame]:
        """See ``Clip``."""
        for place, file in self._files:
            image = read_image(file)
            check_frame_size(str(file), image.size, self.info.size)
            yield ClipFrame(image, place * self.info.time_base)

    def notes(self) -> list[str]:
        """See ``Clip``."""
        return list(self.info.notes)
