"""Seconds of a fusion in a warm process, and where they go: network, EM, maps, warm start, bookkeeping, files.

One 640x480 pair (the sample street) with the bundled prior on the CPU; every preset with a warm start as it is, with
two network evaluations on the fused image, and told of noise; in turn and in one process, the first call of each not
counted. All parts are timed inside the same call, so that their shares stand whatever else the machine does.
A step is what ends with the callback and begins with the prior's prediction.

    network      evaluations of the network
    EM           the likelihood's steps inside the loop
    maps         the likelihood's state: levels, scale maps, texture target
    warm start   EM before the loop
    bookkeeping  the rest of the pipeline: noise, padding, x0, sampler, copies
    files        reading, luma, tone, encoding, writing: all outside the pipeline

Budgets: likelihood and bookkeeping under 5 % of a step; balanced under 3 s, fast under 1 s on two cores.

    python benchmarks/step_share.py [--calls 10] [--presets balanced fast] [--threads 2] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from _common import RESULTS, check_output, errors_teach, positive, prior_facts, provenance, write_json
from ddfm._checks import problem
from ddfm._runtime import keep_freed_memory
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import write_image
from ddfm.pipeline import DDFMPipeline
from ddfm.presets import PRESETS, get_preset
from ddfm.samples import street

WARM = tuple(name for name, preset in PRESETS.items() if preset.start is not None)
SHARE = 0.05  # of a step, without the network
SECONDS = {"balanced": 3.0, "medical": 3.0, "fast": 1.0}
NOISE = 0.06  # of the third way
PARTS = ("network", "EM", "maps", "warm start", "bookkeeping", "files")


class Clock:
    """Seconds of each part of one call; ``steps``: (whole, network) of each step."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("pipeline", "network", "EM", "maps", "warm start"), 0.0)
        self.steps: list[tuple[float, float]] = []
        self.begun: float | None = None  # of the step under way
        self.before = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its seconds counted as ``part``; EM before the first step is the warm start."""

        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                early = part == "EM" and self.begun is None and not self.steps
                self.spent["warm start" if early else part] += time.perf_counter() - begun

        return call

    def begin_step(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, with which a step begins."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.begun, self.before = time.perf_counter(), self.spent["network"]
            return function(*arguments, **options)

        return call

    def end_step(self, *_: Any) -> None:
        assert self.begun is not None
        self.steps.append((time.perf_counter() - self.begun, self.spent["network"] - self.before))

    def parts(self, whole: float) -> dict[str, float]:
        """Seconds of every part of a call that took ``whole``."""
        found = {part: self.spent[part] for part in PARTS if part in self.spent}
        found["bookkeeping"] = self.spent["pipeline"] - sum(found.values())
        found["files"] = whole - self.spent["pipeline"]
        return found


@contextlib.contextmanager
def watched(fuser: Fuser, clock: Clock) -> Iterator[None]:
    """Every part of ``fuser`` timed by ``clock``."""
    pipe, likelihood = fuser.pipeline, type(fuser.preset.likelihood)
    changes: list[tuple[Any, str, Any]] = [
        (pipe.unet, "forward", clock.timed("network", pipe.unet.forward)),
        (pipe, "_predict", clock.begin_step(pipe._predict)),
        (DDFMPipeline, "__call__", clock.timed("pipeline", with_callback(DDFMPipeline.__call__, clock))),
        (likelihood, "init", clock.timed("maps", likelihood.init)),
        (likelihood, "step", clock.timed("EM", likelihood.step)),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in changes:
            stack.callback(restore(owner, name))
            setattr(owner, name, replacement)
        yield


def with_callback(call: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    """The pipeline's call, telling the clock of the end of each step."""

    def run(*arguments: Any, **options: Any) -> Any:
        return call(*arguments, **options | {"callback_on_step_end": clock.end_step})

    return run


def restore(owner: Any, name: str) -> Callable[[], None]:
    """What puts an attribute back: of an instance that had it from its class, by taking it away."""
    if name in vars(owner):
        old = vars(owner)[name]
        return lambda: setattr(owner, name, old)
    return lambda: delattr(owner, name)


