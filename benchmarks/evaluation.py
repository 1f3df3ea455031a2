"""What makes one network evaluation faster: memory format, dtype, attention kernel, compilation; side by side.

Each way of evaluating takes turns with the plain one (float32, eager, contiguous), the order reversed each time: median
ratios of seconds, and of processor seconds, which count less of what else the machine does (on a CPU only). The
outputs are compared as well, relative to the plain output's root mean square. On an accelerator the device is
synchronised before a clock is read.

"bundled": the bundled prior on 640x480. "attention": an ADM-like network of random weights on 256x256 with attention at
64x64 and 32x32, for which the plain attention (all scores in memory) stands beside torch's fused kernel (SDPA), the
default of diffusers.

    python benchmarks/evaluation.py [--device auto] [--repeats 9] [--networks bundled attention] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from _common import RESULTS, median_ratio, provenance, write_json
from ddfm._runtime import keep_freed_memory
from ddfm.config import check_device
from ddfm.pipeline import DDFMPipeline
from ddfm.priors.adm import AdmConfig, parameters, unet_arguments

Way = Callable[[], torch.Tensor]
PLAIN = "plain"


def attention_network() -> UNet2DModel:
    """ADM's architecture, smaller, random weights; a non-zero last layer, so that outputs can be compared."""
    config = AdmConfig(
        channels=(64, 128, 192, 256),
        res_blocks=1,
        attention=(False, False, True, True),
        head_channels=64,
        in_channels=3,
        out_channels=6,
        scale_shift=True,
        res_resampling=True,
    )
    torch.manual_seed(0)
    return UNet2DModel(**unet_arguments(config)).eval()


def networks(device: torch.device) -> dict[str, tuple[UNet2DModel, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    bundled = DDFMPipeline.from_pretrained("bundled").unet
    inputs = [torch.randn(shape, generator=generator).to(device) for shape in ((1, 4, 240, 320), (1, 3, 256, 256))]
    return {"bundled": (bundled.to(device), inputs[0]), "attention": (attention_network().to(device), inputs[1])}


def attentions(unet: UNet2DModel) -> list[Attention]:
    return [module for module in unet.modules() if isinstance(module, Attention)]


def ways(unet: UNet2DModel, x: torch.Tensor, compiled: bool) -> dict[str, Way]:
    """Every way as a function without arguments; each with a copy of the network."""
    t = torch.tensor(1, device=x.device)

    def way(
        *,
        dtype: torch.dtype = torch.float32,
        last: bool = False,
        autocast: bool = False,
        fused: bool = True,
        build: bool = False,
    ) -> Way:
        net = copy.deepcopy(unet)
        for parameter in net.parameters():  # diffusers' own `to` warns of layers that this network does not have
            parameter.data = parameter.data.to(dtype)
        if last:
            net = net.to(memory_format=torch.channels_last)
        for layer in attentions(net):
            layer.set_processor(AttnProcessor2_0() if fused else AttnProcessor())
        if build:
            net.compile()
        context = torch.autocast(x.device.type, torch.bfloat16) if autocast else contextlib.nullcontext()

        def call() -> torch.Tensor:
            with context:
                return net(x.to(dtype), t).sample.float()

        return call

    found = {
        PLAIN: way(),
        "channels_last": way(last=True),
        "autocast bf16": way(autocast=True),
        "weights bf16": way(dtype=torch.bfloat16),
        "autocast bf16, channels_last": way(autocast=True, last=True),
        "weights bf16, channels_last": way(dtype=torch.bfloat16, last=True),
    }
    if attentions(unet):
        found["attention without SDPA"] = way(fused=False)
    if compiled:
        found["compiled"] = way(build=True)
        found["compiled, channels_last"] = way(build=True, last=True)
    return found


def clocked(way: Way, device: torch.device) -> tuple[float, float]:
    """Seconds and processor seconds of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    begun = time.perf_counter(), time.process_time()
    way()
    wait()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def against(way: Way, plain: Way, repeats: int, device: torch.device) -> dict[str, Any]:
    """Ratio of ``way`` to ``plain``; below 1 is faster."""
    begun = time.perf_counter()
    output, expected = way(), plain()
    first = time.perf_counter() - begun
    ours, theirs = [], []
    for k in range(repeats):
        order = [(way, ours), (plain, theirs)]
        for one, series in order if k % 2 else reversed(order):
            series.append(clocked(one, device))
    scale = expected.square().mean().sqrt()
    return {
        "seconds": median_ratio([s[0] for s in ours], [s[0] for s in theirs]),
        "processor_seconds": median_ratio([s[1] for s in ours], [s[1] for s in theirs]),
        "first_calls_seconds": first,
        "largest_relative_difference": float((output - expected).abs().max() / scale),
    }


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, (unet, x) in networks(device).items():
        if name not in options.networks:
            continue
        found = ways(unet, x, options.compile)
        rows: dict[str, Any] = {}
        for label, way in found.items():
            if label == PLAIN:
                continue
            try:
                rows[label] = against(way, found[PLAIN], options.repeats, device)
            except Exception as error:  # no compiler, no kernel for a dtype: said, not fatal
                rows[label] = {"failed": (str(error).splitlines() or [type(error).__name__])[0][:200]}
            print(f"{name:10} {label:30} {summary(rows[label])}", flush=True)
        results[name] = {"parameters": parameters(unet), "input": list(x.shape), "ways": rows}
    return results


def summary(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    seconds, processor = row["seconds"]["median_ratio"], row["processor_seconds"]["median_ratio"]
    return f"{seconds:.2f} x seconds, {processor:.2f} x processor, off by {row['largest_relative_difference']:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--networks", nargs="+", default=["bundled", "attention"], choices=["bundled", "attention"])
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/evaluation_DEVICE.json")
    options = parser.parse_args()
    device = check_device(options.device)
    keep_freed_memory()
    torch.set_grad_enabled(False)
    results = measure(options, device)
    output = options.output or RESULTS / f"evaluation_{device.type}.json"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    write_json(output, {"provenance": provenance(), "device": name, "results": results})
    print(output)


if __name__ == "__main__":
    main()
