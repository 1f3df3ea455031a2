"""Where priors come from: "bundled", a known name, a folder of diffusers, a hub id, or a pipeline in memory."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.priors.known import KNOWN, cached

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
    """The folder behind a name: "bundled", a known prior that was fetched, a folder, or a hub id "owner/model".

    DDFMError when there is none or it holds no prior that can be used.
    """
    if not isinstance(name, str | Path):
        raise problem("prior", repr(name), '"bundled", a known name, a folder or a hub id')
    folder = _locate(str(name))
    _check_folder(folder)
    return folder


def _locate(name: str) -> Path:
    if name == "bundled":
        return BUNDLED
    if Path(name).is_dir():
        return Path(name)
    if name in KNOWN:
        if not cached(name).is_dir():
            raise problem(
                "prior", f"{name}, which is not here yet", "a fetched prior", f"Fetch it: ddfm prior fetch {name}"
            )
        return cached(name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).parent.is_dir():
        return _from_hub(name)
    expected = f'"bundled", {", ".join(KNOWN)}, an existing folder or a hub id'
    raise problem("prior", repr(name), expected, "See: ddfm prior list")


def _from_hub(name: str) -> Path:
    """The folder of a hub model in diffusers' own cache, fetched if need be; JSON and safetensors only."""
    import huggingface_hub

    wanted = ["*.json", "*/*.json", "*/*.safetensors"]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # no network, no such model, no right: the hub has a kind for each
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise problem("prior", f"{name} ({reason[:200]})", "a hub model that can be reached, or a folder") from error


def _check_folder(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        some = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        expected = "a folder written by DDFMPipeline or DDPMPipeline, with model_index.json"
        raise problem("prior", f"{folder} with {some}", expected, "Checkpoints: ddfm prior convert.")
    read_index(folder)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(
            p.name for p in (folder / "unet").glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")
        )
        if pickles:
            remedy = "A pickle can run code; save it with safe_serialization=True where you trust it."
            raise problem("prior", f"{folder} with {pickles[0]}", f"weights as safetensors, {WEIGHTS}", remedy)
        raise problem("prior", folder, f"a prior's folder with {WEIGHTS}", "Is it complete?")
    if not (folder / "scheduler/scheduler_config.json").is_file():
        raise problem("prior", folder, "a prior's folder with scheduler/scheduler_config.json", "Is it complete?")


def load_prior(name: Any = "bundled", dtype: Any = None) -> Prior:
    """Load network and scheduler of a name (see ``prior_folder``), or take those of a ``DDPMPipeline``.

    ``dtype``: of the network, float32 by default whatever the file holds; a pipeline's stays unless given. Never from
    a pickle. Raises DDFMError for what is not a prior of pictures with 1 or 3 channels.
    """
    if hasattr(name, "unet") and hasattr(name, "scheduler"):
        unet = name.unet.to(dtype) if dtype else name.unet
        return _prior(unet, name.scheduler, dict(getattr(name, "config", {})), type(name).__name__)
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
    return _prior(unet, scheduler, index, str(folder))


def _prior(unet: Any, scheduler: Any, settings: dict[str, Any], where: str) -> Prior:
    """What the network models, from its settings or else from its channels; refused if neither fits."""
    unshuffle = settings.get("unshuffle", 1)
    channels = unet.config.in_channels / unshuffle**2
    color = str(settings.get("color") or {1: "luma", 3: "rgb"}.get(channels))
    if {"luma": 1, "rgb": 3}.get(color) != channels:
        got = f"{where}: {unet.config.in_channels} channels, unshuffle {unshuffle}"
        expected = "1 (luma) or 3 (RGB) channels, times unshuffle squared"
        raise problem("prior", got, expected, 'Add "unshuffle" to model_index.json if it works on unshuffled pixels.')
    if unet.config.out_channels not in (unet.config.in_channels, 2 * unet.config.in_channels):
        raise problem(
            "prior", f"{unet.config.out_channels} output channels", f"{unet.config.in_channels} or twice that"
        )
    if getattr(unet.config, "num_class_embeds", None) or getattr(unet.config, "class_embed_type", None):
        raise problem("prior", f"{where}, a class-conditional network", "an unconditional one")
    return Prior(unet.eval(), scheduler, color, unshuffle)


def _unreadable(folder: Path, error: Exception) -> DDFMError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return problem("prior", f"{folder} ({reason})", "a whole prior", "Copy or train it again.")


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json, checked for the entries that are used."""
    try:
        index: dict[str, Any] = json.loads((folder / "model_index.json").read_text("utf-8"))
        if "unet" not in index or any(key in index for key in ("text_encoder", "vae", "vqvae", "tokenizer")):
            parts = ", ".join(key for key in index if not key.startswith("_"))
            kind = index.get("_class_name", "a model")
            raise problem(
                "prior", f"{folder}: {kind} with {parts}", "an unconditional network of pixels (unet, scheduler)"
            )
        check_choice("unet of model_index.json", index["unet"][1], ("UNet2DModel",))
        index["scheduler"][1]
    except DDFMError:
        raise
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
            channels = weights.get_slice("conv_in.weight").get_shape()[1] / index.get("unshuffle", 1) ** 2
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
        scheduler = dict(json.loads((folder / "scheduler/scheduler_config.json").read_text("utf-8")))
    except Exception as error:  # safetensors' own kinds, JSON, the file system: all mean the same here
        raise _unreadable(folder, error) from error
    licence = folder / "LICENSE-weights"
    return {
        "name": str(name),
        "folder": str(folder),
        "color": index.get("color") or ("luma" if channels == 1 else "rgb"),
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
