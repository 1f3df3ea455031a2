"""How many network evaluations a picture needs: the ladder 100 to 1, from noise and from a warm start, by sampler.

For the likelihood of a preset: every number of evaluations with each sampler, from pure noise and from the warm start
that ``Preset.with_steps`` gives; then the timestep where a warm start begins, with DDIM; and every baseline and preset.
Each is a run of ``ddfm benchmark`` in OUT (values of every image, seconds of the fusion alone, peak memory, settings,
machine), so a stopped ladder goes on where it was, and no configuration runs twice. Written then: OUT/ladder.json, .md,
and .png where matplotlib is (quality against seconds).

    python benchmarks/ladder.py PAIRS OUT [--preset balanced] [--limit N] [--steps 100 50 ...] [--samplers ddim ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from _common import data_sets, errors_teach, prior_facts, provenance, run_all, write_json
from ddfm._checks import DDFMError, problem
from ddfm.bench import charts
from ddfm.bench.methods import Method, by_preset, get_methods
from ddfm.bench.run import Plan
from ddfm.fusion import FuseConfig
from ddfm.metrics.table import METRICS
from ddfm.presets import Preset, get_preset
from ddfm.tables import digits

STEPS = (100, 50, 20, 10, 5, 3, 2, 1)
SAMPLERS = ("ddim", "dpm++", "unipc")
STARTS = (1, 10, 50, 100, 200, 300, 500)
BASELINES = ("average", "maximum", "laplacian", "em-only", "fast", "balanced")
RANKED = ("SD", "Qabf", "SSIM", "SCD", "minVIF", "hot", "texture")
SWEEP = "ddim, by start"
PANELS = ("mean rank", "minVIF", "SCD", "Qabf")


def ladder(preset: Preset, steps: Sequence[int], samplers: Sequence[str], starts: Sequence[int]) -> Iterator[Preset]:
    """Every configuration, named after what differs: ``ddim 20 noise``, ``unipc 5 warm``, ``start 50``."""
    for sampler in samplers:
        for count in steps:
            warm = dataclasses.replace(preset.with_steps(count), sampler=sampler)
            yield dataclasses.replace(warm, name=f"{sampler} {count} warm (from {warm.start})")
            yield dataclasses.replace(warm, start=None, warm_sweeps=0, name=f"{sampler} {count} noise")
    for start in starts:
        count = min(preset.steps, start + 1)
        yield dataclasses.replace(
            preset, sampler="ddim", steps=count, start=start, name=f"start {start}, {count} steps"
        )


def distinct(presets: Iterator[Preset]) -> Iterator[Preset]:
    """Of configurations that differ in name only, the first."""
    seen: set[Preset] = set()
    for preset in presets:
        bare = dataclasses.replace(preset, name="")
        if bare not in seen:
            seen.add(bare)
            yield preset


def methods_of(options: argparse.Namespace, config: FuseConfig) -> tuple[list[Method], dict[str, Preset]]:
    """Baselines and configurations; the second by name."""
    preset = get_preset(options.preset)
    if preset.start is None:
        raise problem("--preset", preset.name, "one with a warm start", "Such as balanced.")
    found = {p.name: p for p in distinct(ladder(preset, options.steps, options.samplers, options.starts))}
    # the name is a label here, no setting: equal settings are one run whatever the label
    rungs = [by_preset(name, dataclasses.replace(p, name=preset.name), config) for name, p in found.items()]
    return [*get_methods(options.baselines, config), *map(warmed, rungs)], found


def warmed(method: Method) -> Method:
    """The same; before its first picture it fuses a small one, so that loading the prior is in no time."""
    done: list[bool] = []

    def fuse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if not done:
            small = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32)
            method.fuse(small, small.flip(-1))  # type: ignore[misc]
            done.append(True)
        return method.fuse(a, b)  # type: ignore[misc]

    return dataclasses.replace(method, fuse=fuse)


# ---- from records to rows -------------------------------------------------------------------------


def rows_of(records: Sequence[dict[str, Any]], presets: Mapping[str, Preset]) -> dict[str, dict[str, Any]]:
    """Method -> its settings and its mean, seconds and memory on each data set."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        name = record["method"]
        preset = presets.get(name)
        facts = {"sampler": preset.sampler, "steps": preset.steps, "start": preset.start} if preset else {}
        row = rows.setdefault(name, facts | {"datasets": {}})
        row["datasets"][record["dataset"]["name"]] = {
            "images": len(record["images"]),
            "mean": record["mean"],
            "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"],
        }
    return rows


