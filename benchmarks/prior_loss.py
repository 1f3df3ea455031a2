"""Loss of a prior per noise level on held-out images, beside a Gaussian prior with the photographs' power spectrum.

The loss is the mean squared error of eps at 10 levels from t = 10 to t = 950, on 128x128 centre crops of luma.
The Gaussian prior (mean mu, power spectrum P(f), both from the 128x128 tiles of training photographs, periodic)
has the Wiener filter as its posterior mean:

    x0(f) = mu + sqrt(abar) P / (abar P + 1 - abar) * (x_t - sqrt(abar) mu)(f)

with x0 error P (1 - abar) / (abar P + 1 - abar) at f. As eps = (x_t - sqrt(abar) x0) / sqrt(1 - abar), the eps error
is abar / (1 - abar) times that of x0: the mean over f of abar P / (abar P + 1 - abar). Reported for each level:

    network       the prior, float32 inside, its error taken in float64 from x0 (at t = 950 the loss is about 1e-5,
                  which a float32 difference of two eps could not show)
    same_draws    the Wiener filter on the same crops and noise as the network: the comparison that counts
    own_model     the closed form above: what the Gaussian prior expects of images drawn from itself. Tiles of the
                  training photographs are smoother on average than the crops here, so it is no bound for them
    in_hindsight  as same_draws, with mean and spectrum of the very crops it is tested on: the best that any
                  stationary linear filter could do, too good where crops are few; shown, not compared

    python benchmarks/prior_loss.py --prior bundled --photographs DIR [DIR ...] [--infrared DIR [DIR ...]]
        --train DIR [DIR ...] --output benchmarks/results/prior_loss.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from _common import RESULTS, images_in, prior_facts, provenance, read_luma, short_path, write_json
from ddfm._runtime import keep_freed_memory
from ddfm.diffusion import add_noise, alpha_bar, call_network, to_x0
from ddfm.priors import Prior, load_prior

SIZE = 128
LEVELS = [round(t) for t in np.linspace(10, 950, 10)]
SEED = 0


class Gaussian(NamedTuple):
    """A stationary Gaussian prior on SIZE x SIZE: mean pixel value and power spectrum (SIZE, SIZE), float64."""

    mean: float
    power: torch.Tensor

    def loss(self, abar: float) -> float:
        """The eps error it expects of images drawn from itself."""
        return float((abar * self.power / (abar * self.power + 1 - abar)).mean())

    def x0(self, x_t: torch.Tensor, abar: float) -> torch.Tensor:
        """Posterior mean of (B, 1, SIZE, SIZE)."""
        gain = abar**0.5 * self.power / (abar * self.power + 1 - abar)
        return self.mean + torch.fft.ifft2(gain * torch.fft.fft2(x_t - abar**0.5 * self.mean)).real


def to_unit(luma: np.ndarray) -> np.ndarray:
    return luma.astype(np.float64) / 127.5 - 1


def centre_crops(folders: list[Path], limit: int | None) -> torch.Tensor:
    """(N, 1, SIZE, SIZE) in [-1, 1], float64; images too small for a crop are left out."""
    lumas = [read_luma(p) for folder in folders for p in images_in(folder)[:limit]]
    crops = []
    for luma in lumas:
        top, left = ((n - SIZE) // 2 for n in luma.shape)
        if min(top, left) >= 0:
            crops.append(to_unit(luma[top : top + SIZE, left : left + SIZE]))
    if len(crops) < len(lumas):
        print(f"{len(lumas) - len(crops)} of {len(lumas)} images are smaller than {SIZE}", file=sys.stderr)
    if not crops:
        sys.exit(f"no image of {SIZE} pixels or more in {', '.join(map(str, folders))}")
    return torch.from_numpy(np.stack(crops))[:, None]


def tiles(luma: np.ndarray) -> np.ndarray:
    """All tiles (N, SIZE, SIZE) of a regular grid, centred on the image."""
    rows, columns = (n // SIZE for n in luma.shape)
    top, left = ((n % SIZE) // 2 for n in luma.shape)
    inner = luma[top : top + rows * SIZE, left : left + columns * SIZE]
    return inner.reshape(rows, SIZE, columns, SIZE).swapaxes(1, 2).reshape(-1, SIZE, SIZE)


def fit_gaussian(batches: Iterator[np.ndarray]) -> tuple[Gaussian, int]:
    """Mean and power spectrum E|FFT(x - mean)|^2 / N of batches (B, SIZE, SIZE), and how many crops made them.

    One pass: a constant shift changes the zero frequency alone, which keeps the variance of the crops' means.
    """
    total, count = np.zeros((SIZE, SIZE)), 0
    means: list[float] = []
    for batch in batches:
        total += (np.abs(np.fft.fft2(batch)) ** 2).sum(0) / SIZE**2
        means.extend(batch.mean((1, 2)))
        count += len(batch)
    power = total / count
    power[0, 0] = SIZE**2 * np.var(means)
    return Gaussian(float(np.mean(means)), torch.from_numpy(power)), count


def training_tiles(folders: list[Path], limit: int | None) -> Iterator[np.ndarray]:
    for folder in folders:
        for path in images_in(folder)[:limit]:
            yield to_unit(tiles(read_luma(path)))


def draws_at(t: int, base: int) -> int:
    """Noise draws per image: more where the loss is small and rests on few frequencies."""
    return base if t < 300 else 4 * base if t < 700 else 8 * base


def noisy(crops: torch.Tensor, t: int, abar: torch.Tensor, draws: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same (x0, x_t) for everything that is compared, float64, one draw for all crops at a time."""
    rng = np.random.default_rng((SEED, t))
    for _ in range(draws):
        noise = torch.from_numpy(rng.standard_normal(tuple(crops.shape)))
        yield crops, add_noise(crops, noise, abar)


