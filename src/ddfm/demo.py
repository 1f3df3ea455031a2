"""``ddfm demo``: the project's own samples, rendered, fused and laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ddfm import samples, stacks
from ddfm._checks import problem
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import encode_image, from_array, write_bytes
from ddfm.presets import MEDICAL

__all__ = ["SCENES", "make_demo", "side_by_side"]

#: What is rendered, by file stem.
SCENES: dict[str, Callable[[], samples.Sample]] = {
    "street": lambda: samples.street(seed=0),
    "ct-mri": lambda: samples.phantom(seed=0, modality="ct"),
    "pet-mri": lambda: samples.phantom(seed=0, modality="pet"),
    "spect-mri": lambda: samples.phantom(seed=0, modality="spect"),
}


def _exposures() -> dict[str, np.ndarray]:
    street = samples.street((240, 320), seed=1).visible
    return dict(zip(("dark", "middle", "bright"), stacks.exposures(street), strict=True))


def _focus() -> dict[str, np.ndarray]:
    street = samples.street((240, 320), seed=1).visible
    return dict(zip(("left", "middle", "right"), stacks.focus_stack(street, 3), strict=True))


#: Three pictures of one camera each.
STACKS: dict[str, Callable[[], dict[str, np.ndarray]]] = {"exposures": _exposures, "focus": _focus}


def make_demo(folder: Path, preset: str = "balanced") -> list[Path]:
    """Write sources, fused image and a sheet for each scene into ``folder``; return the sheets' paths.

    Scans are fused with what ``MEDICAL`` names beside the preset.

    Pictures of an earlier demo are replaced: the names are the demo's own. Raises DDFMError if the folder cannot be
    written.
    """
    cameras, scans = Fuser(FuseConfig(preset=preset)), Fuser(FuseConfig(preset=MEDICAL.get(preset, preset)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise problem("folder", folder, "a folder that can be made", str(error)) from error
    pairs = [
        _scene(folder, stem, render(), scans if stem.endswith("mri") else cameras) for stem, render in SCENES.items()
    ]
    stacked = Fuser(FuseConfig(preset="stack"))
    return pairs + [_fused(folder, stem, render(), stacked) for stem, render in STACKS.items()]


def _scene(folder: Path, stem: str, sample: samples.Sample, fuser: Fuser) -> Path:
    return _fused(folder, stem, dict(zip(sample.labels, (sample.infrared, sample.visible), strict=True)), fuser)


def _fused(folder: Path, stem: str, sources: Mapping[str, np.ndarray], fuser: Fuser) -> Path:
    """Write sources by label, their fusion and the sheet."""
    pictures = {label: quantise(source) for label, source in sources.items()}
    fused = fuser.fuse(*(from_array(picture, label) for label, picture in pictures.items()))
    pictures["fused"] = quantise(fused.data)
    for label, picture in pictures.items():
        _write(folder / f"{stem}_{label}.png", picture)
    sheet = folder / f"{stem}_sheet.png"
    _write(sheet, side_by_side(list(pictures.values()), list(pictures)))
    return sheet


def quantise(data: np.ndarray) -> np.ndarray:
    """Float in [0, 1] to uint8."""
    return np.rint(np.asarray(data) * 255).astype(np.uint8)


def _write(path: Path, picture: np.ndarray) -> None:
    write_bytes(path, encode_image(picture.astype(np.float32) / 255, path.suffix), overwrite=True)


def side_by_side(pictures: Sequence[np.ndarray], labels: Sequence[str], gap: int = 8) -> np.ndarray:
    """uint8 pictures of one height, grey or RGB, in a row with their labels above: (H + 24, W, 3)."""
    from PIL import Image, ImageDraw

    height = pictures[0].shape[0]
    width = sum(p.shape[1] for p in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, height + 24), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for picture, label in zip(pictures, labels, strict=True):
        sheet.paste(Image.fromarray(picture).convert("RGB"), (left, 24))
        draw.text((left + 4, 5), label, fill="black", font_size=14)
        left += picture.shape[1] + gap
    return np.asarray(sheet)
