"""The command line. Nothing heavy is imported here: ``ddfm --help`` must answer at once.

Exit codes: 0 all done; 1 some pairs of a folder failed; 2 bad input, nothing done; 130 stopped with Ctrl-C
or SIGTERM.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import typer.core

from ddfm._checks import DDFMError
from ddfm.cli._shared import say
from ddfm.cli.about import demo, doctor
from ddfm.cli.app import serve
from ddfm.cli.data import data_app
from ddfm.cli.explain import explain
from ddfm.cli.fuse import fuse
from ddfm.cli.measure import ablate, benchmark, evaluate, report, sweep
from ddfm.cli.prior import prior_app

__all__ = ["app", "main"]


class _Group(typer.core.TyperGroup):
    """Says that it was stopped; typer alone ends in silence."""

    def make_context(self, *words: Any, **extra: Any) -> Any:
        with _telling():
            return super().make_context(*words, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _telling():
            return super().invoke(ctx)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("stopped", "yellow")
        raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 0.1 s of imports
    help="Fuse infrared and visible, or medical, images with a diffusion prior (DDFM), and measure the result.",
)
for command in (fuse, explain, evaluate, benchmark, report, ablate, sweep, doctor, demo):
    app.command()(command)
app.command("app")(serve)
app.add_typer(prior_app, name="prior")
app.add_typer(data_app, name="data")


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
    from ddfm._runtime import quiet_and_fast, stopped_once

    quiet_and_fast()
    try:
        with stopped_once():  # SIGTERM too, so that no temporary file or folder is left behind
            app()
    except DDFMError as error:
        say(f"error: {error}", "red")
        sys.exit(2)
    except OSError as error:
        say(
            f"error: {error.filename or ''}: {error.strerror or error}. Check the path, its permissions and the disk.",
            "red",
        )
        sys.exit(2)
