"""Fusion of degraded sources, scored against the clean ones: what the prior adds over EM, and over denoising first.

Sources are degraded, clipped and rounded to 8 bits, as files are. Conditions: Gaussian noise of sigma 25 or 15 grey
levels on both sources; sigma 25 on sources whose contrast was reduced to 0.2..0.8, so that next to nothing is
clipped ("headroom"); thermal fixed-pattern stripes (an offset for each column of the infrared source, sigma 10) with
Gaussian noise of sigma 10 on both; JPEG of quality 15. "The noise level given" is the true sigma, for stripes and
JPEG the RMS of what the degradation did to each source, for every row that is told one.

Rows: em (EM alone), em-noise (its likelihood knows the noise), bm3d and one-step (each source denoised first, by BM3D
or by one evaluation of the prior, then EM), ensemble (the same by the prior on four turned copies, as many
evaluations as "given" spends), sampling (posterior sampling of the fused image: noise-aware likelihood with maps and
texture target from the one-step sources, prior weight 1, warm start from the noise level, 5 evaluations), given and
auto (preset balanced with that noise, or as it is: it estimates), fast (preset fast with that noise). PSNR: to EM
alone on the clean sources.

In the file: metrics of every picture against the clean sources, its natural-image statistics (the same of clean
photographs with --photographs), means, and for the rows of the full method the paired differences to each way of
denoising first, with 95 % intervals by the bootstrap over images.

    python benchmarks/noise.py PAIRS [--crop 256] [--limit N] [--conditions ...] [--photographs DIR] [--output FILE]
    python benchmarks/noise.py PAIRS --limit 1 --crop 128 --output quick.json     # some minutes, to see that it runs
    python benchmarks/noise.py PAIRS --crops FOLDER                               # blind crops and their key, no scores

Beside FILE the tables appear as Markdown, FILE.md. PAIRS holds some of roadscene-dev, tno-dev and msrs-dev. A run that
was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from _common import (
    RESULTS,
    check_folder,
    check_output,
    errors_teach,
    images_in,
    positive,
    prior_facts,
    provenance,
    write_json,
)
from ddfm import metrics
from ddfm._checks import problem
from ddfm._runtime import keep_freed_memory
from ddfm.bench.significance import compare
from ddfm.denoising import level_of, turned
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import read_image
from ddfm.likelihood import FusionLikelihood, FusionState, em_alone
from ddfm.noise import deviations
from ddfm.noisy import with_noise
from ddfm.pictures import to_luma
from ddfm.presets import get_preset
from prior_denoise import bm3d_denoiser

FOLDERS = ("roadscene-dev", "tno-dev", "msrs-dev")
CONDITIONS = ("gauss25", "gauss15", "headroom25", "stripes", "jpeg15")
SEED = 0
FULL = ("given", "auto", "fast")  # rows of the full method
FIRST = ("bm3d", "one-step", "ensemble")  # rows that denoise first
COMPARED = ("PSNR", "SCD", "hot", "texture")
SHOWN = ("PSNR", "level", "SCD", "hot", "texture", "minVIF", "Qabf", "SD", "kurtosis", "slope")
Scores = dict[str, dict[str, float | None]]  # image -> metric -> value
Pair = tuple[np.ndarray, np.ndarray]  # infrared, visible: float32 (H, W) in [0, 1]


def read_pair(folder: Path, path: Path, crop: int) -> Pair:
    """Both lumas, the middle ``crop`` x ``crop`` pixels of them (0: all)."""
    found = []
    for role in ("ir", "vi"):
        file = next((folder / role).glob(path.stem + ".*"))
        luma = to_luma(read_image(file))[0, 0].numpy()
        height, width = luma.shape
        top, left = (max(n - crop, 0) // 2 if crop else 0 for n in (height, width))
        luma = luma[top : top + crop, left : left + crop] if crop else luma
        found.append(np.rint(luma * 255).astype(np.float32) / 255)
    return found[0], found[1]


def as_file(x: np.ndarray) -> np.ndarray:
    """Clipped and rounded to 8 bits."""
    return (np.rint(x.clip(0, 1) * 255) / 255).astype(np.float32)


def degrade(name: str, condition: str, clean: Pair) -> tuple[Pair, tuple[float, float]]:
    """The degraded pair and the noise level of each source, on [0, 1]."""
    digest = hashlib.sha256(f"{name} {condition} {SEED}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    if condition == "jpeg15":
        coded = (_jpeg(clean[0], 15), _jpeg(clean[1], 15))
        first, second = (float(np.sqrt(np.mean((a - b) ** 2))) for a, b in zip(coded, clean, strict=True))
        return coded, (first, second)
    sigma = 10.0 if condition == "stripes" else float(condition[-2:])
    noisy = [x + sigma / 255 * rng.standard_normal(x.shape) for x in clean]
    levels = [sigma / 255, sigma / 255]
    if condition == "stripes":
        noisy[0] = noisy[0] + 10 / 255 * rng.standard_normal((1, clean[0].shape[1]))
        levels[0] = 2**0.5 * sigma / 255
    return (as_file(noisy[0]), as_file(noisy[1])), (levels[0], levels[1])


def _jpeg(x: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(x * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float32) / 255


def stack(pair: Pair) -> Tensor:
    """(1, 2, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pair))[None].float() * 2 - 1


