"""Methods x data sets -> one JSON for each, with all that made it; resumable, and never run twice.

OUT/runs/DATASET/METHOD-KEY.json     values of every image, settings, machine, versions, seconds, memory
OUT/images/DATASET/METHOD-KEY/*.png  the fused images, grey, 8 bits

KEY is a checksum of settings, sources, metrics and convention: other settings get another file, nothing is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from ddfm._checks import DDFMError, problem
from ddfm._provenance import machine, now, versions
from ddfm.bench.methods import Method
from ddfm.datasets import PairedData, by_stem, pairs_sha256
from ddfm.evaluation import left_out, means, read_grey, score
from ddfm.io import file_sha256, write_bytes, write_image
from ddfm.metrics.table import parse_names

__all__ = ["Plan", "benchmark", "read_runs", "run_one"]

SCHEMA = 1
SAVE_EVERY = 5.0  # seconds between two savings of a run under way


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured: convention, metrics, at most ``limit`` pairs of each data set (None: all)."""

    convention: str = "paper"
    metrics: tuple[str, ...] = parse_names("default")
    limit: int | None = None

    def pairs(self, data: PairedData) -> PairedData:
        """The first ``limit`` pairs."""
        names = list(data.pairs)[: self.limit]
        return dataclasses.replace(data, pairs={name: data.pairs[name] for name in names})


