"""A checkpoint of another project into a prior's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from ddfm._checks import check_choice, problem
from ddfm.pipeline import DDFMPipeline
from ddfm.priors.adm import infer_config, read_checkpoint, to_unet

__all__ = ["SCHEDULES", "convert"]

#: Noise schedules of guided-diffusion by its names, as diffusers calls them; both have 1000 steps.
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def convert(
    path: Path,
    out: Path,
    *,
    head_channels: int = 64,
    new_attention_order: bool = False,
    schedule: str = "linear",
    licence: str = "not stated",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint as a prior's folder (safetensors); return it. Under a temporary name first, then renamed.

    ``schedule``: "linear" (ADM) or "cosine", of 1000 steps. Raises DDFMError; what exists is not replaced.
    """
    from diffusers import DDPMScheduler

    check_choice("--schedule", schedule, tuple(SCHEDULES))
    if out.exists():
        raise problem("OUT", f"{out}, which exists", "a new folder", "Choose another name.")
    state = read_checkpoint(path)
    config = infer_config(state, head_channels, new_attention_order)
    unet = to_unet(state, config, dtype)
    learned = config.out_channels == 2 * config.in_channels
    scheduler = DDPMScheduler(
        beta_schedule=SCHEDULES[schedule],
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="epsilon",
        clip_sample=False,
        variance_type="learned_range" if learned else "fixed_small",
    )
    color = {1: "luma", 3: "rgb"}.get(config.in_channels)
    if color is None:
        raise problem("checkpoint", f"{config.in_channels} input channels", "1 (luma) or 3 (RGB)")
    return _write(DDFMPipeline(unet, scheduler, color), out, licence)


def _write(pipeline: DDFMPipeline, out: Path, licence: str) -> Path:
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        pipeline.save_pretrained(part)
        (part / "LICENSE-weights").write_text(licence + "\n", "utf-8")
        part.replace(out)
    except OSError as error:
        raise problem("OUT", f"{out} ({error.strerror or error})", "a folder that can be written") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out
