"""Files and folders that appear whole or not at all, and what the operating system says as an error with a remedy."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ddfm._checks import DDFMError, problem

__all__ = [
    "check_target",
    "file_sha256",
    "os_errors",
    "publish",
    "uninterrupted",
    "write_bytes",
    "write_together",
    "writing",
    "writing_folder",
]


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits; raise DDFMError if it cannot be read."""
    with os_errors(Path(path)), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all: under a temporary name beside it, then renamed.

    Without ``overwrite`` a file that exists stays, also one that appears meanwhile. Whatever stops
    the writing, Ctrl-C too, the temporary file is removed. Raises DDFMError if it cannot be written.
    """
    with writing(path, overwrite=overwrite) as file, os_errors(Path(path)):
        file.write(content)


@contextlib.contextmanager
def writing(path: str | Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """As :func:`write_bytes` for what comes piece by piece: the file that is yielded gets its name on a clean exit."""
    path = Path(path)
    check_target(path, overwrite)
    part = _part_of(path)
    try:
        with os_errors(path):
            file = part.open("xb")
        try:
            yield file
            with os_errors(path):
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave the name on an empty file
        finally:
            with contextlib.suppress(OSError):  # a full disk, which was told before
                file.close()
        with os_errors(path):
            part.replace(path) if overwrite else publish(part, path)
    finally:
        with contextlib.suppress(OSError):  # gone if it was renamed
            part.unlink()


def write_together(contents: Mapping[Path, bytes], *, overwrite: bool = False) -> None:
    """Write several files as :func:`write_bytes` does, all of them or none.

    All have their bytes under temporary names before the first gets its own; where one then fails, those before it
    go, and what they replaced comes back. Raises DDFMError.
    """
    parts: dict[Path, Path] = {}
    with contextlib.ExitStack() as rest, contextlib.ExitStack() as undo:
        for path, content in contents.items():
            check_target(path, overwrite)
            parts[path] = part = _part_of(path)
            rest.callback(_remove, part)
            with os_errors(path), part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            old = _part_of(path)
            with os_errors(path):
                if overwrite and os.path.lexists(path):
                    rest.callback(_remove, old)
                    with contextlib.suppress(OSError):  # no hard links: then what was replaced cannot come back
                        os.link(path, old, follow_symlinks=False)
                part.replace(path) if overwrite else publish(part, path)
            undo.callback(_put_back, old, path)
        undo.pop_all()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it got another name, or never was
        path.unlink()


def _put_back(old: Path, path: Path) -> None:
    with contextlib.suppress(OSError):
        old.replace(path) if os.path.lexists(old) else path.unlink()


@contextlib.contextmanager
def writing_folder(path: str | Path, replaces: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` on a clean exit, and is removed with all that is in it on any other.

    ``replaces``: whether a file in a folder that is there already may go; an empty folder may always be replaced.
    Raises DDFMError.
    """
    path = Path(path)
    _check_folder(path, replaces)
    path = path if path.name and path.name != ".." else path.resolve()
    part, old = _part_of(path), _part_of(path)
    try:
        with os_errors(path):
            part.mkdir()
        yield part
        _check_folder(path, replaces)  # what may have come meanwhile
        with os_errors(path):
            (_refill if path.resolve() in _here() else _exchange)(part, path, old)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Give ``path`` to the folder ``new``; what was there is called ``old``, and comes back if anything goes wrong."""
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def _here() -> tuple[Path, ...]:
    """The working folder and those it lies in, which must keep their identity: a shell stands there."""
    here = Path.cwd()
    return (here, *here.parents)


def _refill(new: Path, path: Path, old: Path) -> None:
    """As ``_exchange``, but entry by entry: the folder itself stays what it is."""
    moved: list[tuple[Path, Path]] = []
    try:
        old.mkdir()
        for source, target in ((path, old), (new, path)):
            for entry in sorted(source.iterdir()):
                entry.rename(target / entry.name)
                moved.append((entry, target / entry.name))
    except BaseException:
        for entry, there in reversed(moved):
            there.rename(entry)
        if old.exists():
            old.rmdir()
        raise


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:64]}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _check_folder(path: Path, replaces: Callable[[Path], bool]) -> None:
    with os_errors(path):
        if path.is_dir() and not path.is_symlink():
            kept = sum(not replaces(entry) for entry in path.iterdir())
            if kept:
                raise problem(str(path), f"a folder with {kept} files that stay", "a new or empty one", "Name another.")
        elif os.path.lexists(path):
            raise _exists(path)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done: for the few steps at the end that make a file whole."""
    if threading.current_thread() is not threading.main_thread():  # only there Python handles signals
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    came: list[int] = []
    for number in handled:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        for first in came[:1]:
            handled[signal.Signals(first)](first, None)


def publish(part: Path, path: Path) -> None:
    """Give ``part`` its name unless that is taken; a link, unlike a rename, fails if it is."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system (FAT, some network shares)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.rename(path)


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, a folder, and without ``overwrite`` a name that is taken. Raises DDFMError."""
    with os_errors(path):
        is_folder = path.is_dir()
    if is_folder:
        raise problem(str(path), "a folder", "a file name", "Name a file in it.")
    if not overwrite and os.path.lexists(path):
        raise _exists(path)


def _exists(path: Path) -> DDFMError:
    return problem(str(path), "a file that exists", "a new name", "Choose another, or replace it with --overwrite.")


_REMEDIES = {
    errno.ENOENT: "Check the path; the folder must exist.",
    errno.ENOTDIR: "Check the path; a file stands where a folder should.",
    errno.EISDIR: "Name a file in it.",
    errno.ENOSPC: "Free some space or choose another disk.",
    errno.EDQUOT: "Free some space or choose another disk.",
    errno.EFBIG: "Choose another disk: this one, or a limit on it, holds no larger file.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about ``path`` into a DDFMError with a remedy."""
    try:
        yield
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Check the permissions of the file and its folder.")
        expected = "a file that can be read or written"
        raise problem(str(path), error.strerror or str(error), expected, remedy) from error
