"""Peak memory and seconds of one very large pair on the command line: 100 megapixels by default, grey, 8 bits.

The pair is a rendered street, laid side by side and mirrored until it is large enough: content everywhere.

    python benchmarks/large.py [--side 10000] [--preset fast] [--output FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from _common import RESULTS, provenance, write_json
from ddfm import samples


def picture(data: np.ndarray, side: int) -> np.ndarray:
    """uint8 (side, side): ``data`` and its mirror images, over and over."""
    grey = data if data.ndim == 2 else data @ np.array([0.299, 0.587, 0.114], np.float32)
    small = np.rint(grey * 255).astype(np.uint8)
    row = np.concatenate([small, small[:, ::-1]], 1)
    block = np.concatenate([row, row[::-1]], 0)
    repeats = [-(-side // n) for n in block.shape]
    return np.tile(block, repeats)[:side, :side]


def run(side: int, preset: str, folder: Path) -> dict[str, object]:
    scene = samples.street((480, 640), 0)
    for name, data in (("ir", scene.infrared), ("vis", scene.visible)):
        tifffile.imwrite(folder / f"{name}.tif", picture(np.asarray(data, np.float32), side), compression="zlib")
    words = ["fuse", "ir.tif", "vis.tif", "-o", "out.tif", "--preset", preset, "--report", "r.jsonl"]
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ddfm", *words], cwd=folder, stderr=subprocess.PIPE)
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.stderr.read().decode() if process.stderr else "failed")
    out = tifffile.imread(folder / "out.tif")
    return {
        "side": side,
        "megapixels": side**2 / 1e6,
        "preset": preset,
        "peak_bytes": peak,
        "bytes_per_pixel": peak / side**2,
        "seconds": round(time.perf_counter() - begun, 1),
        "output": [list(out.shape), str(out.dtype), int(out.min()), int(out.max())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--output", type=Path, default=RESULTS / "large.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(options.side, options.preset, Path(folder))
    print(result)
    write_json(options.output, {"provenance": provenance(), **result})


if __name__ == "__main__":
    main()
