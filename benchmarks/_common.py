"""What the benchmark scripts share: where a number comes from, how it is written, how two times are compared."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfm import _provenance

RESULTS = Path(__file__).parent / "results"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@contextlib.contextmanager
def errors_teach(stopped: str = "") -> Iterator[None]:
    """What is the caller's to mend becomes one line and exit code 2, as on the command line; Ctrl-C one line and 130.

    stopped: what is kept then, and how to go on.
    """
    from ddfm._checks import DDFMError

    try:
        yield
    except DDFMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped" + f"; {stopped}" * bool(stopped), file=sys.stderr)
        sys.exit(130)


def positive(text: str) -> int:
    """A count for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected 1 or more")
    return value


def check_output(path: Path) -> Path:
    """A file that can be written, or DDFMError: better now than after hours."""
    from ddfm._checks import problem

    if path.is_dir():
        raise problem("--output", f"{path}, a folder", "a file", f"Such as {path / 'result.json'}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise problem("--output", path, "a file in a folder that can be written to")
    return path


def check_folder(path: Path) -> Path:
    """A folder to write to, made if it is missing, or DDFMError."""
    from ddfm._checks import problem

    if path.exists() and not path.is_dir():
        raise problem("OUT", f"{path}, a file", "a folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def data_sets(root: Path) -> list[Any]:
    """The pairs of ``root``, or of every folder in it that ``ddfm.datasets`` understands. Raises DDFMError."""
    from ddfm._checks import DDFMError, problem
    from ddfm.datasets import find_pairs

    if not root.is_dir():
        raise problem("PAIRS", f"{root}, no folder", "a folder of data sets, or one data set")
    found = []
    for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir())]:
        with contextlib.suppress(DDFMError):
            found.append(find_pairs(folder))
            if folder == root:
                break
    if not found:
        raise problem("PAIRS", f"{root}, without pairs", "folders such as tno/ir + tno/vi", "See: ddfm data list")
    return found


def run_all(methods: Sequence[Any], sets: Sequence[Any], out: Path, plan: Any) -> tuple[list[dict[str, Any]], int]:
    """Records of ``ddfm.bench.run.benchmark``, and how many runs failed; each is said in a line as it ends."""
    from ddfm.bench.run import Failure, benchmark

    records, failed = [], 0
    for outcome in benchmark(methods, sets, out, plan):
        if isinstance(outcome, Failure):
            failed += 1
            print(f"left out: {outcome.dataset}, {outcome.method}: {outcome.reason}", file=sys.stderr)
        else:
            records.append(outcome[1])
            print(outcome[0], flush=True)
    return records, failed


def provenance(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Machine, versions (also of further ``packages``), threads, UTC time, commit and command; no machine paths."""
    return {
        "command": command_line(sys.argv),
        "time": _provenance.now(),
        "commit": git_commit(),
        "machine": _provenance.machine(),
        "threads": threads(),
        "versions": _provenance.versions() | {name: version_of(name) for name in packages},
    }


def version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def threads() -> int | None:
    """Threads of torch where the script uses torch, else those that the system gives."""
    if "torch" in sys.modules:
        return int(sys.modules["torch"].get_num_threads())
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count()


def git_commit() -> str | None:
    """The checkout's commit, with "+" where tracked files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    call = ["git", "-C", str(folder), *arguments]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


def command_line(arguments: Sequence[str]) -> str:
    """The command as it can be read on another machine: of a path, at most the last two parts."""
    return " ".join(["python", f"benchmarks/{Path(arguments[0]).name}", *map(short_path, arguments[1:])])


def short_path(text: str) -> str:
    """``/data/bsds500/val`` -> ``bsds500/val``; anything that is not an absolute or upward path stays."""
    option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
    path = Path(value)
    if path.is_absolute() or ".." in path.parts or value.startswith("~"):
        value = "/".join([p for p in path.parts if p not in ("/", "..", "~")][-2:])
    return option + equals + value


def write_json(path: Path, payload: Any) -> None:
    """Write whole, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(payload, indent=1) + "\n", "utf-8")
    part.replace(path)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Two series of seconds measured in turn: their medians, and median and quartiles of the ratios pair by pair."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "median_seconds": [statistics.median(above), statistics.median(below)],
        "median_ratio": statistics.median(ratios),
        "ratio_quartiles": [float(q) for q in np.quantile(ratios, (0.25, 0.75))],
        "pairs": len(ratios),
    }


def prior_facts(name: str) -> dict[str, Any]:
    """``ddfm.priors.prior_info`` without machine paths."""
    from ddfm.priors import prior_info

    facts = prior_info(name)
    del facts["folder"]
    return facts | {"name": short_path(name)}


def images_in(folder: Path) -> list[Path]:
    """The image files below a folder, sorted."""
    if not folder.is_dir():
        sys.exit(f"{folder}: not a folder of images")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def read_luma(path: Path) -> np.ndarray:
    """8-bit luma as Pillow computes it, uint8 (H, W)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
