"""One range for all frames of a clip: found for each frame anew, it would flicker.

See :mod:`ddfm.io.ranges`. Percentiles are taken over a sample of frames; what lies beyond them in another frame is
clipped, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ddfm._checks import problem
from ddfm.io import Samples
from ddfm.io.ranges import Range, Relation, ends, is_narrow, is_picture

__all__ = ["ClipRange", "sample_places"]

#: Frames that a range is learned from, at most, and their pixels.
FRAMES, PIXELS = 16, 1 << 25


def sample_places(count: int, pixels: int) -> list[int]:
    """Which of ``count`` frames of so many pixels to learn from: spread evenly, the first and the last among them."""
    many = min(count, FRAMES, max(2, PIXELS // pixels))
    return sorted({round(n * (count - 1) / max(1, many - 1)) for n in range(many)})


class ClipRange:
    """``span``, the range to read every frame with; what it did to the frames so far.

    asked: as for pictures, None for none; sample: some frames, as stored; name: of the clip. Raises DDFMError where
    there is no such range, or no value of the sample within it.
    """

    def __init__(self, asked: Range | None, sample: Sequence[Samples], name: str) -> None:
        self.name, self.asked = name, asked
        self.notes: list[str] = []
        self.begin()
        self.span = self._learned(asked, sample)

    def begin(self) -> None:
        """Nothing is counted yet."""
        self._pixels = self._below = self._above = 0.0
        self._last: Relation | None = None

    def count(self, relation: Relation | None, pixels: int) -> None:
        """One more frame was read, which gave this relation."""
        if relation:
            self._last = relation
            self._pixels += pixels
            self._below += relation.below * pixels
            self._above += relation.above * pixels

    @property
    def relation(self) -> Relation | None:
        """Levels to values, with the shares clipped of all frames that were counted; None where none has one."""
        if not self._last:
            return None
        below, above = self._below / self._pixels, self._above / self._pixels
        return dataclasses.replace(self._last, below=below, above=above, asked=str(self.asked))

    def told(self) -> list[str]:
        """What should be known, as far as the clip was read."""
        relation = self.relation
        lost = relation.below + relation.above if relation else 0
        text = f"{self.name}: {lost:.0%} of the values of its frames lie outside --range {self.asked} and are clipped"
        return [*self.notes, *[text] * (lost > 0.2)]

    def _learned(self, asked: Range | None, sample: Sequence[Samples]) -> Range | None:
        deep = [one for one in sample if not (asked and asked.deep_only and (one.bit_depth == 8 or _unit(one)))]
        if asked is None or asked.kind == "full" or not deep:
            return asked
        pictures, scale = [one.array for one in deep], deep[0].scale
        if asked.kind == "usual" and not is_narrow(pictures, scale):
            return None
        low, high = ends(pictures, asked, scale, self.name)
        if all(((x < low) | (x > high)).all() for x in pictures):
            got = f"values from {min(x.min() for x in pictures):g} to {max(x.max() for x in pictures):g}"
            raise problem(
                self.name, got, f"some within the --range {asked}", "Name their own range, or use --range auto."
            )
        if asked.kind == "usual":
            self.notes.append(
                f"{self.name}: counts {low:.0f} to {high:.0f} of 16 bits shown as black to white in all frames, as "
                f"--range auto does; to say so yourself --range {low:.0f}:{high:.0f}, to leave it --range full"
            )
        return Range("values", low, high, asked.deep_only, lenient=True)


def _unit(one: Samples) -> bool:
    return is_picture(one.array)
