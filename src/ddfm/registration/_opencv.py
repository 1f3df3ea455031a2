"""OpenCV, imported where it is used: it is optional."""

from __future__ import annotations

from typing import Any

from ddfm._checks import DDFMError

__all__ = ["opencv"]


def opencv(what: str) -> Any:
    """The module ``cv2``; DDFMError naming the extra where it is not installed. ``what`` needs it."""
    try:
        import cv2
    except ImportError as error:
        raise DDFMError(f"{what} needs OpenCV: pip install 'ddfm[align]'") from error
    return cv2
