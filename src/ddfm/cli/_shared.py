"""What the commands share: speaking to the user, the progress bar, the options that several have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Device",
    "Overwrite",
    "PresetOption",
    "PriorOption",
    "Seed",
    "Steps",
    "console",
    "progress_bar",
    "say",
    "typed",
]

PresetOption = Annotated[str, typer.Option("--preset", help="balanced, fast, medical, stack, paper or released.")]
PriorOption = Annotated[str, typer.Option("--prior", help="'bundled', adm-imagenet-256, a prior's folder or a hub id.")]
Steps = Annotated[int | None, typer.Option("--steps", min=0, help="Network evaluations.  [default: the preset's]")]
Seed = Annotated[int, typer.Option("--seed", help="Of the noise; the pair's content is added to it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]


def console() -> Console:
    """Messages go to standard error, results to standard output."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def say(text: str, style: str = "") -> None:
    """One message for the user."""
    console().print(text, style=style, soft_wrap=True)


def typed(ctx: typer.Context) -> set[str]:
    """Names of the parameters that the user gave, default values or not."""
    return {name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"}


def progress_bar() -> Any:
    """A bar with counts and the time left; a context manager."""
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=console(),
        transient=True,
    )
