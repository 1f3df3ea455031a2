"""Clips in: frames with their time stamps from video files, one at a time; ``open_clips`` takes folders as well.

A frame's time is exact (a fraction of a second) and counts from the beginning of its clip. PyAV, which brings FFmpeg,
does the decoding and is imported where it is used. Pictures come upright (the display matrix is applied), as RGB by the
matrix that the file names (where it names none: BT.709 from 720 lines on, else BT.601), or as grey from grey formats.
A file is read through once before (``ClipInfo.frames``, ``end``), without decoding, so that one that breaks off is
known before any work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfm._checks import problem
from ddfm.io import Image, Samples, from_array, list_images
from ddfm.io.clip import UNSPECIFIED, Clip, ClipFrame, ClipInfo, check_frame_size
from ddfm.io.clip_range import FRAMES, ClipRange, sample_places
from ddfm.io.frames import FolderClip, places
from ddfm.io.ranges import Range

if TYPE_CHECKING:
    import numpy as np

__all__ = ["VIDEO_SUFFIXES", "VideoClip", "import_av", "is_video", "open_clips"]

#: Suffixes that people give to video files: where the content says nothing (an empty file), they decide.
VIDEO_SUFFIXES: tuple[str, ...] = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv",
    ".mxf", ".ogv", ".3gp", ".y4m", ".ivf", ".nut", ".h264", ".hevc",
)  # fmt: skip
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"jxl ", b"jp2 ")
_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"OggS",
    b"FLV\x01",
    b"\x30\x26\xb2\x75",  # ASF
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG-1 and 2
    b"\0\0\0\x01\x67",  # H.264
    b"\0\0\0\x01\x40",  # H.265
    b"\x06\x0e\x2b\x34",  # MXF
    b"DKIF",  # IVF
    b"YUV4MPEG2",
    b"nut/multimedia",
)
_BROKEN = Fraction(1, 2)  # seconds: a file that ends so much before the end that it announces breaks off
HD_LINES = 720  # from here on untagged colour is taken as BT.709, below as BT.601, as players do


def import_av() -> Any:
    """PyAV, or DDFMError that names the extra."""
    try:
        import av
    except ImportError as error:
        raise problem("video", "no PyAV here", "the package av", "Install it: pip install 'ddfm[video]'") from error
    return av


def is_video(path: Path) -> bool:
    """Whether a file is a video by its content, or, where that says nothing, by its name. PyAV is not needed."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(200)
    if len(head) < 12:
        return path.suffix.lower() in VIDEO_SUFFIXES
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURE_BRANDS
    quicktime = head[4:8] in (b"moov", b"mdat", b"wide", b"skip", b"free")
    transport = any(head[at] == head[at + 188] == 0x47 for at in (0, 4) if len(head) > at + 188)  # TS, M2TS
    known = head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
    picture = head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"RIFF")) and not known
    return known or quicktime or transport or (not picture and path.suffix.lower() in VIDEO_SUFFIXES)


def open_clips(
    paths: Sequence[Path], fps: Fraction | None = None, spans: Sequence[Range | None] = (None,)
) -> list[Clip]:
    """Open video files and folders of frames; folders take their time from ``fps``. Raises DDFMError.

    spans: which values are black and white, one for each or one for all, as for pictures; of a whole clip the same.
    """
    folders = {path: list_images(path) for path in paths if path.is_dir()}
    if folders and fps is None:
        got = f"{next(iter(folders))}, a folder, without a frame rate"
        raise problem("--fps", got, "frames a second", "Give them: --fps 25.")
    if fps is not None and not folders:
        remedy = "Leave it out: a video has time stamps of its own."
        raise problem("--fps", f"{float(fps):g} without a folder of frames", "a folder whose rate it is", remedy)
    placed = dict(zip(folders, places(list(folders.values())), strict=True))
    clips: list[Clip] = []
    for n, path in enumerate(paths):
        span = spans[n % len(spans)]
        in_folder = fps and path in folders
        clips.append(
            FolderClip(path, folders[path], placed[path], fps, span) if in_folder and fps else VideoClip(path, span)
        )
    return clips


# --- video files ------------------------------------------------------------------------------------


@contextmanager
def _av_errors(path: Path) -> Iterator[None]:
    """What FFmpeg says of a file that it cannot read, as a DDFMError."""
    av = import_av()
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        got = f"content that cannot be read ({error.strerror or error})"
        remedy = "It is cut short, damaged or no video: copy or export it again."
        raise problem(str(path), got, "a video", remedy) from error


@dataclass(frozen=True)
class _Scan:
    """What going through a file without decoding tells; seconds as the file counts them."""

    frames: int
    end: Fraction
    reached: Fraction


