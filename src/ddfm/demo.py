"""``ddfm demo``: the project's own samples, rendered, fused and laid side by side; ``ddfm data phantom``: volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ddfm import moving, samples, stacks
from ddfm._checks import problem
from ddfm.fusion import FuseConfig, Fuser
from ddfm.io import encode_image, from_array, write_bytes
from ddfm.io.dicom import pydicom_or_error
from ddfm.io.medical import Origin, writing_volume
from ddfm.io.nifti import encode_nifti
from ddfm.io.video import open_clips
from ddfm.io.video_writer import ClipWriter, Encoding
from ddfm.io.volume import ArrayVolume, Geometry
from ddfm.phantoms import PhantomVolume, phantom_volume
from ddfm.presets import MEDICAL
from ddfm.video import fuse_videos

__all__ = ["SCENES", "make_clip", "make_demo", "make_phantom", "side_by_side"]

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


def _scans() -> dict[str, np.ndarray]:
    pet, t2 = samples.phantom(seed=0, modality="pet"), samples.phantom(seed=0, modality="t2")
    return {"pet": pet.infrared, "t1": pet.visible, "t2": t2.infrared}


#: Three sources each: of one camera, or of one head (whose stem ends as a scan's).
STACKS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "exposures": _exposures,
    "focus": _focus,
    "pet-t1-t2-mri": _scans,
}


def make_demo(folder: Path, preset: str = "balanced") -> list[Path]:
    """Write sources, fused image and a sheet for each scene into ``folder``; return the sheets' paths.

    Scans are fused with what ``MEDICAL`` names beside the preset.

    Pictures of an earlier demo are replaced: the names are the demo's own. Raises DDFMError if the folder cannot be
    written.
    """
    cameras, scans = Fuser(FuseConfig(preset=preset)), Fuser(FuseConfig(preset=MEDICAL.get(preset, preset)))
    _make(folder)
    pairs = [
        _scene(folder, stem, render(), scans if stem.endswith("mri") else cameras) for stem, render in SCENES.items()
    ]
    stacked = Fuser(FuseConfig(preset="stack"))
    return pairs + [
        _fused(folder, stem, render(), scans if stem.endswith("mri") else stacked) for stem, render in STACKS.items()
    ]


def make_clip(
    folder: Path, preset: str = "balanced", seconds: float = 10.0, on_frame: Callable[[int, int], object] | None = None
) -> list[Path]:
    """Write the street in motion as both cameras see it, fuse it, and lay the three clips side by side.

    Return the paths of the fused clip and of the sheet. Clips of an earlier demo are replaced. Raises DDFMError.
    """
    if not 0 < seconds <= 600:
        raise problem("seconds", seconds, "a number in (0, 600]")
    _make(folder)
    paths = {label: folder / f"street_{label}.mp4" for label in ("infrared", "visible", "fused")}
    frames = moving.moving_street(frames=max(1, round(seconds * moving.FPS)))
    _film([paths["infrared"], paths["visible"]], ((frame.infrared, frame.visible) for frame in frames))
    sources = [paths["infrared"], paths["visible"]]
    fuse_videos(sources, paths["fused"], FuseConfig(preset=preset), overwrite=True, on_frame=on_frame)
    sheet = folder / "street_sheet.mp4"
    clips = [clip.frames() for clip in open_clips(list(paths.values()))]
    pictures = ([quantise(frame.image.data) for frame in moment] for moment in zip(*clips, strict=True))
    sheets = ((side_by_side(three, list(paths)).astype(np.float32) / 255,) for three in pictures)
    _film([sheet], sheets, Encoding(crf=30))  # to be looked at, not to be measured
    return [paths["fused"], sheet]


def _film(paths: Sequence[Path], moments: Iterable[Sequence[np.ndarray]], encoding: Encoding | None = None) -> None:
    """Write clips side by side in time, floats in [0, 1], at the sample's rate."""
    with contextlib.ExitStack() as stack:
        writers: list[ClipWriter] = []
        for k, pictures in enumerate(moments):
            for path, picture in zip(paths[len(writers) :], pictures[len(writers) :], strict=True):
                size, color = (picture.shape[0], picture.shape[1]), picture.ndim == 3
                writer = ClipWriter(path, size=size, rate=Fraction(moving.FPS), time_base=Fraction(1, 12_800),
                                    color=color, encoding=encoding, overwrite=True)  # fmt: skip
                writers.append(stack.enter_context(writer))
            for writer, picture in zip(writers, pictures, strict=True):
                writer.write(picture, Fraction(k, moving.FPS), Fraction(1, moving.FPS))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise problem("folder", folder, "a folder that can be made", str(error)) from error


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


