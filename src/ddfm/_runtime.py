"""What the process of the command line sets for itself; a library must not, so only the command line calls this."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

__all__ = ["keep_freed_memory", "quiet_and_fast", "release_freed_memory", "stop_once", "stopped_once"]

#: Seconds after a stop in which further ones are passed over. Not for ever: Python may lose the first, in a callback.
_PATIENCE = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_stopped_at = -_PATIENCE


def stop_once() -> None:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt once; those that follow do not break off what cleans up after it.

    Where Ctrl-C is ignored, as in the background of a script, it stays so.
    """
    global _stopped_at
    _stopped_at = -_PATIENCE
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    global _stopped_at
    if time.monotonic() - _stopped_at > _PATIENCE:
        _stopped_at = time.monotonic()
        raise KeyboardInterrupt


@contextlib.contextmanager
def stopped_once() -> Iterator[None]:
    """``stop_once`` for a while, unless it holds already; only the main thread may have handlers."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is _stop:
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stop_once()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
