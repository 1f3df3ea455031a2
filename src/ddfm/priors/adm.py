"""OpenAI guided-diffusion (ADM) checkpoints, unconditional ones, as stock diffusers networks; tensor by tensor.

The architecture is read from the names and shapes of the state dict; what shapes cannot tell is an option: channels
of an attention head, the order of q, k, v, the noise schedule. Dhariwal and Nichol 2021; guided_diffusion/unet.py
of that project.

theirs                          diffusers
input_blocks.N.0 (a ResBlock)   down_blocks.I.resnets.J, or .downsamplers.0
input_blocks.N.1 (attention)    down_blocks.I.attentions.J
output_blocks.N.*               up_blocks.I.resnets.J, .attentions.J, .upsamplers.0
"""

from __future__ import annotations

import dataclasses
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddfm._checks import DDFMError, problem

__all__ = [
    "AdmConfig",
    "all_names",
    "infer_config",
    "parameters",
    "read_checkpoint",
    "to_unet",
    "unet_arguments",
]

GROUPS = 32


@dataclasses.dataclass(frozen=True)
class AdmConfig:
    """An unconditional ADM network.

    channels: of each level; res_blocks: on each; attention: whether each level has it; head_channels: of a head;
    in_channels, out_channels: 3 and 6 (learned variance) in ADM; scale_shift: of the group norms by the time embedding;
    res_resampling: levels change by ResBlocks, else by convolutions; new_attention_order: q, k, v before heads.
    """

    channels: tuple[int, ...]
    res_blocks: int
    attention: tuple[bool, ...]
    head_channels: int
    in_channels: int
    out_channels: int
    scale_shift: bool
    res_resampling: bool
    new_attention_order: bool = False


# ---- reading the architecture ---------------------------------------------------------------------


def infer_config(state: Mapping[str, Tensor], head_channels: int = 64, new_attention_order: bool = False) -> AdmConfig:
    """The configuration behind a state dict. Raises DDFMError for anything but an unconditional ADM network."""
    _check_kind(state)
    blocks, upsampled = _output_layout(state)
    res_blocks = upsampled[0] if upsampled else blocks - 1
    if res_blocks < 1 or blocks % (res_blocks + 1) or upsampled != list(range(res_blocks, blocks - 1, res_blocks + 1)):
        raise problem("checkpoint", f"{blocks} output blocks, {len(upsampled)} upsamplings", "levels of equal depth")
    levels = blocks // (res_blocks + 1)
    first = [1 + level * (res_blocks + 1) for level in range(levels)]  # input block where each level begins
    channels = tuple(_length(state, f"input_blocks.{n}.0.out_layers.3.weight", 0) for n in first)
    attention = tuple(f"input_blocks.{n}.1.qkv.weight" in state for n in first)
    embedding = _length(state, "input_blocks.1.0.emb_layers.1.weight", 0)
    config = AdmConfig(
        channels=channels,
        res_blocks=res_blocks,
        attention=attention,
        head_channels=head_channels,
        in_channels=_length(state, "input_blocks.0.0.weight", 1),
        out_channels=_length(state, "out.2.weight", 0),
        scale_shift=embedding == 2 * channels[0],
        res_resampling=levels == 1 or f"input_blocks.{first[1] - 1}.0.in_layers.0.weight" in state,
        new_attention_order=new_attention_order,
    )
    _check_config(config)
    return config


def _length(state: Mapping[str, Tensor], name: str, axis: int) -> int:
    """A tensor's length along an axis; DDFMError where there is no such tensor, or none of so many axes."""
    if name not in state:
        raise problem("checkpoint", f"no tensor {name}", "one for each layer", _WHOLE)
    if state[name].ndim <= axis:
        raise problem("checkpoint", f"{name} of shape {tuple(state[name].shape)}", f"{axis + 1} axes or more", _WHOLE)
    return state[name].shape[axis]


_WHOLE = "Is it whole, and an unconditional guided-diffusion model, such as 256x256_diffusion_uncond.pt?"


