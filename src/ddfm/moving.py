"""The sample street in motion: a clip from two cameras that pan together, with known truth in every frame.

People walk, a cyclist crosses, a car comes near; the cameras pan by whole pixels, there and back, so that what stands
still in the world is the very same in two frames once they are laid over each other by ``pan``. The thermal camera's
automatic gain drifts and jumps once, as real ones do. Everything else is as ``ddfm.samples.street``, a frame's noise is
its own, and the same arguments give the same bytes on the same machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddfm import _render as draw
from ddfm._checks import check_range, problem
from ddfm._render import HALF_VIEW, Array, Canvas, Lamp, Noise
from ddfm.samples import NOISE, check_request, paint_surfaces, street_lamps

__all__ = ["FPS", "MovingFrame", "moving_street", "still"]

FPS = 25
_TRAVEL = 0.25  # of the width: how far the pan goes
_JUMP = 0.6  # of the clip: where the gain jumps


@dataclass(frozen=True, eq=False)
class MovingFrame:
    """One moment. Pictures are float32 in [0, 1], as of ``ddfm.samples.Sample``.

    pan: columns that the cameras look further right than at first. clean_infrared, clean_visible: before drift and
    noise. targets: bool (H, W), people.
    """

    infrared: Array
    visible: Array
    clean_infrared: Array
    clean_visible: Array
    targets: Array
    pan: int


def moving_street(
    size: tuple[int, int] = (240, 320),
    frames: int = 250,
    seed: int = 0,
    *,
    speed: int = 1,
    drift: float = 0.12,
    noise: float = 1.0,
    mirrored: bool = False,
) -> Iterator[MovingFrame]:
    """The frames of a clip, drawn one by one at ``FPS`` frames a second.

    size: height and width, 16 x 16 or more. speed: columns a frame of the pan. drift: how far the thermal camera's gain
    strays from 1. noise: in units of ``ddfm.samples.NOISE``. mirrored: left and right exchanged, for another scene.
    Raises DDFMError for arguments out of range.
    """
    height, width = check_request(size, seed)
    check_range("drift", drift, 0, 0.5)
    check_range("noise", noise, 0, 20)
    if frames < 1 or speed < 0:
        raise problem("frames, speed", f"{frames}, {speed}", "1 or more, 0 or more")
    rng = np.random.default_rng(seed)
    travel = int(_TRAVEL * width)
    world = Canvas(height, width + travel, HALF_VIEW * (width + travel) / width)
    texture, lamps = Noise(rng), street_lamps(rng)
    paint_surfaces(world, lamps, texture)
    figures = _Figures(lamps, texture, rng)
    for k in range(frames):
        pan = _to_and_fro(k * speed, travel)
        canvas = copy.deepcopy(world)
        figures.paint(canvas, k / FPS)
        infrared, visible, _ = canvas.expose()
        people = draw.shrink(canvas.target) >= 0.5
        view = tuple(picture[:, pan : pan + width] for picture in (infrared, visible, people))
        if mirrored:
            view, pan = tuple(picture[:, ::-1] for picture in view), -pan
        yield _expose(view, pan, _gain(k, frames, drift), noise, rng)


def _expose(
    view: tuple[Array, ...], pan: int, gain: tuple[float, float], noise: float, rng: np.random.Generator
) -> MovingFrame:
    infrared, visible, people = (np.ascontiguousarray(picture) for picture in view)
    seen = np.clip(gain[0] * infrared + gain[1], 0, 1).astype(np.float32)
    return MovingFrame(
        draw.add_noise(seen, noise * NOISE["infrared"], rng),
        draw.add_noise(visible, noise * NOISE["visible"], rng),
        infrared,
        visible,
        people,
        pan,
    )


def _to_and_fro(way: float, length: float) -> int:
    """Where one is after ``way`` on a path of that length, walked there and back."""
    return round(length - abs(way % (2 * length) - length)) if length else 0


def _gain(k: int, frames: int, drift: float) -> tuple[float, float]:
    """Gain and offset of the thermal camera: slow waves, and a jump of the offset, as after its shutter closed."""
    t = k / FPS
    jump = 0.4 * drift * (k >= _JUMP * frames)
    return 1 + drift * math.sin(1.6 * t), 0.4 * drift * math.sin(0.9 * t + 1) + jump


def still(before: MovingFrame, after: MovingFrame, tolerance: float = 0.25 / 255) -> tuple[Array, int]:
    """What stands still between two frames, and how far the view moved.

    Returns bool (H, W) over ``after``, True where both clean pictures show the very same as ``before`` did at the same
    place of the world, and the step: column c of ``after`` is column c + step of ``before``.
    """
    step = after.pan - before.pan
    a, b = overlap(before.clean_infrared, after.clean_infrared, step)
    c, d = overlap(before.clean_visible, after.clean_visible, step)
    same = (np.abs(a - b) < tolerance) & (np.abs(c - d) < tolerance).all(-1)
    whole = np.zeros_like(after.targets)
    width = after.targets.shape[1]
    whole[:, max(0, -step) : width - max(0, step)] = same
    return whole, step


def overlap(before: Array, after: Array, step: int) -> tuple[Array, Array]:
    """The parts of two pictures that show the same part of the world, laid over each other."""
    width = after.shape[1]
    left, right = max(0, -step), width - max(0, step)
    return before[:, left + step : right + step], after[:, left:right]


class _Figures:
    """Everything that stands or moves on the street."""

    def __init__(self, lamps: list[Lamp], noise: Noise, rng: np.random.Generator) -> None:
        self.lamps, self.noise = lamps, noise
        places = ((-2.2, 6.9), (2.6, 9.5), (-4.6, 17.0), (4.4, 21.0), (-5.2, 28.0))
        # middle, distance, reach of the walk, metres; metres a second
        self.walkers = [(x, z, rng.uniform(0.8, 1.6), rng.uniform(0.7, 1.3)) for x, z in places]
        self.trees = [(x, z, h * rng.uniform(0.92, 1.08)) for x, z, h in ((-5.4, 14.5, 5.6), (4.9, 26.0, 6.0))]
        self.paint_of_car = rng.uniform(0.05, 0.3, 3).astype(np.float32)
        self.parked = rng.uniform(12.5, 14.5)

    def paint(self, canvas: Canvas, t: float) -> None:
        """From far to near, as they are at ``t`` seconds."""
        jobs: list[tuple[float, Callable[[], None]]] = []
        for lamp in self.lamps:
            jobs.append((lamp.place[2], partial(draw.lamp_post, canvas, lamp)))
        for x, z, reach, pace in self.walkers:
            way = (t * pace + reach) % (4 * reach)
            place, stride = x + reach - abs(way - 2 * reach), math.sin(2 * math.pi * pace * t)
            jobs.append((z, partial(draw.person, canvas, self.lamps, self.noise, place, z, stride)))
        for x, z, height in self.trees:
            jobs.append((z, partial(draw.tree, canvas, self.lamps, self.noise, x, z, height)))
        jobs.append((13.5, partial(draw.cyclist, canvas, self.lamps, self.noise, -3.2 + t * 1.5 % 7, 13.5)))
        jobs.append((self.parked, partial(draw.car, canvas, self.lamps, 1.9, self.parked, self.paint_of_car, False)))
        far = 34 - t * 1.6 % 20
        jobs.append((far, partial(draw.car, canvas, self.lamps, -1.6, far, self.paint_of_car, True)))
        for _, job in sorted(jobs, key=lambda entry: -entry[0]):
            job()
