"""The bundled network on the CPU by several engines, side by side: torch as it is, channels_last, bf16, compiled, ONNX
Runtime, OpenVINO.

One process for each engine; they evaluate in turn, one evaluation at a time, each beside eager float32 of the same
round. Reported are wall and processor seconds, the median of the ratios pair by pair, and how far a whole fusion with
the preset moves, in grey levels. An engine whose package is missing is named and left out. Packages, best in a virtual
environment of their own: onnxruntime, openvino, onnx, onnxscript; torch.compile needs a C++ compiler.

    python benchmarks/cpu_engines.py [--threads 1 2] [--rounds 9] [--engines eager,onnx,...] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _common import RESULTS, check_output, errors_teach, median_ratio, positive, prior_facts, provenance, write_json
from ddfm._checks import problem

BASE = "eager"
WARM_UP = 2
CRITERION = 1.5  # times as fast at equal output, for an optional extra
EQUAL_LEVELS = 1.0  # grey levels, of 99.9 % of the pixels
PACKAGES = ("onnx", "onnxruntime", "openvino", "onnxscript")


# ---- engines: a network and a size -> a network -----------------------------------------------------


def eager(unet: Any, size: tuple[int, int]) -> Any:
    return unet


def channels_last(unet: Any, size: tuple[int, int]) -> Any:
    import torch

    return wrapped(unet.to(memory_format=torch.channels_last), last=True)


def bf16(unet: Any, size: tuple[int, int]) -> Any:
    import torch

    return unet.to(torch.bfloat16)


def bf16_last(unet: Any, size: tuple[int, int]) -> Any:
    import torch

    return wrapped(unet.to(torch.bfloat16, memory_format=torch.channels_last), last=True)


def autocast(unet: Any, size: tuple[int, int]) -> Any:
    import torch

    def call(x: Any, t: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return unet(x, t).sample.float()

    return replaced(unet, call)


def compiled(unet: Any, size: tuple[int, int]) -> Any:
    """With weights frozen into the graph, so that they can be packed once."""
    import torch
    from torch._inductor import config

    config.freezing = True
    return wrapped(unet, run=torch.compile(unet))


def compiled_bf16(unet: Any, size: tuple[int, int]) -> Any:
    import torch

    return compiled(unet.to(torch.bfloat16), size)


def onnx(unet: Any, size: tuple[int, int]) -> Any:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(export(unet, size), options, providers=["CPUExecutionProvider"])

    def call(x: Any, t: Any) -> Any:
        feed = {"x": x.numpy(), "t": t.reshape(1).long().numpy()}
        return torch.from_numpy(session.run(None, feed)[0])

    return replaced(unet, call)


def openvino(unet: Any, size: tuple[int, int], precision: str = "f32") -> Any:
    import openvino as ov
    import torch

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = ov.Core().compile_model(export(unet, size), "CPU", settings)

    def call(x: Any, t: Any) -> Any:
        return torch.from_numpy(model([x.numpy(), t.reshape(1).long().numpy()])[0])

    return replaced(unet, call)


def openvino_bf16(unet: Any, size: tuple[int, int]) -> Any:
    return openvino(unet, size, "bf16")


ENGINES: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    BASE: eager,
    "channels_last": channels_last,
    "bf16": bf16,
    "bf16_channels_last": bf16_last,
    "bf16_autocast": autocast,
    "compiled": compiled,
    "compiled_bf16": compiled_bf16,
    "onnx": onnx,
    "openvino": openvino,
    "openvino_bf16": openvino_bf16,
}


def replaced(unet: Any, call: Callable[[Any, Any], Any]) -> Any:
    """A module that the pipeline takes for the network, and that answers by ``call(x, t) -> tensor``."""
    import torch

    class Engine(torch.nn.Module):
        config, dtype, device = unet.config, unet.dtype, unet.device

        def forward(self, x: Any, t: Any) -> Any:
            return SimpleNamespace(sample=call(x, t))

    return Engine()


def wrapped(unet: Any, last: bool = False, run: Any = None) -> Any:
    """The same network, its input in channels_last or itself compiled."""
    import torch

    layout = torch.channels_last if last else torch.contiguous_format
    return replaced(unet, lambda x, t: (unet if run is None else run)(x.contiguous(memory_format=layout), t).sample)


def export(unet: Any, size: tuple[int, int]) -> str:
    """The path of an ONNX file of the network at this size; in a folder that goes with the process."""
    import torch

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, x: Any, t: Any) -> Any:
            return self.unet(x, t).sample

    folder = Path(os.environ["DDFM_ENGINES"])
    path = folder / f"network-{os.getpid()}.onnx"
    channels = unet.config.in_channels
    example = torch.zeros(1, channels, *size), torch.tensor([40])
    with torch.no_grad():
        torch.onnx.export(
            Plain(), example, str(path), input_names=["x", "t"], output_names=["y"], dynamo=False, opset_version=17
        )
    return str(path)


# ---- the measured process -------------------------------------------------------------------------


def work(name: str, threads: int, size: list[int], preset: str) -> None:
    """Make the engine, say whether it is there, fuse once, then one evaluation for each line that is read."""
    import torch

    from ddfm._runtime import keep_freed_memory
    from ddfm.fusion import FuseConfig, Fuser

    keep_freed_memory()
    torch.set_num_threads(threads)
    fuser = Fuser(FuseConfig(preset=preset, device="cpu"))
    pipe = fuser.pipeline
    factor = pipe.config.unshuffle
    inner = tuple(-(-n // pipe.multiple) * pipe.multiple // factor for n in size)
    x = torch.randn(1, pipe.unet.config.in_channels, *inner, generator=torch.Generator().manual_seed(0))
    try:
        pipe.unet = ENGINES[name](pipe.unet, inner)
        x = x.to(pipe.unet.dtype)
        with torch.no_grad():
            y = pipe.unet(x, torch.tensor(40)).sample
    except Exception as error:  # a missing package, compiler or operator: each engine has its own kinds
        print(json.dumps({"missing": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}))
        return
    fused = fuser.fuse(*sources(size)).data
    path = Path(os.environ["DDFM_ENGINES"]) / f"{name}-{threads}.pt"
    torch.save({"y": y.float(), "fused": torch.from_numpy(fused)}, path)
    print(json.dumps({"output": str(path)}), flush=True)
    for _ in sys.stdin:
        begun, before = time.perf_counter(), time.process_time()
        with torch.no_grad():
            pipe.unet(x, torch.tensor(40))
        print(json.dumps([time.perf_counter() - begun, time.process_time() - before]), flush=True)


def sources(size: list[int]) -> list[Any]:
    """The sample street, both lumas."""
    from ddfm.samples import street

    scene = street(tuple(size), 0)
    return [scene.infrared, (scene.visible @ [0.299, 0.587, 0.114]).clip(0, 1).astype("float32")]


class Worker:
    """The process of one engine; ``missing`` says why it cannot run here, if it cannot."""

    def __init__(self, name: str, options: argparse.Namespace, threads: int) -> None:
        self.name = name
        call = [sys.executable, __file__, "--work", name, "--threads", str(threads), "--preset", options.preset]
        call += ["--size", *map(str, options.size)]
        self.process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        hello = self._read()
        self.missing, self.output = hello.get("missing"), hello.get("output")

    def _read(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        while line and not line.startswith(("{", "[")):  # what libraries print
            line = self.process.stdout.readline()
        return json.loads(line) if line else {"missing": f"the process ended with code {self.process.wait()}"}

    def ask(self) -> list[float]:
        """Wall and processor seconds of one evaluation."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # a process that died is told of below
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        answer = self._read()
        if not isinstance(answer, list):
            raise problem(self.name, answer["missing"], "seconds of an evaluation", "Leave it out of --engines.")
        return answer

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()  # closes its input, which ends it