def unstack(f: Tensor) -> np.ndarray:
    """(1, 1, H, W) in [-1, 1] -> (H, W) in [0, 1]."""
    return ((f[0, 0].clamp(-1, 1) + 1) / 2).numpy()


@dataclasses.dataclass(frozen=True)
class Guided:
    """A likelihood whose maps and texture target come from cleaner versions of the sources."""

    inner: FusionLikelihood
    guides: Tensor

    def init(self, sources: Tensor) -> FusionState:
        return self.inner.init(sources, self.guides)

    def start(self, state: FusionState) -> Tensor:
        return self.inner.start(state)

    def step(self, x0: Tensor, state: FusionState, snr: float) -> tuple[Tensor, FusionState]:
        return self.inner.step(x0, state, snr)


class Rows:
    """The methods; each takes the degraded pair and its noise level."""

    def __init__(self) -> None:
        self.preset = get_preset("balanced")
        assert isinstance(self.preset.likelihood, FusionLikelihood)
        self.likelihood = self.preset.likelihood
        self.bm3d = bm3d_denoiser()
        self.fuser = Fuser(FuseConfig())
        self.pipe = self.fuser.pipeline
        self.abar = self.pipe._alpha_bar()

    def em(self, pair: Pair, levels: tuple[float, ...] = ()) -> np.ndarray:
        """EM alone, for as many iterations as the preset makes; with ``levels`` its likelihood knows of noise."""
        likelihood = dataclasses.replace(self.likelihood, noise=tuple(2 * v for v in levels))
        return unstack(em_alone(likelihood, stack(pair), self.preset.warm_sweeps + self.preset.steps)[0])

    def one_step(self, x: np.ndarray, level: float, turns: int) -> np.ndarray:
        """The prior as a denoiser: one evaluation, or the mean over turned copies."""
        t = level_of(2 * level, self.abar)
        y = self.abar[t].sqrt().float() * (torch.from_numpy(x)[None, None] * 2 - 1)
        with torch.inference_mode():
            answers = [
                turned(self.pipe._predict(turned(y, n), torch.tensor(t), self.abar[t], None), n, back=True)
                for n in range(turns)
            ]
        return unstack(torch.stack(answers).mean(0))

    def denoised(self, pair: Pair, levels: tuple[float, ...], turns: int) -> Pair:
        return self.one_step(pair[0], levels[0], turns), self.one_step(pair[1], levels[1], turns)

    def by_bm3d(self, pair: Pair, levels: tuple[float, ...]) -> Pair:
        assert self.bm3d
        a, b = (self.bm3d(x.astype(np.float64) * 255, 255 * s) / 255 for x, s in zip(pair, levels, strict=True))
        return a.clip(0, 1).astype(np.float32), b.clip(0, 1).astype(np.float32)

    def sampling(self, pair: Pair, levels: tuple[float, ...]) -> np.ndarray:
        """Posterior sampling of the fused image itself, as the method page describes it."""
        likelihood = dataclasses.replace(self.likelihood, noise=tuple(2 * v for v in levels), prior_weight=1.0)
        guided = Guided(likelihood, stack(self.denoised(pair, levels, 1)))
        start = max(level_of(2 * max(levels), self.abar), 5)
        x = [torch.from_numpy(s)[None, None] for s in pair]
        out = self.pipe(*x, num_inference_steps=5, likelihood=guided, start=start, warm_sweeps=2)
        return out.images[0, 0].numpy()

    def by_preset(self, pair: Pair, name: str, noise_std: str | tuple[float, ...] | None = None) -> np.ndarray:
        self.fuser.preset = with_noise(get_preset(name), noise_std)
        return self.fuser.fuse(*pair).data

    def table(self) -> dict[str, Callable[[Pair, tuple[float, ...]], np.ndarray]]:
        """Row -> method."""
        rows: dict[str, Callable[[Pair, tuple[float, ...]], np.ndarray]] = {
            "em": lambda p, s: self.em(p),
            "em-noise": self.em,
            "bm3d": lambda p, s: self.em(self.by_bm3d(p, s)),
            "one-step": lambda p, s: self.em(self.denoised(p, s, 1)),
            "ensemble": lambda p, s: self.em(self.denoised(p, s, 4)),
            "sampling": self.sampling,
            "given": lambda p, s: self.by_preset(p, "balanced", s),
            "auto": lambda p, s: self.by_preset(p, "balanced"),
            "fast": lambda p, s: self.by_preset(p, "fast", s),
        }
        return rows if self.bm3d else {k: v for k, v in rows.items() if k != "bm3d"}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak 1."""
    return float(-10 * np.log10(max(np.mean(np.square(a.astype(np.float64) - b)), 1e-10)))


def statistics(f: np.ndarray) -> dict[str, float]:
    """Kurtosis of the differences to neighbours, and slope of the power spectrum (log-log, 1/32 to 1/3)."""
    f = f.astype(np.float64)
    slopes = np.concatenate([np.diff(f, axis=0).ravel(), np.diff(f, axis=1).ravel()])
    kurtosis = float(np.mean((slopes - slopes.mean()) ** 4) / max(np.var(slopes), 1e-12) ** 2)
    window = np.hanning(f.shape[0])[:, None] * np.hanning(f.shape[1])[None]
    power = np.abs(np.fft.fft2((f - f.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(f.shape[0])[:, None], np.fft.fftfreq(f.shape[1])[None])
    edges = np.geomspace(1 / 32, 1 / 3, 13)
    places = np.digitize(radius, edges)
    levels = [power[places == k].mean() for k in range(1, len(edges))]
    centres = np.sqrt(edges[1:] * edges[:-1])
    slope = np.polyfit(np.log(centres), np.log(np.maximum(levels, 1e-12)), 1)[0]
    return {"kurtosis": kurtosis, "slope": float(slope)}


def score(f: np.ndarray, clean: Pair, reference: np.ndarray) -> dict[str, float | None]:
    """Metrics against the clean sources, PSNR and mean level to the reference, statistics of the picture."""
    a, b, x = (torch.from_numpy(z.astype(np.float64) * 255)[None, None] for z in (*clean, f.clip(0, 1)))
    values = {k: float(v[0]) for k, v in metrics.evaluate(x, a, b).items()}
    level = 255 * abs(float((f.clip(0, 1) - reference).mean()))
    values |= {"PSNR": psnr(f.clip(0, 1), reference), "level": level} | statistics(f.clip(0, 1))
    return {k: None if np.isnan(v) else round(v, 5) for k, v in values.items()}


def interval(differences: np.ndarray, resamples: int = 10_000) -> list[float]:
    """95 % percentile interval of the mean, by the bootstrap over images."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(differences), (resamples, len(differences)))
    return [float(q) for q in np.quantile(differences[picks].mean(1), (0.025, 0.975))]


