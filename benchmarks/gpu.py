"""Latency and memory of a fusion on a CUDA device: presets with the bundled prior, and a network of ADM's size.

640x480 pairs; float32 and bfloat16, channels_last or not, compiled or not, batches of 1, 4 and 16. ADM has random
weights: its pictures are nothing, its seconds are the real network's. The clock is read after the device has
finished; sources begin and results end on the CPU. Reported are medians after a warm-up. A row that does not fit the
memory, or cannot be compiled, says so. The output is written anew after each row.

    python benchmarks/gpu.py [--rounds 10] [--networks bundled adm] [--batches 1 4 16] [--output FILE]
    python benchmarks/gpu.py --device cpu --small        the same path in little, where there is no GPU
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from _common import RESULTS, check_output, errors_teach, positive, prior_facts, provenance, write_json
from ddfm._checks import problem
from ddfm.bench.run import PeakMemory
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import Preset, get_preset
from ddfm.priors.adm import AdmConfig, unet_arguments
from ddfm.samples import street

WARM_UP = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ADM = AdmConfig((256, 256, 512, 512, 1024, 1024), 2, (False, False, False, True, True, True), 64, 3, 6, True, True)
SMALL_ADM = AdmConfig((32, 64), 1, (False, True), 16, 3, 6, True, True)
ADM_STEPS = (100, 20, 10)


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: which network, settings of the loop, and how the network runs."""

    network: str
    preset: Preset
    dtype: str
    channels_last: bool
    compiled: bool
    batch: int

    @property
    def facts(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "preset"}
        return own | {"preset": self.preset.label, "steps": self.preset.steps, "start": self.preset.start}


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every combination; a compiled network in the fastest layout only, as compiling takes minutes."""
    presets = {
        "bundled": [get_preset(name) for name in options.presets],
        "adm": [get_preset(options.presets[0]).with_steps(n) for n in options.adm_steps],
    }
    ways = [("float32", False, False), ("float32", True, False), ("bfloat16", False, False), ("bfloat16", True, False)]
    ways += [] if options.no_compile else [("bfloat16", True, True)]
    for network in options.networks:
        for way, preset, batch in itertools.product(ways, presets[network], options.batches):
            yield Case(network, preset, *way, batch)


def pipeline(case: Case, options: argparse.Namespace) -> DDFMPipeline:
    """The network as the case wants it, on the device."""
    dtype = DTYPES[case.dtype]
    if case.network == "bundled":
        pipe = DDFMPipeline.from_pretrained("bundled", torch_dtype=dtype)
    else:
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(**unet_arguments(SMALL_ADM if options.small else ADM)).eval().to(dtype)
        scheduler = diffusers.DDPMScheduler(prediction_type="epsilon", clip_sample=False)
        pipe = DDFMPipeline(unet, scheduler, "rgb")
    pipe = pipe.to(options.device)
    if case.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
    if case.compiled:
        pipe.unet.compile()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pairs(size: Sequence[int], batch: int) -> list[torch.Tensor]:
    """``batch`` sample streets, infrared and visible luma, (B, 1, H, W) on the CPU."""
    scenes = [street(tuple(size), seed) for seed in range(min(batch, 2))]
    weights = torch.tensor([0.299, 0.587, 0.114])
    infrared = torch.stack([torch.from_numpy(s.infrared)[None] for s in scenes])
    visible = torch.stack([(torch.from_numpy(s.visible) @ weights).clamp(0, 1)[None] for s in scenes])
    repeats = -(-batch // len(scenes))
    return [x.repeat(repeats, 1, 1, 1)[:batch] for x in (infrared, visible)]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fusion(pipe: DDFMPipeline, preset: Preset, sources: list[torch.Tensor]) -> Callable[[], Any]:
    return lambda: pipe(
        *sources,
        num_inference_steps=preset.steps,
        likelihood=preset.likelihood,
        sampler=preset.sampler,
        start=preset.start,
        warm_sweeps=preset.warm_sweeps,
    )


def timed(call: Callable[[], Any], device: torch.device, rounds: int) -> list[float]:
    """Seconds of each round, the first WARM_UP left out."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        synchronise(device)
        begun = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - begun)
    return seconds[WARM_UP:]


