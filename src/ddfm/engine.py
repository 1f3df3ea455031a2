"""Many pairs: each fused alone, a journal, and a run that can be taken up again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ddfm._checks import DDFMError, explained, problem
from ddfm._provenance import now
from ddfm.beside import Beside
from ddfm.fusion import Fuser
from ddfm.io import SUFFIXES, write_together
from ddfm.io.video import VIDEO_SUFFIXES
from ddfm.journal import JOURNAL, Journal, append_record
from ddfm.planning import Job, kind_of, plan

__all__ = ["JOURNAL", "Job", "Outcome", "check_free", "check_report", "check_writable", "kind_of", "plan", "run"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job: "fused", "kept" (done by an earlier run with the same settings) or "failed"."""

    job: Job
    status: str
    record: dict[str, Any]


def run(
    jobs: Sequence[Job],
    fuser: Fuser,
    *,
    overwrite: bool = False,
    journal: Path | None = None,
    report: Path | None = None,
    on_step: Callable[[Job, int, int], Any] | None = None,
    beside: Beside | None = None,
) -> Iterator[Outcome]:
    """Fuse the jobs one by one, yielding each outcome as it is known; ``beside``: further files of each.

    A job whose output exists is kept if the journal says that these sources with these settings made it, and it is
    still the same file; otherwise it fails, unless ``overwrite``. A job that fails does not stop the others.
    """
    book = Journal(journal) if journal else None
    for job in jobs:
        key = job_key(job, fuser)
        vouched = None if overwrite or not book else book.vouched(job.output, key)
        outcome = (
            _keep(job, fuser, key, vouched, beside or Beside())
            if vouched
            else _attempt(job, fuser, key, overwrite, book, on_step, beside or Beside())
        )
        if report and outcome.status != "kept":
            append_record(report, outcome.record)
        yield outcome


def _attempt(
    job: Job,
    fuser: Fuser,
    key: str,
    overwrite: bool,
    book: Journal | None,
    on_step: Callable[[Job, int, int], Any] | None,
    beside: Beside,
) -> Outcome:
    try:
        check_free(job.output, overwrite)
        beside.check_free(job.output, overwrite)
        fused = fuser.fuse(*job.sources, on_step=lambda i, n: on_step(job, i, n) if on_step else None)
        content = fused.encode(job.output.suffix)
        checksum = hashlib.sha256(content).hexdigest()
        record = _base(job) | fused.report | {"output_sha256": checksum, "status": "fused", "key": key}
        contents = beside.contents(job.output, fused.transforms, fused.pictures)
        for path in (job.output, *contents):
            _make_folder(path.parent)
        if book:  # before the file has its name: whoever sees the file finds the line
            book.append(job.output, record)
        write_together(contents | {job.output: content}, overwrite=overwrite)
    except (DDFMError, MemoryError, RuntimeError) as error:
        made = None if overwrite or not book else book.vouched(job.output, key)
        if made:  # by another run in the same folder, meanwhile
            return Outcome(job, "kept", made)
        return _failed(job, key, error)
    return Outcome(job, "fused", record)


def _keep(job: Job, fuser: Fuser, key: str, vouched: dict[str, Any], beside: Beside) -> Outcome:
    """What an earlier run made; files beside it that are asked for only now are made, which needs no fusion."""
    if beside.missing(job.output):
        try:
            gathered = fuser.config.preparation.gather(job.sources)
            contents = beside.contents(job.output, gathered.transforms, [image.data for image in gathered.images])
            for path in contents:
                _make_folder(path.parent)
            write_together({path: content for path, content in contents.items() if not os.path.lexists(path)})
        except (DDFMError, MemoryError, RuntimeError) as error:
            return _failed(job, key, error)
    return Outcome(job, "kept", vouched)


def _failed(job: Job, key: str, error: Exception) -> Outcome:
    inputs = [{"path": str(p)} for p in job.sources]
    return Outcome(
        job, "failed", _base(job) | {"inputs": inputs, "error": _reason(error, job), "status": "failed", "key": key}
    )


def _base(job: Job) -> dict[str, Any]:
    return {"tool": "ddfm", "time": now(), "output": str(job.output)}


def _reason(error: Exception, job: Job) -> str:
    remedy = "Reduce or crop it, or let the network see less of it at once: --tile 256."
    return str(explained(error, str(job.sources[0]), "a picture that fits", remedy))


def check_free(output: Path, overwrite: bool) -> None:
    """Before the work, not after it."""
    if not overwrite and os.path.lexists(output):
        raise problem("--output", f"{output}, which exists", "a new name", "Allow it with --overwrite.")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise problem("--output", folder, "a folder that can be made", str(error)) from error


def job_key(job: Job, fuser: Fuser) -> str:
    """What the bytes of the output depend on: the sources' bytes and every setting."""
    digest = hashlib.sha256(json.dumps(fuser.settings, sort_keys=True).encode() + job.output.suffix.encode())
    for source in job.sources:
        try:
            with source.open("rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
        except OSError:  # the attempt itself will say what is wrong
            digest.update(b"unreadable")
    return digest.hexdigest()


def check_report(path: Path, folder: Path | None = None) -> None:
    """Refuse, before any work, to append to a file that is not a report or cannot be written. Raises DDFMError.

    ``folder``: the output folder of the run, which is made if the report is to lie in it.
    """
    if path.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES, ".nii", ".gz", ".dcm"):
        raise problem("--report", path, "another name than a picture's, a clip's or a volume's", "End it in .jsonl.")
    if folder and path.parent.absolute() == folder.absolute():
        folder.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not path.parent.is_dir():
        raise problem("--report", path, "a file in an existing folder", f"Create it: mkdir -p {path.parent}")
    new = not path.exists()
    try:
        with path.open("ab+") as file:
            file.seek(0)
            head = file.read(4096).lstrip()
    except OSError as error:
        raise problem("--report", path, "a file that can be written", str(error.strerror)) from error
    if new:
        path.unlink()
    if head and not head.startswith(b'{"tool": "ddfm"'):
        raise problem("--report", f"{path}, which is not a ddfm report", "a new name or a report to append to")


def check_writable(jobs: Sequence[Job]) -> None:
    """Refuse, before the prior is loaded, a place where nothing can be written. Raises DDFMError."""
    nearest = next(p for p in [jobs[0].output.parent, *jobs[0].output.absolute().parents] if p.is_dir())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise problem("--output", f"{nearest} ({error.strerror})", "a folder that can be written to") from error
