"""EM over a very large image in strips of rows: the same iteration with a bounded number of planes.

symbol    shape           kept as     meaning
s_k       (1, 1, H, W)    ``Plane``   sources in [0, 1], the file's integers where it has any
a_k       (1, K, H, W)    half        scale maps
t         (1, 1, H, W)    half        grad^T g
p         (1, 1, H, W)    half        grad^T u of the last sweep
gamma     (1, K, 1, 1)    float32     scales: global, one value for the whole image

Scale maps and texture target are local, so they are computed block by block, with a margin as wide as they reach. The
k-solve runs in strips with ``margin(reach)`` more rows on each side, taken round the image: its kernel falls to 1e-6.
What is global, levels and the shift that keeps a picture in range, comes from the same lattice as elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddfm.color import Plane
from ddfm.levels import ENDS, Overall, lattice_step, offsets, quantile_of_all, shift
from ddfm.likelihood import EPSILON, FusionLikelihood, mixture
from ddfm.operators import adjoint, from_spectrum, grad, laplacian_symbol, to_spectrum
from ddfm.saliency import LocalSaliency, StrongestGradient

__all__ = ["StripEM", "margin", "supported"]

ALIGN = (
    240  # strips and blocks are multiples of it, so that cells of every coarse blur up to 5 x 5 or 8 x 8 begin alike
)
BLOCK = 5 * ALIGN  # a side: torch's convolutions hold one channel as sixteen, so a strip would take a gigabyte


def margin(reach: float) -> int:
    """Rows beyond which (1 + reach grad^T grad)^-1 is below 1e-6, and one for the gradient."""
    return math.ceil(math.log(1e6) / math.acosh(1 + 1 / (2 * reach))) + 1


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

    sources: planes, or (1, 1, H, W) in [0, 1]; not copied. rows: of a strip; block: side of a block;
    both multiples of ``ALIGN``.
    """

    def __init__(
        self, likelihood: FusionLikelihood, sources: Sequence[Plane | Tensor], rows: int = ALIGN, block: int = BLOCK
    ) -> None:
        self.likelihood, self.rows = likelihood, rows
        self.sources = [s if isinstance(s, Plane) else Plane(s[0, 0].numpy()) for s in sources]
        self.height, self.width = self.sources[0].size
        self.gamma = torch.ones(1, len(self.sources), 1, 1)
        shape = (1, 1, self.height, self.width)
        self.maps = (
            torch.empty(1, len(self.sources), *shape[2:], dtype=torch.float16) if likelihood.scale_maps else None
        )
        self.target = torch.empty(shape, dtype=torch.float16)
        self.offsets = torch.zeros_like(self.gamma)
        self.overall = Overall.of_lattice(self._lattice(), likelihood.level)
        self.margin = margin(likelihood.reach)
        for top in range(0, self.height, block):
            for left in range(0, self.width, block):
                self._prepare(slice(top, min(top + block, self.height)), slice(left, min(left + block, self.width)))
        self.carried = torch.zeros(shape, dtype=torch.float16)
        self._carry_next = torch.zeros(shape, dtype=torch.float16)
        self._align()

    def _lattice(self) -> Tensor:
        """The sources' pixels that quantiles look at, (1, K, h, w) in [-1, 1]."""
        step = lattice_step(self.height, self.width)
        rows = [self.stack(row, row + 1)[..., ::step] for row in range(0, self.height, step)]
        return torch.cat(rows, 2)

    def _align(self) -> None:
        """What is taken off each source from now on: see ``FusionLikelihood.init``."""
        if not self.likelihood.align:
            return
        step = lattice_step(self.height, self.width)
        own = offsets(self.overall.level, self.likelihood.align)
        maps = self.maps[..., ::step, ::step].float() if self.maps is not None else torch.ones(1, 1, 1, 1)
        start = mixture(self._lattice() - own, maps)
        low, high = (quantile_of_all(start, q) for q in ENDS)
        self.offsets = own - shift(low, high)

    def strips(self) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of each strip."""
        for top in range(0, self.height, self.rows):
            yield top, min(top + self.rows, self.height)

    def stack(self, top: int, bottom: int) -> Tensor:
        """Sources (1, K, rows, W) in [-1, 1], aligned once the offsets are known."""
        return torch.cat([s.luma(top, bottom) for s in self.sources], 1) * 2 - 1 - self.offsets

    def start(self) -> Tensor:
        """Where EM without a prior begins, (1, 1, H, W)."""
        f = torch.empty(1, 1, self.height, self.width)
        for top, bottom in self.strips():
            f[..., top:bottom, :] = mixture(self.stack(top, bottom), self._maps(top, bottom))
        return f

    def _maps(self, top: int, bottom: int) -> Tensor:
        """Scale maps of a strip; 1 without any."""
        return torch.ones(1, 1, 1, 1) if self.maps is None else self.maps[..., top:bottom, :].float()

    def _reach(self) -> int:
        """Pixels that maps and target look beyond their own, a multiple of every coarse cell."""
        maps = self.likelihood.scale_maps
        return math.ceil(maps.reach / ALIGN) * ALIGN if isinstance(maps, LocalSaliency) else ALIGN

    def _prepare(self, rows: slice, columns: slice) -> None:
        """Scale maps and grad^T g of one block."""
        high, wide = _around(rows, self._reach(), self.height), _around(columns, self._reach(), self.width)
        stack = self.stack(high.start, high.stop)[..., wide].contiguous()
        inside = (..., _within(rows, high), _within(columns, wide))
        maps = torch.ones(1, 1, 1, 1)
        if self.maps is not None and self.likelihood.scale_maps is not None:
            maps = self.likelihood.scale_maps(stack, self.overall)
            self.maps[..., rows, columns] = maps[inside].half()
        g = self.likelihood.texture_target(stack, maps)
        # the block's gradient wraps at its own end; the image's wraps from its last row and column to the first
        if high.stop == self.height:
            g[:, :1, -1:] = self._last_row(wide)
        if wide.stop == self.width:
            g[:, 1:, :, -1:] = self._last_column(high)
        down, right = g[:, :1][inside], g[:, 1:][inside]
        # grad^T g needs what is above and to the left; above the first row lies the last one, and likewise for columns
        above = self._last_row(columns) if rows.start == 0 else g[:, :1, rows.start - high.start - 1, None, inside[2]]
        before = (
            self._last_column(rows) if columns.start == 0 else g[:, 1:, inside[1], columns.start - wide.start - 1, None]
        )
        vertical = torch.cat([above, down[..., :-1, :]], -2) - down
        horizontal = torch.cat([before, right[..., :-1]], -1) - right
        self.target[..., rows, columns] = (vertical + horizontal).half()

    def _last_row(self, columns: slice) -> Tensor:
        """Vertical part of g in the image's last row, where it wraps, (1, 1, 1, columns)."""
        first, last = self.stack(0, 1), self.stack(self.height - 1, self.height)
        return self._wrapped(first - last)[..., columns]

    def _last_column(self, rows: slice) -> Tensor:
        """Horizontal part of g in the image's last column, where it wraps, (1, 1, rows, 1)."""
        stack = self.stack(rows.start, rows.stop)
        return self._wrapped(stack[..., :1] - stack[..., -1:])

    def _wrapped(self, slopes: Tensor) -> Tensor:
        """g where it wraps: the mean of the sources' slopes (1, K, ...), or the last one's without a texture target."""
        return slopes.mean(1, keepdim=True) if self.likelihood.texture else slopes[:, -1:]

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
            stack = self.stack(top, bottom)
            weights = self._weights(f[..., top:bottom, :], stack, top, bottom)
            total += (self._maps(top, bottom) / weights).sum((2, 3), keepdim=True, dtype=torch.float64)
            out[..., top:bottom, :] = self._solve_f(weights, k, stack)
            self._carry_next[..., top:bottom, :] = carried.half()
        self.gamma = (total / (self.height * self.width)).float() + self.gamma / 2  # Eq. 31
        self.carried, self._carry_next = self._carry_next, self.carried

    def _weights(self, f: Tensor, stack: Tensor, top: int, bottom: int) -> Tensor:
        """E-step of a strip (Eq. 16)."""
        square = (f - stack).square() + EPSILON**2
        return (2 * self._maps(top, bottom) / (self.gamma * square)).sqrt()

    def _solve_k(self, f: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
        """k and the new grad^T u of a strip (Eq. 25, 27)."""
        rows = torch.arange(top - self.margin, bottom + self.margin) % self.height
        reach, target = self.likelihood.reach, self.target.index_select(2, rows).float()
        right = f.index_select(2, rows) + reach * (self.carried.index_select(2, rows).float() + target)
        size = (right.shape[-2], right.shape[-1])
        k = from_spectrum(to_spectrum(right) / (1 + reach * laplacian_symbol(size)), size)
        carried = self.likelihood._shrink * (adjoint(grad(k)) - target)
        inside = slice(self.margin, size[0] - self.margin)
        return k[..., inside, :], carried[..., inside, :]

    def _solve_f(self, weights: Tensor, k: Tensor, stack: Tensor) -> Tensor:
        """f of a strip (Eq. 29-30)."""
        eta = self.likelihood._eta
        pull = 2 * (weights * stack).sum(1, keepdim=True) + eta * k
        return pull / (2 * weights.sum(1, keepdim=True) + eta)


def _around(part: slice, reach: int, length: int) -> slice:
    """``part`` and up to ``reach`` pixels on either side."""
    return slice(max(part.start - reach, 0), min(part.stop + reach, length))


def _within(part: slice, around: slice) -> slice:
    """Where ``part`` lies in a cut of ``around``."""
    return slice(part.start - around.start, part.stop - around.start)
