"""Share of a sampling step that is not the network: likelihood, scheduler, padding, bookkeeping.

One 640x480 pair with the bundled prior on the CPU, preset ``balanced``. The network's own time and the time of the
whole step come from the same step, so that their ratio stands whatever else the machine does. A call's first step is
not counted, as its beginning cannot be seen from outside; what precedes the loop (saliency maps, warm start) is
reported as a share of the whole call. Budget: under 5 % of a step.

    python benchmarks/step_share.py [--calls 10] [--output benchmarks/results/step_share.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from _common import RESULTS, prior_facts, provenance, write_json
from ddfm import color
from ddfm._runtime import keep_freed_memory
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import Preset, get_preset
from ddfm.samples import street

BUDGET = 0.05


class Clock:
    """Seconds in the network, and at the end of each step."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.network: list[float] = []
        self.ends: list[float] = []
        unet.register_forward_pre_hook(lambda *_: setattr(self, "begun", time.perf_counter()))
        unet.register_forward_hook(lambda *_: self.network.append(time.perf_counter() - self.begun))

    def step_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def clear(self) -> None:
        self.network.clear()
        self.ends.clear()


def sources(height: int, width: int) -> list[torch.Tensor]:
    """The sample street's two lumas (1, 1, H, W)."""
    sample = street((height, width))
    visible = color.to_luma(torch.from_numpy(sample.visible).permute(2, 0, 1)[None])
    return [torch.from_numpy(sample.infrared)[None, None], visible.clamp(0, 1)]


def call(pipe: DDFMPipeline, clock: Clock, preset: Preset, pair: list[torch.Tensor]) -> dict[str, list[float]]:
    """Shares in one call: of each step but the first, and of the whole call."""
    clock.clear()
    begun = time.perf_counter()
    pipe(
        *pair,
        num_inference_steps=preset.steps,
        likelihood=preset.likelihood,
        sampler=preset.sampler,
        start=preset.start,
        warm_sweeps=preset.warm_sweeps,
        callback_on_step_end=clock.step_end,
    )
    whole = time.perf_counter() - begun
    steps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
    network = clock.network[1:]
    return {
        "step_seconds": steps,
        "network_seconds": network,
        "share_of_step": [1 - n / s for n, s in zip(network, steps, strict=True)],
        "call_seconds": [whole],
        "share_of_call": [1 - sum(clock.network) / whole],
    }


def measure(calls: int, height: int, width: int, preset: Preset) -> dict[str, list[float]]:
    """All series of ``calls`` calls; one more before them is not counted."""
    pipe = DDFMPipeline.from_pretrained("bundled")
    pipe.set_progress_bar_config(disable=True)
    clock, pair = Clock(pipe.unet), sources(height, width)
    call(pipe, clock, preset, pair)
    series: dict[str, list[float]] = {}
    for _ in range(calls):
        for name, values in call(pipe, clock, preset, pair).items():
            series.setdefault(name, []).extend(values)
    return series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--output", type=Path, default=RESULTS / "step_share.json")
    options = parser.parse_args()
    keep_freed_memory()
    preset = get_preset("balanced")
    series = measure(options.calls, *options.size, preset)
    medians = {name: statistics.median(values) for name, values in series.items()}
    print("  ".join(f"{name} {value:.4f}" for name, value in medians.items()))
    payload = {
        "provenance": provenance(),
        "prior": prior_facts("bundled"),
        "preset": preset.label,
        "size": list(options.size),
        "medians": medians,
        "budget_share_of_step": BUDGET,
        "within_budget": medians["share_of_step"] < BUDGET,
        "series": series,
    }
    write_json(options.output, payload)
    print(options.output)


if __name__ == "__main__":
    main()
