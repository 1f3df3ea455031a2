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
from ddfm.likelihood import FusionLikelihood, Likelihood
from ddfm.released import ReleasedLikelihood
from ddfm.saliency import LocalSaliency, StrongestGradient

__all__ = ["DEFAULT_PRESET", "PRESETS", "Preset", "get_preset", "settings_hash"]

DEFAULT_PRESET = "balanced"


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything that shapes a picture, but prior, seed and sources.

    steps: network evaluations. start: timestep of a warm start, None for pure noise. warm_sweeps: EM iterations
    before it. sampler: see ``ddfm.sampling.SAMPLERS``. dtype: of the network. summary: for people.
    luma: see ``DDFMPipeline``. tone: stretch of the result, where the user names none. noise_std, draws: see
    ``ddfm.noisy``.
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
    luma: str = "full"
    tone: str = "none"
    noise_std: str | tuple[float, ...] | None = None
    draws: int = 0

    @property
    def label(self) -> str:
        """Such as ``balanced@1``."""
        return f"{self.name}@{self.version}"

    def with_steps(self, steps: int) -> Preset:
        """The same with another number of network evaluations, 1 to 1000.

        A warm start too short for them begins with more noise, 10 timesteps for each step after the first.
        """
        check_range("steps", steps, 1, 1000)
        start = self.start
        if start is not None and steps > start + 1:
            start = min(999, max(10 * (steps - 1), start))
        return dataclasses.replace(self, steps=steps, start=start)

    def settings(self) -> dict[str, Any]:
        """Plain values for JSON; callables by their class and fields."""
        plain: dict[str, Any] = _plain(self)
        del plain["summary"]
        for later in (
            "luma",
            "tone",
            "noise_std",
            "draws",
        ):  # left out at their defaults, so that hashes from before them stay
            if plain[later] == getattr(Preset, later):
                del plain[later]
        return plain


def _plain(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return fields if isinstance(value, Preset) else {"class": type(value).__name__, **fields}


def settings_hash(settings: dict[str, Any], weights_sha256: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of settings and weights: equal hashes, equal pictures."""
    text = json.dumps(settings, sort_keys=True) + weights_sha256
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_SALIENCY = LocalSaliency()


def _general(eta: float, gain: float) -> FusionLikelihood:
    """Saliency decides what is bright, a weighed comparison of gradients whose texture is taken.

    Texture is the visible image's wherever it has any: lengths are compared over a neighbourhood, ``gain`` to 1. On
    a hot target the saliency outweighs that, so that a person keeps its outline.
    """
    texture = StrongestGradient(gains=(1.0, gain), sigma=6.0, saliency=_SALIENCY, power=0.35)
    return FusionLikelihood(psi=50.0, eta=eta, sweeps=3, scale_maps=_SALIENCY, texture=texture)


PRESETS = {
    preset.name: preset
    for preset in (
        # t0 = 1 is noise of 2 grey levels: on clean sources more of it costs texture (docs/results.md).
        # eta and gain: what keeps both sources on all development folders, tuned for each preset's number of sweeps
        Preset(
            "balanced",
            version=2,
            steps=2,
            likelihood=_general(eta=74.0, gain=7.0),
            start=1,
            warm_sweeps=1,
            summary="the default: saliency and strongest texture, short warm start",
        ),
        Preset(
            "fast",
            version=2,
            steps=1,
            likelihood=_general(eta=78.0, gain=8.0),
            start=1,
            warm_sweeps=2,
            summary="one network evaluation",
        ),
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


def get_preset(name: str) -> Preset:
    """The preset of that name, also as ``name@version``; DDFMError for another name or version."""
    labels = {p.label: p for p in PRESETS.values()}
    if name in labels:
        return labels[name]
    return PRESETS[check_choice("preset", name, tuple(PRESETS))]
