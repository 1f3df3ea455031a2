"""Pairs of images: two folders, the public data sets as published, and what can be wrong with them.

A pair is (A, B): A infrared, or CT, PET, SPECT; B visible, or MRI. The data sets are not ours to pass on:
``DATASETS`` says where each comes from and in which layout it is understood.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfm._checks import DDFMError, problem
from ddfm.io import SUFFIXES, Image, file_sha256, list_images, read_image

__all__ = [
    "DATASETS",
    "Finding",
    "KnownDataset",
    "PairedData",
    "by_stem",
    "check_pairs",
    "find_known",
    "find_pairs",
    "is_scan",
    "pairs_sha256",
]

Pair = tuple[Path, Path]


# ---- known data sets ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class KnownDataset:
    """A public data set: what it is, where it comes from, and its layouts.

    layouts: pairs of folders (A, B) below the root, as published; the same file stems in both. prefixes: of layouts
    where both files lie in one folder and differ by a prefix (TNO: ``IR_x.bmp``, ``VIS_x.bmp``), at any depth.
    """

    name: str
    what: str
    source: str
    terms: str
    layouts: tuple[tuple[str, str], ...]
    prefixes: tuple[tuple[str, str], ...] = ()


_MED = "https://github.com/xianming-gu/Havard-Medical-Image-Fusion-Datasets"


def _harvard(kind: str) -> KnownDataset:
    top = f"{kind}-MRI"
    layouts = tuple(
        (f"{base}{part}{kind}", f"{base}{part}MRI")
        for base in (f"{top}/", f"MyDatasets/{top}/", f"Havard-Medical-Image-Fusion-Datasets-main/{top}/")
        for part in ("test/", "train/", "")
    )
    what = f"{kind} with MRI of the brain, 256x256"
    terms = "Harvard Whole Brain Atlas; see www.med.harvard.edu/AANLIB"
    return KnownDataset(f"harvard-{kind.lower()}", what, _MED, terms, layouts)


DATASETS: dict[str, KnownDataset] = {
    entry.name: entry
    for entry in (
        KnownDataset(
            "tno",
            "thermal and visible, military scenes, grey, up to 768x576",
            "https://figshare.com/articles/dataset/TNO_Image_Fusion_Dataset/1008029",
            "CC BY-NC 3.0",
            (("ir", "vi"), ("IR", "VIS"), ("Infrared", "Visible")),
            (("IR", "VIS"), ("ir", "vi"), ("ir", "vis")),
        ),
        KnownDataset(
            "roadscene",
            "thermal grey and visible colour, driving, about 500x300, 221 pairs",
            "https://github.com/hanna-xu/RoadScene",
            "research use",
            (("cropinfrared", "crop_LR_visible"), ("cropinfrared", "crop_HR_visible"), ("ir", "vi")),
        ),
        KnownDataset(
            "msrs",
            "thermal grey and visible colour, streets by day and night, 640x480, 1444 pairs",
            "https://github.com/Linfeng-Tang/MSRS",
            "research use",
            (("test/ir", "test/vi"), ("train/ir", "train/vi"), ("detection/ir", "detection/vi"), ("ir", "vi")),
        ),
        KnownDataset(
            "m3fd",
            "thermal and visible, streets, campus, smoke, 1024x768; 300 pairs for fusion",
            "https://github.com/JinyuanLiu-CV/TarDAL",
            "research use",
            (
                ("M3FD_Fusion/Ir", "M3FD_Fusion/Vis"),
                ("M3FD_Detection/Ir", "M3FD_Detection/Vis"),
                ("Ir", "Vis"),
                ("ir", "vi"),
            ),
        ),
        KnownDataset(
            "llvip",
            "thermal and visible, pedestrians at night, 1280x1024, 15488 pairs",
            "https://bupt-ai-cz.github.io/LLVIP",
            "research use, see its page",
            (("infrared/test", "visible/test"), ("infrared/train", "visible/train"), ("infrared", "visible")),
        ),
        _harvard("CT"),
        _harvard("PET"),
        _harvard("SPECT"),
    )
}

#: Names of a folder of A and of B in "any two folders", lower case, the first match wins.
_SCANS = ("ct", "pet", "spect")
_ANY_A = ("ir", "infrared", "thermal", "lwir", *_SCANS)
_ANY_B = ("vi", "vis", "visible", "rgb", "mri", "mr")


# ---- finding pairs --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairedData:
    """The pairs of one data set.

    name: for tables; roles: names of A and B; pairs: stem -> (A, B), sorted; unmatched: files left out;
    notes: what else is there and was not taken.
    """

    name: str
    roles: tuple[str, str]
    pairs: Mapping[str, Pair]
    unmatched: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def medical(self) -> bool:
        """Whether the folder of A says that these are scans."""
        return Path(self.roles[0]).name.lower() in _SCANS

    @classmethod
    def from_folders(cls, a: Path, b: Path, name: str = "") -> PairedData:
        """Pairs of two folders by file stem. Raises DDFMError if they have none in common."""
        tables = by_stem(a), by_stem(b)
        common = sorted(tables[0].keys() & tables[1].keys())
        if not common:
            raise problem(f"{a}, {b}", "no file stem in both", "pairs of images with the same names")
        left = tuple(t[stem] for t in tables for stem in sorted(t.keys() - set(common)))
        return cls(name or a.parent.name, (a.name, b.name), {s: (tables[0][s], tables[1][s]) for s in common}, left)


def is_scan(path: Path) -> bool:
    """Whether the name of a file or of its folder says CT, PET or SPECT, as a word of its own."""
    words = re.split(r"[^a-z]+", f"{path.parent.name} {path.stem}".lower())
    return any(word in _SCANS for word in words)


def find_known(root: Path, name: str) -> tuple[Path, PairedData | DDFMError] | None:
    """A copy of data set ``name`` in a folder of ``root`` called like it; its pairs, or what is wrong with it."""
    calls = {name, name.replace("harvard-", "mri-"), f"{name.removeprefix('harvard-')}-mri"}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if any(folder.name.lower().startswith(call) for call in calls):
            try:
                try:
                    return folder, find_pairs(folder, name)
                except DDFMError:
                    return folder, find_pairs(folder)
            except DDFMError as error:
                return folder, error
    return None


def find_pairs(root: Path, known: str | None = None) -> PairedData:
    """The pairs below ``root``, in the layout of data set ``known``, or of any that fits.

    Without ``known`` the root may also hold any two folders named as roles usually are (ir, infrared, thermal, ct, pet,
    spect; vi, vis, visible, rgb, mri). Raises DDFMError saying what was looked for.
    """
    if not root.is_dir():
        raise problem(str(root), "a file" if root.exists() else "no such folder", "the folder of a data set")
    if known:
        found = _known_pairs(root, DATASETS[known])
    else:
        found = _any_pairs(root) or next(filter(None, (_known_pairs(root, d) for d in DATASETS.values())), None)
    if found is None:
        wanted = [f"{a} + {b}" for a, b in DATASETS[known].layouts] if known else [f"{_ANY_A[0]} + {_ANY_B[0]}"]
        remedy = "`ddfm data list` shows every layout."
        raise problem(str(root), "no pairs", f"folders {' or '.join(wanted[:6])} with the same file names", remedy)
    return found


def _known_pairs(root: Path, known: KnownDataset) -> PairedData | None:
    present = [(a, b) for a, b in known.layouts if _has_images(root / a) and _has_images(root / b)]
    if present:
        (a, b), *others = _distinct(root, present)
        notes = tuple(f"{x} + {y} in {root} is not part of it: name its folder" for x, y in others)
        found = PairedData.from_folders(root / a, root / b)
        return dataclasses.replace(found, name=root.resolve().name, notes=notes)
    for prefixes in known.prefixes:
        pairs = dict(_prefixed(root, prefixes))
        if pairs:
            return PairedData(root.resolve().name, prefixes, pairs)
    return None


def _distinct(root: Path, layouts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The layouts without those that are the same folders in another case (on file systems that do not tell)."""
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    for a, b in layouts:
        seen.setdefault(((root / a).stat().st_ino, (root / b).stat().st_ino), (a, b))
    return list(seen.values())


