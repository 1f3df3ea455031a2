"""``ddfm prior``: list, describe and train priors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddfm.cli._shared import Device, progress_bar, say

__all__ = ["prior_app"]

prior_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, describe, fetch, convert and train priors."
)


@prior_app.command("list")
def prior_list() -> None:
    """Say which priors are at hand."""
    from ddfm.priors import prior_info
    from ddfm.priors.known import KNOWN, cached

    info = prior_info("bundled")
    typer.echo(f"bundled  {info['color']}, {info['parameters'] / 1e6:.1f} M parameters, {info['licence']}")
    for name, known in KNOWN.items():
        state = "fetched" if cached(name).is_dir() else f"not here: ddfm prior fetch {name}, {known.size / 1e9:.1f} GB"
        typer.echo(f"{name}  {known.what}, {known.licence}; {state}")
    typer.echo("a folder  of ddfm prior train or convert, or of any DDPMPipeline of diffusers, given as --prior FOLDER")
    typer.echo("a hub id  such as google/ddpm-celebahq-256, as --prior OWNER/MODEL")


@prior_app.command("info")
def prior_info_command(
    name: Annotated[str, typer.Argument(help="'bundled', adm-imagenet-256, a prior's folder or a hub id.")] = "bundled",
) -> None:
    """Describe a prior: network, size, checksum, licence of its weights."""
    from ddfm.priors import prior_info

    for key, value in prior_info(name).items():
        typer.echo(f"{key:<16}{value}")


@prior_app.command("fetch")
def prior_fetch(
    name: Annotated[str, typer.Argument(help="Such as adm-imagenet-256; see ddfm prior list.")],
) -> None:
    """Download a known prior from its publisher, check it, convert it once. A broken download goes on."""
    from ddfm.fetching import fetch

    with progress_bar() as progress:
        task = progress.add_task("connecting", total=None)

        def on_bytes(what: str, done: int, of: int) -> None:
            progress.update(task, description=f"{what}, MB", completed=done // 2**20, total=of // 2**20)

        try:
            folder = fetch(name, on_bytes)
        except KeyboardInterrupt:
            say("stopped; give the same command again to go on", "yellow")
            raise typer.Exit(130) from None
    typer.echo(folder)


@prior_app.command("convert")
def prior_convert(
    checkpoint: Annotated[Path, typer.Argument(help="A guided-diffusion checkpoint (.pt), unconditional.")],
    output: Annotated[Path, typer.Argument(help="The prior's folder, a new one.")],
    head_channels: Annotated[int, typer.Option(min=1, help="Channels of an attention head (num_head_channels).")] = 64,
    new_attention_order: Annotated[
        bool, typer.Option("--new-attention-order", help="As trained with that flag.")
    ] = False,
    schedule: Annotated[str, typer.Option(help="linear or cosine (noise_schedule).")] = "linear",
    diffusion_steps: Annotated[int, typer.Option(min=1, help="Of that schedule, as trained.")] = 1000,
    predict_xstart: Annotated[bool, typer.Option("--predict-xstart", help="As trained with that flag.")] = False,
    licence: Annotated[str, typer.Option(help="What the weights allow; kept with them.")] = "not stated",
) -> None:
    """Write an OpenAI guided-diffusion checkpoint as a prior of stock diffusers classes, safetensors."""
    from ddfm.conversion import convert

    folder = convert(
        checkpoint,
        output,
        head_channels=head_channels,
        new_attention_order=new_attention_order,
        schedule=schedule,
        diffusion_steps=diffusion_steps,
        predict_xstart=predict_xstart,
        licence=licence,
    )
    typer.echo(folder)


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
    from ddfm.config import check_device

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