def add_means(rows: dict[str, dict[str, Any]], metrics: Sequence[str]) -> None:
    """Mean over data sets of each metric, the mean rank over RANKED, and the median of the seconds, into each row.

    Only data sets that every row has count: leaving out a hard one must gain nothing.
    """
    common = set.intersection(*(set(row["datasets"]) for row in rows.values()))
    if not common:
        raise DDFMError("ladder: got no data set that every configuration finished, expected one. Give it again.")
    ranks = mean_ranks({name: {d: row["datasets"][d]["mean"] for d in common} for name, row in rows.items()})
    for name, row in rows.items():
        chosen = [row["datasets"][d] for d in sorted(common)]
        values = {m: [c["mean"][m] for c in chosen if c["mean"].get(m) is not None] for m in metrics}
        row["mean"] = {m: statistics.fmean(v) if v else None for m, v in values.items()} | {"mean rank": ranks[name]}
        row["seconds"] = statistics.fmean(c["seconds"]["median"] for c in chosen)
        row["peak_memory_bytes"] = max(c["peak_memory_bytes"] for c in chosen)


def mean_ranks(values: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> dict[str, float]:
    """Method -> rank among all, averaged over data sets and RANKED; 1 is the best, ties share their mean rank."""
    found: dict[str, list[float]] = {name: [] for name in values}
    for dataset in next(iter(values.values())):
        for metric in RANKED:
            row = {n: v[dataset].get(metric) for n, v in values.items()}
            known = {n: x for n, x in row.items() if x is not None}
            for name, own in known.items():
                better = sum(x > own for x in known.values())
                found[name].append(better + (sum(x == own for x in known.values()) + 1) / 2)
    return {name: statistics.fmean(ranks) if ranks else float("nan") for name, ranks in found.items()}


def markdown(rows: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], title: str) -> str:
    """A row for each configuration, in the order in which they ran."""
    head = ["method", "mean rank ↓", *(f"{m} {METRICS[m].arrow}".strip() for m in metrics), "s/image", "peak GB"]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in rows.items():
        cells = [digits(row["mean"][m]) for m in ("mean rank", *metrics)]
        cells += [f"{row['seconds']:.3f}", f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = f"mean rank: over {', '.join(RANKED)} and data sets, among these rows; seconds: of the fusion alone"
    return "\n".join([*lines, "", f"- {notes}", "- peak GB: of the process, its metrics included"]) + "\n"


def curves(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Label -> names of the rows that one line joins: a sampler from noise, one warm, the sweep of starts."""
    found: dict[str, list[str]] = {}
    for name, row in rows.items():
        if "sampler" in row:
            kind = "noise" if row["start"] is None else "warm"
            found.setdefault(SWEEP if name.startswith("start ") else f"{row['sampler']}, {kind}", []).append(name)
    return found


def point(label: str, row: Mapping[str, Any]) -> str:
    """What is written at a point: steps, or the timestep of a start."""
    return str(row.get("start" if label == SWEEP else "steps", ""))


def plot(rows: Mapping[str, Mapping[str, Any]], title: str) -> bytes:
    joined = curves(rows)
    single = {name: [name] for name, row in rows.items() if "sampler" not in row}
    points = {
        label: [(rows[n]["seconds"], rows[n]["mean"], point(label, rows[n])) for n in names]
        for label, names in (joined | single).items()
    }
    return charts.against_time(points, PANELS, title)


# ---- the command ----------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--starts", type=int, nargs="*", default=STARTS, help="timesteps of the sweep of starts")
    parser.add_argument("--baselines", nargs="*", default=BASELINES, help="as ddfm benchmark takes them")
    parser.add_argument("--limit", type=int, help="at most so many pairs of each data set")
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


def write(rows: dict[str, dict[str, Any]], options: argparse.Namespace, plan: Plan) -> None:
    """The three files."""
    title = f"ladder of {get_preset(options.preset).label}, convention {plan.convention}, {options.prior} prior"
    payload = {
        "provenance": provenance(),
        "prior": prior_facts(options.prior),
        "preset": get_preset(options.preset).settings(),
        "convention": plan.convention,
        "limit": options.limit,
        "ranked": RANKED,
        "rows": rows,
    }
    write_json(options.out / "ladder.json", payload)
    (options.out / "ladder.md").write_text(markdown(rows, plan.metrics, title), "utf-8")
    try:
        (options.out / "ladder.png").write_bytes(plot(rows, title))
    except DDFMError as error:  # the numbers are there without the picture
        print(f"no plot: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with errors_teach():
        config = FuseConfig(prior=options.prior, device=options.device)
        methods, presets = methods_of(options, config)
        plan = Plan(limit=options.limit)
        records, failed = run_all(methods, data_sets(options.pairs), options.out, plan)
        if not records:
            raise problem("PAIRS", "no run that could be finished", "pairs that can be fused", "See above.")
        rows = rows_of(records, presets)
        add_means(rows, plan.metrics)
        write(rows, options, plan)
    print(options.out / "ladder.md")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