def summary(images: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over images of each row, and paired differences of the full method to each way of denoising first."""
    first = next(iter(images.values()))["rows"]
    rows = [row for row in first if all(row in image["rows"] for image in images.values())]
    values = {row: {n: image["rows"][row] for n, image in images.items()} for row in rows}
    values["clean"] = {n: image["clean"] for n, image in images.items()}  # EM alone on the clean sources
    return {
        "images": len(images),
        "means": {row: means(list(scores.values())) for row, scores in values.items()},
        "differences": {
            f"{mine} - {other}": differences(values[mine], values[other])
            for mine in FULL
            for other in FIRST
            if mine in values and other in values
        },
    }


def means(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Of each metric, over the images that have it; None where none has."""
    found = {m: [v for v in (score[m] for score in scores) if v is not None] for m in scores[0]}
    return {m: float(np.mean(v)) if v else None for m, v in found.items()}


def differences(mine: Scores, other: Scores) -> dict[str, Any]:
    """Of each compared metric, over the images where both have it: mean, interval, share of images ahead, p."""
    found = {}
    for test in compare(mine, {"": other}, COMPARED):
        pairs = [(mine[n][test.metric], other[n][test.metric]) for n in mine]
        gain = np.array([a - b for a, b in pairs if a is not None and b is not None])
        if len(gain):
            p = None if np.isnan(test.p) else test.p
            figures = {"mean": float(gain.mean()), "interval": interval(gain), "better_on": float((gain > 0).mean())}
            found[test.metric] = figures | {"n": len(gain), "p": p}
    return found


class Run:
    """What was measured so far, kept in the output file after each image."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.images: dict[str, dict[str, Any]] = {}
        self.facts = {"provenance": provenance(("bm3d", "pillow")), "prior": prior_facts("bundled")}
        if options.output.is_file():
            stored = json.loads(options.output.read_text("utf-8"))
            if stored.get("protocol") == self.protocol():
                self.images = stored["images"]
        self.rows = Rows()

    def protocol(self) -> dict[str, Any]:
        presets = {name: get_preset(name).settings() for name in ("balanced", "fast")}
        prior = self.facts["prior"]["sha256"]
        return json.loads(json.dumps({"crop": self.options.crop, "seed": SEED, "presets": presets, "prior": prior}))

    def measure(self, folder: Path, path: Path, condition: str) -> None:
        """One pair in one condition, unless it is known."""
        key = f"{folder.name}/{path.stem}"
        known = self.images.setdefault(condition, {})
        table = self.rows.table()
        rows = known.get(key, {}).get("rows", {})
        missing = [name for name in table if name not in rows]
        if not missing:
            return
        clean = read_pair(folder, path, self.options.crop)
        if condition.startswith("headroom"):
            clean = (as_file(0.2 + 0.6 * clean[0]), as_file(0.2 + 0.6 * clean[1]))
        degraded, levels = degrade(key, condition, clean)
        reference = self.rows.em(clean)
        rows |= {name: score(table[name](degraded, levels), clean, reference) for name in missing}
        estimated = (deviations("auto", stack(degraded))[0] / 2).tolist()
        known[key] = {
            "levels": [255 * v for v in levels],
            "estimated": [255 * v for v in estimated],
            "clean": score(reference, clean, reference),
            "rows": {name: rows[name] for name in table},
        }
        self.save(complete=False)
        print(condition, key, {k: round(v["PSNR"] or 0, 2) for k, v in rows.items()}, flush=True)

    def save(self, complete: bool) -> None:
        payload = {
            **self.facts,
            "complete": complete,
            "protocol": self.protocol(),
            "summary": {c: summary(images) for c, images in self.images.items() if images},
            "images": self.images,
        }
        write_json(self.options.output, payload)
        if complete:
            self.options.output.with_suffix(".md").write_text(markdown(payload), "utf-8")


TITLES = {
    "gauss25": "Gaussian, sigma 25 of 255, both sources",
    "gauss15": "Gaussian, sigma 15",
    "stripes": "Gaussian, sigma 10, and in the thermal image column stripes of sigma 10",
    "jpeg15": "JPEG of quality 15, both",
    "headroom25": "Gaussian, sigma 25, sources squeezed to 0.2 to 0.8: next to nothing is clipped",
}
ROWS = {
    "em": "EM alone",
    "em-noise": "EM alone, told of the noise (E-step)",
    "bm3d": "BM3D on each source, then EM",
    "one-step": "prior as denoiser, once, then EM",
    "ensemble": "the same, mean of 4 turned copies, then EM",
    "sampling": "posterior sampling of the fused image, 5 steps",
    "given": "**`balanced`, noise given**",
    "auto": "**`balanced` as it is: noise estimated**",
    "fast": "**`fast`, noise given**",
    "clean": "EM alone on the clean sources",
}
COLUMNS = {"PSNR": 2, "level": 1, "SCD": 3, "hot": 3, "texture": 3, "minVIF": 3, "Qabf": 3, "kurtosis": 1, "slope": 2}


def markdown(payload: dict[str, Any]) -> str:
    """The tables of a finished run."""
    parts = [
        f"### {TITLES[condition]}: means of {found['images']} pairs\n\n{mean_table(found)}\n\n{lead_table(found)}"
        for condition, found in payload["summary"].items()
    ]
    return "\n\n".join(parts) + "\n"


def mean_table(found: dict[str, Any]) -> str:
    lines = [f"| way | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for row, values in found["means"].items():
        cells = [f"{values[k]:.{n}f}" if values.get(k) is not None else "-" for k, n in COLUMNS.items()]
        cells = ["-", "-", *cells[2:]] if row == "clean" else cells
        lines.append(f"| {ROWS[row]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lead_table(found: dict[str, Any]) -> str:
    """PSNR of the full method less that of each way of denoising first."""
    heads = [ROWS[row] for row in FIRST if any(key.endswith(f" - {row}") for key in found["differences"])]
    lines = [f"| PSNR ahead of, dB, 95 % interval | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for mine in FULL:
        leads = [v["PSNR"] for k, v in found["differences"].items() if k.startswith(f"{mine} - ")]
        cells = [f"{lead['mean']:+.2f} [{lead['interval'][0]:+.2f}, {lead['interval'][1]:+.2f}]" for lead in leads]
        if cells:
            lines.append(f"| {ROWS[mine]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_crops(run: Run, pairs: list[tuple[Path, Path]], out: Path) -> None:
    """One sheet a pair at sigma 25: five pictures in an order of chance, and the key in another file."""
    from ddfm.bench.crops import SIDE, window

    rng, key = np.random.default_rng(SEED), {}
    table = run.rows.table()
    for folder, path in pairs:
        name = f"{folder.name}/{path.stem}"
        clean = read_pair(folder, path, run.options.crop)
        degraded, levels = degrade(name, "gauss25", clean)
        pictures = {row: table[row](degraded, levels) for row in ("bm3d", "one-step", "given", "em") if row in table}
        pictures["clean"] = run.rows.em(clean)
        order = [str(n) for n in rng.permutation(list(pictures))]
        for focus, (y, x) in window(*clean).items():
            cut = [np.pad(pictures[n][y : y + SIDE, x : x + SIDE], 2, constant_values=1.0) for n in order]
            file = f"{folder.name}-{path.stem}-{focus.replace(' ', '-')}.png"
            sheet = Image.fromarray(np.rint(np.concatenate(cut, 1).clip(0, 1) * 255).astype(np.uint8))
            sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(out / file)
            key[file] = order
    write_json(out / "key.json", key)


def photographs(folder: Path, crop: int = 256) -> dict[str, float]:
    """The same statistics of clean photographs: means over the middle of each."""
    found = []
    for path in images_in(folder):
        luma = to_luma(read_image(path))[0, 0].numpy()
        top, left = ((n - crop) // 2 for n in luma.shape)
        if top >= 0 and left >= 0:
            found.append(statistics(luma[top : top + crop, left : left + crop]))
    return {k: float(np.mean([v[k] for v in found])) for k in found[0]} | {"images": float(len(found))}


def chosen(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """(folder, infrared file) of the pairs, at most ``limit`` of each folder. Raises DDFMError."""
    folders = [options.pairs / name for name in FOLDERS if (options.pairs / name).is_dir()]
    if not folders:
        raise problem("PAIRS", options.pairs, f"a folder with some of {', '.join(FOLDERS)}")
    for name in sorted(set(FOLDERS) - {folder.name for folder in folders}):
        print(f"{name}: not there, left out", file=sys.stderr)
    return [(folder, path) for folder in folders for path in images_in(folder / "ir")[: options.limit]]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, metavar="PAIRS")
    parser.add_argument("--crop", type=int, default=256, help="pixels a side from the middle; 0: whole pictures")
    parser.add_argument("--limit", type=positive, help="only so many pairs of a folder")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--output", type=Path, default=RESULTS / "noise.json")
    parser.add_argument("--crops", type=Path, metavar="FOLDER", help="write blind crops there, and no scores")
    parser.add_argument("--photographs", type=Path, help="also the statistics of these clean photographs")
    return parser.parse_args(arguments)


def show(condition: str, table: dict[str, dict[str, float | None]]) -> None:
    for row, values in table.items():
        shown = (f"{k} {values[k]:.3f}" for k in SHOWN if values[k] is not None)
        print(f"{condition:11s} {row:15s} {'  '.join(shown)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    keep_freed_memory()
    with errors_teach("what was measured is kept: the same command goes on"):
        pairs = chosen(options)
        check_output(options.output)
        run = Run(options)
        if options.crops:
            write_crops(run, pairs, check_folder(options.crops))
            print(options.crops)
            return
        if options.photographs:
            run.facts["photographs"] = photographs(options.photographs)
        for condition in options.conditions:
            for folder, path in pairs:
                run.measure(folder, path, condition)
            show(condition, summary(run.images[condition])["means"])
        run.save(complete=True)
        print(options.output)


if __name__ == "__main__":
    main()
