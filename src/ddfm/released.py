"""The likelihood of the authors' released code, quirks and all, so that published numbers can be approached.

symbol      shape           meaning
s, r        (B, 1, H, W)    visible and infrared: the script reads the two folders swapped
x, y        (B, 1, H, W)    f - r and s - r
C, D        (B, 1, H, W)    weights; D is capped at 2 C, which no equation mentions
ta, tb      (B, 1, 1, 1)    scales
F1, F2      (B, 1, H, W)    splitting variables by columns and rows; their last column and row are H itself

What it does otherwise than the paper is in docs/math.md, line by line.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddfm._checks import check_batch, check_range, problem

__all__ = ["ReleasedLikelihood", "ReleasedState"]


@dataclasses.dataclass(frozen=True)
class ReleasedState:
    """Carried from call to call. sources: (B, 2, H, W), infrared then visible, as everywhere here."""

    sources: Tensor
    ta: Tensor
    tb: Tensor
    columns: Tensor  # F1
    rows: Tensor  # F2


@dataclasses.dataclass(frozen=True)
class ReleasedLikelihood:
    """lam, rho: the script's constants, 0.5 and 0.001 (psi and eta of the paper, whose text says 0.1 for eta)."""

    lam: float = 0.5
    rho: float = 0.001

    def __post_init__(self) -> None:
        check_range("lam", self.lam, 0, 1e6)
        check_range("rho", self.rho, 0, 1e6, open_low=True)

    def init(self, sources: Tensor) -> ReleasedState:
        """F1 = F2 = 0, ta = tb = 1. ``sources`` (B, 2, H, W) in [-1, 1]: infrared, visible."""
        check_batch("sources", sources)
        if sources.shape[1] != 2:
            raise problem("sources", f"{sources.shape[1]}", "two, infrared and visible")
        zero, one = torch.zeros_like(sources[:, :1]), sources.new_ones(len(sources), 1, 1, 1)
        return ReleasedState(sources, one, one, zero, zero)

    def step(self, x0: Tensor, state: ReleasedState, snr: float) -> tuple[Tensor, ReleasedState]:
        """One call of the script's EM on the estimate x0 (B, 1, H, W)."""
        r, s = state.sources[:, :1], state.sources[:, 1:]
        y, x = s - r, x0 - r
        c, d = self.weights(x0, state)
        tb = (1 / (d + 1e-10) + state.tb / 2).mean((1, 2, 3), keepdim=True)
        ta = (1 / (c + 1e-10) + state.ta / 2).mean((1, 2, 3), keepdim=True)
        h = self.solve_h(y - x, state)
        shrink = self.rho / (2 * self.lam + self.rho)
        columns, rows = shrink * _difference(h, -1), shrink * _difference(h, -2)
        x = (2 * c * y + self.rho * (y - h)) / (2 * c + 2 * d + self.rho)
        return s - x, ReleasedState(state.sources, ta, tb, columns, rows)

    def weights(self, x0: Tensor, state: ReleasedState) -> tuple[Tensor, Tensor]:
        """C and D. What comes out is s - x, so that C pulls it to the infrared and D to the visible."""
        r, s = state.sources[:, :1], state.sources[:, 1:]
        y, x = s - r, x0 - r
        c = (2 / state.ta / (y - x + 1e-6).square()).sqrt()
        return c, (2 / state.tb / (x.square() + 1e-6)).sqrt().minimum(2 * c)

    def solve_h(self, residual: Tensor, state: ReleasedState) -> Tensor:
        """(fft(y - x) + conj(K1) fft(F1) + conj(K2) fft(F2)) / (1 + |K1|^2 + |K2|^2), back to pixels."""
        k1, k2 = _kernel(residual, -1), _kernel(residual, -2)
        top = (
            torch.fft.fft2(residual)
            + k1.conj() * torch.fft.fft2(state.columns)
            + k2.conj() * torch.fft.fft2(state.rows)
        )
        return torch.fft.ifft2(top / (1 + k1.abs().square() + k2.abs().square())).real


def _kernel(like: Tensor, axis: int) -> Tensor:
    """fft2 of the array with -1 at the first place along ``axis`` and +1 at the last: it takes h[n + 1] - h[n]."""
    kernel = torch.zeros_like(like[:1])
    kernel[..., 0, 0] = -1
    kernel.movedim(axis, -1)[..., 0, -1] += 1
    return torch.fft.fft2(kernel)


def _difference(h: Tensor, axis: int) -> Tensor:
    """h[n] - h[n + 1] along ``axis``, and h itself at the last place: the other sign than the kernel's."""
    last = h.narrow(axis, h.shape[axis] - 1, 1)
    return torch.cat([-h.diff(dim=axis), last], axis)
