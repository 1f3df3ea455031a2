"""Gradient, its adjoint, and the Fourier solve of (1 + grad^T grad) k = b: one operator, periodic borders.

symbol   shape              meaning
grad h   (B, 2, H, W)       forward differences: rows (axis 0), then columns (axis 1)
|K|^2    (H, W // 2 + 1)    symbol of grad^T grad in the real FFT, the paper's conj(fft(k_h)) fft(k_h) (Eq. 25)

The released code's kernel and its difference disagree in sign and at the last row and column; here
``grad(h)`` is exactly multiplication by the symbol, which tests hold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["adjoint", "from_spectrum", "grad", "grad_symbols", "laplacian_symbol", "to_spectrum"]


def grad(h: Tensor) -> Tensor:
    """Forward differences of (B, 1, H, W) with wrap-around: (B, 2, H, W), rows first."""
    return torch.cat([h.roll(-1, -2) - h, h.roll(-1, -1) - h], dim=1)


def adjoint(p: Tensor) -> Tensor:
    """grad^T: (B, 2, H, W) -> (B, 1, H, W), so that <grad h, p> = <h, adjoint(p)>."""
    rows, columns = p[:, :1], p[:, 1:]
    return rows.roll(1, -2) - rows + columns.roll(1, -1) - columns


def grad_symbols(
    size: tuple[int, int], device: torch.device | None = None, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """K_rows (H, 1) and K_columns (1, W // 2 + 1), complex: fft(grad h) = K fft(h)."""
    height, width = size
    rows = torch.fft.fftfreq(height, device=device, dtype=dtype)[:, None]
    columns = torch.fft.rfftfreq(width, device=device, dtype=dtype)[None]
    turn = 2j * math.pi
    return torch.exp(turn * rows) - 1, torch.exp(turn * columns) - 1


def laplacian_symbol(
    size: tuple[int, int], device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """|K|^2 = |K_rows|^2 + |K_columns|^2, real, (H, W // 2 + 1), values in [0, 8]."""
    wide = torch.float32 if device is not None and device.type == "mps" else torch.float64
    rows, columns = grad_symbols(size, device, wide)
    return (rows.abs().square() + columns.abs().square()).to(dtype)


def to_spectrum(h: Tensor) -> Tensor:
    """Real 2-D FFT over the last two axes."""
    return torch.fft.rfft2(h)


def from_spectrum(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`to_spectrum`; ``size`` = (H, W) because the spectrum cannot tell odd widths."""
    return torch.fft.irfft2(spectrum, s=size)
