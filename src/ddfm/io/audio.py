"""Sound that goes along with a clip: copied packet by packet, never decoded.

A decoder needs a little of what comes before the first sample that is to be heard: AAC and MP3 lay each packet over
the one before, and files begin with such a priming packet at a negative time. It is copied too. MP4 and MOV say in an
edit list that it is not to be heard; Matroska does by a track's CodecDelay (RFC 9559, 5.1.4.1.25), which PyAV cannot
set, but takes over from a Matroska file: so one is made in memory.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ddfm.io.video import import_av

__all__ = ["AudioTrack"]

#: Seconds before the first sound whose packets go along: two or three of AAC or MP3; for Opus RFC 7845, 4.6.
_LEAD, _OPUS_LEAD = Fraction(1, 20), Fraction(2, 25)
#: EBML identifiers.
_SEGMENT, _INFO, _TRACKS, _CLUSTER = b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75"
_ENTRY, _DELAY, _TIMESTAMP = b"\xae", b"\x56\xaa", b"\xe7"


class AudioTrack:
    """The first audio stream of a file, to be copied; use it in a ``with``.

    begins: seconds of its clip that become 0; what comes before is not heard. codec: its name, such as "aac".
    """

    def __init__(self, path: Path, begins: Fraction = Fraction(0)) -> None:
        self.path = path
        self._container = import_av().open(str(path))
        self._templates: list[Any] = []  # containers in memory, whose streams are used as long as this one is
        self.stream = self._container.streams.audio[0]
        self.codec = str(self.stream.codec.canonical_name)
        unit = Fraction(self.stream.time_base)
        start = round(Fraction(self._container.start_time or 0, 1_000_000) / unit)  # it comes in whole microseconds
        self._zero = begins + max(0, start) * unit  # as ``VideoClip`` counts
        self._packets = self._container.demux(self.stream)
        self._waiting = self._first()

    def _first(self) -> deque[Any]:
        """The packets shortly before 0, and one after."""
        waiting: deque[Any] = deque()
        while (packet := self._read()) is not None:
            waiting.append(packet)
            if self._time(packet) >= 0:
                break
        lead = _OPUS_LEAD if self.codec == "opus" else _LEAD
        while waiting and self._time(waiting[0]) < -lead:
            waiting.popleft()
        return waiting

    def _refill(self) -> None:
        if not self._waiting and (following := self._read()) is not None:
            self._waiting.append(following)

    def _read(self) -> Any:
        """The next packet of sound, or None at the end."""
        av = import_av()
        try:
            packet = next(self._packets, None)
        except (av.error.FFmpegError, OSError):  # the source breaks off; its frames tell of that
            return None
        return None if packet is None or (packet.dts is None and not packet.size) else packet

    def _time(self, packet: Any) -> Fraction:
        stamp = packet.pts if packet.pts is not None else packet.dts
        return Fraction(stamp * packet.time_base - self._zero)

    def until(self, end: Fraction) -> Iterator[Any]:
        """The next packets that begin before ``end``, seconds from ``begins``, with their time stamps counted so."""
        while self._waiting and self._time(self._waiting[0]) < end:
            packet = self._waiting.popleft()
            moved = round(self._zero / packet.time_base)
            packet.pts, packet.dts = (None if t is None else t - moved for t in (packet.pts, packet.dts))
            yield packet
            self._refill()

    def template(self, container: str) -> Any:
        """A stream to make the copy's like, for FFmpeg's format of that name; None where the format cannot hold it."""
        if not _holds(container, self.stream):
            return None
        if container not in ("matroska", "webm"):
            return self.stream
        if self.codec == "aac" and not self.stream.codec_context.extradata_size:  # ADTS: FFmpeg makes the header later
            while self._waiting and self._time(self._waiting[0]) < 0:
                self._waiting.popleft()
        delay = self._delay()
        if not delay:
            return self.stream
        header = _header(self.stream)
        self._templates.append(import_av().open(io.BytesIO(_delayed(header, delay, self.stream.rate))))
        return self._templates[-1].streams.audio[0]

    def _delay(self) -> int:
        """Samples that are copied and not to be heard."""
        lead = -self._time(self._waiting[0]) if self._waiting else Fraction(0)
        if lead <= 0:
            return 0
        known = next((bytes(s)[:4] for s in self._waiting[0].iter_sidedata() if s.data_type == "skip_samples"), b"")
        samples = int.from_bytes(known, "little")
        if abs(Fraction(samples, self.stream.rate) - lead) < Fraction(1, 1000):  # to the sample, where times are not
            return samples
        # rounded down, the first time stamp could stay below 0, and FFmpeg would move all streams, pictures too
        return math.ceil(lead * self.stream.rate)

    def __enter__(self) -> AudioTrack:
        return self

    def __exit__(self, *error: object) -> None:
        for container in (*self._templates, self._container):
            container.close()


def _holds(container: str, stream: Any) -> bool:
    """Whether FFmpeg begins such a file with such a stream: its own table of codecs allows more than a muxer does."""
    av = import_av()
    with contextlib.ExitStack() as stack:
        file = av.open(io.BytesIO(), "w", format=container)
        stack.callback(_close, file)
        try:
            file.add_stream_from_template(stream)
            file.start_encoding()
        except (av.error.FFmpegError, ValueError):
            return False
    return True


def _close(container: Any) -> None:
    with contextlib.suppress(import_av().error.FFmpegError):
        container.close()


# --- Matroska's header ------------------------------------------------------------------------------


def _header(stream: Any) -> bytes:
    """A Matroska file of this stream without a packet."""
    content = io.BytesIO()
    with import_av().open(content, "w", format="matroska", options={"write_crc32": "0"}) as file:
        file.add_stream_from_template(stream)
        file.start_encoding()
    return content.getvalue()


def _delayed(header: bytes, samples: int, rate: int) -> bytes:
    """That file with another CodecDelay, in nanoseconds, for its only track."""
    delay = _element(_DELAY, round(samples * 10**9 / rate).to_bytes(8, "big"))
    (top, first), *rest = _elements(header)
    segment = dict(_elements(dict(rest)[_SEGMENT]))
    (_, entry), *_ = [part for part in _elements(segment[_TRACKS]) if part[0] == _ENTRY]
    kept = b"".join(_element(name, content) for name, content in _elements(entry) if name != _DELAY)
    parts = [_element(_INFO, segment[_INFO]), _element(_TRACKS, _element(_ENTRY, kept + delay))]
    parts.append(_element(_CLUSTER, _element(_TIMESTAMP, b"\0")))  # none of them is no file to FFmpeg
    return _element(top, first) + _element(_SEGMENT, b"".join(parts))


def _elements(data: bytes) -> list[tuple[bytes, bytes]]:
    """Identifiers and contents of the elements in a row (RFC 8794, 4 to 6); one of unknown size takes the rest."""
    found, at = [], 0
    while at < len(data):
        name = data[at : at + _length(data[at])]
        at += len(name)
        width = _length(data[at])
        size = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
        at += width
        found.append((name, data[at : at + size]))
        at += size
    return found


def _length(first: int) -> int:
    """Bytes of a variable-size integer that begins with this one."""
    return 9 - first.bit_length()


def _element(name: bytes, content: bytes) -> bytes:
    return name + (len(content) | 1 << 56).to_bytes(8, "big") + content
