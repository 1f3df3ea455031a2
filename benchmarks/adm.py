"""The paper's prior at full size, random weights, in a fusion from end to end: seconds and peak memory.

The architecture of adm-imagenet-256 (552,814,086 parameters, checked); with random weights the picture means nothing,
the time and the memory are those of the real ones. On a CPU a 64x64 crop of the rendered street; on a GPU 480x640 at
100, 20 and 10 steps, float32 and bfloat16, each run after one of a single step that is not counted.

    python benchmarks/adm.py                                     # CPU: 64x64, 2 steps, float32
    python benchmarks/adm.py --device cuda --size 480 640 --steps 100 20 10 --dtypes float32 bfloat16
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel

from _common import RESULTS, provenance, write_json
from ddfm import color
from ddfm.config import DTYPES, check_device
from ddfm.pipeline import DDFMPipeline
from ddfm.priors.adm import AdmConfig, parameters, unet_arguments
from ddfm.samples import street

PARAMETERS = 552_814_086
CPU_PIXELS = 128 * 128
CONFIG = AdmConfig(
    channels=(256, 256, 512, 512, 1024, 1024),
    res_blocks=2,
    attention=(False, False, False, True, True, True),
    head_channels=64,
    in_channels=3,
    out_channels=6,
    scale_shift=True,
    res_resampling=True,
)


def pipeline(dtype: torch.dtype, device: torch.device) -> DDFMPipeline:
    """The pipeline on ADM's network; built in ``dtype`` on the device, so that no second copy exists."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            unet = UNet2DModel(**unet_arguments(CONFIG)).eval()
    finally:
        torch.set_default_dtype(before)
    if parameters(unet) != PARAMETERS:
        sys.exit(f"{parameters(unet)} parameters, expected {PARAMETERS}")
    scheduler = DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, clip_sample=False)
    pipe = DDFMPipeline(unet.requires_grad_(False), scheduler, "rgb")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def crop(height: int, width: int) -> list[torch.Tensor]:
    """Two lumas (1, 1, H, W) from the middle of the rendered street."""
    scene = street((max(height, 480), max(width, 640)), 0)
    visible = color.to_luma(torch.from_numpy(scene.visible).permute(2, 0, 1)[None])
    top, left = (visible.shape[-2] - height) // 2, (visible.shape[-1] - width) // 2
    whole = (torch.from_numpy(scene.infrared)[None, None], visible)
    return [x[..., top : top + height, left : left + width].contiguous() for x in whole]


def peak_bytes(device: torch.device) -> int:
    """Of the device's memory, or of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(pipe: DDFMPipeline, pair: list[torch.Tensor], steps: int) -> dict[str, Any]:
    """One fusion from pure noise (preset ``paper``); the result is on the CPU when the clock is read."""
    begun, processor = time.perf_counter(), time.process_time()
    images = pipe(*pair, num_inference_steps=steps).images
    return {
        "steps": steps,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "seconds": time.perf_counter() - begun,
        "processor_seconds": time.process_time() - processor,
        "finite": bool(images.isfinite().all()),
        "right_size": images.shape == pair[0].shape,
        "range": [float(images.min()), float(images.max())],
    }


def check(options: argparse.Namespace, device: torch.device, parser: argparse.ArgumentParser) -> None:
    height, width = options.size
    if device.type == "cpu" and height * width > CPU_PIXELS:
        parser.error(
            f"--size: got {height}x{width} on a CPU, expected a GPU for more than {CPU_PIXELS} pixels: a step there "
            "takes minutes. Use --device cuda on a machine that has one, or --size 64 64."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, nargs="+", default=[2])
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(DTYPES))
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/adm_DEVICE.json")
    options = parser.parse_args()
    device = check_device(options.device)
    check(options, device, parser)
    rows = []
    for dtype in options.dtypes:
        pipe, pair = pipeline(DTYPES[dtype], device), crop(*options.size)
        if device.type == "cuda":
            timed(pipe, pair, 1)  # kernels are chosen at the first call
        for steps in options.steps:
            rows.append(timed(pipe, pair, steps) | {"peak_bytes": peak_bytes(device)})
            print(rows[-1], flush=True)
        del pipe
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    payload = {
        "provenance": provenance(),
        "device": name,
        "parameters": PARAMETERS,
        "size": list(options.size),
        "runs": rows,
    }
    output = options.output or RESULTS / f"adm_{device.type}.json"
    write_json(output, payload)
    print(output)


if __name__ == "__main__":
    main()
