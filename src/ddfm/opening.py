"""Sources of any kind as images on one grid: opened, ranged, aligned, checked, described."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddfm._checks import DDFMWarning, problem
from ddfm.io import Image, file_sha256, from_array, from_pil, read_image
from ddfm.io.ranges import USUAL, Range, local_contrast
from ddfm.pipeline import MIN_SIZE
from ddfm.registration.gathering import OPAQUE, bring_together, named
from ddfm.registration.transform import Transform

__all__ = ["Gathered", "Preparation", "Source", "check_images", "describe", "open_source"]

Source = Any  # a path, a PIL image, a numpy array or a torch tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Gathered:
    """Sources on one grid.

    inputs: each as it came, for the report. notes: what should be known. transforms: where they were aligned.
    """

    images: list[Image]
    inputs: list[dict[str, Any]]
    notes: list[str]
    transforms: tuple[Transform, ...] = ()


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to sources before they are fused.

    ranges: which values are black and white, one for each source, or one for all but those of 8 bits and of floats in
    [0, 1]. clahe: local contrast of the sources of more than 8 bits, floats among them. align: kind of the transform to
    estimate, "none" for none.
    transforms: to use instead, one for each source but the last.
    """

    ranges: tuple[Range | None, ...] | None = None
    clahe: bool = False
    align: str = "none"
    transforms: tuple[Transform, ...] = ()

    @property
    def aligns(self) -> bool:
        """Whether sources are resampled."""
        return self.align != "none" or bool(self.transforms)

    def settings(self) -> dict[str, Any]:
        """What shapes the bytes of a result, but for defaults, so that earlier runs can be taken up again."""
        found: dict[str, Any] = {}
        if self.ranges:
            found["range"] = [str(span) for span in self.ranges]
        if self.clahe:
            found["clahe"] = True
        if self.transforms:
            found["align"] = {"transforms": [transform.plain() for transform in self.transforms]}
        elif self.align != "none":
            found["align"] = {"kind": self.align}
        return found

    def settled(self, gathered: Gathered) -> Preparation:
        """The same with the ranges and transforms found for these sources: for more from the same cameras."""
        spans = [image.relation.span if image.relation else None for image in gathered.images]
        ranges = tuple(dataclasses.replace(span, lenient=True) if span else None for span in spans)
        return dataclasses.replace(self, ranges=ranges, align="none", transforms=gathered.transforms)

    def check_count(self, count: int) -> None:
        """Refuse ranges or transforms for another number of sources. Raises DDFMError."""
        if self.ranges and len(self.ranges) not in (1, count):
            raise problem("range", f"{len(self.ranges)} ranges", f"one, or {count}, one for each source")
        if self.transforms and len(self.transforms) != count - 1:
            expected = f"{count - 1}, one for each source but the last"
            raise problem("transform", f"{len(self.transforms)} for {count} sources", expected)

    def gather(self, sources: Sequence[Source]) -> Gathered:
        """The sources opened and on one grid. Raises DDFMError naming the source and the remedy."""
        images = self._open(sources)
        inputs = [describe(image) for image in images]
        transforms: tuple[Transform, ...] = ()
        if self.aligns and len(images) > 1:
            for n, image in enumerate(images, 1):
                _check_large_enough(image, n)
            images, transforms = bring_together(images, self.align, self.transforms)
        return Gathered(images, inputs, check_images(images), transforms)

    def _open(self, sources: Sequence[Source]) -> list[Image]:
        spans = self.ranges or (USUAL,)
        images = [open_source(s, f"source {n}", spans[(n - 1) % len(spans)]) for n, s in enumerate(sources, 1)]
        if self.ranges and len(spans) == 1 and not any(image.relation for image in images):
            remedy = "Name a range for each source, as in --range 40:200,full."
            raise problem("range", "sources of 8 bits, or floats in [0, 1], only", "one of counts", remedy)
        deep = [image.bit_depth > 8 for image in images]
        if self.clahe and not any(deep):
            raise problem("clahe", "sources of 8 bits only", "one of more")
        return [_equalised(image) if self.clahe and d else image for image, d in zip(images, deep, strict=True)]