#: Hounsfield units of black and white in the phantom's CT (a brain window), and of the air around it.
HOUNSFIELD = (0.0, 80.0, -1000.0)


def make_phantom(
    folder: Path, modality: str = "ct", slices: int = 24, size: int = 128, seed: int = 0, *, overwrite: bool = False
) -> list[Path]:
    """Write a rendered head as NIfTI files and as DICOM series: the modality's and the MRI's; return the four paths.

    CT is in Hounsfield units, MRI in units of its own, PET and SPECT in pseudo-colour. Raises DDFMError.
    """
    volume = phantom_volume((slices, size, size), seed, modality)
    _make(folder)
    common: dict[str, Any] = {"PatientID": "PHANTOM", "PatientName": "PHANTOM^RENDERED"}
    for tag in ("FrameOfReferenceUID", "StudyInstanceUID"):
        common[tag] = pydicom_or_error().uid.generate_uid(None)
    written = []
    for name, values in ((modality, _samples(volume, modality)), ("mri", _whole(1000 * volume.mri))):
        array = ArrayVolume(values, _geometry(volume), name)
        written.append(folder / f"{name}.nii.gz")
        write_bytes(written[-1], encode_nifti(array, packed=True), overwrite=overwrite)
        written.append(folder / name)
        _write_series(written[-1], array, common | {"Modality": _MODALITIES[name]}, overwrite)
    return written


_MODALITIES = {"ct": "CT", "mri": "MR", "pet": "PT", "spect": "NM"}


def _samples(volume: PhantomVolume, modality: str) -> np.ndarray:
    """CT as int16 Hounsfield units (K, H, W), or pseudo-colour in [0, 1] (K, H, W, 3)."""
    if modality != "ct":
        return np.rint(volume.functional * 255).astype(np.float32) / 255
    low, high, air = HOUNSFIELD
    return _whole(np.where(volume.clean_functional > 0, low + volume.functional * (high - low), air))


def _whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int16)


def _geometry(volume: PhantomVolume) -> Geometry:
    """Axial slices upwards, as a radiologist sees them: the patient's left at the right of the picture."""
    down, rows, columns = volume.spacing
    slices, height, width = volume.mri.shape
    affine = np.diag([-columns, -rows, down, 1.0])
    affine[:3, 3] = columns * (width - 1) / 2, rows * (height - 1) / 2, 0
    return Geometry((width, height, slices), affine)


def _write_series(folder: Path, array: ArrayVolume, tags: dict[str, Any], overwrite: bool) -> None:
    """As 16-bit samples with a rescale slope and intercept that give the values back, or as RGB."""
    low, span, depth = 0.0, 1.0, 8
    if not array.is_color:  # whole units: one step of a sample is one
        low, span, depth = float(array.samples.min()), 65535.0, 16
        tags = tags | {"RescaleSlope": 1, "RescaleIntercept": low, "RescaleType": "HU" if low < 0 else "US"}
        ends = HOUNSFIELD[:2] if low < 0 else (0, 1000)
        tags |= {"WindowCenter": sum(ends) / 2, "WindowWidth": ends[1] - ends[0], "VOILUTFunction": "LINEAR_EXACT"}
    origin = Origin([array], "rendered by ddfm", "RENDERED PHANTOM", tags=tags)
    with writing_volume(
        folder, array, color=array.is_color, bit_depth=depth, overwrite=overwrite, origin=origin
    ) as write:
        for k in range(array.geometry.shape[2]):
            write((array.slice(k) - low) / span)
