"""Charts of a report: bars, radar, scatter, heat maps. Needs the extra ``ddfm[report]``."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddfm._checks import DDFMError
from ddfm.metrics.table import METRICS

__all__ = ["against_time", "bars", "heatmap", "lines", "radar", "scatter"]

Means = Mapping[str, Mapping[str, float | None]]  # method -> metric -> mean
Points = Sequence[tuple[float, Mapping[str, float | None], str]]  # seconds, metric -> value, label
Images = Mapping[str, Mapping[str, Mapping[str, float | None]]]  # method -> image -> metric -> value

_COLORS = (
    *("#1b6ca8", "#c8452f", "#3d8b5f", "#8e5ea2", "#b8860b", "#5f6b73", "#d081a8", "#4aa3a3", "#7a5230", "#222222"),
    *("#7fb2dd", "#f09a8a", "#9ad1ae", "#cdb3d9", "#e6c873", "#aeb7bd", "#f3c9dc", "#a8dcdc", "#c49a78", "#8a8a8a"),
)
_MARKS = "os^Dv<>PX*"


def _figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError as error:
        raise DDFMError("matplotlib: got no such package, expected it. pip install 'ddfm[report]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, squeeze=False, **options)


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    file = io.BytesIO()
    figure.tight_layout()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})  # equal figures, equal bytes
    pyplot.close(figure)
    return file.getvalue()


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def bars(means: Means, metrics: Sequence[str], title: str) -> bytes:
    """One small chart for each metric, one bar for each method, in the order of the table."""
    columns = min(4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, grid = _figure(rows, columns, (3.2 * columns, 0.5 + (0.8 + 0.22 * len(means)) * rows))
    methods = list(means)
    for axes, metric in zip(grid.flat, metrics, strict=False):
        values = [_number(means[m].get(metric)) for m in methods]
        axes.barh(methods[::-1], values[::-1], color=[_color(methods, m) for m in methods[::-1]])
        axes.set_title(f"{metric} {METRICS[metric].arrow}", fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(metrics) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return _png(figure)


def _color(methods: Sequence[str], method: str) -> str:
    return _COLORS[list(methods).index(method) % len(_COLORS)]


def radar(means: Means, metrics: Sequence[str], title: str) -> bytes:
    """All metrics as the spokes of one wheel, as in the paper's Figure 2: the rim is the best of the shown, the hub 0.

    Metrics of which lower is better are turned round (best / value); values below 0 sit on the hub.
    """
    figure, grid = _figure(1, 1, (7.5, 5.2), subplot_kw={"polar": True})
    axes = grid[0, 0]
    angles = np.linspace(0, 2 * np.pi, len(metrics), endpoint=False)
    shares = wheel(means, metrics)
    for method, row in shares.items():
        closed = [*row, row[0]]
        axes.plot([*angles, angles[0]], closed, color=_color(list(means), method), lw=1.6, label=method)
    axes.set_xticks(angles, metrics, fontsize=9)
    axes.tick_params(axis="x", pad=12)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0], [""] * 4)
    axes.set_title(title, fontsize=10)
    axes.legend(loc="center left", bbox_to_anchor=(1.12, 0.5), fontsize=8)
    return _png(figure)


def wheel(means: Means, metrics: Sequence[str]) -> dict[str, list[float]]:
    """Share of the best for each method and metric, 0..1; 0 where there is no value."""
    found: dict[str, list[float]] = {method: [] for method in means}
    for metric in metrics:
        values = {m: _number(row.get(metric)) for m, row in means.items()}
        known = [v for v in values.values() if math.isfinite(v)]
        best = (max(known) if METRICS[metric].direction >= 0 else min(known)) if known else math.nan
        for method, value in values.items():
            share = value / best if METRICS[metric].direction >= 0 else best / value if value else 1.0
            found[method].append(float(np.clip(share, 0, 1)) if math.isfinite(share) else 0.0)
    return found


def scatter(images: Images, x: str, y: str, title: str) -> bytes:
    """Every image of every method by two metrics: a mean hides the picture that failed."""
    figure, grid = _figure(1, 1, (7.5, 4.6))
    axes = grid[0, 0]
    for k, (method, rows) in enumerate(images.items()):
        points = [(row.get(x), row.get(y)) for row in rows.values()]
        known = [(a, b) for a, b in points if a is not None and b is not None]
        if known:
            mark = _MARKS[k % len(_MARKS)]
            axes.scatter(*zip(*known, strict=True), s=22, marker=mark, color=_color(list(images), method), label=method)
    axes.set(xlabel=f"{x} {METRICS[x].arrow}", ylabel=f"{y} {METRICS[y].arrow}")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    return _png(figure)


def against_time(curves: Mapping[str, Points], singles: Points, panels: Sequence[str], title: str) -> bytes:
    """Quality against seconds, one panel for each metric or "mean rank", better always above.

    curves: one colour for each first word of a label, dashed where it ends in "noise"; a point's note (network
    evaluations) stands once, above the panel, at a thin line through all points that have it. singles: (seconds,
    values, name) of methods by themselves; one far faster than every curve is a dotted line with its seconds.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = _figure(rows, columns, (2.2 + 6.4 * columns, 0.4 + 4.6 * rows))
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_curves(axes, curves, panel)
        _draw_singles(axes, singles, panel, min((p[0] for c in curves.values() for p in c), default=0.0) / 3)
        better = "lower is better, axis turned" if _lower_is_better(panel) else METRICS[panel].arrow
        axes.set(xlabel="seconds an image", ylabel=f"{panel} ({better})" if len(better) > 1 else f"{panel} {better}")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    grid[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8)
    return _png(figure)


