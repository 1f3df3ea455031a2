"""The hierarchical Bayesian likelihood of DDFM, for K >= 2 sources, and one EM iteration of it.

symbol      shape              meaning (equation of the paper; docs/method.md derives the general form)
s_k         (B, K, H, W)       sources in [-1, 1]; the paper's i, v are k = 1, 2 (Eq. 8)
f           (B, 1, H, W)       estimate of the fused image; x = f - v in the paper
gamma_k     (B, K, 1, 1)       scale of source k, per image; the paper's gamma, rho (Eq. 12, 31)
a_k         (B, K, H, W)       scale maps, sum over k is K; 1 in the paper
W_k         (B, K, H, W)       E[1/m_k] of the E-step (Eq. 16, misprint corrected)
g           (B, 2, H, W)       texture target: psi/2 |grad f - g|^2; grad v in the paper (Eq. 13)
k, u        (B, 1|2, H, W)     splitting variables of the M-step (Eq. 22-27)
lambda_t    scalar             weight of the prior's x0; 0 in the paper
sigma_k     (1|B, K, 1, 1)     standard deviation of the source's noise, in units of [-1, 1]; 0 in the paper
r           scalar             reach: weight of u against k in the splitting; 1 in the paper

With K = 2, a = 1, g = grad v, lambda = 0, r = 1 this is the paper's likelihood, written for f instead of x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ddfm._checks import check_batch, check_range, problem
from ddfm._provenance import later
from ddfm.levels import ENDS, Overall, Scene, offsets, quantile, shift
from ddfm.noise import noisy_log_density, noisy_moments
from ddfm.operators import adjoint, from_spectrum, grad, laplacian_symbol, to_spectrum

__all__ = ["EPSILON", "FusionLikelihood", "FusionState", "Likelihood", "Sweep", "em_alone", "mixture"]

#: Guard of the E-step at f = s, in units of [-1, 1]: |d| becomes sqrt(d^2 + EPSILON^2). An eighth of an
#: 8-bit grey level, so that it cannot be seen; the released code adds the same 1e-6 to d^2.
EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class FusionState:
    """What one EM iteration hands to the next. Tensors; nothing in it is changed in place."""

    sources: Tensor  # (B, K, H, W)
    maps: Tensor  # (B, K, H, W) or (1, 1, 1, 1) when uniform
    gamma: Tensor  # (B, K, 1, 1)
    target: Tensor  # G = fft(grad^T g)                 (B, 1, H, W // 2 + 1), complex
    carried: Tensor  # U = fft(grad^T u)                (B, 1, H, W // 2 + 1), complex
    symbol: Tensor  # |K|^2                             (H, W // 2 + 1)
    sigma: Tensor | None = None  # (1 or B, K, 1, 1); None: no noise
    own: Scene | None = None  # levels, shift and scales of this image alone
    shared: tuple[Tensor, ...] = ()  # scales to take after each iteration in place of its own

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.sources.shape[-2], self.sources.shape[-1]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One EM iteration: what it made, and what it made that from."""

    before: Tensor  # f that it began with              (B, 1, H, W)
    weights: Tensor  # W                                (B, K, H, W)
    k: Tensor  #                                        (B, 1, H, W)
    f: Tensor  # the new estimate                       (B, 1, H, W)
    state: FusionState  # the new one


class Likelihood(Protocol):
    """What the sampler needs of a likelihood; write your own with these two.

    With a method start(state) -> (B, 1, H, W) EM without a prior begins there, else at the sources' mean.
    """

    def init(self, sources: Tensor) -> Any:
        """State before the first step, from sources (B, K, H, W) in [-1, 1]; of whatever kind ``step`` takes."""

    def step(self, x0: Tensor, state: Any, snr: float) -> tuple[Tensor, Any]:
        """Rectify x0 (B, 1, H, W); snr = abar_t / (1 - abar_t) of the sampling step."""