def call(fuser: Fuser, files: Sequence[Path], out: Path) -> dict[str, list[float]]:
    """Series of one fusion from files to a file."""
    clock = Clock()
    with watched(fuser, clock):
        begun = time.perf_counter()
        fuser.fuse(*files).save(out, overwrite=True)
        whole = time.perf_counter() - begun
    return {
        "seconds": [whole],
        "pipeline_seconds": [clock.spent["pipeline"]],
        "step_seconds": [step for step, _ in clock.steps],
        "share_of_step": [1 - network / step for step, network in clock.steps],
        **{f"{part} seconds": [seconds] for part, seconds in clock.parts(whole).items()},
    }


def configs(presets: Sequence[str]) -> dict[str, FuseConfig]:
    """Each preset as it is, with two network evaluations on the fused image, and on noisy sources."""
    found = {}
    for name in presets:
        found[name] = FuseConfig(preset=name, device="cpu")
        found[f"{name}, 2 steps"] = FuseConfig(preset=name, device="cpu", steps=2, noise_std=0)
        found[f"{name}, noisy"] = FuseConfig(preset=name, device="cpu", noise_std=NOISE)
    return found


def measure(presets: Sequence[str], calls: int, size: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """All series of ``calls`` calls of each way of each preset, in turn; one more before them is not counted."""
    fusers = {name: Fuser(config) for name, config in configs(presets).items()}
    series: dict[str, dict[str, list[float]]] = {name: {} for name in fusers}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = write_pair(folder, size)
        for round_ in range(calls + 1):
            for name, fuser in fusers.items():
                found = call(fuser, files, folder / "fused.png")
                for key, values in found.items() if round_ else ():
                    series[name].setdefault(key, []).extend(values)
    return series


def write_pair(folder: Path, size: Sequence[int]) -> list[Path]:
    """The sample street as two files."""
    scene = street(tuple(size))
    files = [folder / "infrared.png", folder / "visible.png"]
    for path, data in zip(files, (scene.infrared, scene.visible), strict=True):
        write_image(path, data)
    return files


def summary(name: str, series: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, shares of the whole, and whether the budgets are met."""
    medians = {key: statistics.median(values) for key, values in series.items() if values}
    whole = sum(medians[f"{part} seconds"] for part in PARTS)
    preset, share = configs([name.split(",")[0]])[name].resolve(), medians.get("share_of_step")
    budget = SECONDS.get(preset.name)
    return {
        "preset": preset.label,
        "steps": preset.steps,
        "medians": medians,
        "shares": {part: medians[f"{part} seconds"] / whole for part in PARTS},
        "budget_seconds": budget,
        "within_seconds": None if budget is None else medians["seconds"] < budget,
        "within_share_of_step": None if share is None else share < SHARE,
        "series": series,
    }


def said(name: str, row: dict[str, Any]) -> str:
    shares = ", ".join(f"{part} {100 * share:.1f} %" for part, share in row["shares"].items())
    medians = row["medians"]
    step = ""
    if "step_seconds" in medians:
        part = 100 * medians["share_of_step"]
        step = f", a step {medians['step_seconds']:.3f} s, of it without the network {part:.1f} %"
    return f"{name}: {medians['seconds']:.3f} s{step}; {shares}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=positive, default=10)
    parser.add_argument("--presets", nargs="+", default=WARM)
    parser.add_argument("--size", type=positive, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=positive, help="of torch; by default its own choice")
    parser.add_argument("--output", type=Path, default=RESULTS / "step_share.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    with errors_teach():
        for name in options.presets:
            if get_preset(name).start is None:
                raise problem("--presets", name, f"presets with a warm start: {', '.join(WARM)}")
        check_output(options.output)
        keep_freed_memory()
        torch.set_num_threads(options.threads or torch.get_num_threads())
        series = measure(options.presets, options.calls, options.size)
    rows = {name: summary(name, own) for name, own in series.items()}
    for name, row in rows.items():
        print(said(name, row))
    head = {"provenance": provenance(), "prior": prior_facts("bundled"), "size": list(options.size)}
    write_json(options.output, head | {"budget_share_of_step": SHARE, "presets": rows})
    print(options.output)


if __name__ == "__main__":
    main()
