"""From results to tables, charts, significance and a page. Runs no model: JSON in, files out."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from ddfm._checks import problem
from ddfm.bench import charts, crops
from ddfm.bench.claimed import claimed_ablation, claimed_rows, is_medical, read_rows
from ddfm.bench.methods import ABLATIONS
from ddfm.bench.run import read_runs
from ddfm.bench.significance import LEAST_IMAGES, Comparison, compare
from ddfm.bench.standing import Field, plain_markdown, standing_tables, summary
from ddfm.io import write_bytes
from ddfm.metrics.table import METRICS
from ddfm.tables import ScoreTable, digits, to_csv, to_latex, to_markdown

__all__ = ["ablation_tables", "write_heatmaps", "write_report"]

Run = dict[str, Any]
CLAIMED = "claimed: printed by the authors for their own test pairs, not run here; only the order of magnitude compares"
DEFAULT_REFERENCE = "balanced"
OWN = ("diffusion", "em-only")  # methods by their settings; the others are what one can pick instead
ELSEWHERE = "elsewhere: from the file given with --rows, not run here"
#: Shown without marks: copies, which are no fusion, and the maximum where it wins by construction.
UNMARKED: dict[str, tuple[str, ...]] = {"copy-A": (), "copy-B": (), "maximum": ("MI", "VIF")}
UNMARKED_NOTE = "no marks for copies of a source, nor for the maximum in MI and VIF, which it wins by construction"


def write_report(out: Path, target: Path, reference: str | None = None, rows: Path | None = None) -> list[Path]:
    """Tables (.md, .tex, .csv), standing.md, charts and index.html of the results in ``out``; files, the page first.

    ``reference``: the method that the others are tested against; by default balanced, if it is there. Raises DDFMError
    if there is no result, or none of ``reference``.
    """
    runs, notes = read_runs(out)
    conventions = sorted({run["convention"] for run in runs})
    methods = sorted({run["method"] for run in runs})
    if reference is None:
        reference = DEFAULT_REFERENCE if DEFAULT_REFERENCE in methods else ""
        notes += (
            [] if reference else [f"no method {DEFAULT_REFERENCE}: no significance test; name one with --reference"]
        )
    elif reference not in methods:
        raise problem("--reference", repr(reference), f"one of {', '.join(methods)}", "Run it: ddfm benchmark.")
    extra = read_rows(rows) if rows else {}
    names = {run["dataset"]["name"] for run in runs}
    notes += [f"{rows}: rows of {name}, which is not among the data sets" for name in extra if name not in names]
    sections = [
        Section(name, convention, group, reference, extra.get(name, {}), out)
        for convention in conventions
        for name, group in _by_dataset([r for r in runs if r["convention"] == convention]).items()
    ]
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for section in sections:
        for name, content in section.files().items():
            written.append(_write(target / name, content))
    tables = [section.table for section in sections]
    written.append(_write(target / "tables.md", "\n".join(map(to_markdown, tables)).encode()))
    written.append(_write(target / "tables.tex", "\n".join(map(to_latex, tables)).encode()))
    written.append(_write(target / "tables.csv", _joined_csv(tables).encode()))
    written += _standing(sections, target / "standing.md")
    page = _page(sections, notes, reference)
    return [_write(target / "index.html", page.encode()), *written]


def _standing(sections: Sequence[Section], path: Path) -> list[Path]:
    """The tables of ``ddfm.bench.standing``, if any method has opponents: a summary for each convention, then all."""
    tables = [table for section in sections for table in section.standing]
    if not tables:
        return []
    for convention in sorted({s.convention for s in sections}, reverse=True):
        head = summary([s.field() for s in sections if s.convention == convention])
        tables.insert(0, dataclasses.replace(head, title=f"{head.title}, convention {convention}"))
    return [_write(path, "\n".join(map(plain_markdown, tables)).encode())]


def _write(path: Path, content: bytes) -> Path:
    """A report is made from its results alone, so its own files may be replaced."""
    write_bytes(path, content, overwrite=True)
    return path


def _by_dataset(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run["dataset"]["name"], []).append(run)
    return groups


def _joined_csv(tables: Sequence[ScoreTable]) -> str:
    """All tables in one file where they have the same columns, each with its head where not."""
    parts = [to_csv(table) for table in tables]
    heads = {part.partition("\n")[0] for part in parts}
    if len(heads) == 1:
        return parts[0] + "".join(part.partition("\n")[2] for part in parts[1:])
    return "\n".join(parts)


class Section:
    """One data set in one convention: its table, comparisons and charts."""

    def __init__(
        self,
        name: str,
        convention: str,
        runs: Sequence[Run],
        reference: str,
        extra: Mapping[str, Mapping[str, float]],
        out: Path,
    ) -> None:
        self.name, self.convention, self.reference, self.out = name, convention, reference, out
        self.extra = extra if convention == "paper" else {}  # rows from elsewhere are in that convention
        self.runs = sorted(runs, key=lambda run: _place(run["method"]))
        self.metrics = tuple(self.runs[0]["metrics"])
        self.slug = name if convention == "paper" else f"{name}-{convention}"
        self.images = {run["method"]: _values(run) for run in self.runs}
        self.table = self._table()
        self.comparisons = self._compare()

        self.standing = standing_tables(self.field(), reference)

    def _table(self) -> ScoreTable:
        count = len(next(iter(self.images.values())))
        claimed = claimed_rows(self.name) if self.convention == "paper" else {}
        others = {f"{k} (claimed)": v for k, v in claimed.items()} | {
            f"{k} (elsewhere)": v for k, v in self.extra.items()
        }
        tones = sorted({run["tone"] for run in self.runs})
        notes = [f"tone {' or '.join(tones)}; grey sources"]
        notes += [CLAIMED] * bool(claimed) + [ELSEWHERE] * bool(self.extra)
        notes += [UNMARKED_NOTE] if any(run["method"] in UNMARKED for run in self.runs) else []
        for run in self.runs:
            odd = [f"{name} {image['remark']}" for name, image in run["images"].items() if "remark" in image]
            notes += [f"{run['method']}: {'; '.join(odd[:5])}"] if odd else []
            notes += [f"{run['method']}: {m} not defined on {n} of {count}" for m, n in run["left_out"].items()]
        seconds = {r["method"]: f"{r['seconds']['median']:.2f}" for r in self.runs if r["seconds"]}
        memory = {r["method"]: f"{r['peak_memory_bytes'] / 1e9:.2f}" for r in self.runs if r["peak_memory_bytes"]}
        return ScoreTable(
            f"{self.name}, means of {count} image{'s' * (count > 1)}",
            self.convention,
            self.metrics,
            {run["method"]: run["mean"] for run in self.runs},
            others,
            notes,
            {"s/image": seconds, "peak GB": memory},
            unmarked=UNMARKED,
        )

    def field(self) -> Field:
        """What ``ddfm.bench.standing`` ranks."""
        own = [run for run in self.runs if run["settings"].get("method") in OWN]
        return Field(
            self.name,
            own={run["method"]: run["mean"] for run in own},
            others={run["method"]: run["mean"] for run in self.runs if run not in own},
            elsewhere=self.extra,
            printed=claimed_rows(self.name) if self.convention == "paper" else {},
            stretched={run["method"]: run.get("stretched", {}) for run in own},
            maximum_counts=is_medical(self.name),
        )

    def _compare(self) -> list[Comparison]:
        others = {method: values for method, values in self.images.items() if method != self.reference}
        if self.reference not in self.images:
            return []
        return compare(self.images[self.reference], others, self.metrics)

    def files(self) -> dict[str, bytes]:
        """Charts by file name."""
        means = {run["method"]: run["mean"] for run in self.runs}
        shown = [m for m in self.metrics if METRICS[m].direction]
        title = f"{self.table.title}, convention {self.convention}"
        found = {
            f"{self.slug}-bars.png": charts.bars(means, self.metrics, title),
            f"{self.slug}-radar.png": charts.radar(means, shown, title),
        }
        if {"hot", "texture"} <= set(self.metrics):
            title = f"{self.name}: each image; top right keeps both sources"
            found[f"{self.slug}-scatter.png"] = charts.scatter(self.images, "hot", "texture", title)
        return found

    def significance(self) -> list[dict[str, str]]:
        """Rows for the page: reference against each other method, with signs by direction."""
        return [_said(c) for c in self.comparisons if METRICS[c.metric].direction]

    def crops(self) -> list[dict[str, Any]]:
        """Pictures for the page, where sources and results can still be read."""
        return crops.sheets(self.runs, self.out)


def _place(method: str) -> tuple[int, str]:
    """Baselines first, then EM alone, then the rest by name."""
    order = ("average", "maximum", "laplacian", "copy-A", "copy-B", "em-only", "paper", "fast", "balanced")
    return (order.index(method) if method in order else len(order), method)


def _values(run: Run) -> dict[str, dict[str, float | None]]:
    return {name: image["values"] for name, image in run["images"].items()}


def _said(c: Comparison) -> dict[str, str]:
    better = c.difference * METRICS[c.metric].direction
    if math.isnan(c.corrected):
        verdict = f"fewer than {LEAST_IMAGES} images"
    elif c.corrected >= 0.05:
        verdict = "no difference shown"
    else:
        verdict = "better" if better > 0 else "worse"
    numbers = {"p": _p(c.p), "corrected": _p(c.corrected)}
    return {
        "metric": c.metric,
        "other": c.other,
        "n": str(c.n),
        "difference": digits(c.difference),
        **numbers,
        "verdict": verdict,
    }


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _page(sections: Sequence[Section], notes: Sequence[str], reference: str) -> str:
    environment = Environment(loader=PackageLoader("ddfm.bench"), autoescape=select_autoescape(default=True))
    parts = []
    for section in sections:
        pictures = {name: base64.b64encode(content).decode() for name, content in section.files().items()}
        parts.append(
            {
                "table": section.table,
                "head": [f"{m} {METRICS[m].arrow}".strip() for m in section.metrics],
                "cells": _page_cells(section.table),
                "pictures": pictures,
                "significance": section.significance(),
                "standing": section.standing,
                "crops": section.crops(),
            }
        )
    facts = _facts([run for section in sections for run in section.runs])
    used = [METRICS[m] for m in dict.fromkeys(m for s in sections for m in s.metrics)]
    template = environment.get_template("report.html.j2")
    return template.render(sections=parts, notes=notes, reference=reference, facts=facts, metrics=used)


def _page_cells(table: ScoreTable) -> list[dict[str, Any]]:
    ranks = table.ranks()
    rows = []
    for claimed, group in ((False, table.rows), (True, table.claimed)):
        for method, row in group.items():
            cells = [{"text": digits(row.get(m)), "rank": ranks.get((method, m), 0)} for m in table.metrics]
            extra = ["-" if claimed else column.get(method, "-") for column in table.extra.values()]
            rows.append({"method": method, "claimed": claimed, "cells": cells, "extra": extra})
    return rows


def _facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Machine, versions and settings, each said once."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault("machine", set()).add(f"{run['machine'].get('processor')}, {run['threads']} threads")
        found.setdefault("versions", set()).add(", ".join(f"{k} {v}" for k, v in run["versions"].items()))
        preset = run["settings"].get("preset")
        if preset:
            text = f"{preset['name']}@{preset['version']}, {preset['steps']} steps, seed {run['settings']['seed']}"
            found.setdefault(f"method {run['method']}", set()).add(text)
    return [(name, "; ".join(sorted(values))) for name, values in found.items()]


# ---- ablation and sweep ---------------------------------------------------------------------------


def ablation_tables(runs: Sequence[Run], out: Path) -> list[ScoreTable]:
    """Table 2 for each data set of these runs, beside the paper's where it has one; also written to ``out``."""
    dataset, rows = claimed_ablation()
    tables = []
    for name, group in _by_dataset(runs).items():
        means = {run["method"]: run["mean"] for run in group}
        known = {m: means[m] for m in ABLATIONS if m in means}
        fits = name.lower().startswith(dataset) and group[0]["convention"] == "paper"
        claimed = {f"{k} (claimed)": v for k, v in rows.items()} if fits else {}
        notes = [f"{key}: {text}" for key, text in ABLATIONS.items() if key in known]
        notes += [CLAIMED] if claimed else []
        title = f"{name}, ablation, means of {len(group[0]['images'])} images"
        tables.append(ScoreTable(title, group[0]["convention"], group[0]["metrics"], known, claimed, notes))
    _write(out / "ablation.md", "\n".join(map(to_markdown, tables)).encode())
    _write(out / "ablation.tex", "\n".join(map(to_latex, tables)).encode())
    return tables


