"""Many pairs at once: two zip files or two lists of pictures in, a zip of results and a table out."""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ddfm import engine
from ddfm._checks import DDFMError, problem
from ddfm.app.limits import Limits, check_upload, told
from ddfm.app.runs import OnStep
from ddfm.app.studio import Upload, safe_name
from ddfm.app.words import as_on_the_page
from ddfm.engine import Outcome
from ddfm.fusion import Fuser
from ddfm.io import SUFFIXES, write_bytes

__all__ = ["Batch", "fuse_batch"]

#: Ends of names that say which camera a picture is of; left out when pairs are looked for.
_KIND = re.compile(r"[-_ ](ir|infrared|thermal|vis|visible|rgb|ct|mri|pet|spect)$", re.IGNORECASE)
_BLOCK = 1 << 20
_MOST_NAME = 200


Row = tuple[str, str, str, str]


@dataclasses.dataclass(frozen=True)
class Batch:
    """The zip of results, the table as CSV, and its rows: name, outcome, seconds, what to know."""

    results: Path
    table: Path
    rows: tuple[Row, ...]


HEAD = ("name", "outcome", "seconds", "to know")


def fuse_batch(
    infrared: Sequence[Upload], visible: Sequence[Upload], fuser: Fuser, folder: Path, limits: Limits, on_step: OnStep
) -> Batch:
    """Fuse what both sides have by name; what cannot be fused is a row of the table. Raises DDFMError, for the page."""
    sides = {"thermal": infrared, "visible": visible}
    places = {folder / side / "x": "x" for side in (*sides, "fused")}
    try:
        on_step(0, 0, "unpacking")
        laid = {side: _lay_out(uploads, folder / side, limits, side) for side, uploads in sides.items()}
        rows = _left_out(laid)
        jobs = engine.plan([folder / s for s in sides], folder / "fused", recursive=True, skipped=[])
        outcomes: list[Outcome] = []
        for outcome in engine.run(jobs, fuser, on_step=lambda job, i, of: on_step(len(outcomes), len(jobs), _at(job))):
            outcomes.append(outcome)
            on_step(len(outcomes), len(jobs), "pairs")
    except ValueError as error:  # DDFMError among them
        raise told(error, places) from error
    except OSError as error:
        got = f"names or folders that cannot be made here ({error.strerror})"
        raise problem("pictures", got, "names that differ, in few folders", "Rename them.") from error
    rows += [_row(outcome, folder, places) for outcome in outcomes]
    return _written(tuple(sorted(rows)), [outcome for outcome in outcomes if outcome.status == "fused"], folder)


def _written(rows: tuple[Row, ...], fused: Sequence[Outcome], folder: Path) -> Batch:
    results, table = folder / "fused.zip", folder / "fused.csv"
    write_bytes(table, _csv(rows))
    with zipfile.ZipFile(results, "w", zipfile.ZIP_STORED) as archive:  # PNG is packed already
        archive.write(table, table.name)
        for outcome in fused:
            archive.write(outcome.job.output, outcome.job.output.relative_to(folder / "fused").as_posix())
    return Batch(results, table, rows)


def _at(job: engine.Job) -> str:
    return job.output.name


#: Pictures of a side by their names without suffix: "", or why one is not taken.
Laid = dict[str, str]


def _left_out(laid: Mapping[str, Laid]) -> list[Row]:
    """A row for every name that is not sound on both sides. Raises DDFMError if none is."""
    rows: list[Row] = []
    sound = 0
    for name in sorted(set().union(*laid.values())):
        words = [f"{side}: {names[name]}" for side, names in laid.items() if names.get(name)]
        words += [f"there is no {side} picture of this name" for side, names in laid.items() if name not in names]
        rows += [(name, "left out", "", "; ".join(words))] if words else []
        sound += not words
    if not sound:
        told_of = "; ".join(f"{row[0]}: {row[3]}" for row in rows[:5])
        raise problem("pictures", f"no pair ({told_of})", "pictures of one name on both sides", "Look at their names.")
    return rows


