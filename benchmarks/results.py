"""The table of docs/results.md: baselines and presets on three folders of pairs, one JSON.

    python benchmarks/results.py PAIRS_ROOT --output benchmarks/results/results.json [--methods average ... paper]

PAIRS_ROOT holds FOLDER/ir and FOLDER/vi. Grey sources (luma, rounded), tone "none", metrics in the paper's convention,
seconds per image on this machine, medians. Methods that the file already has for the same weights are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from _common import provenance, write_json
from ddfm.bench import baselines
from ddfm.fusion import FuseConfig, Fuser
from ddfm.likelihood import em_alone
from ddfm.metrics import evaluate
from ddfm.presets import PRESETS

FOLDERS = ("roadscene-dev", "tno-dev", "msrs-dev")
METHODS = ("average", "maximum", "laplacian", "em-only", "fast", "balanced", "paper")
KEYS = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM", "SCD", "minVIF", "hot", "texture")
Fusion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def em_only(infrared: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """As many EM sweeps as `balanced` makes, without the prior."""
    preset = PRESETS["balanced"]
    stack = torch.cat([infrared, visible], 1) * 2 - 1
    return (em_alone(preset.likelihood, stack, preset.warm_sweeps + preset.steps)[0].clamp(-1, 1) + 1) / 2


def by_preset(name: str) -> Fusion:
    fuser = Fuser(FuseConfig(preset=name))
    return lambda i, v: torch.from_numpy(fuser.fuse(i[0, 0], v[0, 0]).data)[None, None]


def method(name: str) -> Fusion:
    plain = {"average": baselines.average, "maximum": baselines.maximum, "laplacian": baselines.laplacian_pyramid}
    return {**plain, "em-only": em_only}.get(name) or by_preset(name)


def grey(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image.convert("L")).astype(np.float32))[None, None]


def measure(fuse: Fusion, folder: Path) -> dict:
    """Values of every image, and the seconds."""
    rows, seconds = {}, []
    for path in sorted((folder / "ir").iterdir()):
        infrared, visible = grey(path), grey(folder / "vi" / path.name)
        begun = time.perf_counter()
        fused = fuse(infrared / 255, visible / 255)
        seconds.append(time.perf_counter() - begun)
        scores = evaluate(fused * 255, infrared, visible)
        rows[path.stem] = {key: round(float(scores[key]), 5) for key in KEYS}
    mean = {key: round(float(np.nanmean([row[key] for row in rows.values()])), 4) for key in KEYS}
    return {"mean": mean, "seconds": round(statistics.median(seconds), 3), "images": rows}


def table(results: dict) -> str:
    lines = []
    for folder in FOLDERS:
        lines += [
            f"\n### {folder}\n",
            "| method | " + " | ".join(KEYS) + " | s/image |",
            "|---" * (len(KEYS) + 2) + "|",
        ]
        for name in METHODS:
            row = results.get(name, {}).get(folder)
            if row:
                values = " | ".join(f"{row['mean'][key]:.3f}" for key in KEYS)
                lines.append(f"| {name} | {values} | {row['seconds']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS), choices=FOLDERS)
    arguments = parser.parse_args()
    state = Fuser(FuseConfig()).settings["hash"]
    payload = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    results = payload.get("results", {}) if payload.get("hash") == state else {}
    for name in arguments.methods:
        for folder in arguments.folders:
            if folder in results.get(name, {}):
                continue
            results.setdefault(name, {})[folder] = measure(method(name), arguments.root / folder)
            presets = {n: p.settings() for n, p in PRESETS.items()}
            write_json(
                arguments.output,
                {**provenance(), "hash": state, "tone": "none", "presets": presets, "results": results},
            )
            print(name, folder, results[name][folder]["mean"], file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
