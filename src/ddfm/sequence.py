"""Frames of a clip, slices of a volume: one scene, fused with shared levels, scales and noise.

Fused one by one, every picture finds its own levels, scales and noise, and the result flickers. Here they are learned
once from a sample (a volume), or followed slowly (a clip); and all pictures get the same noise field.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfm import color
from ddfm._checks import check_range, problem
from ddfm.fusion import Fuser, check_memory
from ddfm.io import Image
from ddfm.levels import ENDS, Overall, Scene, lattice_step, quantile_of_all, shift
from ddfm.likelihood import FusionLikelihood, FusionState, mixture
from ddfm.noisy import settled
from ddfm.opening import Gathered, Source
from ddfm.pictures import put_color, stretch_ends, stretch_to, to_luma
from ddfm.presets import Preset

__all__ = ["InScene", "SceneFuser", "learn_scene"]

#: Most pixels of a sample that scenes are learned from, all its pictures together: EM keeps some fifteen planes of it.
MOST_PIXELS = 1 << 23


@dataclasses.dataclass(frozen=True)
class InScene:
    """A likelihood that takes levels and scales from ``scene``; EM begins at ``first`` (1, 1, H, W) where given."""

    inner: FusionLikelihood
    scene: Scene
    first: Tensor | None = None

    def init(self, sources: Tensor) -> FusionState:
        """See ``FusionLikelihood.init``."""
        return self.inner.init(sources, scene=self.scene)

    def start(self, state: FusionState) -> Tensor:
        """See ``FusionLikelihood.start``."""
        return self.inner.start(state) if self.first is None else self.first.to(state.sources)

    def step(self, x0: Tensor, state: FusionState, snr: float) -> tuple[Tensor, FusionState]:
        """See ``FusionLikelihood.step``."""
        return self.inner.step(x0, state, snr)


def learn_scene(likelihood: FusionLikelihood, sources: Tensor, iterations: int) -> Scene:
    """What pictures (N, K, H, W) in [-1, 1] of one scene share, from EM on all of them with common scales."""
    step = lattice_step(*sources.shape[-2:])
    overall = Overall.of_lattice(_pooled(sources[..., ::step, ::step]), likelihood.level)
    none = sources.new_zeros(1, 1, 1, 1)
    state = likelihood.init(sources, scene=Scene(overall, none))
    moved = none
    if likelihood.align:
        start = _pooled(mixture(state.sources, state.maps)[..., ::step, ::step])
        low, high = (quantile_of_all(start, q) for q in ENDS)
        moved = shift(low, high)
        state = dataclasses.replace(state, sources=state.sources + moved)
    single = dataclasses.replace(likelihood, sweeps=1)
    f, gammas = likelihood.start(state), []
    for _ in range(iterations):
        f, state = single.step(f, state, 0.0)
        gammas.append(state.gamma.mean(0, keepdim=True))
        state = dataclasses.replace(state, gamma=gammas[-1].expand_as(state.gamma))
    return Scene(overall, moved, tuple(gammas))


def _pooled(values: Tensor) -> Tensor:
    """(N, K, h, w) -> (1, K, N h, w)."""
    return values.transpose(0, 1).flatten(1, 2)[None]


def follow(old: Scene, new: Scene, memory: float) -> Scene:
    """``memory`` of the old scene and the rest of the new one."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return memory * a + (1 - memory) * b

    overall = Overall(mean(old.overall.level, new.overall.level), mean(old.overall.white, new.overall.white))
    gammas = tuple(mean(a, b) for a, b in zip(old.gammas, new.gammas, strict=True))
    return Scene(overall, mean(old.shift, new.shift), gammas)


