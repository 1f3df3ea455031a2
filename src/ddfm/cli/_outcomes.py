"""What became of the jobs of ``ddfm fuse``, for people, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from ddfm.cli._shared import say

if TYPE_CHECKING:
    from ddfm.engine import Outcome

__all__ = ["notes", "summary"]


def summary(outcomes: Sequence[Outcome], *, single: bool) -> int:
    """Print results and failures; 0, 1 (some of many failed) or 2 (the one pair failed)."""
    for note in notes(outcomes, single=single):
        say(f"warning: {note}", "yellow")
    failed = [o for o in outcomes if o.status == "failed"]
    for outcome in failed:
        say(f"error: {'' if single else name_of(outcome) + ': '}{outcome.record['error']}", "red")
    if single:
        if not failed:
            record = outcomes[0].record
            typer.echo(f"{outcomes[0].job.output}  ({record['seconds']} s, {record['preset']})")
        return 2 if failed else 0
    fused = sum(o.status == "fused" for o in outcomes)
    kept = sum(o.status == "kept" for o in outcomes)
    typer.echo(f"{fused} fused, {kept} kept from an earlier run, {len(failed)} failed")
    return 1 if failed else 0


def notes(outcomes: Sequence[Outcome], *, single: bool) -> list[str]:
    """The warnings of what was fused, each with its file; those that many files share in one line."""
    files: dict[str, list[str]] = {}
    for outcome in outcomes:
        for name, text in _notes_of(outcome) if outcome.status == "fused" else ():
            files.setdefault(text, []).append(name or ("" if single else name_of(outcome)))
    lines = []
    for text, names in files.items():
        if len(names) > 1 and not single:
            lines.append(f"{len(names)} files: {text}")
        else:
            lines += [f"{name}: {text}" if name else text for name in names]
    return lines


def _notes_of(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """(file or "", text) of each warning of a record, which begins with the file where it is about one."""
    paths = [entry["path"] for entry in outcome.record.get("inputs", []) if entry["path"]]
    for note in outcome.record.get("warnings", []):
        path = next((path for path in paths if note.startswith(f"{path}: ")), "")
        yield path, note.removeprefix(f"{path}: ") if path else note


def name_of(outcome: Outcome) -> str:
    """How messages of many jobs call one of them."""
    return outcome.job.output.name
