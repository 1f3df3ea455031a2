"""Registration of real pairs: is a known transform found again, which measure finds it, and are wrong pairs refused.

Three questions, each a part of the file that is written:

recovery   Of every pair the middle 80 % of the reference is kept, and the moving picture is resampled by a random
           transform whose corners move by 5, 15 or 30 pixels in the mean. What is found is compared
           with that transform put on top of what is found for the pair left as it is: development pairs are
           not perfectly registered themselves, and how far off they are (``own``) is a result too. ``error``: mean
           distance of the four corners, pixels. ``trusted``: what ``ddfm.registration`` says of it. ``judged``: of
           those the ones whose untouched pair is trusted too, without which there is nothing to compare with.
measures   The same at 15 pixels by other measures: ``magnitude``, the same search on gradient magnitudes alone,
           and ``mutual``, Mattes' mutual information by SimpleITK (32 bins, 4 resolutions, regular step gradient
           descent, translation first); beside them ``orientation``, ours. Translation and affine.
wrong      Pictures of different scenes of one data set, each with the next ones: how many are trusted.
finer      With --fine FOLDER, pairs whose reference is several times larger: the transform from there to the small
           infrared picture, against the one from there to the small visible picture of the same pair in PAIRS,
           which is a registration within one modality.

    python benchmarks/align.py PAIRS [--limit 8] [--parts recovery,measures,wrong,finer] [--fine FOLDER] [--output FILE]
    python benchmarks/align.py PAIRS --limit 1 --parts wrong --output quick.json   # a minute, to see that it runs

A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from _common import RESULTS, check_output, data_sets, errors_teach, positive, provenance, write_json
from ddfm._checks import DDFMError, problem
from ddfm.io import read_image
from ddfm.registration import estimate, resizing, search
from ddfm.registration.transform import corner_error, corner_points
from ddfm.registration.warping import luma

MAGNITUDES = (5, 15, 30)
KINDS = ("translation", "affine", "homography")
PARTS = ("recovery", "measures", "wrong", "finer")
INSET = 0.1
WRONG = 2


def random_transform(kind: str, size: float, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A 3x3 matrix of the kind that moves the corners of a picture by ``size`` pixels in the mean."""
    import cv2

    if size == 0:
        return np.eye(3)
    corners, centre = corner_points(shape), (np.array(shape[::-1]) - 1) / 2
    matrix = np.eye(3)
    if kind == "translation":
        angle = rng.uniform(0, 2 * np.pi)
        matrix[:2, 2] = size * np.array([np.cos(angle), np.sin(angle)])
        return matrix
    if kind == "affine":
        linear = rng.normal(size=(2, 2)) / np.hypot(*centre)
        change = np.column_stack([linear, rng.normal(size=2) - linear @ centre])
        moved = corners @ change[:, :2].T + change[:, 2]
        matrix[:2] += change * (size / np.hypot(*moved.T).mean())
        return matrix
    offsets = rng.normal(size=(4, 2))
    offsets *= size / np.hypot(*offsets.T).mean()
    found: np.ndarray = cv2.getPerspectiveTransform(np.float32(corners), np.float32(corners + offsets))
    return found


