"""Scores of folders: any method's fused images against their sources."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm._provenance import machine, now, versions
from ddfm.color import grey_levels
from ddfm.datasets import PairedData, by_stem
from ddfm.io import read_image
from ddfm.metrics import evaluate
from ddfm.metrics.statistics import gradients, pearson
from ddfm.metrics.table import parse_names
from ddfm.tables import ScoreTable

__all__ = [
    "Evaluation",
    "evaluate_folder",
    "image_table",
    "mean_table",
    "per_image_csv",
    "read_grey",
    "score",
    "to_json",
]

#: Correlation of gradient magnitudes; a fused image below it with both sources is hardly made of them.
ALIEN = 0.2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Values of one folder of fused images: name, convention, metrics, stem -> metric -> value, and notes."""

    name: str
    convention: str
    metrics: tuple[str, ...]
    images: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[str, float | None]:
        """Mean of each metric over the images where it is defined; None where it is on none."""
        return means(self.images, self.metrics)

    def left_out(self) -> dict[str, int]:
        """How many images have no finite value, by metric; only those above 0."""
        return left_out(self.images, self.metrics)


def means(images: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, float | None]:
    """Mean of each metric over images with a finite value; None where there is none."""
    found: dict[str, float | None] = {}
    for metric in metrics:
        values = [row[metric] for row in images.values() if math.isfinite(row[metric])]
        found[metric] = math.fsum(values) / len(values) if values else None
    return found


def left_out(images: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> dict[str, int]:
    """Images without a finite value, by metric; only those above 0."""
    counts = {m: sum(not math.isfinite(row[m]) for row in images.values()) for m in metrics}
    return {m: n for m, n in counts.items() if n}


def read_grey(path: Path) -> Tensor:
    """Whole grey levels 0..255, float64 (1, 1, H, W), of a file; colour by BT.601, 16 bits scaled. Raises DDFMError."""
    return grey_levels(torch.from_numpy(read_image(path).data))[None, None]


def score(
    fused: Tensor, a: Tensor, b: Tensor, *, convention: str = "paper", metrics: str | Sequence[str] = "default"
) -> dict[str, float]:
    """Values of one image, grey levels (1, 1, H, W) on 0..255."""
    values = evaluate(fused, a, b, convention=convention, metrics=metrics)
    return {name: float(value) for name, value in values.items()}


def evaluate_folder(
    data: PairedData,
    fused: Path,
    *,
    name: str = "",
    convention: str = "paper",
    metrics: str | Sequence[str] = "default",
    on_image: Callable[[str], Any] = lambda stem: None,
) -> Evaluation:
    """Score every fused image that has both sources; what has not is listed in the notes and left out.

    Raises DDFMError if no name is in all three folders, or if sizes differ.
    """
    names = parse_names(metrics)
    table = by_stem(fused)
    if not table:
        raise problem(str(fused), "no images", "fused images named as their sources")
    common = [stem for stem in data.pairs if stem in table]
    if not common:
        got = f"no file stem of {data.pairs[next(iter(data.pairs))][0].parent}"
        raise problem(str(fused), got, "fused images named as their sources", "Is it of another data set?")
    notes = _unmatched(data, table, fused)
    images = {}
    for stem in common:
        images[stem], note = _one(stem, table[stem], data.pairs[stem], convention, names)
        notes += [note] if note else []
        on_image(stem)
    notes += [f"{metric}: not defined on {n} of {len(images)}" for metric, n in left_out(images, names).items()]
    return Evaluation(name or fused.resolve().name, convention, names, images, tuple(notes))


def _one(
    stem: str, path: Path, pair: tuple[Path, Path], convention: str, names: tuple[str, ...]
) -> tuple[dict[str, float], str]:
    f, a, b = read_grey(path), read_grey(pair[0]), read_grey(pair[1])
    for source, image in zip(pair, (a, b), strict=True):
        if image.shape != f.shape:
            sizes = [f"{i.shape[-1]}x{i.shape[-2]}" for i in (f, image)]
            raise problem(
                str(path), f"{sizes[0]} pixels", f"{sizes[1]}, the size of {source}", "Sizes are never mended."
            )
    remark = oddity(f, a, b)
    return score(f, a, b, convention=convention, metrics=names), f"{stem}: {remark}" if remark else ""


def oddity(f: Tensor, a: Tensor, b: Tensor) -> str:
    """What a reader of the numbers should know of these images (1, 1, H, W); empty if nothing."""
    flat = [name for name, x in (("fused image", f), ("A", a), ("B", b)) if bool((x == x.flatten()[0]).all())]
    if flat:
        return f"constant: {', '.join(flat)}; information that is not there counts as kept"
    edges = [torch.hypot(*gradients(x)) for x in (f, a, b)]
    alike = max(float(pearson(edges[0], source)) for source in edges[1:])
    return "resembles neither source; of another data set?" if alike < ALIEN else ""


def _unmatched(data: PairedData, table: Mapping[str, Path], fused: Path) -> list[str]:
    without = sorted(table.keys() - data.pairs.keys())
    missing = sorted(data.pairs.keys() - table.keys())
    sources = [path.name for path in data.unmatched]
    return [
        f"left out, {what}: {', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}"
        for what, names in (
            (f"in {fused.name} without sources", without),
            (f"not in {fused.name}", missing),
            ("sources without a partner", sources),
        )
        if names
    ]


def mean_table(title: str, evaluations: Sequence[Evaluation]) -> ScoreTable:
    """One row for each folder, over the images that all have: leaving out a hard one must gain nothing."""
    first = evaluations[0]
    common = set.intersection(*(set(e.images) for e in evaluations))
    notes = [f"{e.name}: {note}" if len(evaluations) > 1 else note for e in evaluations for note in e.notes]
    if any(len(e.images) > len(common) for e in evaluations):
        notes.insert(0, f"means over the {len(common)} images that every row has")
        if not common:
            raise problem("FUSED", "folders without a common image", "results for the same sources")
    rows = {e.name: means({s: e.images[s] for s in sorted(common)}, e.metrics) for e in evaluations}
    return ScoreTable(title, first.convention, first.metrics, rows, notes=notes)


def image_table(evaluation: Evaluation) -> ScoreTable:
    """One row for each image of a folder."""
    rows = {stem: dict(row) for stem, row in evaluation.images.items()}
    title = f"{evaluation.name}, each image"
    return ScoreTable(title, evaluation.convention, evaluation.metrics, rows, ranked=False)


def per_image_csv(evaluations: Sequence[Evaluation]) -> str:
    """One line for each fused image; an empty field where a value is not defined."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    metrics = evaluations[0].metrics
    writer.writerow(["method", "image", "convention", *metrics])
    for e in evaluations:
        for stem, row in e.images.items():
            values = [row[m] if math.isfinite(row[m]) else "" for m in metrics]
            writer.writerow([e.name, stem, e.convention, *values])
    return file.getvalue()


def to_json(title: str, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Everything, for machines: means, per-image values (None where not defined), notes, provenance."""
    first = evaluations[0]
    return {
        "tool": "ddfm evaluate",
        "time": now(),
        "title": title,
        "convention": first.convention,
        "metrics": list(first.metrics),
        "versions": versions(),
        "machine": machine(),
        "methods": {
            e.name: {"mean": e.means(), "left_out": e.left_out(), "notes": list(e.notes), "images": finite(e.images)}
            for e in evaluations
        },
    }


def finite(images: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """The same with None for NaN and infinity, which JSON does not have."""
    return {stem: {m: v if math.isfinite(v) else None for m, v in row.items()} for stem, row in images.items()}
