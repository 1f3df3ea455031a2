"""``ddfm fuse``: two files or two folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddfm.cli import video
from ddfm.cli._shared import Device, Overwrite, PresetOption, PriorOption, Seed, Steps, progress_bar, say

if TYPE_CHECKING:
    from ddfm.engine import Job, Outcome
    from ddfm.fusion import FuseConfig

__all__ = ["fuse"]

Sources = Annotated[
    list[Path],
    typer.Argument(help="IR VIS: two files, or two folders paired by file stem.", show_default=False),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write, or folder for folders.", show_default=False)
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
        help="Noise of the sources on [0, 1]: 0.06, or 0.06,0.02 for each, or auto to estimate it.  [default: none]",
    ),
]
Suffix = Annotated[str, typer.Option("--suffix", help="Format of the results of a folder run.")]
SkipUnmatched = Annotated[
    bool, typer.Option("--skip-unmatched", help="Leave out files without a partner in the other folder.")
]
Report = Annotated[
    Path | None, typer.Option("--report", help="Append one JSON line for each pair, or clip, to this file.")
]


def fuse(
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
    suffix: Suffix = ".png",
    overwrite: Overwrite = False,
    skip_unmatched: SkipUnmatched = False,
    report: Report = None,
    fps: video.Fps = None,
    offset: video.Offset = None,
    tolerance: video.Tolerance = None,
    crf: video.Crf = None,
    lossless: video.Lossless = False,
    keep_partial: video.KeepPartial = False,
) -> None:
    """Fuse two pictures of one scene, the infrared (or PET, SPECT, CT) first; or two folders of them; or two videos.

    Colour is kept. A folder run that was stopped goes on where it stopped when the command is given again. Videos, and
    folders of frames with a video as the output, become one clip.
    """
    from ddfm import engine
    from ddfm.fusion import FuseConfig

    config = FuseConfig(preset, prior, steps, seed, device, dtype, tone, bit_depth, tile, compile, noise_std)
    clip = video.clip_config(fps, offset, tolerance, crf, lossless, keep_partial)
    if video.is_clip(sources, output):
        video.check_folder_options(suffix, skip_unmatched)
        raise typer.Exit(video.run(sources, output, config, clip, overwrite, report))
    video.check_clip_options(clip)
    jobs = engine.plan(sources, output, skip_unmatched=skip_unmatched, suffix=suffix)
    folder = output if sources[0].is_dir() else None
    config.check_count(len(sources))
    _hint(jobs[0], preset)
    config.check_format(jobs[0].output.suffix)
    engine.check_writable(jobs)
    if not folder:
        engine.check_free(jobs[0].output, overwrite)
    if report:
        engine.check_report(report, folder)
    raise typer.Exit(_run(jobs, config, folder, overwrite, report))


def _hint(job: Job, preset: str) -> None:
    """Say that there are settings for scans, where the first source's name says that it is one."""
    from ddfm.datasets import is_scan
    from ddfm.presets import MEDICAL

    other = MEDICAL.get(preset.split("@")[0])
    if other and is_scan(job.sources[0]):
        say(f"note: {job.sources[0].name} is called a scan; --preset {other} is made for scans", "yellow")


def _run(jobs: list[Job], config: FuseConfig, folder: Path | None, overwrite: bool, report: Path | None) -> int:
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
        options = {"overwrite": overwrite, "journal": journal, "report": report, "on_step": on_step}
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
    return _summary(outcomes, single=folder is None)


def _summary(outcomes: list[Outcome], *, single: bool) -> int:
    """Print results and failures; 0, 1 (some of a folder failed) or 2 (the one pair failed)."""
    failed = [o for o in outcomes if o.status == "failed"]
    for outcome in outcomes:
        for note in outcome.record.get("warnings", []) if outcome.status == "fused" else []:
            say(f"warning: {note}", "yellow")
    for outcome in failed:
        say(f"error: {'' if single else outcome.job.output.name + ': '}{outcome.record['error']}", "red")
    if single:
        if not failed:
            record = outcomes[0].record
            typer.echo(f"{outcomes[0].job.output}  ({record['seconds']} s, {record['preset']})")
        return 2 if failed else 0
    fused = sum(o.status == "fused" for o in outcomes)
    kept = sum(o.status == "kept" for o in outcomes)
    typer.echo(f"{fused} fused, {kept} kept from an earlier run, {len(failed)} failed")
    return 1 if failed else 0
