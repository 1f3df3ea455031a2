"""Clips out: one video file, frame by frame, with the time stamps that are given, and another file's audio beside it.

The file grows under a temporary name in the target's folder and gets its own at the end, so that a run which is stopped
leaves a file that plays, or none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ddfm._checks import DDFMError, check_range, problem
from ddfm.io import quantise
from ddfm.io.audio import AudioTrack
from ddfm.io.files import check_target, os_errors, publish, uninterrupted
from ddfm.io.video import HD_LINES, VIDEO_SUFFIXES, av_spaces, fine_scaling, import_av

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OUT_SUFFIXES", "ClipWriter", "Encoding", "check_encoding"]

#: Written, by suffix: FFmpeg's name of the container, and encoders in order of preference, of which a build has some.
_CONTAINERS = {
    ".mp4": ("mp4", ("libx264", "libopenh264", "libsvtav1", "mpeg4")),
    ".mov": ("mov", ("libx264", "libopenh264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "libopenh264", "libsvtav1", "mpeg4")),
    ".webm": ("webm", ("libvpx-vp9", "libsvtav1", "libvpx")),
}
OUT_SUFFIXES = tuple(_CONTAINERS)
#: Quality where none is given, and the worst there is, on the encoder's own scale; lower is better.
_QUALITY = {"libx264": (18, 51), "libvpx-vp9": (24, 63), "libvpx": (10, 63), "libsvtav1": (24, 63), "mpeg4": (3, 31)}
_H273 = (6, 1)  # BT.601 (as SMPTE 170M) and BT.709, as files name them


@dataclass(frozen=True)
class Encoding:
    """How frames become a file.

    crf: quality of a lossy encoder on its own scale, lower is better; None: good (18 for H.264). lossless: FFV1, in
    .mkv only. bit_depth: 8, or 16 with ``lossless``. primaries, transfer: what the file says of its colours, H.273.
    """

    crf: int | None = None
    lossless: bool = False
    bit_depth: int = 8
    primaries: int = 2
    transfer: int = 2


def check_encoding(path: Path, encoding: Encoding) -> str:
    """The encoder for a file of that name; DDFMError for what it cannot hold."""
    suffix = path.suffix.lower()
    if suffix not in _CONTAINERS:
        names = " or ".join(path.with_suffix(other).name for other in (".mkv", ".mp4"))
        remedy = f"{suffix} is read, not written: write {names}."
        expected = f"a name ending in {', '.join(OUT_SUFFIXES)}"
        raise problem("--output", repr(str(path)), expected, remedy if suffix in VIDEO_SUFFIXES else "")
    if encoding.lossless and suffix != ".mkv":
        raise problem("--lossless", suffix, ".mkv", f"Write {path.with_suffix('.mkv').name}.")
    if encoding.lossless and encoding.crf is not None:
        raise problem("--crf", f"{encoding.crf} with --lossless", "one of the two")
    if encoding.bit_depth == 16 and not encoding.lossless:
        raise problem("--bit-depth", f"16 for {suffix}", "8", "Add --lossless, and write .mkv, to keep 16 bits.")
    if encoding.lossless:
        return "ffv1"
    codec = _encoder(_CONTAINERS[suffix][1], suffix)
    if encoding.crf is not None:
        check_range("--crf", encoding.crf, 0, _QUALITY.get(codec, (0, 51))[1])
    return codec


def _encoder(names: tuple[str, ...], suffix: str) -> str:
    av = import_av()
    for name in names:
        with contextlib.suppress(av.codec.codec.UnknownCodecError):
            av.codec.Codec(name, "w")
            return name
    raise problem(suffix, "no encoder in this PyAV", f"one of {', '.join(names)}", "Install PyAV's own wheel.")


def _options(codec: str, crf: int | None) -> dict[str, str]:
    if codec == "ffv1":
        return {"level": "3", "slicecrc": "1"}
    quality = str(_QUALITY.get(codec, (0, 0))[0] if crf is None else crf)
    if codec == "mpeg4":
        return {"qmin": quality, "qmax": quality}
    if codec == "libopenh264":
        return {"rc_mode": "quality"}
    if codec == "libx264":
        # without it x264 holds back some forty frames, and its weighing of blocks over them (mbtree) changes from run
        # to run with the memory that it finds
        return {"crf": quality, "rc-lookahead": "0"}
    return {"crf": quality, **({"b": "0"} if codec.startswith("libvpx") else {})}


class ClipWriter:
    """Writes a clip; use it in a ``with``: leaving it in order publishes the file, an exception removes it.

    size: height and width. rate: frames a second, for players' information. time_base: the unit of the time stamps,
    seconds. color: whether frames come as RGB. partial: where to leave what there is when an exception ends the work,
    as a file that plays; None: nowhere. ``kept``: the file that is left, whole or partial, once it is there;
    ``frames``: how many are in it. ``notes``: what a user should know. Ctrl-C waits for the end of what leaving does.
    Raises DDFMError for what cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        color: bool,
        pixel_aspect: Fraction = Fraction(1),
        encoding: Encoding | None = None,
        audio: AudioTrack | None = None,
        partial: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.color, self.size, self.time_base = path, color, size, time_base
        self.encoding = encoding or Encoding()
        self.codec = check_encoding(path, self.encoding)
        check_target(path, overwrite)
        self._partial, self._overwrite, self._audio = partial, overwrite, audio
        self.kept: Path | None = None
        self.notes: list[str] = []
        self.frames = 0
        self._part = path.with_name(f".{path.name[:64]}.{os.getpid()}.{secrets.token_hex(4)}.part")
        self._options = {"fflags": "+bitexact"}  # nothing random in the file
        if path.suffix.lower() in (".mp4", ".mov"):
            self._options["movflags"] = "+faststart"
        if self.codec == "mpeg4" and time_base.denominator > 65535:  # all that its header holds
            self.time_base = Fraction(1, 60_000)
        with self._errors():
            self._container = import_av().open(
                str(self._part), "w", format=_CONTAINERS[path.suffix.lower()][0], container_options=self._options
            )
            self._video = self._add_video(rate, pixel_aspect)
            self._sound = self._add_audio()

    @property
    def audio(self) -> str | None:
        """The codec of the audio that is copied."""
        return self._audio.codec if self._audio and self._sound else None

    def _add_video(self, rate: Fraction, pixel_aspect: Fraction) -> Any:
        options = _options(self.codec, self.encoding.crf)
        stream = self._container.add_stream(self.codec, rate=rate.limit_denominator(100_000), options=options)
        stream.height, stream.width = self.size
        stream.pix_fmt = self._pixel_format()
        context = stream.codec_context
        context.time_base = self.time_base
        context.sample_aspect_ratio = pixel_aspect
        context.thread_count = 1  # the same bytes every time, and few frames held; fusion takes far longer
        if stream.pix_fmt.startswith("yuv"):
            context.colorspace, context.color_range = _H273[self.size[0] >= HD_LINES], 1
        context.color_primaries, context.color_trc = self.encoding.primaries, self.encoding.transfer
        if pixel_aspect != 1 and (self.codec != "libx264" and self.codec != "mpeg4"):
            self.notes.append(
                f"{self.path}: the shape of the pixels, {pixel_aspect}, is not kept by {self.codec}; H.264 keeps it"
            )
        return stream

    def _pixel_format(self) -> str:
        deep = self.encoding.bit_depth == 16
        if self.encoding.lossless:
            return ("gbrp16le" if deep else "bgr0") if self.color else ("gray16le" if deep else "gray")
        odd = any(side % 2 for side in self.size)
        if not odd or self.codec.startswith("libvpx"):  # VP8 and VP9 hold odd sides with halved chroma
            return "yuv420p"
        if self.codec != "libx264":
            height, width = self.size
            expected = f"even sides for {self.codec}"
            raise problem(
                "size", f"{width}x{height}", expected, "Crop or pad the sources, or write .webm or --lossless."
            )
        self.notes.append(
            f"{self.path}: odd sides, so chroma is not halved (H.264 4:4:4), which some players do not show; .webm does"
        )
        return "yuv444p"

    def _add_audio(self) -> Any:
        if not self._audio:
            return None
        template = self._audio.template(_CONTAINERS[self.path.suffix.lower()][0])
        if template is None:
            self.notes.append(
                f"{self.path}: without the audio of {self._audio.path}, since {self.path.suffix} cannot hold "
                f"{self._audio.codec}; write .mkv to keep it"
            )
            return None
        return self._container.add_stream_from_template(template)

    def write(self, data: np.ndarray, time: Fraction, duration: Fraction) -> None:
        """One frame, float (H, W) or (H, W, 3) in [0, 1]; seconds, ``time`` from the file's beginning.

        The audio goes along up to the end of the frame.
        """
        stamps = [round(value / self.time_base) for value in (time, duration)]
        with self._errors():
            self._container.mux(self._video.encode(self._frame(data, *stamps)))
            self._copy_audio(time + duration)
        self.frames += 1

    def _frame(self, data: np.ndarray, stamp: int, duration: int) -> Any:
        import numpy as np

        deep = self.encoding.bit_depth == 16
        array = quantise(data, "frame", self.encoding.bit_depth)
        if array.ndim == 2 and (self.color or not self.encoding.lossless):
            array = np.repeat(array[..., None], 3, axis=2)
        kinds = ("gray16le", "rgb48le") if deep else ("gray", "rgb24")
        frame = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(array), format=kinds[array.ndim == 3])
        wanted = self._video.pix_fmt
        if wanted.startswith("yuv"):
            space = av_spaces()[self.size[0] >= HD_LINES]
            frame = frame.reformat(
                format=wanted, dst_colorspace=space, dst_color_range="MPEG", interpolation=fine_scaling()
            )
        elif wanted != frame.format.name:
            frame = frame.reformat(format=wanted, interpolation=fine_scaling())
        frame.pts, frame.duration, frame.time_base = stamp, duration, self.time_base
        return frame

    def _copy_audio(self, until: Fraction) -> None:
        if self._audio and self._sound:
            for packet in self._audio.until(until):
                packet.stream = self._sound
                self._container.mux(packet)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with uninterrupted():
            try:
                if kind is None:
                    self._finish(self.path, self._overwrite)
                elif self._partial and self.frames:
                    with contextlib.suppress(DDFMError):  # the first error is the one to tell
                        self._finish(self._partial, self._overwrite)
            finally:
                with contextlib.suppress(Exception):
                    self._container.close()
                if self._partial and not self.kept:
                    self._rescue(self._partial)
                with contextlib.suppress(OSError):  # gone if it was renamed
                    self._part.unlink()

    def _rescue(self, path: Path) -> None:
        """Keep a file without its end, on a full disk, where its format is one that plays without."""
        av = import_av()
        if _CONTAINERS[self.path.suffix.lower()][0] not in ("matroska", "webm"):
            return
        with contextlib.suppress(OSError, av.error.FFmpegError, IndexError):
            with av.open(str(self._part)) as file:
                self.frames = sum(packet.size > 0 for packet in file.demux(video=0))
            if self.frames:
                self._part.replace(path) if self._overwrite else publish(self._part, path)
                self.kept = path

    def _finish(self, path: Path, overwrite: bool) -> None:
        with self._errors():
            self._container.mux(self._video.encode(None))
            self._container.close()
            with self._part.open("rb") as file:
                os.fsync(file.fileno())
        with os_errors(path):
            self._part.replace(path) if overwrite else publish(self._part, path)
        self.kept = path

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """What FFmpeg and the system say about the output as a DDFMError; the part file goes when opening fails."""
        av = import_av()
        try:
            with os_errors(self.path):
                yield
        except av.error.FFmpegError as error:
            raise problem(str(self.path), error, "a file that can be written", "Try another format: .mkv.") from error
