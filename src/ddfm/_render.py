"""Drawing primitives of the sample scenes: procedural noise, soft shapes, a street camera, a canvas.

World axes of the street, in metres: x right, y up from the road, z away from the camera.
All shapes are signed distances (negative inside), so one rule draws every soft edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
# reflectance (N, 3), own light (N, 3), heat (N,), texture (N,) of the pixels of one surface
Surface: TypeAlias = tuple[Array, Array, Array, Array]
Point: TypeAlias = tuple[float, float]

EYE = 1.7  # camera height above the road, metres
HALF_VIEW = 0.6  # x / z at the right image edge: a horizontal view of 62 degrees
TALL_VIEW = 0.9  # y / z between the lower and the upper image edge
HORIZON = 0.43  # height of the horizon as a share of the image, from the top

# Five columns by seven rows, one bit per cell, the highest bit at the left.
_GLYPHS = {
    "A": (0x0E, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "C": (0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E),
    "E": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F),
    "F": (0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x10),
    "H": (0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11),
    "L": (0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F),
    "O": (0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E),
    "T": (0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04),
}


class Noise:
    """Smooth value noise in [0, 1] over the plane, the same for the same generator state."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.table = rng.random((256, 256), dtype=np.float32)

    def cell(self, x: Array, y: Array) -> Array:
        """One random number in [0, 1) for each unit cell (x, y)."""
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        return self.table[row & 255, column & 255]

    def __call__(self, x: Array, y: Array, octaves: int = 1) -> Array:
        """Noise of unit wavelength at (x, y); each octave halves wavelength and amplitude."""
        total, weight = np.zeros(np.broadcast(x, y).shape, np.float32), 0.0
        for octave in range(octaves):
            scale, share = 2.0**octave, 0.5**octave
            total += share * self._single(x * scale + 17.3 * octave, y * scale + 5.7 * octave)
            weight += share
        return total / weight

    def _single(self, x: Array, y: Array) -> Array:
        left, top = np.floor(x), np.floor(y)
        u, v = x - left, y - top
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        c, r = left.astype(np.int64) & 255, top.astype(np.int64) & 255
        flat, c1, r0, r1 = self.table.ravel(), (c + 1) & 255, r << 8, ((r + 1) & 255) << 8
        upper, lower = flat.take(r0 + c), flat.take(r1 + c)
        upper += (flat.take(r0 + c1) - upper) * u
        lower += (flat.take(r1 + c1) - lower) * u
        return upper + (lower - upper) * v


def blur(image: Array, *sigmas: float) -> Array:
    """Mean of the Gaussian blurs of (H, W) or (H, W, C) by ``sigmas`` pixels; the border is continued."""
    if image.ndim == 3:
        return np.stack([blur(image[..., k], *sigmas) for k in range(image.shape[2])], axis=-1)
    pad = int(np.ceil(3 * max(sigmas)))
    wide = np.pad(image, pad, mode="edge")
    rows, columns = np.fft.fftfreq(wide.shape[0])[:, None], np.fft.rfftfreq(wide.shape[1])[None]
    square = (2 * np.pi**2 * (rows**2 + columns**2)).astype(np.float32)
    gain = sum(np.exp(-(sigma**2) * square) for sigma in sigmas) / np.float32(len(sigmas))
    out = np.fft.irfft2(np.fft.rfft2(wide) * gain, wide.shape)
    return out[pad : pad + image.shape[0], pad : pad + image.shape[1]].astype(np.float32)


def shrink(image: Array) -> Array:
    """Average each 2 x 2 block: (2H, 2W, ...) -> (H, W, ...)."""
    return 0.25 * (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2])


def add_noise(clean: Array, std: float, rng: np.random.Generator) -> Array:
    """``clean`` plus white Gaussian noise of ``std``, clipped to [0, 1], float32."""
    noise = std * rng.standard_normal(clean.shape, dtype=np.float32)
    return np.clip(clean + noise, 0, 1).astype(np.float32)


def rgb(red: float, green: float, blue: float) -> Array:
    """A linear colour, float32 (3,)."""
    return np.array((red, green, blue), np.float32)


