"""A network over a large image, tile by tile: smooth weights that sum to 1, memory bounded by the tile.

symbol    shape            meaning
x         (B, C, H, W)     input; H and W multiples of the network's stride, as tile and overlap are
w         (h,), (v,)       weights of a tile along each axis: 0 in the outer halo, then a raised cosine, 1 inside

Where two tiles overlap their weights sum to 1. The halo, a quarter of the overlap on each side that has a neighbour, is
what a tile sees without answering for it: a network whose answer depends on no more than the halo gives exactly what
it gives on the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddfm._checks import problem

__all__ = ["starts", "tiled", "weights"]


def tiled(fn: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, stride: int = 1) -> Tensor:
    """``fn`` (B, C, h, w) -> (B, C', h, w) over ``x`` in tiles of at most ``tile`` pixels a side.

    ``overlap``: pixels that neighbours share at least; ``stride``: tiles begin at multiples of it. Raises DDFMError if
    tile, overlap and stride do not fit each other.
    """
    check_tile(tile, overlap, stride)
    if any(length % stride for length in x.shape[-2:]):
        raise problem("x", f"{tuple(x.shape[-2:])} pixels", f"multiples of {stride}")
    rows, columns = (starts(length, tile, overlap, stride) for length in x.shape[-2:])
    height, width = (min(tile, length) for length in x.shape[-2:])
    if len(rows) == len(columns) == 1:
        return fn(x)
    w_rows = weights(rows, height, overlap, x.shape[-2])
    w_columns = weights(columns, width, overlap, x.shape[-1])
    out: Tensor | None = None
    for top, v in zip(rows, w_rows, strict=True):
        for left, h in zip(columns, w_columns, strict=True):
            part = fn(x[..., top : top + height, left : left + width])
            w = v[:, None] * h
            if out is None:
                out = part.new_zeros(*part.shape[:2], *x.shape[-2:])
            out[..., top : top + height, left : left + width] += part * w.to(part)
    assert out is not None
    return out


def check_tile(tile: int, overlap: int, stride: int) -> None:
    """Raise unless tile and overlap are multiples of the stride and more than half of a tile is its own."""
    if tile % stride or overlap % stride or not 0 < overlap <= tile // 2:
        expected = f"multiples of {stride}, the overlap at most half of the tile"
        raise problem("tile", f"{tile} with an overlap of {overlap}", expected)


def starts(length: int, tile: int, overlap: int, stride: int = 1) -> list[int]:
    """Where tiles begin along an axis: the first at 0, the last flush with the end, neighbours sharing >= overlap."""
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    last = length - tile
    return [round(last * k / (count - 1) / stride) * stride for k in range(count)]


def weights(begins: list[int], tile: int, overlap: int, length: int) -> list[Tensor]:
    """Weights (tile,) of every tile along an axis; at each pixel they sum to 1."""
    raw = []
    for n in range(len(begins)):
        w = torch.ones(tile, dtype=torch.float64)
        if n > 0:
            w[:overlap] = ramp(overlap)
        if n < len(begins) - 1:
            w[tile - overlap :] *= ramp(overlap).flip(0)
        raw.append(w)
    total = torch.zeros(length, dtype=torch.float64)
    for begin, w in zip(begins, raw, strict=True):
        total[begin : begin + tile] += w
    return [w / total[begin : begin + tile] for begin, w in zip(begins, raw, strict=True)]


def ramp(overlap: int) -> Tensor:
    """From 0 to 1 over ``overlap`` pixels: flat in the outer quarters, a raised cosine between."""
    halo = overlap // 4
    place = (torch.arange(overlap, dtype=torch.float64) - halo + 0.5) / (overlap - 2 * halo)
    return 0.5 - 0.5 * torch.cos(math.pi * place.clamp(0, 1))
