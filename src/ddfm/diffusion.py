"""The variance-preserving diffusion: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps.

symbol      shape           meaning
x_t         (B, C, H, W)    noisy image, unit-order values
abar        (B, 1, 1, 1)    cumulative product of alphas (paper, below Eq. 4), or a scalar
eps, v, x0  (B, C, H, W)    what a network may predict; v = sqrt(abar) eps - sqrt(1 - abar) x0
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ddfm._checks import check_choice, problem

__all__ = [
    "PREDICTION_TYPES",
    "add_noise",
    "alpha_bar",
    "call_network",
    "linear_betas",
    "snr",
    "to_x0",
]

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def linear_betas(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Linear schedule of Ho et al. 2020 (also ADM's): float64, shape (steps,)."""
    return torch.linspace(start, end, steps, dtype=torch.float64)


def alpha_bar(betas: Tensor) -> Tensor:
    """Cumulative product of 1 - beta, float64, shape (T,)."""
    return torch.cumprod(1 - betas.double(), 0)


def snr(abar: Tensor) -> Tensor:
    """Signal-to-noise ratio abar / (1 - abar), the inverse of r_t^2."""
    return abar / (1 - abar)


def add_noise(x0: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """Sample q(x_t | x_0) with the given unit noise."""
    return abar.sqrt() * x0 + (1 - abar).sqrt() * noise


def to_x0(output: Tensor, x_t: Tensor, abar: Tensor, prediction_type: str) -> Tensor:
    """Turn a network's prediction into x0 (Eq. 4 for eps; Salimans & Ho 2022 for v)."""
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    if prediction_type == "sample":
        return output
    a, s = abar.sqrt(), (1 - abar).sqrt()
    if prediction_type == "v_prediction":
        return a * x_t - s * output
    return (x_t - s * output) / a


def call_network(unet: torch.nn.Module, x: Tensor, t: Tensor | int, unshuffle: int = 1) -> Tensor:
    """Evaluate a UNet on (B, C, H, W), through a pixel-unshuffle by ``unshuffle`` if it is > 1.

    The rearrangement is orthogonal, so the noise stays white and the schedule is unchanged. A network
    with learned variance answers with twice the channels; the second half is dropped. DDFMError for NaN or infinity.
    """
    shuffled = F.pixel_unshuffle(x, unshuffle) if unshuffle > 1 else x
    output = unet(shuffled, t).sample[:, : shuffled.shape[1]]
    if not torch.is_grad_enabled() and not bool(output.isfinite().all()):  # training looks at its loss
        remedy = "Use --dtype float32; if it was, its weights are damaged."
        raise problem("prior", f"NaN or infinite values from its network in {output.dtype}", "finite ones", remedy)
    return F.pixel_shuffle(output, unshuffle) if unshuffle > 1 else output