def fade(value: Array, low: float, high: float) -> Array:
    """Smooth step from 0 at ``low`` to 1 at ``high`` (falling where high < low)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def capsule(x: Array, y: Array, a: Point, b: Point, radius: float, end: float | None = None) -> Array:
    """Signed distance to the segment a-b, thickened by ``radius`` at a and ``end`` at b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
    tip = radius if end is None else end
    return np.hypot(x - a[0] - t * dx, y - a[1] - t * dy) - (radius + t * (tip - radius))


def box(x: Array, y: Array, centre: Point, half: Point, corner: float = 0.0) -> Array:
    """Signed distance to an upright box of half widths ``half`` with rounded corners."""
    across, up = np.abs(x - centre[0]) - half[0] + corner, np.abs(y - centre[1]) - half[1] + corner
    outside = np.hypot(np.maximum(across, 0), np.maximum(up, 0))
    return outside + np.minimum(np.maximum(across, up), 0) - corner


def letters(word: str, u: Array, v: Array) -> Array:
    """Coverage in [0, 1] of ``word`` over u, v in [0, 1] (v from the top); soft cell edges."""
    bits = np.zeros((9, 7 * len(word) + 1), np.float32)
    for k, letter in enumerate(word):
        for row, code in enumerate(_GLYPHS[letter]):
            bits[row + 1, 7 * k + 1 : 7 * k + 6] = [(code >> (4 - i)) & 1 for i in range(5)]
    x = np.clip(u, 0, 0.9999) * bits.shape[1] - 0.5
    y = np.clip(v, 0, 0.9999) * bits.shape[0] - 0.5
    c, r = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    c1, r1 = np.minimum(c + 1, bits.shape[1] - 1), np.minimum(r + 1, bits.shape[0] - 1)
    c0, r0, fx, fy = np.maximum(c, 0), np.maximum(r, 0), x - c, y - r
    soft = (bits[r0, c0] * (1 - fx) + bits[r0, c1] * fx) * (1 - fy)
    return fade(soft + (bits[r1, c0] * (1 - fx) + bits[r1, c1] * fx) * fy, 0.35, 0.65)


def layers(*coats: tuple[Array, Array | float]) -> Array:
    """Lay values over each other, each with its coverage; the first lies on black."""
    image = np.zeros_like(coats[0][0])
    for cover, value in coats:
        image = image + cover * (value - image)
    return image


def hot(value: Array) -> Array:
    """Black, red, yellow, white: three clipped ramps, (H, W) in [0, 1] -> (H, W, 3); 0 stays black."""
    return np.stack(
        [np.clip(2.6 * value, 0, 1), np.clip(2.6 * value - 0.9, 0, 1), np.clip(4 * value - 3, 0, 1)], axis=-1
    )


@dataclass(frozen=True)
class Lamp:
    """A light at (x, y, z) metres of linear RGB ``power``; it shines mostly downwards."""

    place: tuple[float, float, float]
    power: tuple[float, float, float]

    def reach(self, x: Array, y: Array, z: Array, normal: tuple[float, float, float]) -> Array:
        """Light received (..., 3) at points (x, y, z) of a surface with unit ``normal``."""
        dx, dy, dz = self.place[0] - x, self.place[1] - y, self.place[2] - z
        square = dx * dx + dy * dy + dz * dz + 0.2
        length = np.sqrt(square)
        facing = np.clip((normal[0] * dx + normal[1] * dy + normal[2] * dz) / length, 0.12, 1)
        below = np.clip(dy / length, 0.03, 1)
        return (facing * below * below / square)[..., None] * rgb(*self.power)


def gloss(x: Array, z: Array, lamps: list[Lamp]) -> Array:
    """Streaks that the lamps draw on a damp road: each below its lamp, from its foot to the camera."""
    total = np.zeros((*x.shape, 3), np.float32)
    for lamp in lamps:
        across, _, far = lamp.place
        streak = np.exp(-((((x / z) - across / far) / 0.016) ** 2)) * fade(z, far, 0.5 * far) * fade(z, 3.5, 9.0)
        total += streak[:, None] * (0.11 * rgb(*lamp.power) / max(lamp.power))
    return total


