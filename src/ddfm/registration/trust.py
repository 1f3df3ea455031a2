"""Whether an estimate can be trusted: two measures that do not know of each other.

*Return.* The transform estimated the other way round, from its own start, must lead back. Of unrelated pictures each
way has its own accidental best fit: they miss each other by tens of pixels.

*Agreement.* The picture is cut into blocks; each is free to look for its own best place near where the transform puts
it. Of a true registration many blocks choose that very place; of unrelated pictures as many as chance would have, and
the binomial distribution says how likely that is. (For a mere translation the way back is the way there, also of
unrelated pictures: it is agreement that refuses them.)
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ddfm.registration._opencv import opencv
from ddfm.registration.search import Level, levels, moved

__all__ = ["MOST_LUCK", "Agreement", "agreement", "most_return"]

#: Size at which blocks are compared: shorter side in pixels, and parts that a block's side is of it.
SIDE, PARTS, LEAST_BLOCK = 256, 8, 16
#: A block agrees if its best place is within so many pixels, at that size, of where the transform puts it.
NEAR = 1.5
#: Of unrelated pictures one in so many may be taken for related by agreement alone.
MOST_LUCK = 1e-5


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How many of the blocks agree, and the share that chance would give."""

    agree: int
    blocks: int
    chance: float

    @property
    def luck(self) -> float:
        """Probability that as many or more agree by chance."""
        from scipy.stats import binom

        return float(binom.sf(self.agree - 1, self.blocks, self.chance)) if self.blocks else 1.0


def most_return(size: tuple[int, int]) -> float:
    """Pixels of the reference by which there and back may miss each other: 0.4 % of the diagonal, at least 1.5."""
    return max(1.5, 0.004 * float(np.hypot(*size)))


def agreement(moving: np.ndarray, fixed: np.ndarray, matrix: np.ndarray) -> Agreement:
    """Let blocks look for their own place. ``matrix``: from the reference to the frame, at full size."""
    *_, level = levels(moving, fixed, (SIDE,))
    field, mask = moved(level, level.scale @ matrix @ np.linalg.inv(level.scale))
    side = max(LEAST_BLOCK, min(level.fixed.shape) // PARTS)
    reach = side // 2
    agree = blocks = 0
    for top in range(0, mask.shape[0] - side + 1, side):
        for left in range(0, mask.shape[1] - side + 1, side):
            offset = _own_place(level, field, mask, (top, left), side, reach)
            if offset is not None:
                blocks += 1
                agree += offset <= NEAR
    spots = sum(x * x + y * y <= NEAR**2 for x in range(-2, 3) for y in range(-2, 3))
    return Agreement(agree, blocks, spots / (2 * reach + 1) ** 2)


def _own_place(
    level: Level, field: np.ndarray, mask: np.ndarray, corner: tuple[int, int], side: int, reach: int
) -> float | None:
    """How far the block's best place is from where it stands, in pixels; None where it cannot be told."""
    cv2 = opencv("--align")
    top, left = corner
    y, x = slice(top - reach, top + side + reach), slice(left - reach, left + side + reach)
    if min(y.start, x.start) < 0 or y.stop > mask.shape[0] or x.stop > mask.shape[1] or not mask[y, x].all():
        return None
    block = np.ascontiguousarray(level.field[top : top + side, left : left + side, 1:])
    around = np.ascontiguousarray(field[y, x, 1:])
    if not (block.any() and around.any()):
        return None
    scores = cv2.matchTemplate(around, block, cv2.TM_CCORR_NORMED)
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    return float(np.hypot(row - reach, column - reach))
