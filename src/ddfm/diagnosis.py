"""``ddfm doctor``: what is installed, what it runs on, and whether the bundled weights are whole."""

from __future__ import annotations

import json
from importlib.util import find_spec

from ddfm._checks import DDFMError
from ddfm._provenance import machine, versions
from ddfm.presets import PRESETS
from ddfm.priors import BUNDLED, prior_info

__all__ = ["EXTRAS", "diagnose"]

#: Extras for users, and the modules that each brings.
EXTRAS = {
    "align": ("cv2",),
    "app": ("gradio",),
    "medical": ("nibabel", "pydicom", "SimpleITK"),
    "metrics": ("torchmetrics",),
    "report": ("matplotlib",),
    "video": ("av",),
}


def diagnose() -> tuple[dict[str, str], list[str]]:
    """Facts by name, and what is wrong (an empty list when all is well)."""
    import torch

    facts = {**versions(), **{k: str(v) for k, v in machine().items()}}
    facts["threads"] = str(torch.get_num_threads())
    cuda = torch.cuda.is_available()
    facts["device"] = torch.cuda.get_device_name() if cuda else "cpu"
    facts["dtype"] = _dtypes()
    facts["extras"] = _extras()
    problems = [f"{p} is not installed" for p, v in facts.items() if v == "missing"]
    try:
        facts |= _bundled(problems)
    except DDFMError as error:
        problems.append(str(error))
    return facts, problems


def _extras() -> str:
    """Which extras are installed whole, and which are not: "align, video; not: app"."""
    there = {name: all(find_spec(module) for module in modules) for name, modules in EXTRAS.items()}
    absent = [name for name, found in there.items() if not found]
    return ", ".join(name for name, found in there.items() if found) + f"; not: {', '.join(absent)}" * bool(absent)


def _dtypes() -> str:
    """Which presets compute in which dtype: "float32 (balanced, fast)"."""
    names: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        names.setdefault(preset.dtype, []).append(name)
    return ", ".join(f"{dtype} ({', '.join(users)})" for dtype, users in names.items())


def _bundled(problems: list[str]) -> dict[str, str]:
    info = prior_info("bundled")
    expected = json.loads((BUNDLED / "card.json").read_text("utf-8"))["sha256"]
    if info["sha256"] != expected:
        problems.append("the bundled weights are damaged: reinstall ddfm")
    return {
        "prior": f"bundled, {info['parameters']:,} parameters, {info['bytes'] / 1e6:.1f} MB",
        "prior sha256": info["sha256"],
        "prior licence": info["licence"],
    }