class Canvas:
    """Both cameras' view of the street at twice the final resolution, painted far to near.

    light (2H, 2W, 3): linear radiance for the visible camera, 1 is a well lit white wall.
    heat (2H, 2W): thermal grey in [0, 1]. target, texture (2H, 2W): coverage of the two masks.
    """

    def __init__(self, height: int, width: int, half_view: float = HALF_VIEW) -> None:
        self.shape = (2 * height, 2 * width)
        self.half_view = half_view  # x / z at the right edge
        self.light = np.zeros((*self.shape, 3), np.float32)
        self.heat, self.target, self.texture = (np.zeros(self.shape, np.float32) for _ in range(3))

    def expose(self) -> tuple[Array, Array, Array]:
        """Lens and sensor response without noise: thermal (H, W), visible (H, W, 3), texture mask."""
        scale = self.shape[0] / 960
        infrared = blur(shrink(self.heat), 0.9 * scale)
        light = shrink(np.minimum(self.light, 8))
        flare = np.maximum(0.10 * blur(light, 2.5 * scale, 9 * scale, 30 * scale), 0)  # FFTs fall short of 0
        # Black level and white level leave room for the noise, so that clipping does not bias it.
        tone = (1 - np.exp(-2.2 * (0.9 * light + flare))) ** (1 / 1.8)
        inner = blur(shrink(self.texture), 1.6 * scale) > 0.97
        return np.clip(infrared, 0.04, 0.96), (0.04 + 0.92 * tone).astype(np.float32), inner

    def rays(self) -> tuple[Array, Array]:
        """Slopes x / z of the columns (1, 2W) and (y - EYE) / z of the rows (2H, 1)."""
        rows, columns = self.shape
        across = ((np.arange(columns, dtype=np.float32) + 0.5) / columns * 2 - 1) * self.half_view
        up = (HORIZON - (np.arange(rows, dtype=np.float32) + 0.5) / rows) * TALL_VIEW
        return across[None], up[:, None]

    def patch(self, x: float, z: float, half: float, top: float, bottom: float = -0.2) -> Patch:
        """The upright rectangle x +- half, bottom..top at depth z."""
        rows, columns = self.shape
        left, right = (columns * (0.5 + side / (2 * z * self.half_view)) for side in (x - half, x + half))
        upper, lower = (rows * (HORIZON - (y - EYE) / (z * TALL_VIEW)) for y in (top, bottom))
        window = (
            slice(max(int(upper), 0), max(int(lower) + 1, 0)),
            slice(max(int(left), 0), max(int(right) + 1, 0)),
        )
        across, up = self.rays()
        return Patch(self, window, across[:, window[1]] * z - x, EYE + up[window[0]] * z, x, z)


@dataclass(frozen=True)
class Patch:
    """A part of the canvas with its own metres: x (1, w) from the figure's middle, y (h, 1) from the road."""

    canvas: Canvas
    window: tuple[slice, slice]
    x: Array
    y: Array
    place: float
    z: float

    def paint(self, distance: Array, light: Array, heat: Any, target: float = 0, texture: float = 0) -> None:
        """Cover the inside of a signed distance with ``light`` (h, w, 3) or (3,) and ``heat``."""
        pixel = TALL_VIEW * self.z / self.canvas.shape[0]
        self.cover(np.clip(0.5 - distance / pixel, 0, 1), light, heat, target, texture)

    def cover(self, alpha: Array, light: Array, heat: Any, target: float = 0, texture: float = 0) -> None:
        """Blend over the canvas with opacity ``alpha`` (h, w)."""
        canvas, window = self.canvas, self.window
        canvas.light[window] += alpha[..., None] * (light - canvas.light[window])
        canvas.heat[window] += alpha * (heat - canvas.heat[window])
        canvas.target[window] += alpha * (target - canvas.target[window])
        canvas.texture[window] += alpha * (texture - canvas.texture[window])

    def shine(self, strength: Array, colour: tuple[float, float, float]) -> None:
        """Add light of ``colour`` in front of what is there (haze, glare)."""
        self.canvas.light[self.window] += strength[..., None] * rgb(*colour)

    def lit(self, lamps: list[Lamp]) -> Array:
        """Light (h, w, 3) received by a figure that faces the camera."""
        x, y = np.broadcast_arrays(self.x + self.place, self.y)
        z, normal = np.full_like(x, self.z), (0.0, 0.3, -0.954)
        return sum((lamp.reach(x, y, z, normal) for lamp in lamps), rgb(0.08, 0.08, 0.08))


