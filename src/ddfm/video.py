"""Clips: two or more videos, or folders of frames, fused frame by frame into one file.

The last source leads: the result has its frames, time stamps and, where there is any, its audio. Every other source
gives the frame that is nearest in time. Frames are read, fused and written one by one; of each source two are held.
Scales, levels and the noise field are shared along a scene (``SceneFuser``), the gain of thermal cameras is followed
(``ddfm.steady``), and at a cut both begin anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ddfm._checks import DDFMError, check_range, problem
from ddfm._provenance import now, versions
from ddfm.beside import Beside
from ddfm.cuts import CutDetector
from ddfm.fusion import FuseConfig, Fuser, alignment, eight_bits
from ddfm.io import Image, file_sha256, list_images, write_together
from ddfm.io.audio import AudioTrack
from ddfm.io.clip import Clip, ClipInfo
from ddfm.io.ranges import USUAL
from ddfm.io.video import open_clips
from ddfm.io.video_writer import ClipWriter, Encoding, check_encoding
from ddfm.opening import Preparation
from ddfm.partners import Follower, left_out_notes
from ddfm.pictures import to_luma
from ddfm.pipeline import MIN_SIZE
from ddfm.presets import MEDICAL
from ddfm.registration import Transform
from ddfm.sequence import SceneFuser
from ddfm.steady import GainFollower

__all__ = ["ClipConfig", "Stopped", "files_of", "fuse_videos", "partial_path"]

#: Of levels and scales, what the frames before keep at each new one (benchmarks/flicker.py: it matters little).
MEMORY = 0.5
#: Of the longer of two frame periods, how far a partner may be away: half is what constant rates need, the rest jitter.
_NEAR = Fraction(6, 10)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """How clips are put together and written.

    fps: frames a second of folders. offset: seconds by which every source but the last one is moved to later times.
    tolerance: seconds that a partner may be away; None: 0.6 of the longer frame period. crf, lossless: see
    ``ddfm.io.video_writer.Encoding``. keep_partial: what was fused until an error or a stop stays, as
    ``partial_path(output)``, and sources that break off are taken as far as they go. memory: see ``SceneFuser``.
    steady: follow the gain of the sources but the last; not with settings for scans or stacks.
    """

    fps: Fraction | None = None
    offset: Fraction = Fraction(0)
    tolerance: Fraction | None = None
    crf: int | None = None
    lossless: bool = False
    keep_partial: bool = False
    memory: float = MEMORY
    steady: bool = True

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 10_000:
            raise problem("--fps", float(self.fps), "frames a second, above 0")
        if self.tolerance is not None and self.tolerance < 0:
            raise problem("--tolerance", float(self.tolerance), "seconds, 0 or more")
        check_range("memory", self.memory, 0, 1)


class Stopped(KeyboardInterrupt):
    """Ctrl-C in the middle of a clip: how many frames were fused, and the file that they were left in, if any."""

    def __init__(self, frames: int, kept: Path | None) -> None:
        super().__init__()
        self.frames, self.kept = frames, kept


def partial_path(output: Path) -> Path:
    """``fused.mp4`` -> ``fused.partial.mp4``."""
    return output.with_name(f"{output.stem}.partial{output.suffix}")


def fuse_videos(
    sources: Sequence[Path],
    output: Path,
    config: FuseConfig | None = None,
    clip: ClipConfig | None = None,
    *,
    overwrite: bool = False,
    on_frame: Callable[[int, int], Any] | None = None,
    beside: Beside | None = None,
) -> dict[str, Any]:
    """Fuse video files or folders of frames, the infrared one first, into ``output``; the report.

    beside: where to keep the transform, and a checkerboard of the first frames that are fused, which it is estimated
    on. on_frame(done, of) is called for each frame of the last source. Raises DDFMError, before any work, for sources
    that do not fit together and for what cannot be written; ``Stopped`` at Ctrl-C.
    """
    begun = time.perf_counter()
    config, clip = config or FuseConfig(), clip or ClipConfig()
    beside = beside or Beside()
    config.resolve()
    config.check_count(len(sources))
    clips = _open(sources, clip, config.preparation)
    encoding = _encoding(clips, config, clip)
    check_encoding(output, encoding)
    _check_output(sources, output, clip, overwrite)
    beside.check(config, overwrite)
    beside.check_apart([output], files_of(sources))
    work = _Work(clips, Fuser(config), clip)
    moments = work.moments(on_frame or (lambda done, of: None))
    first = next(moments, None)
    if first is None:
        remedy = "Compare their beginnings, and move one with --offset, or allow more with --tolerance."
        raise problem("sources", "no two frames of one time", "clips that overlap", remedy)
    report = work.write(first, moments, output, encoding, overwrite)
    _write_beside(beside.contents(output, work.transforms, work.boards), output, overwrite)
    seconds = time.perf_counter() - begun
    return {
        "tool": "ddfm",
        "time": now(),
        "status": "fused",
        "output": str(output),
        "output_sha256": file_sha256(output),
        "inputs": [_describe(c.info, config.clahe) for c in clips],
        **work.fuser.settings,
        "versions": versions() | {"av": _av_version()},
        "clip": settings(clip),
        **report,
        "seconds": round(seconds, 3),
        "seconds_per_frame": round(seconds / max(1, report["frames"]), 4),
    }


def settings(clip: ClipConfig) -> dict[str, Any]:
    """Plain values for JSON."""
    plain = {f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)}
    return {key: float(value) if isinstance(value, Fraction) else value for key, value in plain.items()}


def _av_version() -> str:
    from importlib.metadata import version

    return version("av")


def _describe(info: ClipInfo, local_contrast: bool) -> dict[str, Any]:
    told = info.describe() | {"sha256": file_sha256(info.path) if info.path.is_file() else None}
    if "range" in told:
        told["range"]["local_contrast"] = local_contrast and not info.is_color
    return told


def _write_beside(contents: dict[Path, bytes], output: Path, overwrite: bool) -> None:
    try:
        write_together(contents, overwrite=overwrite)
    except DDFMError as error:
        raise DDFMError(f"{error} The clip itself is in {output}.") from error


def files_of(sources: Sequence[Path]) -> list[Path]:
    """The files that are read: videos, and the frames in folders. Raises DDFMError."""
    return [file for source in sources for file in (list_images(source) if source.is_dir() else [source])]


# --- before the work --------------------------------------------------------------------------------


def _open(sources: Sequence[Path], clip: ClipConfig, preparation: Preparation) -> list[Clip]:
    """The clips, of one size unless they are aligned, long enough and whole, or DDFMError."""
    if len(sources) < 2:
        raise problem("sources", f"{len(sources)} source(s)", "two or more")
    clips = open_clips(sources, clip.fps, preparation.ranges or (USUAL,))
    infos = [c.info for c in clips]
    if len({info.size for info in infos}) > 1 and not preparation.aligns:
        got = ", ".join(f"{info.path} is {info.size[1]}x{info.size[0]}" for info in infos)
        remedy = "--align resize stretches them to the last one's; --align affine lines them up as well."
        raise problem("sources", got, "one size (width x height)", remedy)
    if min(infos[0].size) < MIN_SIZE:
        height, width = infos[0].size
        raise problem(str(infos[0].path), f"{width}x{height} pixels", f"{MIN_SIZE}x{MIN_SIZE} or more")
    for info in infos:
        if info.breaks_off is not None and not clip.keep_partial:
            remedy = "Copy or export it again, or take it as far as it goes with --keep-partial."
            raise problem(
                str(info.path), f"a file that breaks off at {float(info.breaks_off):.2f} s", "all of it", remedy
            )
    return clips


def _encoding(clips: Sequence[Clip], config: FuseConfig, clip: ClipConfig) -> Encoding:
    lead = clips[-1].info
    return Encoding(clip.crf, clip.lossless, config.bit_depth, lead.primaries, lead.transfer)


def _check_output(sources: Sequence[Path], output: Path, clip: ClipConfig, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise problem("--output", output, "a file in an existing folder", f"Create it: mkdir -p {output.parent}")
    for path in [output, *([partial_path(output)] if clip.keep_partial else [])]:
        if any(path.exists() and path.samefile(source) for source in sources):
            raise problem("--output", path, "another file than a source", "Choose another name or folder.")
        if not overwrite and os.path.lexists(path):
            raise problem("--output", f"{path}, which exists", "a new name", "Allow it with --overwrite.")


# --- frames that belong together --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """Frames that are fused together: their time in the leading source, seconds, and their pictures."""

    time: Fraction
    images: list[Image]


class _Work:
    """The fusion of one clip: what is counted and noted on the way ends up in the report."""

    def __init__(self, clips: Sequence[Clip], fuser: Fuser, clip: ClipConfig) -> None:
        self.clips, self.fuser, self.clip = clips, fuser, clip
        self.lead = clips[-1]
        self.followers = [Follower(c, clip.offset, self._tolerance(c)) for c in clips[:-1]]
        self.scene = SceneFuser(fuser, clip.memory)
        preset = fuser.preset
        steady = clip.steady and preset.name not in MEDICAL.values() and preset.chroma == "last"
        self.gains = [GainFollower() if steady else None for _ in clips[:-1]]
        self.cut = CutDetector()
        self.cuts: list[float] = []
        self.last_cut = Fraction(0)
        self.alone: list[Fraction] = []  # times of leading frames without a partner
        self.times: list[Fraction] = []  # of the first and the last moment that were fused
        self.rest = 0  # leading frames that were not even read
        self.notes: list[str] = []
        self.transforms: tuple[Transform, ...] = ()
        self.boards: list[np.ndarray] = []  # where aligned, what the first frames show on one grid, uint8
        self.aligned: dict[str, Any] = {}

    def _tolerance(self, other: Clip) -> Fraction:
        longer = max(1 / other.info.rate, 1 / self.lead.info.rate)
        return self.clip.tolerance if self.clip.tolerance is not None else _NEAR * longer

    def moments(self, on_frame: Callable[[int, int], Any]) -> Iterator[Moment]:
        """Frames that belong together, in order."""
        of = self.lead.info.frames
        for count, frame in enumerate(self.lead.frames(), 1):
            partners = [follower.at(frame.time) for follower in self.followers]
            found = [partner.image for partner in partners if partner]
            if len(found) == len(partners):
                yield Moment(frame.time, [*found, frame.image])
            else:
                self.alone.append(frame.time)
                if any(follower.over(frame.time) for follower in self.followers):
                    self.rest = max(0, of - count)  # nothing more can match: they need not be decoded
                    break
            on_frame(count, of)
        on_frame(of, of)

    def _begin(self, first: Moment) -> list[str]:
        """Bring the first frames together; every frame will be as they are. What they tell. Raises DDFMError."""
        preparation = self.fuser.config.preparation
        gathered = preparation.gather(first.images)
        self.scene.settle(gathered)
        if gathered.transforms:
            self.transforms = gathered.transforms
            self.boards = [eight_bits(image.data) for image in gathered.images]
            self.aligned = alignment(gathered)
            if not preparation.transforms:
                self.aligned["align"]["estimated_at"] = round(float(first.time), 4)
        return gathered.notes

    def write(
        self, first: Moment, moments: Iterator[Moment], output: Path, encoding: Encoding, overwrite: bool
    ) -> dict[str, Any]:
        """Fuse and write all moments; what was done, for the report."""
        colored = color_sources(self.clips, first.images, self.fuser.preset.chroma)
        lead = self.lead.info
        start = first.time - (self.alone[0] if self.alone else first.time)  # 0 unless the beginning was left out
        source = next((c.info for c in reversed(self.clips) if c.info.audio), None)
        self.notes = self._begin(first) + self.fuser.palette_notes(first.images[0], str(self.clips[0].info.path))
        with contextlib.ExitStack() as stack:
            audio = stack.enter_context(AudioTrack(source.path, start - self._offset(source))) if source else None
            writer = ClipWriter(
                output,
                size=lead.size,
                rate=lead.rate,
                time_base=lead.time_base,
                color=bool(colored),
                pixel_aspect=lead.pixel_aspect,
                encoding=encoding,
                audio=audio,
                partial=partial_path(output) if self.clip.keep_partial else None,
                overwrite=overwrite,
            )
            try:
                with writer:
                    for moment in itertools.chain([first], moments):
                        picture = self.fuse(moment, colored)
                        writer.write(picture, moment.time - start, 1 / lead.rate)
            except KeyboardInterrupt:
                raise Stopped(writer.frames, writer.kept) from None
            except DDFMError as error:
                if not self.clip.keep_partial:
                    raise
                raise DDFMError(f"{error} {_kept_until(writer)}") from error
        return self._report(writer, source)

    def _offset(self, info: ClipInfo) -> Fraction:
        return Fraction(0) if info is self.lead.info else self.clip.offset

    def fuse(self, moment: Moment, colored: frozenset[int]) -> np.ndarray:
        """One fused picture, float32 (H, W) or (H, W, 3)."""
        images = [image if k in colored else as_grey(image) for k, image in enumerate(moment.images)]
        self._begin_anew(self.cut(*(image.data for image in images)), moment.time)
        passed = float(moment.time - self.times[-1]) if self.times else 0.0
        for k, gain in enumerate(self.gains):
            if gain and k not in colored:
                images[k] = dataclasses.replace(images[k], data=gain(images[k].data, passed))
        self.times = [*self.times[:1], moment.time]
        return self.scene.fuse(*images)

    def _begin_anew(self, cuts: Sequence[bool], moment: Fraction) -> None:
        """Forget what a cut ends; where a slower camera shows a cut later than another, that is the same one."""
        if not any(cuts):
            return
        self.scene.reset()
        for gain, cut in zip(self.gains, cuts, strict=False):
            if gain and cut:
                gain.reset()
        slowest = max(1 / c.info.rate for c in self.clips)
        if not self.cuts or moment - self.last_cut > 2 * slowest:
            self.cuts.append(round(float(moment), 3))
        self.last_cut = moment

    def _report(self, writer: ClipWriter, audio: ClipInfo | None) -> dict[str, Any]:
        fused = writer.frames
        others = {
            str(f.clip.info.path): {"used": f.used, "again": f.again, "left_out": max(0, f.clip.info.frames - f.used)}
            for f in self.followers
        }
        left_out = left_out_notes(self.lead.info, self.followers, self.times, self.alone, self.rest)
        return {
            "frames": fused,
            "fps": round(float(self.lead.info.rate), 4),
            "left_out": len(self.alone) + self.rest,
            "partners": others,
            "cuts": self.cuts,
            "codec": writer.codec,
            "audio": {"codec": writer.audio, "from": str(audio.path)} if writer.audio and audio else None,
            **self.aligned,
            **({"noise_std": [round(x, 5) for x in self.scene.noise]} if any(self.scene.noise) else {}),
            "warnings": [*self.notes, *self._sources(), *left_out, *writer.notes],
        }

    def _sources(self) -> Iterator[str]:
        """What the sources are like."""
        for clip in self.clips:
            yield from clip.notes()
            if clip.info.breaks_off is not None:
                where = f"{float(clip.info.breaks_off):.2f} s"
                yield f"{clip.info.path}: breaks off at {where}, and is taken as far as it goes"


def _kept_until(writer: ClipWriter) -> str:
    """What --keep-partial did when an error ended the work."""
    if writer.kept:
        return f"The {writer.frames} frames until then are in {writer.kept}."
    if not writer.frames:
        return "No frame was written until then, so --keep-partial keeps none."
    suffix = writer.path.suffix
    return (
        f"--keep-partial keeps nothing: {suffix} does not play without its end, which could not be written; .mkv does."
    )


def color_sources(clips: Sequence[Clip], images: Sequence[Image], chroma: str) -> frozenset[int]:
    """Which sources give the colour: all that are stored with colour, or the last that shows any, or that is so stored.

    Chosen once for the whole clip: a frame that happens to be black must not change it.
    """
    stored = [k for k, c in enumerate(clips) if c.info.is_color]
    if chroma == "all":
        return frozenset(stored)
    showing = [k for k in stored if _shows_color(images[k])]
    return frozenset((showing or stored)[-1:])


def _shows_color(image: Image) -> bool:
    """Whether one pixel in a thousand has channels further apart than what coding does to grey."""
    if image.data.ndim == 2:
        return False
    return bool(np.quantile(np.ptp(image.data, axis=-1), 0.999) > 12 / 255)


def as_grey(image: Image) -> Image:
    """The luma of a picture."""
    if image.data.ndim == 2:
        return image
    return dataclasses.replace(image, data=to_luma(image)[0, 0].numpy())
