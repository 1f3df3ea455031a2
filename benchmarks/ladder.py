"""How many network evaluations a picture needs: the ladder 100 to 1, from noise and from a warm start, by sampler.

For the likelihood of a preset: every number of evaluations with each sampler, from pure noise and from the warm start
that ``Preset.with_steps`` gives; then the timestep where a warm start begins, with DDIM; and baselines, EM alone and
every preset of that likelihood. Each is a run of ``ddfm benchmark`` in OUT (values of every image, seconds of the
fusion alone, peak memory, settings, machine), cheapest first; nothing runs twice, so a stopped ladder goes on where it
was. After each, OUT/ladder.json and .md hold all that is finished; at the end, or at Ctrl-C, ladder.png (quality
against seconds) and ladder-starts.png follow where matplotlib is.

--rows shows methods measured elsewhere on the same files, at their seconds on one core of another machine.

    python benchmarks/ladder.py PAIRS OUT [--preset balanced] [--limit N] [--rungs 100 50 ...] [--samplers ddim ...]
    python benchmarks/ladder.py PAIRS/tno-dev OUT --limit 1 --rungs 5 2 1 --samplers ddim --starts      a first look
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from _common import check_folder, data_sets, errors_teach, positive, prior_facts, provenance, run_all, write_json
from ddfm._checks import DDFMError, problem
from ddfm.bench import charts
from ddfm.bench.claimed import read_rows
from ddfm.bench.methods import Method, by_preset, get_methods
from ddfm.bench.run import Plan
from ddfm.bench.standing import RANKED, mean_ranks
from ddfm.fusion import FuseConfig
from ddfm.metrics.table import METRICS
from ddfm.noisy import with_noise
from ddfm.presets import PRESETS, Preset, get_preset
from ddfm.tables import digits

RUNGS = (100, 50, 20, 10, 5, 3, 2, 1)
SAMPLERS = ("ddim", "dpm++", "unipc")
STARTS = (1, 10, 50, 100, 200, 300, 500)
STARTED = 2  # network evaluations of each of them, or as many as fit
BASELINES = ("average", "maximum", "laplacian")
PANELS = ("mean rank", "minVIF", "SCD", "Qabf")
Rows = dict[str, dict[str, Any]]


# ---- what runs ------------------------------------------------------------------------------------


def ladder(preset: Preset, rungs: Sequence[int], samplers: Sequence[str], starts: Sequence[int]) -> Iterator[Preset]:
    """Every configuration, named after what differs: ``ddim 20 noise``, ``unipc 5 warm (from 40)``."""
    for sampler in samplers:
        for count in rungs:
            warm = dataclasses.replace(preset.with_steps(count), sampler=sampler)
            yield dataclasses.replace(warm, name=f"{sampler} {count} warm (from {warm.start})")
            yield dataclasses.replace(warm, start=None, warm_sweeps=0, name=f"{sampler} {count} noise")
    for start in starts:
        count = min(STARTED, start + 1)
        name = f"start {start}, {count} step{'s' * (count > 1)}"
        yield dataclasses.replace(preset.with_steps(count), sampler="ddim", start=start, name=name)


def distinct(presets: Iterator[Preset]) -> Iterator[Preset]:
    """Of configurations that differ in name only, the first."""
    seen: set[Preset] = set()
    for preset in presets:
        bare = dataclasses.replace(preset, name="")
        if bare not in seen:
            seen.add(bare)
            yield preset


def beside(preset: Preset) -> list[str]:
    """Names of what is shown beside a ladder: baselines, EM alone, and every preset with the same likelihood."""
    alone = "em-only" if preset.name == "balanced" else f"em-only:{preset.name}"
    return [*BASELINES, alone, *(p.name for p in PRESETS.values() if p.likelihood == preset.likelihood)]


def methods_of(options: argparse.Namespace, config: FuseConfig) -> tuple[list[Method], dict[str, Preset]]:
    """Baselines and configurations; the second by name."""
    preset = with_noise(get_preset(options.preset), 0)  # evaluations of the fused image, none of the sources
    if preset.start is None:
        warm = ", ".join(p.name for p in PRESETS.values() if p.start is not None)
        raise problem("--preset", preset.name, f"one with a warm start: {warm}")
    found = {p.name: p for p in distinct(ladder(preset, options.rungs, options.samplers, options.starts))}
    # the name is a label here, no setting: equal settings are one run whatever the label
    rungs = [by_preset(name, dataclasses.replace(p, name=preset.name), config) for name, p in found.items()]
    names = beside(preset) if options.baselines is None else options.baselines
    return [warmed(method) for method in [*get_methods(names, config), *rungs]], found


def warmed(method: Method) -> Method:
    """The same; before its first picture it fuses a small one, so that loading the prior is in no time."""
    done: list[bool] = []

    def fuse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if not done:
            small = torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32)
            method.fuse(small, small.flip(-1))  # type: ignore[misc]
            done.append(True)
        return method.fuse(a, b)  # type: ignore[misc]

    return dataclasses.replace(method, fuse=fuse) if method.fuse else method


# ---- from records to rows -------------------------------------------------------------------------


def add_records(rows: Rows, records: Sequence[dict[str, Any]], presets: Mapping[str, Preset]) -> None:
    """Into ``rows``: method -> its settings and its mean, seconds, memory and size on each data set."""
    for record in records:
        name = record["method"]
        preset = presets.get(name)
        facts = {"sampler": preset.sampler, "steps": preset.steps, "start": preset.start} if preset else {}
        row = rows.setdefault(name, facts | {"datasets": {}})
        row["datasets"][record["dataset"]["name"]] = {
            "images": len(record["images"]),
            "megapixels": megapixels(record),
            "mean": record["mean"],
            "seconds": record["seconds"],
            "peak_memory_bytes": record["peak_memory_bytes"],
        }


def megapixels(record: Mapping[str, Any]) -> float:
    """Median size of the first sources."""
    sizes = []
    for name in record["images"]:
        with Image.open(record["sources"][name][0]) as image:
            sizes.append(image.width * image.height / 1e6)
    return statistics.median(sizes)


def finished(rows: Rows, metrics: Sequence[str]) -> Rows:
    """Rows with the mean over data sets of each metric, the mean rank over RANKED, and seconds.

    Of data sets only those that every row has count: leaving out a hard one must gain nothing.
    """
    common = sorted(set.intersection(*(set(row["datasets"]) for row in rows.values())))
    if not common:
        raise DDFMError("ladder: got no data set that every configuration finished, expected one. Give it again.")
    places = [mean_ranks({name: row["datasets"][d]["mean"] for name, row in rows.items()}) for d in common]
    found: Rows = {}
    for name, row in rows.items():
        chosen = [row["datasets"][d] for d in common]
        mean = mean_of([c["mean"] for c in chosen], metrics)
        mean["mean rank"] = statistics.fmean(place[name] for place in places)
        seconds = [c["seconds"]["median"] for c in chosen if c["seconds"]]
        found[name] = row | {
            "mean": mean,
            "seconds": statistics.fmean(seconds) if seconds else None,
            "peak_memory_bytes": max(c["peak_memory_bytes"] or 0 for c in chosen),
        }
    return found


def mean_of(means: Sequence[Mapping[str, float | None]], metrics: Sequence[str]) -> dict[str, float | None]:
    """Mean of each metric where all have it."""
    values = {m: [mean.get(m) for mean in means] for m in metrics}
    return {m: None if None in v else statistics.fmean(v) for m, v in values.items()}  # type: ignore[type-var]


def elsewhere(path: Path, rows: Rows, metrics: Sequence[str]) -> Rows:
    """Methods of a file of rows, over the data sets of ``rows`` if it has all of them whole; seconds by size."""
    sets = next(iter(rows.values()))["datasets"]
    values, raw = read_rows(path), json.loads(path.read_text("utf-8"))["rows"]
    found: Rows = {}
    for name in dict.fromkeys(n for d in sets for n in values.get(d, {})):
        facts = [raw.get(d, {}).get(name, {}) for d in sets]
        if any(f.get("n") != sets[d]["images"] or "cpu_s_per_Mpx" not in f for d, f in zip(sets, facts, strict=True)):
            continue
        seconds = [f["cpu_s_per_Mpx"] * sets[d]["megapixels"] for d, f in zip(sets, facts, strict=True)]
        mean = mean_of([values[d][name] for d in sets], metrics) | {"mean rank": None}
        found[f"{name}*"] = {"mean": mean, "seconds": statistics.fmean(seconds)}
    return {name: row for name, row in found.items() if row["seconds"] > 0.05}  # what is quicker is measured here


# ---- what is shown --------------------------------------------------------------------------------


def markdown(rows: Rows, metrics: Sequence[str], title: str) -> str:
    """A row for each configuration, as they are given."""
    head = ["method", "mean rank ↓", *(f"{m} {METRICS[m].arrow}".strip() for m in metrics), "s/image", "peak GB"]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, row in rows.items():
        cells = [digits(row["mean"][m]) for m in ("mean rank", *metrics)]
        cells += [digits(row["seconds"]), f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = f"mean rank: over {', '.join(RANKED)} and data sets, among these rows; seconds: of the fusion alone"
    return "\n".join([*lines, "", f"- {notes}", "- peak GB: of the process, its metrics included"]) + "\n"


def of_ladder(rows: Rows) -> Rows:
    """Configurations of the ladder itself."""
    return {name: row for name, row in rows.items() if "sampler" in row and not name.startswith("start ")}


def of_sweep(rows: Rows) -> Rows:
    """Configurations of the sweep of starts, and that of the ladder which would have been one of them."""
    sweep = {name: row for name, row in rows.items() if name.startswith("start ")}
    most = max((row["steps"] for row in sweep.values()), default=0)
    same = {n: r for n, r in of_ladder(rows).items() if r["sampler"] == "ddim" and r["start"] and r["steps"] == most}
    return sweep and same | sweep


def plot(rows: Rows, others: Rows, title: str) -> bytes:
    """Quality against seconds: one curve for each sampler and start, every baseline, every method from elsewhere."""
    curves: dict[str, list[Any]] = {}
    for row in of_ladder(rows).values():
        label = f"{row['sampler']} {'noise' if row['start'] is None else 'warm'}"
        curves.setdefault(label, []).append((row["seconds"], row["mean"], str(row["steps"])))
    names = {name: row for name, row in rows.items() if "sampler" not in row}
    singles = [(row["seconds"], row["mean"], name) for name, row in (names | others).items() if row["seconds"]]
    title += "\n* measured elsewhere, on one core of another machine" if others else ""
    return charts.against_time(curves, singles, PANELS, title)


def plot_starts(rows: Rows, title: str) -> bytes | None:
    """Quality along the timestep of the start; None without such rows."""
    points = [(row["start"], row["mean"], str(row["steps"])) for row in of_sweep(rows).values()]
    along = "timestep of the warm start; at the points: network evaluations"
    return charts.lines({"ddim": sorted(points, key=lambda p: p[0])}, PANELS, title, along) if points else None


# ---- the command ----------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="a data set, or a folder of them")
    parser.add_argument("out", type=Path, help="folder of results, also of earlier ones")
    parser.add_argument("--preset", default="balanced", help="any with a warm start")
    parser.add_argument("--rungs", type=positive, nargs="+", default=RUNGS, metavar="N", help="network evaluations")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--starts", type=int, nargs="*", default=STARTS, help="timesteps of the sweep; none: no sweep")
    parser.add_argument("--baselines", nargs="*", help="as ddfm benchmark takes them, in place of the usual ones")
    parser.add_argument("--rows", type=Path, help="JSON of rows measured elsewhere, as ddfm report takes it")
    parser.add_argument("--limit", type=positive, help="at most so many pairs of each data set")
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(arguments)


class Files:
    """The output of one ladder."""

    def __init__(self, options: argparse.Namespace, plan: Plan, order: Sequence[str]) -> None:
        self.options, self.plan, self.order = options, plan, order
        preset = get_preset(options.preset)
        self.title = f"ladder of {preset.label}, convention {plan.convention}, {Path(options.prior).name} prior"
        self.head = {
            "provenance": provenance(),
            "prior": prior_facts(options.prior),
            "preset": preset.settings(),
            "convention": plan.convention,
            "limit": options.limit,
            "ranked": RANKED,
        }
        self.rows: Rows = {}

    def write(self, rows: Rows) -> None:
        """ladder.json and ladder.md of what is finished."""
        self.rows = finished({name: rows[name] for name in self.order if name in rows}, self.plan.metrics)
        missing = [name for name in self.order if name not in rows]
        write_json(self.options.out / "ladder.json", self.head | {"missing": missing, "rows": self.rows})
        text = markdown(self.rows, self.plan.metrics, self.title)
        text += f"- not finished: {', '.join(missing)}\n" if missing else ""
        (self.options.out / "ladder.md").write_text(text, "utf-8")

    def plot(self) -> None:
        """The pictures, where there is something to plot and matplotlib to do it."""
        if not of_ladder(self.rows):
            return
        try:
            others = elsewhere(self.options.rows, self.rows, self.plan.metrics) if self.options.rows else {}
            pictures = {
                "ladder.png": plot(self.rows, others, self.title),
                "ladder-starts.png": plot_starts(self.rows, self.title),
            }
        except DDFMError as error:  # the numbers are there without the picture
            print(f"no plot: {error}", file=sys.stderr)
            return
        for name, content in pictures.items():
            if content:
                (self.options.out / name).write_bytes(content)
                print(self.options.out / name)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with errors_teach("what is finished is in OUT; give the same command again to go on"):
        sets = data_sets(options.pairs)
        if options.rows:
            read_rows(options.rows)
        methods, presets = methods_of(options, FuseConfig(prior=options.prior, device=options.device))
        plan = Plan(limit=options.limit)
        check_folder(options.out)
        files = Files(options, plan, [m.name for m in methods])
        try:
            failed = climb(methods, presets, sets, files)
        finally:
            files.plot()
        if not files.rows:
            raise problem("PAIRS", "no run that could be finished", "pairs that can be fused", "See above.")
    print(options.out / "ladder.md")
    sys.exit(1 if failed else 0)


def climb(methods: Sequence[Method], presets: Mapping[str, Preset], sets: Sequence[Any], files: Files) -> int:
    """Everything, cheapest first; how many runs failed."""
    rows: Rows = {}
    failed = 0
    for method in sorted(methods, key=lambda m: presets[m.name].steps if m.name in presets else 0):
        records, wrong = run_all([method], sets, files.options.out, files.plan)
        failed += wrong
        if records:
            add_records(rows, records, presets)
            files.write(rows)
    return failed


if __name__ == "__main__":
    main()
