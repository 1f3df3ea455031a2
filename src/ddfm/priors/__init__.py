"""Where priors come from: "bundled", or a folder that ``DDFMPipeline.save_pretrained`` wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ddfm._checks import DDFMError, check_choice, problem

__all__ = ["BUNDLED", "Prior", "load_prior", "prior_folder", "prior_info", "weights_sha256"]

#: The folder of package data with the bundled prior's weights, settings and model card.
BUNDLED = Path(__file__).parent / "bundled"
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


class Prior(NamedTuple):
    """The arguments of ``DDFMPipeline``."""

    unet: Any
    scheduler: Any
    color: str
    unshuffle: int


def prior_folder(name: str | Path) -> Path:
    """The folder behind a name; DDFMError when there is none or it holds no prior."""
    if not isinstance(name, str | Path):
        raise problem("prior", repr(name), '"bundled" or a folder')
    folder = BUNDLED if str(name) == "bundled" else Path(name)
    if not folder.is_dir():
        raise problem("prior", repr(str(name)), '"bundled" or an existing folder', "See: ddfm prior list")
    for needed in (Path("model_index.json"), WEIGHTS, Path("scheduler/scheduler_config.json")):
        if not (folder / needed).is_file():
            raise problem("prior", folder, f"a prior's folder with {needed}", "Is it complete?")
    return folder


def load_prior(name: str | Path = "bundled", dtype: Any = None) -> Prior:
    """Load network and scheduler; never from a pickle, never from the network.

    ``dtype``: of the network, float32 by default whatever the file holds. Raises DDFMError for a folder that is not
    a prior or that cannot be read.
    """
    folder = prior_folder(name)
    import diffusers
    import torch

    index = read_index(folder)
    try:
        scheduler_class = getattr(diffusers, index["scheduler"][1])
        unet = diffusers.UNet2DModel.from_pretrained(
            folder / "unet",
            torch_dtype=dtype or torch.float32,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            local_files_only=True,
        )
        scheduler = scheduler_class.from_pretrained(folder / "scheduler")
    except Exception as error:  # diffusers and safetensors raise a dozen kinds; all mean the same here
        raise _unreadable(folder, error) from error
    # weights mapped from a file lie at odd addresses, for which kernels round otherwise: copy, so that the
    # same weights give the same bytes wherever they came from
    for parameter in unet.parameters():
        parameter.data = parameter.data.clone()
    return Prior(unet.eval(), scheduler, index.get("color", "luma"), index.get("unshuffle", 1))


def _unreadable(folder: Path, error: Exception) -> DDFMError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return problem("prior", f"{folder} ({reason})", "a whole prior", "Copy or train it again.")


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json, checked for the entries that are used."""
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
        check_choice("unet of model_index.json", index["unet"][1], ("UNet2DModel",))
        index["scheduler"][1]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise problem("prior", folder, "a valid model_index.json", str(error)) from error
    return index


def weights_sha256(name: str | Path = "bundled") -> str:
    """SHA-256 of a prior's weights file."""
    return hashlib.sha256((prior_folder(name) / WEIGHTS).read_bytes()).hexdigest()


def prior_info(name: str | Path = "bundled") -> dict[str, Any]:
    """Facts of a prior without loading it: settings, parameters, size, checksum, licence."""
    from safetensors import safe_open

    folder = prior_folder(name)
    index = read_index(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
        scheduler = dict(json.loads((folder / "scheduler/scheduler_config.json").read_text("utf-8")))
    except Exception as error:  # safetensors' own kinds, JSON, the file system: all mean the same here
        raise _unreadable(folder, error) from error
    licence = folder / "LICENSE-weights"
    return {
        "name": str(name),
        "folder": str(folder),
        "color": index.get("color", "luma"),
        "unshuffle": index.get("unshuffle", 1),
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "parameters": sum(_product(shape) for shape in shapes),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "sha256": weights_sha256(name),
        "licence": licence.read_text("utf-8").splitlines()[0] if licence.is_file() else "not stated",
    }


def _product(shape: list[int]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result
