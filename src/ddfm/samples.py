"""The project's own sample pairs with known truth, drawn here and free of any data set.

``street`` shows a night street to a thermal and to a visible camera; ``phantom`` shows a brain
slice to MRI and to CT, PET or SPECT. Each pair is complementary by construction: what is hot is
dim in the other source, and fine texture is in one source only. The same seed gives the same
bytes on the same machine. Sensor noise is white and Gaussian with the standard deviations in
``NOISE``, in grey levels of [0, 1], added last and only inside the head. PET and SPECT are grainy instead:
their noise is that share of the uptake at full uptake, falls with its square root as counts do, and enters
before the colours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from ddfm import _render as draw
from ddfm._checks import check_choice, problem
from ddfm._render import Array, Canvas, Lamp, Noise, Surface, fade, rgb

__all__ = ["NOISE", "Sample", "phantom", "street"]

Texture: TypeAlias = Callable[..., Array]  # (x, y, octaves) -> [0, 1]
SPREAD = {"pet": 2.8, "spect": 4.5}  # standard deviation of what the scanner blurs, in pixels of a slice of 256
NOISE = {"infrared": 0.010, "visible": 0.010, "mri": 0.012, "ct": 0.012, "pet": 0.02, "spect": 0.03}
LEFT, RIGHT, END = -6.5, 6.0, 46.0  # walls and end of the street, metres
SHOP = (10.3, 15.6)  # the lit shop on the right wall, metres from the camera
MORTAR = rgb(0.20, 0.19, 0.18)


@dataclass(frozen=True, eq=False)
class Sample:
    """A pair of pictures with its truth. All pictures are float32 in [0, 1].

    infrared: (H, W) thermal, CT or T2, (H, W, 3) PET or SPECT in pseudo-colour.
    visible: (H, W, 3) visible light, (H, W) MRI.
    targets: bool (H, W), people or lesion: bright in ``infrared``, close to their surround in ``visible``.
    texture: bool (H, W), where only ``visible`` has fine texture.
    clean_infrared, clean_visible: the two pictures before sensor noise.
    labels: what the two sources are, first that of ``infrared``.
    """

    name: str
    infrared: Array
    visible: Array
    targets: Array
    texture: Array
    clean_infrared: Array
    clean_visible: Array
    labels: tuple[str, str]


def street(size: tuple[int, int] = (480, 640), seed: int = 0) -> Sample:
    """A street at night, ``size`` = (height, width), at least 16 x 16; the scene fills any shape.

    Walkers and a cyclist are the targets; shop, lettering, road markings and lamp-lit brick the texture.
    """
    height, width = check_request(size, seed)
    rng = np.random.default_rng(seed)
    noise, canvas = Noise(rng), Canvas(height, width)
    lamps = street_lamps(rng)
    paint_surfaces(canvas, lamps, noise)
    _paint_figures(canvas, lamps, noise, rng)
    infrared, visible, mask = canvas.expose()
    return Sample(
        f"street-{seed}",
        draw.add_noise(infrared, NOISE["infrared"], rng),
        draw.add_noise(visible, NOISE["visible"], rng),
        draw.shrink(canvas.target) >= 0.5,
        mask,
        infrared,
        visible,
        ("infrared", "visible"),
    )


def check_request(size: tuple[int, int], seed: int) -> tuple[int, int]:
    """Size and seed as whole numbers in their range. Raises DDFMError."""
    if len(size) != 2 or any(int(side) != side or side < 16 for side in size):
        raise problem("size", repr(size), "(height, width) of at least 16 pixels each")
    if int(seed) != seed or seed < 0:
        raise problem("seed", repr(seed), "a whole number, 0 or more")
    return int(size[0]), int(size[1])


def street_lamps(rng: np.random.Generator) -> list[Lamp]:
    """Sodium lamps on the left, whiter ones on the right, of slightly varying strength."""
    places = [(-3.4, 5.3, 12.0), (3.3, 5.3, 17.0), (-3.4, 5.3, 24.0), (3.3, 5.3, 31.0), (-3.4, 5.3, 39.0)]
    lamps = []
    for place in places:
        colour = (14.0, 9.6, 4.6) if place[0] < 0 else (10.5, 11.5, 10.0)
        strength = rng.uniform(0.85, 1.15)
        lamps.append(Lamp(place, (strength * colour[0], strength * colour[1], strength * colour[2])))
    return lamps


def paint_surfaces(canvas: Canvas, lamps: list[Lamp], noise: Noise) -> None:
    """Cast each pixel's ray to road, walls, far end or sky and shade what it meets."""
    lights = [*lamps, *(Lamp((RIGHT - 0.8, 2.6, z), (2.6, 2.0, 1.2)) for z in (SHOP[0] + 1, SHOP[1] - 1))]
    across, up = np.broadcast_arrays(*canvas.rays())
    with np.errstate(divide="ignore"):
        ground = np.where(up < 0, -1.7 / up, np.inf)
        wall = np.where(across < 0, LEFT, RIGHT) / across
    roof = np.where(across < 0, np.float32(9.0), np.float32(7.6)) + 1.2 * (np.floor(wall / 9) % 2)
    wall = np.where(1.7 + up * wall > roof, np.inf, wall)
    depth = np.minimum(np.minimum(ground, wall), END).astype(np.float32)
    x, y = across * depth, 1.7 + up * depth
    _sky_and_end(canvas, depth >= END, x, y, noise)
    seen = (ground <= wall) & (ground < END)
    _shade(canvas, seen, _road(x[seen], depth[seen], noise, lamps), lights, (x, y, depth), (0.0, 1.0, 0.0))
    for side, seen in ((1.0, across < 0), (-1.0, across >= 0)):
        seen = seen & (wall < ground) & (wall < END)
        shaded = _wall(y[seen], depth[seen], noise, side)
        _shade(canvas, seen, shaded, lights, (x, y, depth), (side, 0.0, 0.0))


