"""The work behind the page, without the page: uploads and choices to files, metrics and words."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from ddfm._checks import DDFMError, check_range, explained, problem
from ddfm.app.choices import Choices
from ddfm.app.folders import Folders
from ddfm.app.limits import Limits, check_upload, told
from ddfm.app.runs import OnStep
from ddfm.color import grey_levels
from ddfm.evaluation import score
from ddfm.explaining.explanation import explain_with
from ddfm.explaining.report import SAID, SCORED_PIXELS, SCORED_SIDE
from ddfm.fusion import Fused, Fuser
from ddfm.io import Image, encode_image, read_image, write_bytes
from ddfm.metrics import METRICS
from ddfm.opening import Gathered
from ddfm.presets import MEDICAL

__all__ = ["Fusion", "Look", "Studio", "Upload", "safe_name"]

T = TypeVar("T")
#: Runs that one request may ask for.
MOST_SEEDS = 32
#: Sides of the small picture that is shown of an upload.
LOOK_SIDE = 640
#: What metrics say, in words for everyone: the report's, and of those that it leaves out.
PLAIN_WORDS = SAID | {
    "MI": "How much of both sources can be told from the result.",
    "minRetention": "The smaller of hot and texture.",
}


class Upload(NamedTuple):
    """A file as the server has it, and as the user calls it."""

    path: Path
    name: str


@dataclasses.dataclass(frozen=True)
class Look:
    """A small picture of an upload, and what it is in words."""

    picture: Path
    words: str


@dataclasses.dataclass(frozen=True)
class Fusion:
    """Files of one fusion, and what to say of it.

    sources: PNG of each on the fused grid. rows: (metric, arrow, value, meaning). report: as JSON holds it.
    """

    fused: Path
    sources: tuple[Path, ...]
    tiff: Path
    settings: Path
    rows: tuple[tuple[str, str, str, str], ...]
    notes: tuple[str, ...]
    report: dict[str, Any]


def safe_name(name: str, default: str = "picture", most: int = 80) -> str:
    """The last part of a name, with nothing in it that a file system or a page could take for something else."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(mark if mark.isalnum() or mark in "._- " else "_" for mark in last)[-most:].lstrip(". ")
    return kept or default


