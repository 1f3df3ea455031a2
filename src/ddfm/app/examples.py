"""Rendered samples that the page offers to try, written once when the server starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ddfm import samples
from ddfm.io import encode_image, write_bytes

__all__ = ["Example", "write_examples"]


@dataclasses.dataclass(frozen=True)
class Example:
    """Two pictures, what the button says, and the preset that fits."""

    words: str
    preset: str
    infrared: Path
    visible: Path


_SCENES: dict[str, tuple[str, str, Callable[[], samples.Sample]]] = {
    "street": ("Street at night: thermal and visible", "balanced", lambda: samples.street(seed=0)),
    "ct": ("Head: CT and MRI", "medical", lambda: samples.phantom(seed=0, modality="ct")),
    "pet": ("Head: PET and MRI", "medical", lambda: samples.phantom(seed=0, modality="pet")),
}


def write_examples(folder: Path) -> list[Example]:
    """Render the samples into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for stem, (words, preset, render) in _SCENES.items():
        sample = render()
        pictures = zip(sample.labels, (sample.infrared, sample.visible), strict=True)
        paths = [_write(folder / f"{stem}_{label}.png", picture) for label, picture in pictures]
        found.append(Example(words, preset, *paths))
    return found


def _write(path: Path, picture: np.ndarray) -> Path:
    write_bytes(path, encode_image(np.asarray(picture, np.float32), ".png"), overwrite=True)
    return path