def _shade(
    canvas: Canvas,
    seen: Array,
    surface: Surface,
    lamps: list[Lamp],
    points: tuple[Array, Array, Array],
    normal: tuple[float, float, float],
) -> None:
    reflectance, own, canvas.heat[seen], texture = surface
    x, y, z = (axis[seen] for axis in points)
    received = sum((lamp.reach(x, y, z, normal) for lamp in lamps), rgb(0.010, 0.011, 0.014))
    canvas.light[seen] = reflectance * received + own
    # Texture counts only where light makes it visible.
    canvas.texture[seen] = texture * ((received + own).max(axis=1) > 0.03)


def _sky_and_end(canvas: Canvas, seen: Array, x: Array, y: Array, noise: Noise) -> None:
    """The sky, and dark roofs with a few lit windows at the end of the street."""
    x, y = x[seen], y[seen]
    roof = 6 + 6 * noise.cell(x / 5, np.zeros_like(x) + 7)
    built = fade(roof - y, -0.1, 0.1)[:, None]
    pane = (np.abs(x / 1.6 % 1 - 0.5) < 0.2) & (np.abs(y / 2.2 % 1 - 0.5) < 0.22)
    on = (pane & (noise.cell(x / 1.6, y / 2.2) > 0.72))[:, None] * rgb(0.5, 0.36, 0.16)
    haze = np.exp(-np.clip(y, 0, None) / 9)[:, None]
    cloud = noise(x / 14, y / 5, 3)[:, None]
    sky = rgb(0.006, 0.008, 0.014) * (0.5 + cloud) + haze * rgb(0.020, 0.015, 0.011)
    canvas.light[seen] = sky * (1 - built) + built * (0.005 + on)
    heat = 0.11 + 0.14 * pane * (y > 2)
    canvas.heat[seen] = (0.05 + 0.06 * haze * (0.6 + 0.4 * cloud))[:, 0] * (1 - built[:, 0]) + built[:, 0] * heat


