"""A prior as a one-step denoiser: PSNR on held-out photographs at sigma 15, 25 and 50, beside BM3D.

Protocol: 8-bit luma of every image, plus N(0, sigma) that is neither clipped nor rounded, drawn from a seed made of
image, sigma and SEED. The network sees x_t = sqrt(abar) (x0 + noise), at the integer t whose sqrt((1 - abar) / abar)
is nearest to 2 sigma / 255; the sigma of that t stands in the file beside the true one (the data's noise is the true
one, so the small mismatch counts against the network). Both estimates are clipped to [0, 255], not rounded. PSNR has
peak 255 and is averaged over images. BM3D is told sigma; its numbers are kept in the file by image, sigma and seed, so
that a run with another prior takes them from there.

    python benchmarks/prior_denoise.py --prior bundled --photographs DIR [--limit N] [--sigmas 15 25 50]
        [--reuse FILE] --output benchmarks/results/prior_denoise.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _common import (
    RESULTS,
    images_in,
    prior_facts,
    provenance,
    read_luma,
    short_path,
    version_of,
    write_json,
)
from ddfm._runtime import keep_freed_memory
from ddfm.diffusion import alpha_bar
from ddfm.pipeline import DDFMPipeline

SEED = 0
Denoiser = Callable[[np.ndarray, float], np.ndarray]


def checksum(luma: np.ndarray) -> str:
    """Of the pixels, not of the file."""
    return hashlib.sha256(str(luma.shape).encode() + luma.tobytes()).hexdigest()[:16]


def add_gaussian(luma: np.ndarray, sigma: float) -> np.ndarray:
    """The noisy image in grey levels, float64."""
    rng = np.random.default_rng((SEED, round(1000 * sigma), int(checksum(luma), 16)))
    return luma + sigma * rng.standard_normal(luma.shape)


def psnr(estimate: np.ndarray, luma: np.ndarray) -> float:
    """Peak 255, of the estimate clipped to [0, 255]."""
    error = np.square(estimate.clip(0, 255) - luma).mean()
    return float(10 * np.log10(255**2 / error))


def nearest_level(abar: torch.Tensor, sigma: float) -> tuple[int, float]:
    """The timestep whose noise is nearest to sigma grey levels, and its own sigma."""
    sigmas = ((1 - abar) / abar).sqrt() * 127.5
    t = int((sigmas - sigma).abs().argmin())
    return t, float(sigmas[t])


def network_denoiser(pipe: DDFMPipeline) -> Denoiser:
    """(noisy, sigma) -> x0 in grey levels, in one evaluation."""
    abar = alpha_bar(pipe.scheduler.betas)

    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        t, _ = nearest_level(abar, sigma)
        x_t = abar[t].sqrt() * torch.from_numpy(noisy / 127.5 - 1)
        with torch.inference_mode():
            x0 = pipe._predict(x_t.float()[None, None], torch.tensor(t), abar[t])
        return (x0[0, 0].double().numpy() + 1) * 127.5

    return denoise


def bm3d_denoiser() -> Denoiser | None:
    """BM3D with the package's defaults, silent; None where it is not installed."""
    try:
        from bm3d import bm3d
    except ImportError:
        print("bm3d is not installed (pip install 'ddfm[bench]'): its row is left out", file=sys.stderr)
        return None

    def denoise(noisy: np.ndarray, sigma: float) -> np.ndarray:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return np.asarray(bm3d(noisy, sigma_psd=sigma)).reshape(noisy.shape)

    return denoise


def known_bm3d(files: list[Path]) -> dict[str, float]:
    """PSNR of BM3D in earlier results of the same seed and version of the package."""
    known: dict[str, float] = {}
    for file in files:
        if file.is_file():
            stored = json.loads(file.read_text("utf-8")).get("bm3d", {})
            if stored.get("seed") == SEED and stored.get("version") == version_of("bm3d"):
                known |= stored["psnr"]
    return known


class Run:
    """The rows measured so far and everything needed to write them down at any moment."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pipe = DDFMPipeline.from_pretrained(options.prior)
        if self.pipe.config.color != "luma":
            sys.exit(f"{options.prior}: models {self.pipe.config.color}; this measures priors of luma")
        self.denoise, self.bm3d = network_denoiser(self.pipe), bm3d_denoiser()
        self.known = known_bm3d([options.output, *options.reuse])
        self.rows: list[dict[str, Any]] = []
        self.facts = {"provenance": provenance(("bm3d", "bm4d", "scipy")), "prior": prior_facts(options.prior)}

    def measure(self, path: Path, luma: np.ndarray, sigma: float) -> None:
        """One image at one sigma."""
        noisy = add_gaussian(luma, sigma)
        row = {"image": path.name, "checksum": checksum(luma), "sigma": sigma, "noisy": psnr(noisy, luma)}
        row["network"] = psnr(self.denoise(noisy, sigma), luma)
        key = f"{row['checksum']}:{sigma:g}"
        if self.bm3d and key not in self.known:
            self.known[key] = psnr(self.bm3d(noisy, sigma), luma)
            self.save(complete=False)  # minutes of BM3D are not lost when the run is stopped
        if self.bm3d:
            row["bm3d"] = self.known[key]
        self.rows.append(row)

    def summary(self, sigma: float) -> dict[str, Any]:
        """Means over the images at one sigma."""
        rows = [row for row in self.rows if row["sigma"] == sigma]
        t, own = nearest_level(alpha_bar(self.pipe.scheduler.betas), sigma)
        names = [name for name in ("noisy", "network", "bm3d") if rows and name in rows[0]]
        result: dict[str, Any] = {"sigma": sigma, "t": t, "sigma_of_t": own, "images": len(rows)}
        result |= {name: float(np.mean([row[name] for row in rows])) for name in names}
        if "bm3d" in names:
            gains = [row["network"] - row["bm3d"] for row in rows]
            result |= {"gain_over_bm3d": float(np.mean(gains)), "better_on": float(np.mean(np.array(gains) > 0))}
        return result

    def save(self, complete: bool) -> None:
        payload = {
            **self.facts,
            "complete": complete,
            "protocol": {
                "folder": short_path(str(self.options.photographs.resolve())),
                "seed": SEED,
                "noise": "Gaussian, added to 8-bit luma, not clipped, not rounded",
                "estimate": "clipped to [0, 255], not rounded",
                "psnr": "peak 255, mean over images",
            },
            "levels": [self.summary(sigma) for sigma in self.options.sigmas],
            "images": self.rows,
            "bm3d": {"seed": SEED, "version": version_of("bm3d"), "psnr": self.known},
        }
        write_json(self.options.output, payload)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--photographs", type=Path, required=True, help="held-out photographs")
    parser.add_argument("--limit", type=int, help="only the first images of the folder")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[15.0, 25.0, 50.0])
    parser.add_argument("--reuse", type=Path, nargs="+", default=[], help="results to take BM3D's numbers from")
    parser.add_argument("--output", type=Path, default=RESULTS / "prior_denoise.json", help="also taken from")
    return parser.parse_args()


def main() -> None:
    options = parse()
    keep_freed_memory()
    run = Run(options)
    paths = images_in(options.photographs)[: options.limit]
    for sigma in options.sigmas:
        for path in paths:
            run.measure(path, read_luma(path), sigma)
        values = run.summary(sigma)
        print("  ".join(f"{k} {v:g}" if isinstance(v, int) else f"{k} {v:.3f}" for k, v in values.items()), flush=True)
    run.save(complete=True)
    print(options.output)


if __name__ == "__main__":
    main()
