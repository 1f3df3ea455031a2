"""Where own methods stand among those that one can pick instead: ranks, shares of others' values, printed rows reached.

Own: everything with this package's likelihood. Opponents: measured baselines, folders of results, and rows measured
elsewhere on the same files. Copies of a source are no opponents, nor is the maximum of infrared and visible, which
wins MI and VIF by construction; of medical images it is one.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from ddfm.metrics.table import METRICS
from ddfm.tables import NOTHING, digits

__all__ = ["RANKED", "Field", "PlainTable", "Share", "mean_ranks", "plain_markdown", "standing_tables", "summary"]

Row = Mapping[str, float | None]

#: What decides a rank; MI, VIF and EN stand beside, as plain maximum and noise win them.
RANKED = ("SD", "Qabf", "SSIM", "SCD", "minVIF", "hot", "texture")
RETENTION = ("hot", "texture")  # not known of rows from elsewhere
BESIDE = ("MI", "VIF", "EN")
#: Methods whose output is stretched from its least to its largest value, as their scripts do.
STRETCHING = ("SeAFusion", "U2Fusion")
STRETCHED = ("SD", "EN")
#: Least share of these methods' values, and in which metrics; of SeAFusion's in all that its row has.
NEEDED = 0.95
COMPARED: dict[str, tuple[str, ...]] = {"SeAFusion": (), "laplacian": ("SCD", "Qabf", "minVIF")}
PRINTED = ("DDFM", "CDDFuse")
#: Rows of a file from elsewhere that are measured here as well.
_SAME = {"max": "maximum", "copy_infrared": "copy-A", "copy_visible": "copy-B"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One data set, means by method.

    own, others: measured here. elsewhere: the same files, measured by others. printed: of other pairs. stretched: own
    methods after a stretch from least to largest value. maximum_counts: whether plain maximum is an opponent.
    """

    name: str
    own: Mapping[str, Row]
    others: Mapping[str, Row]
    elsewhere: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    printed: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    stretched: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    maximum_counts: bool = False

    def opponents(self) -> dict[str, Row]:
        """Everything that could be picked instead, by name."""
        left_out = {"copy-A", "copy-B"} | (set() if self.maximum_counts else {"maximum"})
        new = {name: row for name, row in self.elsewhere.items() if _SAME.get(name, name) not in self.others}
        found = {name: row for name, row in {**self.others, **new}.items() if _SAME.get(name, name) not in left_out}
        return dict(sorted(found.items(), key=lambda item: item[0].lower()))


@dataclasses.dataclass(frozen=True)
class PlainTable:
    """A table of text: head and rows, the first column the name."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


# ---- ranks ----------------------------------------------------------------------------------------


def ranks(rows: Mapping[str, Row], metric: str) -> dict[str, float]:
    """Rank of each method that has a value; 1 is the best, ties share their mean rank."""
    sign = METRICS[metric].direction or 1
    known = {name: sign * value for name, row in rows.items() if (value := row.get(metric)) is not None}
    better = {name: sum(x > own for x in known.values()) for name, own in known.items()}
    return {name: better[name] + (sum(x == own for x in known.values()) + 1) / 2 for name, own in known.items()}


def mean_ranks(rows: Mapping[str, Row], metrics: Sequence[str] = RANKED) -> dict[str, float]:
    """Mean over metrics of each method's rank, over those that it has; NaN where it has none."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for metric in metrics:
        for name, rank in ranks(rows, metric).items():
            found[name].append(rank)
    return {name: statistics.fmean(own) if own else math.nan for name, own in found.items()}


def rank_table(field: Field, reference: str) -> PlainTable:
    """Each own method by itself among the opponents; the opponents' own ranks are those beside ``reference``."""
    opponents = field.opponents()
    rows = [_rank_row(name, {name: row, **opponents}) for name, row in field.own.items()]
    if reference in field.own:
        rows += [_rank_row(name, {reference: field.own[reference], **opponents}) for name in opponents]
    notes = [
        "rank in each metric, 1 is best; each own method by itself among the others"
        + (f", whose ranks are those beside {reference}" if reference in field.own else ""),
        "no opponents: copies of a source" + ("" if field.maximum_counts else ", plain maximum"),
        f"rows from elsewhere have no retention, so {' and '.join(RETENTION)} rank fewer; the last column is without",
    ]
    head = ("method", *RANKED, "mean rank", f"without {' and '.join(RETENTION)}")
    return PlainTable(f"{field.name}: ranks", head, rows, notes)


def _rank_row(name: str, rows: Mapping[str, Row]) -> list[str]:
    cells = [ranks(rows, metric).get(name) for metric in RANKED]
    text = [NOTHING if rank is None else f"{rank:g}" for rank in cells]
    shared = [metric for metric in RANKED if metric not in RETENTION]
    return [name, *text, place(name, rows), place(name, rows, shared)]


def place(name: str, rows: Mapping[str, Row], metrics: Sequence[str] = RANKED) -> str:
    """Mean rank and place among all, such as ``2.14 (1 of 8)``."""
    means = {other: mean for other, mean in mean_ranks(rows, metrics).items() if not math.isnan(mean)}
    if name not in means:
        return NOTHING
    better = sum(mean < means[name] for mean in means.values())
    return f"{means[name]:.2f} ({1 + better} of {len(means)})"