def _road(x: Array, z: Array, noise: Noise, lamps: list[Lamp]) -> Surface:
    """Asphalt between x = -4.2 and 3.9 with markings, kerbs and paved walks on both sides."""
    grain = 0.45 + 1.1 * noise(x * 26, z * 26, 2) * np.clip(9 / z, 0, 1) + 0.55 * np.clip(1 - 9 / z, 0, 1)
    patch = noise(x * 0.7, z * 0.35, 2)
    lane = np.abs(x + 0.15)
    stripes = (z > 5.6) & (z < 8.4) & (lane < 3.7) & (np.abs((x + 0.1) % 1.1 - 0.55) < 0.29)
    dashes = (lane < 0.075) & (z > 11) & (z % 6 < 3)
    stop = (np.abs(z - 9.6) < 0.2) & (x > 0.1) & (x < 3.6)
    paint = (stripes | dashes | stop | (np.abs(lane - 3.75) < 0.06)) & (z < 40)
    worn = np.ones_like(grain)
    worn[paint] = 0.15 + 0.85 * fade(noise(x[paint] * 13, z[paint] * 13, 3) + 0.3 * patch[paint], 0.33, 0.62)
    walk = (x < -4.2) | (x > 3.9)
    kerb = fade(np.abs(x + 0.15) - 4.05, 0.19, 0.17) * walk
    joint = 1 - 0.6 * (np.minimum(x / 0.5 % 1, z / 0.5 % 1) < 0.07) * np.clip(12 / z, 0, 1)
    tile = (0.16 + 0.10 * noise.cell(x / 0.5, z / 0.5)) * joint
    grey = np.where(walk, tile * (1 - kerb) + 0.3 * kerb, 0.085 * grain * (0.6 + 0.8 * patch))
    grey = grey + paint * worn * (0.62 - grey)
    reflectance = grey[:, None] * np.where(walk[:, None], rgb(1, 0.94, 0.86), rgb(0.95, 1, 1.04))
    heat = np.where(walk, np.float32(0.145), np.float32(0.18)) + 0.03 * (patch - 0.5) - 0.015 * kerb
    heat = heat + 0.035 * np.exp(-((lane - 1.9) ** 2) / 0.5) * ~walk  # tyres warm their two tracks
    crossing = ((z > 5.3) & (z < 8.7) & (lane < 3.6)).astype(np.float32)
    return reflectance, draw.gloss(x, z, lamps) * (grain * patch * (1 - 0.6 * paint))[:, None], heat, crossing


def _wall(y: Array, z: Array, noise: Noise, side: float) -> Surface:
    """Brick with rows of windows; the right wall (side -1) carries the shop and its sign."""
    row = np.floor(y / 0.17)
    along = z / 0.5 + 0.5 * (row % 2)
    near = np.clip(1.5 - z / 22, 0, 1)
    joint = np.maximum(np.abs(along % 1 - 0.5) > 0.46, np.abs(y / 0.17 % 1 - 0.5) > 0.41) * near
    shade = 0.55 + 0.9 * near * noise.cell(along + 40 * side, row) + 0.45 * (1 - near)
    stain = 0.6 + 0.8 * noise(z * 0.5 + 50 * side, y * 0.5, 3)
    clay = rgb(0.36, 0.17, 0.11) if side > 0 else rgb(0.27, 0.19, 0.15)
    reflectance = (shade * stain)[:, None] * clay * (1 - joint[:, None]) + joint[:, None] * MORTAR
    heat = 0.125 + 0.03 * np.exp(-y / 2) + 0.025 * (stain - 1)
    texture = ((z < 26) & (y > 0.2)).astype(np.float32)
    own = np.zeros_like(reflectance)
    u, v = (z + 1.2 * side) / 3.2, (y - 0.2) / 3.0
    pane = draw.box(u % 1, v % 1, (0.5, 0.48), (0.19, 0.27)) * 3
    glass = fade(pane, 0.0, -0.03) * (y > 3.6)
    bars = (np.abs(u % 1 - 0.5) < 0.014) | (np.abs(v % 1 - 0.56) < 0.012)
    lot = noise.cell(u + 9 * side, v)
    curtain = (0.5 + 0.7 * noise(z * 6, y * 0.4)) * fade(v % 1, 0.15, 0.7)
    own += ((lot > 0.66) * glass * ~bars * curtain)[:, None] * rgb(0.55, 0.34, 0.13)
    frame = fade(pane, 0.16, 0.12) * (y > 3.6) * (1 - glass)
    reflectance = reflectance * (1 - glass[:, None]) + frame[:, None] * (0.34 - reflectance)
    heat = heat + glass * (0.16 + 0.14 * lot) + 0.04 * frame
    texture = texture * ((pane > 0.17) | (y < 3.5))
    surface = reflectance, own, heat, texture
    return surface if side > 0 else _shop(surface, y, z, noise)


