"""The page under load, on loopback: so many requests at once, and a plain page asked for meanwhile.

The server is a process of its own. Reported: how many requests were answered and with their own settings, whether they
ended in the order in which they came, the seconds of plain page requests (median, 95th percentile) idle and meanwhile,
and the server's memory before, at its peak, and after.

    python benchmarks/app_load.py [--requests 20] [--steps 4] [--output benchmarks/results/app_load.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

from _common import RESULTS, provenance, write_json
from ddfm import samples

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from served import Served, serving


def write_pair(folder: Path) -> list[Path]:
    """The street, 640x480."""
    scene = samples.street(seed=0)
    paths = []
    for name, data in (("ir", scene.infrared), ("vis", scene.visible)):
        paths.append(folder / f"{name}.png")
        Image.fromarray(np.rint(data * 255).astype(np.uint8)).save(paths[-1])
    return paths


class Watch(threading.Thread):
    """Asks for the plain page and looks at the server's memory, again and again."""

    def __init__(self, address: str, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.address, self.process, self.ended = address, process, threading.Event()
        self.seconds: list[float] = []
        self.megabytes: list[float] = []

    def run(self) -> None:
        while not self.ended.wait(0.1):
            begun = time.perf_counter()
            requests.get(self.address, timeout=60).raise_for_status()
            self.seconds.append(time.perf_counter() - begun)
            self.megabytes.append(self.process.memory_info().rss / 2**20)

    def stop(self) -> dict[str, float]:
        self.ended.set()
        self.join()
        ordered = sorted(self.seconds)
        return {
            "page_requests": len(ordered),
            "median_s": round(statistics.median(ordered), 4),
            "p95_s": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 4),
            "peak_mb": round(max(self.megabytes)),
        }


def load(server: Served, paths: list[Path], count: int, steps: int) -> dict[str, object]:
    """``count`` requests, each its own session, sent one right after the other in the order of their seeds."""
    files = server.upload(*paths)
    begun = time.perf_counter()
    events = [
        server.begin("fuse", *files, "balanced", steps, seed, "0", "", "none", "", False) for seed in range(count)
    ]
    answers = [server.end("fuse", event) for event in events]
    seconds = time.perf_counter() - begun
    made = [Path(server.path_of(answer, 0)).stat().st_mtime_ns for answer in answers]
    reports = [requests.get(server.url_of(answer, 2), timeout=60).json()["report"] for answer in answers]
    return {
        "requests": count,
        "answered": len(reports),
        "with_their_own_settings": sum(report["seed"] == k for k, report in enumerate(reports)),
        "ended_in_order": made == sorted(made),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4, help="Network evaluations of each.")
    parser.add_argument("--rounds", type=int, default=4, help="Of all requests, for the memory.")
    parser.add_argument("--output", type=Path, default=RESULTS / "app_load.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pair(folder)
        with serving(folder) as server:
            process = psutil.Process(server.process.pid)
            load(server, paths, 1, options.steps)  # loads the prior
            idle = Watch(server.address, process)
            idle.start()
            time.sleep(5)
            results: dict[str, Any] = {"idle": idle.stop()}
            busy = Watch(server.address, process)
            busy.start()
            results["load"] = load(server, paths, options.requests, options.steps)
            results["meanwhile"] = busy.stop()
            results["megabytes_after_each_round"] = [round(process.memory_info().rss / 2**20)]
            for _ in range(options.rounds - 1):
                load(server, paths, options.requests, options.steps)
                results["megabytes_after_each_round"].append(round(process.memory_info().rss / 2**20))
    settings = {"requests": options.requests, "steps": options.steps, "size": [480, 640]}
    write_json(options.output, {**provenance(), "settings": settings, "results": results})
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