def summary(fields: Sequence[Field]) -> PlainTable:
    """Each own method's mean rank and place on every data set."""
    fields = [field for field in fields if field.own and field.opponents()]
    names = dict.fromkeys(name for field in fields for name in field.own)
    rows = [[n, *(place(n, {n: f.own[n], **f.opponents()}) if n in f.own else NOTHING for f in fields)] for n in names]
    notes = [f"over {', '.join(RANKED)}; each own method by itself among the others"]
    return PlainTable("Mean rank and place", ("method", *(field.name for field in fields)), rows, notes)


# ---- shares ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Share:
    """Values of ``own`` over those of ``other``; ``least``: what is asked for, in ``asked`` (none named: in all)."""

    own: str
    other: str
    values: Mapping[str, float]
    least: float
    asked: Sequence[str] = ()

    def asked_values(self) -> dict[str, float]:
        """Those for which ``least`` holds."""
        return {m: v for m, v in self.values.items() if not self.asked or m in self.asked}

    def missed(self) -> list[str]:
        """Metrics below what is asked for."""
        return [metric for metric, value in self.asked_values().items() if value < self.least]

    def cells(self, metrics: Sequence[str]) -> list[str]:
        """As text, in percent; what is missed has a ``!``."""
        missed, asked = self.missed(), self.asked_values()
        shown = [f"{100 * self.values[m]:.1f}" + " !" * (m in missed) if m in self.values else NOTHING for m in metrics]
        return [self.own, self.other, *shown, f"{len(asked) - len(missed)} of {len(asked)}"]


def share(own: str, row: Row, other: str, beside: Row, least: float, asked: Sequence[str] = ()) -> Share:
    """Of every metric that both have, higher is better, and in which the other is above 0."""
    values = {}
    for metric in (*RANKED, *BESIDE):
        mine, theirs = row.get(metric), beside.get(metric)
        if mine is not None and theirs is not None and theirs > 0:
            values[metric] = mine / theirs
    return Share(own, other, values, least, asked)


def shares(field: Field) -> list[Share]:
    """Own methods over SeAFusion and the Laplacian pyramid; SD and EN also with the stretch that the others have."""
    opponents = field.opponents()
    found = []
    for name, row in field.own.items():
        found += [share(name, row, o, opponents[o], NEEDED, asked) for o, asked in COMPARED.items() if o in opponents]
        stretched = {metric: field.stretched.get(name, {}).get(metric) for metric in STRETCHED}
        for other in (o for o in STRETCHING if o in opponents and None not in stretched.values()):
            found.append(share(f"{name}, stretched", stretched, other, opponents[other], NEEDED))
    return found


def share_table(field: Field) -> PlainTable:
    """``shares`` in percent."""
    metrics = (*RANKED, *BESIDE)
    notes = [
        f"percent of the other's value; ! is below {100 * NEEDED:.0f}",
        f"of the Laplacian pyramid asked for in {', '.join(COMPARED['laplacian'])}",
        f"stretched: from least to largest value, as {' and '.join(STRETCHING)} do",
    ]
    rows = [s.cells(metrics) for s in shares(field)]
    return PlainTable(f"{field.name}: shares", ("method", "beside", *metrics, "reached"), rows, notes)


def printed_table(field: Field) -> PlainTable:
    """Own methods over printed rows of other pairs, in percent."""
    metrics = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM")
    found = [
        share(name, row, other, field.printed[other], 1.0)
        for name, row in field.own.items()
        for other in PRINTED
        if other in field.printed
    ]
    notes = ["percent of the printed value; ! is below it", "printed for other pairs of the data set: for scale"]
    head = ("method", "beside", *metrics, "reached")
    return PlainTable(f"{field.name}: printed rows", head, [s.cells(metrics) for s in found], notes)


def stretched_table(field: Field) -> PlainTable:
    """SD and EN of own methods as they are and stretched, beside the methods that stretch."""
    rows = []
    for name, row in field.own.items():
        rows.append([name, *(digits(row.get(m)) for m in STRETCHED)])
        rows.append([f"{name}, stretched", *(digits(field.stretched.get(name, {}).get(m)) for m in STRETCHED)])
    others = {name: row for name, row in field.opponents().items() if name in STRETCHING}
    rows += [[name, *(digits(row.get(m)) for m in STRETCHED)] for name, row in others.items()]
    notes = ["stretched: from least to largest value of each picture, before it is rounded"]
    return PlainTable(f"{field.name}: stretched", ("method", *STRETCHED), rows if others else [], notes)


def standing_tables(field: Field, reference: str) -> list[PlainTable]:
    """All tables of a data set that have rows."""
    if not field.own or not field.opponents():
        return []
    tables = [rank_table(field, reference), share_table(field), stretched_table(field), printed_table(field)]
    return [table for table in tables if table.rows]


def plain_markdown(table: PlainTable) -> str:
    """A pipe table under a heading."""
    lines = [f"### {table.title}", "", _piped(table.head), "|---" + "|---:" * (len(table.head) - 1) + "|"]
    return "\n".join([*lines, *map(_piped, table.rows), "", *(f"- {note}" for note in table.notes)]) + "\n"


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
