"""Flicker of a fused clip: shared levels, scales and noise against frame-by-frame fusion, on a clip of known motion.

The street of ``ddfm.moving`` is rendered with a panning camera, walking people, a thermal gain that drifts and jumps,
and sensor noise. What stands still in the world between two frames is known exactly, and so is how far the view moved;
over those pixels, laid over each other,

    flicker   mean |fused_t - fused_(t-1)|, grey levels of 255, less the same of the truth, which is 0 there but for
              rounding (the two clean pictures are equal)
    pumping   mean over frames of |mean over those pixels of (fused_t - fused_(t-1))|: the whole picture breathing

and, so that steadiness is not bought with smear or lag,

    moving    mean |fused - reference| over the pixels that do not stand still, reference: frame-by-frame fusion of the
              clean pictures without drift, both brought to mean 0 first
    error     the same over all pixels: what noise and flicker leave of the fusion that clean sources would give

The sources' own flicker is given beside. ``gain``: the thermal camera's gain is followed first (``ddfm.steady``), so
many seconds long, 8 where none are named. ``carry``: EM begins at so much of the last fused frame. ``flow``: that frame
is moved along the optical flow of the visible frames (OpenCV's DIS) first, in place of staying where it was.

    python benchmarks/flicker.py [--frames 50] [--size 240 320] [--noise 0 1 3] [--output results/flicker.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import RESULTS, check_output, errors_teach, positive, prior_facts, provenance, write_json
from ddfm.fusion import FuseConfig, Fuser
from ddfm.moving import FPS, MovingFrame, moving_street, overlap, still
from ddfm.sequence import SceneFuser
from ddfm.steady import GainFollower

LUMA = np.array((0.299, 0.587, 0.114), np.float32)


@dataclasses.dataclass(frozen=True)
class Mode:
    """memory, carry: of ``SceneFuser``; None: frame by frame. gain: seconds of ``GainFollower``; None: no such."""

    memory: float | None = None
    carry: float = 0.0
    flow: bool = False
    gain: float | None = None


MODES = {
    "frame by frame": Mode(),
    "memory 0": Mode(0.0),
    "memory 0.9": Mode(0.9),
    "memory 1": Mode(1.0),
    "frame by frame, gain": Mode(gain=8),
    "memory 0, gain": Mode(0.0, gain=8),
    "memory 0.5, gain": Mode(0.5, gain=8),
    "memory 0.9, gain": Mode(0.9, gain=8),
    "memory 0.98, gain": Mode(0.98, gain=8),
    "memory 1, gain": Mode(1.0, gain=8),
    "memory 0.9, gain 2": Mode(0.9, gain=2),
    "memory 0.9, gain 30": Mode(0.9, gain=30),
    "memory 0.9, gain, carry 0.3": Mode(0.9, 0.3, gain=8),
    "memory 0.9, gain, carry 0.6": Mode(0.9, 0.6, gain=8),
    "memory 0.9, gain, carry 0.3, flow": Mode(0.9, 0.3, True, gain=8),
    "memory 0.9, gain, carry 0.6, flow": Mode(0.9, 0.6, True, gain=8),
}


def luma(picture: np.ndarray) -> np.ndarray:
    return picture @ LUMA if picture.ndim == 3 else picture


def fused_clip(frames: Sequence[MovingFrame], fuser: Fuser, mode: Mode) -> list[np.ndarray]:
    """Fused luma of each frame, float32 in [0, 1]."""
    scene = SceneFuser(fuser, mode.memory or 0.0, mode.carry)
    follower = GainFollower(mode.gain) if mode.gain else None
    fused, before = [], None
    for frame in frames:
        infrared = follower(frame.infrared, 1 / FPS) if follower else frame.infrared
        if mode.flow and before is not None:
            scene._last = along_flow(scene._last, before, frame.visible)
        alone = mode.memory is None
        fused.append(luma(fuser.fuse(infrared, frame.visible).data if alone else scene.fuse(infrared, frame.visible)))
        before = frame.visible
    return fused


def along_flow(last: torch.Tensor, before: np.ndarray, after: np.ndarray) -> torch.Tensor:
    """``last`` (1, 1, H, W) as it would look now, by the flow between two visible frames."""
    import cv2

    a, b = (np.rint(luma(x) * 255).astype(np.uint8) for x in (before, after))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(b, a, None)
    rows, columns = np.mgrid[: a.shape[0], : a.shape[1]].astype(np.float32)
    moved = cv2.remap(
        last[0, 0].numpy(),
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return torch.from_numpy(moved)[None, None]


def flicker(frames: Sequence[MovingFrame], clip: Sequence[np.ndarray]) -> dict[str, float]:
    """Flicker and pumping of a clip of lumas, grey levels."""
    diffs = list(still_differences(frames, clip))
    return {
        "flicker": 255 * float(np.mean([np.abs(d).mean() for d in diffs])),
        "pumping": 255 * float(np.mean([abs(d.mean()) for d in diffs])),
    }


def still_differences(frames: Sequence[MovingFrame], clip: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for k in range(1, len(frames)):
        where, step = still(frames[k - 1], frames[k])
        before, after = overlap(clip[k - 1], clip[k], step)
        inside = overlap(where, where, 0)[0][:, max(0, -step) : where.shape[1] - max(0, step)]
        yield (after - before)[inside]


def against(
    reference: Sequence[np.ndarray], clip: Sequence[np.ndarray], frames: Sequence[MovingFrame]
) -> dict[str, float]:
    """Distance to the fusion of clean sources, over what moves and over all, grey levels."""
    moving, everywhere = [], []
    for k in range(1, len(frames)):
        where, _ = still(frames[k - 1], frames[k])
        gap = np.abs((clip[k] - clip[k].mean()) - (reference[k] - reference[k].mean()))
        moving.append(gap[~where].mean())
        everywhere.append(gap.mean())
    return {"moving": 255 * float(np.mean(moving)), "error": 255 * float(np.mean(everywhere))}


def measure(
    frames: Sequence[MovingFrame], fuser: Fuser, modes: Sequence[str], say: Callable[[str], Any]
) -> dict[str, Any]:
    """Rows by mode for one clip, and the sources' own flicker."""
    reference = [luma(fuser.fuse(f.clean_infrared, f.clean_visible).data) for f in frames]
    truth = flicker(frames, [f.clean_infrared for f in frames])
    rows: dict[str, Any] = {
        "infrared": flicker(frames, [f.infrared for f in frames]),
        "visible": flicker(frames, [luma(f.visible) for f in frames]),
    }
    for name in modes:
        begun = time.perf_counter()
        clip = fused_clip(frames, fuser, MODES[name])
        seconds = (time.perf_counter() - begun) / len(frames)
        found = {key: value - truth[key] for key, value in flicker(frames, clip).items()}
        rows[name] = found | against(reference, clip, frames) | {"seconds_per_frame": seconds}
        say(f"{name:34}" + "".join(f"{key} {value:7.3f}  " for key, value in rows[name].items()))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=positive, default=50)
    parser.add_argument("--size", type=positive, nargs=2, default=(240, 320), help="height and width")
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 1, 3], help="in units of ddfm.samples.NOISE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--output", type=Path, default=RESULTS / "flicker.json")
    options = parser.parse_args(arguments)
    with errors_teach():
        check_output(options.output)
        fuser = Fuser(FuseConfig(preset=options.preset, prior=options.prior))
        results = {}
        for noise in options.noise:
            print(f"noise {noise:g}")
            frames = list(moving_street(tuple(options.size), options.frames, options.seed, noise=noise))
            results[f"{noise:g}"] = measure(frames, fuser, options.modes, lambda line: print(line, flush=True))
        payload = {
            "provenance": provenance(["opencv-python-headless"]),
            "prior": prior_facts(options.prior),
            "preset": fuser.preset.label,
            "clip": {"size": list(options.size), "frames": options.frames, "seed": options.seed},
            "unit": "grey levels of 255, but seconds_per_frame",
            "by_noise": results,
        }
        write_json(options.output, payload)
        print(options.output)


if __name__ == "__main__":
    main()