def _shop(wall: Surface, y: Array, z: Array, noise: Noise) -> Surface:
    """Put the lit shop window and the lettered sign onto the right wall."""
    reflectance, own, heat, texture = wall
    length = SHOP[1] - SHOP[0]
    sign = draw.box(z, y, (sum(SHOP) / 2, 3.25), (length / 2, 0.45)) < 0
    window = draw.box(z, y, (sum(SHOP) / 2, 1.6), (length / 2 - 0.2, 1.1)) < 0
    word = draw.letters("CAFE", (SHOP[1] - 0.5 - z) / (length - 1), (3.66 - y) / 0.82)[:, None]
    face = word * rgb(1.25, 1.05, 0.62) + (1 - word) * rgb(0.035, 0.11, 0.13)
    shelf, hue = y / 0.42, noise.cell(z / 0.16, np.floor(y / 0.42) + 90)
    goods = (shelf % 1 < 0.28 + 0.5 * noise.cell(z / 0.16, np.floor(shelf) + 60)) & (y < 2.1)
    colour = np.stack([0.05 + 0.6 * hue, 0.35 - 0.3 * hue, 0.4 * (hue * 7 % 1)], axis=1) * 0.5
    inside = np.where(goods[:, None], colour, rgb(0.85, 0.60, 0.28) * (0.35 + 0.25 * y[:, None]))
    bars = (np.abs((z - SHOP[0]) / length * 4 % 1 - 0.5) > 0.48) | (np.abs(y - 2.2) < 0.04)
    inside = np.where(bars[:, None], np.float32(0.02), inside * 0.9)
    lit = (sign | window)[:, None]
    own = np.where(sign[:, None], face, np.where(window[:, None], inside, own))
    # Glass is opaque to thermal light: the window is a smooth, slightly warm plate.
    heat = np.where(sign, np.float32(0.17), np.where(window, np.float32(0.21), heat))
    return np.where(lit, np.float32(0.02), reflectance), own, heat, np.maximum(texture, lit[:, 0])


def _paint_figures(canvas: Canvas, lamps: list[Lamp], noise: Noise, rng: np.random.Generator) -> None:
    """Everything that stands on the street, from far to near."""
    jobs: list[tuple[float, Callable[[], None]]] = []
    for lamp in lamps:
        jobs.append((lamp.place[2], partial(draw.lamp_post, canvas, lamp)))
    for x, z in ((-2.6, 6.9), (3.0, 9.5), (-4.9, 17.0), (4.5, 21.0), (-5.2, 28.0)):
        spot, stride = (x + rng.uniform(-0.3, 0.3), z * rng.uniform(0.97, 1.03)), rng.uniform(-1, 1)
        jobs.append((spot[1], partial(draw.person, canvas, lamps, noise, *spot, stride)))
    for x, z, height in ((-5.4, 14.5, 5.6), (4.9, 26.0, 6.0), (-5.4, 33.0, 6.0)):
        jobs.append((z, partial(draw.tree, canvas, lamps, noise, x, z, height * rng.uniform(0.92, 1.08))))
    jobs.append((13.5, partial(draw.cyclist, canvas, lamps, noise, rng.uniform(-2.9, -2.3), 13.5)))
    for x, z, oncoming in ((1.9, rng.uniform(12.5, 14.5), False), (-1.6, rng.uniform(24, 29), True)):
        paint = rng.uniform(0.05, 0.3, 3).astype(np.float32)
        jobs.append((z, partial(draw.car, canvas, lamps, x, z, paint, oncoming)))
    for _, job in sorted(jobs, key=lambda entry: -entry[0]):
        job()


def phantom(size: tuple[int, int] = (256, 256), seed: int = 0, modality: str = "ct") -> Sample:
    """An axial brain slice, ``size`` = (height, width): T1-like MRI beside CT, PET, SPECT or T2-like MRI.

    The head lies within 0.80 of the half width and 0.94 of the half height, plus one pixel; outside
    it both sources are exactly 0. The target is a lesion: a haemorrhage in CT, a hot spot in PET and SPECT, within
    bright oedema in T2. One seed is one head in all of them.
    """
    height, width = check_request(size, seed)
    check_choice("modality", modality, ("ct", "pet", "spect", "t2"))
    rng = np.random.default_rng(seed)
    noise = Noise(rng)
    rows, columns = (((np.arange(2 * n, dtype=np.float32) + 0.5) / n - 1) for n in (height, width))
    x, y = np.broadcast_arrays(columns[None], -rows[:, None])  # x right, y up, each in [-1, 1]
    tissue = anatomy(x, y, noise, rng)
    head = draw.shrink(tissue["head"]) > 0
    scale = min(height, width) / 256
    structural, clean = clean_slice(tissue, noise, x, y, modality)
    clean, other = seen(clean, head, modality, scale, rng)
    inner = draw.blur(draw.shrink(tissue["cortex"] * (1 - tissue["lesion"])), 1.5 * scale) > 0.9
    clean, structural = (np.clip(image, 0, 1).astype(np.float32) for image in (clean, structural))
    return Sample(
        f"phantom-{modality}-{seed}",
        other.astype(np.float32),
        draw.add_noise(structural, NOISE["mri"], rng) * head,
        draw.shrink(tissue["lesion"]) >= 0.5,
        inner,
        clean,
        structural,
        (modality, "mri"),
    )


