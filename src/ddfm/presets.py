"""Named settings. A preset has a version: a change of any number below gives it a new one.

``paper`` is Algorithm 1 as derived in docs/method.md. ``balanced`` and ``fast`` use the generalised likelihood and
a warm start, because Algorithm 1 taken literally collapses to one source or to speckle with a small prior.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from ddfm._checks import check_choice, check_range
from ddfm._provenance import later, settings_of
from ddfm.likelihood import FusionLikelihood, Likelihood
from ddfm.released import ReleasedLikelihood
from ddfm.saliency import LocalSaliency, StrongestGradient

__all__ = ["DEFAULT_PRESET", "MEDICAL", "PRESETS", "Preset", "get_preset", "settings_hash"]

DEFAULT_PRESET = "balanced"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything that shapes a picture, but prior, seed and sources.

    steps: network evaluations. start: timestep of a warm start, None for pure noise. warm_sweeps: likelihood steps
    before it. sampler: see ``ddfm.sampling.SAMPLERS``. dtype: of the network. summary: for people. luma, start_noise:
    see ``DDFMPipeline``. tone: stretch of the result, where the user names none. noise_std, draws: see ``ddfm.noisy``.
    """

    name: str
    version: int
    steps: int
    likelihood: Likelihood
    sampler: str = "ddim"
    start: int | None = None
    warm_sweeps: int = 0
    dtype: str = "float32"
    summary: str = ""
    luma: str = later("full")
    tone: str = later("none")
    start_noise: float = later(1.0)
    noise_std: str | tuple[float, ...] | None = later(None)
    draws: int = later(0)

    @property
    def label(self) -> str:
        """Such as ``balanced@1``."""
        return f"{self.name}@{self.version}"

    def with_steps(self, steps: int) -> Preset:
        """The same with another number of network evaluations, 1 to 1000.

        A warm start too short for them begins with more noise, 10 timesteps for each step after the first, and all of
        it is drawn.
        """
        check_range("steps", steps, 1, 1000)
        if self.start is None or steps <= self.start + 1:
            return dataclasses.replace(self, steps=steps)
        start = min(999, max(10 * (steps - 1), self.start))
        return dataclasses.replace(self, steps=steps, start=start, start_noise=1.0)

    def settings(self) -> dict[str, Any]:
        """Plain values for JSON; callables by their class and fields."""
        plain = settings_of(self)
        del plain["class"], plain["summary"]
        return plain


def settings_hash(settings: dict[str, Any], weights_sha256: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of settings and weights: equal hashes, equal pictures."""
    text = json.dumps(settings, sort_keys=True) + weights_sha256
    return hashlib.sha256(text.encode()).hexdigest()[:16]


#: Thermal and visible: levels brought together, saliency decides what is bright, the visible's texture favoured.
_INFRARED = FusionLikelihood(
    psi=250.0,
    eta=80.0,
    reach=5.0,
    sweeps=2,
    scale_maps=LocalSaliency(),
    texture=StrongestGradient(gains=(1.0, 3.5), power=0.5),
    align=0.7,
)


#: A scan and an MRI: black stays black, so levels move less, and what is brighter than most of the scene counts.
_MEDICAL = FusionLikelihood(
    psi=250.0,
    eta=80.0,
    reach=8.0,
    sweeps=1,
    scale_maps=LocalSaliency(detail=0.0, power=1.4, glare=0.0),
    texture=StrongestGradient(gains=(1.0, 1.6)),
    level=0.64,
    align=0.3,
)


def _warm(name: str, version: int, steps: int, warm: int, likelihood: FusionLikelihood, summary: str) -> Preset:
    """From EM alone at noise of 1 or 2 grey levels, none of which is drawn: docs/experiments.md says why."""
    return Preset(name, version, steps, likelihood, start=steps - 1, start_noise=0.0, warm_sweeps=warm, summary=summary)


PRESETS = {
    preset.name: preset
    for preset in (
        _warm("balanced", 3, 2, 1, _INFRARED, "the default, for thermal and visible"),
        _warm("fast", 3, 1, 1, _INFRARED, "the same with one network evaluation"),
        _warm("medical", 1, 1, 2, _MEDICAL, "for CT, PET or SPECT with MRI"),
        Preset(
            "paper",
            version=1,
            steps=100,
            likelihood=FusionLikelihood(),
            summary="Algorithm 1 to the letter; collapses with a small prior (docs/method.md)",
        ),
        Preset(
            "released",
            version=1,
            steps=100,
            likelihood=ReleasedLikelihood(),
            luma="studio",
            tone="minmax",
            summary="the authors' released code, quirks and all (docs/math.md); stretched as theirs",
        ),
    )
}


#: What to take for medical images in place of settings for thermal and visible.
MEDICAL = {"balanced": "medical", "fast": "medical"}


def get_preset(name: str) -> Preset:
    """The preset of that name, also as ``name@version``; DDFMError for another name or version."""
    labels = {p.label: p for p in PRESETS.values()}
    if name in labels:
        return labels[name]
    return PRESETS[check_choice("preset", name, tuple(PRESETS))]