def _lay_out(uploads: Sequence[Upload], folder: Path, limits: Limits, side: str) -> Laid:
    """The pictures of one side under their names without what says the camera. Raises DDFMError."""
    folder.mkdir()
    found: Laid = {}
    for name, path in _pictures(uploads, folder, limits):
        clean = _clean(name)
        stem = clean.removesuffix(PurePosixPath(clean).suffix)
        if stem in found:
            found[stem] = f"{name} is not the only one of that name"
            for other in folder.glob(f"{glob.escape(stem)}.*"):
                other.unlink()
            continue
        found[stem] = _unsound(path, name, limits) or _placed(path, folder, clean, name)
        if len(found) > limits.pairs:
            raise problem(side, f"more than {limits.pairs} pictures", "fewer", "The command ddfm fuse has no limit.")
    if not found:
        raise problem(side, "no pictures", f"some ending in {', '.join(SUFFIXES)}, or a zip of them")
    return found


def _placed(path: Path, folder: Path, clean: str, name: str) -> str:
    """Put a picture where pairs are looked for; why it cannot be, "" if it can."""
    target = folder / clean
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target) if folder in path.parents else target.symlink_to(path.absolute())
    except OSError as error:
        return f"{name[:80]} cannot be a file here ({error.strerror})"
    return ""


def _unsound(path: Path, name: str, limits: Limits) -> str:
    """Why a picture is not taken, "" if it is."""
    try:
        check_upload(path, name, limits)
    except DDFMError as error:
        return str(error)
    return ""


def _clean(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(_KIND.sub("", path.stem) + path.suffix))


def _pictures(uploads: Sequence[Upload], folder: Path, limits: Limits) -> Iterator[tuple[str, Path]]:
    """(name below its folder, file) of every picture, those of zips unpacked."""
    for upload in uploads:
        if zipfile.is_zipfile(upload.path):
            yield from _unpacked(upload, folder / ".unpacked", limits)
        else:
            yield safe_name(upload.path.name, most=_MOST_NAME), upload.path


def _unpacked(upload: Upload, folder: Path, limits: Limits) -> Iterator[tuple[str, Path]]:
    """The pictures of a zip; what is written is counted, whatever its heads say. Raises DDFMError."""
    folder.mkdir(exist_ok=True)
    left = limits.bytes * limits.unpacked
    try:
        with zipfile.ZipFile(upload.path) as archive:
            infos = [info for info in archive.infolist() if _is_picture(info.filename)]
            if len(infos) > limits.pairs:
                remedy = "The command ddfm fuse has no limit."
                raise problem(upload.name, f"{len(infos)} pictures", f"at most {limits.pairs}", remedy)
            for k, (info, name) in enumerate(zip(infos, _below_top(infos), strict=True)):
                path = folder / f"{k}{PurePosixPath(name).suffix.lower()}"
                left -= _extract(archive, info, path, min(left, limits.bytes), upload.name, limits)
                yield name, path
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise problem(upload.name, f"a zip that cannot be read ({error})", "a sound one", "Pack it again.") from error


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, most: int, name: str, limits: Limits) -> int:
    """Write one file of a zip, no more than ``most`` bytes; how many there were."""
    size = 0
    with archive.open(info) as source, path.open("wb") as target:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > most:
                expected = f"at most {limits.megabytes:g} MB each and {limits.megabytes * limits.unpacked:g} MB in all"
                raise problem(name, "more when unpacked", expected, "Send fewer or smaller pictures.")
            target.write(block)
    return size


def _is_picture(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    hidden = any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in parts)
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES and not name.endswith("/")


def _below_top(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Safe names of the files of a zip, without the one folder that all of them lie in."""
    paths = [
        [safe_name(part, most=_MOST_NAME) for part in PurePosixPath(i.filename.replace("\\", "/")).parts if part != "/"]
        for i in infos
    ]
    while paths and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    return ["/".join(path) for path in paths]


def _row(outcome: Outcome, folder: Path, places: dict[Path, str]) -> Row:
    name = outcome.job.output.relative_to(folder / "fused").as_posix()
    record = outcome.record
    words = "; ".join(record.get("warnings", [])) if outcome.status == "fused" else str(record.get("error", ""))
    seconds = record.get("seconds")
    for side in ("thermal", "visible"):
        words = words.replace(f"{folder / side}/", f"{side} ")
    words = as_on_the_page(str(told(ValueError(words), places)))
    return name, outcome.status, "" if seconds is None else f"{seconds:.2f}", words


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(HEAD)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return file.getvalue().encode()


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + cell if cell[:1] in tuple("=+-@\t\r") else cell
