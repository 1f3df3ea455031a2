"""Work beside the page: in one thread of its own, seen step by step, stopped between two steps.

One thread does all of it, in the order in which it came: each further thread that computes would keep a pool of workers
and freed memory of its own (glibc's arenas), without end as requests come and go.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

__all__ = ["Desk", "Progress", "Run", "Stopped"]

T = TypeVar("T")
#: Called by the work after each step: done, of, what.
OnStep = Callable[[int, int, str], None]


class Stopped(Exception):
    """Raised inside the work by its next step once it was told to stop."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far work is: ``done`` of ``of`` steps (0: not known), at ``what``, after ``seconds``."""

    done: int
    of: int
    what: str
    seconds: float


class Run(Generic[T]):
    """Work that was begun."""

    def __init__(self, work: Callable[[OnStep], T], worker: Executor) -> None:
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._begun = time.monotonic()
        self._at = (0, 0, "")
        self._future: Future[T] = worker.submit(self._do, work)

    def _do(self, work: Callable[[OnStep], T]) -> T:
        self._on_step(0, 0, "")  # it may have been stopped while it waited
        return work(self._on_step)

    def _on_step(self, done: int, of: int, what: str = "") -> None:
        if self._stopping.is_set():
            raise Stopped
        self._at = (done, of, what)
        self._news.set()

    def stop(self) -> None:
        """Ask the work to end at its next step."""
        self._stopping.set()

    def updates(self, seconds: float = 0.25) -> Iterator[Progress]:
        """Progress until the work has ended, at most one in ``seconds``. A caller that goes away ends the work."""
        try:
            while not self._future.done():
                self._news.wait(1.0)
                self._news.clear()
                yield Progress(*self._at, time.monotonic() - self._begun)
                wait([self._future], seconds)
        finally:
            self.stop()

    def result(self) -> T:
        """What the work gave, or raises what it raised: Stopped where it was stopped."""
        return self._future.result()


class Desk:
    """One run for each session at most: a new one stops the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Run[Any]] = {}
        self._worker = ThreadPoolExecutor(1, "work")
        self._looker = ThreadPoolExecutor(1, "look")

    def begin(self, session: str, work: Callable[[OnStep], T]) -> Run[T]:
        """Begin work for a session."""
        self.stop(session)
        run = Run(work, self._worker)
        with self._lock:
            self._runs[session] = run
        return run

    def look(self, work: Callable[[], T]) -> T:
        """Something short that need not wait for the work."""
        return self._looker.submit(work).result()

    def close(self) -> None:
        """Stop all that runs or waits; what runs ends at its next step, which is waited for."""
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
        for pool in (self._worker, self._looker):
            pool.shutdown(wait=True, cancel_futures=True)

    def stop(self, session: str) -> bool:
        """Stop what runs for a session; whether anything did."""
        with self._lock:
            run = self._runs.pop(session, None)
        if run:
            run.stop()
        return run is not None

    def end(self, session: str, run: Run[Any]) -> None:
        """The run has ended."""
        with self._lock:
            if self._runs.get(session) is run:
                del self._runs[session]
