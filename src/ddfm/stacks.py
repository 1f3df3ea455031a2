"""Rendered stacks of one scene, whose truth is known: exposures of one camera, and pictures focused apart.

Light is linear, exposures are clipped as a sensor clips them, and stored with a gamma of 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ddfm._checks import problem
from ddfm.filters import blur

__all__ = ["STOPS", "exposures", "focus_stack"]

#: Exposures, in stops from the picture's own.
STOPS = (-2.0, 0.5, 3.0)
_GAMMA = 2.2


def exposures(picture: np.ndarray, stops: Sequence[float] = STOPS) -> list[np.ndarray]:
    """A picture (H, W) or (H, W, 3) in [0, 1] as each exposure shows it; float32, the same shape."""
    if not stops:
        raise problem("stops", "none", "one exposure or more, such as -2, 0, 2")
    light = np.asarray(picture, np.float64) ** _GAMMA
    return [((light * 2.0**stop).clip(0, 1) ** (1 / _GAMMA)).astype(np.float32) for stop in stops]


def focus_stack(picture: np.ndarray, count: int = 2, radius: float = 3.0) -> list[np.ndarray]:
    """A picture focused on one of ``count`` vertical bands after the other, the rest blurred by ``radius`` pixels.

    picture (H, W) or (H, W, 3) in [0, 1]; float32, the same shape. Blurred is the light, not its gamma-coded value.
    """
    if count < 1:
        raise problem("count", count, "1 or more")
    light = torch.from_numpy(np.asarray(picture, np.float32) ** _GAMMA)
    planes = light[None, None] if light.ndim == 2 else light.permute(2, 0, 1)[:, None]
    soft = blur(planes, radius).clamp(0, 1)
    band = torch.arange(planes.shape[-1]) * count // planes.shape[-1]
    found = [torch.where(band == n, planes, soft) for n in range(count)]
    plain = [x[0, 0] if light.ndim == 2 else x[:, 0].permute(1, 2, 0) for x in found]
    return [(x.numpy() ** (1 / _GAMMA)).astype(np.float32) for x in plain]
