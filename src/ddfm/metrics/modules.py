"""torchmetrics classes: the metrics as a training loop logs them. Needs the extra ``ddfm[metrics]``.

from ddfm.metrics.modules import FusionScores
scores = FusionScores(["VIF", "SCD", "minVIF"])
scores.update(fused, infrared, visible)   # (B, 1, H, W), grey levels on 0..255
scores.compute()                          # {"VIF": mean, ...}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddfm._checks import DDFMError
from ddfm.metrics import evaluate, parse_names
from ddfm.metrics.statistics import check_convention

try:
    from torchmetrics import Metric
except ImportError as error:
    raise DDFMError(
        "torchmetrics: got no such package, expected it. Install it: pip install 'ddfm[metrics]'."
    ) from error

__all__ = ["FusionMetric", "FusionScores"]


class FusionScores(Metric):
    """Means over all images seen of several metrics; values that are not finite are left out of a mean.

    names: as for ``ddfm.metrics.evaluate``. ``compute`` gives a dict of scalar float64 tensors, NaN where no image
    had a value. Sums are reduced over processes as torchmetrics does.
    """

    full_state_update = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, names: str | Sequence[str] = "default", *, convention: str = "paper", **options: Any) -> None:
        super().__init__(**options)
        self.names, self.convention = parse_names(names), check_convention(convention)
        zeros = torch.zeros(len(self.names), dtype=torch.float64)
        self.add_state("total", default=zeros, dist_reduce_fx="sum")
        self.add_state("count", default=zeros.clone(), dist_reduce_fx="sum")

    def update(self, fused: Tensor, infrared: Tensor, visible: Tensor) -> None:
        """Add a batch (B, 1, H, W), grey levels on 0..255."""
        values = evaluate(fused, infrared, visible, convention=self.convention, metrics=self.names)
        stacked = torch.stack([values[name] for name in self.names]).to(self.total)
        finite = stacked.isfinite()
        self.total = self.total + torch.where(finite, stacked, 0).sum(1)
        self.count = self.count + finite.sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each metric."""
        means = self.total / self.count  # 0/0 is NaN: no image had a value
        return dict(zip(self.names, means, strict=True))


class FusionMetric(FusionScores):
    """One metric; ``compute`` gives its mean as a scalar tensor."""

    def __init__(self, name: str, *, convention: str = "paper", **options: Any) -> None:
        super().__init__([name], convention=convention, **options)

    def compute(self) -> Tensor:  # type: ignore[override]
        """The mean."""
        return super().compute()[self.names[0]]
