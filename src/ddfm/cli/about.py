"""``ddfm doctor`` and ``ddfm demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddfm.cli._shared import PresetOption, progress_bar, say

__all__ = ["demo", "doctor"]


def doctor() -> None:
    """Say what this installation has: versions, device, threads, prior, checksum, licence of the weights."""
    from ddfm.diagnosis import diagnose

    report, problems = diagnose()
    width = max(map(len, report))
    for key, value in report.items():
        typer.echo(f"{key:<{width}}  {value}")
    for text in problems:
        say(f"problem: {text}", "red")
    raise typer.Exit(1 if problems else 0)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to leave the pictures.")] = Path("demo"),
    preset: PresetOption = "balanced",
    clip: Annotated[
        float | None, typer.Option("--clip", help="In place of pictures a clip of so many seconds, 25 frames each.")
    ] = None,
) -> None:
    """Render sample pairs (a street at night, three phantoms), fuse them, and lay them side by side."""
    from ddfm import demo as samples

    if clip is None:
        paths = samples.make_demo(folder, preset)
    else:
        with progress_bar() as progress:
            task = progress.add_task("rendering the street", total=None)
            paths = samples.make_clip(
                folder,
                preset,
                clip,
                lambda done, of: progress.update(task, description="fusing", completed=done, total=of),
            )
    for path in paths:
        typer.echo(path)
