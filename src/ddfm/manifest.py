"""A CSV file that says which files belong together, one scene a row.

The header names the sources in their order (``ir,vis``), and may have a column ``output``. Paths are relative to the
manifest's folder; to the current one where it comes through a pipe. UTF-8, with or without a byte order mark; commas,
or, where the header has none, semicolons or tabs. It is read line by line, and no further than ``MOST_LINES`` and
``MOST_BYTES``, so that one without end costs no memory.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ddfm._checks import check_choice, problem
from ddfm.io import SUFFIXES
from ddfm.pairing import Group, listed

__all__ = ["MOST_BYTES", "MOST_LINES", "TABLES", "read_manifest"]

#: Lines and bytes of a manifest, at most.
MOST_LINES = 100_000
MOST_BYTES = 1 << 26
#: What a manifest's name ends in.
TABLES = (".csv", ".tsv")
_OUTPUT = "output"
_FORM = "CSV with a header such as ir,vis or ir,vis,output"
Row = tuple[int, list[str]]  # the line it begins on, its cells


def read_manifest(path: Path, columns: Sequence[str] = (), *, skipped: list[str] | None = None) -> list[Group]:
    """The scenes of a manifest, in its order.

    columns: the sources among the header's names, in their order; by default all but ``output``.
    skipped: a list that is told which rows are left out, for an empty cell or a missing file. Raises DDFMError naming
    the line, for these too where there is no such list.
    """
    base = path.parent if path.suffix.lower() in TABLES else Path()
    try:
        with path.open("rb") as file:
            rows = _rows(path, file)
            header = _header(path, rows)
            sources = _sources(path, header, columns)
            return _groups(path, base, [_fitted(path, row, header) for row in rows], sources, skipped)
    except OSError as error:
        raise problem(str(path), error.strerror or str(error), "a manifest that can be read") from error


def _groups(
    path: Path,
    base: Path,
    rows: Sequence[tuple[int, dict[str, str]]],
    sources: Sequence[str],
    skipped: list[str] | None,
) -> list[Group]:
    groups, missing = [], []
    for line, cells in rows:
        gone = [text for name in sources if (text := _gone(base, name, cells[name]))]
        missing += [f"line {line}: {text}" for text in gone]
        if not gone:
            files = tuple(base / cells[name] for name in sources)
            groups.append(Group(files[0].stem, files, cells.get(_OUTPUT, ""), f"line {line}"))
    if missing and (skipped is None or not groups):
        where = "the manifest's folder" if base == path.parent else "the current folder"
        remedy = f"Paths are relative to {where}. --columns names the sources, --skip-unmatched leaves rows out."
        raise problem(str(path), f"{len(missing)} missing", "files that exist", remedy + listed(missing))
    if skipped is not None:
        skipped += missing
    if not groups:
        raise problem(str(path), "no rows", "one row for each scene below the header")
    return groups


def _gone(base: Path, name: str, cell: str) -> str:
    """What is wrong with the file of a cell, "" for nothing."""
    if not cell:
        return f"nothing in column {name}"
    try:
        if (base / cell).is_file():
            return ""
    except OSError as error:  # too long, or in a folder that is shut
        return f"column {name}: {_short(cell)}: {error.strerror}"
    hint = "; between folders goes /" if "\\" in cell else ""
    return f"column {name}: no file {_short(cell)}{hint}"


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 200 else f"{cell[:200]}...")


def _sources(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that hold sources."""
    named = [name for name in header if name and name != _OUTPUT]
    for name in columns:
        check_choice("--columns", name, named)
    found = list(columns) or named
    if len(set(found)) < len(found):
        raise problem("--columns", ", ".join(columns), "each column once")
    if len(found) < 2:
        got = f"{len(found)} column(s) of sources" + f": {', '.join(found)}" * bool(found)
        raise problem("--columns" if columns else str(path), got, "two or more, such as ir,vis")
    return found


def _header(path: Path, rows: Iterator[Row]) -> list[str]:
    line, cells = next(rows, (1, []))
    header = [cell.strip() for cell in cells]
    header = [_OUTPUT if name.lower() == _OUTPUT else name for name in header]
    files = [name for name in header if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if files:
        raise problem(
            f"{path}, line {line}", f"{_short(files[0])}, a file", "a header such as ir,vis", "Put one first."
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise problem(f"{path}, line {line}", f"column {_short(twice[0])} twice", "names that differ")
    return header


def _fitted(path: Path, row: Row, header: Sequence[str]) -> tuple[int, dict[str, str]]:
    """Line and cells by column. Raises DDFMError for a cell without a column or a column without a cell."""
    line, cells = row
    if len(cells) < len(header):
        got = f"{len(cells)} cell(s) for {len(header)} columns: {_short(','.join(cells))}"
        raise problem(f"{path}, line {line}", got, ",".join(header), "An empty cell needs its comma too.")
    extra = [cell for name, cell in itertools.zip_longest(header, cells, fillvalue="") if not name and cell]
    if extra:
        remedy = "Put a name that has commas in quotes; name every column."
        raise problem(f"{path}, line {line}", f"{_short(extra[0])} in no named column", ",".join(header), remedy)
    return line, {name: cell.strip() for name, cell in zip(header, cells, strict=False)}


def _rows(path: Path, file: BinaryIO) -> Iterator[Row]:
    """The rows that are not empty, the header first. Raises DDFMError where it is no CSV."""
    lines = _lines(path, file)
    blank = 0
    first = ""
    for first in lines:
        if first.strip(" ,;\t\r\n"):
            break
        blank += 1
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        line = blank + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            got, remedy = str(error), "Is a quote not closed? One inside quotes is written twice."
            if "new-line" in got:  # as of old Macs; the module's own advice is for programmers
                got, remedy = "lines that end in CR alone", "Save it with line ends of LF or CRLF."
            raise problem(f"{path}, line {line}", got, _FORM, remedy) from error
        if any(cell.strip() for cell in cells):
            yield line, cells


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Lines as text. Raises DDFMError for too many, and for what is no text."""
    left = MOST_BYTES
    for number in itertools.count(1):
        raw = file.readline(left + 1)
        left -= len(raw)
        if not raw:
            return
        if number > MOST_LINES or left < 0:
            most = f"{MOST_LINES:,} lines" if number > MOST_LINES else f"{MOST_BYTES >> 20} MiB"
            raise problem(str(path), f"more than {most}", "a manifest that ends sooner", "Cut it into several.")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            remedy = "Save it as CSV in UTF-8. Pictures come in twos or more."
            raise problem(f"{path}, line {number}", "no text in UTF-8", _FORM, remedy)
        yield text