def person(canvas: Canvas, lamps: list[Lamp], noise: Noise, x: float, z: float, stride: float) -> None:
    """A walker in dark clothes, 1.75 m, seen from the front; ``stride`` in [-1, 1] is the phase."""
    patch = canvas.patch(x, z, 0.6, 1.95)
    cloth = noise((patch.x + x) * 7, patch.y * 7, 2) - 0.5
    light, knee, foot = patch.lit(lamps), 0.05 * stride, 0.10 * stride
    parts = [  # from, to, radii, heat, reflectance
        ((-0.09, 0.92), (-0.10 - knee, 0.50), 0.095, 0.070, 0.74, 0.09),
        ((-0.10 - knee, 0.50), (-0.10 - foot, 0.07 + max(foot, 0)), 0.068, 0.045, 0.70, 0.09),
        ((0.09, 0.92), (0.10 - knee, 0.50), 0.095, 0.070, 0.74, 0.09),
        ((0.10 - knee, 0.50), (0.10 - foot, 0.07 + max(-foot, 0)), 0.068, 0.045, 0.70, 0.09),
        ((-0.10 - foot, 0.04 + max(foot, 0)), (-0.15 - foot, 0.03 + max(foot, 0)), 0.045, 0.04, 0.46, 0.09),
        ((0.10 - foot, 0.04 + max(-foot, 0)), (0.15 - foot, 0.03 + max(-foot, 0)), 0.045, 0.04, 0.46, 0.09),
        ((-0.21, 1.40), (-0.27, 1.13), 0.062, 0.055, 0.60, 0.09),
        ((-0.27, 1.13), (-0.25 + foot, 0.90), 0.052, 0.040, 0.62, 0.09),
        ((0.21, 1.40), (0.27, 1.13), 0.062, 0.055, 0.60, 0.09),
        ((0.27, 1.13), (0.25 + foot, 0.90), 0.052, 0.040, 0.62, 0.09),
        ((-0.25 + foot, 0.87), (-0.24 + foot, 0.83), 0.042, 0.035, 0.92, 0.10),
        ((0.25 + foot, 0.87), (0.24 + foot, 0.83), 0.042, 0.035, 0.92, 0.10),
        ((-0.11, 1.36), (-0.06, 0.98), 0.130, 0.115, 0.64, 0.09),
        ((0.11, 1.36), (0.06, 0.98), 0.130, 0.115, 0.66, 0.09),
        ((0.0, 1.42), (0.0, 1.54), 0.070, 0.055, 0.88, 0.08),
        ((0.0, 1.60), (0.0, 1.68), 0.085, 0.092, 0.95, 0.10),
        ((0.0, 1.71), (0.0, 1.73), 0.082, 0.075, 0.66, 0.02),
    ]
    for start, end, first, last, heat, reflectance in parts:
        _limb(patch, start, end, (first, last), heat * (1 + 0.22 * cloth), reflectance * light)


def _limb(patch: Patch, a: Point, b: Point, radii: Point, heat: Array, light: Array) -> None:
    """A warm rounded limb, cooler towards its outline as cloth seen at a slant is."""
    inside = capsule(patch.x, patch.y, a, b, *radii)
    roundness = np.sqrt(np.clip(-inside / max(radii), 0.0, 1))
    patch.paint(inside, light, heat * (0.82 + 0.20 * roundness), target=1)