def displaced(moving: np.ndarray, fixed: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of both, the first resampled so that ``truth`` takes the second to it."""
    import cv2

    top, left = (round(side * INSET) for side in fixed.shape)
    height, width = fixed.shape[0] - 2 * top, fixed.shape[1] - 2 * left
    offset = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    matrix = offset @ np.linalg.inv(truth)
    shown = cv2.warpPerspective(moving, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.clip(shown, 0, 1), fixed[top : top + height, left : left + width]


# ---- the measures ---------------------------------------------------------------------------------


def by_orientation(moving: np.ndarray, fixed: np.ndarray, kind: str) -> np.ndarray:
    """Ours, trusted or not."""
    return np.array(resizing(moving.shape, fixed.shape)) @ search.search(moving, fixed, kind)[0]


def by_magnitude(moving: np.ndarray, fixed: np.ndarray, kind: str) -> np.ndarray:
    """The same search on the strength of edges alone."""
    full = search.fields

    def strength(picture: np.ndarray) -> np.ndarray:
        field = full(picture)
        field[..., 1:] = 0
        return field

    with mock.patch.object(search, "fields", strength):
        return by_orientation(moving, fixed, kind)


def by_mutual_information(moving: np.ndarray, fixed: np.ndarray, kind: str) -> np.ndarray:
    """Mattes' mutual information, from the mere resize."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    (mh, mw), (h, w) = moving.shape, fixed.shape
    reference, other = (sitk.GetImageFromArray(np.ascontiguousarray(x, np.float32)) for x in (fixed, moving))
    other.SetSpacing((w / mw, h / mh))
    other.SetOrigin(((w / mw - 1) / 2, (h / mh - 1) / 2))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([1.0, 1.0, 0.5, 0.25], 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 150, 0.6, 1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([8, 4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1, 0.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    shift = sitk.TranslationTransform(2)
    method.SetInitialTransform(shift, inPlace=True)
    method.Execute(reference, other)
    matrix = np.eye(3)
    matrix[:2, 2] = shift.GetOffset()
    if kind == "affine":
        affine = sitk.AffineTransform(2)
        affine.SetCenter(((w - 1) / 2, (h - 1) / 2))
        affine.SetTranslation(shift.GetOffset())
        method.SetInitialTransform(affine, inPlace=True)
        method.Execute(reference, other)
        linear, centre = np.array(affine.GetMatrix()).reshape(2, 2), np.array(affine.GetCenter())
        matrix[:2, :2] = linear
        matrix[:2, 2] = np.array(affine.GetTranslation()) + centre - linear @ centre
    return np.array(resizing(moving.shape, fixed.shape)) @ matrix


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, str], np.ndarray]] = {
    "orientation": by_orientation,
    "magnitude": by_magnitude,
    "mutual": by_mutual_information,
}


# ---- the parts ------------------------------------------------------------------------------------


def pairs_of(root: Path, limit: int) -> Iterator[tuple[str, list[tuple[str, Path, Path]]]]:
    """Data set and its pairs as (stem, moving, reference)."""
    for data in data_sets(root):
        yield data.name, [(stem, *files) for stem, files in list(data.pairs.items())[:limit]]


def alike(root: Path, limit: int) -> Iterator[tuple[str, list[tuple[str, Path, Path]]]]:
    """As ``pairs_of``, the data sets whose pairs have one size: what is put on them is meant in their pixels."""
    for name, pairs in pairs_of(root, limit):
        if all(opened(a).shape == opened(b).shape for _, a, b in pairs):
            yield name, pairs


def opened(path: Path) -> np.ndarray:
    """Luma, float32."""
    return np.ascontiguousarray(luma(read_image(path).data))


def judged(moving: np.ndarray, fixed: np.ndarray, kind: str) -> tuple[np.ndarray | None, dict[str, Any]]:
    """What ``ddfm.registration.estimate`` says: the matrix, or None, and what goes into the record."""
    begun = time.perf_counter()
    try:
        found = estimate(moving, fixed, kind)
    except DDFMError as error:
        return None, {"trusted": False, "reason": str(error)[:160], "seconds": round(time.perf_counter() - begun, 2)}
    evidence = found.plain()["evidence"]
    return found.array, {"trusted": True, **evidence, "seconds": round(time.perf_counter() - begun, 2)}


def recovery(book: Book, root: Path, limit: int) -> None:
    """Known transforms, ours."""
    for name, pairs in alike(root, limit):
        for number, (stem, a, b) in enumerate(pairs):
            moving, fixed = opened(a), opened(b)
            for kind in KINDS:
                middle = displaced(moving, fixed, np.eye(3))
                if not book.has(key := ["own", name, stem, kind]):
                    book.add(key, judged(*middle, kind)[1])
                todo = [size for size in MAGNITUDES if not book.has(["recovery", name, stem, kind, size])]
                if not todo:
                    continue
                own, shape = by_orientation(*middle, kind), middle[1].shape
                for size in todo:
                    truth = random_transform(kind, size, shape, np.random.default_rng([number, size]))
                    m, f = displaced(moving, fixed, truth)
                    matrix, record = judged(m, f, kind)
                    if matrix is not None:
                        record |= {
                            "error": round(corner_error(matrix, truth @ own, shape), 3),
                            "own": round(corner_error(own, np.eye(3), shape), 3),
                        }
                    book.add(["recovery", name, stem, kind, size], record)


def measures(book: Book, root: Path, limit: int) -> None:
    """Known transforms, by each measure, trusted or not."""
    for name, pairs in alike(root, limit):
        for number, (stem, a, b) in enumerate(pairs):
            moving, fixed = opened(a), opened(b)
            for kind in KINDS[:2]:
                for measure, find in MEASURES.items():
                    if book.has(key := ["measures", name, stem, kind, measure]):
                        continue
                    m, f = displaced(moving, fixed, np.eye(3))
                    truth = random_transform(kind, 15, f.shape, np.random.default_rng([number, 15]))
                    try:
                        own, found = find(m, f, kind), find(*displaced(moving, fixed, truth), kind)
                        error = round(corner_error(found, truth @ own, f.shape), 3)
                        own_error = round(corner_error(own, np.eye(3), f.shape), 3)
                    except RuntimeError as failure:  # SimpleITK: all samples map outside
                        error, own_error = float("inf"), float("inf")
                        print(f"{key}: {str(failure).splitlines()[-1]}", file=sys.stderr)
                    book.add(key, {"error": error, "own": own_error})


def wrong(book: Book, root: Path, limit: int) -> None:
    """Scenes that do not belong together."""
    for name, pairs in alike(root, limit):
        for number, (stem, a, _) in enumerate(pairs):
            for further in range(1, min(WRONG, len(pairs) - 1) + 1):
                other, _, b = pairs[(number + further) % len(pairs)]
                for kind in KINDS:
                    if not book.has(key := ["wrong", name, f"{stem} on {other}", kind]):
                        book.add(key, judged(opened(a), opened(b), kind)[1])


def finer(book: Book, root: Path, fine: Path) -> None:
    """A reference of several times the size, against registration within one modality."""
    ((_, large),) = pairs_of(fine, 99)
    small = {stem: (a, b) for _, pairs in alike(root, 999) for stem, a, b in pairs}
    for stem, infrared, visible in large:
        if book.has(key := ["finer", stem]) or stem not in small:
            continue
        fixed = opened(visible)
        within = estimate(opened(small[stem][1]), fixed, "affine")
        across, record = judged(opened(infrared), fixed, "affine")
        if across is not None:
            record["error"] = round(corner_error(across, within.array, fixed.shape), 3)
            plain = np.array(resizing(opened(infrared).shape, fixed.shape))
            record["resize_error"] = round(corner_error(plain, within.array, fixed.shape), 3)
        book.add(key, record)


# ---- the file -------------------------------------------------------------------------------------


class Book:
    """Records as they come, kept in the output file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        old = json.loads(path.read_text()) if path.exists() else {}
        self.records: list[dict[str, Any]] = old.get("records", [])
        self._known = {json.dumps(record["key"]) for record in self.records}

    def has(self, key: list[Any]) -> bool:
        return json.dumps(key) in self._known

    def add(self, key: list[Any], record: dict[str, Any]) -> None:
        self.records.append({"key": key, **record})
        self._known.add(json.dumps(key))
        print(*key, {k: record[k] for k in ("trusted", "error", "own") if k in record}, flush=True)
        write_json(self.path, {**provenance(["opencv-python-headless", "SimpleITK"]), **self.summary()})

    def summary(self) -> dict[str, Any]:
        """The tables of docs/align.md, and all records."""
        return {
            "recovery": self._recovery(),
            "measures": self._measures(),
            "wrong": self._wrong(),
            "finer": [record for record in self.records if record["key"][0] == "finer"],
            "records": self.records,
        }

    def _of(self, part: str, *columns: int) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for record in self.records:
            if record["key"][0] == part:
                groups.setdefault(tuple(record["key"][c] for c in columns), []).append(record)
        return groups

    def _recovery(self) -> list[dict[str, Any]]:
        rows = []
        known = {tuple(r["key"][1:]) for r in self.records if r["key"][0] == "own" and r["trusted"]}
        for (name, kind, size), records in self._of("recovery", 1, 3, 4).items():
            trusted = [record for record in records if record["trusted"]]
            judged = [record for record in trusted if tuple(record["key"][1:4]) in known]
            errors = [record["error"] for record in judged]
            row = {"data": name, "kind": kind, "moved": size, "pairs": len(records), "trusted": len(trusted)}
            row["judged"] = len(judged)
            if errors:
                row |= {
                    "median": round(statistics.median(errors), 3),
                    "worst": max(errors),
                    "below_1": sum(error < 1 for error in errors),
                    "own": round(statistics.median(record["own"] for record in judged), 2),
                }
            rows.append(row)
        return rows

    def _measures(self) -> list[dict[str, Any]]:
        return [
            {
                "data": name,
                "kind": kind,
                "measure": measure,
                "pairs": len(records),
                "below_1": sum(record["error"] < 1 for record in records),
                "median": round(statistics.median(record["error"] for record in records), 3),
            }
            for (name, kind, measure), records in self._of("measures", 1, 3, 4).items()
        ]

    def _wrong(self) -> list[dict[str, Any]]:
        return [
            {"data": name, "kind": kind, "pairs": len(records), "trusted": sum(r["trusted"] for r in records)}
            for (name, kind), records in self._of("wrong", 1, 3).items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--limit", type=positive, default=8, help="pairs of each data set")
    parser.add_argument("--parts", default=",".join(PARTS[:3]))
    parser.add_argument("--fine", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "align.json")
    arguments = parser.parse_args()
    with errors_teach("what was measured is kept; give the command again to go on"):
        parts = arguments.parts.split(",")
        if unknown := sorted(set(parts) - set(PARTS)):
            raise problem("--parts", unknown, f"some of {', '.join(PARTS)}")
        if "finer" in parts and not arguments.fine:
            raise problem("--fine", "nothing", "the folder of pairs with a larger reference")
        book = Book(check_output(arguments.output))
        for part, run in (("recovery", recovery), ("measures", measures), ("wrong", wrong)):
            if part in parts:
                run(book, arguments.pairs, arguments.limit)
        if "finer" in parts:
            finer(book, arguments.pairs, arguments.fine)


if __name__ == "__main__":
    main()
