"""A geometric transform between two pictures: what it is, where it is kept, what makes one impossible."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.io import write_bytes

__all__ = [
    "ALIGNS",
    "KINDS",
    "Evidence",
    "Transform",
    "encode_transforms",
    "load_transforms",
    "resizing",
    "save_transforms",
]

#: Kinds of transform. ``resize`` stretches the moving picture to the reference's size; the others come on top of it.
KINDS = ("resize", "translation", "affine", "homography")
ALIGNS = ("none", *KINDS)
#: The next simpler kind that is estimated too.
SIMPLER = {"affine": "translation", "homography": "affine"}
#: How far, in pixels of the moving picture, a matrix may put the picture beside what its kind allows: rounding by hand.
SLACK = 0.05
#: A kind with more freedom is worth it where so large a share of the blocks more agrees; it is of no matter where the
#: corners of the two lie within so many pixels.
GAIN, APART = 0.1, 1.0
#: Of the file: a change of what it means gives a new one.
VERSION = 1
MOST_BYTES = 1 << 20
#: A transform that leaves less of the reference covered, or changes areas more, is a mistake.
LEAST_INSIDE = 0.1
MOST_AREA = 16.0

Matrix = tuple[tuple[float, float, float], ...]
Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Why an estimate was trusted.

    similarity: correlation of the orientation fields with the transform, in [-1, 1]. before: the same with the mere
    resize. agree, blocks: how many of the picture's blocks fit best where the transform puts them, and of how many.
    luck: probability that as many do of unrelated pictures. return_error: pixels of the reference, mean over its
    corners, by which the transform and one estimated the other way round miss each other. simpler_agree: blocks that
    fit best where the next simpler kind puts them; simpler_apart: pixels of the reference, mean over its corners,
    between the two; None where there is none, and in files from before.
    """

    similarity: float
    before: float
    agree: int
    blocks: int
    luck: float
    return_error: float
    simpler_agree: int | None = None
    simpler_apart: float | None = None

    @property
    def is_hardly_better(self) -> bool:
        """Whether the simpler kind does about as well, and elsewhere: what lies between them nothing vouches for."""
        if self.simpler_agree is None or self.simpler_apart is None:
            return False
        return self.simpler_apart > APART and self.agree < self.simpler_agree + GAIN * self.blocks


