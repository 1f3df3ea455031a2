"""What a user may choose of a fusion, checked before any work."""

from __future__ import annotations

import dataclasses
import numbers
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddfm._checks import check_choice, problem
from ddfm.io import encode_image
from ddfm.io.ranges import Range, parse_ranges
from ddfm.noise import check_noise_std
from ddfm.noisy import with_noise
from ddfm.opening import Preparation
from ddfm.presets import DEFAULT_PRESET, Preset, get_preset
from ddfm.registration import ALIGNS, Transform, load_transforms

__all__ = ["DTYPES", "TONES", "FuseConfig", "check_device"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TONES = ("none", "minmax", "percentile")


@dataclasses.dataclass(frozen=True)
class FuseConfig:
    """What a user may choose. None means: as the preset says.

    preset: see ``ddfm.presets``. prior: "bundled" or a prior's folder. steps: network evaluations. seed: any integer.
    device: "auto" (CUDA if there is one, else CPU), "cpu", "cuda", "cuda:1", "mps". dtype: of the network.
    tone: stretch of the fused luma, "none", "minmax" or "percentile" (0.5 to 99.5). bit_depth: of the file, 8 or 16.
    tile: pixels a side that the network sees at once, 0 for the whole image; None: ``AUTO_TILE`` where the image has
    more than ``AUTO_PIXELS``, ``HEAVY_TILE`` above ``HEAVY_PIXELS`` for a network as large as ADM.
    compile: the network, by ``torch.compile``; see ``DDFMPipeline.compile_network``.
    noise_std: standard deviation of the sources' noise on [0, 1], one value for all or one for each, or "auto" to
    estimate it, as some presets do unasked; 0 for none; also as text, "0.06,0.02". Where there is noise, ``steps``
    counts the network evaluations for each noisy source.
    align: "none", or the kind of transform that brings every source onto the grid of the last one: "resize",
    "translation", "affine", "homography" (estimated, refused where it cannot be trusted). transform: instead of that, a
    file of ``save_transform``, or ``Transform`` objects, one for each source but the last.
    range: which values are black and white, "auto", "full", "LOW:HIGH" or "pLOW:pHIGH", for all sources but
    those of 8 bits and of floats in [0, 1], or one for each with commas between; None: full, but auto for 16-bit counts
    that use little of it.
    clahe: local contrast of the sources of more than 8 bits.
    """

    preset: str = DEFAULT_PRESET
    prior: str = "bundled"
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    tone: str | None = None
    bit_depth: int = 8
    tile: int | None = None
    compile: bool = False
    noise_std: float | str | tuple[float, ...] | None = None
    align: str = "none"
    transform: str | Path | Transform | tuple[Transform, ...] | None = None
    range: str | tuple[Range, ...] | None = None
    clahe: bool = False

    def __post_init__(self) -> None:
        for name in ("device", "dtype"):  # torch's own objects will do: torch.device("cpu"), torch.float32
            value = getattr(self, name)
            if isinstance(value, torch.device | torch.dtype):
                object.__setattr__(self, name, str(value).removeprefix("torch."))
        for name in ("seed", "bit_depth", "steps", "tile"):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole and not (name in ("steps", "tile") and value is None):
                raise problem(name, repr(value), "a whole number")
        for name in ("preset", "tone", "device", "align"):
            if not isinstance(getattr(self, name), str) and not (name == "tone" and self.tone is None):
                raise problem(name, repr(getattr(self, name)), "a name")
        if not isinstance(self.prior, str | Path):
            raise problem("prior", repr(self.prior), '"bundled" or a folder')
        for name in ("compile", "clahe"):
            if not isinstance(getattr(self, name), bool):
                raise problem(name, repr(getattr(self, name)), "True or False")
        object.__setattr__(self, "noise_std", check_noise_std(self.noise_std))
        object.__setattr__(self, "range", parse_ranges(self.range))
        object.__setattr__(self, "transform", _transforms(self.transform))
        check_choice("align", self.align, ALIGNS)
        if self.transform and self.align != "none":
            raise problem(
                "align", f"{self.align!r} beside a transform", "one of the two", "A transform knows its kind."
            )

    @property
    def preparation(self) -> Preparation:
        """What is done to sources before they are fused."""
        given = self.transform if isinstance(self.transform, tuple) else ()
        ranges = self.range if isinstance(self.range, tuple) else None
        return Preparation(ranges, self.clahe, self.align, given)

    def resolve(self) -> Preset:
        """The preset with the overrides put in, all checked. Raises DDFMError."""
        preset = get_preset(self.preset)
        check_choice("tone", self.tone or preset.tone, TONES)
        check_choice("dtype", self.dtype or preset.dtype, tuple(DTYPES))
        if self.bit_depth not in (8, 16):
            raise problem("bit_depth", self.bit_depth, "8 or 16")
        preset = with_noise(preset, self.noise_std, self.steps)
        if preset.noise_std is None and self.steps is not None:
            preset = preset.with_steps(self.steps)
        check_device(self.device)
        return dataclasses.replace(preset, dtype=self.dtype or preset.dtype)

    def check_count(self, count: int) -> None:
        """Refuse, before any work, noise, ranges, transforms for another number of sources. Raises DDFMError."""
        self.preparation.check_count(count)
        if isinstance(self.noise_std, tuple) and len(self.noise_std) not in (1, count):
            raise problem("noise_std", f"{len(self.noise_std)} values", f"one, or {count}, one for each source")

    def check_format(self, suffix: str) -> None:
        """Refuse, before any work, a file format that cannot hold the result. Raises DDFMError."""
        encode_image(np.zeros((1, 1), np.float32), suffix, bit_depth=self.bit_depth)


def _transforms(given: Any) -> tuple[Transform, ...] | None:
    """A transform, several, or the file they are in. Raises DDFMError."""
    if given is None or isinstance(given, str | Path):
        return None if given is None else load_transforms(given)
    several = (given,) if isinstance(given, Transform) else given
    if not isinstance(several, list | tuple) or not several or not all(isinstance(x, Transform) for x in several):
        raise problem("transform", type(given).__name__, "a file, a ddfm.registration.Transform or a tuple of them")
    return tuple(several)


def check_device(name: str) -> torch.device:
    """The torch device behind a name; DDFMError when it is unknown or not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["cpu"] + [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    known += ["mps"] if torch.backends.mps.is_available() else []
    if name not in known and not (name == "cuda" and len(known) > 1):
        remedy = "" if len(known) > 1 else "torch finds no GPU here; see: ddfm doctor."
        raise problem("device", repr(name), f"auto or one of {', '.join(known)}", remedy)
    return torch.device(name)
