"""Is a difference between two methods more than chance? A paired test over images, corrected for many questions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["LEAST_IMAGES", "Comparison", "compare", "holm"]

LEAST_IMAGES = 6  # below, the smallest two-sided p that Wilcoxon's test can give is above 0.05


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of one other method against the reference.

    difference: median over images of reference minus other; n: images where both have a value; p: Wilcoxon signed-rank,
    two-sided; corrected: p after Holm over all comparisons of the data set; NaN where there are too few images.
    """

    metric: str
    other: str
    n: int
    difference: float
    p: float
    corrected: float = math.nan


Values = Mapping[str, Mapping[str, float | None]]  # image -> metric -> value


def compare(reference: Values, others: Mapping[str, Values], metrics: Sequence[str]) -> list[Comparison]:
    """Every metric against every other method, paired by image."""
    found = [_one(metric, name, reference, values) for name, values in others.items() for metric in metrics]
    tested = [c for c in found if not math.isnan(c.p)]
    corrected = dict(zip(map(id, tested), holm([c.p for c in tested]), strict=True))
    return [dataclasses.replace(c, corrected=corrected.get(id(c), math.nan)) for c in found]


def _one(metric: str, other: str, reference: Values, values: Values) -> Comparison:
    pairs = [(reference[name].get(metric), values[name].get(metric)) for name in reference.keys() & values.keys()]
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None])
    if len(differences) < LEAST_IMAGES or not differences.any():
        p = 1.0 if len(differences) >= LEAST_IMAGES else math.nan
    else:
        from scipy.stats import wilcoxon

        p = float(wilcoxon(differences, zero_method="pratt").pvalue)  # pratt: ties of whole methods count
    median = float(np.median(differences)) if len(differences) else math.nan
    return Comparison(metric, other, len(differences), median, p)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p values that bound the chance of any false finding among all."""
    order = np.argsort(ps)
    corrected = [0.0] * len(ps)
    running = 0.0
    for rank, k in enumerate(order):
        running = max(running, min(1.0, (len(ps) - rank) * ps[k]))
        corrected[k] = running
    return corrected
