"""A folder for each request, below one that is this server's own; deleted when done with, as uploads are."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from pathlib import Path

__all__ = ["RESULTS", "Folders"]

#: What results are called.
RESULTS = ("fused.png", "fused-16bit.tif", "settings.json", "report.html", "fused.zip", "fused.csv")
#: Seconds that a program has to fetch a result.
_COPIES = 600.0
#: Seconds between two looks at what is too old, at most.
_OFTEN = 30.0


class Folders:
    """Folders of requests, by session; ``root`` and all in it goes with ``close``.

    requests, examples: what the page may show lies below these. inside: what it may not. uploads: as they came.
    """

    def __init__(self, minutes: float, root: Path | None = None) -> None:
        """minutes: after which a folder or an upload is deleted though its session is still open."""
        self.root = (root or Path(tempfile.mkdtemp(prefix="ddfm-app-"))).resolve()
        self.requests, self.examples, self.uploads = (self.root / n for n in ("requests", "examples", "uploads"))
        for folder in (self.requests, self.examples, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 60 * minutes
        self._lock = threading.Lock()
        self._made: dict[Path, tuple[str, float]] = {}
        self._used: dict[Path, set[str]] = {}  # folders of uploads, and the sessions that know them
        self._closed = threading.Event()

    def make(self, session: str) -> Path:
        """A new, empty folder, of a name that cannot be guessed."""
        path = Path(tempfile.mkdtemp(prefix="request-", dir=self.requests))
        with self._lock:
            self._made[path] = (session, time.monotonic())
        return path

    def inside(self, folder: Path) -> Path:
        """A folder that goes with ``folder`` and that the page may not show."""
        path = self.root / "inside" / folder.name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def use(self, session: str, upload: Path) -> None:
        """The session works with this upload. Equal files of two sessions are one: it goes when both have left."""
        if upload.is_relative_to(self.uploads):
            with self._lock:
                self._used.setdefault(upload.parent, set()).add(session)

    def forget(self, session: str) -> None:
        """Delete a session's folders, and its uploads that no other session uses."""
        with self._lock:
            made = [path for path, (owner, _) in self._made.items() if owner == session]
            for owners in self._used.values():
                owners.discard(session)
            uploads = [path for path, owners in self._used.items() if not owners]
        self._delete(made + uploads)

    def watch(self) -> None:
        """Sweep from time to time until ``close``."""
        threading.Thread(target=self._watch, name="sweep", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(min(_OFTEN, self.seconds / 4)):
            self.sweep()

    def sweep(self) -> None:
        """Delete what is too old."""
        now = time.monotonic()
        with self._lock:
            old = [path for path, (_, made) in self._made.items() if now - made > self.seconds]
        since = time.time() - self.seconds
        with contextlib.suppress(OSError):  # deleted meanwhile
            old += [path for path in self.uploads.iterdir() if path.stat().st_mtime < since]
        since = time.time() - min(self.seconds, _COPIES)
        with contextlib.suppress(OSError):  # what Gradio copied of a result, to hand it to a program
            copies = [path for path in self.uploads.glob("*/*") if path.name in RESULTS]
            old += [path.parent for path in copies if path.stat().st_mtime < since]
        self._delete(old)

    def bytes(self) -> int:
        """What lies here."""
        total = 0
        for path in self.root.rglob("*"):
            with contextlib.suppress(OSError):
                total += path.lstat().st_size
        return total

    def close(self) -> None:
        """Delete everything."""
        self._closed.set()
        shutil.rmtree(self.root, ignore_errors=True)

    def _delete(self, paths: list[Path]) -> None:
        for path in paths:
            with self._lock:
                self._made.pop(path, None)
                self._used.pop(path, None)
            if path.is_file():
                path.unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(self.root / "inside" / path.name, ignore_errors=True)