class VideoClip:
    """A video file: its first video stream, decoded frame by frame on one thread (more would hold more frames)."""

    def __init__(self, path: Path, span: Range | None = None) -> None:
        self.path = path
        self._damaged = self._late = 0
        if path.stat().st_size == 0:
            raise problem(str(path), "an empty file", "a video", "Copy or export it again.")
        with self._opened() as (container, stream):
            self._zero = _zero(container, stream)
            scan = _scan(path, stream.index)
            sample: list[Samples] = []
            for frame, _ in _decoded(container, stream):  # what the stream says of itself can be less true
                if not sample:
                    self.info = self._describe(container, stream, scan, frame)
                array, scale = _samples(frame)
                sample.append(Samples(array, scale, self.info.bit_depth))
                if self.info.bit_depth == 8 or span is None or len(sample) == len(sample_places(FRAMES, array.size)):
                    break
        if sample:
            self._range = ClipRange(_for_video(span, self.info), sample, str(path))
            return
        raise problem(str(path), "a video without a single frame", "frames", "Copy or export it again.")

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = import_av()
        with _av_errors(self.path), av.open(str(self.path)) as container:
            yield container, _video_stream(container, self.path)

    def _describe(self, container: Any, stream: Any, scan: _Scan, frame: Any) -> ClipInfo:
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        # of the first frame for all: asking PyAV ties a frame to itself, and such frames pile up in memory
        turn = self._turn = _orientation(frame)
        height, width = (frame.width, frame.height) if turn[0] else (frame.height, frame.width)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        audio = container.streams.audio
        announced = _announced(container)
        reached = scan.reached - Fraction(container.start_time or 0, 1_000_000)
        zero = self._zero * stream.time_base
        end = scan.end - zero if scan.end > zero else scan.frames / rate
        return ClipInfo(
            self.path,
            container.format.name.split(",")[0],
            stream.codec.canonical_name,
            (height, width),
            Fraction(rate),
            Fraction(stream.time_base),
            scan.frames,
            end,
            1 / aspect if turn[0] else aspect,
            not _is_grey(frame),
            16 if _deep(frame) else 8,
            audio[0].codec.canonical_name if audio else None,
            reached if announced - reached > _BROKEN else None,
            frame.color_primaries,
            frame.color_trc,
            tuple(self._remarks(container.format.name, frame, turn)),
        )

    def _remarks(self, container_format: str, frame: Any, turn: tuple[bool, bool, bool]) -> Iterator[str]:
        if any(turn):
            yield f"{self.path}: turned upright as its display matrix says"
        if container_format == "mpegts" and _cut_packet(self.path):
            yield f"{self.path}: its last packet is cut off; transport streams announce no end, so more may be missing"
        if frame.interlaced_frame:
            yield f"{self.path}: interlaced, its fields are not taken apart; deinterlace it first for a clean result"
        if frame.color_trc in (16, 18):  # PQ and HLG
            yield f"{self.path}: high dynamic range, its values are taken as they are"

    def frames(self) -> Iterator[ClipFrame]:
        """See ``Clip``; a second call begins again."""
        self._damaged = self._late = 0
        self._range.begin()
        last = None
        with self._opened() as (container, stream):
            for count, (frame, damaged) in enumerate(_decoded(container, stream)):
                self._damaged += damaged
                time = self._time(frame, count)
                if last is not None and time <= last:
                    self._late += 1
                    continue
                last = time
                yield ClipFrame(self._picture(frame, time), time)

    def _time(self, frame: Any, count: int) -> Fraction:
        if frame.pts is None:  # raw streams have no time stamps
            return count / self.info.rate
        return (frame.pts - self._zero) * Fraction(frame.time_base)

    def _picture(self, frame: Any, time: Fraction) -> Image:
        import numpy as np

        array, scale = _samples(frame)
        swapped, rows, columns = self._turn
        array = array.swapaxes(0, 1) if swapped else array
        array = array[:: -1 if rows else 1, :: -1 if columns else 1]
        name = f"{self.path} at {float(time):.3f} s"
        check_frame_size(name, array.shape[:2], self.info.size)
        if self._range.span:
            image = from_array(array, name, self._range.span)
            self._range.count(image.relation, image.data.size)
            self.info = dataclasses.replace(self.info, relation=self._range.relation)
            return dataclasses.replace(image, format="video")
        data = np.ascontiguousarray(np.true_divide(array, scale, dtype=np.float32))
        return Image(data, self.info.bit_depth, None, None, "video")

    def notes(self) -> list[str]:
        """See ``Clip``."""
        notes = [*self.info.notes, *self._range.told()]
        if self._damaged:
            notes.append(f"{self.path}: {self._damaged} damaged frames, shown as the decoder could mend them")
        if self._late:
            notes.append(f"{self.path}: {self._late} frames whose time does not come after the one before, left out")
        return notes


