"""Luma and chroma: colour is split off before the fusion and given back after it.

Symbol -> shape -> meaning

- ``rgb``     (B, 3, H, W), in [0, 1]: R, G, B as stored (gamma-coded), no white point assumed
- ``Y``       (B, 1, H, W), in [0, 1]: luma, Y = 0.299 R + 0.587 G + 0.114 B
- ``c``       (B, 2, H, W), in [-0.5, 0.5]: Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402
- ``d(c)``    (B, 3, H, W): the colour difference rgb - Y; it is linear in c and has luma zero

Source: ITU-R BT.601-7, section 2.5, at full range (as JFIF; OpenCV's BGR2GRAY has the same weights).

A fused luma often leaves no room for the chroma it is given back with: near white and black the
gamut is narrow. ``merge`` then scales d by the largest s in [0, 1] with Y + s d in [0, 1]. Clipping
the channels instead would change luma and hue, and both show as coloured fringes along the edges
that the other modality brought in. Here luma and hue are kept, and s is a continuous function of
(Y, c): between neighbours the colour can change no faster than luma and chroma make it (a factor
of at most 1 / 0.114, the slope of the gamut itself at yellow and blue), so no new edge appears.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddfm._checks import check_batch, problem
from ddfm.filters import blur

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Plane", "grey_levels", "mean_chroma", "merge", "put_chroma", "split", "stack_chroma", "to_luma"]

_KR, _KG, _KB = 0.299, 0.587, 0.114
_CB, _CR = 2 * (1 - _KB), 2 * (1 - _KR)  # 1.772, 1.402: they put Cb and Cr in [-0.5, 0.5]
_FINE, _NEARBY, _AROUND = 2.0, 5.0, 10.0  # pixels: of detail, of where it counts, of brightness
_POWER = 6.0  # of a share of detail: how much the sharpest has the say
_NONE = 1e-3  # detail that is none, on [0, 1]: where no picture has more, all count alike
_BLACK = 0.05  # added to levels, so that the noise of black is no ratio
_EXPOSED = 0.2  # log of a ratio of levels; half a stop is 0.16, a stop 0.32
_REACH = 30  # rows beyond which nothing changes a chroma: three times the widest blur


def to_luma(rgb: Tensor) -> Tensor:
    """Return the BT.601 luma (B, 1, H, W) in [0, 1] of ``rgb`` (B, 3, H, W) in [0, 1].

    Raises DDFMError if ``rgb`` has another shape, is not finite or leaves [0, 1].
    """
    check_batch("rgb", rgb, channels=3)
    _check_unit("rgb", rgb)
    red, green, blue = rgb.split(1, dim=1)
    luma = _KR * red + _KG * green + _KB * blue
    return luma.clamp(0.0, 1.0)  # white must not become 1 + 1e-7


def grey_levels(image: Tensor) -> Tensor:
    """Whole grey levels 0..255, float64 (H, W), of an image (H, W) or (H, W, 3) in [0, 1]: what metrics are taken of.

    Colour is first put on 8 bits, then weighted in OpenCV's fixed point, (9798 R + 19235 G + 3735 B + 16384) >> 15, so
    that a table agrees with the field's evaluator to the last level. Halves of grey round to even.
    """
    levels = (image.double() * 255).round()
    if levels.ndim == 2:
        return levels
    weights = torch.tensor([9798.0, 19235.0, 3735.0], dtype=levels.dtype, device=levels.device)
    return (((levels * weights).sum(-1) + 16384) / 32768).floor()


def split(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Split ``rgb`` (B, 3, H, W) in [0, 1] into luma (B, 1, H, W) and chroma (B, 2, H, W).

    The chroma is (Cb, Cr), centred on 0, in [-0.5, 0.5]. Raises as :func:`to_luma`.
    """
    luma = to_luma(rgb)
    cb = (rgb[:, 2:3] - luma) / _CB
    cr = (rgb[:, 0:1] - luma) / _CR
    return luma, torch.cat([cb, cr], dim=1)


