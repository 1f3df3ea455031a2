"""From two pictures to a transform that can be trusted, or to a refusal that says why."""

from __future__ import annotations

import dataclasses

import numpy as np

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.registration.search import SIDES, search, simplified
from ddfm.registration.transform import KINDS, SIMPLER, Evidence, Transform, corner_error, resizing
from ddfm.registration.trust import MOST_LUCK, agreement, most_return

__all__ = ["estimate"]

#: Fewer pixels a side have too few blocks to judge an estimate by.
LEAST_SIDE = 96
REMEDY = "Look at --align resize with --checkerboard; give a --transform; or register them by hand."


def estimate(moving: np.ndarray, fixed: np.ndarray, kind: str, name: str = "the first source") -> Transform:
    """The transform of that kind that brings ``moving`` onto the grid of ``fixed``.

    moving, fixed: float32 (H, W) in [0, 1], of any sizes. kind: "resize" (the sizes alone decide), "translation",
    "affine" or "homography", each on top of the resize. Raises DDFMError where the estimate cannot be trusted, naming
    the measure that failed; ``name`` stands in the message.
    """
    check_choice("kind", kind, KINDS)
    plain = Transform("resize", resizing(moving.shape[:2], fixed.shape[:2]), moving.shape[:2], fixed.shape[:2])
    if kind == "resize":
        return plain
    _check_pictures(moving, fixed, name)
    matrix, similarity, before = search(moving, fixed, kind)
    whole = plain.array @ matrix
    back, _, _ = search(fixed, moving, kind, SIDES[:-1])  # only to judge by: no need of the finest
    frame_back = np.array(resizing(fixed.shape[:2], moving.shape[:2])) @ back
    missed = corner_error(frame_back @ whole, np.eye(3), fixed.shape[:2])
    blocks = agreement(moving, fixed, matrix)
    luck = float(f"{blocks.luck:.2g}")
    evidence = Evidence(round(similarity, 4), round(before, 4), blocks.agree, blocks.blocks, luck, round(missed, 3))
    _check_trust(evidence, fixed.shape[:2], name, kind)
    evidence = _beside_simpler(evidence, moving, fixed, matrix, kind)
    try:
        return Transform(kind, tuple(map(tuple, whole)), moving.shape[:2], fixed.shape[:2], evidence)
    except DDFMError as error:
        raise _untrusted(name, kind, str(error)) from error


def _beside_simpler(
    evidence: Evidence, moving: np.ndarray, fixed: np.ndarray, matrix: np.ndarray, kind: str
) -> Evidence:
    """The evidence with what the next simpler kind would do: more freedom always fits more, whatever there is."""
    if kind not in SIMPLER:
        return evidence
    simpler = simplified(moving, fixed, matrix, SIMPLER[kind])
    apart = round(corner_error(simpler, matrix, fixed.shape[:2]), 3)
    return dataclasses.replace(evidence, simpler_agree=agreement(moving, fixed, simpler).agree, simpler_apart=apart)


def _check_pictures(moving: np.ndarray, fixed: np.ndarray, name: str) -> None:
    for picture, who in ((moving, name), (fixed, "the last source")):
        height, width = picture.shape[:2]
        if min(height, width) < LEAST_SIDE:
            expected = f"{LEAST_SIDE}x{LEAST_SIDE} or more to estimate from"
            raise problem(
                "--align", f"{width}x{height} pixels in {who}", expected, "Use --align resize or --transform."
            )
        if float(picture.max()) - float(picture.min()) < 1e-4:
            raise problem("--align", f"{who} without any contrast", "a picture with edges", REMEDY)


def _check_trust(evidence: Evidence, size: tuple[int, int], name: str, kind: str) -> None:
    """Raise DDFMError unless there and back meet, the fit gains by it, and enough blocks agree."""
    most = most_return(size)
    if not evidence.return_error <= most:  # NaN and infinity too
        reason = f"there and back miss each other by {evidence.return_error:.1f} pixels (at most {most:.1f})"
        raise _untrusted(name, kind, reason)
    if evidence.similarity < evidence.before - 0.01:
        reason = f"the edges agree less with it ({evidence.similarity:.2f}) than without ({evidence.before:.2f})"
        raise _untrusted(name, kind, reason)
    if evidence.luck > MOST_LUCK:
        reason = (
            f"only {evidence.agree} of {evidence.blocks} blocks fit best there, which unrelated pictures reach with "
            f"probability {evidence.luck:.1g} (at most {MOST_LUCK:g})"
        )
        raise _untrusted(name, kind, reason)


def _untrusted(name: str, kind: str, reason: str) -> DDFMError:
    simpler = {"homography": "Try --align affine. ", "affine": "Try --align translation. "}.get(kind, "")
    return problem(
        name, f"no trustworthy {kind}: {reason}", "two views of one scene with common edges", simpler + REMEDY
    )
