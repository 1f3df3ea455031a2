"""Side by side with a checkout of the authors' released DDFM code: same network, images and machine, one run.

CHECKOUT is a folder with the released code (github.com/Zhaozixiang1228/MMIF-DDFM); none of it is here. It is copied to
a temporary folder, given grey pictures cropped to multiples of 32 as it wants them, and run as its authors run it
(``python sample.py``), in turn with the presets of ``ddfm`` in processes of their own. WEIGHTS is their checkpoint,
256x256_diffusion_uncond.pt, which ``ddfm`` converts; with --random it is made with random weights, in the
architecture of the checkout's configuration: seconds and memory are then the real ones, the pictures are nothing.

Seconds of a picture: from the line in which a program says that it begins (or from the end of the picture before)
to the time of its file; loading is not counted. What the released code writes at every step is a part of it.
Memory: the largest resident set of the process, and on a GPU what nvidia-smi says of it. The output is written anew
after each process ("complete" tells whether it was the last), so that a stopped run keeps what it measured.

    python benchmarks/reference.py CHECKOUT PAIRS --weights FILE | --random  [--limit 3] [--rounds 1] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from _common import RESULTS, check_output, data_sets, errors_teach, median_ratio, positive, provenance, write_json
from ddfm._checks import problem
from ddfm.conversion import convert
from ddfm.evaluation import means, read_grey, score
from ddfm.io import file_sha256
from ddfm.metrics.table import parse_names
from ddfm.presets import get_preset
from ddfm.priors.adm import AdmConfig, _mapping, parameters, unet_arguments

PRESETS = ("released", "balanced", "fast")
MODEL_CONFIG = "configs/model_config_imagenet.yaml"
NEEDED = ("sample.py", MODEL_CONFIG, "configs/diffusion_config.yaml", "guided_diffusion")
MULTIPLE = 32  # the released code crops to it
LEAST = 64  # pixels a side after that, for VIF
BEGINS = re.compile(r"Inference for image (\d+)")
#: Channel multipliers of guided-diffusion by image size, where the configuration leaves them open.
CHANNEL_MULT = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}


# ---- the checkout and its network -----------------------------------------------------------------


def check_checkout(folder: Path) -> dict[str, Any]:
    """The checkout's model configuration; DDFMError naming what is missing."""
    if not folder.is_dir():
        raise problem("CHECKOUT", f"{folder}, no folder", "a checkout of the released code", "git clone it first.")
    if missing := [name for name in NEEDED if not (folder / name).exists()]:
        expected = f"a checkout of the released code, with {', '.join(NEEDED)}"
        raise problem("CHECKOUT", f"{folder} without {missing[0]}", expected, "git clone it, and name its folder.")
    return read_config(folder / MODEL_CONFIG)


def read_config(path: Path) -> dict[str, Any]:
    """A flat YAML file."""
    import yaml  # huggingface_hub brings it

    config = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(config, dict) or "num_channels" not in config or "model_path" not in config:
        raise problem("CHECKOUT", f"{path} without num_channels and model_path", "the configuration of a network")
    return config


