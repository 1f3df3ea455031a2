"""Sources onto the grid of the last one, with what was done told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ddfm._checks import problem
from ddfm.io import Image
from ddfm.registration.estimation import estimate
from ddfm.registration.transform import SIMPLER, Transform
from ddfm.registration.warping import apply, fill_outside, luma

__all__ = ["OPAQUE", "bring_together", "named"]

OPAQUE = "transparency is not used, the fused image is opaque"

#: Sides whose ratios differ by more than this make a stretch worth a word.
ASPECT = 0.02
#: Enlarged more than this in one direction is worth a word.
ENLARGED = 3.0
#: Less of the reference covered than this is worth a word.
COVERED = 0.98


def bring_together(
    images: Sequence[Image], kind: str, given: Sequence[Transform] = ()
) -> tuple[list[Image], tuple[Transform, ...]]:
    """Every image but the last resampled onto the last one's grid, and the transforms, one for each of them.

    kind: of the transforms to estimate; where ``given`` has any, those are used. The images' notes say what should be
    known. Raises DDFMError for an estimate that cannot be trusted, or a transform that is not for these sizes.
    """
    *moving, reference = images
    if given and len(given) != len(moving):
        got = f"{len(given)} in the file for {len(images)} sources"
        raise problem("--transform", got, "one for each source but the last")
    fixed = luma(reference.data)
    transforms = [
        _fitting(given[n], image, reference, named(image, n + 1))
        if given
        else estimate(luma(image.data), fixed, kind, named(image, n + 1))
        for n, image in enumerate(moving)
    ]
    many = len(moving) > 1
    placed = [_placed(image, one, reference.data, many) for image, one in zip(moving, transforms, strict=True)]
    return [*placed, reference], tuple(transforms)


def named(image: Image, number: int) -> str:
    """How messages call a source."""
    return str(image.path) if image.path else f"source {number}"


def _fitting(transform: Transform, image: Image, reference: Image, name: str) -> Transform:
    """The transform if it is for pictures of these sizes."""
    for who, size, wanted in (
        (name, image.size, transform.moving_size),
        ("the last source", reference.size, transform.fixed_size),
    ):
        if size != wanted:
            got = f"{who} with {size[1]}x{size[0]} pixels"
            expected = f"{wanted[1]}x{wanted[0]}, which the transform is for"
            raise problem("--transform", got, expected, "Estimate one for these sizes: --align KIND --save-transform.")
    return transform


def _placed(image: Image, transform: Transform, reference: np.ndarray, many: bool) -> Image:
    """The image on the grid of the reference (H, W) or (H, W, 3); many: there are further moving ones."""
    data, inside = apply(transform, image.data)
    notes = list(image.notes)
    (mh, mw), (h, w) = transform.moving_size, transform.fixed_size
    stretch = (w / mw) / (h / mh)
    if transform.kind == "resize" and abs(stretch - 1) > ASPECT:
        notes.append(f"stretched {max(stretch, 1 / stretch):.2f} times in one direction by --align resize")
    if mh * mw > 2 * h * w:
        notes.append(f"reduced from {mw}x{mh} to the {w}x{h} of the last source; fine detail is gone")
    if max(h / mh, w / mw) > ENLARGED:
        notes.append(f"enlarged from {mw}x{mh} to the {w}x{h} of the last source; it shows no more detail for it")
    evidence = transform.evidence
    if evidence and evidence.is_hardly_better:
        simpler = SIMPLER[transform.kind]
        notes.append(
            f"{transform.kind} fits hardly more of the picture than {simpler} ({evidence.agree} and "
            f"{evidence.simpler_agree} of {evidence.blocks} blocks) and moves its corners by "
            f"{evidence.simpler_apart:.1f} pixels from there; --align {simpler} is the safer choice"
        )
    if image.alpha is not None:
        notes.append(OPAQUE)
    covered = transform.share_inside
    if covered < COVERED:
        rest = "the other sources" if many else "the other source"
        notes.append(f"shows {covered:.0%} of the picture; in the rest the result shows {rest} alone")
    return dataclasses.replace(image, data=fill_outside(data, inside, reference), alpha=None, notes=tuple(notes))
