"""EM over a very large image in strips of rows: the same iteration with a bounded number of planes.

symbol    shape           kept as    meaning
s_k       (1, 1, H, W)    as given   sources in [0, 1]
a_k       (1, K, H, W)    half       scale maps
t         (1, 1, H, W)    half       grad^T g
p         (1, 1, H, W)    half       grad^T u of the last sweep
gamma     (1, K, 1, 1)    float32    scales: global, one value for the whole image

Scale maps and texture target are local, so each strip computes them with a margin as wide as their blurs. The k-solve
runs in strips with ``MARGIN`` more rows on each side, taken round the image: its kernel falls to 2e-6 at 12 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddfm.likelihood import EPSILON, FusionLikelihood
from ddfm.operators import adjoint, from_spectrum, grad, laplacian_symbol, to_spectrum
from ddfm.saliency import LocalSaliency, StrongestGradient

__all__ = ["MARGIN", "StripEM", "supported"]

MARGIN = 17  # rows: 16 for the k-solve, one for the gradient
ALIGN = 240  # rows of a strip are a multiple of it, so that cells of every coarse blur up to 5 x 5 or 8 x 8 begin alike


def supported(likelihood: object) -> bool:
    """Whether ``StripEM`` can stand in for a likelihood: ours, with local maps, no noise, no pull to the prior."""
    return (
        isinstance(likelihood, FusionLikelihood)
        and likelihood.prior_weight == 0
        and not any(likelihood.noise)
        and isinstance(likelihood.scale_maps, LocalSaliency | None)
        and isinstance(likelihood.texture, StrongestGradient | None)
    )


class StripEM:
    """State and sweeps of ``FusionLikelihood`` on one image that is too large to be handled whole.

    sources: each (1, 1, H, W) in [0, 1], not copied. rows: of a strip, a multiple of ``ALIGN``.
    """

    def __init__(self, likelihood: FusionLikelihood, sources: Sequence[Tensor], rows: int = ALIGN) -> None:
        self.likelihood, self.sources, self.rows = likelihood, list(sources), rows
        self.height, self.width = sources[0].shape[-2:]
        self.gamma = torch.ones(1, len(self.sources), 1, 1)
        shape = (1, 1, self.height, self.width)
        self.maps = (
            torch.empty(1, len(self.sources), *shape[2:], dtype=torch.float16) if likelihood.scale_maps else None
        )
        self.target = torch.empty(shape, dtype=torch.float16)
        for top, bottom in self.strips():
            self._prepare(top, bottom)
        self.carried = torch.zeros(shape, dtype=torch.float16)
        self._carry_next = torch.zeros(shape, dtype=torch.float16)

    def strips(self) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of each strip."""
        for top in range(0, self.height, self.rows):
            yield top, min(top + self.rows, self.height)

    def stack(self, top: int, bottom: int) -> Tensor:
        """Sources (1, K, rows, W) in [-1, 1]."""
        return torch.cat([s[..., top:bottom, :] for s in self.sources], 1) * 2 - 1

    def mean(self) -> Tensor:
        """Where EM without a prior begins: the sources' mean, (1, 1, H, W)."""
        f = torch.zeros_like(self.sources[0])
        for source in self.sources:
            f.add_(source, alpha=2 / len(self.sources))
        return f.sub_(1)

    def _reach(self) -> int:
        """Rows that maps and target look beyond their own, a multiple of every coarse cell."""
        blurs = [self.likelihood.scale_maps, getattr(self.likelihood.texture, "saliency", None)]
        sigmas = [s.background + 2 * s.window for s in blurs if isinstance(s, LocalSaliency)]
        texture = getattr(self.likelihood.texture, "sigma", 0.0)
        return math.ceil((3.5 * (max(sigmas, default=0.0) + texture) + 16) / ALIGN) * ALIGN

    def _prepare(self, top: int, bottom: int) -> None:
        """Scale maps and grad^T g of one strip."""
        reach = self._reach()
        first, last = max(top - reach, 0), min(bottom + reach, self.height)
        stack = self.stack(first, last)
        inside = slice(top - first, bottom - first)
        if self.maps is not None and self.likelihood.scale_maps is not None:
            self.maps[..., top:bottom, :] = self.likelihood.scale_maps(stack)[..., inside, :].half()
        g = self.likelihood.texture_target(stack)
        self._mend_border(g, first, last)
        # grad^T g at a row needs the row above it; above the first row lies the last one
        above = g[:, :1, inside.start - 1 : inside.start] if top else self._last_row()
        rows, columns = g[:, :1, inside], g[:, 1:, inside]
        shifted = torch.cat([above, rows[..., :-1, :]], -2)
        self.target[..., top:bottom, :] = (shifted - rows + columns.roll(1, -1) - columns).half()

    def _mend_border(self, g: Tensor, first: int, last: int) -> None:
        """The strip's gradient wraps at its own end; the image's wraps from its last row to its first."""
        if last == self.height:
            g[:, :1, -1:] = self._last_row()

    def _last_row(self) -> Tensor:
        """Vertical part of g in the image's last row, where it wraps: the mean of the sources', or the last one's."""
        wrapped = torch.cat([2 * (s[..., :1, :] - s[..., -1:, :]) for s in self.sources], 1)
        return wrapped.mean(1, keepdim=True) if self.likelihood.texture else wrapped[:, -1:]

    def step(self, f: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """As ``FusionLikelihood.step``: all its sweeps, from f; returns (estimate, the other plane to write on)."""
        for _ in range(self.likelihood.sweeps):
            self.sweep(f, out)
            f, out = out, f
        return f, out

    def sweep(self, f: Tensor, out: Tensor) -> None:
        """One EM iteration from f (1, 1, H, W) in [-1, 1] into ``out``; f is only read."""
        total = torch.zeros_like(self.gamma, dtype=torch.float64)
        for top, bottom in self.strips():
            k, carried = self._solve_k(f, top, bottom)
            weights = self._weights(f[..., top:bottom, :], top, bottom)
            share = self.maps[..., top:bottom, :].float() if self.maps is not None else 1.0
            total += (share / weights).sum((2, 3), keepdim=True, dtype=torch.float64)
            out[..., top:bottom, :] = self._solve_f(weights, k, top, bottom)
            self._carry_next[..., top:bottom, :] = carried.half()
        self.gamma = (total / (self.height * self.width)).float() + self.gamma / 2  # Eq. 31
        self.carried, self._carry_next = self._carry_next, self.carried

    def _weights(self, f: Tensor, top: int, bottom: int) -> Tensor:
        """E-step of a strip (Eq. 16)."""
        square = (f - self.stack(top, bottom)).square() + EPSILON**2
        share = self.maps[..., top:bottom, :].float() if self.maps is not None else 1.0
        return (2 * share / (self.gamma * square)).sqrt()

    def _solve_k(self, f: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
        """k and the new grad^T u of a strip (Eq. 25, 27)."""
        rows = torch.arange(top - MARGIN, bottom + MARGIN) % self.height
        target = self.target.index_select(2, rows).float()
        right = f.index_select(2, rows) + self.carried.index_select(2, rows).float() + target
        size = (right.shape[-2], right.shape[-1])
        k = from_spectrum(to_spectrum(right) / (1 + laplacian_symbol(size)), size)
        carried = self.likelihood._shrink * (adjoint(grad(k)) - target)
        inside = slice(MARGIN, size[0] - MARGIN)
        return k[..., inside, :], carried[..., inside, :]

    def _solve_f(self, weights: Tensor, k: Tensor, top: int, bottom: int) -> Tensor:
        """f of a strip (Eq. 29-30)."""
        eta = self.likelihood._eta
        pull = 2 * (weights * self.stack(top, bottom)).sum(1, keepdim=True) + eta * k
        return pull / (2 * weights.sum(1, keepdim=True) + eta)
