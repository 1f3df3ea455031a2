"""A checkpoint of another project into a prior's folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ddfm._checks import check_choice, check_range, problem
from ddfm.pipeline import DDFMPipeline
from ddfm.priors.adm import infer_config, read_checkpoint, to_unet

__all__ = ["SCHEDULES", "convert", "scheduler_settings"]

#: Noise schedules of guided-diffusion by its names, as diffusers calls them.
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def convert(
    path: Path,
    out: Path,
    *,
    head_channels: int = 64,
    new_attention_order: bool = False,
    schedule: str = "linear",
    diffusion_steps: int = 1000,
    predict_xstart: bool = False,
    licence: str = "not stated",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint as a prior's folder (safetensors); return it. Under a temporary name first, then renamed.

    What the state dict cannot tell are options by guided-diffusion's names: ``schedule`` "linear" (ADM) or "cosine", of
    ``diffusion_steps``; ``predict_xstart``: the network gives x0, not the noise. Raises DDFMError; what exists is not
    replaced.
    """
    from diffusers import DDPMScheduler

    check_choice("--schedule", schedule, tuple(SCHEDULES))
    check_range("--diffusion-steps", diffusion_steps, 1, 100_000)
    with _new_folder(out) as part:
        state = read_checkpoint(path)
        config = infer_config(state, head_channels, new_attention_order)
        unet = to_unet(state, config, dtype)
        settings = scheduler_settings(schedule, diffusion_steps, predict_xstart)
        learned = config.out_channels == 2 * config.in_channels
        scheduler = DDPMScheduler(**settings, variance_type="learned_range" if learned else "fixed_small")
        DDFMPipeline(unet, scheduler, "luma" if config.in_channels == 1 else "rgb").save_pretrained(part)
        (part / "LICENSE-weights").write_text(licence + "\n", "utf-8")
    return out


def scheduler_settings(schedule: str, steps: int, predict_xstart: bool) -> dict[str, Any]:
    """Of ``DDPMScheduler``; a linear schedule of guided-diffusion has the same noise at its end for any steps."""
    return {
        "num_train_timesteps": steps,
        "beta_schedule": SCHEDULES[schedule],
        "beta_start": min(1e-4 * 1000 / steps, 0.999),
        "beta_end": min(0.02 * 1000 / steps, 0.999),
        "prediction_type": "sample" if predict_xstart else "epsilon",
        "clip_sample": False,
    }


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` when all went well; nothing is left when not. DDFMError."""
    _check_new(out)
    part, lock = out.with_name(out.name + ".part"), FileLock(out.with_name(out.name + ".lock"), timeout=0)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Path(lock.lock_file).touch()  # FileLock takes some errors for a lock that is held
        with lock:
            try:
                shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
                part.mkdir()  # before any work, so that a place that cannot be written is known at once
                yield part
                _check_new(out)
                part.replace(out)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        raise problem("output", f"{out}, at which another run is at work", "one at a time", "Wait for it.") from None
    except (OSError, SafetensorError) as error:  # safetensors' own kind where the disk is full
        reason = getattr(error, "strerror", None) or error
        raise problem("output", f"{out} ({reason})", "a folder that can be written", "Name another one.") from error


def _check_new(out: Path) -> None:
    if out.exists():
        raise problem("output", f"{out}, which exists", "a new folder", "Choose another name.")