def benchmark(
    methods: Sequence[Method],
    sets: Sequence[PairedData],
    out: Path,
    plan: Plan,
    on_image: Callable[[str, str, str], Any] = lambda dataset, method, stem: None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Run everything that ``out`` does not have yet; yield file and record of each data set and method."""
    for data in sets:
        chosen = plan.pairs(data)
        digest = pairs_sha256(chosen)
        for method in methods:
            yield run_one(method, chosen, digest, out, plan, on_image)


def run_one(
    method: Method,
    data: PairedData,
    digest: str,
    out: Path,
    plan: Plan,
    on_image: Callable[[str, str, str], Any] = lambda dataset, method, stem: None,
) -> tuple[Path, dict[str, Any]]:
    """One method on one data set; goes on where an earlier run of the same key stopped."""
    settings = _settings(method)
    key = run_key(settings, digest, plan)
    stem = f"{safe_name(method.name)}-{key[:8]}"
    path = out / "runs" / safe_name(data.name) / f"{stem}.json"
    pictures = out / "images" / safe_name(data.name) / stem
    record = read_run(path) if path.exists() else _new(method, settings, data, digest, plan, key)
    record["pictures"] = pictures.relative_to(out).as_posix()
    missing = [name for name in data.pairs if name not in record["images"]]
    if not missing and record["complete"]:
        return path, record
    table = by_stem(method.folder) if method.folder else {}
    saved = time.monotonic()
    with PeakMemory() as peak:
        for name in missing:
            record["images"][name] = _measure(method, name, data, pictures, plan, table)
            on_image(data.name, method.name, name)
            if time.monotonic() - saved > SAVE_EVERY:
                _save(path, record)
                saved = time.monotonic()
    record["peak_memory_bytes"] = max(peak.bytes, record["peak_memory_bytes"] or 0)
    _save(path, _summed(record, plan))
    return path, record


def run_key(settings: dict[str, Any], digest: str, plan: Plan) -> str:
    """Checksum of all that decides the values."""
    facts = [SCHEMA, settings, digest, plan.convention, list(plan.metrics)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _settings(method: Method) -> dict[str, Any]:
    """A folder of results is known by its files' checksums."""
    if method.folder is None:
        return method.settings
    digest = hashlib.sha256()
    for stem, path in by_stem(method.folder).items():
        digest.update(f"{stem}:{file_sha256(path)}\n".encode())
    return method.settings | {"sha256": digest.hexdigest()}


def _new(
    method: Method, settings: dict[str, Any], data: PairedData, digest: str, plan: Plan, key: str
) -> dict[str, Any]:
    sources = {name: [str(path) for path in pair] for name, pair in data.pairs.items()}
    return {
        "tool": "ddfm benchmark",
        "schema": SCHEMA,
        "key": key,
        "time": now(),
        "method": method.name,
        "settings": settings,
        "dataset": {"name": data.name, "roles": list(data.roles), "pairs": len(sources), "sha256": digest},
        "sources": sources,
        "convention": plan.convention,
        "metrics": list(plan.metrics),
        "tone": "none" if method.folder is None else "unknown",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "images": {},
        "mean": {},
        "left_out": {},
        "seconds": None,
        "peak_memory_bytes": None,
        "complete": False,
    }


def _measure(
    method: Method, name: str, data: PairedData, pictures: Path, plan: Plan, table: Mapping[str, Path]
) -> dict[str, Any]:
    """Fuse (or read) one image, keep it, score it."""
    a, b = (read_grey(path) for path in data.pairs[name])
    if a.shape != b.shape:
        sizes = " and ".join(f"{i.shape[-1]}x{i.shape[-2]}" for i in (a, b))
        raise problem(str(data.pairs[name][0]), f"sources of {sizes} pixels", "one size", "See: ddfm data check")
    if method.fuse is None:
        path = table.get(name)
        if path is None:
            raise problem(f"{method.name} ({method.folder})", f"no image named {name}", "one for each pair")
        fused, seconds = read_grey(path), None
        if fused.shape != a.shape:
            raise problem(str(path), f"{fused.shape[-1]}x{fused.shape[-2]}", f"{a.shape[-1]}x{a.shape[-2]} pixels")
    else:
        begun = time.perf_counter()
        result = method.fuse((a / 255).float(), (b / 255).float())
        seconds = round(time.perf_counter() - begun, 4)
        fused = (result * 255).round().double()  # in its own type, where halves of 8-bit levels are exact
    pictures.mkdir(parents=True, exist_ok=True)
    picture = pictures / f"{name}.png"
    write_image(picture, (fused[0, 0] / 255).float().numpy(), overwrite=True)
    values = score(fused, a, b, convention=plan.convention, metrics=plan.metrics)
    finite = {metric: value if math.isfinite(value) else None for metric, value in values.items()}
    return {"values": finite, "seconds": seconds, "sha256": file_sha256(picture)}


def _summed(record: dict[str, Any], plan: Plan) -> dict[str, Any]:
    images = {
        name: {m: math.nan if v is None else v for m, v in image["values"].items()}
        for name, image in record["images"].items()
    }
    record["mean"] = means(images, plan.metrics)
    record["left_out"] = left_out(images, plan.metrics)
    seconds = [image["seconds"] for image in record["images"].values() if image["seconds"] is not None]
    record["seconds"] = {"median": statistics.median(seconds), "total": round(sum(seconds), 3)} if seconds else None
    record["complete"] = True
    return record


def _save(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode(), overwrite=True)


def safe_name(name: str) -> str:
    """A name as one part of a path."""
    return "".join(c if c.isalnum() or c in "-_.,=@" else "_" for c in name) or "_"


# ---- reading --------------------------------------------------------------------------------------


def read_run(path: Path) -> dict[str, Any]:
    """One record, checked. Raises DDFMError naming the file."""
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if record["tool"] != "ddfm benchmark" or record["schema"] != SCHEMA:
            raise ValueError(f"tool {record['tool']!r}, schema {record['schema']!r}")
        for needed in ("method", "dataset", "images", "metrics", "convention", "complete", "key", "time"):
            record[needed]
        record["dataset"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise problem(
            str(path), f"{type(error).__name__}: {error}", "a result of ddfm benchmark", "Move it away."
        ) from error
    return record


def read_runs(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The newest complete record of each data set and method, and what was passed over and why."""
    folder = out / "runs"
    if not folder.is_dir():
        raise problem(str(out), "no folder runs/ in it", "an output folder of ddfm benchmark")
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    notes = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            record = read_run(path)
        except DDFMError as error:
            notes.append(f"passed over: {error}")
            continue
        if not record["complete"]:
            notes.append(f"passed over: {path.name}: the run was stopped; give its command again")
            continue
        place = (record["dataset"]["name"], record["method"], record["convention"])
        other = newest.get(place)
        if other is not None:
            notes.append(f"{place[0]}, {place[1]}: several runs, the newest is shown")
        if other is None or record["time"] >= other["time"]:
            newest[place] = record
    if not newest:
        raise problem(str(folder), "no complete run", "results of ddfm benchmark", "; ".join(notes))
    return list(newest.values()), sorted(set(notes))


# ---- memory ---------------------------------------------------------------------------------------


class PeakMemory:
    """The process's largest resident memory (and the GPU's allocated) while inside; ``bytes`` after it.

    On Linux the kernel's own mark is reset; elsewhere the process's mark since its start is all there is.
    """

    bytes = 0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = _high_water_mark()
        if torch.cuda.is_available():
            self.bytes = max(self.bytes, torch.cuda.max_memory_allocated())


def _high_water_mark() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError):
        return int(psutil.Process().memory_info().rss)
