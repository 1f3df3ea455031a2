"""What became of the jobs of ``ddfm fuse``, for people, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ddfm.cli._shared import say

if TYPE_CHECKING:
    from ddfm.engine import Outcome

__all__ = ["notes", "summary", "tell_skipped"]


def summary(outcomes: Sequence[Outcome], folder: Path | None) -> int:
    """Print results and failures; 0, 1 (some of many, in ``folder``, failed) or 2 (the one scene failed)."""
    for note in notes(outcomes, folder):
        say(f"warning: {note}", "yellow")
    failed = [o for o in outcomes if o.status == "failed"]
    for outcome in failed:
        say(f"error: {name_of(outcome, folder)}{outcome.record['error']}", "red")
    if not folder:
        if not failed:
            record = outcomes[0].record
            typer.echo(f"{outcomes[0].job.output}  ({record['seconds']} s, {record['preset']})")
        return 2 if failed else 0
    fused = sum(o.status == "fused" for o in outcomes)
    kept = sum(o.status == "kept" for o in outcomes)
    typer.echo(f"{fused} fused, {kept} kept from an earlier run, {len(failed)} failed")
    return 1 if failed else 0


def notes(outcomes: Sequence[Outcome], folder: Path | None) -> list[str]:
    """The warnings of what was fused, each with its file; those that many files share in one line."""
    names: dict[str, list[str]] = {}
    for outcome in outcomes:
        for name, text in _notes_of(outcome) if outcome.status == "fused" else ():
            names.setdefault(text, []).append(f"{name}: " if name else name_of(outcome, folder))
    lines = []
    for text, files in names.items():
        many = folder and len(files) > 1
        lines += [f"{len(files)} files: {text}"] if many else [f"{name}{text}" for name in files]
    return lines


def _notes_of(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """(file or "", text) of each warning of a record, which begins with the file where it is about one."""
    paths = [entry["path"] for entry in outcome.record.get("inputs", []) if entry["path"]]
    for note in outcome.record.get("warnings", []):
        path = next((path for path in paths if note.startswith(f"{path}: ")), "")
        yield path, note.removeprefix(f"{path}: ") if path else note


def name_of(outcome: Outcome, folder: Path | None) -> str:
    """How messages about many results begin: the path below their folder, and a colon."""
    return f"{outcome.job.output.relative_to(folder).as_posix()}: " if folder else ""


def tell_skipped(lines: Sequence[str] | None) -> None:
    """Say what --skip-unmatched left out."""
    from ddfm.pairing import listed

    if lines:
        say(f"note: {len(lines)} left out, having no partner:{listed(lines)}", "yellow")
