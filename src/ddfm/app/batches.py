"""Many pairs at once: two zip files or two lists of pictures in, a zip of results and a table out."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ddfm import engine
from ddfm._checks import problem
from ddfm.app.limits import Limits, check_upload, told
from ddfm.app.runs import OnStep
from ddfm.app.studio import Upload, safe_name
from ddfm.engine import Outcome
from ddfm.fusion import Fuser
from ddfm.io import SUFFIXES, write_bytes

__all__ = ["Batch", "fuse_batch"]

#: Ends of names that say which camera a picture is of; left out when pairs are looked for.
_KIND = re.compile(r"[-_ ](ir|infrared|thermal|vis|visible|rgb|ct|mri|pet|spect)$", re.IGNORECASE)
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Batch:
    """The zip of results, the table as CSV, and its rows: name, outcome, seconds, what to know."""

    results: Path
    table: Path
    rows: tuple[tuple[str, str, str, str], ...]


HEAD = ("name", "outcome", "seconds", "to know")


def fuse_batch(
    infrared: Sequence[Upload],
    visible: Sequence[Upload],
    fuser: Fuser,
    folder: Path,
    limits: Limits,
    on_step: OnStep,
    skipped: list[str] | None = None,
) -> Batch:
    """Fuse what both sides have by name. Raises DDFMError in the user's words."""
    sides = {"thermal": infrared, "visible": visible}
    try:
        for side, uploads in sides.items():
            on_step(0, 0, "unpacking")
            _lay_out(uploads, folder / side, limits, side)
        jobs = engine.plan([folder / s for s in sides], folder / "fused", recursive=True, skipped=skipped)
        outcomes: list[Outcome] = []
        for outcome in engine.run(jobs, fuser, on_step=lambda job, i, of: on_step(len(outcomes), len(jobs), _at(job))):
            outcomes.append(outcome)
            on_step(len(outcomes), len(jobs), "pairs")
    except ValueError as error:  # DDFMError among them
        raise told(error, {folder / "x": "x"}) from error
    rows = tuple(_row(outcome, folder) for outcome in outcomes)
    results, table = folder / "fused.zip", folder / "fused.csv"
    write_bytes(table, _csv(rows))
    write_bytes(results, _zip([o for o in outcomes if o.status == "fused"], table, folder / "fused"))
    return Batch(results, table, rows)


def _at(job: engine.Job) -> str:
    return job.output.name


def _lay_out(uploads: Sequence[Upload], folder: Path, limits: Limits, side: str) -> None:
    """The pictures of one side under their names without what says the camera. Raises DDFMError."""
    folder.mkdir()
    names: set[str] = set()
    for name, path in _pictures(uploads, folder, limits, side):
        check_upload(path, name, limits)
        clean = _clean(name)
        if clean.casefold() in names:
            raise problem(side, f"{name} and another of that name", "names that differ", "Rename one.")
        names.add(clean.casefold())
        target = folder / clean
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target) if folder in path.parents else target.symlink_to(path.absolute())
        if len(names) > limits.pairs:
            raise problem(side, f"more than {limits.pairs} pictures", "fewer", "Use ddfm fuse, which has no limit.")
    if not names:
        raise problem(side, "no pictures", f"some ending in {', '.join(SUFFIXES)}, or a zip of them")


def _clean(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(_KIND.sub("", path.stem) + path.suffix))


def _pictures(uploads: Sequence[Upload], folder: Path, limits: Limits, side: str) -> Iterator[tuple[str, Path]]:
    """(name below its folder, file) of every picture, those of zips unpacked."""
    for upload in uploads:
        if zipfile.is_zipfile(upload.path):
            yield from _unpacked(upload, folder / ".unpacked", limits)
        else:
            yield safe_name(upload.name), upload.path


def _unpacked(upload: Upload, folder: Path, limits: Limits) -> Iterator[tuple[str, Path]]:
    """The pictures of a zip; what is written is counted, whatever its heads say. Raises DDFMError."""
    folder.mkdir(exist_ok=True)
    left = limits.bytes * limits.unpacked
    try:
        with zipfile.ZipFile(upload.path) as archive:
            infos = [info for info in archive.infolist() if _is_picture(info.filename)]
            if len(infos) > limits.pairs:
                remedy = "Use ddfm fuse, which has no limit."
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
        [safe_name(part) for part in PurePosixPath(i.filename.replace("\\", "/")).parts if part != "/"] for i in infos
    ]
    while paths and all(len(path) > 1 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    return ["/".join(path) for path in paths]


def _row(outcome: Outcome, folder: Path) -> tuple[str, str, str, str]:
    name = outcome.job.output.relative_to(folder / "fused").as_posix()
    record = outcome.record
    words = "; ".join(record.get("warnings", [])) if outcome.status == "fused" else str(record.get("error", ""))
    seconds = record.get("seconds")
    return (
        name,
        outcome.status,
        "" if seconds is None else f"{seconds:.2f}",
        str(told(ValueError(words), {folder / "x": "x"})),
    )


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(HEAD)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return file.getvalue().encode()


def _plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + cell if cell[:1] in tuple("=+-@\t\r") else cell


def _zip(outcomes: Sequence[Outcome], table: Path, below: Path) -> bytes:
    """Results are PNG already: stored, not packed again."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.write(table, table.name)
        for outcome in outcomes:
            archive.write(outcome.job.output, outcome.job.output.relative_to(below).as_posix())
    return file.getvalue()