@dataclasses.dataclass(frozen=True)
class Transform:
    """Takes (x, y, 1), a pixel centre of the reference, to homogeneous coordinates in the moving picture.

    kind: one of ``KINDS``. matrix: 3x3, last entry 1. moving_size, fixed_size: (height, width) of the moving picture
    and of the reference. evidence: of an estimate; None for one that was given. Raises DDFMError for a matrix that no
    camera could have made.
    """

    kind: str
    matrix: Matrix
    moving_size: Size
    fixed_size: Size
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        object.__setattr__(self, "matrix", _checked_matrix(self.matrix, self.kind))
        for name in ("moving_size", "fixed_size"):
            object.__setattr__(self, name, _checked_size(name, getattr(self, name)))
        self._check_kind()
        self._check_plausible()

    @property
    def array(self) -> np.ndarray:
        """The matrix as float64 (3, 3)."""
        return np.array(self.matrix, np.float64)

    @property
    def is_identity(self) -> bool:
        """True where nothing moves by as much as a hundredth of a pixel, between pictures of one size."""
        corners = corner_points(self.fixed_size)
        return self.moving_size == self.fixed_size and float(np.abs(self.points(corners) - corners).max()) < 0.01

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Pixel centres (N, 2) of the reference, x first, as (N, 2) of the moving picture."""
        return project(self.array, xy)

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """bool (N,): which pixel centres of the reference the moving picture shows."""
        height, width = self.moving_size
        x, y = self.points(xy).T
        return (x > -0.499) & (x < width - 0.501) & (y > -0.499) & (y < height - 0.501)

    @property
    def share_inside(self) -> float:
        """Share of the reference that the moving picture shows, to a percent."""
        sides = [(np.arange(100) + 0.5) * (side / 100) - 0.5 for side in self.fixed_size]
        return float(self.inside(np.column_stack([x.ravel() for x in np.meshgrid(sides[1], sides[0])])).mean())

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        evidence = dataclasses.asdict(self.evidence) if self.evidence else None
        return {
            "kind": self.kind,
            "matrix": [list(row) for row in self.matrix],
            "moving_size": list(self.moving_size),
            "fixed_size": list(self.fixed_size),
            "evidence": evidence,
        }

    def _check_kind(self) -> None:
        """Refuse a resize or a translation whose matrix does more than that."""
        if self.kind not in ("resize", "translation"):
            return
        beside = self.array - np.array(resizing(self.moving_size, self.fixed_size))
        if self.kind == "translation":
            beside[:2, 2] = 0
        reach = np.abs(beside[:2]) @ (self.fixed_size[1], self.fixed_size[0], 1)
        if reach.max() > SLACK:
            got = f"one that moves points {reach.max():.3g} pixels beside what a {self.kind} does"
            raise problem("matrix", got, f"a {self.kind}", "Or is it affine?")

    def _check_plausible(self) -> None:
        points = _lattice(self.fixed_size)
        a, x = self.array, np.column_stack([points, np.ones(len(points))])
        weight = x @ a[2]
        # the Jacobian's determinant of a projective map is det / w^3
        area = np.linalg.det(a) / np.where(weight > 0, weight, np.nan) ** 3
        area = area / np.linalg.det(np.array(resizing(self.moving_size, self.fixed_size)))
        if not (weight > 1e-6).all() or not (area > 0).all():
            raise problem("matrix", "one that mirrors or folds the picture", "one that a camera could have made")
        if area.max() > MOST_AREA or area.min() < 1 / MOST_AREA:
            times = area.max() if area.max() > MOST_AREA else area.min()
            raise problem(
                "matrix", f"areas changed {times:.3g} times beside a mere resize", f"at most {MOST_AREA:g} times"
            )
        if self.share_inside < LEAST_INSIDE:
            got = f"one that leaves {self.share_inside:.0%} of the picture covered"
            raise problem("matrix", got, f"at least {LEAST_INSIDE:.0%}")


def resizing(moving_size: Size, fixed_size: Size) -> Matrix:
    """The matrix that stretches the moving picture over the reference, border on border."""
    (mh, mw), (h, w) = moving_size, fixed_size
    return ((mw / w, 0.0, 0.5 * mw / w - 0.5), (0.0, mh / h, 0.5 * mh / h - 0.5), (0.0, 0.0, 1.0))


def project(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points (N, 2) through a 3x3 matrix, (N, 2)."""
    mapped = np.column_stack([xy, np.ones(len(xy))]) @ matrix.T
    result: np.ndarray = mapped[:, :2] / mapped[:, 2:]
    return result


def corner_points(size: Size) -> np.ndarray:
    """The centres of the four corner pixels, (4, 2), x first."""
    height, width = size
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)


def corner_error(a: np.ndarray, b: np.ndarray, size: Size) -> float:
    """Mean distance of the four corners of ``size`` mapped by two 3x3 matrices."""
    corners = corner_points(size)
    return float(np.hypot(*(project(a, corners) - project(b, corners)).T).mean())


def _lattice(size: Size, steps: int = 33) -> np.ndarray:
    """(N, 2) pixel centres spread evenly over a picture, corners among them, x first."""
    rows, columns = np.linspace(0, size[0] - 1, steps), np.linspace(0, size[1] - 1, steps)
    return np.column_stack([axis.ravel() for axis in np.meshgrid(columns, rows)])


def _checked_matrix(matrix: Any, kind: str) -> Matrix:
    try:
        array = np.array(matrix)
        array = array.astype(np.float64) if array.dtype.kind in "iuf" else np.empty(0)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (3, 3) or not np.isfinite(array).all():
        raise problem("matrix", " ".join(repr(matrix).split())[:80], "three rows of three finite numbers")
    if abs(array[2, 2]) < 1e-12:
        raise problem("matrix", "a last entry of 0", "1")
    array = array / array[2, 2]
    if kind != "homography" and np.abs(array[2, :2]).max() > 1e-12:
        raise problem("matrix", f"a last row of {array[2].tolist()}", f"[0, 0, 1] for {kind}", "Or is it a homography?")
    return tuple((float(a), float(b), float(c)) for a, b, c in array)


def _checked_size(name: str, size: Any) -> Size:
    ok = isinstance(size, list | tuple) and len(size) == 2 and all(type(x) is int and 0 < x < 1 << 30 for x in size)
    if not ok:
        raise problem(name, repr(size), "[height, width], two whole numbers of pixels")
    return (size[0], size[1])


# ---- files ----------------------------------------------------------------------------------------


