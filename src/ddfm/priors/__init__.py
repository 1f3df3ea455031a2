"""Where priors come from: "bundled", a known name, a folder of diffusers, a hub id, or a pipeline in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.diffusion import PREDICTION_TYPES
from ddfm.priors.known import KNOWN, cached

__all__ = ["BUNDLED", "Prior", "check_noise_model", "load_prior", "prior_folder", "prior_info", "weights_sha256"]

#: The folder of package data with the bundled prior's weights, settings and model card.
BUNDLED = Path(__file__).parent / "bundled"
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: Schedulers whose x_t is not variance preserving, or that have no betas, cannot describe a prior here.
_REFUSED = ("Euler", "Heun", "LMS", "KDPM", "EDM", "VE", "FlowMatch")


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
    if not name:
        raise problem("prior", "an empty name", f'"bundled", {", ".join(KNOWN)}, a folder or a hub id')
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
    if Path(name).is_file():
        raise problem(
            "prior", f"{name}, a file", expected, f"A checkpoint is made one by: ddfm prior convert {name} OUT"
        )
    raise problem("prior", repr(name), expected, "See: ddfm prior list")


def _from_hub(name: str) -> Path:
    """The folder of a hub model in diffusers' own cache, fetched if need be; JSON and safetensors only."""
    import huggingface_hub

    wanted = ["*.json", "*.safetensors"]  # in folders below as well
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # no network, no such model, no right: the hub has a kind for each
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise problem("prior", f"{name} ({reason[:200]})", "a hub model that can be reached, or a folder") from error


def _part(folder: Path, part: str) -> Path:
    """Where "unet" or "scheduler" lies: in its folder or, as in the hub's early models, beside model_index.json."""
    return folder / part if (folder / part).is_dir() else folder


def _weights(folder: Path) -> Path:
    return _part(folder, "unet") / WEIGHTS.name


