"""Scores of a fused image against its two sources, and two that copying a source cannot pass.

``evaluate`` gives every number at once. The values follow the convention that fusion papers print
(the evaluator published with CDDFuse): grey levels on 0..255, rounded; entropy in bits but mutual
information in nats; SSIM with data range 2; MI, VIF, SSIM and SCD are sums over both sources, CC and
MSE means.

Colour is reduced to grey before, on 8 bits: 0.299 R + 0.587 G + 0.114 B in fixed point, rounded. OpenCV's
BGR2GRAY ((9798 R + 19235 G + 3735 B + 16384) >> 15) and Pillow's ``convert("L")`` differ by one level on
about 0.1 % of all colours; plain truncation moves the scores in the third digit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddfm._checks import problem
from ddfm.metrics.retention import hot_retention, texture_retention
from ddfm.metrics.statistics import (
    average_gradient,
    check_sources,
    correlation,
    entropy,
    mse,
    mutual_information,
    psnr,
    scd,
    spatial_frequency,
    standard_deviation,
)
from ddfm.metrics.structural import qabf, ssim, ssim_single
from ddfm.metrics.vif import vif, vif_single

__all__ = [
    "average_gradient",
    "correlation",
    "entropy",
    "evaluate",
    "hot_retention",
    "mse",
    "mutual_information",
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


def evaluate(fused: Tensor, infrared: Tensor, visible: Tensor) -> dict[str, Tensor]:
    """Score fused images against their sources; float64 (B,) per metric.

    fused, infrared, visible: (B, 1, H, W), grey levels on 0..255, at least 41 x 41 pixels. They are
    rounded (half to even) first: unrounded values inflate MI.

    EN SD SF AG are of the fused image alone; MI CC SCD VIF Qabf SSIM MSE PSNR against both sources.
    minVIF is the smaller of the two VIFs. hot and texture are the retentions, minRetention the
    smaller: of a pair without hot targets (hot is NaN) or without texture, the one that exists.
    """
    images = check_sources(fused, infrared, visible)
    _refuse_unit_range(images)
    f, a, b = (image.round() for image in images)
    vif_a, vif_b = vif_single(f, a), vif_single(f, b)
    hot, texture = hot_retention(f, a), texture_retention(f, b)
    return {
        "EN": entropy(f),
        "SD": standard_deviation(f),
        "SF": spatial_frequency(f),
        "AG": average_gradient(f),
        "MI": mutual_information(f, a, b),
        "CC": correlation(f, a, b),
        "SCD": scd(f, a, b),
        "VIF": vif_a + vif_b,
        "Qabf": qabf(f, a, b),
        "SSIM": ssim(f, a, b),
        "MSE": mse(f, a, b),
        "PSNR": psnr(f, a, b),
        "minVIF": torch.minimum(vif_a, vif_b),
        "hot": hot,
        "texture": texture,
        "minRetention": torch.fmin(hot, texture),
    }


def _refuse_unit_range(images: tuple[Tensor, ...]) -> None:
    """Raise for images on 0..1: rounded they would be black and white, and every number wrong."""
    for name, image in zip(("fused", "infrared", "visible"), images, strict=True):
        if bool((image <= 1).all()) and bool((image != image.round()).any()):
            raise problem(name, "fractions in [0, 1]", "grey levels on 0..255", "Multiply by 255.")
