"""No invented structure: on phantoms with known truth, does a lesion appear or vanish, do edges that no source has?

Phantoms of ``ddfm.samples`` (CT, PET, SPECT beside MRI; one lesion each, bright in the first source), luma, rounded to
8 bits as files are, the fused pictures too. Each is fused as rendered, by every row, and with Gaussian noise of
``--sigma`` grey levels on both sources; everything is compared with the sources before that noise. Rows: average;
em (EM alone, the likelihood of the preset medical); balanced, fast, medical (the presets); with noise em+noise, which
is not told of it, and the presets, which are.

With T = 20 grey levels:
- the lesion's contrast is its mean minus the mean of the ring around it, SURROUND pixels from its edge; it has vanished
  where less than T is left. kept: its contrast over that in the stronger source;
- a blob's contrast is the mean over a disc minus the mean over the ring around it, of twice its radius; radii of RADII
  pixels, the strongest counts. One has appeared, bright or dark, where its contrast is T above what both sources
  together have of the same sign within REACH pixels of it: no mixture of the two could have it. Mixtures do add up:
  fluid between bone of the CT and white matter of the MRI is darker to its surround than in either, and that is
  strongest_gain, the most by which a contrast is above the stronger source's;
- an edge exceeds both sources' where the length of the fused gradient is above the larger of theirs there. The share
  of such pixels is given for any excess and for one of 2 grey levels and more.
Lengths are for pictures of 128 pixels and grow with them.
The first phantom of each kind becomes a sheet: sources, fused pictures, excess (8 times), and in how many of the
phantoms each pixel had an excess of 2 grey levels.

    python benchmarks/invention.py [--seeds 100] [--size 128] [--sigma 25] [--kinds ct pet spect] [--output FILE]
        [--maps FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from _common import RESULTS, check_folder, check_output, errors_teach, positive, prior_facts, provenance, write_json
from ddfm import samples
from ddfm._runtime import keep_freed_memory
from ddfm.color import to_luma
from ddfm.fusion import FuseConfig, Fuser
from ddfm.likelihood import em_alone
from ddfm.noisy import with_noise
from ddfm.operators import grad
from ddfm.presets import get_preset

KINDS = ("ct", "pet", "spect")
THRESHOLD = 20.0  # grey levels: seen at a glance, a fifth of a lesion's contrast
RADII = (3, 5, 8)
REACH = 3
SURROUND = (2, 7)
EDGE = 2.0  # grey levels
Pair = tuple[np.ndarray, np.ndarray]  # float32 (H, W) in [0, 1]


def as_file(x: np.ndarray) -> np.ndarray:
    """Clipped and rounded to 8 bits."""
    return (np.rint(x.clip(0, 1) * 255) / 255).astype(np.float32)


def luma(picture: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) -> (H, W), as of a file."""
    if picture.ndim == 2:
        return as_file(picture)
    return as_file(to_luma(torch.from_numpy(picture).permute(2, 0, 1)[None])[0, 0].numpy())


def with_gaussian(pair: Pair, sigma: float, seed: int) -> Pair:
    """Both sources with white noise of sigma grey levels, as files."""
    rng = np.random.default_rng((seed, 1))
    first, second = (as_file(x + sigma / 255 * rng.standard_normal(x.shape)) for x in pair)
    return first, second


class Rows:
    """The methods: name -> (pair -> fused), of sources as rendered and of sources with noise."""

    def __init__(self, noise_std: float) -> None:
        self.fuser = Fuser(FuseConfig())
        presets = ("balanced", "fast", "medical")
        self.plain = {"average": lambda p: (p[0] + p[1]) / 2, "em": self.em}
        self.plain |= {name: self._preset(name, None) for name in presets}
        self.noisy = {"em+noise": self.em} | {f"{name}+noise": self._preset(name, noise_std) for name in presets}

    def em(self, pair: Pair) -> np.ndarray:
        preset = get_preset("medical")
        sources = torch.from_numpy(np.stack(pair))[None] * 2 - 1
        f, _ = em_alone(preset.likelihood, sources, preset.warm_sweeps + preset.steps)
        return ((f[0, 0] + 1) / 2).numpy()

    def _preset(self, name: str, noise_std: float | None) -> Callable[[Pair], np.ndarray]:
        preset = with_noise(get_preset(name), noise_std)

        def fuse(pair: Pair) -> np.ndarray:
            self.fuser.preset = preset
            return self.fuser.fuse(*pair).data

        return fuse