# ---- side by side ---------------------------------------------------------------------------------


def measure(names: list[str], options: argparse.Namespace, threads: int) -> dict[str, dict[str, Any]]:
    """Rows of all engines at one number of threads. Two processes live at a time, base and engine."""
    base = Worker(BASE, options, threads)
    if base.missing:
        raise problem(BASE, base.missing, "a network that runs as it is", "ddfm doctor says what is wrong.")
    rows: dict[str, dict[str, Any]] = {}
    try:
        for name in names:
            rows[name] = beside(base, name, options, threads)
            print(f"{threads} threads  {name:20}", said(rows[name]), flush=True)
    finally:
        base.close()
    return rows


def beside(base: Worker, name: str, options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """One engine and the base in turn; the first WARM_UP rounds are not counted."""
    worker = Worker(name, options, threads)
    if worker.missing:
        worker.close()
        return {"missing": worker.missing}
    try:
        rounds = [(base.ask(), worker.ask()) for _ in range(WARM_UP + options.rounds)][WARM_UP:]
    finally:
        worker.close()
    wall = median_ratio([b[0] for b, _ in rounds], [w[0] for _, w in rounds])
    processor = median_ratio([b[1] for b, _ in rounds], [w[1] for _, w in rounds])
    return {"wall": wall, "processor": processor, "difference": difference(base.output, worker.output)}


def difference(base: str, other: str) -> dict[str, float]:
    """Of the network's answer (relative RMS) and of a whole fusion (grey levels)."""
    import torch

    a, b = (torch.load(path, weights_only=True) for path in (base, other))
    levels = (a["fused"] - b["fused"]).abs() * 255
    return {
        "network_relative_rms": float((a["y"] - b["y"]).norm() / a["y"].norm()),
        "fused_mean_levels": float(levels.mean()),
        "fused_999_levels": float(levels.flatten().kthvalue(max(1, int(0.999 * levels.numel()))).values),
        "fused_largest_levels": float(levels.max()),
    }


def said(row: dict[str, Any]) -> str:
    if "missing" in row:
        return f"left out: {row['missing']}"
    base, own = row["wall"]["median_seconds"]
    return (
        f"{own:.3f} s beside {base:.3f} s: {row['wall']['median_ratio']:.2f} times as fast "
        f"(processor time {row['processor']['median_ratio']:.2f}), "
        f"fusion differs by {row['difference']['fused_999_levels']:.3f} levels at 99.9 %"
    )


def meets(row: dict[str, Any]) -> bool:
    """1.5 times as fast, by wall and processor time, at equal output."""
    if "missing" in row:
        return False
    fast = min(row["wall"]["median_ratio"], row["processor"]["median_ratio"]) >= CRITERION
    return fast and row["difference"]["fused_999_levels"] <= EQUAL_LEVELS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--size", type=positive, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--preset", default="balanced", help="whose fusion is compared")
    parser.add_argument("--engines", default=",".join(ENGINES), help="separated by commas")
    parser.add_argument("--output", type=Path, default=RESULTS / "cpu_engines.json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.engines.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(ENGINES)):
        parser.error(f"--engines: got {', '.join(unknown)}, expected some of {', '.join(ENGINES)}")
    options.names = [name for name in names if name != BASE]
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.work:
        work(options.work, options.threads[0], options.size, options.preset)
        return
    with errors_teach("--output holds the numbers of threads that were finished"):
        from ddfm.presets import get_preset

        get_preset(options.preset)
        check_output(options.output)
        measure_all(options)
    print(options.output)


def measure_all(options: argparse.Namespace) -> None:
    """Each number of threads, written as it is there."""
    head = {
        "provenance": provenance(PACKAGES),
        "prior": prior_facts("bundled"),
        "preset": options.preset,
        "size": options.size,
        "criterion": {"ratio": CRITERION, "levels": EQUAL_LEVELS},
    }
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DDFM_ENGINES"] = folder
        for threads in options.threads:
            rows[str(threads)] = table = measure(options.names, options, threads)
            meeting = {count: [name for name, row in own.items() if meets(row)] for count, own in rows.items()}
            write_json(options.output, head | {"meets": meeting, "threads": rows})
            print(f"{threads} threads: meet the criterion: {', '.join(n for n in table if meets(table[n])) or 'none'}")


if __name__ == "__main__":
    main()
