"""Fusing volumes: windows to grey, one grid, slice after slice with what ``SceneFuser`` learned from all of them.

A window is linear: grey = (value - low) / (high - low), clipped to [0, 1], 1 - grey for MONOCHROME1; one for the whole
volume, never one a slice. Voxels without a value (NaN, padding, outside after resampling) are black. Reports identify
sources by checksums: paths and what headers say of a patient are in none of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfm._checks import DDFMError, DDFMWarning, problem
from ddfm._provenance import now, versions
from ddfm.fusion import Fuser
from ddfm.io import file_sha256
from ddfm.io.dicom import DicomVolume
from ddfm.io.medical import Origin, check_output, read_volume, writing_volume
from ddfm.io.regrid import Regridded, regrid
from ddfm.io.tags import term
from ddfm.io.volume import FUSED_LABEL, Volume, check_one_grid
from ddfm.pipeline import MIN_SIZE
from ddfm.sequence import SceneFuser

__all__ = ["Survey", "Window", "fuse_volumes", "open_volumes", "parse_windows", "survey"]

#: Quantiles of the whole volume that an automatic window makes black and white.
ENDS = (0.001, 0.999)
#: Voxels, at most, that these are taken from.
SAMPLE_VOXELS = 1 << 22
#: Slices, at most, that levels and scales are learned from.
SAMPLE_SLICES = 16
#: An automatic window from here down is told: air in Hounsfield units is -1000, and nothing in an MRI or PET is.
AIR = -500.0
#: A window as asked for: values to be black and white, or "file" or "auto".
WindowChoice = tuple[float, float] | str


@dataclasses.dataclass(frozen=True)
class Window:
    """Values that become black and white. source: where they come from, for the report."""

    low: float
    high: float
    inverted: bool
    source: str

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Float32 in [0, 1] of values of any shape; NaN becomes 0."""
        grey = np.clip((values.astype(np.float64) - self.low) / (self.high - self.low), 0, 1)
        return np.nan_to_num(1 - grey if self.inverted else grey, nan=0.0).astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """For the report."""
        grey = "1 - (value - low) / (high - low)" if self.inverted else "(value - low) / (high - low)"
        return {"low": self.low, "high": self.high, "source": self.source, "grey": f"{grey}, clipped to [0, 1]"}


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over a volume finds. ``lows``, ``highs``: (K,) ends of each slice, NaN where it has no value.

    ends: quantiles ``ENDS`` of the volume. missing: share of voxels without a value.
    """

    lows: np.ndarray
    highs: np.ndarray
    ends: tuple[float, float]
    missing: float


def parse_windows(text: str | None, count: int) -> list[WindowChoice]:
    """Windows as text: "C:W" (center and width, in the file's units), "file" or "auto"; one, or one for each source.

    None: "file", which is "auto" where the file states no window. Raises DDFMError.
    """
    words = [word.strip().lower() for word in (text or "file").split(",")]
    if len(words) not in (1, count):
        raise problem("--window", f"{len(words)} windows", f"one, or {count}, one for each source")
    return [_parse_window(word) for word in words] * (count if len(words) == 1 else 1)


def _parse_window(word: str) -> WindowChoice:
    if word in ("file", "auto"):
        return word
    try:
        center, width = map(float, word.split(":"))
    except ValueError:
        raise problem("--window", repr(word), "center:width such as 40:80, or file, or auto") from None
    if not (math.isfinite(center) and math.isfinite(width) and width > 0):
        raise problem("--window", repr(word), "a width above 0")
    return center - width / 2, center + width / 2


def open_volumes(paths: Sequence[Path], series: str | None = None) -> list[Volume]:
    """The sources. series: SeriesInstanceUIDs, one for all folders of several series, or one a source, by commas."""
    uids = [uid.strip() or None for uid in series.split(",")] if series else [None]
    if len(uids) not in (1, len(paths)):
        raise problem("--series", f"{len(uids)} UIDs", f"one, or {len(paths)}, one for each source (may be empty)")
    uids *= len(paths) if len(uids) == 1 else 1
    return [read_volume(path, uid) for path, uid in zip(paths, uids, strict=True)]


def survey(volume: Volume) -> Survey:
    """One pass over all slices, which also finds what cannot be read before any work. Raises DDFMError."""
    count = volume.geometry.shape[2]
    step = math.ceil(math.sqrt(math.prod(volume.geometry.shape) / SAMPLE_VOXELS))
    lows, highs = np.full(count, np.nan), np.full(count, np.nan)
    sample, missing = [], 0.0
    for k in range(count):
        values = volume.slice(k)
        known = np.isfinite(values)
        missing += 1 - float(known.mean())
        if known.any():
            lows[k], highs[k] = values[known].min(), values[known].max()
        part = values[::step, ::step]
        sample.append(part[np.isfinite(part)])
    if np.isnan(lows).all():
        if isinstance(volume, Regridded):
            raise problem(volume.name, "a volume that lies wholly outside the last one", "volumes of one place")
        raise problem(volume.name, "no voxel with a value", "numbers", "NaN and padding do not count.")
    pooled = np.concatenate(sample)
    pooled = pooled if pooled.size else np.array([np.nanmin(lows), np.nanmax(highs)])
    low, high = np.quantile(pooled, ENDS)
    return Survey(lows, highs, (float(low), float(high)), missing / count)


def settle_window(volume: Volume, found: Survey, choice: WindowChoice) -> Window:
    """The window of a grey volume; RGB keeps its levels. Raises DDFMError for a window given for RGB."""
    if volume.is_color:
        if not isinstance(choice, str):
            raise problem("--window", f"a window for {volume.name}, which is RGB", "file or auto for it")
        return Window(0.0, 1.0, False, "RGB, as it is")
    if not isinstance(choice, str):
        return Window(*choice, volume.inverted, "given")
    if choice == "file" and volume.window:
        return Window(*volume.window, volume.inverted, "file")
    low, high = found.ends
    told = f"quantiles {ENDS[0]:g} and {ENDS[1]:g} of the volume"
    if high <= low:  # hardly anything but one value
        low, high, told = float(np.nanmin(found.lows)), float(np.nanmax(found.highs)), "least and greatest value"
    if high <= low:
        raise problem(volume.name, f"{low:g} everywhere", "a volume with something in it")
    return Window(low, high, volume.inverted, told)


def fuse_volumes(
    volumes: Sequence[Volume],
    output: Path,
    fuser: Fuser,
    *,
    windows: Sequence[WindowChoice] | None = None,
    resample: bool = False,
    keep_patient: bool = False,
    overwrite: bool = False,
    on_slice: Callable[[int, int], Any] | None = None,
) -> dict[str, Any]:
    """Fuse two or more volumes on one grid, the functional or CT one first, into ``output``; return the report.

    NIfTI if the output's name ends so, else a DICOM series (the last source must be DICOM then); both on the last
    source's grid. windows: one for each volume, see ``parse_windows``; None: as the files say. resample: put the others
    onto that grid by their headers' positions. keep_patient: copy the last source's patient and study into DICOM.
    ``on_slice(done, of)`` is called after each slice. Memory holds a few slices, the samples of .nii.gz, and all of
    what is resampled. Raises DDFMError; the output is whole or not there.
    """
    begun = time.perf_counter()
    windows = windows or parse_windows(None, len(volumes))
    if len(windows) != len(volumes):
        raise problem("windows", f"{len(windows)}", f"{len(volumes)}, one for each volume")
    work = _Work(volumes, fuser, windows, resample)
    color, bits = any(volume.is_color for volume in volumes), fuser.config.bit_depth
    check_output(output, volumes, color=color, bit_depth=bits, keep_patient=keep_patient)
    text = f"ddfm {versions()['ddfm']}, {fuser.preset.label}: fusion of {len(volumes)} volumes"
    origin = Origin(volumes, text, keep_patient=keep_patient)
    with writing_volume(
        output, volumes[-1], color=color, bit_depth=bits, overwrite=overwrite, origin=origin
    ) as write:  # an output that cannot be is refused here, before any work
        work.prepare()
        for k, fused in enumerate(work.fused()):
            write(np.repeat(fused[..., None], 3, -1) if color and fused.ndim == 2 else fused)
            if on_slice:
                on_slice(k + 1, work.count)
    seconds = round(time.perf_counter() - begun, 3)
    return work.report() | {
        "output": output.name or output.absolute().name,
        "output_sha256": _sha256(output),
        "seconds": seconds,
    }


class _Work:
    """One fusion of volumes."""

    def __init__(
        self, volumes: Sequence[Volume], fuser: Fuser, choices: Sequence[WindowChoice], resample: bool
    ) -> None:
        fuser.config.check_count(len(volumes))
        if len(volumes) < 2:
            raise problem("sources", f"{len(volumes)} volume", "two or more")
        self.originals, self.fuser, self.choices = volumes, fuser, choices
        self.notes = [f"source {n}: {note}" for n, volume in enumerate(volumes, 1) for note in volume.notes]
        self.notes += _identity_notes(volumes)
        self.volumes = list(volumes)
        if resample:
            self._resample()
        self.notes += check_one_grid(self.volumes)
        columns, rows, self.count = self.volumes[-1].geometry.shape
        if min(columns, rows) < MIN_SIZE:
            raise problem("sources", f"slices of {columns}x{rows}", f"{MIN_SIZE}x{MIN_SIZE} voxels or more")

    def _resample(self) -> None:
        """Onto the last one's grid, those that do not lie on it."""
        grid = self.volumes[-1].geometry
        for n, volume in enumerate(self.volumes[:-1]):
            try:
                check_one_grid([volume, self.volumes[-1]])
            except DDFMError:
                self.volumes[n] = regrid(volume, grid)

    def prepare(self) -> None:
        """Read everything once: windows, black slices, what levels and scales are learned from."""
        self.surveys = [survey(volume) for volume in self.volumes]
        self.windows = [
            settle_window(volume, found, choice)
            for volume, found, choice in zip(self.volumes, self.surveys, self.choices, strict=True)
        ]
        for n, (volume, found) in enumerate(zip(self.volumes, self.surveys, strict=True), 1):
            if found.missing:
                what = "outside the source" if isinstance(volume, Regridded) else "without a value (NaN or padding)"
                self.notes.append(f"source {n}: {found.missing:.1%} of the voxels are {what} and count as black")
        self.notes += [
            f"source {n}: its values look like Hounsfield units, shown from {window.low:.0f} to {window.high:.0f}; "
            "for the brain say --window 40:80, for soft tissue 40:400"
            for n, window in enumerate(self.windows, 1)
            if window.low <= AIR and window.source.startswith("quantiles")
        ]
        lit = [k for k in range(self.count) if any(self._lit(n, k) for n in range(len(self.volumes)))]
        if not lit:
            raise problem("--window", "every slice black in every source", "windows that show something")
        self.lit = frozenset(lit)
        if len(lit) < self.count:
            self.notes.append(f"{self.count - len(lit)} of {self.count} slices are black in all sources and the result")
        chosen = [lit[round(n)] for n in np.linspace(0, len(lit) - 1, min(SAMPLE_SLICES, len(lit)))]
        self.scene = SceneFuser(self.fuser, memory=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DDFMWarning)  # what is the same in both sources is told for the volume
            self.scene.learn([self._grey(k) for k in dict.fromkeys(chosen)])

    def _lit(self, n: int, k: int) -> bool:
        window, low, high = self.windows[n], self.surveys[n].lows[k], self.surveys[n].highs[k]
        return bool(low < window.high if window.inverted else high > window.low)  # NaN is black

    def _grey(self, k: int) -> tuple[np.ndarray, ...]:
        """Slice ``k`` of each source, float32 in [0, 1]."""
        planes = [volume.slice(k) for volume in self.volumes]
        return tuple(
            np.nan_to_num(plane.clip(0, 1), nan=0.0) if volume.is_color else window.grey(plane)
            for plane, volume, window in zip(planes, self.volumes, self.windows, strict=True)
        )

    def fused(self) -> Iterator[np.ndarray]:
        """The slices in order, float32 (J, I) or (J, I, 3) in [0, 1]."""
        columns, rows, count = self.volumes[-1].geometry.shape
        alike = True
        for k in range(count):
            if k not in self.lit:
                yield np.zeros((rows, columns), np.float32)
                continue
            planes = self._grey(k)
            alike = alike and all(np.array_equal(planes[0], plane) for plane in planes[1:])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DDFMWarning)
                fused = self.scene.fuse(*planes)
            yield fused
        if alike:
            self.notes.append("the sources are the same volume")

    def report(self) -> dict[str, Any]:
        """As ``Fused.report``, with the volumes' geometry and windows; without names."""
        noise = {"noise_std": [round(value, 5) for value in self.scene.noise]} if any(self.scene.noise) else {}
        return {
            "tool": "ddfm",
            "time": now(),
            "status": "fused",
            "label": FUSED_LABEL,
            "inputs": [self._describe(n) for n in range(len(self.volumes))],
            **self.fuser.settings,
            "versions": versions(),
            "warnings": self.notes,
            "grid": self.volumes[-1].geometry.describe(),
            "slices": self.count,
            **noise,
        }

    def _describe(self, n: int) -> dict[str, Any]:
        original, found = self.originals[n], self.surveys[n]
        resampled = self.volumes[n] is not original
        return {
            "sha256": original.sha256(),
            "format": original.kind,
            "color": original.is_color,
            **original.geometry.describe(),
            "window": self.windows[n].describe(),
            "resampled": "linear" if resampled else None,
            "outside" if resampled else "without_value": round(found.missing, 6),
        }


def _identity_notes(volumes: Sequence[Volume]) -> list[str]:
    """What headers say against fusing these, without what they say."""
    heads = [volume.head for volume in volumes if isinstance(volume, DicomVolume)]
    notes = []
    for tag, told in (
        ("PatientID", "the sources' PatientID differ: are they of one patient?"),
        ("FrameOfReferenceUID", "the sources' frames of reference differ: nothing in them says that they line up"),
    ):
        if len({term(head, tag) for head in heads} - {""}) > 1:
            notes.append(told)
    if any(volume.burned_in for volume in volumes):
        notes.append("a source says that annotations are burned into its pixels; the result may show them")
    return notes


def _sha256(output: Path) -> str:
    """Of a file, or of the checksums of a folder's files in order."""
    if output.is_file():
        return file_sha256(output)
    parts = "".join(file_sha256(path) for path in sorted(output.iterdir()))
    return hashlib.sha256(parts.encode()).hexdigest()