@dataclasses.dataclass(frozen=True)
class FusionLikelihood:
    """Frozen settings of the likelihood; the defaults are the paper's.

    psi, eta: weight of the texture term and of the splitting (Eq. 13, 23), both > 0 (psi = 0: no texture term).
    reach: k follows the texture target over some sqrt(reach) pixels and f beyond them, > 0; 1 is the paper's.
    sweeps: EM iterations per sampling step, >= 1.
    prior_weight: kappa in lambda_t = 2 kappa snr; 1 is the Bayesian value, 0 the paper's.
    scale_maps: (sources, overall) -> a (B, K, H, W), sum over k = K, see ``ddfm.saliency``; None is a = 1.
    texture: (sources, a) -> g (B, 2, H, W); None is the last source's gradient, the paper's g = grad v.
    level: the quantile of a source that is its ordinary brightness. align: how far the sources are brought to a common
    one before anything is compared, 0 (the paper) to 1; what then lies outside [-1, 1] is shifted back as a whole.
    noise: sigma_k in units of [-1, 1], one for each source; () is no noise.

    Raises DDFMError when a setting is out of range.
    """

    psi: float = 0.5
    eta: float = 0.1
    sweeps: int = 1
    prior_weight: float = 0.0
    scale_maps: Callable[[Tensor, Overall], Tensor] | None = None
    texture: Callable[[Tensor, Tensor], Tensor] | None = None
    reach: float = later(1.0)
    level: float = later(0.5)
    align: float = later(0.0)
    noise: tuple[float, ...] = later(())

    def __post_init__(self) -> None:
        check_range("psi", self.psi, 0, 1e6)
        check_range("eta", self.eta, 0, 1e6)
        check_range("sweeps", self.sweeps, 1, 10_000)
        check_range("prior_weight", self.prior_weight, 0, 1e6)
        check_range("reach", self.reach, 0, 1e4, open_low=True)
        check_range("level", self.level, 0, 1)
        check_range("align", self.align, 0, 1)
        for sigma in self.noise:
            check_range("noise", sigma, 0, 2)

    def init(self, sources: Tensor, guides: Tensor | None = None, scene: Scene | None = None) -> FusionState:
        """State before the first step: gamma = 1, u = 0. ``sources`` (B, K, H, W) in [-1, 1], K >= 2.

        guides: the sources with less noise, same shape, from which maps and texture target are taken. scene: levels,
        shift and scales to take in place of the image's own.
        """
        check_batch("sources", sources)
        if sources.shape[1] < 2:
            raise problem("sources", f"{sources.shape[1]} source", "two or more on axis 1")
        guides = sources if guides is None else guides
        own = Overall.of(guides, self.level)
        overall = scene.overall if scene else own
        maps = self.scale_maps(guides, overall) if self.scale_maps else sources.new_ones(1, 1, 1, 1)
        target = to_spectrum(adjoint(self.texture_target(guides, maps)))
        sources, moved = self._aligned(sources, maps, overall.level, scene)
        return FusionState(
            sources=sources,
            maps=maps,
            gamma=sources.new_ones(*sources.shape[:2], 1, 1),
            target=target,
            carried=torch.zeros_like(target),
            symbol=laplacian_symbol(tuple(sources.shape[-2:]), sources.device, sources.dtype),  # type: ignore[arg-type]
            sigma=self._sigma(sources),
            own=Scene(own, moved),
            shared=scene.gammas if scene else (),
        )

    def _aligned(self, sources: Tensor, maps: Tensor, levels: Tensor, scene: Scene | None) -> tuple[Tensor, Tensor]:
        """The sources at a common level, in [-1, 1] as far as their mixture goes; and the shift of their own."""
        if not self.align:
            return sources, sources.new_zeros(1, 1, 1, 1)
        sources = sources - offsets(levels, self.align)
        low, high = (quantile(mixture(sources, maps), q) for q in ENDS)
        own = shift(low, high)
        return sources + (scene.shift if scene else own), own

    def start(self, state: FusionState) -> Tensor:
        """Where EM without a prior begins, (B, 1, H, W): the sources' mean, each pixel weighed by its scale map."""
        return mixture(state.sources, state.maps)

    def _sigma(self, sources: Tensor) -> Tensor | None:
        """``noise`` as (1, K, 1, 1); None where no source has any."""
        if not any(self.noise):
            return None
        if len(self.noise) != sources.shape[1]:
            raise problem("noise", f"{len(self.noise)} values", f"{sources.shape[1]}, one for each source")
        return sources.new_tensor(self.noise).view(1, -1, 1, 1)

    def texture_target(self, sources: Tensor, maps: Tensor) -> Tensor:
        """g (B, 2, H, W)."""
        return self.texture(sources, maps) if self.texture else grad(sources[:, -1:])

    def step(self, x0: Tensor, state: FusionState, snr: float) -> tuple[Tensor, FusionState]:
        """``sweeps`` EM iterations from x0 (B, 1, H, W): the estimate f_hat (same shape) and the next state.

        As in Algorithm 1 the weights come from the old scales, then the scales are renewed (lines 8, 9).
        """
        f = x0
        for sweep in self.iterate(x0, state, snr):
            f, state = sweep.f, sweep.state
        return f, state

    def iterate(self, x0: Tensor, state: FusionState, snr: float) -> Iterator[Sweep]:
        """The EM iterations of ``step``, one by one."""
        f = x0
        lam = 2 * self.prior_weight * snr
        for _ in range(self.sweeps):
            sweep = self.sweep(f, x0, state, lam)
            yield sweep
            f, state = sweep.f, sweep.state

    def sweep(self, f: Tensor, x0: Tensor, state: FusionState, lam: float) -> Sweep:
        """One EM iteration from f, pulled to x0 with the weight lambda_t (lines 8 to 13)."""
        weights, gamma = self.e_step(f, state)
        state = self._rescaled(state, gamma)
        k, carried = self.solve_k(f, state)
        new = self.solve_f(weights, k, x0, lam, state)
        return Sweep(f, weights, k, new, dataclasses.replace(state, carried=carried))

    def _rescaled(self, state: FusionState, gamma: Tensor) -> FusionState:
        """With the scales of the scene where there are any for this iteration, else with ``gamma``, its own."""
        seen = (*state.own.gammas, gamma) if state.own else (gamma,)
        shared = state.shared[len(seen) - 1].expand_as(gamma) if len(seen) <= len(state.shared) else gamma
        own = dataclasses.replace(state.own, gammas=seen) if state.own else None
        return dataclasses.replace(state, gamma=shared, own=own)

    def e_step(self, f: Tensor, state: FusionState) -> tuple[Tensor, Tensor]:
        """Weights W (B, K, H, W) from the old scales, and the new scales (B, K, 1, 1)."""
        if state.sigma is None:
            weights = self.weights(f, state)
            return weights, self.scales(weights, state)
        square = (f - state.sources).square() + EPSILON**2
        weights, mean = noisy_moments(square, state.maps, state.gamma, state.sigma)
        return weights, mean.mean(dim=(-2, -1), keepdim=True)

    def weights(self, f: Tensor, state: FusionState) -> Tensor:
        """E-step: W = E[1/m] = sqrt(2 a / (gamma d^2)), d = f - s (Eq. 16 with its fraction turned)."""
        square = (f - state.sources).square() + EPSILON**2
        return (2 * state.maps / (state.gamma * square)).sqrt()

    def scales(self, weights: Tensor, state: FusionState) -> Tensor:
        """gamma <- mean over an image's pixels of E[m] = a / W + gamma / 2 (Eq. 31)."""
        return (state.maps / weights).mean(dim=(-2, -1), keepdim=True) + state.gamma / 2

    def solve_k(self, f: Tensor, state: FusionState) -> tuple[Tensor, Tensor]:
        """k of Eq. 25, and the new U = fft(grad^T u) of Eq. 27; two real FFTs in all."""
        pull = to_spectrum(f) + self.reach * (state.carried + state.target)
        k_hat = pull / (1 + self.reach * state.symbol)
        carried = self._shrink * (state.symbol * k_hat - state.target)
        return from_spectrum(k_hat, state.size), carried

    def solve_f(self, weights: Tensor, k: Tensor, x0: Tensor, lam: float, state: FusionState) -> Tensor:
        """f of Eq. 29-30 in f-space, with the prior's pull lambda_t."""
        pull = 2 * (weights * state.sources).sum(1, keepdim=True) + self._eta * k + lam * x0
        return pull / (2 * weights.sum(1, keepdim=True) + self._eta + lam)

    def objective(
        self,
        f: Tensor,
        k: Tensor,
        u: Tensor,
        weights: Tensor,
        state: FusionState,
        x0: Tensor | None = None,
        snr: float = 0.0,
    ) -> Tensor:
        """Eq. 23 at fixed weights, plus the prior's term, one value per image (B,): what the M-step lowers."""
        value = (weights * (f - state.sources).square()).sum((1, 2, 3)) + self._texture_term(f, k, u, state)
        if x0 is not None:
            value = value + self.prior_weight * snr * (f - x0).square().sum((1, 2, 3))
        return value

    def _texture_term(self, f: Tensor, k: Tensor, u: Tensor, state: FusionState) -> Tensor:
        """psi |u|^2 + eta / 2 (r |u - (grad k - g)|^2 + |k - f|^2) of Eq. 23, (B,)."""
        slope = grad(k) - self.texture_target(state.sources, state.maps)
        split = self.reach * (u - slope).square().sum((1, 2, 3)) + (k - f).square().sum((1, 2, 3))
        return self.psi * u.square().sum((1, 2, 3)) + self._eta / 2 * split

    def split_slope(self, k: Tensor, state: FusionState) -> Tensor:
        """u of Eq. 27 in space, (B, 2, H, W); the iteration itself carries its transform alone."""
        return self._shrink * (grad(k) - self.texture_target(state.sources, state.maps))

    def energy(self, f: Tensor, k: Tensor, u: Tensor, state: FusionState) -> Tensor:
        """-log p(sources | f) with m integrated out, plus the texture term as EM has it, one value per image (B,).

        Half of the objective bounds it from above, up to what does not depend on f, so sweep after sweep lowers it,
        scales included; without the prior's pull (docs/explain.md). d is guarded as in the E-step.
        """
        square = (f - state.sources).square() + EPSILON**2
        if state.sigma is None:
            surprise = (2 * state.maps * square / state.gamma).sqrt() - (state.maps / (2 * state.gamma)).log() / 2
        else:
            surprise = -noisy_log_density(square, state.maps, state.gamma, state.sigma)
        return surprise.sum((1, 2, 3)) + self._texture_term(f, k, u, state) / 2

    def residual(
        self,
        f: Tensor,
        k: Tensor,
        weights: Tensor,
        state: FusionState,
        x0: Tensor | None = None,
        snr: float = 0.0,
    ) -> Tensor:
        """RMS over pixels of f minus the minimiser of Eq. 28, per image (B,), in units of [-1, 1]; 0 at the optimum."""
        lam = 2 * self.prior_weight * snr if x0 is not None else 0.0
        best = self.solve_f(weights, k, f if x0 is None else x0, lam, state)
        return (f - best).square().mean((1, 2, 3)).sqrt()

    @property
    def _eta(self) -> float:
        """No texture term (psi = 0) means no splitting either: k = f would only damp the step."""
        return self.eta if self.psi > 0 else 0.0

    @property
    def _shrink(self) -> float:
        """c of u = c (grad k - g) (Eq. 27)."""
        coupling = self.eta * self.reach
        return coupling / (2 * self.psi + coupling) if self.psi > 0 else 0.0


def mixture(sources: Tensor, maps: Tensor) -> Tensor:
    """sum_k a_k s_k / K, (B, 1, H, W)."""
    return (maps * sources).mean(1, keepdim=True)


def em_alone(likelihood: Likelihood, sources: Tensor, sweeps: int) -> tuple[Tensor, Any]:
    """EM without the prior, ``sweeps`` steps from its start: f (B, 1, H, W) and the state reached.

    The ablation I of the paper's Table 2, and the starting point of a warm start.
    """
    state = likelihood.init(sources)
    start = getattr(likelihood, "start", None)
    f = start(state) if start else sources.mean(1, keepdim=True)
    for _ in range(sweeps):
        f, state = likelihood.step(f, state, 0.0)
    return f, state
