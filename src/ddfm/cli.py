"""The command line. Nothing heavy is imported here: ``ddfm --help`` must answer at once.

Exit codes: 0 all done; 1 some pairs of a folder failed; 2 bad input, nothing done; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddfm._checks import DDFMError

if TYPE_CHECKING:
    from rich.console import Console

    from ddfm.engine import Job, Outcome
    from ddfm.fusion import FuseConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 0.1 s of imports
    help="Fuse infrared and visible, or medical, images with a diffusion prior (DDFM).",
)
prior_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, describe and train priors.")
app.add_typer(prior_app, name="prior")

Sources = Annotated[
    list[Path],
    typer.Argument(help="IR VIS: two files, or two folders paired by file stem.", show_default=False),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write, or folder for folders.", show_default=False)
]
PresetOption = Annotated[str, typer.Option("--preset", help="balanced, fast or paper.")]
PriorOption = Annotated[str, typer.Option("--prior", help="'bundled' or a prior's folder.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Network evaluations.  [default: the preset's]")]
Seed = Annotated[int, typer.Option("--seed", help="Of the noise; the pair's content is added to it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="float32, bfloat16 or float16, of the network.  [default: the preset's]"),
]
Tone = Annotated[str, typer.Option("--tone", help="Stretch of the result: none, minmax or percentile.")]
BitDepth = Annotated[int, typer.Option("--bit-depth", help="8 or 16 (PNG and TIFF) bits of the result.")]
Suffix = Annotated[str, typer.Option("--suffix", help="Format of the results of a folder run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
SkipUnmatched = Annotated[
    bool, typer.Option("--skip-unmatched", help="Leave out files without a partner in the other folder.")
]
Report = Annotated[Path | None, typer.Option("--report", help="Append one JSON line for each pair to this file.")]


@app.command()
def fuse(
    sources: Sources,
    output: Output,
    preset: PresetOption = "balanced",
    prior: PriorOption = "bundled",
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = None,
    tone: Tone = "none",
    bit_depth: BitDepth = 8,
    suffix: Suffix = ".png",
    overwrite: Overwrite = False,
    skip_unmatched: SkipUnmatched = False,
    report: Report = None,
) -> None:
    """Fuse two pictures of one scene, the infrared (or PET, SPECT, CT) first; or two folders of them.

    Colour is kept. A folder run that was stopped goes on where it stopped when the command is given again.
    """
    from ddfm import engine
    from ddfm.fusion import FuseConfig

    jobs = engine.plan(sources, output, skip_unmatched=skip_unmatched, suffix=suffix)
    folder = output if sources[0].is_dir() else None
    config = FuseConfig(preset, prior, steps, seed, device, dtype, tone, bit_depth)
    config.check_format(jobs[0].output.suffix)
    engine.check_writable(jobs)
    if not folder:
        engine.check_free(jobs[0].output, overwrite)
    if report:
        engine.check_report(report, folder)
    raise typer.Exit(_run(jobs, config, folder, overwrite, report))


def _run(jobs: list[Job], config: FuseConfig, folder: Path | None, overwrite: bool, report: Path | None) -> int:
    """Fuse with a progress bar, say what became of the pairs, and return the exit code."""
    from ddfm import engine
    from ddfm.fusion import Fuser

    preset = config.resolve()
    with _progress() as progress:
        task = progress.add_task("loading the prior", total=len(jobs) * preset.steps)

        def on_step(job: Job, done: int, of: int) -> None:
            progress.update(task, description=job.output.name, advance=1)

        outcomes: list[Outcome] = []
        journal = folder / engine.JOURNAL if folder else None
        options = {"overwrite": overwrite, "journal": journal, "report": report, "on_step": on_step}
        try:
            fuser = Fuser(config)
            for outcome in engine.run(jobs, fuser, **options):  # type: ignore[arg-type]
                outcomes.append(outcome)
                progress.update(task, completed=len(outcomes) * preset.steps)
        except KeyboardInterrupt:
            _say(
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
            _say(f"warning: {note}", "yellow")
    for outcome in failed:
        _say(f"error: {'' if single else outcome.job.output.name + ': '}{outcome.record['error']}", "red")
    if single:
        if not failed:
            record = outcomes[0].record
            typer.echo(f"{outcomes[0].job.output}  ({record['seconds']} s, {record['preset']})")
        return 2 if failed else 0
    fused = sum(o.status == "fused" for o in outcomes)
    kept = sum(o.status == "kept" for o in outcomes)
    typer.echo(f"{fused} fused, {kept} kept from an earlier run, {len(failed)} failed")
    return 1 if failed else 0


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def _say(text: str, style: str = "") -> None:
    _console().print(text, style=style, soft_wrap=True)


def _progress() -> Any:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=_console(),
        transient=True,
    )


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, device, threads, prior, checksum, licence of the weights."""
    from ddfm.diagnosis import diagnose

    report, problems = diagnose()
    width = max(map(len, report))
    for key, value in report.items():
        typer.echo(f"{key:<{width}}  {value}")
    for text in problems:
        _say(f"problem: {text}", "red")
    raise typer.Exit(1 if problems else 0)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to leave the pictures.")] = Path("demo"),
    preset: PresetOption = "balanced",
) -> None:
    """Render sample pairs (a street at night, three phantoms), fuse them, and lay them side by side."""
    from ddfm.demo import make_demo

    for path in make_demo(folder, preset):
        typer.echo(path)


