"""Options of ``ddfm fuse`` about sources before they are fused: ranges of values, and one grid for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Align", "Checkerboard", "Clahe", "SaveTransform", "TransformFile", "ValueRange"]

Align = Annotated[
    str,
    typer.Option(
        "--align",
        help="Bring the sources onto the last one's grid: none, resize, translation, affine or homography.",
    ),
]
TransformFile = Annotated[
    Path | None, typer.Option("--transform", help="Bring them there by this file of --save-transform instead.")
]
SaveTransform = Annotated[
    Path | None, typer.Option("--save-transform", help="Keep the transform in this JSON file; for many a folder.")
]
Checkerboard = Annotated[
    Path | None,
    typer.Option("--checkerboard", help="Write a picture to judge the alignment by; for many a folder."),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        help="Black and white of 16-bit sources and of floats beyond [0, 1]: auto, full, LOW:HIGH or pLOW:pHIGH "
        "(percentiles); with commas one for each source.  [default: full; auto for counts that use little of 16 bits]",
    ),
]
Clahe = Annotated[bool, typer.Option("--clahe", help="Local contrast (CLAHE) of the sources of more than 8 bits.")]
