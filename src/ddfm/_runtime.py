"""What the process of the command line sets for itself; a library must not, so only ``cli.main`` calls this."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys

__all__ = ["keep_freed_memory", "quiet_and_fast", "release_freed_memory"]


def quiet_and_fast() -> None:
    """No advertisements from libraries, no telemetry, memory kept once it was had."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of handing each back to the system.

    A network evaluation allocates and frees hundreds of megabytes; with glibc's defaults every block is mapped
    and zeroed anew, which was half of the processor's time here (benchmarks/allocator.py). Elsewhere: nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)


def release_freed_memory() -> None:
    """Hand freed blocks back to the system, where glibc is at hand: before a measurement of memory."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
