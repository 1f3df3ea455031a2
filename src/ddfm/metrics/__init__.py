"""Scores of a fused image against its two sources, and two that copying a source cannot pass.

``evaluate`` gives many at once, ``METRICS`` says what each means. By default the values follow the convention that
fusion papers print (the evaluator published with CDDFuse): grey levels on 0..255, rounded; entropy in bits but mutual
information in nats; SSIM with data range 2; MI, VIF, SSIM and SCD are sums over both sources, CC and
MSE means. ``convention="standard"``: MI in bits, SSIM and VIF means, data range 255, Qabf corrected.
``ddfm.metrics.modules`` has torchmetrics classes.

Colour is reduced to grey before, on 8 bits: 0.299 R + 0.587 G + 0.114 B in fixed point, rounded. OpenCV's
BGR2GRAY ((9798 R + 19235 G + 3735 B + 16384) >> 15) and Pillow's ``convert("L")`` differ by one level on
about 0.1 % of all colours; plain truncation moves the scores in the third digit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ddfm.metrics.fmi import fmi, fmi_single
from ddfm.metrics.retention import hot_retention, texture_retention
from ddfm.metrics.statistics import (
    CONVENTIONS,
    average_gradient,
    check_sources,
    correlation,
    entropy,
    mse,
    mutual_information,
    mutual_information_single,
    psnr,
    scd,
    spatial_frequency,
    standard_deviation,
)
from ddfm.metrics.structural import ms_ssim, ms_ssim_single, nabf, qabf, ssim, ssim_single
from ddfm.metrics.table import DEFAULT, METRICS, SIX, Metric, Scores, parse_names
from ddfm.metrics.vif import vif, vif_single

__all__ = [
    "CONVENTIONS",
    "DEFAULT",
    "METRICS",
    "SIX",
    "Metric",
    "average_gradient",
    "correlation",
    "entropy",
    "evaluate",
    "fmi",
    "fmi_single",
    "hot_retention",
    "ms_ssim",
    "ms_ssim_single",
    "mse",
    "mutual_information",
    "mutual_information_single",
    "nabf",
    "parse_names",
    "psnr",
    "qabf",
    "scd",
    "spatial_frequency",
    "ssim",
    "ssim_single",
    "standard_deviation",
    "texture_retention",
    "vif",
    "vif_single",
]


def evaluate(
    fused: Tensor,
    infrared: Tensor,
    visible: Tensor,
    *,
    convention: str = "paper",
    metrics: str | Sequence[str] = "default",
) -> dict[str, Tensor]:
    """Score fused images against their sources; float64 (B,) per metric.

    fused, infrared, visible: (B, 1, H, W), grey levels on 0..255, at least 41 x 41 pixels for VIF. They are
    rounded (half to even) first: unrounded values inflate MI. In medical images "infrared" is the functional
    source (CT, PET, SPECT) and "visible" the structural one (MRI).

    convention: "paper" or "standard", see ``ddfm.metrics.statistics``. metrics: names of ``METRICS``, or "default",
    "six" or "all". NaN where a value is not defined: hot without hot targets, texture without texture, MS-SSIM below
    161 pixels a side; minRetention where one of the two is.
    """
    names = parse_names(metrics)
    images = check_sources(fused, infrared, visible)
    f, a, b = (image.round() for image in images)
    scores = Scores(f, a, b, convention)
    return {name: METRICS[name].value(scores) for name in names}
