"""Tables of scores: rows of methods, columns of metrics; Markdown, LaTeX, CSV and plain text.

Best values are bold and second best underlined, among the measured rows only: a claimed row is shown and takes no part.
Every table names its convention, for a number without it means little.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

from ddfm.metrics.table import METRICS

__all__ = ["ScoreTable", "to_csv", "to_latex", "to_markdown", "to_text"]

Row = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """A table to be shown.

    title: such as "tno-dev, means of 8 images"; convention: of the measured rows; metrics: the columns;
    rows: measured, by method; claimed: rows not measured here, by method; notes: said below;
    extra: further columns without a best, by name and method (seconds); ranked: whether best values are marked;
    unmarked: measured rows that take no part in that, each with the metrics concerned (none named: all).
    """

    title: str
    convention: str
    metrics: Sequence[str]
    rows: Mapping[str, Row]
    claimed: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    extra: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    ranked: bool = True
    unmarked: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def ranks(self) -> dict[tuple[str, str], int]:
        """(method, metric) -> 1 for the best and 2 for the second best value, ties sharing the better rank."""
        found = {}
        for metric in self.metrics:
            direction = METRICS[metric].direction
            values = {m: digits(row.get(metric)) for m, row in self.rows.items() if self._marked(m, metric)}
            numbers = sorted({float(v) for v in values.values() if v != NOTHING}, reverse=direction > 0)
            if direction and self.ranked and len(self.rows) > 1:
                for method, value in values.items():
                    if value != NOTHING and float(value) in numbers[:2]:
                        found[method, metric] = 1 + numbers.index(float(value))
        return found

    def _marked(self, method: str, metric: str) -> bool:
        return method not in self.unmarked or (bool(self.unmarked[method]) and metric not in self.unmarked[method])


NOTHING = "-"


def digits(value: float | None) -> str:
    """Three decimals below 100, one above; "-" for what is not defined."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _cells(table: ScoreTable, best: str, second: str) -> list[list[str]]:
    """Body rows as text, method first; ``best`` and ``second`` are formats such as "**{}**"."""
    ranks, forms = table.ranks(), {1: best, 2: second, None: "{}"}
    rows = []
    for method, row in table.rows.items():
        cells = [forms[ranks.get((method, m))].format(digits(row.get(m))) for m in table.metrics]
        rows.append([method, *cells, *(column.get(method, NOTHING) for column in table.extra.values())])
    for method, row in table.claimed.items():
        cells = [digits(row.get(m)) for m in table.metrics]
        rows.append([method, *cells, *(NOTHING for _ in table.extra)])
    return rows


def _head(table: ScoreTable) -> list[str]:
    return ["method", *(f"{m} {METRICS[m].arrow}".strip() for m in table.metrics), *table.extra]


def _said(table: ScoreTable) -> list[str]:
    return [f'convention "{table.convention}"', *table.notes]


def to_markdown(table: ScoreTable) -> str:
    """A pipe table under a heading, best bold and second underlined."""
    head = _head(table)
    lines = [f"### {table.title}", "", _piped(head), "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += [_piped(row) for row in _cells(table, "**{}**", "<u>{}</u>")]
    return "\n".join([*lines, "", *(f"- {note}" for note in _said(table))]) + "\n"


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_latex(table: ScoreTable) -> str:
    """A booktabs table, best bold and second underlined, the convention in the caption."""
    head = [_tex(cell) for cell in _head(table)]
    body = [
        " & ".join([_tex(row[0]), *row[1:]]) + r" \\" for row in _cells(table, r"\textbf{{{}}}", r"\underline{{{}}}")
    ]
    caption = _tex("; ".join([table.title, *_said(table)]))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"\caption{{{caption}}}",
            r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: "\\" + c for c in "&%$#_{}"} | {"\u2191": r"$\uparrow$", "\u2193": r"$\downarrow$"}
    return "".join(special.get(c, c) for c in text)


def to_csv(table: ScoreTable) -> str:
    """Means with every digit; the convention is a column of its own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["title", "convention", "method", "claimed", *table.metrics, *table.extra])
    for rows, claimed in ((table.rows, "no"), (table.claimed, "yes")):
        for method, row in rows.items():
            values = ["" if row.get(m) is None else row[m] for m in table.metrics]
            extra = [column.get(method, "") for column in table.extra.values()]
            writer.writerow([table.title, table.convention, method, claimed, *values, *extra])
    return file.getvalue()


def to_text(table: ScoreTable) -> str:
    """Aligned columns for a terminal; * best, + second."""
    rows = [_head(table), *_cells(table, "{}*", "{}+")]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    marks = "* best, + second; " if table.ranked and len(table.rows) > 1 else ""
    return "\n".join([table.title, *(line.rstrip() for line in lines), marks + "; ".join(_said(table))]) + "\n"