class Studio:
    """Fuses uploads; the prior stays loaded."""

    def __init__(self, limits: Limits, folders: Folders, device: str = "auto") -> None:
        self.limits, self.folders = limits, folders
        self.device = device
        self.fuser = functools.lru_cache(maxsize=4)(self._fuser)

    def _fuser(self, choices: Choices) -> Fuser:
        return Fuser(dataclasses.replace(choices.config(), device=self.device))

    def look(self, upload: Upload, folder: Path) -> Look:
        """Check an upload and show it. Raises DDFMError."""
        height, width = check_upload(upload.path, upload.name, self.limits)
        link = self._link(upload, folder)
        image = self._spoken_of({link: upload.name}, lambda: read_image(link))
        words = f"{upload.name}: {width} x {height}, {image.bit_depth} bits, {'colour' if image.is_color else 'grey'}"
        step = max(1, -(-max(image.size) // LOOK_SIDE))
        picture = folder / "look.png"
        write_bytes(picture, encode_image(image.data[::step, ::step], ".png"), overwrite=True)
        return Look(picture, words)

    def fuse(self, uploads: Sequence[Upload], choices: Choices, folder: Path, on_step: OnStep) -> Fusion:
        """Fuse uploads of one scene into ``folder``. Raises DDFMError in words for the page."""
        names = self._links(uploads, folder)
        return self._spoken_of(names, lambda: self._fuse(names, choices, folder, on_step))

    def _fuse(self, names: dict[Path, str], choices: Choices, folder: Path, on_step: OnStep) -> Fusion:
        """names: of the sources, in their order."""
        begun = time.perf_counter()
        paths = list(names)
        on_step(0, 0, "loading")
        fuser = self.fuser(choices)
        opened = fuser.open(paths)
        images = opened.gathered.images
        sources = tuple(_picture(folder / f"source-{k}.png", image) for k, image in enumerate(images, 1))
        lumas = _lumas(opened.gathered)
        on_step(0, 0, "fusing")
        fused = fuser.fuse_opened(opened, lambda done, of: on_step(done, of, "evaluations of the prior"), begun)
        report = _public(fused.report, list(names.values()))
        on_step(0, 0, "writing")
        write_bytes(folder / "fused.png", encode_image(fused.data, ".png"))
        write_bytes(folder / "fused-16bit.tif", encode_image(fused.data, ".tif", bit_depth=16))
        text = json.dumps({"choices": dataclasses.asdict(choices), "report": report}, indent=1)
        write_bytes(folder / "settings.json", text.encode())
        on_step(0, 0, "measuring")
        rows = _metrics(fused, lumas)
        notes = tuple(str(told(ValueError(note), names)) for note in [*_swapped(images, choices), *report["warnings"]])
        files = (folder / "fused.png", sources, folder / "fused-16bit.tif", folder / "settings.json")
        return Fusion(*files, rows, notes, report)

    def explain(
        self, uploads: Sequence[Upload], choices: Choices, seeds: int, folder: Path, on_step: OnStep
    ) -> dict[str, Path]:
        """How the fusion of uploads came about: "html", "gif" and, with the extra ``video``, "mp4", in ``folder``."""
        if not isinstance(seeds, int):
            raise problem("seeds", repr(seeds)[:40], "a whole number")
        check_range("seeds", seeds, 0, MOST_SEEDS)
        names = self._links(uploads, folder)
        return self._spoken_of(names, lambda: self._explain(names, choices, seeds, folder, on_step))

    def _explain(
        self, names: dict[Path, str], choices: Choices, seeds: int, folder: Path, on_step: OnStep
    ) -> dict[str, Path]:
        on_step(0, 0, "loading")
        paths, words = list(names), list(names.values())
        labels = words if len(set(words)) == len(words) else [f"{word} ({k})" for k, word in enumerate(words, 1)]
        explained = explain_with(
            self.fuser(choices),
            paths,
            seeds=seeds,
            labels=labels,
            on_step=lambda done, of: on_step(done, of, "explaining"),
        )
        on_step(0, 0, "drawing")
        found = {"html": explained.save(folder / "report.html"), "gif": folder / "time-lapse.gif"}
        write_bytes(found["gif"], explained.gif())
        on_step(0, 0, "drawing")
        with contextlib.suppress(DDFMError):  # without the extra
            write_bytes(folder / "time-lapse.mp4", explained.mp4())
            found["mp4"] = folder / "time-lapse.mp4"
        return found

    def _links(self, uploads: Sequence[Upload], folder: Path) -> dict[Path, str]:
        """The uploads, checked, as the fusion is to find them, and how the user calls each. Raises DDFMError."""
        for upload in uploads:
            check_upload(upload.path, upload.name, self.limits)
        return {self._link(upload, folder, f"{k}-"): upload.name for k, upload in enumerate(uploads, 1)}

    def _link(self, upload: Upload, folder: Path, prefix: str = "") -> Path:
        """The upload under its user's name where nobody else gets at it: messages and notes then say that name."""
        link = self.folders.inside(folder) / f"{prefix}{upload.name}"
        if not link.exists():
            link.symlink_to(upload.path.absolute())
        return link

    def _spoken_of(self, names: dict[Path, str], work: Callable[[], T]) -> T:
        """What ``work`` gives; its errors name files as the user does."""
        try:
            return work()
        except (DDFMError, MemoryError, RuntimeError) as error:
            known = explained(error, "pictures", "smaller ones", "Crop or reduce them.")
            raise told(known, names) from error


def _swapped(images: Sequence[Image], choices: Choices) -> Sequence[str]:
    """A note where colour comes first and grey last, which of cameras is seldom meant."""
    if choices.preset in MEDICAL and images[0].is_color and not images[-1].is_color:
        return ["the first picture is coloured and the second grey: are they swapped? The thermal one comes first"]
    return []


def _picture(path: Path, image: Image) -> Path:
    write_bytes(path, encode_image(image.data, ".png"), overwrite=True)
    return path


def _lumas(gathered: Gathered) -> list[np.ndarray] | None:
    """Grey levels of the sources, taken before a large fusion frees them; None where metrics are left out."""
    if np.prod(gathered.images[0].size) > SCORED_PIXELS:
        return None
    return [image.data for image in gathered.images]


def _metrics(fused: Fused, sources: list[np.ndarray] | None) -> tuple[tuple[str, str, str, str], ...]:
    if sources is None or min(fused.data.shape[:2]) < SCORED_SIDE:
        return ()
    f, a, b = (grey_levels(torch.from_numpy(np.ascontiguousarray(x)))[None, None] for x in (fused.data, *sources))
    values = score(f, a, b)
    return tuple(
        (name, METRICS[name].arrow, "not defined here" if value != value else f"{value:.3f}", PLAIN_WORDS[name])
        for name, value in values.items()
    )


def _public(report: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The report with the users' names of files in place of paths."""
    inputs = [{**entry, "path": name} for entry, name in zip(report["inputs"], names, strict=True)]
    return {**report, "inputs": inputs}


def check_two(infrared: Upload | None, visible: Upload | None) -> list[Upload]:
    """Both pictures. Raises DDFMError where one is missing."""
    missing = [word for word, upload in (("thermal", infrared), ("visible", visible)) if upload is None]
    if missing:
        raise problem("pictures", f"no {' and no '.join(missing)} one", "two of one scene", "Drop it into its area.")
    return [upload for upload in (infrared, visible) if upload]