def architecture(config: dict[str, Any]) -> AdmConfig:
    """What guided-diffusion builds of a configuration."""
    given = str(config.get("channel_mult") or "")
    size, base = int(config["image_size"]), int(config["num_channels"])
    if not given and size not in CHANNEL_MULT:
        raise problem("CHECKOUT", f"image_size {size}", f"one of {sorted(CHANNEL_MULT)}", "Or set channel_mult there.")
    mult = [float(m) for m in given.split(",")] if given else CHANNEL_MULT[size]
    attended = {size // int(r) for r in str(config["attention_resolutions"]).split(",")}
    return AdmConfig(
        channels=tuple(int(base * m) for m in mult),
        res_blocks=int(config["num_res_blocks"]),
        attention=tuple(2**level in attended for level in range(len(mult))),
        head_channels=int(config["num_head_channels"]),
        in_channels=3,
        out_channels=6 if config.get("learn_sigma") else 3,
        scale_shift=bool(config.get("use_scale_shift_norm")),
        res_resampling=bool(config.get("resblock_updown")),
        new_attention_order=bool(config.get("use_new_attention_order")),
    )


def random_checkpoint(config: AdmConfig, path: Path) -> Path:
    """A guided-diffusion state dict with random weights: the inverse of ``ddfm.priors.adm.to_unet``."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    torch.save(to_checkpoint(UNet2DModel(**unet_arguments(config)).state_dict(), config), path)
    return path


def to_checkpoint(ours: dict[str, torch.Tensor], config: AdmConfig) -> dict[str, torch.Tensor]:
    """Names and shapes of guided-diffusion; q, k and v go into one tensor."""
    found: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {}
    for mine, theirs, part in _mapping(config):
        if part is None:
            found[theirs] = ours[mine]
        elif part < 0:
            found[theirs] = as_convolution(ours[mine])
        else:
            parts.setdefault(theirs, []).append(ours[mine])
    return found | {name: as_convolution(joined(qkv, config)) for name, qkv in parts.items()}


def as_convolution(tensor: torch.Tensor) -> torch.Tensor:
    """A linear layer's weight as that of a convolution over positions; a bias stays."""
    return tensor[..., None] if tensor.ndim == 2 else tensor


def joined(qkv: list[torch.Tensor], config: AdmConfig) -> torch.Tensor:
    """Rows of q, k, v in the order (head, [q, k, v], channel), newly ([q, k, v], head, channel)."""
    rows = [x.reshape(-1, config.head_channels, *x.shape[1:]) for x in qkv]
    return torch.stack(rows, 0 if config.new_attention_order else 1).reshape(-1, *qkv[0].shape[1:])


# ---- images ---------------------------------------------------------------------------------------


def write_inputs(root: Path, limit: int, folder: Path) -> list[str]:
    """input/ir and input/vi: grey PNG files cropped to multiples of MULTIPLE; their stems."""
    data = data_sets(root)[0]
    names = []
    for name, pair in list(data.pairs.items())[:limit]:
        images = [read_grey(path)[0, 0].byte().numpy() for path in pair]
        if images[0].shape != images[1].shape:
            raise problem("PAIRS", f"{name}: sources of two sizes", "one size", "See: ddfm data check")
        height, width = (n - n % MULTIPLE for n in images[0].shape)
        if min(height, width) < LEAST:
            size = f"{images[0].shape[1]}x{images[0].shape[0]} pixels"
            raise problem("PAIRS", f"{name} of {size}", f"{LEAST}x{LEAST} or more, to be measured")
        stem = name.replace(".", "_")  # the released code cuts a name at its first dot
        for role, image in zip(("ir", "vi"), images, strict=True):
            (folder / role).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image[:height, :width])).save(folder / role / f"{stem}.png")
        names.append(stem)
    return sorted(names)


# ---- running and watching a program ---------------------------------------------------------------


