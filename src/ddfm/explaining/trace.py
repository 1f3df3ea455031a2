"""A likelihood that looks on: it hands everything to the one inside, and keeps what was seen.

symbol      shape        kept as     meaning
x0          (H, W)       uint8       what a step began with, luma; in EM without the prior the estimate so far
f_hat       (H, W)       uint8       what the likelihood made of it
W           (K, H, W)    float32     E-step weights of the last sweep alone
gamma       (S, K)       float64     scales after each of S sweeps

Memory is bounded: at most ``MOST_FRAMES`` frames, evenly spread, each at most ``MOST_PIXELS`` large.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddfm.likelihood import FusionLikelihood, Likelihood, Sweep
from ddfm.released import ReleasedLikelihood

__all__ = ["MOST_FRAMES", "MOST_PIXELS", "Frame", "Recorder", "Trace"]

#: Most frames that are kept; of more, so many evenly spread, the first and the last among them.
MOST_FRAMES = 60
#: Above so many pixels a frame is kept at an integer fraction of its sides.
MOST_PIXELS = 2_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One moment: ``name``, such as "EM 2" or "step 3 of 10, t = 40"; x0 and f_hat, uint8 (H, W)."""

    name: str
    x0: np.ndarray
    f_hat: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What was seen of one run.

    frames: see ``Frame``. sources (K, H, W), float32 in [0, 1]: as the likelihood was given them. weights, scale_maps
    (K, H, W): E-step weights of the last sweep, and maps with sum K; None where the likelihood has none.
    gammas (S, K): scales after each sweep. objective (S, 2): Eq. 23 at the sweep's weights before and after the M-step.
    energy (S, 2): see ``FusionLikelihood.energy``, before and after the sweep. S is 0 for what is not known.
    """

    frames: tuple[Frame, ...]
    sources: np.ndarray
    weights: np.ndarray | None
    scale_maps: np.ndarray | None
    gammas: np.ndarray
    objective: np.ndarray
    energy: np.ndarray


class Recorder:
    """A likelihood for one image that does what ``inner`` does, bit by bit, and keeps what it saw.

    moments: how many frames are to be expected. name: number and snr of a sampling step -> how its frame is called.
    tick: is called after every sweep; what it raises ends the work.
    """

    def __init__(
        self,
        inner: Likelihood,
        moments: int = MOST_FRAMES,
        name: Callable[[int, float], str] = lambda n, snr: f"step {n}",
        tick: Callable[[], Any] = lambda: None,
    ) -> None:
        self.inner, self._name, self._tick = inner, name, tick
        self._kept = {round(n) for n in np.linspace(0, max(moments - 1, 0), min(moments, MOST_FRAMES))}
        if hasattr(inner, "start"):  # only then: EM begins elsewhere with a likelihood that has none
            self.start = inner.start

    def init(self, sources: Tensor) -> Any:
        """See ``Likelihood.init``; what an earlier run left is forgotten."""
        state = self.inner.init(sources)
        self._sources = sources
        self._u: Tensor | None = None
        self._weights: Tensor | None = None
        self._maps: Tensor | None = getattr(state, "maps", None)
        self._seen = self._em = 0
        self._frames: list[Frame] = []
        self._gammas: list[list[float]] = []
        self._objective: list[tuple[float, float]] = []
        self._energy: list[tuple[float, float]] = []
        return state

    def step(self, x0: Tensor, state: Any, snr: float) -> tuple[Tensor, Any]:
        """See ``Likelihood.step``."""
        if isinstance(self.inner, FusionLikelihood):
            return self._fusion_step(self.inner, x0, state, snr)
        if isinstance(self.inner, ReleasedLikelihood):
            self._weights = torch.cat(self.inner.weights(x0, state), 1)
        f, state = self.inner.step(x0, state, snr)
        if isinstance(self.inner, ReleasedLikelihood):
            self._gammas.append([float(state.tb), float(state.ta)])  # tb is of f - infrared
        self._look(x0, f, snr)
        self._tick()
        return f, state

    def _fusion_step(self, inner: FusionLikelihood, x0: Tensor, state: Any, snr: float) -> tuple[Tensor, Any]:
        """``FusionLikelihood.step``, every sweep looked at; without the prior each of them is a frame."""
        f, before = x0, state
        for sweep in inner.iterate(x0, state, snr):
            self._measure(inner, sweep, before, x0, snr)
            if not snr:
                self._look(sweep.before, sweep.f, snr)
            f, before = sweep.f, sweep.state
            self._tick()
        if snr:
            self._look(x0, f, snr)
        return f, before

    def _measure(self, inner: FusionLikelihood, sweep: Sweep, before: Any, x0: Tensor, snr: float) -> None:
        """What the sweep did to objective, energy and scales; k is at its best for the old f and u already."""
        u = inner.split_slope(sweep.k, sweep.state)
        old = torch.zeros_like(u) if self._u is None else self._u
        steps = ((sweep.before, old, before), (sweep.f, u, sweep.state))
        values = [
            (
                inner.objective(f, sweep.k, v, sweep.weights, state, x0, snr).item(),
                inner.energy(f, sweep.k, v, state).item(),
            )
            for f, v, state in steps
        ]
        (objective, energy), (lowered, after) = values
        self._objective.append((objective, lowered))
        self._energy.append((energy, after))
        self._gammas.append(sweep.state.gamma.flatten().tolist())
        self._u, self._weights = u, sweep.weights

    def _look(self, x0: Tensor, f: Tensor, snr: float) -> None:
        """Keep a frame, if it is one of those that are kept."""
        self._em += not snr
        if self._seen in self._kept:
            name = self._name(self._seen - self._em + 1, snr) if snr else f"EM {self._em}"
            self._frames.append(Frame(name, _small(x0), _small(f)))
        self._seen += 1

    def trace(self) -> Trace:
        """What was seen since ``init``."""
        count = self._sources.shape[1]
        shape = (count, *self._sources.shape[-2:])

        def plain(planes: Tensor | None) -> np.ndarray | None:
            return None if planes is None else np.array(planes.float().cpu().expand(1, *shape)[0].numpy())

        return Trace(
            tuple(self._frames),
            ((self._sources[0].float().cpu() + 1) / 2).numpy(),
            plain(self._weights),
            plain(self._maps),
            np.array(self._gammas, np.float64).reshape(-1, count),
            np.array(self._objective, np.float64).reshape(-1, 2),
            np.array(self._energy, np.float64).reshape(-1, 2),
        )


def shrinking(height: int, width: int) -> int:
    """The whole number by which a frame's sides are divided before it is kept."""
    return math.ceil(math.sqrt(height * width / MOST_PIXELS))


def _small(luma: Tensor) -> np.ndarray:
    """(1, 1, H, W) in about [-1, 1] as uint8, means of squares where it is large."""
    factor = shrinking(*luma.shape[-2:])
    if factor > 1:
        luma = F.avg_pool2d(luma, factor, ceil_mode=True)
    levels = ((luma[0, 0].float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).cpu().numpy()