def measure(case: Case, pipe: DDFMPipeline, options: argparse.Namespace) -> dict[str, Any]:
    """The row of a case; what does not fit the device's memory, or does not compile, is a row too."""
    call = fusion(pipe, case.preset, pairs(options.size, case.batch))
    try:
        with PeakMemory() as peak:
            seconds = timed(call, torch.device(options.device), options.rounds)
    except torch.OutOfMemoryError:
        return case.facts | {"error": "does not fit the memory"}
    except Exception as error:  # a missing compiler, or Triton: each has its own kind
        if not case.compiled:
            raise
        return case.facts | {"error": f"not compiled: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"}
    median = statistics.median(seconds)
    memory = torch.cuda.max_memory_allocated() if options.device != "cpu" else peak.bytes
    rates = {
        "seconds": median,
        "milliseconds_a_pair": 1000 * median / case.batch,
        "pairs_a_second": case.batch / median,
    }
    return case.facts | rates | {"peak_memory_bytes": memory, "series": seconds}


def said(row: dict[str, Any]) -> str:
    way = f"{row['network']} {row['preset']} {row['steps']} steps, {row['dtype']}"
    way += ", channels_last" * row["channels_last"] + ", compiled" * row["compiled"] + f", batch {row['batch']}: "
    if "error" in row:
        return way + row["error"]
    return way + f"{row['milliseconds_a_pair']:.1f} ms a pair, {row['peak_memory_bytes'] / 1e9:.2f} GB"


def device_facts(name: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    if torch.device(name).type != "cuda":
        return {"device": name}
    found = torch.cuda.get_device_properties(torch.device(name))
    return {
        "device": found.name,
        "memory_bytes": found.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu")
    parser.add_argument("--small", action="store_true", help="a tiny size and network: whether it runs, not how fast")
    parser.add_argument("--networks", nargs="+", default=["bundled", "adm"], choices=["bundled", "adm"])
    parser.add_argument("--presets", nargs="+", default=["balanced", "fast"], help="ADM: the first, with --adm-steps")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 4, 16])
    parser.add_argument("--adm-steps", type=positive, nargs="+", default=ADM_STEPS)
    parser.add_argument("--rounds", type=positive, default=10)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args(arguments)
    options.size = (480, 640)
    if options.small:
        options.size, options.batches, options.adm_steps, options.rounds = (48, 64), [1, 2], (2,), 1
        options.no_compile = True
    return options


def check_device(name: str) -> None:
    """Refuse what is not here."""
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise problem("--device", repr(name), "cuda, cuda:1, or cpu") from error
    if kind == "cuda" and not torch.cuda.is_available():
        remedy = "Run it where one is, with a CUDA build of torch; --device cpu --small tries the script itself."
        raise problem("--device", f"{name}, and torch sees no CUDA device", "an NVIDIA GPU", remedy)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    diffusers.utils.logging.set_verbosity_error()
    with errors_teach("--output holds what was measured"):
        check_device(options.device)
        planned = list(cases(options))
        check_output(options.output)
        head = {"provenance": provenance(), "prior": prior_facts("bundled"), **device_facts(options.device)}
        measure_all(planned, head | {"size": options.size, "small": options.small}, options)
    print(options.output)


def measure_all(planned: Sequence[Case], head: dict[str, Any], options: argparse.Namespace) -> None:
    """Every row, written as it is there; a network is made once for all that run it in the same way."""
    rows: list[dict[str, Any]] = []
    for _, group in itertools.groupby(planned, key=lambda c: (c.network, c.dtype, c.channels_last, c.compiled)):
        pipe = None
        for case in group:
            pipe = pipe or pipeline(case, options)
            rows.append(measure(case, pipe, options))
            print(said(rows[-1]), flush=True)
            write_json(options.output, head | {"rows": rows})
        del pipe


if __name__ == "__main__":
    main()