def disc(radius: float) -> Tensor:
    """1 within ``radius`` pixels of the middle, 0 elsewhere in a square of twice that."""
    side = torch.arange(-int(2 * radius), int(2 * radius) + 1, dtype=torch.float32)
    return ((side[:, None].square() + side.square()) <= radius**2).float()


def blobs(picture: np.ndarray, scale: float) -> Tensor:
    """Contrast of discs to the rings around them in grey levels, (len(RADII), H, W); scale: of the radii."""
    x = 255 * torch.from_numpy(picture)[None, None]
    found = []
    for radius in (scale * r for r in RADII):
        inner, reach = disc(radius), int(2 * radius)
        side = torch.arange(-reach, reach + 1, dtype=torch.float32)
        ring = ((side[:, None].square() + side.square()) <= (2 * radius) ** 2).float() - inner
        kernel = inner / inner.sum() - ring / ring.sum()
        found.append(F.conv2d(F.pad(x, (reach,) * 4, mode="replicate"), kernel[None, None])[0, 0])
    return torch.stack(found)


def nearby(response: Tensor, scale: float) -> Tensor:
    """The largest within REACH pixels and over the radii: (R, H, W) -> (H, W)."""
    reach = round(scale * REACH)
    return F.max_pool2d(response.amax(0)[None, None], 2 * reach + 1, 1, reach)[0, 0]


@dataclasses.dataclass(frozen=True)
class Truth:
    """A phantom, measured once for all rows."""

    sources: Pair
    lesion: Tensor  # bool (H, W)
    scale: float  # of all lengths: 1 for pictures of 128 pixels

    @classmethod
    def of(cls, kind: str, size: int, seed: int) -> Truth:
        sample = samples.phantom((size, size), seed, kind)
        return cls((luma(sample.infrared), luma(sample.visible)), torch.from_numpy(sample.targets), size / 128)

    def score(self, fused: np.ndarray) -> dict[str, float | bool]:
        """What the fused picture has that the sources have not, and what it lost; see the top of this file."""
        ours, theirs = blobs(fused, self.scale), [blobs(s, self.scale) for s in self.sources]
        contrast, before = self.contrast(fused), max(self.contrast(s) for s in self.sources)
        new, gain = np.max([self._new(sign * ours, [sign * t for t in theirs]) for sign in (1, -1)], axis=0).tolist()
        excess = self.excess(fused)
        return {
            "vanished": contrast < THRESHOLD,
            "kept": contrast / before,
            "appeared": new >= THRESHOLD,
            "strongest_new": new,
            "strongest_gain": gain,
            "exceeds": float((excess > 0).mean()),
            "exceeds_by_2": float((excess >= EDGE).mean()),
            "mean_excess": float(excess.clip(0).mean()),
        }

    def contrast(self, picture: np.ndarray) -> float:
        """Of the lesion to its surround, grey levels."""
        inner, outer = (_grown(self.lesion, round(self.scale * n)) for n in SURROUND)
        x = 255 * torch.from_numpy(picture)
        return float(x[self.lesion].mean() - x[outer & ~inner].mean())

    def _new(self, ours: Tensor, theirs: list[Tensor]) -> tuple[float, float]:
        """The most by which a bright blob stands above both sources' together, and above the stronger's; 0 or more."""
        known = torch.stack([nearby(t, self.scale) for t in theirs]).clamp(min=0)
        beyond = [float((ours.amax(0) - bound).amax()) for bound in (known.sum(0), known.amax(0))]
        return max(beyond[0], 0.0), max(beyond[1], 0.0)

    def excess(self, fused: np.ndarray) -> np.ndarray:
        """(H, W): length of the fused gradient minus the larger of the sources', grey levels."""
        ours, *theirs = (_length(x) for x in (fused, *self.sources))
        return (ours - torch.stack(theirs).amax(0)).numpy()


def _grown(mask: Tensor, pixels: int) -> Tensor:
    """The mask and what lies within so many pixels of it, along rows and columns."""
    return F.max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0