def merge(luma: Tensor, chroma: Tensor) -> Tensor:
    """Return ``rgb`` (B, 3, H, W) in [0, 1] with exactly this luma and, as far as it fits, this chroma.

    ``luma`` (B, 1, H, W) in [0, 1]; ``chroma`` (B, 2, H, W), finite. Inverse of :func:`split` where
    the colour is in gamut; elsewhere each pixel keeps its luma and hue and loses the least saturation
    that fits. Raises DDFMError if the luma leaves [0, 1], the shapes differ or a value is not finite.
    """
    check_batch("luma", luma, channels=1)
    check_batch("chroma", chroma, channels=2)
    _check_unit("luma", luma)
    if luma.shape[0] != chroma.shape[0] or luma.shape[2:] != chroma.shape[2:]:
        got = f"{tuple(chroma.shape)} beside a luma of {tuple(luma.shape)}"
        raise problem("chroma", got, "the same batch, height and width", "Split and merge one image.")
    difference = _difference(chroma)
    rgb = luma + _room(luma, difference) * difference
    return rgb.clamp(0.0, 1.0)  # rounding only: it moves a value by 1e-7 at most


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """One picture kept as its samples, floats made of a few rows at a time: a quarter of the memory for 8 bits.

    data: (H, W) grey or (H, W, 3) RGB, uint8, uint16 or float. scale: the sample that means 1.
    """

    data: np.ndarray
    scale: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.data.shape[0], self.data.shape[1]

    @property
    def is_color(self) -> bool:
        """True for RGB, False for grey."""
        return self.data.ndim == 3

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom`` - 1 as (1, 1 or 3, rows, W), float32 in [0, 1]."""
        part = torch.from_numpy(np.true_divide(self.data[top:bottom], self.scale, dtype=np.float32))
        return part.permute(2, 0, 1)[None] if self.is_color else part[None, None]

    def luma(self, top: int, bottom: int) -> Tensor:
        """The luma of these rows, (1, 1, rows, W) in [0, 1]."""
        rows = self.rows(top, bottom)
        return to_luma(rows) if self.is_color else rows


def put_chroma(luma: Tensor, planes: Sequence[Plane], rows: int = 256) -> np.ndarray:
    """Luma (1, 1, H, W) in [0, 1] with the chroma of coloured planes (``stack_chroma``), float32 (H, W, 3).

    Some rows at a time; how many changes nothing.
    """
    out = np.empty((*planes[0].size, 3), np.float32)
    reach = _REACH if len(planes) > 1 else 0
    for top in range(0, len(out), rows):
        bottom = min(top + rows, len(out))
        first, last = max(0, top - reach), min(bottom + reach, len(out))
        chroma = stack_chroma([plane.rows(first, last) for plane in planes])[..., top - first : bottom - first, :]
        out[top:bottom] = merge(luma[..., top:bottom, :], chroma)[0].permute(1, 2, 0).numpy()
    return out


def stack_chroma(pictures: Sequence[Tensor]) -> Tensor:
    """The chroma (B, 2, H, W) of several pictures (B, 3, H, W) in [0, 1] of one camera.

    Where they are equally bright, as in a focus stack, that of the sharp ones: by each one's share of the detail of
    luma and chroma, to a power. Where they are not, they are exposures, and it is ``mean_chroma``. In between, which is
    around half a stop, a part of each. A single one's comes back unchanged.
    """
    parts = [split(picture) for picture in pictures]
    chromas = [chroma for _, chroma in parts]
    if len(parts) == 1:
        return chromas[0]
    detail = torch.cat([_detail(torch.cat(part, 1)).sum(1, keepdim=True) for part in parts], 1)
    detail = detail / detail.amax(1, keepdim=True)  # before the power, or it would leave nothing of little detail
    share = detail**_POWER / (detail**_POWER).sum(1, keepdim=True)
    sharp = sum(share[:, k : k + 1] * chroma for k, chroma in enumerate(chromas))
    alike = _alike(torch.cat([luma for luma, _ in parts], 1))
    return alike * sharp + (1 - alike) * mean_chroma(chromas)


def _detail(planes: Tensor) -> Tensor:
    """How much of each plane (B, C, H, W) is finer than a blur, nearby; a little everywhere."""
    return blur((planes - blur(planes, _FINE)).abs(), _NEARBY) + _NONE


def _alike(lumas: Tensor) -> Tensor:
    """1 where lumas (B, K, H, W) are equally bright around, to 0 where they are exposed differently, (B, 1, H, W)."""
    level = blur(lumas, _AROUND) + _BLACK
    ratio = (level.amax(1, keepdim=True) / level.amin(1, keepdim=True)).log()
    return torch.exp(-((ratio / _EXPOSED) ** 4))


def mean_chroma(chromas: Sequence[Tensor]) -> Tensor:
    """Of chromas (B, 2, H, W), the mean weighted by each component's size: what is washed out says least.

    Prabhakar et al., DeepFuse, ICCV 2017, Eq. 4. A single one comes back unchanged.
    """
    if len(chromas) == 1:
        return chromas[0]
    stack = torch.stack(list(chromas))
    size = stack.abs()
    return (stack * size).sum(0) / size.sum(0).clamp(min=torch.finfo(size.dtype).tiny)


def _difference(chroma: Tensor) -> Tensor:
    """Return d = rgb - Y (B, 3, H, W) of (Cb, Cr); 0.299 d_R + 0.587 d_G + 0.114 d_B = 0."""
    cb, cr = chroma.split(1, dim=1)
    blue, red = _CB * cb, _CR * cr
    green = -(_KR * red + _KB * blue) / _KG
    return torch.cat([red, green, blue], dim=1)


def _room(luma: Tensor, difference: Tensor) -> Tensor:
    """Return the largest s in [0, 1] with luma + s difference in [0, 1], as (B, 1, H, W)."""
    space = torch.where(difference > 0, 1 - luma, luma)  # up to white or down to black
    size = difference.abs()
    fits = size <= space  # also where the difference is 0: no division there
    factor = torch.where(fits, 1.0, space / torch.where(fits, 1.0, size))
    return factor.amin(dim=1, keepdim=True)


def _check_unit(argument: str, value: Tensor) -> None:
    if value.numel() == 0:
        raise problem(argument, f"shape {tuple(value.shape)}", "at least one pixel")
    low, high = float(value.min()), float(value.max())
    if low < 0 or high > 1:
        remedy = "Map [-1, 1] by (x + 1) / 2, or clamp it."
        raise problem(argument, f"values in [{low:.7g}, {high:.7g}]", "values in [0, 1]", remedy)
