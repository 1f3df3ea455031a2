"""What results are called: templates such as ``{stem}_fused``, safe names, no name twice."""

from __future__ import annotations

import os
import re
import string
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ddfm._checks import problem
from ddfm.io import SUFFIXES
from ddfm.pairing import Group, fold, listed

__all__ = ["FIELDS", "PLAIN", "check_names", "check_template", "result_names", "tells_apart"]

#: What a template may hold.
FIELDS = ("stem", "parent", "index", "preset")
PLAIN = "{stem}"
#: Bytes that file systems allow a name.
_MOST_BYTES = 255


def check_template(template: str) -> str:
    """A template of a file name without suffix. Raises DDFMError saying which fields there are."""
    fields = ", ".join(f"{{{field}}}" for field in FIELDS)
    expected = f"a file name such as '{{stem}}_fused', of {fields}"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise problem("--name", repr(template), expected, f"{str(error).capitalize()}.") from error
    for literal, field, spec, conversion in parts:
        if "/" in literal or "\\" in literal or _unseen(literal):
            remedy = "Results lie in folders as their sources do; a manifest's column output may name others."
            raise problem("--name", repr(template), f"{expected}, without folders", remedy)
        plain = not spec or (field == "index" and re.fullmatch("0[1-9]", spec))
        if field is not None and (field not in FIELDS or conversion or not plain):
            remedy = "Only {index} may have a format: {index:04} is 0001." if field in FIELDS else ""
            raise problem("--name", repr(template), expected, remedy)
    if PurePosixPath(template).suffix.lower() in SUFFIXES:
        raise problem("--name", repr(template), f"{expected}, without a suffix", "The format is --suffix.")
    return template


def result_names(groups: Sequence[Group], template: str, suffix: str, preset: str) -> list[str]:
    """Paths of the results below the output folder, with slashes: the sources' folders, the template's name.

    A manifest's own name for a result goes before the template; ``suffix`` is added where it has none of a picture.
    {stem}: the scene's name; {parent}: of the folder that the first source lies in; {index}: from 1, in order.
    Raises DDFMError for a name that would lie elsewhere or that no file system takes.
    """
    check_template(template)
    names = []
    for index, group in enumerate(groups, 1):
        if group.output:
            known = PurePosixPath(group.output).suffix.lower() in SUFFIXES
            name = _safe(group.output, group) + ("" if known else suffix)
        else:
            folder, slash, stem = group.name.rpartition("/")
            parent = group.sources[0].absolute().parent.name if "{parent" in template else ""
            name = folder + slash + template.format(stem=stem, parent=parent, index=index, preset=preset) + suffix
        names.append(_storable(name, group))
    return names


def _safe(name: str, group: Group) -> str:
    """A name that stays below the output folder."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or _unseen(name) or "\\" in name or re.match(r"[A-Za-z]:", name):
        expected = "a file name, or a path with / below the output folder"
        raise problem("output", f"{name!r} ({group.label})", expected, "Not absolute, and without .. or \\.")
    return name


def _unseen(name: str) -> bool:
    """Whether it holds marks that are not seen, with which it would not be called as it looks."""
    return any(unicodedata.category(mark) in ("Cc", "Cf") for mark in name)


def _storable(name: str, group: Group) -> str:
    """A name that file systems take, and that is no hidden file's."""
    parts = name.split("/")
    longest = max(parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(longest)) > _MOST_BYTES:
        raise problem("--name", f"{longest[:40]!r}... ({group.label})", f"at most {_MOST_BYTES} bytes", "Shorten it.")
    own = PurePosixPath(group.output or parts[-1]).parts  # folders of the sources may be called as they are
    if any(part.startswith(".") for part in own):
        raise problem("--name", f"{name!r} ({group.label})", "a name before the suffix", "It would be a hidden file.")
    return name


def check_names(names: Sequence[str], groups: Sequence[Group], folder: Path) -> None:
    """Refuse, before any work, two results of one name, or one where another's folder should be. Raises DDFMError.

    Names that differ only in case or Unicode form are refused where ``folder``'s file system takes them for one.
    """
    remedy = "Make them differ: --name '{parent}_{stem}', or the column output of a manifest."
    labels: dict[str, list[str]] = {}
    for name, group in zip(names, groups, strict=True):
        labels.setdefault(name, []).append(group.label)
    twice = [f"{name}: {' and '.join(shared)}" for name, shared in labels.items() if len(shared) > 1]
    if twice:
        results = sum(len(shared) for shared in labels.values() if len(shared) > 1)
        got = f"{len(twice)} name{'s' * (len(twice) > 1)} for {results} results"
        raise problem("--output", got, "a name for each", remedy + listed(twice))
    inside = [f"{name}: {above} is a result" for name in names for above in _folders(name) if above in labels]
    if inside:
        raise problem("--output", "a result where a folder should be", "names that differ", listed(inside).strip())
    alike = _alike(names)
    if alike and not tells_apart(folder):
        got = f"{len(alike)} name(s) that differ only in case or Unicode form"
        raise problem("--output", got, f"names that the file system of {folder} tells apart", remedy + listed(alike))


def _alike(names: Sequence[str]) -> list[str]:
    seen: dict[str, str] = {}
    return [f"{seen[fold(name)]} and {name}" for name in names if seen.setdefault(fold(name), name) != name]


def _folders(name: str) -> list[str]:
    """The folders of a path: "a/b" and "a" of "a/b/c"."""
    return [str(parent) for parent in PurePosixPath(name).parents][:-1]


def tells_apart(folder: Path) -> bool:
    """Whether the file system tells "a" from "A"; yes where it cannot be tried."""
    nearest = next(p for p in [folder, *folder.absolute().parents] if p.is_dir())
    try:
        with tempfile.NamedTemporaryFile(prefix=".ddfm-Case", dir=nearest) as file:
            path = Path(file.name)
            return not path.with_name(path.name.swapcase()).exists()
    except OSError:
        return True
