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
from ddfm._runtime import release_freed_memory
from ddfm.bench.methods import Method
from ddfm.datasets import PairedData, by_stem, pairs_sha256
from ddfm.evaluation import left_out, means, oddity, read_grey, score
from ddfm.io import file_sha256, write_bytes, write_image
from ddfm.metrics.table import parse_names
from ddfm.pictures import stretch

__all__ = ["Failure", "Plan", "benchmark", "read_runs", "run_one"]

SCHEMA = 1
STRETCHED = ("EN", "SD")  # also kept of the result stretched from least to largest, as some methods' scripts do
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


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that could not be finished, and why."""

    dataset: str
    method: str
    reason: str


def benchmark(
    methods: Sequence[Method],
    sets: Sequence[PairedData],
    out: Path,
    plan: Plan,
    on_image: Callable[[str, str, str], Any] = lambda dataset, method, stem: None,
) -> Iterator[tuple[Path, dict[str, Any]] | Failure]:
    """Run everything that ``out`` does not have yet; yield file and record of each data set and method, or its failure.

    A run that fails does not stop the others.
    """
    for data in sets:
        chosen = plan.pairs(data)
        digest = pairs_sha256(chosen)
        for method in methods:
            try:
                yield run_one(method.on(data), chosen, digest, out, plan, on_image)
            except DDFMError as error:
                yield Failure(data.name, method.name, str(error))


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
        try:
            for name in missing:
                record["images"][name] = _measure(method, name, data, pictures, plan, table)
                on_image(data.name, method.name, name)
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(path, record)
                    saved = time.monotonic()
        finally:  # also when it is stopped or an image cannot be read: what is done is done
            if len(record["images"]) < len(data.pairs):
                _save(path, record)
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
        "tone": settings.get("preset", {}).get("tone", "none") if method.folder is None else "unknown",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "images": {},
        "mean": {},
        "stretched": {},
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
        result = fused / 255
    else:
        begun = time.perf_counter()
        result = method.fuse((a / 255).float(), (b / 255).float())
        seconds = round(time.perf_counter() - begun, 4)
        fused = levels(result)
    pictures.mkdir(parents=True, exist_ok=True)
    picture = pictures / f"{name}.png"
    write_image(picture, (fused[0, 0] / 255).float().numpy(), overwrite=True)
    values = score(fused, a, b, convention=plan.convention, metrics=plan.metrics)
    finite = {metric: value if math.isfinite(value) else None for metric, value in values.items()}
    remark = {"remark": odd} if (odd := oddity(fused, a, b)) else {}
    stretched = score(levels(stretch(result, "minmax")), a, b, metrics=STRETCHED)
    return {"values": finite, "stretched": stretched, "seconds": seconds, "sha256": file_sha256(picture), **remark}


def levels(image: torch.Tensor) -> torch.Tensor:
    """Whole levels 0..255, float64, of [0, 1]; rounded in its own type, where halves of 8-bit levels are exact."""
    return (image * 255).round().double()


def _summed(record: dict[str, Any], plan: Plan) -> dict[str, Any]:
    images = {
        name: {m: math.nan if v is None else v for m, v in image["values"].items()}
        for name, image in record["images"].items()
    }
    record["mean"] = means(images, plan.metrics)
    record["left_out"] = left_out(images, plan.metrics)
    stretched = {name: image["stretched"] for name, image in record["images"].items() if "stretched" in image}
    # a run begun before this was kept has it for some images only, and no mean of all
    record["stretched"] = means(stretched, STRETCHED) if len(stretched) == len(images) else {}
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
        _check_shape(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise problem(
            str(path), f"{type(error).__name__}: {error}", "a result of ddfm benchmark", "Move it away."
        ) from error
    return record


def _check_shape(record: dict[str, Any]) -> None:
    """Raise KeyError or ValueError unless a record has all that a report reads, of the right kinds."""
    kinds: dict[str, type | tuple[type, ...]] = {
        **dict.fromkeys(("method", "convention", "key", "time", "tone", "pictures"), str),
        **dict.fromkeys(("settings", "dataset", "sources", "machine", "versions", "images", "mean", "left_out"), dict),
        **{"metrics": list, "threads": int, "complete": bool, "seconds": (dict, type(None))},
    }
    for name, kind in kinds.items():
        if not isinstance(record[name], kind):
            raise ValueError(f"{name} is {type(record[name]).__name__}")
    for name in ("name", "roles", "sha256"):
        record["dataset"][name]
    parse_names(record["metrics"])
    for image in record["images"].values():
        image["sha256"], image["seconds"]
        if not record["metrics"] == list(image["values"]):
            raise ValueError("an image has other metrics than the run")
    if record["complete"] and set(record["mean"]) != set(record["metrics"]):
        raise ValueError("means of other metrics than the run's")


def read_runs(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The newest complete record of each data set and method, and what was passed over and why."""
    folder = out / "runs"
    if not folder.is_dir():
        raise problem(str(out), "no folder runs/ in it", "an output folder of ddfm benchmark")
    runs: list[dict[str, Any]] = []
    notes: list[str] = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            record = read_run(path)
        except DDFMError as error:
            notes.append(f"passed over: {error}")
            continue
        if not record["complete"]:
            notes.append(f"passed over: {path.name}: the run was stopped; give its command again")
            continue
        runs.append(record | {"file": path.name})
    if not runs:
        raise problem(str(folder), "no complete run", "results of ddfm benchmark", "; ".join(notes))
    chosen = [run for group in _groups(runs).values() for run in _one_table(group, notes)]
    return chosen, sorted(set(notes))


def _groups(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["dataset"]["name"], run["convention"]), []).append(run)
    return groups


def _one_table(runs: Sequence[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """Of a data set's runs those that may stand in one table: the same pairs and metrics, the newest of each method.

    Of several such sets the one with the most methods, then with the most pairs; what is left out is noted by file.
    """
    kinds: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda r: r["time"]):
        kind = kinds.setdefault((run["dataset"]["sha256"], tuple(run["metrics"])), {})
        if run["method"] in kind:
            notes.append(f"{kind[run['method']]['file']}: older than {run['file']}, not shown")
        kind[run["method"]] = run
    best = max(kinds.values(), key=lambda kind: (len(kind), len(next(iter(kind.values()))["images"])))
    for kind in kinds.values():
        if kind is not best:
            notes += [f"{run['file']}: of other pairs or metrics than the table, not shown" for run in kind.values()]
    return list(best.values())


# ---- memory ---------------------------------------------------------------------------------------


class PeakMemory:
    """The process's largest resident memory (and the GPU's allocated) while inside; ``bytes`` after it.

    What earlier methods freed is handed back first; a prior that they loaded stays, and counts.

    On Linux the kernel's own mark is reset; elsewhere the process's mark since its start is all there is.
    """

    bytes = 0

    def __enter__(self) -> PeakMemory:
        release_freed_memory()
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