def clean_slice(tissue: dict[str, Array], noise: Texture, x: Array, y: Array, modality: str) -> tuple[Array, Array]:
    """MRI and CT, or MRI and the uptake of PET or SPECT, both (H, W), without noise and colours; 0 outside the head."""
    head = draw.shrink(tissue["head"]) > 0
    scale = min(head.shape) / 256
    structural = draw.blur(draw.shrink(_mri(tissue, noise, x, y)), 0.5 * scale) * head
    picture, spread = {"ct": (_ct, 0.8), "t2": (_t2, 0.5)}.get(modality) or (_uptake, SPREAD[modality])
    return structural, draw.blur(draw.shrink(picture(tissue, noise, x, y)), spread * scale) * head


def seen(clean: Array, head: Array, modality: str, scale: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """CT, or PET or SPECT in pseudo-colour, without and with noise."""
    if modality in ("ct", "t2"):
        return clean, draw.add_noise(clean, NOISE["ct" if modality == "ct" else "mri"], rng) * head
    grains = draw.blur(rng.standard_normal(clean.shape, dtype=np.float32), SPREAD[modality] * scale / 2)
    grains *= NOISE[modality] / float(grains.std())
    return draw.hot(clean), draw.hot(np.clip(clean + grains * np.sqrt(np.maximum(clean, 0)), 0, 1))


def anatomy(x: Array, y: Array, noise: Texture, rng: np.random.Generator, height: float = 0.0) -> dict[str, Array]:
    """Coverage maps in [0, 1] of the tissues, each (2H, 2W); later ones lie within earlier ones.

    height: above the middle of the lesion, in half sizes of the head.
    """
    angle = np.arctan2(y / 0.92, x / 0.76)
    lumps = 0.02 * (noise(2.2 * np.cos(angle) + 9, 2.2 * np.sin(angle) + 9, 2) - 0.5)
    radius = np.hypot(x / (0.76 - 0.05 * y), y / 0.92) + lumps  # 1 on the skin, narrower in front
    edge = 4 / min(x.shape)

    def within(level: float) -> Array:
        return fade(radius, level + edge, level - edge)

    warp = 0.05 * (noise(x * 4 + 3, y * 4, 2) - 0.5)
    side = np.abs(x - 0.012 * (noise(y * 3, y * 0 + 5) - 0.5))
    depth = 0.845 - radius  # from the brain's surface inwards, shares of the head's half size
    ridge = np.minimum(_folds(x, y, side + warp, depth, noise), side + 0.9 * fade(np.abs(y), 0.36, 0.22))
    horns, nuclei = _deep(side, y)
    spot = (float(rng.choice([-1, 1])) * rng.uniform(0.30, 0.38), rng.uniform(-0.30, 0.0))
    lesion = (
        np.hypot(np.hypot(x - spot[0], (y - spot[1]) * 0.85), np.float32(height))
        - rng.uniform(0.075, 0.10)
        + 0.09 * (noise(x * 7, y * 7, 2) - 0.5)
    )
    brain = within(0.84)
    return {
        "head": (radius < 1 + edge).astype(np.float32),
        "skin": within(1.0),
        "skull": within(0.945),
        "inside": within(0.865),
        "brain": brain,
        "white": fade(ridge, 0.042, 0.056) * brain,
        "sulci": fade(ridge, 0.014, 0.006) * brain,
        "nuclei": fade(nuclei + 0.2 * warp, edge, -edge),
        "ventricles": fade(horns + 0.15 * warp, edge, -edge),
        "lesion": fade(lesion, edge, -edge),
        "oedema": fade(lesion, 0.10, 0.01),
        "cortex": brain * fade(depth, 0.34, 0.33),
    }


def _folds(x: Array, y: Array, side: Array, depth: Array, noise: Texture) -> Array:
    """Distance to the nearest sulcus or to the brain's surface: sulci are zero lines of a noise field."""
    field = noise(6.6 * side + np.where(x > 0, np.float32(0), np.float32(0.7)), 6.6 * y, 2) - 0.5
    slope = np.hypot(*np.gradient(field, 2 / x.shape[0], 2 / x.shape[1])) + 0.6
    reach = 0.17 + 0.18 * noise(x * 3 + 11, y * 3)  # how deep the sulci run
    return np.minimum(np.abs(field) / slope + np.clip(depth - reach, 0, 1) * 0.9, depth)


def _deep(side: Array, y: Array) -> tuple[Array, Array]:
    """Signed distances to the ventricles and to the deep grey nuclei; ``side`` from the middle."""
    front = draw.capsule(side, y, (0.035, 0.12), (0.13, 0.30), 0.030, 0.045)
    middle = draw.capsule(side, y, (0.04, 0.1), (0.05, -0.12), 0.022)
    back = draw.capsule(side, y, (0.07, -0.14), (0.17, -0.34), 0.028, 0.05)
    thalamus = draw.capsule(side, y, (0.11, 0.03), (0.10, -0.10), 0.075)
    putamen = draw.capsule(side, y, (0.25, 0.14), (0.27, -0.04), 0.06, 0.045)
    caudate = draw.capsule(side, y, (0.155, 0.17), (0.19, 0.26), 0.035)
    return np.minimum.reduce([front, middle, back]), np.minimum.reduce([thalamus, putamen, caudate])


def _mri(tissue: dict[str, Array], noise: Texture, x: Array, y: Array) -> Array:
    """T1-like grey: fat bright, bone and fluid dark, white matter over grey matter."""
    bias = 0.94 + 0.12 * noise(x * 1.5, y * 1.5)
    fine = 0.05 * (noise(x * 40, y * 40, 2) - 0.5)
    diploe = 0.06 + 0.25 * fade(noise(x * 16, y * 16, 2), 0.5, 0.75)
    return bias * draw.layers(
        (tissue["skin"], 0.68 + 6 * fine),
        (tissue["skull"], diploe * (1 - tissue["inside"]) + 0.05),
        (tissue["inside"], 0.10),
        (tissue["brain"], 0.40 + fine),
        (tissue["white"], 0.68 + fine),
        (tissue["nuclei"], 0.50 + fine),
        (tissue["sulci"], 0.13),
        (tissue["oedema"], 0.53 + fine),
        (tissue["lesion"], 0.50 + 3 * fine),
        (tissue["ventricles"], 0.10),
    )


def _ct(tissue: dict[str, Array], noise: Texture, x: Array, y: Array) -> Array:
    """CT in a brain window: bone near white, brain tissues within a few grey levels."""
    return draw.layers(
        (tissue["skin"], 0.22),
        (tissue["skull"], 0.88 + 0.08 * noise(x * 9, y * 9)),
        (tissue["inside"], 0.30),
        (tissue["brain"], 0.375 + 0.02 * (noise(x * 3, y * 3) - 0.5)),
        (tissue["white"], 0.355),
        (tissue["oedema"], 0.32),
        (tissue["ventricles"], 0.20),
        (tissue["lesion"], 0.78),
    )


def _t2(tissue: dict[str, Array], noise: Texture, x: Array, y: Array) -> Array:
    """T2-like grey: fluid and oedema bright, white matter under grey matter, bone dark."""
    fine = 0.05 * (noise(x * 40 + 3, y * 40, 2) - 0.5)
    return draw.layers(
        (tissue["skin"], 0.45 + 6 * fine),
        (tissue["skull"], 0.08),
        (tissue["inside"], 0.85),
        (tissue["brain"], 0.52 + fine),
        (tissue["white"], 0.36 + fine),
        (tissue["nuclei"], 0.42 + fine),
        (tissue["sulci"], 0.85),
        (tissue["oedema"], 0.75 + fine),
        (tissue["lesion"], 0.62 + 3 * fine),
        (tissue["ventricles"], 0.92),
    )


def _uptake(tissue: dict[str, Array], noise: Texture, x: Array, y: Array) -> Array:
    """Tracer uptake: grey matter twice the white, fluid none, the lesion hottest."""
    regional = 0.85 + 0.3 * noise(x * 3 + 5, y * 3)
    return draw.layers(
        (tissue["skin"], 0.05),
        (tissue["inside"], 0.06),
        (tissue["brain"], 0.52 * regional),
        (tissue["white"], 0.20),
        (tissue["nuclei"], 0.55 * regional),
        (tissue["ventricles"], 0.05),
        (tissue["lesion"], 1.0),
    )
