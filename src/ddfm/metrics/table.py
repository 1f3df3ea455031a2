"""The table of metrics: what each is called, means and ranges over, and how ``evaluate`` gets it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddfm._checks import check_choice
from ddfm.metrics.fmi import fmi
from ddfm.metrics.retention import hot_retention, texture_retention
from ddfm.metrics.statistics import (
    average_gradient,
    check_convention,
    correlation,
    entropy,
    mse,
    mutual_information_single,
    psnr,
    scd,
    spatial_frequency,
    standard_deviation,
)
from ddfm.metrics.structural import MS_SSIM_MINIMUM, ms_ssim_single, nabf, qabf, ssim_single
from ddfm.metrics.vif import vif_single

__all__ = ["DEFAULT", "METRICS", "SIX", "Metric", "Scores", "parse_names"]


class Scores:
    """One batch and its values, each computed once: many metrics share VIF, SSIM and MI of a single source.

    f, a, b: fused, infrared (functional), visible (structural), float64 (B, 1, H, W), whole levels on 0..255.
    """

    def __init__(self, f: Tensor, a: Tensor, b: Tensor, convention: str = "paper") -> None:
        self.f, self.a, self.b = f, a, b
        self.convention = check_convention(convention)
        self.of_sum = 1.0 if convention == "paper" else 0.5

    @functools.cached_property
    def vif(self) -> tuple[Tensor, Tensor]:
        """VIF of each source (B,)."""
        return vif_single(self.f, self.a), vif_single(self.f, self.b)

    @functools.cached_property
    def ssim(self) -> tuple[Tensor, Tensor]:
        """SSIM to each source (B,)."""
        options = {"convention": self.convention}
        return ssim_single(self.f, self.a, **options), ssim_single(self.f, self.b, **options)

    @functools.cached_property
    def mi(self) -> tuple[Tensor, Tensor]:
        """MI with each source (B,)."""
        options = {"convention": self.convention}
        return mutual_information_single(self.f, self.a, **options), mutual_information_single(
            self.f, self.b, **options
        )

    @functools.cached_property
    def ms_ssim(self) -> Tensor:
        """MS-SSIM (B,); NaN below 161 pixels a side, where it is not defined."""
        if min(self.f.shape[-2:]) < MS_SSIM_MINIMUM:
            return self.f.new_full((self.f.shape[0],), torch.nan)
        return self.of_sum * (ms_ssim_single(self.f, self.a) + ms_ssim_single(self.f, self.b))

    @functools.cached_property
    def hot(self) -> Tensor:
        """Hot-target retention (B,)."""
        return hot_retention(self.f, self.a)

    @functools.cached_property
    def texture(self) -> Tensor:
        """Texture retention (B,)."""
        return texture_retention(self.f, self.b)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One row of the table.

    direction: 1 higher is better, -1 lower, 0 neither by itself. range: (low, high) in the paper's convention, then in
    the standard one. unit, source: as words. value: from a ``Scores`` to (B,).
    """

    name: str
    meaning: str
    direction: int
    range: tuple[float, float]
    standard_range: tuple[float, float]
    unit: str
    source: str
    value: Callable[[Scores], Tensor]

    @property
    def arrow(self) -> str:
        """How a table's head shows the direction."""
        return {1: "\u2191", -1: "\u2193", 0: ""}[self.direction]


_INF = float("inf")


def _metric(
    name: str,
    meaning: str,
    direction: int,
    high: float,
    source: str,
    value: Callable[[Scores], Tensor],
    *,
    low: float = 0.0,
    standard: float | None = None,
    unit: str = "",
) -> Metric:
    halved = high if standard is None else standard
    standard_low = low if standard is None or low == 0 else low * halved / high
    return Metric(name, meaning, direction, (low, high), (standard_low, halved), unit, source, value)


def _singles(name: str, high: float, source: str, low: float = 0.0, standard: float | None = None) -> list[Metric]:
    """The value of each source, and the smaller of the two, which a copy of one source cannot raise."""
    part = {"VIF": lambda s: s.vif, "SSIM": lambda s: s.ssim, "MI": lambda s: s.mi}[name]
    rows: list[tuple[str, str, Callable[[Scores], Tensor]]] = [
        (f"{name}_A", f"{name} with the infrared alone", lambda s: part(s)[0]),
        (f"{name}_B", f"{name} with the visible alone", lambda s: part(s)[1]),
        (f"min{name}", f"smaller of {name}_A and {name}_B", lambda s: torch.minimum(*part(s))),
    ]
    return [_metric(n, meaning, 1, high, source, value, low=low, standard=standard) for n, meaning, value in rows]