def _prefixed(root: Path, prefixes: tuple[str, str]) -> Iterator[tuple[str, Pair]]:
    """Pairs whose files differ by a prefix only, below ``root``; the name is made of folder and stem."""
    first, second = (f"{prefix}_" for prefix in prefixes)
    for path in sorted(root.rglob(f"{first}*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        rest = path.stem.removeprefix(first)
        # TNO's own names end in another letter for each sensor: IR_meting003_g.bmp, VIS_meting003_r.bmp
        candidates = [p for p in list_images(path.parent) if p.stem.startswith(second)]
        same = [p for p in candidates if p.stem.removeprefix(second) == rest]
        close = same or [p for p in candidates if p.stem.removeprefix(second)[:-2] == rest[:-2] != ""]
        if len(close) == 1:
            folder = path.parent.relative_to(root).as_posix().replace("/", "_")
            yield f"{folder}_{rest}".removeprefix("._"), (path, close[0])


def _any_pairs(root: Path) -> PairedData | None:
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    a = next((folders[name] for name in _ANY_A if name in folders and _has_images(folders[name])), None)
    b = next((folders[name] for name in _ANY_B if name in folders and _has_images(folders[name])), None)
    return PairedData.from_folders(a, b, root.resolve().name) if a and b else None


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(list_images(folder))


def by_stem(folder: Path) -> dict[str, Path]:
    """Images directly in a folder by file stem, sorted. Raises DDFMError for two files of one stem."""
    table: dict[str, Path] = {}
    for path in list_images(folder):
        if path.stem in table:
            raise problem(
                str(folder),
                f"{table[path.stem].name} and {path.name}",
                "one file for each stem",
                "Rename one.",
            )
        table[path.stem] = path
    return table


# ---- checking pairs -------------------------------------------------------------------------------

THUMBNAIL = 32  # pixels a side for the comparison of pairs
ALIKE = 0.999  # correlation of both thumbnails from which two pairs are the same scene at the same moment


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd, with a data set: kind, the names it concerns, and what it means."""

    kind: str
    names: tuple[str, ...]
    text: str


def check_pairs(data: PairedData, on_pair: Callable[[str], Any] = lambda name: None) -> list[Finding]:
    """Read every pair: unmatched and unreadable files, sizes, duplicates, near duplicates, swapped roles."""
    findings = [Finding("unmatched", (str(path),), "no partner in the other folder") for path in data.unmatched]
    thumbnails: dict[str, np.ndarray] = {}
    for name, pair in data.pairs.items():
        on_pair(name)
        try:
            images = read_image(pair[0]), read_image(pair[1])
        except DDFMError as error:
            findings.append(Finding("unreadable", (name,), str(error)))
            continue
        findings += _check_pair(name, images)
        thumbnails[name] = np.concatenate([_thumbnail(image) for image in images])
    return findings + _same_files(data) + _near_duplicates(thumbnails)


def _check_pair(name: str, images: tuple[Image, Image]) -> list[Finding]:
    a, b = images
    found = []
    if a.size != b.size:
        text = f"{a.size[1]}x{a.size[0]} and {b.size[1]}x{b.size[0]}: they must be registered before fusion"
        found.append(Finding("size", (name,), text))
    elif np.array_equal(a.data, b.data):
        found.append(Finding("same picture", (name,), "both roles hold the same pixels"))
    elif float(_thumbnail(a) @ _thumbnail(b)) > ALIKE:
        found.append(Finding("same picture", (name,), "both roles hold almost the same picture"))
    flat = [role for role, image in zip("AB", images, strict=True) if np.ptp(image.data) == 0]
    if flat:
        found.append(Finding("constant", (name,), f"nothing is to be seen in {' and '.join(flat)}"))
    if _colourful(a) and not _colourful(b) and not _pseudo(a):
        found.append(Finding("swapped", (name,), "the first is in natural colour and the second grey: roles swapped?"))
    return found


def _colourful(image: Image) -> bool:
    """More than 2 % of the pixels have channels that differ by more than 8 levels."""
    if not image.is_color:
        return False
    return bool((np.ptp(image.data, axis=2) > 8 / 255).mean() > 0.02)


def _pseudo(image: Image) -> bool:
    """Pseudo-colour on black, as PET and SPECT: saturated where it is not black."""
    spread, peak = np.ptp(image.data, axis=2), image.data.max(axis=2)
    lit = peak > 0.1
    return bool((peak < 0.04).mean() > 0.3 or (lit.any() and (spread[lit] / peak[lit]).mean() > 0.6))


def _same_files(data: PairedData) -> list[Finding]:
    """Files with the same bytes, within a role or across roles."""
    seen: dict[str, list[str]] = {}
    for name, pair in data.pairs.items():
        for role, path in zip(data.roles, pair, strict=True):
            if path.is_file():
                seen.setdefault(file_sha256(path), []).append(f"{role}/{name}")
    return [
        Finding("same file", tuple(names), "the same bytes under several names")
        for names in seen.values()
        if len(names) > 1
    ]


def _thumbnail(image: Image) -> np.ndarray:
    """(THUMBNAIL^2,) box means of the grey image, mean 0 and length 1 (0 for a flat image)."""
    grey = image.data if image.data.ndim == 2 else image.data.mean(axis=2)
    rows, columns = (np.linspace(0, size, THUMBNAIL + 1).astype(int) for size in grey.shape)
    sums = np.pad(grey.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    corners = sums[np.ix_(rows, columns)]
    area = np.maximum(np.outer(np.diff(rows), np.diff(columns)), 1)
    small = (np.diff(np.diff(corners, axis=0), axis=1) / area).ravel()
    small -= small.mean()
    length = np.linalg.norm(small)
    return small / length if length > 1e-9 else small


def _near_duplicates(thumbnails: Mapping[str, np.ndarray]) -> list[Finding]:
    """Pairs whose two thumbnails both correlate almost fully with another pair's."""
    names = list(thumbnails)
    if not names:
        return []
    table = np.stack([thumbnails[name] for name in names]).reshape(len(names), 2, -1)
    found = []
    for i in range(len(names) - 1):
        alike = (np.einsum("ks,nks->nk", table[i], table[i + 1 :]) > ALIKE).all(1)
        for j in np.flatnonzero(alike):
            found.append(Finding("near duplicate", (names[i], names[i + 1 + j]), "almost the same pair twice"))
    return found


def pairs_sha256(data: PairedData) -> str:
    """Checksum of all sources and their names: what a stored result was measured on."""
    digest = hashlib.sha256()
    for name, pair in data.pairs.items():
        digest.update(f"{name}:{file_sha256(pair[0])}:{file_sha256(pair[1])}\n".encode())
    return digest.hexdigest()