def _check_folder(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        some = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        expected = "a folder written by DDFMPipeline or DDPMPipeline, with model_index.json"
        raise problem("prior", f"{folder} with {some}", expected, "Checkpoints: ddfm prior convert.")
    read_index(folder)
    if not _weights(folder).is_file():
        pickles = sorted(p.name for p in _weights(folder).parent.glob("*") if p.suffix in PICKLES)
        if pickles:
            remedy = "A pickle can run code; save it with safe_serialization=True where you trust it."
            raise problem("prior", f"{folder} with {pickles[0]}", f"weights as safetensors, {WEIGHTS}", remedy)
        raise problem("prior", folder, f"a prior's folder with {WEIGHTS}", "Is it complete?")
    if not (_part(folder, "scheduler") / "scheduler_config.json").is_file():
        raise problem("prior", folder, "a prior's folder with scheduler/scheduler_config.json", "Is it complete?")


def load_prior(name: Any = "bundled", dtype: Any = None) -> Prior:
    """Load network and scheduler of a name (see ``prior_folder``), or take those of a ``DDPMPipeline``.

    ``dtype``: of the network, float32 by default whatever the file holds; a pipeline's stays unless given. Never from
    a pickle. Raises DDFMError for what is not a prior of pictures with 1 or 3 channels.
    """
    if hasattr(name, "unet") and hasattr(name, "scheduler"):
        unet = name.unet.to(dtype) if dtype else name.unet
        where = type(name).__name__
        kind = check_model(unet.config, getattr(name, "config", {}), where)
        check_noise_model(type(name.scheduler).__name__, name.scheduler.config.get("prediction_type", "epsilon"), where)
        return Prior(unet.eval(), name.scheduler, *kind)
    folder = prior_folder(name)
    kind = _kind(folder)[:2]
    import diffusers

    try:
        name = read_index(folder)["scheduler"][1]
        scheduler_class = getattr(diffusers, name, None)
        if scheduler_class is None:
            raise problem("prior", f"{folder}: scheduler {name}", "one that diffusers has", "Use DDPMScheduler.")
        scheduler = scheduler_class.from_pretrained(_part(folder, "scheduler"))
        unet = _network(folder, dtype)
    except DDFMError:
        raise
    except Exception as error:  # diffusers and safetensors raise a dozen kinds; all mean the same here
        raise _unreadable(folder, error) from error
    return Prior(unet.eval(), scheduler, *kind)


def _network(folder: Path, dtype: Any) -> Any:
    """The network of a folder, every weight of it from the file, and every weight of the file in it."""
    import diffusers
    import torch

    unet, found = diffusers.UNet2DModel.from_pretrained(
        _part(folder, "unet"),
        torch_dtype=dtype or torch.float32,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        local_files_only=True,
        output_loading_info=True,
    )
    # diffusers only warns of these, and fills what is missing with anything
    for what, names in (("without", found["missing_keys"]), ("with the unknown", found["unexpected_keys"])):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            got = f"{folder}, {what} {sorted(names)[0]}{more}"
            raise problem("prior", got, "the weights that unet/config.json describes", "Copy or convert it again.")
    # weights mapped from a file lie at odd addresses, for which kernels round otherwise: copy, so that the
    # same weights give the same bytes wherever they came from
    for name, parameter in unet.named_parameters():
        parameter.data = parameter.data.clone()
        if not bool(parameter.data.isfinite().all()):
            got = f"{folder}, where {name} has NaN or infinite values"
            remedy = "Copy or train it again; in float16 large weights become infinite: use float32."
            raise problem("prior", got, "finite weights", remedy)
    return unet


def _kind(folder: Path) -> tuple[str, int, dict[str, Any]]:
    """Colour, unshuffle factor and scheduler settings of a folder, from its small files. Raises DDFMError."""
    index = read_index(folder)
    config = _read_json(_part(folder, "unet") / "config.json", folder)
    scheduler = _read_json(_part(folder, "scheduler") / "scheduler_config.json", folder)
    color, unshuffle = check_model(config, index, str(folder))
    check_noise_model(index["scheduler"][1], scheduler.get("prediction_type", "epsilon"), str(folder))
    return color, unshuffle, scheduler


def _read_json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise problem("prior", f"{folder} ({error})", f"a valid {file.name}", "Copy it again.") from error
    if not isinstance(content, dict):
        raise problem(
            "prior", f"{folder}, where it holds a {type(content).__name__}", f"a valid {file.name}", "Copy it again."
        )
    return content


def check_noise_model(scheduler: str, prediction: str, where: str) -> None:
    """Refuse what a scheduler of that name, or a network that predicts something else, says of the noise."""
    if any(word in scheduler for word in _REFUSED):
        remedy = "Use DDPMScheduler with the prior's betas."
        raise problem("prior", f"{where}: {scheduler}", "a variance-preserving scheduler with betas", remedy)
    if prediction not in PREDICTION_TYPES:
        raise problem("prior", f"{where}: prediction_type {prediction!r}", f"one of {', '.join(PREDICTION_TYPES)}")


def check_model(config: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> tuple[str, int]:
    """Colour and unshuffle factor, from ``settings`` or else told by the channels; refused if neither fits."""
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise problem("prior", f"{where}, a class-conditional network", "an unconditional one", "Fusion has no class.")
    unshuffle = settings.get("unshuffle", 1)
    if not isinstance(unshuffle, int) or unshuffle < 1:
        raise problem("prior", f"{where}: unshuffle {unshuffle!r}", "a whole number from 1 in model_index.json")
    channels, out = config.get("in_channels", 0), config.get("out_channels", 0)
    color = settings.get("color") or {unshuffle**2: "luma", 3 * unshuffle**2: "rgb"}.get(channels)
    if color is not None and color not in ("luma", "rgb"):
        raise problem("prior", f"{where}: color {color!r}", '"luma" or "rgb" in model_index.json')
    if color is None or channels != (1 if color == "luma" else 3) * unshuffle**2:
        got = f"{where}: {channels} channels, unshuffle {unshuffle}{f', color {color!r}' if color else ''}"
        expected = "1 (luma) or 3 (RGB) channels, times unshuffle squared"
        remedy = 'If it works on unshuffled pixels add "unshuffle": 2 to model_index.json; latent models cannot serve.'
        raise problem("prior", got, expected, remedy)
    if out not in (channels, 2 * channels):
        raise problem(
            "prior", f"{where}: {out} output channels", f"{channels}, or {2 * channels} with learned variance"
        )
    return color, unshuffle


def _unreadable(folder: Path, error: Exception) -> DDFMError:
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    reason = " ".join(lines[:2])[:300]  # where weights do not fit, the second line says which
    return problem("prior", f"{folder} ({reason})", "a whole prior", "Copy or train it again.")


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json, checked for the entries that are used."""
    try:
        index = _read_json(folder / "model_index.json", folder)
        if "unet" not in index or any(key in index for key in ("text_encoder", "vae", "vqvae", "tokenizer")):
            parts = ", ".join(key for key in index if not key.startswith("_"))
            kind = index.get("_class_name", "a model")
            expected = "an unconditional network of pixels (unet, scheduler)"
            raise problem("prior", f"{folder}: {kind} with {parts}", expected, "Such as google/ddpm-celebahq-256.")
        check_choice("unet of model_index.json", index["unet"][1], ("UNet2DModel",))
        index["scheduler"][1]
    except DDFMError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise problem("prior", f"{folder} ({reason})", "a valid model_index.json", "Copy it again.") from error
    return index


def weights_sha256(name: str | Path = "bundled") -> str:
    """SHA-256 of a prior's weights file."""
    with _weights(prior_folder(name)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prior_info(name: str | Path = "bundled") -> dict[str, Any]:
    """Facts of a prior without loading it: settings, parameters, size, checksum, licence."""
    from safetensors import safe_open

    folder = prior_folder(name)
    color, unshuffle, scheduler = _kind(folder)
    try:
        with safe_open(_weights(folder), framework="numpy") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
    except Exception as error:  # safetensors' own kinds, the file system: all mean the same here
        raise _unreadable(folder, error) from error
    licence = folder / "LICENSE-weights"
    return {
        "name": str(name),
        "folder": str(folder),
        "color": color,
        "unshuffle": unshuffle,
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "parameters": sum(_product(shape) for shape in shapes),
        "bytes": _weights(folder).stat().st_size,
        "sha256": weights_sha256(name),
        "licence": licence.read_text("utf-8").splitlines()[0] if licence.is_file() else "not stated",
    }


def _product(shape: list[int]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result