@torch.inference_mode()
def network_x0(prior: Prior, x_t: torch.Tensor, t: int, abar: torch.Tensor) -> torch.Tensor:
    """x0 of (B, 1, H, W) in float64 from the network's float32 answer."""
    answers = [call_network(prior.unet, chunk.float(), t, prior.unshuffle).double() for chunk in x_t.split(16)]
    return to_x0(torch.cat(answers), x_t, abar, prior.scheduler.config.prediction_type)


def eps_error(x0: torch.Tensor, truth: torch.Tensor, abar: torch.Tensor) -> np.ndarray:
    """Mean squared error of eps for each image (B,)."""
    return (abar / (1 - abar) * (x0 - truth).square().mean((1, 2, 3))).numpy()


def level(prior: Prior, crops: torch.Tensor, t: int, draws: int, photo: Gaussian, own: Gaussian) -> dict[str, Any]:
    """All losses at one timestep."""
    abar = alpha_bar(prior.scheduler.betas)[t]
    rows = []
    for truth, x_t in noisy(crops, t, abar, draws):
        estimates = (network_x0(prior, x_t, t, abar), photo.x0(x_t, float(abar)), own.x0(x_t, float(abar)))
        rows.append([eps_error(x0, truth, abar) for x0 in estimates])
    network, wiener, hindsight = np.mean(rows, axis=0)  # (images,) each
    return {"t": t, "abar": float(abar), "draws": draws, **compare(network, wiener, hindsight, photo.loss(float(abar)))}


def compare(network: np.ndarray, wiener: np.ndarray, hindsight: np.ndarray, own_model: float) -> dict[str, Any]:
    """Means over images, and whether the network is better; the standard error is that of the paired difference."""
    loss, same = float(network.mean()), float(wiener.mean())
    spread = float((wiener - network).std(ddof=1) / len(network) ** 0.5) if len(network) > 1 else None
    return {
        "network": loss,
        "own_model": own_model,
        "same_draws": same,
        "in_hindsight": float(hindsight.mean()),
        "standard_error": spread,
        "network_is_better_on": float((network < wiener).mean()),
        "ratio": loss / same,
        "better": loss < same,
    }


def evaluate(name: str, prior: Prior, folders: list[Path], photo: Gaussian, options: Any) -> dict[str, Any]:
    """One data set at all levels."""
    crops = centre_crops(folders, options.limit)
    own, _ = fit_gaussian(iter([crops[:, 0].numpy()]))
    levels = []
    for t in LEVELS:
        row = level(prior, crops, t, draws_at(t, options.draws), photo, own)
        levels.append(row)
        text = "  ".join(f"{key} {row[key]:.3e}" for key in ("network", "own_model", "same_draws", "in_hindsight"))
        print(f"{name:12} t {t:3}  {text}  {'better' if row['better'] else 'WORSE'}", flush=True)
    return {
        "folders": [short_path(str(f.resolve())) for f in folders],
        "images": len(crops),
        "better_at_every_level": all(row["better"] for row in levels),
        "levels": levels,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="bundled")
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, help="held-out photographs")
    parser.add_argument("--infrared", type=Path, nargs="+", default=[], help="infrared images")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="photographs for the Gaussian prior")
    parser.add_argument("--draws", type=int, default=1, help="noise draws per image below t = 300 (4, then 8 times it)")
    parser.add_argument("--limit", type=int, help="images per folder, for a quick look")
    parser.add_argument("--output", type=Path, default=RESULTS / "prior_loss.json")
    return parser.parse_args()


def main() -> None:
    options = parse()
    keep_freed_memory()
    prior = load_prior(options.prior)
    if prior.color != "luma":
        sys.exit(f"{options.prior}: models {prior.color}; this measures priors of luma")
    photo, count = fit_gaussian(training_tiles(options.train, options.limit))
    print(f"Gaussian prior from {count} tiles, mean {photo.mean:.3f}", flush=True)
    sets = {"photographs": options.photographs} | ({"infrared": options.infrared} if options.infrared else {})
    payload = {
        "provenance": provenance(),
        "prior": prior_facts(options.prior),
        "protocol": {"size": SIZE, "crop": "centre", "seed": SEED, "loss": "mean squared error of eps"},
        "gaussian": {
            "folders": [short_path(str(f.resolve())) for f in options.train],
            "tiles": count,
            "mean": photo.mean,
            "standard_deviation": float(photo.power.mean()) ** 0.5,
        },
        "sets": {name: evaluate(name, prior, folders, photo, options) for name, folders in sets.items()},
    }
    write_json(options.output, payload)
    print(options.output)


if __name__ == "__main__":
    main()