class Watch:
    """A subprocess, with the times of its lines and its largest memory.

    ``lines``: (seconds since the epoch, text); ``resident``, ``gpu``: bytes.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self.resident, self.gpu = 0, 0
        self.begun = time.time()
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            self._watch()
        finally:  # at Ctrl-C too: what was started is ended
            self.process.kill()
            reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        self.code = self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.time(), line.rstrip()))

    def _watch(self) -> None:
        known = psutil.Process(self.process.pid)
        smi = shutil.which("nvidia-smi") if torch.cuda.is_available() else None
        while self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self.resident = max(self.resident, known.memory_info().rss)
            if smi:
                self.gpu = max(self.gpu, gpu_bytes(smi, self.process.pid))
            time.sleep(0.02)

    def seconds(self, names: Sequence[str], folder: Path) -> dict[str, float]:
        """Seconds of each picture, by the times of the files in ``folder`` and of the lines that announce them."""
        ends = sorted((folder / f"{name}.png").stat().st_mtime for name in names)
        order = sorted(names, key=lambda name: (folder / f"{name}.png").stat().st_mtime)
        announced = [at for at, line in self.lines if BEGINS.search(line)]
        found = {}
        for k, (name, end) in enumerate(zip(order, ends, strict=True)):
            before = ends[k - 1] if k else self.begun
            begun = max(before, announced[k]) if k < len(announced) else before
            found[name] = max(end - begun, 1e-3)  # a file system may count time in coarser ticks
        return found


def gpu_bytes(smi: str, pid: int) -> int:
    query = [smi, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    table = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [line.split(",") for line in table.splitlines() if line.count(",") == 1]
    return sum(int(used) << 20 for found, used in rows if found.strip() == str(pid) and used.strip().isdigit())


def run(name: str, command: Sequence[str], folder: Path, results: Path, names: Sequence[str]) -> dict[str, Any]:
    """One process over all pictures: seconds by picture and memory. DDFMError with its last lines if it failed."""
    watch = Watch(command, folder)
    missing = [stem for stem in names if not (results / f"{stem}.png").is_file()]
    if watch.code or missing:
        last = " | ".join(text for _, text in watch.lines[-4:]) or "it said nothing"
        got = f"exit code {watch.code}" if watch.code else f"no picture {missing[0]}.png"
        remedy = f"Its last lines: {last}. Its packages must be those of --python."
        raise problem(name, got, "a run that writes every picture", remedy)
    return {"seconds": watch.seconds(names, results), "resident_bytes": watch.resident, "gpu_bytes": watch.gpu}


def work(preset: str, prior: Path, inputs: Path, out: Path) -> None:
    """The measured process of ``ddfm``: the same pictures in the same way."""
    from ddfm._runtime import keep_freed_memory
    from ddfm.fusion import FuseConfig, Fuser

    keep_freed_memory()
    fuser = Fuser(FuseConfig(preset=preset, prior=str(prior)))
    out.mkdir(parents=True, exist_ok=True)
    for k, path in enumerate(sorted((inputs / "ir").iterdir())):
        print(f"Inference for image {k}", flush=True)
        fuser.fuse(path, inputs / "vi" / path.name).save(out / path.name, overwrite=True)


# ---- one run --------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace, folder: Path) -> tuple[Path, Path, list[str], dict[str, Any]]:
    """Copy of the checkout with inputs and weights in place, our prior of the same weights, stems, facts."""
    config = check_checkout(options.checkout)
    if not options.random and not options.weights.is_file():
        raise problem("--weights", options.weights, "an existing checkpoint", "Or --random, to measure seconds alone.")
    copy = folder / "checkout"
    ignored = shutil.ignore_patterns(".git", "input", "output", "models", "*.pt", "__pycache__")
    shutil.copytree(options.checkout, copy, ignore=ignored)
    names = write_inputs(options.pairs, options.limit, copy / "input")
    weights = copy / config["model_path"]
    weights.parent.mkdir(parents=True, exist_ok=True)
    if options.random:
        random_checkpoint(architecture(config), weights)
    else:
        weights.symlink_to(options.weights.resolve())
    prior = convert(weights, folder / "prior", head_channels=int(config["num_head_channels"]))
    facts = {"random": options.random, "sha256": file_sha256(weights), "parameters": count(prior)}
    return copy, prior, names, facts


def count(prior: Path) -> int:
    from ddfm.priors import load_prior

    return parameters(load_prior(prior).unet)


Runs = dict[str, list[dict[str, Any]]]


def rounds(
    options: argparse.Namespace, copy: Path, prior: Path, names: list[str], folder: Path
) -> Iterator[tuple[Runs, bool]]:
    """The released code and every preset in turn, ``options.rounds`` times: runs so far, and whether these are all."""
    found: Runs = {"reference": [], **{name: [] for name in options.presets}}
    for k in range(options.rounds):
        shutil.rmtree(copy / "output", ignore_errors=True)
        theirs = run("CHECKOUT", [options.python, "sample.py"], copy, copy / "output/recon", names)
        found["reference"].append(theirs)
        for preset in options.presets:
            call = [sys.executable, str(Path(__file__).resolve()), str(copy), str(copy / "input"), "--work", preset]
            call += ["--prior", str(prior), "--results", str(folder / preset)]
            shutil.rmtree(folder / preset, ignore_errors=True)
            found[preset].append(run(preset, call, folder, folder / preset, names))
            yield found, k == options.rounds - 1 and preset == options.presets[-1]


def scores(results: Path, inputs: Path, names: Sequence[str]) -> dict[str, Any]:
    """Mean metrics of a folder of results."""
    metrics = parse_names("default")
    images = {}
    for name in names:
        files = (results, inputs / "ir", inputs / "vi")
        images[name] = score(*(read_grey(file / f"{name}.png") for file in files), metrics=metrics)
    return means(images, metrics)


def summary(found: dict[str, list[dict[str, Any]]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Median seconds, largest memory, and how many times the reference takes of each, of methods that have run."""
    found = {method: runs for method, runs in found.items() if runs}
    series = {method: [r["seconds"][n] for r in runs for n in names] for method, runs in found.items()}
    memory = {
        kind: {method: max(r[kind] for r in runs) for method, runs in found.items()}
        for kind in ("resident_bytes", "gpu_bytes")
    }
    rows: dict[str, dict[str, Any]] = {}
    for method, own in series.items():
        rows[method] = {"seconds": statistics.median(own)} | {kind: table[method] for kind, table in memory.items()}
        if method != "reference":
            rows[method]["times_as_fast"] = median_ratio(series["reference"][: len(own)], own)
            for kind, table in memory.items():
                rows[method][f"reference_to_own_{kind}"] = table["reference"] / table[method] if table[method] else None
    return rows


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("pairs", type=Path, help="a data set: ir + vi")
    parser.add_argument("--weights", type=Path, help="256x256_diffusion_uncond.pt")
    parser.add_argument("--random", action="store_true", help="random weights of the same architecture")
    parser.add_argument("--limit", type=positive, default=3, help="pairs")
    parser.add_argument("--rounds", type=positive, default=1)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the checkout's packages")
    parser.add_argument("--output", type=Path, default=RESULTS / "reference.json")
    for hidden in ("--work", "--prior", "--results"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.work and bool(options.weights) == options.random:
        parser.error("one of --weights FILE and --random")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.work:
        work(options.work, Path(options.prior), options.pairs, Path(options.results))
        return
    with errors_teach("--output holds what was measured"), tempfile.TemporaryDirectory() as temporary:
        for preset in options.presets:
            get_preset(preset)
        check_output(options.output)
        folder = Path(temporary)
        copy, prior, names, weights = prepare(options, folder)
        head = {"provenance": provenance(), "weights": weights, "cuda": torch.cuda.is_available(), "pictures": names}
        for found, complete in rounds(options, copy, prior, names, folder):
            rows = summary(found, names)
            for method, row in rows.items():
                place = copy / "output/recon" if method == "reference" else folder / method
                row["mean"] = scores(place, copy / "input", names)
            write_json(options.output, head | {"complete": complete, "rows": rows, "runs": found})
        for method, row in rows.items():
            print(said(method, row))
    print(options.output)


def said(method: str, row: dict[str, Any]) -> str:
    """One line of the summary."""
    text = f"{method:12} {row['seconds']:.3f} s a picture, {row['resident_bytes'] / 1e9:.2f} GB"
    if method == "reference":
        return text
    memory = row["reference_to_own_gpu_bytes"] or row["reference_to_own_resident_bytes"]
    times = row["times_as_fast"]["median_ratio"]
    return f"{text}; the reference takes {times:.2f} times as long and {memory:.2f} times the memory"


if __name__ == "__main__":
    main()
