"""A folder for each request, below one that is this server's own; deleted when done with."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

__all__ = ["Folders"]


class Folders:
    """Folders of requests, by session; ``root`` and all in it goes with ``close``."""

    def __init__(self, minutes: float, root: Path | None = None) -> None:
        """minutes: after which a folder is deleted though its session is still open."""
        self.root = (root or Path(tempfile.mkdtemp(prefix="ddfm-app-"))).resolve()
        self.seconds = 60 * minutes
        self._lock = threading.Lock()
        self._made: dict[Path, tuple[str, float]] = {}

    def make(self, session: str) -> Path:
        """A new, empty folder, of a name that cannot be guessed. What is too old is deleted first."""
        self.sweep()
        path = Path(tempfile.mkdtemp(prefix="request-", dir=self.root))
        with self._lock:
            self._made[path] = (session, time.monotonic())
        return path

    def forget(self, session: str, keep: Path | None = None) -> None:
        """Delete a session's folders, but for ``keep``."""
        self._delete([p for p, (owner, _) in self._items() if owner == session and p != keep])

    def sweep(self) -> None:
        """Delete what is too old."""
        now = time.monotonic()
        self._delete([path for path, (_, made) in self._items() if now - made > self.seconds])

    def close(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _items(self) -> list[tuple[Path, tuple[str, float]]]:
        with self._lock:
            return list(self._made.items())

    def _delete(self, paths: list[Path]) -> None:
        for path in paths:
            with self._lock:
                self._made.pop(path, None)
            shutil.rmtree(path, ignore_errors=True)
