"""From what a user names, files, folders, patterns or a manifest, to jobs: checked as a whole before any work."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ddfm._checks import problem
from ddfm.io import SUFFIXES
from ddfm.manifest import TABLES, read_manifest
from ddfm.naming import PLAIN, check_names, check_template, result_names
from ddfm.pairing import Group, Pattern, match_folders, match_patterns

__all__ = ["Job", "check_targets", "kind_of", "plan"]

_WANTED = "two or more files of one scene, two or more folders, one folder with --pattern, or one CSV manifest"


@dataclasses.dataclass(frozen=True)
class Job:
    """One scene to fuse: its source files and the file to write."""

    sources: tuple[Path, ...]
    output: Path


def kind_of(sources: Sequence[Path]) -> str:
    """What the sources are: "files" of one scene, "folders", or a "manifest". Raises DDFMError."""
    for path in sources:
        if not path.exists():
            raise problem(str(path), "no such file or folder", "a file or folder of images", "Check the path.")
    folders = [path.is_dir() for path in sources]
    if all(folders):
        return "folders"
    if any(folders):
        raise problem("sources", "a folder and a file", "all files or all folders")
    if len(sources) == 1 and sources[0].suffix.lower() not in SUFFIXES:
        return "manifest"  # or no picture at all, which its reader tells
    for path in sources:
        if path.suffix.lower() in TABLES:
            raise problem(str(path), "a manifest among other sources", "one manifest alone")
        if not path.is_file():
            raise problem(str(path), "a pipe or a device", "a file")
    if len(sources) < 2:
        raise problem("sources", "one file", _WANTED)
    return "files"


def plan(
    sources: Sequence[Path],
    output: Path,
    *,
    recursive: bool = False,
    patterns: Sequence[str] = (),
    columns: Sequence[str] = (),
    skipped: list[str] | None = None,
    name: str = PLAIN,
    suffix: str = ".png",
    preset: str = "",
) -> list[Job]:
    """The jobs for two or more files of one scene, for folders, or for a manifest; all checked before any work.

    Files give the one output file. Folders are paired by stem, with ``recursive`` by path below them, or by
    ``patterns``, one for each source; see ``ddfm.pairing``. A manifest's sources are its ``columns``; see
    ``ddfm.manifest``. Their results lie below ``output``, as the sources lie below their folders, called ``name``
    (``ddfm.naming``; ``preset`` fills its field) + ``suffix``. skipped: a list that is told what has no partner, which
    is refused where there is none. Raises DDFMError.
    """
    if suffix.lower() not in SUFFIXES:
        raise problem("--suffix", repr(suffix), f"one of {', '.join(SUFFIXES)}")
    check_template(name)
    kind = kind_of(sources)
    _check_options(kind, recursive, patterns, columns)
    if kind == "files":
        _check_pictures(sources)
        jobs = [Job(tuple(sources), _output_file(sources, output, name, suffix, preset))]
    else:
        compiled = [Pattern(text, recursive) for text in patterns]
        _check_output_folder(output)
        if kind == "manifest":
            groups = read_manifest(sources[0], columns, skipped=skipped)
        else:
            groups = _matched(sources, output, compiled, recursive, skipped)
        names = result_names(groups, name, suffix, preset)
        check_names(names, groups, output)
        if kind == "folders":
            _check_apart(names, output, sources, compiled, recursive)
        jobs = [Job(group.sources, output / path) for group, path in zip(groups, names, strict=True)]
        _check_folders(jobs)
    check_targets((("--output", job.output) for job in jobs), [source for job in jobs for source in job.sources])
    return jobs


def _check_pictures(sources: Sequence[Path]) -> None:
    """What cannot be a picture is told before anything is said about the output."""
    for path in sources:
        if path.suffix.lower() not in (*SUFFIXES, ".gif"):  # whose reader refuses it with a better reason
            raise problem(
                str(path), f"suffix {path.suffix!r}", f"a picture ({', '.join(SUFFIXES)}), a volume or a clip"
            )
        if not os.access(path, os.R_OK):
            raise problem(str(path), "a file that may not be read", "a picture", f"Allow it: chmod u+r {path}")


def _check_options(kind: str, recursive: bool, patterns: Sequence[str], columns: Sequence[str]) -> None:
    """Options that mean nothing for these sources are refused, not passed over."""
    if kind != "folders":
        for option, given in (("--recursive", recursive), ("--pattern", bool(patterns))):
            if given:
                raise problem(option, {"files": "files", "manifest": "a manifest"}[kind], "folders as sources")
    if columns and kind != "manifest":
        raise problem("--columns", kind, "a CSV manifest as the source")


def _matched(
    sources: Sequence[Path], output: Path, patterns: Sequence[Pattern], recursive: bool, skipped: list[str] | None
) -> list[Group]:
    if patterns:
        return match_patterns(sources, patterns, skipped=skipped, leave_out=output)
    if len(sources) < 2:
        remedy = "For two kinds of files in one folder: --pattern '{stem}_ir.png' --pattern '{stem}_vis.png'."
        raise problem("sources", f"one folder, {sources[0]}", _WANTED, remedy)
    if output.exists() and any(output.samefile(source) for source in sources):
        remedy = "Results there would be sources next time."
        raise problem("--output", f"{output}, a source folder", "another folder", remedy)
    return match_folders(sources, recursive=recursive, skipped=skipped, leave_out=output)


def _output_file(sources: Sequence[Path], output: Path, name: str, suffix: str, preset: str) -> Path:
    if output.is_dir():
        return output / result_names([Group(sources[0].stem, tuple(sources))], name, suffix, preset)[0]
    if name != PLAIN:
        raise problem("--name", f"{name!r} and a file, {output}", "one of them", "Name an existing folder as --output.")
    if output.suffix.lower() not in SUFFIXES:
        raise problem("--output", repr(str(output)), f"a name ending in {', '.join(SUFFIXES)}")
    if not output.parent.is_dir():
        raise problem("--output", output, "a file in an existing folder", f"Create it: mkdir -p {output.parent}")
    return output


def _check_output_folder(output: Path) -> None:
    if output.suffix.lower() in SUFFIXES and not output.is_dir():
        raise problem("--output", f"{output}, a picture's name", "a folder, as there are many results")
    _check_can_be_folder(output)


def _check_can_be_folder(path: Path) -> None:
    nearest = next(p for p in [path, *path.absolute().parents] if os.path.lexists(p))
    if not nearest.is_dir():
        raise problem("--output", f"{path}, where {nearest} is no folder", "a folder, as the sources are folders")


def _check_folders(jobs: Sequence[Job]) -> None:
    """Nothing stands where a folder of the results should be."""
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        _check_can_be_folder(folder)


def _check_apart(
    names: Sequence[str], output: Path, folders: Sequence[Path], patterns: Sequence[Pattern], recursive: bool
) -> None:
    """No result lies where the next run would take it for a source; an output folder in a tree is left out of it."""
    for folder in folders:
        try:
            inside = folder.resolve().relative_to(output.resolve())
        except ValueError:
            continue
        top = f"{inside.as_posix()}/" if inside.parts else ""
        picks = _picks(patterns, recursive)
        for name in names:
            if name.startswith(top) and picks(name.removeprefix(top)):
                remedy = "Choose another --output, or another --name."
                raise problem("--output", output / name, "a name that is no source of the next run", remedy)


def _picks(patterns: Sequence[Pattern], recursive: bool) -> Callable[[str], bool]:
    """Whether a path below a source folder is a source."""
    if patterns:
        return lambda path: any(pattern.match(path) for pattern in patterns)
    return lambda path: recursive or "/" not in path


def check_targets(targets: Iterable[tuple[str, Path]], sources: Iterable[Path]) -> None:
    """Never write onto a source, whatever was allowed, nor two things into one file. Raises DDFMError.

    targets: (option, file to write), sources: all files that are read; compared by what the names lead to.
    """
    read = {_identity(source) for source in sources if source.exists()}
    taken: dict[str, str] = {}
    for option, path in targets:
        if path.exists() and _identity(path) in read:
            raise problem(option, path, "another file than a source", "Choose another name or folder.")
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise problem(option, f"{path}, which is the file of {other} too", "a file of its own")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
