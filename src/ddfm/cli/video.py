"""``ddfm fuse`` for clips: videos, or folders of frames that become one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddfm.cli._shared import progress_bar, say

if TYPE_CHECKING:
    from ddfm.beside import Beside
    from ddfm.fusion import FuseConfig
    from ddfm.video import ClipConfig

__all__ = [
    "Crf",
    "Fps",
    "KeepPartial",
    "Lossless",
    "Offset",
    "Tolerance",
    "check_clip_options",
    "check_other_options",
    "clip_config",
    "is_clip",
    "run",
]

Fps = Annotated[
    str | None, typer.Option("--fps", help="Clips: frames a second of a folder of frames, 25 or 30000/1001.")
]
Offset = Annotated[
    str | None, typer.Option("--offset", help="Clips: seconds by which all but the last are moved to later times.")
]
Tolerance = Annotated[
    str | None,
    typer.Option("--tolerance", help="Clips: seconds that frames may be apart.  [default: 0.6 of a frame]"),
]
Crf = Annotated[
    int | None, typer.Option("--crf", help="Clips: quality on the encoder's scale, lower is better.  [default: 18]")
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Clips: FFV1 in .mkv, with --bit-depth 16 if wanted.")]
KeepPartial = Annotated[
    bool,
    typer.Option("--keep-partial", help="Clips: keep what was fused when stopped; take sources that break off."),
]


def is_clip(sources: Sequence[Path], output: Path) -> bool:
    """Whether the sources are videos by their content, or a video is to be written, be it of a kind that cannot be."""
    from ddfm.io.video import VIDEO_SUFFIXES, is_video
    from ddfm.io.video_writer import OUT_SUFFIXES

    suffixes = OUT_SUFFIXES if output.is_dir() else VIDEO_SUFFIXES
    return any(is_video(source) for source in sources) or output.suffix.lower() in suffixes


def clip_config(
    fps: str | None,
    offset: str | None,
    tolerance: str | None,
    crf: int | None,
    lossless: bool,
    keep_partial: bool,
) -> ClipConfig:
    """The options of a clip; DDFMError for what is no number."""
    from ddfm.video import ClipConfig

    return ClipConfig(
        fps=_number("--fps", fps, "frames a second such as 25, 29.97 or 30000/1001"),
        offset=_number("--offset", offset, "seconds such as 0.04, -1.5 or 1/25") or Fraction(0),
        tolerance=_number("--tolerance", tolerance, "seconds such as 0.04 or 1/25"),
        crf=crf,
        lossless=lossless,
        keep_partial=keep_partial,
    )


def check_clip_options(clip: ClipConfig) -> None:
    """Refuse options of a clip where pictures are fused. Raises DDFMError."""
    from ddfm._checks import problem
    from ddfm.video import ClipConfig, settings

    plain = settings(ClipConfig())
    given = ["--" + name.replace("_", "-") for name, value in settings(clip).items() if value != plain[name]]
    if given:
        remedy = "Folders of frames become one clip where --output ends in .mp4, .mov, .mkv or .webm."
        raise problem(", ".join(given), "no clip among the sources", "videos", remedy)


def check_other_options(given: Collection[str]) -> None:
    """Refuse options for folders of pictures and for volumes; ``given``: what the user typed. Raises DDFMError."""
    from ddfm._checks import problem

    others = ["pattern", "recursive", "columns", "skip_unmatched", "name", "suffix"]
    others += ["window", "series", "resample", "keep_patient"]
    if found := ["--" + name.replace("_", "-") for name in others if name in given]:
        remedy = "A clip is one file, --output names it; its frames are paired by time."
        raise problem(", ".join(found), "a clip", "pictures or volumes", remedy)


def _number(argument: str, text: str | None, expected: str) -> Fraction | None:
    from ddfm._checks import problem

    try:
        return None if text is None else Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise problem(argument, repr(text), expected) from None


def run(
    sources: Sequence[Path],
    output: Path,
    config: FuseConfig,
    clip: ClipConfig,
    beside: Beside,
    transform: Path | None,
    overwrite: bool,
    report: Path | None,
) -> int:
    """Fuse one clip with a progress bar, say what became of it, and return the exit code; transform: a file read."""
    from ddfm import engine
    from ddfm._checks import DDFMError, explained
    from ddfm.video import files_of

    output = _output(sources, output)
    if report:
        _check_report(report, output)
    beside.check_apart([output], [*files_of(sources), *([transform] if transform else [])], report)
    record: dict[str, Any]
    try:
        record = _fuse(sources, output, config, clip, beside, overwrite)
    except KeyboardInterrupt as stop:
        return _stopped(stop, output)
    except (DDFMError, MemoryError, RuntimeError) as error:
        text = str(explained(error, "sources", "frames that fit", "Reduce them, or say --tile 256."))
        say(f"error: {text}", "red")
        if report:
            inputs = [{"path": str(path)} for path in sources]
            engine.append_record(report, {"tool": "ddfm", "status": "failed", "output": str(output), "inputs": inputs,
                                          "error": text})  # fmt: skip
        return 2
    if report:
        engine.append_record(report, record)
    _tell(record)
    return 0


def _check_report(report: Path, output: Path) -> None:
    """Refuse what is no report, and the names of the clip, also behind a link. Raises DDFMError."""
    from ddfm import engine
    from ddfm._checks import problem
    from ddfm.video import partial_path

    if report.resolve() in (output.resolve(), partial_path(output).resolve()):
        raise problem("--report", report, "another name than the clip's", "End it in .jsonl.")
    engine.check_report(report)


def _output(sources: Sequence[Path], output: Path) -> Path:
    """The file to write, and no more than videos and folders to read. Raises DDFMError."""
    from ddfm._checks import problem
    from ddfm.io.video import is_video

    for source in sources:
        if not source.exists():
            raise problem(str(source), "no such file or folder", "a video or a folder of frames", "Check the path.")
        if not source.is_dir() and not is_video(source):
            remedy = "A single picture goes with pictures; give a clip as a video or as a folder of frames."
            raise problem(str(source), "a file that is no video", "a video or a folder of frames", remedy)
    return output / f"{sources[0].stem}.mp4" if output.is_dir() else output


def _fuse(
    sources: Sequence[Path], output: Path, config: FuseConfig, clip: ClipConfig, beside: Beside, overwrite: bool
) -> dict[str, Any]:
    from ddfm.video import fuse_videos

    with progress_bar() as progress:
        task = progress.add_task("reading the clips", total=None)

        def on_frame(done: int, of: int) -> None:
            progress.update(task, description=output.name, completed=done, total=max(of, done))

        return fuse_videos(sources, output, config, clip, overwrite=overwrite, on_frame=on_frame, beside=beside)


def _stopped(stop: KeyboardInterrupt, output: Path) -> int:
    from ddfm.video import Stopped

    frames, kept = (stop.frames, stop.kept) if isinstance(stop, Stopped) else (0, None)
    left = f"they are in {kept}" if kept else f"{output} was not written; --keep-partial would keep them"
    say(f"stopped after {frames} frames; {left}" if frames else "stopped", "yellow")
    return 130


def _tell(record: dict[str, Any]) -> None:
    """Warnings, then the one line of the result."""
    for note in record["warnings"]:
        say(f"warning: {note}", "yellow")
    cuts = len(record["cuts"])
    parts = [f"{record['frames']} frames", f"{record['seconds_per_frame']} s each", record["preset"], record["codec"]]
    if cuts:
        parts.append(f"{cuts} cut{'s' * (cuts > 1)}")
    if record["audio"]:
        parts.append(f"audio {record['audio']['codec']}")
    typer.echo(f"{record['output']}  ({', '.join(parts)})")
