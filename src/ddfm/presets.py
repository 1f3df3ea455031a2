"""Named settings. A preset has a version: a change of any number below gives it a new one.

``paper`` is Algorithm 1 as derived in docs/method.md, which collapses to one source or to speckle with a small prior.
``balanced``, ``fast`` and ``medical`` use the generalised likelihood. On clean sources every evaluation of the network
that was tried made their result worse (docs/experiments.md, the ladder), so they spend theirs where noise is found.
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
#: Most network evaluations of a warm start that draws no noise.
QUIET = 2


@dataclasses.dataclass(frozen=True)
class Preset:
    """Everything that shapes a picture, but prior, seed and sources.

    steps: network evaluations on the fused image; 0, with a warm start, is EM alone. start: timestep of a warm start,
    None for pure noise. warm_sweeps: likelihood steps before it. sampler: see ``ddfm.sampling.SAMPLERS``. dtype: of the
    network. summary: for people. luma, start_noise: see ``DDFMPipeline``. tone: stretch of the result, where the user
    names none. noise_std, draws: see ``ddfm.noisy``. chroma: of several coloured sources, that of the "last" or of
    "all": see ``color.stack_chroma``.
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
    chroma: str = later("last")

    @property
    def label(self) -> str:
        """Such as ``balanced@1``."""
        return f"{self.name}@{self.version}"

    def with_steps(self, steps: int) -> Preset:
        """The same with another number of network evaluations, 1 to 1000; 0 with a warm start.

        After a warm start they take the place of EM steps, of which one is left. Up to ``QUIET`` of them begin at noise
        of a grey level or two, none of it drawn; more begin 10 timesteps higher for each, and all of it is drawn.
        """
        check_range("steps", steps, 1 if self.start is None else 0, 1000)
        if self.start is None or steps == self.steps:
            return dataclasses.replace(self, steps=steps)
        warm = max(1, self.warm_sweeps + self.steps - steps)
        quiet = steps <= QUIET
        start = max(steps - 1, 0) if quiet else min(999, 10 * (steps - 1))
        return dataclasses.replace(self, steps=steps, start=start, start_noise=0.0 if quiet else 1.0, warm_sweeps=warm)

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


#: Pictures of one camera, exposed or focused differently: where there is most detail, there the picture is right.
_STACK = FusionLikelihood(
    psi=250.0,
    eta=80.0,
    reach=5.0,
    sweeps=2,
    scale_maps=LocalSaliency(bright=0.0, dark=0.0, power=2.0, glare=0.0),
    texture=StrongestGradient(),
    align=1.0,
)


def _em(
    name: str,
    version: int,
    likelihood: FusionLikelihood,
    summary: str,
    noise: str | None,
    draws: int = 0,
    chroma: str = "last",
) -> Preset:
    """Three EM steps and the prior for noise only: docs/experiments.md says why."""
    settings: dict[str, Any] = {"start": 0, "start_noise": 0.0, "warm_sweeps": 3, "noise_std": noise, "draws": draws}
    settings["chroma"] = chroma
    return Preset(name, version, 0, likelihood, summary=summary, **settings)


PRESETS = {
    preset.name: preset
    for preset in (
        _em("balanced", 4, _INFRARED, "the default, for thermal and visible; noise is found and removed", "auto", 4),
        _em("fast", 4, _INFRARED, "the same, one network evaluation for each noisy source", "auto", 1),
        _em("medical", 2, _MEDICAL, "for CT, PET or SPECT with MRI; noise is removed when asked", None),
        _em("stack", 2, _STACK, "exposures or focus stacks of one camera, two or more", "auto", 4, chroma="all"),
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
