"""Fusion without Bayesian inference: Eq. 8 with a given phi, by ADMM. Ablations III and IV of the paper's Table 2.

symbol    shape           meaning
f         (B, 1, H, W)    min |f - i|_1 + phi |f - v|_1 + psi / 2 |grad f - grad v|^2
z_k, d_k  (B, 2, H, W)    splitting z_k = f - s_k and its scaled dual
rho       scalar          penalty of the splitting

One iteration for each sampling step, begun at the step's x0, duals carried. Solved to convergence, phi < 1 would give i
whatever x0 is.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ddfm._checks import check_batch, check_range, problem
from ddfm.operators import from_spectrum, laplacian_symbol, to_spectrum

__all__ = ["AdmmLikelihood", "AdmmState"]


@dataclasses.dataclass(frozen=True)
class AdmmState:
    """Sources (B, 2, H, W), scaled duals of the same shape, and |K|^2 of the gradient."""

    sources: Tensor
    dual: Tensor
    symbol: Tensor


@dataclasses.dataclass(frozen=True)
class AdmmLikelihood:
    """phi: weight of the visible source (Eq. 8). psi: of the texture term. rho: the infrared's threshold is 1 / rho.

    rho = 10 puts the threshold at 0.1 of the range [-1, 1], the size of usual differences; the paper names none.
    """

    phi: float
    psi: float = 0.5
    rho: float = 10.0

    def __post_init__(self) -> None:
        check_range("phi", self.phi, 0, 1e6)
        check_range("psi", self.psi, 0, 1e6)
        check_range("rho", self.rho, 0, 1e6, open_low=True)

    def init(self, sources: Tensor) -> AdmmState:
        """Duals 0. ``sources`` (B, 2, H, W) in [-1, 1]."""
        check_batch("sources", sources)
        if sources.shape[1] != 2:
            raise problem("sources", f"{sources.shape[1]}", "two: Eq. 8 has i and v only")
        size = (sources.shape[-2], sources.shape[-1])
        return AdmmState(sources, torch.zeros_like(sources), laplacian_symbol(size, sources.device, sources.dtype))

    def step(self, x0: Tensor, state: AdmmState, snr: float) -> tuple[Tensor, AdmmState]:
        """One iteration from x0 (B, 1, H, W): z, f, duals."""
        threshold = x0.new_tensor([1.0, self.phi]).view(1, 2, 1, 1) / self.rho
        z = soft(x0 - state.sources + state.dual, threshold)
        f = self.solve_f(z, state)
        return f, dataclasses.replace(state, dual=state.dual + f - state.sources - z)

    def solve_f(self, z: Tensor, state: AdmmState) -> Tensor:
        """(2 rho + psi grad^T grad) f = rho sum_k (s_k + z_k - d_k) + psi grad^T grad v, by one real FFT pair."""
        pull = self.rho * (state.sources + z - state.dual).sum(1, keepdim=True)
        target = self.psi * state.symbol * to_spectrum(state.sources[:, 1:])
        size = (z.shape[-2], z.shape[-1])
        return from_spectrum((to_spectrum(pull) + target) / (2 * self.rho + self.psi * state.symbol), size)

    def objective(self, f: Tensor, state: AdmmState) -> Tensor:
        """The objective per image (B,)."""
        apart = (f - state.sources).abs().sum((2, 3))
        rough = to_spectrum(f - state.sources[:, 1:]).abs().square() * state.symbol
        half = rough.shape[-1]
        weight = torch.full((half,), 2.0, dtype=f.dtype, device=f.device)  # the spectrum's other half
        weight[0] = 1.0
        if f.shape[-1] % 2 == 0:
            weight[-1] = 1.0
        pixels = f.shape[-2] * f.shape[-1]
        return apart[:, 0] + self.phi * apart[:, 1] + self.psi / 2 * (rough * weight).sum((1, 2, 3)) / pixels


def soft(x: Tensor, threshold: Tensor) -> Tensor:
    """Soft thresholding, the proximal map of threshold |x|."""
    return x.sign() * (x.abs() - threshold).clamp(min=0)
