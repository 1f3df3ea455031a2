"""Rows that others print: the paper's Tables 1 to 3, and any file of rows measured elsewhere. Shown, never ranked."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddfm._checks import problem
from ddfm.metrics.table import METRICS

__all__ = ["claimed_ablation", "claimed_rows", "read_rows"]

_FILE = Path(__file__).parent / "data" / "paper_tables.json"
#: How a data set of ours is called in the paper; a name begins with the key, lower case.
_PAPER_NAMES = {"msrs": "MSRS", "m3fd": "M3FD", "roadscene": "RoadScene", "tno": "TNO"}
_MEDICAL = ("mri", "harvard")


@functools.cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(_FILE.read_text("utf-8"))
    return tables


def claimed_rows(dataset: str) -> dict[str, dict[str, float]]:
    """The paper's rows for a data set by its name, in its six metrics; empty where it has none.

    They are of the paper's own test pairs and of its own evaluator: to stand beside, not to compare to the last digit.
    """
    name = dataset.lower()
    if name.startswith(_MEDICAL):
        rows = _tables()["mif"]["Harvard"]
    else:
        paper = next((title for key, title in _PAPER_NAMES.items() if name.startswith(key)), None)
        rows = _tables()["ivf"][paper] if paper else {}
    return {method: _row(values) for method, values in rows.items()}


def claimed_ablation() -> tuple[str, dict[str, dict[str, float]]]:
    """Name of the data set (lower case) and rows of the paper's Table 2."""
    table = _tables()["ablation"]
    rows = {"full" if name == "DDFM" else name: _row(values) for name, values in table.items() if name != "dataset"}
    return table["dataset"].lower(), rows


def _row(values: list[float]) -> dict[str, float]:
    return dict(zip(_tables()["metrics"], values, strict=True))


def read_rows(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """data set -> method -> metric -> value, of a JSON file {"rows": ...}. Raises DDFMError naming the file."""
    try:
        rows: Mapping[str, Any] = json.loads(path.read_text("utf-8"))["rows"]
        return {
            dataset: {
                method: {metric: float(v) for metric, v in values.items() if metric in METRICS}
                for method, values in methods.items()
            }
            for dataset, methods in rows.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"rows": {data set: {method: {metric: number}}}}'
        raise problem(str(path), f"{type(error).__name__}: {error}", expected) from error