def _length(x: np.ndarray) -> Tensor:
    """Of the forward differences, grey levels; 0 in the last row and column, where they would wrap around."""
    length = 255 * grad(torch.from_numpy(x)[None, None])[0].square().sum(0).sqrt()
    length[-1], length[:, -1] = 0, 0
    return length


def measure(kind: str, rows: Rows, options: argparse.Namespace) -> tuple[dict[str, Any], Image.Image]:
    """Scores of every phantom and row, and the sheet."""
    scores: dict[str, list[dict[str, float | bool]]] = {}
    counts: dict[str, np.ndarray] = {}
    pictures: list[tuple[str, list[np.ndarray]]] = []
    for seed in range(options.seeds):
        truth = Truth.of(kind, options.size, seed)
        noisy = with_gaussian(truth.sources, options.sigma, seed)
        for table, pair in ((rows.plain, truth.sources), (rows.noisy, noisy)):
            for name, method in table.items():
                fused = as_file(method(pair))
                scores.setdefault(name, []).append(truth.score(fused))
                excess = truth.excess(fused)
                counts[name] = counts.get(name, 0) + (excess >= EDGE)
                if seed == 0:
                    pictures.append((name, [fused, excess.clip(0) * 8 / 255]))
    shown = [("sources", [*Truth.of(kind, options.size, 0).sources, np.zeros((options.size,) * 2, np.float32)])]
    shown += [(name, [*views, counts[name] / options.seeds]) for name, views in pictures]
    kept = {n: [[round(float(s[name]), 4) for name in ("kept", "strongest_new")] for s in v] for n, v in scores.items()}
    return {"summary": {n: summary(s) for n, s in scores.items()}, "kept, strongest_new": kept}, sheet(shown)


def summary(scores: list[dict[str, float | bool]]) -> dict[str, float]:
    """Over the phantoms: how many lost their lesion or got another, worst and middle values, mean shares of pixels."""
    columns = {name: np.array([s[name] for s in scores], float) for name in scores[0]}
    return {
        "phantoms": len(scores),
        "vanished": int(columns["vanished"].sum()),
        "appeared": int(columns["appeared"].sum()),
        "least_kept": float(columns["kept"].min()),
        "median_kept": float(np.median(columns["kept"])),
        **{name: float(columns[name].max()) for name in ("strongest_new", "strongest_gain")},
        **{name: float(columns[name].mean()) for name in ("exceeds", "exceeds_by_2", "mean_excess")},
    }


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]]) -> Image.Image:
    """Columns of named pictures in [0, 1], with their names above."""
    bar, gap = 14, 2
    side = rows[0][1][0].shape[0] + gap
    paper = Image.new("L", (len(rows) * side, 3 * side + bar), 255)
    draw = ImageDraw.Draw(paper)
    for n, (name, views) in enumerate(rows):
        draw.text((n * side + 2, 1), name, fill=0)
        for m, view in enumerate(views):
            grey = Image.fromarray(np.rint(view.clip(0, 1) * 255).astype(np.uint8))
            paper.paste(grey, (n * side, bar + m * side))
    return paper


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=positive, default=100, help="phantoms of each kind")
    parser.add_argument("--size", type=positive, default=128, help="pixels a side, 64 or more")
    parser.add_argument("--sigma", type=float, default=25.0, help="of the noise, grey levels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--output", type=Path, default=RESULTS / "invention.json")
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="of the sheets; default: beside the output")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    keep_freed_memory()
    with errors_teach():
        rows = Rows(options.sigma / 255)
        maps = check_folder(options.maps or check_output(options.output).parent)
        found = {}
        for kind in options.kinds:
            found[kind], paper = measure(kind, rows, options)
            paper.save(maps / f"invention-{kind}.png", optimize=True)
            for name, values in found[kind]["summary"].items():
                print(kind, f"{name:15s}", "  ".join(f"{k} {v:.4g}" for k, v in values.items()), flush=True)
        settings = {"size": options.size, "sigma": options.sigma, "threshold": THRESHOLD, "edge": EDGE}
        presets = {name: get_preset(name).settings() for name in ("balanced", "fast", "medical")}
        facts = {"provenance": provenance(("pillow",)), "prior": prior_facts("bundled"), "presets": presets}
        write_json(options.output, {**facts, "settings": settings, "kinds": found})
        print(options.output)


if __name__ == "__main__":
    main()
