"""Peak memory and seconds of one very large pair on the command line: 100 megapixels by default, 8 bits.

The pair is a rendered street, laid side by side and mirrored until it is large enough: content everywhere. The visible
one is grey, or RGB with ``--color``. The peak is the process's resident memory, as the system counts it.

    python benchmarks/large.py [--side 10000] [--preset fast] [--steps 1] [--color] [--output FILE]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from _common import RESULTS, provenance, write_json
from ddfm import samples


def picture(data: np.ndarray, side: int) -> np.ndarray:
    """uint8 (side, side) or (side, side, 3): ``data`` and its mirror images, over and over."""
    small = np.rint(data * 255).astype(np.uint8)
    row = np.concatenate([small, small[:, ::-1]], 1)
    block = np.concatenate([row, row[::-1]], 0)
    repeats = [-(-side // n) for n in block.shape[:2]] + [1] * (data.ndim - 2)
    return np.tile(block, repeats)[:side, :side]


def run(side: int, preset: str, steps: int, color: bool, folder: Path) -> dict[str, object]:
    scene = samples.street((480, 640), 0)
    visible = scene.visible if color else scene.visible @ np.array([0.299, 0.587, 0.114], np.float32)
    for name, data in (("ir", scene.infrared), ("vis", visible)):
        tifffile.imwrite(folder / f"{name}.tif", picture(np.asarray(data, np.float32), side), compression="zlib")
    words = ["fuse", "ir.tif", "vis.tif", "-o", "out.tif", "--preset", preset, "--steps", str(steps)]
    words += ["--report", "r.jsonl"]
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ddfm", *words], cwd=folder, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode())
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    out = tifffile.imread(folder / "out.tif")
    return {
        "side": side,
        "megapixels": side**2 / 1e6,
        "preset": preset,
        "steps": steps,
        "color": color,
        "peak_bytes": peak,
        "bytes_per_pixel": peak / side**2,
        "seconds": round(seconds, 1),
        "output": [list(out.shape), str(out.dtype), int(out.min()), int(out.max())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--steps", type=int, default=1, help="network evaluations on the fused image")
    parser.add_argument("--color", action="store_true", help="a visible picture in colour")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/large.json, or large_color.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(options.side, options.preset, options.steps, options.color, Path(folder))
    print(result)
    output = options.output or RESULTS / ("large_color.json" if options.color else "large.json")
    write_json(output, {"provenance": provenance(), **result})


if __name__ == "__main__":
    main()