def _check_kind(state: Mapping[str, Tensor]) -> None:
    """Say what a state dict is that is not an unconditional ADM network."""
    if "label_emb.weight" in state:
        classes = state["label_emb.weight"].shape[0]
        expected = "an unconditional network, such as 256x256_diffusion_uncond.pt"
        raise problem(
            "checkpoint", f"a class-conditional network ({classes} classes)", expected, "Fusion has no class."
        )
    if any(key.startswith(("cond_stage_model", "model.diffusion_model", "first_stage_model")) for key in state):
        raise problem("checkpoint", "a latent or text-to-image model", "a network of pixels, without a condition")
    needed = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight")
    if missing := [key for key in (*needed, "input_blocks.1.0.emb_layers.1.weight") if key not in state]:
        some = f"it has: {', '.join(sorted(state)[:3])}, ..." if state else "it is empty"
        raise problem("checkpoint", f"no tensor {missing[0]} ({some})", "a guided-diffusion state dict", _FOLDER)
    if "out.0.weight" in state and state["input_blocks.0.0.weight"].ndim != 4:
        raise problem("checkpoint", "convolutions of another dimension", "a network of pictures")


def _output_layout(state: Mapping[str, Tensor]) -> tuple[int, list[int]]:
    """How many output blocks there are, and which end in an upsampling."""
    numbers = sorted({int(m[1]) for key in state if (m := re.match(r"output_blocks\.(\d+)\.", key))})
    if numbers != list(range(len(numbers))) or not numbers:
        raise problem("checkpoint", f"output blocks {numbers}", "consecutive output blocks from 0")
    up = re.compile(r"output_blocks\.(\d+)\.[1-9]\.(in_layers\.0|conv)\.weight$")
    return len(numbers), sorted({int(m[1]) for key in state if (m := up.match(key))})


def _check_config(config: AdmConfig) -> None:
    if config.in_channels not in (1, 3):
        remedy = "Networks that take a second picture or a latent one, such as those for upsampling, are no priors."
        raise problem("checkpoint", f"{config.in_channels} input channels", "1 (luma) or 3 (RGB)", remedy)
    for channels, attends in zip(config.channels, config.attention, strict=True):
        if channels % GROUPS:
            raise problem("checkpoint", f"{channels} channels", f"multiples of {GROUPS}, the groups of ADM's norms")
        if attends and channels % config.head_channels:
            raise problem("--head-channels", config.head_channels, f"a divisor of {channels}")
    if config.channels[-1] % config.head_channels:
        raise problem("--head-channels", config.head_channels, f"a divisor of {config.channels[-1]}")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        expected = f"{config.in_channels}, or {2 * config.in_channels} with learned variance"
        raise problem("checkpoint", f"{config.out_channels} output channels", expected)


# ---- the same network in diffusers ----------------------------------------------------------------


def unet_arguments(config: AdmConfig) -> dict[str, Any]:
    """Arguments of ``diffusers.UNet2DModel``."""
    resampling = "resnet" if config.res_resampling else "conv"
    plain = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if config.res_resampling else ("DownBlock2D", "UpBlock2D")
    )
    return {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "block_out_channels": config.channels,
        "layers_per_block": config.res_blocks,
        "down_block_types": tuple("AttnDownBlock2D" if a else plain[0] for a in config.attention),
        "up_block_types": tuple("AttnUpBlock2D" if a else plain[1] for a in reversed(config.attention)),
        "downsample_type": resampling,
        "upsample_type": resampling,
        "attention_head_dim": config.head_channels,
        "norm_num_groups": GROUPS,
        "attn_norm_num_groups": GROUPS,  # or the middle attention would have no norm
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "flip_sin_to_cos": True,  # their embedding is [cos, sin]
        "freq_shift": 0,
    }


