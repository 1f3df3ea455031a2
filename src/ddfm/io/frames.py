"""Folders of pictures as clips: which picture stands where in time."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from ddfm._checks import problem
from ddfm.io import read_image, read_samples
from ddfm.io.clip import ClipFrame, ClipInfo, check_frame_size
from ddfm.io.clip_range import ClipRange, sample_places
from ddfm.io.ranges import Range

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
    """A folder of pictures as a clip of constant rate; ``span``: which values are black and white, in all of them."""

    def __init__(
        self, path: Path, files: Sequence[Path], places: Sequence[int], fps: Fraction, span: Range | None = None
    ) -> None:
        if not files:
            raise problem(str(path), "a folder without pictures", "frames", "Check the path.")
        self._files = sorted(zip(places, files, strict=True))
        self._range = _learned(path, [file for _, file in self._files], span)
        first, (last, _) = read_image(self._files[0][1], self._range.span), self._files[-1]
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
        self._range.begin()
        for place, file in self._files:
            image = read_image(file, self._range.span)
            check_frame_size(str(file), image.size, self.info.size)
            self._range.count(image.relation, image.data.size)
            self.info = dataclasses.replace(self.info, relation=self._range.relation)
            yield ClipFrame(image, place * self.info.time_base)

    def notes(self) -> list[str]:
        """See ``Clip``."""
        return [*self.info.notes, *self._range.told()]


def _learned(path: Path, files: Sequence[Path], span: Range | None) -> ClipRange:
    """The range for all the files; pictures of 8 bits are opened for it once."""
    if span is None or span.kind == "full":
        return ClipRange(span, [], str(path))
    first = read_samples(files[0], span)
    chosen = [files[n] for n in sample_places(len(files), first.array.size)[1:]]
    return ClipRange(span, [first, *(read_samples(file, span) for file in chosen)], str(path))
