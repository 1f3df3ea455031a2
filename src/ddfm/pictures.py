"""An opened picture to what the pipeline takes, and the fused luma back to a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddfm import color
from ddfm.io import Image

__all__ = ["as_batch", "pair_seed", "put_color", "stretch", "stretch_ends", "stretch_to", "to_luma", "to_plane"]


def as_batch(image: Image) -> Tensor:
    """(1, 1, H, W) or (1, 3, H, W) in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(image.data))
    return tensor.permute(2, 0, 1)[None] if image.is_color else tensor[None, None]


def to_luma(image: Image) -> Tensor:
    """(1, 1, H, W) in [0, 1]."""
    batch = as_batch(image)
    return color.to_luma(batch).clamp(0, 1) if image.is_color else batch


def to_plane(image: Image) -> color.Plane:
    """The samples of an image: integers where they give exactly its floats, as those of 8- and 16-bit files do."""
    scale = 2**image.bit_depth - 1
    levels = np.empty(image.data.shape, f"uint{image.bit_depth}")
    for top in range(0, len(levels), 256):
        part = image.data[top : top + 256]
        levels[top : top + 256] = np.rint(part * scale)
        if not np.array_equal(np.true_divide(levels[top : top + 256], scale, dtype=np.float32), part):
            return color.Plane(image.data)
    return color.Plane(levels, scale)


def pair_seed(sources: Sequence[Tensor | color.Plane], seed: int) -> int:
    """Seed from what the sources show, so that name, folder, order and restart change nothing."""
    digest = hashlib.sha256(str(seed).encode())
    for source in sources:
        plane = source if isinstance(source, color.Plane) else color.Plane(source[0, 0].numpy())
        height, width = plane.size
        digest.update(str((1, 1, height, width)).encode())
        for top in range(0, height, 256):
            digest.update(plane.luma(top, min(top + 256, height)).numpy().data)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def stretch(luma: Tensor, tone: str) -> Tensor:
    """Tone of (1, 1, H, W), which may reach beyond [0, 1], into [0, 1]; a constant image is only clipped."""
    return stretch_to(luma, stretch_ends(luma, tone))


def stretch_ends(luma: Tensor, tone: str) -> tuple[float, float]:
    """The values that a stretch makes black and white."""
    if tone == "none":
        return 0.0, 1.0
    # numpy's quantile: torch's refuses more than 16 million values
    low, high = np.quantile(luma.numpy(), (0.0, 1.0) if tone == "minmax" else (0.005, 0.995))
    return float(low), float(high)


def stretch_to(luma: Tensor, ends: tuple[float, float]) -> Tensor:
    """``ends`` to 0 and 1, clipped; equal ends only clip."""
    low, high = ends
    return ((luma - low) / (high - low)).clamp(0, 1) if (low, high) != (0, 1) and high > low else luma.clamp(0, 1)


def put_color(luma: Tensor, planes: Sequence[color.Plane], which: str = "last") -> np.ndarray:
    """The fused luma with the chroma of the coloured source; of several the "last", or ``stack_chroma`` of "all"."""
    colored = [plane for plane in planes if plane.is_color]
    if not colored:
        return luma[0, 0].numpy()
    return color.put_chroma(luma, colored if which == "all" else colored[-1:])
