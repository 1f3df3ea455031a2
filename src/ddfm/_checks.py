"""One form for every error: the argument, what came, what was expected, what to do.

All errors that are the caller's to mend derive from :class:`DDFMError`; the command line
turns them into one line and exit code 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DDFMError", "DDFMWarning", "check_batch", "check_choice", "check_range", "explained", "problem"]


class DDFMError(ValueError):
    """An input that cannot be used; the message names it and the remedy."""


class DDFMWarning(UserWarning):
    """Something the user should know that does not stop the work."""


def problem(argument: str, got: object, expected: str, remedy: str = "") -> DDFMError:
    """Build the one error form: ``argument: got ..., expected .... remedy``."""
    text = f"{argument}: got {got}, expected {expected}."
    return DDFMError(f"{text} {remedy}".rstrip())


def explained(error: Exception, argument: str, expected: str, remedy: str) -> DDFMError:
    """``error`` as one that teaches: itself, or no memory, which torch says with a RuntimeError. Others are raised."""
    if isinstance(error, DDFMError):
        return error
    if isinstance(error, MemoryError) or "memory" in str(error):
        return problem(argument, "out of memory", expected, remedy)
    raise error


def check_range(argument: str, value: float, low: float, high: float, *, open_low: bool = False) -> float:
    """Return ``value`` if low <= value <= high (low < value when ``open_low``), else raise."""
    if low <= value <= high and not (open_low and value == low):  # NaN fails the comparison too
        return value
    bracket = "(" if open_low else "["
    raise problem(argument, repr(value), f"a number in {bracket}{low:g}, {high:g}]")


def check_choice(argument: str, value: str, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise naming the nearest one."""
    if value in choices:
        return value
    import difflib

    folded = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(value).lower(), folded, n=1)
    remedy = f"Did you mean {folded[near[0]]!r}?" if near else ""
    raise problem(argument, repr(value), f"one of {', '.join(choices)}", remedy)


def check_batch(argument: str, tensor: Tensor, channels: int | None = None) -> Tensor:
    """Return ``tensor`` if it is a finite float tensor (B, C, H, W), else raise."""
    if tensor.ndim != 4:
        raise problem(argument, f"shape {tuple(tensor.shape)}", "four axes (B, C, H, W)")
    if channels is not None and tensor.shape[1] != channels:
        raise problem(argument, f"{tensor.shape[1]} channels", f"{channels}")
    if not tensor.dtype.is_floating_point:
        raise problem(argument, str(tensor.dtype), "a floating-point tensor in [-1, 1]")
    if not bool(tensor.isfinite().all()):
        raise problem(argument, "NaN or infinite values", "finite numbers", "Repair or mask them first.")
    return tensor
