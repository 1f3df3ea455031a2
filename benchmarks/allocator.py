"""Seconds per network evaluation at 640x480 with and without ``ddfm._runtime.keep_freed_memory``.

Two processes, one of each kind, evaluate in turn, one evaluation at a time; reported are the medians and the median
of the ratios pair by pair. Page faults and seconds in the kernel per evaluation show the cause, whatever else the
machine does.

    python benchmarks/allocator.py [--rounds 15] [--output benchmarks/results/allocator.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _common import RESULTS, median_ratio, prior_facts, provenance, write_json

WARM_UP = 2


def evaluation(height: int, width: int) -> Callable[[], None]:
    """One call of the bundled network, ready to be timed."""
    import torch

    from ddfm.diffusion import call_network
    from ddfm.priors import load_prior

    prior = load_prior("bundled")
    x = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(0))

    def evaluate() -> None:
        with torch.inference_mode():
            call_network(prior.unet, x, 40, prior.unshuffle)

    return evaluate


def work(keep: bool, height: int, width: int) -> None:
    """The measured process: one evaluation, and one line of JSON, for each line that it reads."""
    if keep:
        from ddfm._runtime import keep_freed_memory

        keep_freed_memory()
    evaluate = evaluation(height, width)
    import torch

    for _ in sys.stdin:
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        evaluate()
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        record = {
            "seconds": seconds,
            "kernel_seconds": after.ru_stime - before.ru_stime,
            "page_faults": after.ru_minflt - before.ru_minflt,
            "threads": torch.get_num_threads(),
        }
        print(json.dumps(record), flush=True)


def start(keep: bool, size: list[int]) -> subprocess.Popen:
    call = [sys.executable, __file__, "--work", "keep" if keep else "plain", "--size", *map(str, size)]
    return subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen) -> dict[str, Any]:
    """One evaluation of a worker."""
    assert worker.stdin and worker.stdout
    worker.stdin.write("go\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise SystemExit(f"the measured process ended with code {worker.wait()}")
    return json.loads(answer)


def measure(rounds: int, size: list[int]) -> dict[str, list[dict[str, Any]]]:
    """Records of both kinds, in turn; the first WARM_UP rounds are not counted."""
    workers = {"plain": start(False, size), "keep": start(True, size)}
    records: dict[str, list[dict[str, Any]]] = {kind: [] for kind in workers}
    try:
        for _ in range(WARM_UP + rounds):
            for kind, worker in workers.items():
                records[kind].append(ask(worker))
    finally:
        for worker in workers.values():
            worker.communicate()  # closes its input, which ends it
    return {kind: rows[WARM_UP:] for kind, rows in records.items()}


def medians(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--output", type=Path, default=RESULTS / "allocator.json")
    parser.add_argument("--work", choices=("keep", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work == "keep", *options.size)
        return
    records = measure(options.rounds, options.size)
    ratio = median_ratio(*([row["seconds"] for row in records[kind]] for kind in ("plain", "keep")))
    payload = {
        "provenance": provenance(),
        "prior": prior_facts("bundled"),
        "size": options.size,
        "plain_over_keep": ratio,
        "medians": {kind: medians(rows) for kind, rows in records.items()},
        "records": records,
    }
    print(json.dumps(payload["medians"], indent=1), f"\nplain / keep: {ratio['median_ratio']:.2f}")
    write_json(options.output, payload)
    print(options.output)


if __name__ == "__main__":
    main()
