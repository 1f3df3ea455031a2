"""Options of ``ddfm fuse`` for many scenes: which files belong together, and what the results are called."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Columns", "Name", "Patterns", "Recursive", "SkipUnmatched", "Suffix"]

Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        help="Files by name, once for each source: --pattern '{stem}_ir.png' --pattern '{stem}_vis.png'.",
        show_default=False,
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Folders below too; results lie in folders of the same names.")
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Sources among a manifest's columns, in order: ir,vis.  [default: all but output]"),
]
Name = Annotated[
    str, typer.Option("--name", help="Of the results in a folder, from {stem}, {parent}, {index}, {preset}.")
]
Suffix = Annotated[str, typer.Option("--suffix", help="Format of the results in a folder.")]
SkipUnmatched = Annotated[
    bool, typer.Option("--skip-unmatched", help="Leave out files without a partner, or rows without a file.")
]
