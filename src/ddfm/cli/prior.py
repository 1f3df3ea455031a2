"""``ddfm prior``: list, describe and train priors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddfm.cli._shared import Device, progress_bar, say

__all__ = ["prior_app"]

prior_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, describe and train priors.")


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
    say(f"{count} photographs; {'going on at' if resumed else 'starting at'} step {trainer.step}")
    with progress_bar() as progress:
        task = progress.add_task("training", total=trainer.config.steps, completed=trainer.step)

        def on_step(record: dict[str, Any]) -> None:
            text = f"loss {record['mean_loss']:.4f}" if "mean_loss" in record else None
            progress.update(task, completed=record["step"], **({"description": text} if text else {}))

        try:
            trainer.run(on_step=on_step)
        except KeyboardInterrupt:
            say(f"stopped at step {trainer.step}; give the same command again to go on", "yellow")
            raise typer.Exit(130) from None
    typer.echo(export(trainer, licence))