def to_unet(state: Mapping[str, Tensor], config: AdmConfig, dtype: torch.dtype = torch.float32) -> Any:
    """A ``UNet2DModel`` with these weights. Every tensor is used once and only once, or DDFMError names it."""
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**unet_arguments(config))
    wanted = {key: tuple(value.shape) for key, value in unet.state_dict().items()}
    converted: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs, part in _mapping(config):
        if theirs not in state:
            raise problem("checkpoint", f"no tensor {theirs}", "one for each layer of the inferred network", _WHOLE)
        used.add(theirs)
        _check_values(theirs, state[theirs])
        converted[ours] = _part(state[theirs], part, config).to(dtype)
        if ours not in wanted or tuple(converted[ours].shape) != wanted[ours]:
            got = f"{theirs} of shape {tuple(state[theirs].shape)}"
            raise problem("checkpoint", got, f"what fits {ours}, {wanted.get(ours, 'which does not exist')}")
    if unused := sorted(state.keys() - used):
        got = f"{len(unused)} tensors without a place: {', '.join(unused[:5])}"
        raise problem("checkpoint", got, "none left over", "It is of another architecture, or holds more than one.")
    if empty := sorted(wanted.keys() - converted.keys()):
        raise problem("checkpoint", f"nothing for {', '.join(empty[:5])}", "a tensor for each layer")
    unet.load_state_dict(converted, strict=True, assign=True)
    return unet.eval()


def _check_values(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise problem(
            "checkpoint", f"{name} of {tensor.dtype}", "floating-point weights", "Quantised ones cannot serve."
        )
    if not bool(tensor.isfinite().all()):
        raise problem("checkpoint", f"{name} with NaN or infinite values", "finite weights", "Copy or fetch it again.")


#: Which third of a qkv tensor; None for a whole one.
Part = int | None


def _mapping(config: AdmConfig) -> Iterator[tuple[str, str, Part]]:
    """(name in diffusers, name in the checkpoint, part) of every tensor."""
    yield from _pair("time_embedding.linear_1", "time_embed.0")
    yield from _pair("time_embedding.linear_2", "time_embed.2")
    yield from _pair("conv_in", "input_blocks.0.0")
    yield from _down(config)
    yield from _resnet("mid_block.resnets.0", "middle_block.0", False)
    yield from _attention("mid_block.attentions.0", "middle_block.1")
    yield from _resnet("mid_block.resnets.1", "middle_block.2", False)
    yield from _up(config)
    yield from _pair("conv_norm_out", "out.0")
    yield from _pair("conv_out", "out.2")


def _down(config: AdmConfig) -> Iterator[tuple[str, str, Part]]:
    number, before = 1, config.channels[0]
    for level, channels in enumerate(config.channels):
        for layer in range(config.res_blocks):
            block = f"down_blocks.{level}"
            yield from _resnet(f"{block}.resnets.{layer}", f"input_blocks.{number}.0", before != channels)
            if config.attention[level]:
                yield from _attention(f"{block}.attentions.{layer}", f"input_blocks.{number}.1")
            before, number = channels, number + 1
        if level < len(config.channels) - 1:
            ours, theirs = f"down_blocks.{level}.downsamplers.0", f"input_blocks.{number}.0"
            yield from _resnet(ours, theirs, False) if config.res_resampling else _pair(f"{ours}.conv", f"{theirs}.op")
            number += 1


def _up(config: AdmConfig) -> Iterator[tuple[str, str, Part]]:
    number = 0
    for level in reversed(range(len(config.channels))):
        block = f"up_blocks.{len(config.channels) - 1 - level}"
        for layer in range(config.res_blocks + 1):
            theirs = f"output_blocks.{number}"
            yield from _resnet(f"{block}.resnets.{layer}", f"{theirs}.0", True)  # its input is joined with a skip
            if config.attention[level]:
                yield from _attention(f"{block}.attentions.{layer}", f"{theirs}.1")
            number += 1
        if level:
            ours, last = f"{block}.upsamplers.0", f"{theirs}.{2 if config.attention[level] else 1}"
            yield from _resnet(ours, last, False) if config.res_resampling else _pair(f"{ours}.conv", f"{last}.conv")


def _pair(ours: str, theirs: str) -> Iterator[tuple[str, str, Part]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", f"{theirs}.{kind}", None


def _resnet(ours: str, theirs: str, shortcut: bool) -> Iterator[tuple[str, str, Part]]:
    names = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    names |= {"norm2": "out_layers.0", "conv2": "out_layers.3"}
    if shortcut:
        names["conv_shortcut"] = "skip_connection"
    for mine, other in names.items():
        yield from _pair(f"{ours}.{mine}", f"{theirs}.{other}")


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, str, Part]]:
    yield from _pair(f"{ours}.group_norm", f"{theirs}.norm")
    for part, name in enumerate(("to_q", "to_k", "to_v")):
        for kind in ("weight", "bias"):
            yield f"{ours}.{name}.{kind}", f"{theirs}.qkv.{kind}", part
    for kind in ("weight", "bias"):
        # a 1x1 convolution over positions there, a linear layer here
        yield f"{ours}.to_out.0.{kind}", f"{theirs}.proj_out.{kind}", -1