def save_transforms(path: str | Path, transforms: Sequence[Transform], *, overwrite: bool = False) -> Path:
    """Write a JSON file, one transform for each source but the last; not over a file without ``overwrite``."""
    path = Path(path)
    write_bytes(path, encode_transforms(transforms), overwrite=overwrite)
    return path


def encode_transforms(transforms: Sequence[Transform]) -> bytes:
    """The content of a file of ``save_transforms``."""
    content = {
        "format": "ddfm-transform",
        "version": VERSION,
        "meaning": "matrix takes (x, y, 1), a pixel centre of the last source, to the source that moves",
        "transforms": [transform.plain() for transform in transforms],
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def load_transforms(path: str | Path) -> tuple[Transform, ...]:
    """Read what ``save_transforms`` wrote, or a file of the same form made by hand. Raises DDFMError."""
    path, name = Path(path), str(path)
    content = _read_json(path, name)
    if not isinstance(content, dict) or content.get("format") != "ddfm-transform":
        remedy = "Make one: ddfm fuse IR VIS -o OUT --align affine --save-transform FILE."
        raise problem(name, "another kind of file", 'JSON with "format": "ddfm-transform"', remedy)
    if content.get("version") != VERSION:
        raise problem(
            name, f"version {content.get('version')!r}", f"version {VERSION}", "Update ddfm, or make it anew."
        )
    _check_keys(content, ("format", "version", "meaning", "transforms"), name)
    entries = content.get("transforms")
    if not isinstance(entries, list) or not entries:
        raise problem(name, "no transforms", '"transforms", a list of one for each source but the last')
    return tuple(_read_entry(entry, f"{name}: transform {n}") for n, entry in enumerate(entries, 1))


def _read_json(path: Path, name: str) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise problem(name, f"{path.stat().st_size} bytes", "a small JSON file", "Is it a picture?")
        return json.loads(path.read_bytes(), object_pairs_hook=_once)
    except DDFMError as error:
        raise DDFMError(f"{name}: {error}") from error
    except OSError as error:
        raise problem(name, error.strerror or str(error), "a transform file", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise problem(name, f"what is not JSON ({error})", "a transform file", "Make it anew.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object none of whose keys stands there twice: which of them would count is anybody's guess."""
    for key, _ in pairs:
        if sum(key == other for other, _ in pairs) > 1:
            raise problem(repr(key[:40]), "it twice in one object", "each key once")
    return dict(pairs)


def _check_keys(content: dict[str, Any], known: Sequence[str], name: str) -> None:
    if unknown := sorted(set(content) - set(known)):
        raise problem(name, f"the key {unknown[0][:40]!r}", f"none but {', '.join(known)}", "Is it misspelt?")


def _read_entry(entry: Any, name: str) -> Transform:
    try:
        fields = {key: entry[key] for key in ("kind", "matrix", "moving_size", "fixed_size")}
        _check_keys(entry, (*fields, "evidence", "inside"), name)  # "inside" is in reports
        if not all(_is_number(value) for row in fields["matrix"] for value in row):
            got = " ".join(repr(fields["matrix"]).split())[:80]
            raise DDFMError(f"{name}: {problem('matrix', got, 'three rows of three finite numbers')}")
        evidence = entry.get("evidence")
        return Transform(**fields, evidence=None if evidence is None else _read_evidence(evidence, name))
    except DDFMError as error:
        text = str(error)
        raise DDFMError(text if text.startswith(name) else f"{name}: {text}") from error
    except (KeyError, TypeError, AttributeError) as error:
        expected = "kind, matrix, moving_size and fixed_size"
        raise problem(name, f"an entry that lacks or garbles {error}", expected, "Make the file anew.") from error


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # True is an int, and no number here


def _read_evidence(evidence: Any, name: str) -> Evidence:
    if not isinstance(evidence, dict):
        raise problem("evidence", repr(evidence)[:80], "an object, or null")
    fields = dataclasses.fields(Evidence)
    _check_keys(evidence, [field.name for field in fields], name)
    values = {field.name: evidence[field.name] for field in fields if field.default is dataclasses.MISSING}
    values |= {field.name: evidence[field.name] for field in fields if evidence.get(field.name) is not None}
    counts = [values[key] for key in ("agree", "blocks", "simpler_agree") if key in values]
    if not all(_is_number(value) for value in values.values()) or not all(type(count) is int for count in counts):
        raise problem("evidence", "a value that is no number", "numbers; agree and blocks whole ones")
    return Evidence(**values)