def _plain_log(axes: Any) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")


def _lower_is_better(panel: str) -> bool:
    return panel not in METRICS or METRICS[panel].direction < 0


def _draw_curves(axes: Any, curves: Mapping[str, Points], panel: str) -> None:
    words = list(dict.fromkeys(label.split()[0] for label in curves))
    places: dict[str, list[float]] = {}
    for label, points in curves.items():
        place = words.index(label.split()[0])
        style = {"ls": "--", "mfc": "white"} if label.endswith("noise") else {"ls": "-"}
        x, y = [p[0] for p in points], [_number(p[1].get(panel)) for p in points]
        axes.plot(x, y, lw=1.3, marker=_MARKS[place], ms=5, color=_COLORS[place], label=label, **style)
        for seconds, _, note in points:
            places.setdefault(note, []).append(seconds)
    _plain_log(axes)
    axes.grid(alpha=0.25, axis="y")
    if _lower_is_better(panel):
        axes.invert_yaxis()
    for note, known in places.items():
        middle = math.exp(float(np.mean(np.log(known))))
        axes.axvline(middle, color="#999999", lw=0.5, alpha=0.5, zorder=0)
        axes.text(middle, 1.01, note, transform=axes.get_xaxis_transform(), ha="center", fontsize=7, color="#555555")


def _draw_singles(axes: Any, singles: Points, panel: str, fast: float) -> None:
    """Names beside their points, or at the left end of their lines, moved apart where they would lie on each other."""
    known = [(x, y, name) for x, row, name in singles if math.isfinite(y := _number(row.get(panel)))]
    for k, (x, y, _) in enumerate(known):
        color = _COLORS[-1 - k % 8]
        if x < fast:
            axes.axhline(y, color=color, lw=0.9, ls=":", zorder=0)
        else:
            axes.plot([x], [y], marker="*", ms=10, ls="none", color="#222222", zorder=4)
    paper = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
    axes.margins(x=0.1)  # names are written to the right of points
    axes.get_xlim(), axes.get_ylim()  # which settles them, as heights below need
    for left, group in ((True, [p for p in known if p[0] < fast]), (False, [p for p in known if p[0] >= fast])):
        heights = _apart([axes.transAxes.inverted().transform(axes.transData.transform(p[:2]))[1] for p in group])
        for (x, y, name), height in zip(group, heights, strict=True):
            if left:
                text = f"{name} ({x:.2g} s)"
                axes.text(0.01, height, text, transform=axes.transAxes, va="center", fontsize=7, bbox=paper)
            else:
                inside = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0] < 0.8
                offset = {"xytext": (6 if inside else -6, -9), "ha": "left" if inside else "right"}
                options = {"textcoords": "offset points", "fontsize": 7, "weight": "bold", "bbox": paper}
                axes.annotate(name, (x, y), **offset, **options)


def _apart(heights: Sequence[float], gap: float = 0.032) -> list[float]:
    """The same heights, in the order given, moved up as far as it takes to lie ``gap`` from each other."""
    moved = list(heights)
    below = -math.inf
    for k in sorted(range(len(moved)), key=lambda k: moved[k]):
        moved[k] = max(moved[k], below + gap)
        below = moved[k]
    return moved


def lines(curves: Mapping[str, Points], panels: Sequence[str], title: str, along: str) -> bytes:
    """Each panel's metric along a number, which is a point's first entry; notes stand at the points."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = _figure(rows, columns, (0.6 + 5.4 * columns, 0.4 + 3.6 * rows))
    for axes, panel in zip(grid.flat, panels, strict=False):
        for k, (label, points) in enumerate(curves.items()):
            y = [_number(p[1].get(panel)) for p in points]
            axes.plot([p[0] for p in points], y, lw=1.3, marker=_MARKS[k], ms=5, color=_COLORS[k], label=label)
            for (x, _, note), height in zip(points, y, strict=True):
                axes.annotate(note, (x, height), xytext=(4, 4), textcoords="offset points", fontsize=7)
        if _lower_is_better(panel):
            axes.invert_yaxis()
        _plain_log(axes)
        axes.set(xlabel=along, ylabel=panel + (" (lower is better, axis turned)" if _lower_is_better(panel) else ""))
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return _png(figure)


def heatmap(values: np.ndarray, rows: Sequence[float], columns: Sequence[float], metric: str, title: str) -> bytes:
    """A grid of psi (rows) by eta (columns), each cell with its number."""
    figure, grid = _figure(1, 1, (1.6 + 0.75 * len(columns), 1.4 + 0.5 * len(rows)))
    axes = grid[0, 0]
    image = axes.imshow(values, cmap="viridis" if METRICS[metric].direction >= 0 else "viridis_r", aspect="auto")
    axes.set_xticks(range(len(columns)), [f"{v:g}" for v in columns])
    axes.set_yticks(range(len(rows)), [f"{v:g}" for v in rows])
    axes.set(xlabel="eta", ylabel="psi")
    axes.set_title(f"{title}: {metric} {METRICS[metric].arrow}", fontsize=9)
    middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            dark = (value < middle) == (METRICS[metric].direction >= 0)
            axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    figure.colorbar(image)
    return _png(figure)