class SceneFuser:
    """Fuses frames or slices of one scene so that the result does not flicker.

    memory: what levels and scales keep of the earlier frames at each new one, 0 (every frame its own) to 1 (as they
    were learned, or as the first frame has them). carry: how far EM begins at the last fused frame instead of at the
    mixture of the sources, 0 to 1.

    Levels and scales are shared with the package's own likelihood and a warm start; with other settings (``paper``,
    ``released``) the noise field alone is. Raises DDFMError for a value out of range.
    """

    def __init__(self, fuser: Fuser, memory: float = 1.0, carry: float = 0.0) -> None:
        check_range("memory", memory, 0, 1)
        check_range("carry", carry, 0, 1)
        self.fuser, self.memory, self.carry = fuser, memory, carry
        # ranges and transforms that the first picture shows stay, beyond cuts too: the cameras are the same
        self._preparation = fuser.config.preparation
        self.reset()

    def settle(self, gathered: Gathered) -> None:
        """Take ranges and transforms from these pictures, for all that come."""
        self._preparation = self._preparation.settled(gathered)

    def reset(self) -> None:
        """Forget everything but ranges and transforms: at a cut of a film."""
        self._preset: Preset | None = None
        self._scene: Scene | None = None
        self._ends: tuple[float, float] | None = None
        self._last: Tensor | None = None
        self.noise: tuple[float, ...] = ()

    def learn(self, frames: Sequence[Sequence[Source]]) -> None:
        """Levels, scales, noise and the ends of a stretch from a sample of the frames, each of K sources of one size.

        Too large a sample is thinned evenly. Raises DDFMError as ``Fuser.fuse``, and for an empty sample.
        """
        if not frames:
            raise problem("frames", "none", "a sample of frames to learn from")
        self.reset()
        height, width = self._open(frames[len(frames) // 2])[0].size  # the ends of a volume may be empty
        keep = min(len(frames), max(1, MOST_PIXELS // (height * width)))
        chosen = [frames[round(n)] for n in np.linspace(0, len(frames) - 1, keep)]
        lumas = [[to_luma(image) for image in self._open(frame)] for frame in chosen]
        self._settle(lumas)
        assert self._preset
        if self._sharing(self._preset):
            stack = torch.cat([torch.cat(frame, 1) for frame in lumas]) * 2 - 1
            self._scene = learn_scene(self._preset.likelihood, stack, self._iterations)  # type: ignore[arg-type]
        if self.fuser.tone != "none":
            fused = [self._sample(frame) for frame in lumas]
            self._ends = stretch_ends(torch.cat(fused, -2), self.fuser.tone)

    def fuse(self, *sources: Source) -> np.ndarray:
        """One frame, float32 (H, W) or (H, W, 3) in [0, 1], from K sources as ``Fuser.fuse`` takes them."""
        images = self._open(sources)
        lumas = [to_luma(image) for image in images]
        if self._preset is None:
            self._settle([lumas])
        luma = self._sample(lumas)
        ends = self._follow_ends(luma)
        assert self._preset
        planes = [color.Plane(image.data) for image in images]
        return put_color(stretch_to(luma, ends), planes, self._preset.chroma)

    def _open(self, sources: Sequence[Source]) -> list[Image]:
        self.fuser.config.check_count(len(sources))
        gathered = self._preparation.gather(sources)
        self.settle(gathered)
        images = gathered.images
        if self._preset is None:
            check_memory(*images[0].size, self.fuser.bytes_needed(*images[0].size))
        return images

    def _settle(self, frames: list[list[Tensor]]) -> None:
        """The preset for this scene; its noise is the median over the frames."""
        found = [self.fuser.settle(lumas) for lumas in frames]
        levels = [noise for _, noise in found if noise]
        self.noise = tuple(statistics.median(values) for values in zip(*levels, strict=True)) if levels else ()
        if len(found) == 1 or not any(self.noise):
            quiet = [preset for preset, noise in found if not any(noise)]
            self._preset = (quiet or [found[0][0]])[0]
        else:
            noisy = dataclasses.replace(self.fuser.preset, noise_std=self.noise)
            self._preset = settled(noisy, frames[0])[0]

    def _sharing(self, preset: Preset) -> bool:
        """Whether frames can share levels and scales with these settings."""
        return isinstance(preset.likelihood, FusionLikelihood) and preset.start is not None

    @property
    def _iterations(self) -> int:
        preset = self._preset
        assert preset and isinstance(preset.likelihood, FusionLikelihood)
        return (preset.warm_sweeps + preset.steps) * preset.likelihood.sweeps

    def _sample(self, lumas: list[Tensor]) -> Tensor:
        """The fused luma before its stretch, (1, 1, H, W); levels and scales follow it."""
        assert self._preset
        preset = self._preset
        if not self._sharing(preset):
            return self.fuser.sample(lumas, preset, self.fuser.config.seed).unclipped
        if self._scene:
            likelihood: Any = InScene(preset.likelihood, self._scene, self._first(preset, lumas))  # type: ignore[arg-type]
            preset = dataclasses.replace(preset, likelihood=likelihood)
        out = self.fuser.sample(lumas, preset, self.fuser.config.seed)
        own: Scene = out.state.own
        self._scene = follow(self._scene, own, self.memory) if self._scene else own
        self._last = out.unclipped * 2 - 1
        return out.unclipped

    def _first(self, preset: Preset, lumas: list[Tensor]) -> Tensor | None:
        """Where EM begins: part of the last fused frame, the rest this frame's mixture."""
        if not self.carry or self._last is None or self._last.shape != lumas[0].shape:
            return None
        likelihood = preset.likelihood
        assert isinstance(likelihood, FusionLikelihood)
        state = likelihood.init(torch.cat(lumas, 1) * 2 - 1, scene=self._scene)
        return self.carry * self._last + (1 - self.carry) * likelihood.start(state)

    def _follow_ends(self, luma: Tensor) -> tuple[float, float]:
        """The ends of the stretch, followed as the scales are."""
        if self.fuser.tone == "none":
            return 0.0, 1.0
        own = stretch_ends(luma, self.fuser.tone)
        old = self._ends or own
        self._ends = (
            self.memory * old[0] + (1 - self.memory) * own[0],
            self.memory * old[1] + (1 - self.memory) * own[1],
        )
        return self._ends