@prior_app.command("list")
def prior_list() -> None:
    """Say which priors are at hand."""
    from ddfm.priors import prior_info

    info = prior_info("bundled")
    typer.echo(f"bundled  {info['color']}, {info['parameters'] / 1e6:.1f} M parameters, {info['licence']}")
    typer.echo("a folder  written by `ddfm prior train` or DDFMPipeline.save_pretrained, given as --prior FOLDER")


@prior_app.command("info")
def prior_info_command(
    name: Annotated[str, typer.Argument(help="'bundled' or a prior's folder.")] = "bundled",
) -> None:
    """Describe a prior: network, size, checksum, licence of its weights."""
    from ddfm.priors import prior_info

    for key, value in prior_info(name).items():
        typer.echo(f"{key:<16}{value}")


@prior_app.command("train")
def prior_train(
    data: Annotated[list[Path], typer.Argument(help="Folders of photographs, searched to the bottom.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")] = Path("prior-run"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps in all.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops of 64x64 in a batch.")] = 16,
    channels: Annotated[str, typer.Option(help="Channels of the levels.")] = "64,64,96,128",
    learning_rate: Annotated[float, typer.Option(min=0)] = 5e-4,
    cooldown: Annotated[float, typer.Option(min=0, max=1, help="Last part of the run, with a falling rate.")] = 0.25,
    crops: Annotated[str, typer.Option(help="Sides of the crops, pixels, drawn in turn at random.")] = "64,96,128",
    weighting: Annotated[str, typer.Option(help="relative or min-snr: how noise levels count.")] = "relative",
    timestep_power: Annotated[float, typer.Option(help="p of t = 1000 u^p; larger: less noise.")] = 1.5,
    tone_below: Annotated[int, typer.Option(help="Contrast is varied below this timestep only.")] = 500,
    start_from: Annotated[
        str | None, typer.Option(help="Begin with the weights of this prior: 'bundled' or a folder.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="float32, or bfloat16 where the processor has it.")] = "float32",
    licence: Annotated[str, typer.Option(help="What the photographs allow; kept with the weights.")] = "not stated",
) -> None:
    """Train a prior on photographs. Give the same command again to go on after a stop.

    Leaves OUTPUT/prior, to be used as --prior OUTPUT/prior, a checkpoint and a loss log.
    """
    from ddfm import training
    from ddfm.fusion import check_device

    training.check_licence(licence)
    config = training.TrainConfig(
        channels=training.parse_channels(channels),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        cooldown=cooldown,
        crops=training.parse_channels(crops, "crops"),
        weighting=weighting,
        timestep_power=timestep_power,
        tone_below=tone_below,
        start_from=start_from,
        dtype=dtype,
        seed=seed,
    )
    photographs = training.PhotographCrops(data)
    trainer = training.Trainer(config, photographs, output, str(check_device(device)))
    _train(trainer, licence)


def _train(trainer: Any, licence: str) -> None:
    from ddfm.training import export

    resumed = trainer.resume()
    count = len(trainer.crops.images)
    _say(f"{count} photographs; {'going on at' if resumed else 'starting at'} step {trainer.step}")
    with _progress() as progress:
        task = progress.add_task("training", total=trainer.config.steps, completed=trainer.step)

        def on_step(record: dict[str, Any]) -> None:
            text = f"loss {record['mean_loss']:.4f}" if "mean_loss" in record else None
            progress.update(task, completed=record["step"], **({"description": text} if text else {}))

        try:
            trainer.run(on_step=on_step)
        except KeyboardInterrupt:
            _say(f"stopped at step {trainer.step}; give the same command again to go on", "yellow")
            raise typer.Exit(130) from None
    typer.echo(export(trainer, licence))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from ddfm import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: a user's mistake is one message and exit code 2, never a traceback."""
    warnings.simplefilter("ignore")  # what a user should know is in each record's warnings, and said from there
    from ddfm._runtime import quiet_and_fast

    quiet_and_fast()
    try:
        app()
    except DDFMError as error:
        _say(f"error: {error}", "red")
        sys.exit(2)
    except OSError as error:
        _say(
            f"error: {error.filename or ''}: {error.strerror or error}. Check the path, its permissions and the disk.",
            "red",
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
