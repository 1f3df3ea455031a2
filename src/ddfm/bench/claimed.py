"""Rows that others print: the paper's Tables 1 to 3, CDDFuse's, and any file of rows measured elsewhere."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddfm._checks import problem
from ddfm.metrics.table import METRICS

__all__ = ["claimed_ablation", "claimed_rows", "is_medical", "read_rows"]

_DATA = Path(__file__).parent / "data"
#: How a data set of ours is called in the paper; a name begins with the key, lower case.
_PAPER_NAMES = {"msrs": "MSRS", "m3fd": "M3FD", "roadscene": "RoadScene", "tno": "TNO"}
_MEDICAL = ("mri", "harvard")
_FILES = ("paper_tables.json", "printed_rows.json")  # in the same six metrics


@functools.cache
def _tables(file: str = "paper_tables.json") -> dict[str, Any]:
    tables: dict[str, Any] = json.loads((_DATA / file).read_text("utf-8"))
    return tables


def is_medical(dataset: str) -> bool:
    """By its name."""
    return dataset.lower().startswith(_MEDICAL)


def claimed_rows(dataset: str) -> dict[str, dict[str, float]]:
    """The paper's rows for a data set by its name, in its six metrics, and CDDFuse's; empty where there are none.

    They are of the authors' own test pairs and evaluator: to stand beside, not to compare to the last digit.
    """
    if is_medical(dataset):
        rows = _tables()["mif"]["Harvard"]
    else:
        paper = next((title for key, title in _PAPER_NAMES.items() if dataset.lower().startswith(key)), "")
        rows = {k: v for file in _FILES for k, v in _tables(file)["ivf"].get(paper, {}).items()}
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
    expected = '{"rows": {data set: {method: {metric: number}}}}'
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise problem("--rows", f"{path}, which is no text", f"a JSON file, {expected}") from None
    except OSError as error:
        raise problem("--rows", f"{path} ({error.strerror})", "a file that can be read", "Check the path.") from error
    try:
        rows: Mapping[str, Any] = json.loads(text)["rows"]
        return {
            dataset: {
                method: {metric: float(v) for metric, v in values.items() if metric in METRICS}
                for method, values in methods.items()
            }
            for dataset, methods in rows.items()
        }
    except json.JSONDecodeError as error:
        raise problem("--rows", f"{path}, which is no JSON: {error}", expected) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise problem("--rows", f"{path}: {type(error).__name__}: {error}", expected) from error
