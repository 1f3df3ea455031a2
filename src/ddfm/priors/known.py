"""Priors known by name that are fetched once, and the cache where they then lie."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

__all__ = ["KNOWN", "KnownPrior", "cache_folder", "cached"]


@dataclasses.dataclass(frozen=True)
class KnownPrior:
    """A published checkpoint: where it is, what it must be, and how it is converted."""

    name: str
    url: str
    size: int  # bytes
    sha256: str
    head_channels: int
    schedule: str
    licence: str
    what: str


KNOWN = {
    "adm-imagenet-256": KnownPrior(
        name="adm-imagenet-256",
        url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
        size=2_211_383_297,
        sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        head_channels=64,
        schedule="linear",
        licence="MIT (OpenAI guided-diffusion, 256x256_diffusion_uncond.pt)",
        what="the paper's prior: ADM, unconditional, ImageNet 256x256, 552.8 M parameters, RGB",
    )
}


def cache_folder() -> Path:
    """``DDFM_CACHE``, or ddfm in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    if named := os.environ.get("DDFM_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddfm"


def cached(name: str) -> Path:
    """Where a known prior lies once it is fetched and converted."""
    return cache_folder() / "priors" / name
