"""Peak resident memory of one ``ddfm.fuse`` per pixel: what the figures of ``ddfm.fusion`` have to cover.

One process for each size fuses a grey and a colour picture of 8 bits with the default preset; its peak (getrusage)
at two sizes or more gives a slope, bytes a pixel, and an intercept, what the program and its weights take. Measured as
a library (``ddfm.fuse`` alone) and as the command line runs it (``keep_freed_memory`` before), and as the command line
with the network in tiles of 512 (preset ``fast``), whose slope is what the rest takes: ``TILED_BYTES_PER_PIXEL``. What
strips take is measured at full size: benchmarks/large.py.

    python benchmarks/memory.py [--sizes 512 1024] [--tiled-sizes 1024 2048] [--output benchmarks/results/memory.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from _common import RESULTS, prior_facts, provenance, write_json

MODES = ("library", "command line", "tiled")


def peak() -> int:
    """Peak resident bytes of this process so far; the system counts kilobytes on Linux, bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def work(mode: str, side: int) -> None:
    """The measured process: one fusion of side x side pixels, after the prior was loaded."""
    if mode != "library":
        from ddfm._runtime import keep_freed_memory

        keep_freed_memory()
    import torch

    from ddfm import fusion

    tiled = {"preset": "fast", "tile": 512} if mode == "tiled" else {}
    stated = fusion.TILED_BYTES_PER_PIXEL if tiled else fusion.BYTES_PER_PIXEL
    fuser = fusion.Fuser(fusion.FuseConfig(device="cpu", **tiled))
    rng = np.random.default_rng(0)
    pair = [rng.integers(256, size=shape, dtype=np.uint8) for shape in ((side, side), (side, side, 3))]
    loaded = peak()
    fuser.fuse(*pair)
    facts = {"side": side, "loaded": loaded, "peak": peak(), "growth_per_pixel": (peak() - loaded) / side**2}
    extra = {"preset": fuser.preset.label, "threads": torch.get_num_threads(), "bytes_per_pixel": stated}
    print(json.dumps(facts | extra))


def measure(mode: str, side: int) -> dict[str, Any]:
    call = [sys.executable, __file__, "--work", mode, "--sizes", str(side)]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def fit(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Straight line through (pixels, peak)."""
    slope, intercept = np.polyfit([row["side"] ** 2 for row in rows], [row["peak"] for row in rows], 1)
    growth = max(row["growth_per_pixel"] for row in rows)
    return {"bytes_per_pixel": float(slope), "intercept_bytes": float(intercept), "largest_growth_per_pixel": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024], help="sides of square pictures")
    parser.add_argument("--tiled-sizes", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    parser.add_argument("--work", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.sizes[0])
        return
    sizes = dict.fromkeys(MODES, options.sizes) | {"tiled": options.tiled_sizes}
    if any(len(set(sides)) < 2 for sides in sizes.values()):
        parser.error("--sizes, --tiled-sizes: two different sizes or more")
    rows = {mode: [measure(mode, side) for side in sizes[mode]] for mode in MODES}
    fits = {mode: fit(rows[mode]) for mode in MODES}
    stated = {mode: rows[mode][0]["bytes_per_pixel"] for mode in MODES}
    for mode, line in fits.items():
        text = f"{line['bytes_per_pixel']:.0f} bytes a pixel + {line['intercept_bytes'] / 1e6:.0f} MB"
        print(f"{mode:12} {text}; stated {stated[mode]}")
    payload = {
        "provenance": provenance(),
        "prior": prior_facts("bundled"),
        "stated_bytes_per_pixel": stated,
        "covered": all(line["bytes_per_pixel"] <= stated[mode] for mode, line in fits.items()),
        "fits": fits,
        "runs": rows,
    }
    write_json(options.output, payload)
    print(options.output)


if __name__ == "__main__":
    main()
