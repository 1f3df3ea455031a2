"""Wall time of ``ddfm --help`` and of ``import ddfm`` on a warm disk, beside ``python -c pass``.

Each round runs the three in turn; reported are medians, and the median of each round's ratio to, and difference
from, the bare interpreter. Budgets: 0.3 s and 0.1 s.

    python benchmarks/startup.py [--rounds 15] [--output benchmarks/results/startup.json]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _common import RESULTS, median_ratio, provenance, write_json

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import ddfm": [sys.executable, "-c", "import ddfm"],
    "ddfm --help": [str(Path(sys.executable).with_name("ddfm")), "--help"],
}
BUDGETS = {"import ddfm": 0.1, "ddfm --help": 0.3}


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each command; a first round, which warms the disk, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for n in range(rounds + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if n:
                times[name].append(taken)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, dict]:
    bare = times["python -c pass"]
    result = {}
    for name, budget in BUDGETS.items():
        extra = statistics.median(a - b for a, b in zip(times[name], bare, strict=True))
        ratio = median_ratio(times[name], bare)
        within = ratio["median_seconds"][0] < budget
        result[name] = {**ratio, "median_difference": extra, "budget_seconds": budget, "within_budget": within}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS / "startup.json")
    options = parser.parse_args()
    times = measure(options.rounds)
    result = summary(times)
    for name, row in result.items():
        own, bare = row["median_seconds"]
        print(f"{name:12} {own:.3f} s, bare interpreter {bare:.3f} s, ratio {row['median_ratio']:.2f}")
    write_json(options.output, {"provenance": provenance(), "summary": result, "seconds": times})
    print(options.output)


if __name__ == "__main__":
    main()
