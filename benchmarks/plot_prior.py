"""Figures and tables of docs/priors.md, from the JSON of prior_loss.py and prior_denoise.py alone.

Writes prior_loss.png (loss per noise level, network and Gaussian prior) and prior_denoise.png (PSNR per sigma), and
prints the tables as Markdown.

    python benchmarks/plot_prior.py [--loss FILE] [--denoise FILE] [--images docs/img]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from _common import RESULTS

COLORS = {"photographs": "#1b6ca8", "infrared": "#c8452f"}
BARS = {"network": ("bundled prior, one step", "#1b6ca8"), "bm3d": ("BM3D", "#9a9a9a")}


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})  # equal figures, equal bytes
    plt.close(figure)


def plot_loss(loss: dict[str, Any], path: Path) -> None:
    """Log loss against t; beside it the network's loss as a share of the Gaussian's on the same draws."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for name, data in loss["sets"].items():
        ts = [row["t"] for row in data["levels"]]
        color = COLORS.get(name, "black")
        for key, style, label in (("network", "-o", "network"), ("same_draws", "--", "Gaussian, same draws")):
            left.semilogy(ts, [row[key] for row in data["levels"]], style, color=color, ms=4, label=f"{name}: {label}")
        ratios = [row["network"] / row["same_draws"] for row in data["levels"]]
        right.plot(ts, ratios, "-o", color=color, ms=4, label=name)
    left.semilogy(ts, [row["own_model"] for row in data["levels"]], ":", color="black", label="Gaussian, own model")
    left.set(xlabel="timestep t", ylabel="mean squared error of eps")
    right.set(xlabel="timestep t", ylabel="network / Gaussian, same draws", ylim=(0, None))
    right.axhline(1, color="black", lw=0.8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save(figure, path)


def plot_denoise(denoise: dict[str, Any], path: Path) -> None:
    """Grouped bars; the axis begins below the lowest bar, as differences of tenths matter."""
    levels = denoise["levels"]
    shown = [name for name in BARS if name in levels[0]]
    figure, axes = plt.subplots(figsize=(6, 4))
    width = 0.8 / len(shown)
    for n, name in enumerate(shown):
        label, color = BARS[name]
        places = [i + (n - (len(shown) - 1) / 2) * width for i in range(len(levels))]
        bars = axes.bar(places, [row[name] for row in levels], width, label=label, color=color)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    lowest = min(row[name] for row in levels for name in shown)
    axes.set(ylabel="PSNR, dB (axis does not begin at 0)", ylim=(lowest - 2, None))
    axes.set_xticks(range(len(levels)), [f"sigma {row['sigma']:g}" for row in levels])
    axes.legend(fontsize=8)
    save(figure, path)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def loss_table(data: dict[str, Any]) -> str:
    header = [
        "t",
        "network",
        "Gaussian, same draws",
        "network / same draws",
        "better",
        "Gaussian in hindsight",
        "own model",
    ]
    rows = [
        [
            str(row["t"]),
            *(f"{row[key]:.3g}" for key in ("network", "same_draws")),
            f"{row['network'] / row['same_draws']:.3f}",
            "yes" if row["better"] else "**no**",
            *(f"{row[key]:.3g}" for key in ("in_hindsight", "own_model")),
        ]
        for row in data["levels"]
    ]
    return table(header, rows)


def denoise_table(denoise: dict[str, Any]) -> str:
    names = [name for name in ("noisy", "network", "bm3d", "gain_over_bm3d") if name in denoise["levels"][0]]
    titles = {"noisy": "noisy", "network": "network", "bm3d": "BM3D", "gain_over_bm3d": "gain over BM3D"}
    rows = [
        [f"{row['sigma']:g}", f"{row['t']} ({row['sigma_of_t']:.2f})", *(f"{row[name]:.2f}" for name in names)]
        for row in denoise["levels"]
    ]
    return table(["sigma", "t (its sigma)", *(f"{titles[name]}, dB" for name in names)], rows)


def print_tables(loss: dict[str, Any], denoise: dict[str, Any]) -> None:
    for name, data in loss["sets"].items():
        print(f"Loss on {data['images']} {name} images\n\n{loss_table(data)}\n")
    protocol = denoise["protocol"]
    count = denoise["levels"][0]["images"]
    print(f"One-step denoising, {count} images, estimate {protocol['estimate']}\n\n{denoise_table(denoise)}\n")
    for facts in (loss, denoise):
        source = facts["provenance"]
        print(
            f"`{source['command']}`, {source['time'][:10]}, commit {source['commit']}, {source['machine']['processor']}"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", type=Path, default=RESULTS / "prior_loss.json")
    parser.add_argument("--denoise", type=Path, default=RESULTS / "prior_denoise.json")
    parser.add_argument("--images", type=Path, default=RESULTS.parent.parent / "docs" / "img")
    return parser.parse_args()


def main() -> None:
    options = parse()
    loss, denoise = (json.loads(file.read_text("utf-8")) for file in (options.loss, options.denoise))
    if loss["prior"]["sha256"] != denoise["prior"]["sha256"]:
        raise SystemExit("the two files are of different weights: run both scripts with one prior")
    if not denoise["complete"]:
        raise SystemExit(f"{options.denoise}: of a run that was stopped: run prior_denoise.py again")
    plot_loss(loss, options.images / "prior_loss.png")
    plot_denoise(denoise, options.images / "prior_denoise.png")
    print_tables(loss, denoise)


if __name__ == "__main__":
    main()