def _for_video(span: Range | None, info: ClipInfo) -> Range | None:
    """The range for a video: grey of more than 8 bits may hold counts, else there is none to put. Raises DDFMError."""
    if info.bit_depth > 8 and not info.is_color:
        return span
    if span and not span.deep_only and span.kind != "full":
        got = f"{span} for {info.path}, a video of {'8 bits' if info.bit_depth == 8 else 'colours'}"
        raise problem("range", got, "full for it", "Ranges are for counts: grey of more than 8 bits.")
    return None


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is no cover picture. Raises DDFMError."""
    av = import_av()
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams}) or ["no streams"]
    raise problem(str(path), f"a file of {', '.join(kinds)}", "a file with a video stream", "Check the path.")


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Any, bool]]:
    """FFmpeg's frames, and whether each stands beside damage: flagged, or after packets that did not decode."""
    av = import_av()
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    lost = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.error.InvalidDataError, av.error.EOFError):
            lost = True
            continue
        for frame in frames:
            yield frame, lost or frame.is_corrupt
            lost = False


def _zero(container: Any, stream: Any) -> int:
    """The time stamp that counts as 0: 0, or where a clip begins later, as broadcasts do, its beginning."""
    start = Fraction(container.start_time or 0, 1_000_000)
    return max(0, round(start / stream.time_base))


def _announced(container: Any) -> Fraction:
    """Seconds from its start that a file says it lasts. Matroska's Duration counts from time 0, also of late stamps."""
    late = container.format.name.startswith("matroska")
    return Fraction((container.duration or 0) - late * (container.start_time or 0), 1_000_000)


def _scan(path: Path, index: int) -> _Scan:
    """Count the frames and find the ends, without decoding."""
    frames, end, reached = 0, Fraction(0), Fraction(0)
    with import_av().open(str(path)) as container:
        for packet in container.demux():
            if packet.pts is None and packet.dts is None and not packet.size:
                continue  # the end of a stream
            stamp = packet.pts if packet.pts is not None else packet.dts
            # raw streams have no time stamps, and their frames are counted alone
            until = Fraction(0) if stamp is None else (stamp + (packet.duration or 0)) * Fraction(packet.time_base or 0)
            reached = max(reached, until)
            if packet.stream_index == index and not packet.is_discard:
                frames, end = frames + 1, max(end, until)
    return _Scan(frames, end, reached)


def _cut_packet(path: Path) -> bool:
    """Whether a transport stream of packets of 188 bytes (or 192 with times, 204 with checks) ends within one."""
    with path.open("rb") as file:
        head = file.read(209)
    length = next((n for n in (188, 192, 204) if len(head) > n + 4 and head[n + 4 * (n == 192)] == 0x47), 188)
    return path.stat().st_size % length != 0


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """What makes a frame upright: exchange rows and columns, then flip rows, flip columns.

    The display matrix (a b u; c d v; x y w) of 16.16 fixed point takes (x, y) to (a x + c y, b x + d y), ISO 14496-12,
    6.2.2. Other turns than quarters are passed over.
    """
    import struct

    found = [bytes(item) for item in frame.side_data if item.type.name == "DISPLAYMATRIX"]
    if not found:
        return False, False, False
    a, b, _, c, d = struct.unpack("=5i", found[0][:20])
    if not a and not d and b and c:
        return True, b < 0, c < 0
    return (False, d < 0, a < 0) if not b and not c else (False, False, False)


def _is_grey(frame: Any) -> bool:
    return len(frame.format.components) == 1 and not frame.format.has_palette


def _deep(frame: Any) -> bool:
    return any(part.bits > 8 for part in frame.format.components)


def _samples(frame: Any) -> tuple[np.ndarray, int]:
    """Samples (H, W) or (H, W, 3), uint8 or uint16, and the one that means 1."""
    import numpy as np

    scale = 65535 if _deep(frame) else 255
    if _is_grey(frame):
        array = frame.to_ndarray(format="gray16le" if scale > 255 else "gray")
        if frame.color_range == 1:  # 16 to 235, which FFmpeg leaves as it is for grey
            wide = (array.astype(np.float32) / scale * 255 - 16) / 219
            array = np.rint(np.clip(wide, 0, 1) * scale).astype(array.dtype)
        return array, scale
    spaces = av_spaces()
    chosen = None if frame.colorspace != UNSPECIFIED else spaces[frame.height >= HD_LINES]
    return frame.to_ndarray(
        format="rgb48le" if scale > 255 else "rgb24", src_colorspace=chosen, interpolation=fine_scaling()
    ), scale


def av_spaces() -> tuple[Any, Any]:
    """BT.601 and BT.709 as PyAV calls them."""
    spaces = import_av().video.reformatter.Colorspace
    return spaces.ITU601, spaces.ITU709


def fine_scaling() -> Any:
    """Flags for swscale: exact rounding and chroma between its samples, where its defaults are made for speed."""
    flags = import_av().video.reformatter.Interpolation
    return flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP
