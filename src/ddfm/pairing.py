"""Which files belong together: folders or trees by name, and patterns such as ``{stem}_ir.png``.

What lies on disk in which order changes nothing: everything is sorted by path. Hidden files and folders are left out.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ddfm._checks import DDFMError, problem
from ddfm.io import SUFFIXES
from ddfm.io.medical import scans_below

__all__ = ["MOST_FILES", "Group", "Pattern", "listed", "match_folders", "match_patterns", "walk"]

#: Pictures of one tree, at most; beyond it lies a mistake, such as links that lead back and forth.
MOST_FILES = 1_000_000
#: So many lines of a list are shown.
_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Group:
    """The files of one scene.

    name: of the scene, with the folders it lies in: "day/a". output: what a manifest wants the result to be called,
    "" where nothing is said. where: the line of the manifest, for messages.
    """

    name: str
    sources: tuple[Path, ...]
    output: str = ""
    where: str = ""

    @property
    def label(self) -> str:
        """How messages call it."""
        return self.where or str(self.sources[0])


def listed(lines: Sequence[str]) -> str:
    """Lines below a message, the first ones of many."""
    rest = len(lines) - _SHOWN
    return "".join(f"\n  {line}" for line in [*lines[:_SHOWN], *[f"and {rest} more"] * (rest > 0)])


# ---- folders --------------------------------------------------------------------------------------


def match_folders(
    folders: Sequence[Path],
    *,
    recursive: bool = False,
    skipped: list[str] | None = None,
    leave_out: Path | None = None,
) -> list[Group]:
    """Files of K folders by stem; with ``recursive`` by path below the folder, without suffix. Sorted by name.

    leave_out: a folder that is not searched, that of the results. skipped: a list that is told what has no partner,
    a line each. Raises DDFMError listing that where there is no such list, and names that are twice in one folder.
    """
    found = [walk(folder, None if recursive else 0, leave_out) for folder in folders]
    tables = [_by_name(folder, paths) for folder, paths in zip(folders, found, strict=True)]
    for folder, table in zip(folders, tables, strict=True):
        if not table:
            remedy = "There are some in folders below: --recursive." if not recursive and walk(folder, None) else ""
            remedy = remedy or scans_below(folder)
            raise problem("sources", f"no images in {folder}", f"files ending in {', '.join(SUFFIXES)}", remedy)
    return _match(tables, [str(folder) for folder in folders], "the same stems in every folder", skipped)


def _by_name(folder: Path, paths: Sequence[str]) -> dict[str, Path]:
    table: dict[str, Path] = {}
    for path in paths:
        name = path.removesuffix(PurePosixPath(path).suffix)
        if name in table:
            got = f"{table[name].relative_to(folder).as_posix()} and {path}"
            remedy = "Rename one, or say which: --pattern '{stem}.png' for each source."
            raise problem(str(folder), got, "one file for each stem", remedy)
        table[name] = folder / path
    return table


def _match(
    tables: Sequence[Mapping[str, Path]], places: Sequence[str], expected: str, skipped: list[str] | None
) -> list[Group]:
    """The names that every table has. Raises DDFMError for the others where ``skipped`` is None, and for none."""
    common = set.intersection(*(set(table) for table in tables))
    missing = [
        f"{table[name]} has no partner in {_absent(name, tables, places)}"
        for table in tables
        for name in sorted(set(table) - common)
    ]
    if missing and (skipped is None or not common):
        remedy = "Rename them, or leave them out with --skip-unmatched." if common else ""
        raise problem("sources", f"{len(missing)} unmatched names", expected, remedy + listed(missing))
    if skipped is not None:
        skipped += missing
    return [Group(name, tuple(table[name] for table in tables)) for name in sorted(common)]


def _absent(name: str, tables: Sequence[Mapping[str, Path]], places: Sequence[str]) -> str:
    """The first place without ``name``, and the name there that only looks the same."""
    place, table = next((p, t) for p, t in zip(places, tables, strict=True) if name not in t)
    alike = next((path for other, path in table.items() if fold(other) == fold(name)), None)
    return f"{place} ({alike.name} differs in case or Unicode form)" if alike else place


def fold(name: str) -> str:
    """Equal for names that a file system which does not tell case or Unicode form apart takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# ---- patterns -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Pattern:
    """``{stem}_ir.png`` or ``{stem}/ir_*.png``: {stem} is what the files of a scene share, * anything but a slash.

    recursive: looked for in every folder below, too. Raises DDFMError for what cannot be meant.
    """

    text: str
    recursive: bool = False

    def __post_init__(self) -> None:
        example = "a pattern such as '{stem}_ir.png' or '{stem}/ir.png'"
        parts = self.text.split("/")
        if "" in parts or ".." in parts or "\\" in self.text:
            raise problem("--pattern", repr(self.text), f"{example}, below the folder, with / between folders")
        if "**" in self.text:
            raise problem("--pattern", repr(self.text), example, "For folders below say --recursive.")
        names = re.findall(r"\{([^{}]*)\}", self.text)
        if "stem" not in names or set(names) != {"stem"} or re.search(r"[{}]", self.text.replace("{stem}", "")):
            raise problem("--pattern", repr(self.text), example, "{stem} is what both files share; there is no other.")
        if (
            not self.text.endswith("*")
            and PurePosixPath(parts[-1].replace("{stem}", "x")).suffix.lower() not in SUFFIXES
        ):
            remedy = "For any suffix end it in .*"
            raise problem("--pattern", repr(self.text), f"{example}, ending in {', '.join(SUFFIXES)}", remedy)

    @property
    def depth(self) -> int | None:
        """How many folders below it looks; None: all."""
        return None if self.recursive else self.text.count("/")

    @property
    def literal(self) -> int:
        """How many characters it states: of two patterns that fit a file, the one that states more takes it."""
        return len(self.text.replace("{stem}", "").replace("*", ""))

    def match(self, path: str) -> str | None:
        """The scene's name of a path below the folder, None if it is another's."""
        tokens = re.split(r"(\{stem\}|\*)", self.text)
        known = {"{stem}": r"(?P<stem>[^/]+)", "*": "[^/]*"}
        body = "".join(known.get(token, re.escape(token)) for token in tokens)
        first, *rest = body.split(known["{stem}"])
        body = first + known["{stem}"] + "(?P=stem)".join(rest)
        folder = r"(?P<folder>(?:[^/]+/)*)" if self.recursive else "(?P<folder>)"
        found = re.fullmatch(folder + body, path, re.S)
        return found["folder"] + found["stem"] if found else None


def match_patterns(
    folders: Sequence[Path],
    patterns: Sequence[Pattern],
    *,
    skipped: list[str] | None = None,
    leave_out: Path | None = None,
) -> list[Group]:
    """Files by K patterns, all in one folder or each in its own. Sorted by name.

    A file that fits several patterns belongs to the one that states most of its name. Raises DDFMError listing the
    files without a partner (which the list ``skipped`` is told instead, if there is one), a pattern that fits none,
    two files for one place.
    """
    if len(patterns) < 2 or len(folders) not in (1, len(patterns)):
        got = f"{len(patterns)} for {len(folders)} folder(s)"
        remedy = "Give --pattern again for the next source." if len(patterns) == 1 else ""
        raise problem("--pattern", got, "one for each source, two or more; in one folder, or a folder for each", remedy)
    places = list(folders) * len(patterns) if len(folders) == 1 else list(folders)
    tables: list[dict[str, Path]] = [{} for _ in patterns]
    for folder in dict.fromkeys(places):
        here = {k: pattern for k, pattern in enumerate(patterns) if places[k] == folder}
        depths = [pattern.depth for pattern in here.values()]
        paths = walk(folder, None if None in depths else max(d for d in depths if d is not None), leave_out)
        for k, name, path in _assigned(folder, paths, here):
            if name in tables[k]:
                got = f"{tables[k][name]} and {folder / path} for {name!r}"
                raise problem(
                    f"--pattern {patterns[k].text!r}", got, "one file for each stem", "State more of the name."
                )
            tables[k][name] = folder / path
        for k, pattern in here.items():
            if not tables[k]:
                there = listed(paths) if paths else ""
                raise problem(
                    f"--pattern {pattern.text!r}", f"no file in {folder}", "one or more", f"There are:{there}"
                )
    labels = [f"{folder} by {pattern.text!r}" for folder, pattern in zip(places, patterns, strict=True)]
    return _match(tables, labels, "the same stems for every pattern", skipped)


def _assigned(folder: Path, paths: Sequence[str], patterns: Mapping[int, Pattern]) -> Iterator[tuple[int, str, str]]:
    """(pattern, name, path) of every path that a pattern fits."""
    for path in paths:
        fits = [(pattern.literal, k, name) for k, pattern in patterns.items() if (name := pattern.match(path))]
        if not fits:
            continue
        best = max(literal for literal, _, _ in fits)
        chosen = [(k, name) for literal, k, name in fits if literal == best]
        if len(chosen) > 1:
            texts = " and ".join(repr(patterns[k].text) for k, _ in chosen)
            raise problem("--pattern", f"{texts}, which both fit {folder / path}", "a pattern for each source")
        yield *chosen[0], path


# ---- trees ----------------------------------------------------------------------------------------


def walk(folder: Path, depth: int | None = 0, leave_out: Path | None = None) -> list[str]:
    """Paths of the pictures below ``folder``, with slashes, sorted; ``depth`` folders down, None: to the bottom.

    Links are followed. Raises DDFMError for a folder that cannot be read, a link that leads into itself or nowhere,
    and for more than ``MOST_FILES``.
    """
    apart = _identity(leave_out) if leave_out and leave_out.exists() else None
    found: list[str] = []
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(folder),))]
    while stack:
        inside, above = stack.pop()
        for path, is_folder in _entries(folder, inside):
            if not is_folder:
                found.append(path)
            elif depth is None or path.count("/") < depth:
                identity = _identity(folder / path)
                if identity in above:
                    raise problem(
                        str(folder / path), "a link to a folder that it lies in", "a tree", "Remove the link."
                    )
                if identity != apart:
                    stack.append((path, (*above, identity)))
        if len(found) > MOST_FILES:
            raise problem(str(folder), f"more than {MOST_FILES:,} pictures", "fewer", "Do links lead back and forth?")
    return sorted(found)


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_dev, status.st_ino


def _entries(folder: Path, inside: str) -> Iterator[tuple[str, bool]]:
    """(path below ``folder``, whether it is a folder) of the pictures and folders directly in ``inside``."""
    try:
        with os.scandir(folder / inside) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        for name in names:
            path = f"{inside}/{name}" if inside else name
            if (folder / path).is_dir():
                yield path, True
            elif PurePosixPath(name).suffix.lower() in SUFFIXES:
                _check_file(folder / path)
                yield path, False
    except OSError as error:
        raise _unreadable(folder / inside, error) from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        got = "a link that leads nowhere" if path.is_symlink() else "a pipe or a device"
        raise problem(str(path), got, "a picture", "Remove it, or mend the link.")


def _unreadable(path: Path, error: OSError) -> DDFMError:
    return problem(str(path), error.strerror or str(error), "a folder that can be read", "Check its permissions.")