def write_heatmaps(runs: Sequence[Run], out: Path) -> list[Path]:
    """One picture for each data set and metric of these runs of a grid, and all numbers as CSV."""
    written = []
    (out / "heatmaps").mkdir(parents=True, exist_ok=True)
    for name, group in _by_dataset(runs).items():
        cells = {_grid_place(run["method"]): run["mean"] for run in group}
        psis, etas = (sorted({place[k] for place in cells}) for k in (0, 1))
        metrics, convention = group[0]["metrics"], group[0]["convention"]
        lines = [",".join(["convention", "psi", "eta", *metrics])]
        for (psi, eta), mean in sorted(cells.items()):
            values = ["" if mean[m] is None else repr(mean[m]) for m in metrics]
            lines.append(",".join([convention, f"{psi:g}", f"{eta:g}", *values]))
        written.append(_write(out / "heatmaps" / f"{name}-{convention}.csv", ("\n".join(lines) + "\n").encode()))
        for metric in metrics:
            numbers = np.array([[_cell(cells.get((p, e)), metric) for e in etas] for p in psis])
            picture = charts.heatmap(numbers, psis, etas, metric, f"{name}, {convention}")
            written.append(_write(out / "heatmaps" / f"{name}-{convention}-{metric}.png", picture))
    return written


def _grid_place(method: str) -> tuple[float, float]:
    psi, eta = (float(part.partition("=")[2]) for part in method.split(","))
    return psi, eta


def _cell(mean: Mapping[str, float | None] | None, metric: str) -> float:
    value = mean.get(metric) if mean else None
    return math.nan if value is None else value