def cyclist(canvas: Canvas, lamps: list[Lamp], noise: Noise, x: float, z: float) -> None:
    """A cyclist riding across the street to the right; the wheels stay cool."""
    patch = canvas.patch(x, z, 1.1, 1.95)
    light = patch.lit(lamps)
    for hub in (-0.53, 0.53):
        rim = np.abs(np.hypot(patch.x - hub, patch.y - 0.35) - 0.33) - 0.022
        patch.paint(rim, 0.04 * light, 0.36)
    seat, crank, head, rear = (-0.2, 0.9), (-0.05, 0.33), (0.36, 0.88), (-0.53, 0.35)
    bars = [(rear, seat), (seat, head), (crank, head), (rear, crank), (seat, crank), (head, (0.53, 0.35))]
    for a, b in bars:
        patch.paint(capsule(patch.x, patch.y, a, b, 0.02), 0.10 * light, 0.24)
    cloth = 1 + 0.22 * (noise((patch.x + x) * 7, patch.y * 7, 2) - 0.5)
    limbs = [
        ((-0.2, 0.98), (0.12, 0.75), 0.09, 0.07, 0.72),
        ((0.12, 0.75), (-0.02, 0.26), 0.065, 0.045, 0.70),
        ((-0.02, 0.24), (0.1, 0.22), 0.04, 0.035, 0.46),
        ((-0.2, 1.0), (0.12, 1.42), 0.13, 0.14, 0.66),
        ((0.14, 1.4), (0.2, 1.12), 0.055, 0.05, 0.60),
        ((0.2, 1.12), (0.42, 0.98), 0.048, 0.04, 0.74),
        ((0.22, 1.58), (0.25, 1.66), 0.08, 0.09, 0.95),
    ]
    for a, b, first, last, heat in limbs:
        _limb(patch, a, b, (first, last), heat * cloth, 0.09 * light)
    patch.paint(capsule(patch.x, patch.y, (-0.62, 0.72), (-0.6, 0.74), 0.03), rgb(1.6, 0.04, 0.03), 0.3)


def car(canvas: Canvas, lamps: list[Lamp], x: float, z: float, paint: Array, oncoming: bool) -> None:
    """A car from behind (tail lights, hot exhaust) or from the front (head lights, warm bonnet)."""
    patch = canvas.patch(x, z, 2.6 if oncoming else 1.3, 2.3 if oncoming else 1.6)
    u, v, light = np.abs(patch.x), patch.y, patch.lit(lamps) + 0.02
    patch.cover(0.75 * np.exp(-((patch.x / 0.95) ** 4) - ((v - 0.05) / 0.18) ** 2), rgb(0, 0, 0), 0.42)
    patch.paint(box(u, v, (0.69, 0.25), (0.12, 0.27), 0.05), 0.02 * light, 0.66 - 0.25 * np.clip(v, 0, 1))
    cabin = np.maximum(u - (0.74 - 0.42 * (v - 0.95)), np.maximum(v - 1.43, 0.8 - v))
    patch.paint(cabin - 0.02, paint * light, 0.16)
    glass = np.maximum(u - (0.68 - 0.42 * (v - 0.95)), np.maximum(v - 1.34, 0.98 - v))
    patch.paint(glass, 0.03 * light + 0.004, 0.22 + 0.05 * fade(v, 1.34, 0.98))
    warm = 0.62 + 0.22 * np.exp(-((patch.x / 0.6) ** 2)) if oncoming else 0.13 + 0.24 * fade(v, 0.7, 0.2)
    body = box(patch.x, v, (0, 0.62), (0.88, 0.36), 0.13)
    patch.paint(body, paint * light * (0.45 + 0.55 * fade(v, 0.3, 0.9))[..., None], warm)
    patch.paint(box(patch.x, v, (0, 0.36), (0.8, 0.045), 0.03), 0.02 * light, 0.9 if oncoming else 0.34)
    patch.paint(box(patch.x, v, (0, 0.55), (0.26, 0.06), 0.01), 0.5 * light + 0.02, 0.24)
    if oncoming:
        glare = np.hypot(u - 0.66, v - 0.66)
        patch.paint(glare - 0.10, rgb(7.0, 6.6, 5.6), 0.72)
        patch.shine(0.05 / (0.12 + glare) ** 2 * fade(glare, 1.5, 0.2), (0.30, 0.28, 0.24))
        return
    patch.paint(box(u, v, (0.70, 0.78), (0.14, 0.06), 0.03), rgb(2.6, 0.05, 0.03), 0.26)
    patch.paint(box(patch.x, v, (0, 1.30), (0.2, 0.015), 0.01), rgb(1.4, 0.03, 0.02), 0.24)
    plume = np.exp(-(((patch.x - 0.42) / 0.24) ** 2) - ((v - 0.2) / 0.13) ** 2)
    patch.cover(0.7 * plume, patch.canvas.light[patch.window], 0.85)
    patch.paint(capsule(patch.x, v, (0.40, 0.22), (0.46, 0.22), 0.055), 0.05 * light, 0.97)


