"""Infrared-visible and medical image fusion by diffusion posterior sampling (DDFM).

``import ddfm`` is cheap: torch and diffusers are imported at the first use of a name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddfm import metrics, samples
    from ddfm._checks import DDFMError, DDFMWarning
    from ddfm.explaining import Explanation, explain
    from ddfm.fusion import FuseConfig, Fused, Fuser, fuse
    from ddfm.likelihood import FusionLikelihood, FusionState
    from ddfm.pipeline import DDFMOutput, DDFMPipeline
    from ddfm.presets import PRESETS, Preset
    from ddfm.priors import load_prior
    from ddfm.saliency import LocalSaliency, StrongestGradient

__version__ = "0.1.0"

_HOMES = {
    "DDFMError": "_checks",
    "DDFMOutput": "pipeline",
    "DDFMPipeline": "pipeline",
    "DDFMWarning": "_checks",
    "Explanation": "explaining",
    "FuseConfig": "fusion",
    "Fused": "fusion",
    "Fuser": "fusion",
    "FusionLikelihood": "likelihood",
    "FusionState": "likelihood",
    "LocalSaliency": "saliency",
    "PRESETS": "presets",
    "Preset": "presets",
    "StrongestGradient": "saliency",
    "explain": "explaining",
    "fuse": "fusion",
    "load_prior": "priors",
}
_ROOMS = ("metrics", "samples")

__all__ = [
    "PRESETS",
    "DDFMError",
    "DDFMOutput",
    "DDFMPipeline",
    "DDFMWarning",
    "Explanation",
    "FuseConfig",
    "Fused",
    "Fuser",
    "FusionLikelihood",
    "FusionState",
    "LocalSaliency",
    "Preset",
    "StrongestGradient",
    "__version__",
    "explain",
    "fuse",
    "load_prior",
    "metrics",
    "samples",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"ddfm.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"ddfm.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ddfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
