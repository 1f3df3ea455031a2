"""The search for a transform: orientation fields, a correlation over all shifts, and OpenCV's ECC from coarse to fine.

What an edge is bright against differs from modality to modality, where it runs does not. So pictures are compared by

    c(p) = m(p) (cos 2 theta, sin 2 theta),   and m(p) - mean(m),   m = (|grad| / local |grad|)^0.35

with theta the direction of the gradient: doubled, it is the same for an edge and its negative; divided by what is
usual around, weak edges count too. This is the squared-gradient field of orientation estimation (Kass and Witkin
1987), here as the feature of an area-based registration. Three channels go into ``cv2.findTransformECC`` (Evangelidis
and Psarakis 2008). Measured beside gradient magnitudes and Mattes' mutual information: docs/align.md.

All is done in the *frame*: the moving picture stretched to the reference's size (``resizing``), so that matrices here
take the reference to the frame and are near the identity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ddfm.registration._opencv import opencv
from ddfm.registration.transform import corner_error, project

__all__ = ["Level", "fields", "likeness", "search", "simplified"]

#: Shorter sides of the levels, in pixels.
SIDES = (96, 192, 384, 768)
#: Scales and turns (degrees) that the coarsest level begins from, and the largest shift, as a share of the side.
SCALES = (0.71, 0.84, 1.0, 1.19, 1.41)
TURNS = (-6.0, 0.0, 6.0)
REACH = 0.25
#: Shifts that the coarsest level begins from, and how many are followed on from it and from the next ones.
SHIFTS = 6
STARTS = (3, 2, 1)
#: Blur before the gradient, in pixels of the level, and the power of an edge's strength: a sharper field and a flatter
#: power find rendered scenes more exactly, still sharper or flatter ones lose real pairs with noise.
SMOOTH, POWER = 0.7, 0.35
#: A border of this share of the side is not compared: frames and black rims sit there.
RIM = 0.02
#: What is constant from the border inwards in both pictures is no scene but a mask (a circle, a frame) where it covers
#: this share and is the same in both, overlap over union: masks have 0.993 and more, also as JPEG, heads in CT and MRI
#: 0.97 at most, skies less. Nor are so many pixels around it scene, which JPEG and resampling blur it over.
MASK, ALIKE, AROUND = 0.01, 0.985, 6


@dataclasses.dataclass(frozen=True, eq=False)
class Level:
    """Both pictures at one size, float32 (h, w), and the reference's field; scale: pixels of this level in one.

    scene: uint8 (h, w), 0 on and around a mask that both share.
    """

    fixed: np.ndarray
    moving: np.ndarray
    field: np.ndarray
    scale: np.ndarray
    scene: np.ndarray

    @property
    def rim(self) -> int:
        """Border that is not compared, in pixels."""
        return max(2, round(RIM * min(self.fixed.shape)))


def levels(moving: np.ndarray, fixed: np.ndarray, sides: Sequence[int] = SIDES) -> Iterator[Level]:
    """From coarse to fine, ending about where the coarser picture has no more to show, or at the last of ``sides``."""
    cv2 = opencv("--align")
    coarser, finer = sorted((min(fixed.shape), min(moving.shape)))
    finest = min(finer, round(1.5 * coarser))  # somewhat beyond the coarser picture, which may show a part only
    masked = _shared_mask(moving, fixed)
    wanted = [side for side in sides if side < 0.8 * finest] + ([finest] if finest <= 1.25 * sides[-1] else [])
    for side in wanted or [finest]:
        factor = side / min(fixed.shape)
        height, width = (max(8, round(x * factor)) for x in fixed.shape)

        def sized(x: np.ndarray, to: tuple[int, int] = (width, height)) -> np.ndarray:
            if x.shape == to[::-1]:
                return x
            shrinks = x.shape[0] > to[1]
            y: np.ndarray = cv2.resize(x, to, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
            return y

        small = sized(fixed)
        scaling = _scaling(width / fixed.shape[1], height / fixed.shape[0])
        yield Level(small, sized(moving), fields(small), scaling, _scene((height, width), masked))


def _shared_mask(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray | None:
    """uint8 (H, W) of the reference's size: 1 where both are constant from the border inwards; None for no mask."""
    cv2 = opencv("--align")
    size = fixed.shape[::-1]
    other = cv2.resize(_constant(moving), size, interpolation=cv2.INTER_NEAREST)
    own = _constant(fixed)
    both, either = own & other, own | other
    return both if both.mean() > MASK and both.sum() > ALIKE * either.sum() else None