def tree(canvas: Canvas, lamps: list[Lamp], noise: Noise, x: float, z: float, height: float) -> None:
    """A street tree: bark and twigs slightly warm, leaves at the air's temperature."""
    patch = canvas.patch(x, z, 0.42 * height, 1.12 * height)
    light, crown = patch.lit(lamps), 0.72 * height
    bark = 0.6 + 0.8 * noise((patch.x + x) * 14, patch.y * 2.5)
    limbs = [
        ((0.0, -0.1), (0.05, 0.5 * height), 0.17, 0.12),
        ((0.05, 0.45 * height), (-0.9, crown), 0.09, 0.03),
        ((0.05, 0.48 * height), (0.8, 0.9 * height), 0.08, 0.03),
    ]
    for a, b, first, last in limbs:
        inside = capsule(patch.x, patch.y, a, b, first, last)
        patch.paint(inside, 0.12 * bark[..., None] * light, 0.24 + 0.05 * bark)
    ring = np.hypot(patch.x / (0.36 * height), (patch.y - crown) / (0.33 * height))
    shape = 1.15 - ring + 1.3 * (noise((patch.x + x) * 1.6, patch.y * 1.6, 3) - 0.5)
    leaves = noise((patch.x + x) * 6.5, patch.y * 6.5 + 31, 3)
    alpha = fade(shape + 0.9 * (leaves - 0.5), 0.2, 0.42)
    green = rgb(0.085, 0.13, 0.045) * (0.1 + 2.2 * np.clip(leaves - 0.25, 0, 1))[..., None]
    patch.cover(alpha, green * light, 0.10 + 0.09 * leaves)


def lamp_post(canvas: Canvas, lamp: Lamp) -> None:
    """A street lamp: pole at the kerb, arm over the road, a shining head and its cone of haze."""
    x, height, z = lamp.place
    patch = canvas.patch(x, z, 3.2, height + 1.2)
    root, glow = float(np.sign(x)) * 0.75, rgb(*lamp.power)
    grey = 0.004 + 0.05 * patch.lit([lamp]) * 0.4
    patch.paint(capsule(patch.x, patch.y, (root, 0), (root, height - 0.1), 0.09, 0.05), grey, 0.17)
    patch.paint(capsule(patch.x, patch.y, (root, height - 0.1), (0.1, height + 0.15), 0.045), grey, 0.17)
    patch.paint(box(patch.x, patch.y, (0, height + 0.12), (0.34, 0.09), 0.06), 0.6 * grey, 0.66)
    patch.paint(capsule(patch.x, patch.y, (-0.24, height), (0.24, height), 0.075), 6 * glow / glow.max(), 0.84)
    drop = height - patch.y
    cone = fade(np.abs(patch.x) / (0.25 + 0.5 * np.maximum(drop, 0)), 1.0, 0.25)
    haze = cone * fade(drop, 0, 0.3) * fade(drop, height, 0.2 * height) / (0.8 + np.maximum(drop, 0))
    patch.shine(0.09 * haze, tuple(glow / glow.max()))