def _part(tensor: Tensor, part: Part, config: AdmConfig) -> Tensor:
    """The tensor, or its rows of q, k or v, of (head, [q, k, v], channel), newly ([q, k, v], head, channel)."""
    if part is None:
        return tensor
    flat = tensor.flatten(1) if tensor.ndim > 1 else tensor  # (rows, channels, 1) -> (rows, channels)
    if part < 0:
        return flat
    width = config.head_channels
    heads = flat.shape[0] // (3 * width)
    shape = (3, heads, width) if config.new_attention_order else (heads, 3, width)
    rows = flat.reshape(*shape, *flat.shape[1:])
    picked = rows[part] if config.new_attention_order else rows[:, part]
    return picked.reshape(heads * width, *flat.shape[1:]).contiguous()


_FOLDER = "A model of diffusers needs no conversion: give its folder as --prior."


# ---- files ----------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pt file, tensors only: nothing in it is executed. Raises DDFMError."""
    if path.is_dir():
        raise problem("checkpoint", f"{path}, a folder", "a file of torch.save", _FOLDER)
    if not path.is_file():
        raise problem("checkpoint", path, "an existing file", "Check the path.")
    try:
        with path.open("rb") as file:
            head = file.read(len(_OLD))
    except OSError as error:
        raise problem("checkpoint", f"{path} ({error.strerror})", "a file that can be read") from error
    archive = head.startswith(b"PK\3\4")
    if not archive and head != _OLD:
        got = f"{path}, {f'which begins with {head[:4]!r}' if head else 'an empty file'}"
        raise problem("checkpoint", got, "a file of torch.save", _FOLDER)
    try:
        if archive:
            _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except DDFMError:
        raise
    except pickle.UnpicklingError as error:
        remedy = "Nothing in it was run. Where you trust it, save its state dict alone."
        raise problem("checkpoint", f"{path}, which holds other things than tensors", "tensors only", remedy) from error
    except Exception as error:  # torch raises many kinds for a file with a part missing
        raise _damaged(path, "cannot be read") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        some = f"entries {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else type(state).__name__
        remedy = "Save the state dict in it alone, with torch.save."
        raise problem("checkpoint", f"{path}, which holds other things than tensors ({some})", "a state dict", remedy)
    return state


#: How torch.save before version 1.6 begins: a pickled magic number.
_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _check_archive(path: Path) -> None:
    """The checksums of a zip archive, which torch passes over."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise _damaged(path, f"is damaged in {damaged}")


def _damaged(path: Path, how: str) -> DDFMError:
    remedy = "It is cut short or damaged: copy or fetch it again."
    return problem("checkpoint", f"{path}, which {how}", "a whole file of torch.save", remedy)


def parameters(unet: Any) -> int:
    """How many numbers a network has."""
    return sum(p.numel() for p in unet.parameters())


def all_names(config: AdmConfig) -> Iterable[str]:
    """Every tensor name that a checkpoint of this configuration has."""
    return dict.fromkeys(theirs for _, theirs, _ in _mapping(config))