def _constant(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W): 1 in areas of one value that reach the border."""
    cv2 = opencv("--align")
    kernel = np.ones((3, 3), np.uint8)
    flat = (cv2.dilate(picture, kernel) == cv2.erode(picture, kernel)).astype(np.uint8)
    _, parts = cv2.connectedComponents(flat, connectivity=4)
    at_border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    constant: np.ndarray = np.isin(parts, at_border[at_border > 0]).astype(np.uint8)
    return constant


def _scene(size: tuple[int, int], masked: np.ndarray | None) -> np.ndarray:
    """uint8 (h, w): 0 on and around the mask."""
    if masked is None:
        return np.ones(size, np.uint8)
    cv2 = opencv("--align")
    around = 2 * AROUND + 1
    wide = cv2.dilate(masked, np.ones((around, around), np.uint8))
    small = cv2.resize(wide, size[::-1], interpolation=cv2.INTER_NEAREST)
    scene: np.ndarray = 1 - cv2.dilate(small, np.ones((5, 5), np.uint8))  # what a field's own blur spreads it over
    return scene


def _scaling(x: float, y: float) -> np.ndarray:
    """Pixel centres of a picture to those of its resized self."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def fields(picture: np.ndarray) -> np.ndarray:
    """(h, w) to float32 (h, w, 3): edge strength less its mean, and the doubled direction times the strength."""
    cv2 = opencv("--align")
    smooth = cv2.GaussianBlur(picture, (0, 0), SMOOTH)
    gx, gy = (cv2.Scharr(smooth, cv2.CV_32F, *order) / 32 for order in ((1, 0), (0, 1)))
    power = gx * gx + gy * gy
    around = cv2.GaussianBlur(power, (0, 0), max(4.0, min(picture.shape) / 16))
    usual = np.sqrt(np.maximum(around, 0)) + 0.3 * np.sqrt(power.mean()) + 1e-3
    strength = (np.sqrt(power) / usual) ** POWER
    turn = strength / np.maximum(power, 1e-12)
    return np.dstack([strength - strength.mean(), (gx * gx - gy * gy) * turn, 2 * gx * gy * turn]).astype(np.float32)


def moved(level: Level, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The field of the moving picture after ``matrix``, and uint8 (h, w), 1 where it can be compared."""
    cv2 = opencv("--align")
    size = level.fixed.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = np.zeros(level.moving.shape, np.uint8)
    rim = level.rim
    there[rim:-rim, rim:-rim] = level.scene[rim:-rim, rim:-rim]
    picture = cv2.warpPerspective(level.moving, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpPerspective(there, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    inner = np.zeros_like(mask)
    inner[rim:-rim, rim:-rim] = (mask & level.scene)[rim:-rim, rim:-rim]
    return fields(picture), inner


def likeness(level: Level, matrix: np.ndarray) -> float:
    """Correlation of the two fields with ``matrix``, in [-1, 1]; -1 where less than a fifth can be compared."""
    return _compare(level, matrix)[0]


def _compare(level: Level, matrix: np.ndarray) -> tuple[float, float]:
    """The likeness, and what ranks matrices: the same times the root of the share compared, as little fits easily."""
    field, mask = moved(level, matrix)
    share = float(mask.mean())
    if share < 0.2:
        return -1.0, -1.0
    f, g = level.field[mask > 0], field[mask > 0]
    value = float((f * g).sum() / np.sqrt((f * f).sum() * (g * g).sum() + 1e-12))
    return value, value * share**0.5


def search(
    moving: np.ndarray, fixed: np.ndarray, kind: str, sides: Sequence[int] = SIDES
) -> tuple[np.ndarray, float, float]:
    """The best matrix from the reference to the frame, its likeness, and that of the identity, at the finest level.

    moving, fixed: float32 (H, W). kind: "translation", "affine" or "homography". sides: of the levels.
    """
    level, full = None, [np.eye(3)]
    ladder = list(levels(moving, fixed, sides))
    for n, level in enumerate(ladder):
        up, down = level.scale, np.linalg.inv(level.scale)
        found = [up @ matrix @ down for matrix in full] if n else starts(level, kind)
        for step in _steps(kind, first=n == 0, last=n == len(ladder) - 1):
            found = [_refine(level, matrix, step) for matrix in found]
        found = _best(level, found, STARTS[min(n, len(STARTS) - 1)])
        full = [down @ matrix @ up for matrix in found]
    assert level is not None
    best = _refine(level, found[0], kind, blur=1)
    whole = down @ best @ up
    return whole / whole[2, 2], likeness(level, best), likeness(level, np.eye(3))


def simplified(moving: np.ndarray, fixed: np.ndarray, matrix: np.ndarray, kind: str) -> np.ndarray:
    """The best matrix of a simpler ``kind`` near ``matrix``, both from the reference to the frame, at full size."""
    *_, level = levels(moving, fixed)
    up, down = level.scale, np.linalg.inv(level.scale)
    begin = _nearest(up @ matrix @ down, kind, level.fixed.shape)
    best = down @ _refine(level, begin, kind) @ up
    whole: np.ndarray = best / best[2, 2]
    return whole


def _nearest(matrix: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The translation or affine map that is nearest to a matrix over a picture, by least squares."""
    points = np.column_stack([x.ravel() for x in np.mgrid[0 : shape[1] : 9j, 0 : shape[0] : 9j]])
    there = project(matrix, points)
    if kind == "translation":
        return _shift(*(there - points).mean(0))
    found = np.eye(3)
    found[:2] = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), there, rcond=None)[0].T
    return found


