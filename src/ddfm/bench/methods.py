"""What a benchmark compares: baselines, EM alone, presets, the paper's ablations, and folders of results."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.admm import AdmmLikelihood
from ddfm.bench import baselines
from ddfm.datasets import PairedData
from ddfm.fusion import FuseConfig, Fuser
from ddfm.likelihood import FusionLikelihood, em_alone
from ddfm.presets import MEDICAL, PRESETS, Preset, get_preset
from ddfm.priors import prior_info

__all__ = ["ABLATIONS", "BASELINES", "Method", "ablations", "get_methods", "grid"]

Fusion = Callable[[Tensor, Tensor], Tensor]

#: Rows that no table may lack, by name.
BASELINES: dict[str, Fusion] = {
    "average": baselines.average,
    "maximum": baselines.maximum,
    "laplacian": baselines.laplacian_pyramid,
    "copy-A": baselines.copy_infrared,
    "copy-B": baselines.copy_visible,
}
#: The paper's Table 2, by its numerals.
ABLATIONS = {
    "I": "no diffusion: EM alone for as many iterations",
    "II": "no texture term (TV)",
    "III": "no Bayesian inference: phi = 0.1, ADMM",
    "IV": "no Bayesian inference: phi = 1, ADMM",
    "full": "nothing left out",
}


@dataclasses.dataclass(frozen=True)
class Method:
    """name: for tables. settings: all that shapes its pictures. fuse: (A, B) (1, 1, H, W) in [0, 1] -> the same.

    folder: where finished results lie, in place of ``fuse``. scans: what runs under this name on medical images.
    """

    name: str
    settings: dict[str, Any]
    fuse: Fusion | None = None
    folder: Path | None = None
    scans: Method | None = None

    def on(self, data: PairedData) -> Method:
        """What runs on that data set."""
        return self.scans if self.scans and data.medical else self


def get_methods(names: Sequence[str], config: FuseConfig | None = None) -> list[Method]:
    """Methods by name: a baseline, "em-only" (of balanced) or "em-only:PRESET", a preset, or NAME=FOLDER for results.

    On medical images ``balanced``, ``fast`` and "em-only" run the settings that ``MEDICAL`` names.

    ``config``: prior, seed, device and steps of the presets. Raises DDFMError for an unknown name or folder.
    """
    config = config or FuseConfig()
    found = [_one(name, config) for name in names]
    doubled = sorted({m.name for m in found if sum(o.name == m.name for o in found) > 1})
    if doubled:
        raise problem("--method", f"{', '.join(doubled)} twice", "each method once")
    return found


def _one(name: str, config: FuseConfig) -> Method:
    if "=" in name:
        label, _, folder = name.partition("=")
        if not label or not Path(folder).is_dir():
            raise problem("--method", repr(name), "NAME=FOLDER with an existing folder of results")
        return Method(label, {"method": "folder"}, folder=Path(folder))
    if name in BASELINES:
        return Method(name, {"method": name}, BASELINES[name])
    if name.partition(":")[0] == "em-only":
        return _with_scans(name.partition(":")[2] or "balanced", lambda preset: _em(name, preset), get_preset)
    short = name.split("@")[0]
    if short not in PRESETS:
        check_choice("--method", name, (*BASELINES, "em-only", "em-only:PRESET", *PRESETS, "NAME=FOLDER"))
    return _with_scans(
        name,
        lambda preset: by_preset(short, preset, config),
        lambda chosen: dataclasses.replace(config, preset=chosen).resolve(),
    )


def _with_scans(name: str, make: Callable[[Preset], Method], resolve: Callable[[str], Preset]) -> Method:
    """The method of a preset, and beside it that of the preset that stands for it on medical images."""
    method, other = make(resolve(name)), MEDICAL.get(name.split("@")[0])
    return dataclasses.replace(method, scans=make(resolve(other))) if other else method


def by_preset(name: str, preset: Preset, config: FuseConfig) -> Method:
    """A method that runs ``preset``; the prior is loaded at its first picture, and shared."""
    prior = prior_info(config.prior)
    settings = {
        "method": "diffusion",
        "preset": preset.settings(),
        "seed": config.seed,
        "prior": {key: prior[key] for key in ("name", "sha256")},
    }
    return Method(name, settings, lambda a, b: _fuser(config, preset)(a, b))


@functools.lru_cache(maxsize=2)
def _fuser(config: FuseConfig, preset: Preset) -> Fusion:
    fuser = Fuser(config, preset)
    return lambda a, b: torch.from_numpy(fuser.fuse(a[0, 0].float(), b[0, 0].float()).data)[None, None]


def _em(name: str, preset: Preset) -> Method:
    """EM without the prior, for as many likelihood steps as the preset makes."""
    count = preset.warm_sweeps + preset.steps

    def fuse(a: Tensor, b: Tensor) -> Tensor:
        stack = torch.cat([a, b], 1).float() * 2 - 1
        f, _ = em_alone(preset.likelihood, stack, count)
        return (f.clamp(-1, 1) + 1) / 2

    likelihood = preset.settings()["likelihood"]
    return Method(name, {"method": "em-only", "iterations": count, "likelihood": likelihood}, fuse)


def ablations(preset: Preset, config: FuseConfig) -> list[Method]:
    """Rows I to IV and "full" of the paper's Table 2, for any preset with the Bayesian likelihood."""
    likelihood = bayesian(preset)
    without_tv = dataclasses.replace(likelihood, psi=0.0)
    variants = {
        "II": dataclasses.replace(preset, likelihood=without_tv),
        "III": dataclasses.replace(preset, likelihood=AdmmLikelihood(0.1, likelihood.psi)),
        "IV": dataclasses.replace(preset, likelihood=AdmmLikelihood(1.0, likelihood.psi)),
        "full": preset,
    }
    rows = [by_preset(name, variant, config) for name, variant in variants.items()]
    return [_em("I", preset), *rows]


def grid(preset: Preset, psis: Sequence[float], etas: Sequence[float], config: FuseConfig) -> list[Method]:
    """One method for each psi and eta, named ``psi=..,eta=..``."""
    likelihood = bayesian(preset)
    return [
        by_preset(
            f"psi={psi:g},eta={eta:g}",
            dataclasses.replace(preset, likelihood=dataclasses.replace(likelihood, psi=psi, eta=eta)),
            config,
        )
        for psi in psis
        for eta in etas
    ]


def bayesian(preset: Preset) -> FusionLikelihood:
    """The preset's likelihood, if it is the one with psi and eta. Raises DDFMError."""
    if not isinstance(preset.likelihood, FusionLikelihood):
        raise DDFMError(f"preset: got {preset.name}, whose likelihood has no psi and eta. Choose another.")
    return preset.likelihood