_ROWS = [
    _metric("EN", "entropy of the grey levels", 1, 8, "Roberts et al. 2008", lambda s: entropy(s.f), unit="bit"),
    _metric("SD", "spread of the grey levels", 1, 127.5, "Rao 1997", lambda s: standard_deviation(s.f), unit="level"),
    _metric(
        "SF",
        "root mean square of differences",
        1,
        360.7,
        "Eskicioglu and Fisher 1995",
        lambda s: spatial_frequency(s.f),
    ),
    _metric("AG", "mean gradient", 1, 255, "Cui et al. 2015", lambda s: average_gradient(s.f), unit="level/pixel"),
    _metric(
        "MI",
        "grey-level information shared, summed",
        1,
        11.1,
        "Qu et al. 2002",
        lambda s: s.mi[0] + s.mi[1],
        standard=16,
    ),
    _metric(
        "CC",
        "mean correlation with the sources",
        1,
        1,
        "Deshmukh and Bhosale 2010",
        lambda s: correlation(s.f, s.a, s.b),
        low=-1,
    ),
    _metric(
        "SCD", "correlation of the differences", 1, 2, "Aslantas and Bendes 2015", lambda s: scd(s.f, s.a, s.b), low=-2
    ),
    _metric(
        "VIF", "visual information kept", 1, _INF, "Sheikh and Bovik 2006", lambda s: s.of_sum * (s.vif[0] + s.vif[1])
    ),
    _metric(
        "Qabf", "edges kept", 1, 1, "Xydeas and Petrovic 2000", lambda s: qabf(s.f, s.a, s.b, convention=s.convention)
    ),
    _metric(
        "SSIM",
        "structural similarity",
        1,
        2,
        "Wang et al. 2004",
        lambda s: s.of_sum * (s.ssim[0] + s.ssim[1]),
        low=-2,
        standard=1,
    ),
    _metric("MS-SSIM", "structural similarity, five scales", 1, 2, "Wang et al. 2003", lambda s: s.ms_ssim, standard=1),
    _metric("MSE", "mean squared error", -1, 65025, "-", lambda s: mse(s.f, s.a, s.b), unit="level^2"),
    _metric(
        "PSNR",
        "peak over error",
        1,
        _INF,
        "Jagalingam and Hegde 2015",
        lambda s: psnr(s.f, s.a, s.b, convention=s.convention),
        low=-_INF,
        unit="dB",
    ),
    _metric("Nabf", "edges that neither source has", -1, 1, "Shreyamsha Kumar 2013", lambda s: nabf(s.f, s.a, s.b)),
    _metric(
        "FMI", "feature information kept, raw pixels", 1, 1, "Haghighat and Razian 2014", lambda s: fmi(s.f, s.a, s.b)
    ),
    *_singles("VIF", _INF, "Sheikh and Bovik 2006"),
    *_singles("SSIM", 1, "Wang et al. 2004", low=-1),
    *_singles("MI", 5.55, "Qu et al. 2002", standard=8),
    _metric("hot", "contrast of hot targets kept", 1, 1.5, "docs/evaluation.md", lambda s: s.hot),
    _metric("texture", "gradients of the visible kept", 1, 1, "docs/evaluation.md", lambda s: s.texture, low=-1),
    _metric(
        "minRetention",
        "smaller of hot, texture",
        1,
        1,
        "docs/evaluation.md",
        lambda s: torch.minimum(s.hot, s.texture),
        low=-1,
    ),
]

#: Every metric by name, in the order of tables.
METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
#: The six of the paper's tables.
SIX = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM")
#: What tables show unless asked: the six, and what those who game them fail.
DEFAULT = (*SIX, "SCD", "minVIF", "hot", "texture", "minRetention")


def parse_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Metric names from a list or a comma-separated text; "all", "six" and "default" stand for several."""
    groups = {"all": tuple(METRICS), "six": SIX, "default": DEFAULT}
    parts = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    found: list[str] = []
    for part in parts:
        found += groups.get(part) or [check_choice("metrics", part, (*METRICS, *groups))]
    return tuple(dict.fromkeys(found))