def _steps(kind: str, first: bool, last: bool) -> list[str]:
    """Kinds to refine a level by: few parameters first, eight of them not on a handful of pixels unless that is all."""
    if not first or kind == "translation":
        return [kind]
    return ["translation", "affine", *([kind] if last and kind == "homography" else [])]


def _best(level: Level, matrices: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The ``count`` that rank highest, those left out that are within a pixel of a better one."""
    ranked = sorted(matrices, key=lambda matrix: -_compare(level, matrix)[1])
    kept: list[np.ndarray] = []
    for matrix in ranked:
        if all(corner_error(matrix, other, level.fixed.shape[:2]) > 1 for other in kept):
            kept.append(matrix)
    return kept[:count]


def _refine(level: Level, matrix: np.ndarray, kind: str, blur: int = 3, rounds: int = 3) -> np.ndarray:
    """ECC from ``matrix``, the field drawn anew from the moved picture each round; never to a lower rank.

    blur: pixels of a further Gaussian; 3 lets ECC find from farther away, 1 is none and the more exact in the end.
    """
    rank = _compare(level, matrix)[1]
    for _ in range(rounds):
        field, mask = moved(level, matrix)
        change = _ecc(level.field, field, mask, kind, blur)
        if change is None:
            break
        better = matrix @ change
        better = better / better[2, 2]
        new = _compare(level, better)[1]
        if not new > rank:  # NaN too
            break
        matrix, rank = better, new
        if corner_error(change, np.eye(3), level.fixed.shape[:2]) < 0.02:
            break
    return matrix


def _ecc(fixed: np.ndarray, moving: np.ndarray, mask: np.ndarray, kind: str, blur: int) -> np.ndarray | None:
    """What is still to be moved, 3x3; None where ECC finds nothing."""
    cv2 = opencv("--align")
    motion = {"translation": cv2.MOTION_TRANSLATION, "affine": cv2.MOTION_AFFINE, "homography": cv2.MOTION_HOMOGRAPHY}
    begin = np.eye(3 if kind == "homography" else 2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    try:
        _, found = cv2.findTransformECC(fixed, np.ascontiguousarray(moving), begin, motion[kind], stop, mask, blur)
    except cv2.error:  # "the algorithm stopped before its convergence", singular where there are no edges
        return None
    change = np.eye(3)
    change[: len(found)] = found
    return change if np.isfinite(change).all() and abs(change[2, 2]) > 1e-6 else None


# ---- where to begin -------------------------------------------------------------------------------


def starts(level: Level, kind: str) -> list[np.ndarray]:
    """The identity, and the likeliest shifts; but for a translation also those of the scaled and turned picture."""
    shapes = [(1.0, 0.0)] if kind == "translation" else [(s, t) for s in SCALES for t in TURNS]
    found: list[tuple[float, np.ndarray]] = []
    for scale, turn in shapes:
        shape = _about_centre(level.fixed.shape, scale, turn)
        field, mask = moved(level, shape)
        found += [(value, shape @ _shift(dx, dy)) for value, dx, dy in _peaks(_over_shifts(level, field, mask))]
    found.sort(key=lambda one: -one[0])
    return [np.eye(3), *(matrix for _, matrix in found[:SHIFTS])]


def _about_centre(shape: tuple[int, ...], scale: float, degrees: float) -> np.ndarray:
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    matrix = np.eye(3)
    matrix[:2] = opencv("--align").getRotationMatrix2D(centre, degrees, scale)
    return matrix


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _over_shifts(level: Level, field: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Normalised correlation of the fields for whole shifts up to REACH of the side each way, by FFT."""
    height, width = mask.shape
    own = np.zeros(mask.shape, np.float64)
    own[level.rim : -level.rim, level.rim : -level.rim] = level.scene[level.rim : -level.rim, level.rim : -level.rim]
    f, g, valid = level.field * own[..., None], field * mask[..., None], mask.astype(np.float64)
    size = tuple(opencv("--align").getOptimalDFTSize(2 * side) for side in (height, width))

    def spectrum(x: Any) -> np.ndarray:
        return np.fft.rfft2(x, size, axes=(0, 1))

    def correlated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(np.conj(a) * b, size)

    both = np.fft.irfft2((np.conj(spectrum(f)) * spectrum(g)).sum(2), size)
    power_f = correlated(spectrum((f * f).sum(2)), spectrum(valid))
    power_g = correlated(spectrum(own), spectrum((g * g).sum(2)))
    floor = 0.2 * max(float(power_f.max()), 1e-9), 0.2 * max(float(power_g.max()), 1e-9)
    scores = both / np.sqrt(np.maximum(power_f, floor[0]) * np.maximum(power_g, floor[1]))
    reach = (round(REACH * height), round(REACH * width))
    return np.roll(scores, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]


def _peaks(scores: np.ndarray, count: int = 3, apart: int = 4) -> list[tuple[float, int, int]]:
    """The highest values, at least ``apart`` from each other, as (value, dx, dy)."""
    scores, centre = scores.copy(), (np.array(scores.shape) - 1) // 2
    found = []
    for _ in range(count):
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        found.append((float(scores[y, x]), int(x - centre[1]), int(y - centre[0])))
        scores[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -np.inf
    return found
