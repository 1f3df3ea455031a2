"""Frames that belong together in time, and what to say of those that stay alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from ddfm.io.clip import Clip, ClipFrame, ClipInfo

__all__ = ["Follower", "left_out_notes"]

#: Of its period, for how long the last frame of a clip counts: less than the whole, for jitter.
_LASTING = Fraction(9, 10)
#: Formats that do not say where they end, so that one which was cut short looks whole.
_ENDLESS = ("mpegts", "mpeg", "h264", "hevc", "mpegvideo", "m4v", "ivf")


class Follower:
    """The frames of a source, asked for by time; two are held. used, again: how many served, how often once more."""

    def __init__(self, clip: Clip, offset: Fraction, tolerance: Fraction) -> None:
        self.clip, self.offset, self.tolerance = clip, offset, tolerance
        self.used = self.again = 0
        self._served = False
        self._frames = clip.frames()
        self._now = next(self._frames, None)
        self._next = next(self._frames, None)

    def at(self, moment: Fraction) -> ClipFrame | None:
        """The frame nearest to that time of the leading source, the earlier of two as near; None where none is near.

        To be asked in order of time.
        """
        while self._now and self._next and self._away(self._next, moment) < self._away(self._now, moment):
            self._now, self._next, self._served = self._next, next(self._frames, None), False
        if self._now is None:
            return None
        if self._away(self._now, moment) > self.tolerance and not self._lasts(self._now, moment):
            return None
        self.used, self.again = self.used + (not self._served), self.again + self._served
        self._served = True
        return self._now

    def over(self, moment: Fraction) -> bool:
        """Whether nothing more can come from that time on."""
        if self._next is not None or self._now is None:
            return self._now is None
        return moment > self._now.time + self.offset + self.tolerance and not self._lasts(self._now, moment)

    def _lasts(self, frame: ClipFrame, moment: Fraction) -> bool:
        """Whether the last frame of all still shows then."""
        after = moment - frame.time - self.offset
        return self._next is None and 0 <= after <= _LASTING / self.clip.info.rate

    def _away(self, frame: ClipFrame, moment: Fraction) -> Fraction:
        return abs(frame.time + self.offset - moment)


def left_out_notes(
    lead: ClipInfo, followers: Sequence[Follower], fused: Sequence[Fraction], alone: Sequence[Fraction], rest: int
) -> Iterator[str]:
    """What happened to frames without a partner, and which clip ended before which.

    fused: times of the first and the last moment that were fused; alone: of frames of ``lead`` without a partner;
    rest: how many of its last ones were not even read.
    """
    name, first, last = lead.path, fused[0], fused[-1]
    before = sum(t < first for t in alone)
    after = sum(t > last for t in alone) + rest
    between = [t for t in alone if first < t < last]
    if before:
        yield f"{name}: its first {before} frames have no partner; the result begins at {float(first):.2f} s of it"
    if after:
        ended = "".join(f"; {_ends_before(f, lead)}" for f in followers if _end(f) < lead.end)
        yield f"{name}: its last {after} frames have no partner; the result ends after {float(last):.2f} s of it{ended}"
    if between:
        where = f"{float(between[0]):.2f} s first"
        yield f"{name}: {len(between)} frames in between have no partner and are left out, at {where}"
    for follower in followers:
        yield from _unused(follower, lead)


def _unused(follower: Follower, lead: ClipInfo) -> Iterator[str]:
    """Frames that served nowhere; where the other clip is faster, some always do so, and only a late end counts."""
    info = follower.clip.info
    unused = info.frames - follower.used
    period = max(1 / info.rate, 1 / lead.rate)
    late = _end(follower) - lead.end > period
    if unused > 0 and (late or info.rate <= lead.rate):
        ended = f"; {_ends(lead)}, {info.path} goes on to {_seconds(follower)}{_doubt(lead)}" if late else ""
        yield f"{info.path}: {unused} frames are the nearest of none and are left out{ended}"


def _end(follower: Follower) -> Fraction:
    """Where the clip ends in the time of the leading one."""
    return follower.clip.info.end + follower.offset


def _seconds(follower: Follower) -> str:
    return f"{float(_end(follower)):.2f} s" + (" with its --offset" if follower.offset else "")


def _ends_before(follower: Follower, lead: ClipInfo) -> str:
    info = follower.clip.info
    return f"{info.path} ends at {_seconds(follower)}, {lead.path} goes on to {float(lead.end):.2f} s{_doubt(info)}"


def _ends(lead: ClipInfo) -> str:
    return f"{lead.path} ends at {float(lead.end):.2f} s"


def _doubt(info: ClipInfo) -> str:
    """Of the clip that ended first."""
    return f" ({info.path.name} is of a format that announces no end: it may be cut short)" * (info.format in _ENDLESS)
