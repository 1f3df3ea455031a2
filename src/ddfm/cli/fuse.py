"""``ddfm fuse``: files of one scene, folders, a manifest, clips, or volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddfm.cli import video, volumes
from ddfm.cli._folders import Columns, Name, Patterns, Recursive, SkipUnmatched, Suffix
from ddfm.cli._outcomes import summary, tell_skipped
from ddfm.cli._preparing import Align, Checkerboard, Clahe, SaveTransform, TransformFile, ValueRange
from ddfm.cli._shared import Device, Overwrite, PresetOption, PriorOption, Seed, Steps, progress_bar, say, typed

if TYPE_CHECKING:
    from ddfm.beside import Beside
    from ddfm.config import FuseConfig
    from ddfm.engine import Job, Outcome

__all__ = ["fuse"]

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SOURCE",
        help="IR VIS, or more: files of one scene; folders, paired by stem; one folder with --pattern; a CSV manifest; "
        "videos; volumes (NIfTI, DICOM).",
        show_default=False,
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write; for many scenes the folder.", show_default=False)
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16 or float16, of the network.  [default: the preset's]"),
]
Tone = Annotated[
    str | None,
    typer.Option("--tone", help="Stretch of the result: none, minmax or percentile.  [default: the preset's]"),
]
BitDepth = Annotated[int, typer.Option("--bit-depth", help="8 or 16 (PNG and TIFF) bits of the result.")]
Tile = Annotated[
    int | None,
    typer.Option("--tile", help="Pixels a side that the network sees at once; 0: all.  [default: above 4 MP]"),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network first: for many pictures of a size. Changes rounding."),
]
NoiseStd = Annotated[
    str | None,
    typer.Option(
        "--noise-std",
        help="Noise of the sources on [0, 1]: 0.06, or 0.06,0.02 for each; auto to estimate it; 0: none.  "
        "[default: the preset's]",
    ),
]
Report = Annotated[
    Path | None, typer.Option("--report", help="Append one JSON line for each pair, or clip, to this file.")
]


def fuse(
    ctx: typer.Context,
    sources: Sources,
    output: Output,
    preset: PresetOption = "balanced",
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    tone: Tone = None,
    bit_depth: BitDepth = 8,
    tile: Tile = None,
    compile: Compile = False,
    noise_std: NoiseStd = None,
    align: Align = "none",
    transform: TransformFile = None,
    save_transform: SaveTransform = None,
    checkerboard: Checkerboard = None,
    value_range: ValueRange = None,
    clahe: Clahe = False,
    pattern: Patterns = None,
    recursive: Recursive = False,
    columns: Columns = None,
    skip_unmatched: SkipUnmatched = False,
    name: Name = "{stem}",
    suffix: Suffix = ".png",
    overwrite: Overwrite = False,
    report: Report = None,
    fps: video.Fps = None,
    offset: video.Offset = None,
    tolerance: video.Tolerance = None,
    crf: video.Crf = None,
    lossless: video.Lossless = False,
    keep_partial: video.KeepPartial = False,
    window: volumes.Window = None,
    series: volumes.Series = None,
    resample: volumes.Resample = False,
    keep_patient: volumes.KeepPatient = False,
) -> None:
    """Fuse two or more pictures of one scene, the infrared (or PET, SPECT, CT) first; or whole folders of them.

    Colour is kept. A folder run that was stopped goes on where it stopped when the command is given again. Videos, and
    folders of frames where the output is a video, become one clip. NIfTI files, DICOM files and folders with a DICOM
    series are fused as volumes, slice by slice; the result is not for diagnosis.
    """
    from ddfm.beside import Beside
    from ddfm.config import FuseConfig

    config = FuseConfig(
        preset=preset,
        prior=prior,
        steps=steps,
        seed=seed,
        device=device,
        dtype=dtype,
        tone=tone,
        bit_depth=bit_depth,
        tile=tile,
        compile=compile,
        noise_std=noise_std,
        align=align,
        transform=transform,
        range=value_range,
        clahe=clahe,
    )
    given = typed(ctx)
    clip = video.clip_config(fps, offset, tolerance, crf, lossless, keep_partial)
    if video.is_clip(sources, output):
        video.check_other_options(given)
        beside = Beside(save_transform, checkerboard)
        raise typer.Exit(video.run(sources, output, config, clip, beside, transform, overwrite, report))
    video.check_clip_options(clip)
    for_volumes = volumes.Options(window, series, resample, keep_patient)
    if volumes.wanted(sources, for_volumes):
        raise typer.Exit(volumes.fuse(sources, output, config, for_volumes, given, overwrite=overwrite, report=report))
    for_many = {
        "recursive": recursive,
        "patterns": pattern or (),
        "columns": [column.strip() for column in columns.split(",")] if columns else (),
        "skipped": [] if skip_unmatched else None,
        "name": name,
        "suffix": suffix,
        "preset": preset.partition("@")[0],
    }
    raise typer.Exit(
        _pictures(sources, output, config, for_many, transform, save_transform, checkerboard, overwrite, report)
    )


def _pictures(
    sources: list[Path],
    output: Path,
    config: FuseConfig,
    for_many: dict[str, Any],
    transform: Path | None,
    save_transform: Path | None,
    checkerboard: Path | None,
    overwrite: bool,
    report: Path | None,
) -> int:
    """Pictures of one scene or of many: all that can be refused is refused first; the exit code. Raises DDFMError."""
    from ddfm import engine
    from ddfm.beside import Beside

    jobs = engine.plan(sources, output, **for_many)
    tell_skipped(for_many["skipped"])
    folder = None if engine.kind_of(sources) == "files" else output
    beside = Beside(save_transform, checkerboard, folder)
    _check(jobs, config, folder, overwrite, report)
    beside.check(config, overwrite)
    read = [*sources, *(source for job in jobs for source in job.sources), *([transform] if transform else [])]
    beside.check_apart([job.output for job in jobs], [path for path in read if path.is_file()], report)
    _hint(jobs[0], config.preset)
    return _run(jobs, config, folder, overwrite, report, beside)


def _check(jobs: list[Job], config: FuseConfig, folder: Path | None, overwrite: bool, report: Path | None) -> None:
    """Refuse what can be known to fail before the prior is loaded. Raises DDFMError."""
    from ddfm import engine

    config.check_count(len(jobs[0].sources))
    for suffix in sorted({job.output.suffix for job in jobs}):
        config.check_format(suffix)
    engine.check_writable(jobs)
    if not folder:
        engine.check_free(jobs[0].output, overwrite)
    if report:
        engine.check_report(report, folder)


def _hint(job: Job, preset: str) -> None:
    """Say that there are settings for scans, where the first source's name says that it is one."""
    from ddfm.datasets import is_scan
    from ddfm.presets import MEDICAL

    other = MEDICAL.get(preset.split("@")[0])
    if other and is_scan(job.sources[0]):
        say(f"note: {job.sources[0].name} is called a scan; --preset {other} is made for scans", "yellow")


def _run(
    jobs: list[Job], config: FuseConfig, folder: Path | None, overwrite: bool, report: Path | None, beside: Beside
) -> int:
    """Fuse with a progress bar, say what became of the pairs, and return the exit code."""
    from ddfm import engine
    from ddfm.fusion import Fuser

    preset = config.resolve()
    with progress_bar() as progress:
        task = progress.add_task("loading the prior", total=len(jobs) * max(preset.steps, 1))

        def on_step(job: Job, done: int, of: int) -> None:
            progress.update(task, description=job.output.name, advance=1)

        outcomes: list[Outcome] = []
        journal = folder / engine.JOURNAL if folder else None
        options = {"overwrite": overwrite, "journal": journal, "report": report, "on_step": on_step, "beside": beside}
        try:
            fuser = Fuser(config)
            for outcome in engine.run(jobs, fuser, **options):  # type: ignore[arg-type]
                outcomes.append(outcome)
                progress.update(task, completed=len(outcomes) * max(preset.steps, 1))
        except KeyboardInterrupt:
            say(
                f"stopped after {len(outcomes)} of {len(jobs)}; give the same command again to go on",
                "yellow",
            )
            return 130
    return summary(outcomes, folder)
