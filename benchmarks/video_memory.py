"""Resident memory while a clip is fused, against its length: it must not grow.

The street of ``ddfm.moving`` is filmed once for each length and fused by ``ddfm.video`` in a process of its own, which
notes its resident memory at every frame. Given are the peaks (getrusage), and the slope of the memory over the second
half of each run, bytes a frame, which a picture of floats, kept for each frame, would put at ``frame_bytes``.

    python benchmarks/video_memory.py [--frames 50 200 800] [--size 240 320] [--output results/video_memory.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from _common import RESULTS, check_output, errors_teach, positive, prior_facts, provenance, write_json
from ddfm.io.video_writer import ClipWriter
from ddfm.moving import FPS, moving_street

#: Rendered frames; a longer clip shows them again and again, so that rendering takes no time of its own.
RENDERED = 40


def film(folder: Path, frames: int, size: tuple[int, int]) -> list[Path]:
    """An infrared and a visible clip of so many frames."""
    moments = list(moving_street(size, min(frames, RENDERED)))
    paths = [folder / f"infrared-{frames}.mp4", folder / f"visible-{frames}.mp4"]
    for path, color in zip(paths, (False, True), strict=True):
        with ClipWriter(path, size=size, rate=Fraction(FPS), time_base=Fraction(1, 12_800), color=color) as writer:
            for k in range(frames):
                moment = moments[k % len(moments)]
                writer.write(moment.visible if color else moment.infrared, Fraction(k, FPS), Fraction(1, FPS))
    return paths


def work(sources: Sequence[Path], preset: str, prior: str) -> None:
    """The measured process: resident bytes at each frame, and the peak."""
    import psutil

    from ddfm.fusion import FuseConfig
    from ddfm.video import fuse_videos
    from memory import peak

    process, resident = psutil.Process(), []
    report = fuse_videos(
        sources,
        sources[0].with_name(f"fused-{sources[0].stem}.mp4"),
        FuseConfig(preset=preset, prior=prior),
        on_frame=lambda done, of: resident.append(process.memory_info().rss),
    )
    print(json.dumps({"resident": resident, "peak": peak(), "seconds_per_frame": report["seconds_per_frame"]}))


def measure(folder: Path, frames: int, size: tuple[int, int], preset: str, prior: str) -> dict[str, Any]:
    sources = film(folder, frames, size)
    call = [sys.executable, __file__, "--work", *map(str, sources), "--preset", preset, "--prior", prior]
    found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    resident = found.pop("resident")
    half = len(resident) // 2
    slope = float(np.polyfit(np.arange(len(resident) - half), resident[half:], 1)[0]) if half > 1 else 0.0
    return {"frames": frames, "slope_bytes_per_frame": slope, "last_resident": resident[-1], **found}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive, nargs="+", default=[50, 200, 800])
    parser.add_argument("--size", type=positive, nargs=2, default=(240, 320), help="height and width")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--output", type=Path, default=RESULTS / "video_memory.json")
    parser.add_argument("--work", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(options.work, options.preset, options.prior)
        return
    with errors_teach():
        check_output(options.output)
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for frames in sorted(set(options.frames)):
                row = measure(Path(folder), frames, tuple(options.size), options.preset, options.prior)
                rows.append(row)
                print(
                    f"{frames:6} frames  peak {row['peak'] / 1e6:7.1f} MB  "
                    f"slope {row['slope_bytes_per_frame']:9.0f} bytes a frame",
                    flush=True,
                )
        payload = {
            "provenance": provenance(["av"]),
            "prior": prior_facts(options.prior),
            "preset": options.preset,
            "size": list(options.size),
            "frame_bytes": 4 * 3 * options.size[0] * options.size[1],
            "runs": rows,
        }
        write_json(options.output, payload)
        print(options.output)


if __name__ == "__main__":
    main()