def _equalised(image: Image) -> Image:
    """The image with local contrast; its relation then holds before that."""
    if image.is_color:
        return dataclasses.replace(image, notes=(*image.notes, "coloured: --clahe left it as it is"))
    relation = dataclasses.replace(image.relation, local_contrast=True) if image.relation else None
    return dataclasses.replace(image, data=local_contrast(image.data), relation=relation)


def open_source(source: Source, name: str, span: Range | None = None) -> Image:
    """Any accepted kind of source as an ``Image``; ``span``: which of its values are black and white."""
    if isinstance(source, Image):
        return source
    if isinstance(source, str | Path):
        return read_image(source, span)
    if isinstance(source, Tensor):
        return from_array(_as_array(source, name), name, span)
    if isinstance(source, np.ma.MaskedArray):
        raise problem(name, "a masked array", "a plain one", "Fill the mask first: x.filled(0).")
    if isinstance(source, np.ndarray):
        return from_array(source, name, span)
    if hasattr(source, "getbands"):
        return from_pil(source, name, span)
    raise problem(name, type(source).__name__, "a path, a PIL image, a numpy array or a torch tensor")


def _as_array(tensor: Tensor, name: str) -> np.ndarray:
    """A tensor (H, W) or (C, H, W) as an array (H, W) or (H, W, C). Raises DDFMError."""
    shape = tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.is_meta:
        raise problem(name, "a sparse or meta tensor", "a dense one with values", "Use x.to_dense().")
    if tensor.ndim == 4:
        raise problem(
            name, f"a batch of shape {shape}", "one image, (H, W) or (C, H, W)", "Give the images one by one."
        )
    if tensor.ndim == 3 and shape[0] not in (1, 2, 3, 4):
        raise problem(name, f"shape {shape}", "channels first, (C, H, W)", "Use x.permute(2, 0, 1).")
    tensor = tensor.detach().cpu()
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def check_images(images: Sequence[Image]) -> list[str]:
    """Refuse what cannot be fused; return, and warn of, what should be known."""
    if len(images) < 2:
        raise problem("sources", f"{len(images)} source", "two or more")
    sizes = [image.size for image in images]
    names = [named(image, n) for n, image in enumerate(images, 1)]
    if len(set(sizes)) > 1:
        got = ", ".join(f"{n} is {w}x{h}" for n, (h, w) in zip(names, sizes, strict=True))
        raise problem(
            "sources",
            got,
            "one size (width x height)",
            "Of one field of view? Then --align resize; of cameras beside each other: --align affine.",
        )
    _check_large_enough(images[0], 1)
    return _notes(images, names)


def _check_large_enough(image: Image, number: int) -> None:
    height, width = image.size
    if min(height, width) < MIN_SIZE:
        raise problem(named(image, number), f"{width}x{height} pixels", f"{MIN_SIZE}x{MIN_SIZE} or more")


def _notes(images: Sequence[Image], names: Sequence[str]) -> list[str]:
    notes = [f"{n}: {note}" for n, image in zip(names, images, strict=True) for note in image.notes]
    for n, image in zip(names, images, strict=True):
        if image.alpha is not None:
            notes.append(f"{n}: {OPAQUE}")
    for k in range(1, len(images)):
        if np.array_equal(images[0].data, images[k].data):
            notes.append(f"{names[0]} and {names[k]} are the same picture")
            warnings.warn(notes[-1], DDFMWarning, stacklevel=6)
    return notes


def describe(image: Image) -> dict[str, Any]:
    """A source for the report."""
    return {
        "path": str(image.path) if image.path else None,
        "sha256": file_sha256(image.path) if image.path else None,
        "format": image.format,
        "size": list(image.size),
        "bit_depth": image.bit_depth,
        "color": image.is_color,
        **({"range": image.relation.plain()} if image.relation else {}),
    }
