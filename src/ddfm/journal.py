"""The journal of an output folder: which sources with which settings made which file, one JSON line each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ddfm._checks import problem
from ddfm.io import file_sha256

__all__ = ["JOURNAL", "Journal", "append_record"]

#: Name of the journal in an output folder.
JOURNAL = ".ddfm-journal.jsonl"


class Journal:
    """Reads lines as they come, also those of another run in the same folder; a line cut short is passed over.

    An output is known by its path from the journal's folder, with slashes: "a.png", "day/a.png".
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0  # of what has been read
        self._lines: dict[str, list[tuple[str, str, int]]] = {}  # key, checksum and place of each line of an output

    def name(self, output: Path) -> str:
        """How the journal calls ``output``."""
        try:
            return output.absolute().relative_to(self.path.parent.absolute()).as_posix()
        except ValueError:  # not below it
            return output.name

    def append(self, output: Path, record: dict[str, Any]) -> None:
        """One more line, on disk when this returns. Raises DDFMError."""
        append_record(self.path, {"tool": "ddfm", "name": self.name(output)} | record)

    def vouched(self, output: Path, key: str) -> dict[str, Any] | None:
        """The record of the file that ``output`` is, if sources and settings (``key``) made just these bytes."""
        if not output.is_file():
            return None
        self._read()
        lines = self._lines.get(self.name(output), [])
        if not any(key == one for one, _, _ in lines):
            return None
        checksum = file_sha256(output)
        for one, wanted, place in reversed(lines):
            if (one, wanted) == (key, checksum):
                with self.path.open("rb") as file:
                    file.seek(place)
                    record: dict[str, Any] = json.loads(file.readline())
                return record
        return None

    def _read(self) -> None:
        """Take in what was appended since the last time."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._end:  # another file than before
                self._end, self._lines = 0, {}
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):  # still being written, or cut short by a kill
                    break
                self._take(line, self._end)
                self._end += len(line)

    def _take(self, line: bytes, place: int) -> None:
        try:
            record = json.loads(line)
            # lines from before there were trees have no name; their outputs lay directly in the folder
            name = record.get("name") or Path(record["output"]).name
            self._lines.setdefault(name, []).append((record["key"], record["output_sha256"], place))
        except (ValueError, KeyError, TypeError, AttributeError):
            return


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line and flush it to disk; a half line left by a kill is closed first. Raises DDFMError."""
    line = json.dumps(record).encode() + b"\n"
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise problem(str(path), error.strerror or str(error), "a file that can be written") from error
