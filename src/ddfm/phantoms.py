"""A rendered head in three dimensions with known truth: the phantom of ``samples``, slice above slice.

The head is an ellipsoid: the section at height z, in half sizes of the head, is the phantom's slice scaled by
sqrt(1 - z^2). Folds and textures change smoothly with z, the lesion is an ellipsoid, sensor noise is drawn anew in each
slice. The same seed gives the same bytes on the same machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ddfm import _render as draw
from ddfm._checks import check_choice, problem
from ddfm._render import Array, Noise
from ddfm.samples import NOISE, anatomy, clean_slice, seen

__all__ = ["FIELD_MM", "PhantomVolume", "phantom_volume"]

FIELD_MM = 220.0  # width and height of a slice
TALL_MM = 95.0  # half the height of the head
LOW, HIGH = -0.7, 1.05  # heights of the first and the last slice, in half sizes of the head: the last ones are empty
LESION = 0.15  # height of its middle
CHANGE = 0.3  # height over which folds and textures become others


@dataclass(frozen=True, eq=False)
class PhantomVolume:
    """MRI beside CT, PET or SPECT. Pictures are float32 in [0, 1], slices first, from the neck upwards.

    functional, clean_functional: (K, H, W) CT, (K, H, W, 3) PET or SPECT in pseudo-colour, with and without noise.
    mri, clean_mri: (K, H, W). lesion: bool (K, H, W). spacing: millimetres between slices, rows and columns.
    """

    name: str
    functional: Array
    mri: Array
    clean_functional: Array
    clean_mri: Array
    lesion: Array
    spacing: tuple[float, float, float]


class _Layered:
    """Noise over (x, y) that changes smoothly with height: two layers of a field, mixed at constant contrast."""

    def __init__(self, field: Noise, height: float) -> None:
        layer = height / CHANGE
        self.field, self.first = field, math.floor(layer)
        angle = (layer - self.first) * math.pi / 2
        self.shares = np.float32(math.cos(angle)), np.float32(math.sin(angle))

    def __call__(self, x: Array, y: Array, octaves: int = 1) -> Array:
        """See ``Noise``."""
        total: Array = np.zeros(np.broadcast(x, y).shape, np.float32) + np.float32(0.5)
        for n, share in enumerate(self.shares, self.first):
            far = np.float32(37 * n % 251), np.float32(61 * n % 241)
            total = total + share * (self.field(x + far[0], y + far[1], octaves) - np.float32(0.5))
        return total.clip(0, 1)


def phantom_volume(shape: tuple[int, int, int] = (24, 128, 128), seed: int = 0, modality: str = "ct") -> PhantomVolume:
    """A head of ``shape`` = (slices, height, width), at least (2, 16, 16). Raises DDFMError."""
    if len(shape) != 3 or shape[0] < 2 or min(shape[1:]) < 16 or any(int(n) != n for n in shape):
        raise problem("shape", repr(shape), "(slices, height, width) of at least 2, 16 and 16")
    if int(seed) != seed or seed < 0:
        raise problem("seed", repr(seed), "a whole number, 0 or more")
    check_choice("modality", modality, ("ct", "pet", "spect"))
    rng, field = np.random.default_rng(seed), Noise(np.random.default_rng(seed))
    heights = np.linspace(LOW, HIGH, shape[0]).tolist()
    slices = [_slice(shape[1:], height, field, seed, modality, rng) for height in heights]
    functional, mri, clean_functional, clean_mri, lesion = (np.stack(planes) for planes in zip(*slices, strict=True))
    spacing = (TALL_MM * (HIGH - LOW) / (shape[0] - 1), FIELD_MM / shape[1], FIELD_MM / shape[2])
    return PhantomVolume(f"head-{modality}-{seed}", functional, mri, clean_functional, clean_mri, lesion, spacing)


def _slice(
    size: tuple[int, int], z: float, field: Noise, seed: int, modality: str, rng: np.random.Generator
) -> tuple[Array, ...]:
    """The functional picture, MRI, both without noise, and the lesion at height z."""
    scale = min(size) / 256
    section = math.sqrt(max(1 - z * z, 0))
    if section < 0.05:  # above the head
        dark, color = np.zeros(size, np.float32), () if modality == "ct" else (3,)
        return np.zeros(size + color, np.float32), dark, np.zeros(size + color, np.float32), dark, dark > 0
    rows, columns = (((np.arange(2 * n, dtype=np.float32) + 0.5) / n - 1) / np.float32(section) for n in size)
    x, y = np.broadcast_arrays(columns[None], -rows[:, None])
    noise = _Layered(field, z)
    tissue = anatomy(x, y, noise, np.random.default_rng(seed), 0.45 * (z - LESION))  # the same draws in each slice
    head = draw.shrink(tissue["head"]) > 0
    mri, clean = clean_slice(tissue, noise, x, y, modality)
    clean, functional = seen(clean, head, modality, scale, rng)
    mri, clean, functional = (np.clip(picture, 0, 1).astype(np.float32) for picture in (mri, clean, functional))
    noisy = draw.add_noise(mri, NOISE["mri"], rng) * head
    return functional, noisy, clean, mri, draw.shrink(tissue["lesion"]) >= 0.5
