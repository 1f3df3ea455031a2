"""``ddfm prior fetch``: a known checkpoint from its publisher into the cache, checked before anything reads it.

CACHE/downloads/NAME.pt.part   what has arrived so far; a broken download goes on from here
CACHE/downloads/NAME.pt        a whole file, also one that was put there by hand
CACHE/priors/NAME              the converted prior
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock, Timeout

from ddfm._checks import DDFMError, check_choice, problem
from ddfm.conversion import convert
from ddfm.priors.known import KNOWN, KnownPrior, cache_folder, cached

__all__ = ["fetch"]

CHUNK = 1 << 16  # bytes; what is lost when a connection drops
ATTEMPTS = 4  # in a row that bring nothing new; a download that breaks often still ends
PAUSE = 2.0  # seconds before the second attempt, doubled each time
TIMEOUT = 30.0  # seconds without a byte
#: Of the checkpoint's size: the download itself, its conversion, and some to spare.
SPACE = 2.2

OnBytes = Callable[[str, int, int], Any]  # (what is done, bytes done, of)


def fetch(name: str, on_bytes: OnBytes = lambda what, done, of: None) -> Path:
    """Download, check and convert a known prior; its folder. What is there already is not fetched again.

    Raises DDFMError: no network (says where to put the file by hand), no space, a file that is not the published one.
    """
    known = KNOWN[check_choice("name", name, tuple(KNOWN))]
    target = cached(name)
    if target.is_dir():
        return target
    downloads = cache_folder() / "downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(downloads / f"{name}.lock", timeout=0):
            return _fetch(known, downloads / f"{name}.pt", target, on_bytes)
    except Timeout:
        raise DDFMError(f"{name}: got another fetch at work, expected one at a time. Wait for it to end.") from None
    except OSError as error:
        raise problem(
            str(cache_folder()), error.strerror or str(error), "a cache that can be written", _elsewhere()
        ) from error


def _elsewhere() -> str:
    return "Name another one: export DDFM_CACHE=FOLDER."


def _fetch(known: KnownPrior, file: Path, target: Path, on_bytes: OnBytes) -> Path:
    if target.is_dir():  # another fetch finished while this one waited for the lock
        return target
    part = file.with_name(file.name + ".part")
    if not file.exists():
        _check_space(known, part)
        _download(known, part, file, on_bytes)
    _check_file(known, file, on_bytes)
    folder = convert(file, target, head_channels=known.head_channels, schedule=known.schedule, licence=known.licence)
    file.unlink()  # the prior holds all of it, as safetensors
    return folder


def _check_space(known: KnownPrior, part: Path) -> None:
    """Before, not after, two gigabytes."""
    have = _have(part)
    need = int(known.size * SPACE) - have
    free = shutil.disk_usage(part.parent).free
    if free < need:
        raise problem(str(part.parent), f"{free / 1e9:.1f} GB free", f"{need / 1e9:.1f} GB", _elsewhere())


def _download(known: KnownPrior, part: Path, file: Path, on_bytes: OnBytes) -> None:
    """Fetch what is missing of ``part``, again after each break, then give it its name."""
    reason: Exception | None = None
    fruitless, most = 0, _have(part)
    while fruitless < ATTEMPTS:
        if reason:
            on_bytes("broken, trying again", _have(part), known.size)
            time.sleep(PAUSE * 2 ** max(fruitless - 1, 0))
        try:
            for done in _receive(known, part):
                on_bytes("downloading", done, known.size)
            if _have(part) == known.size:
                part.replace(file)
                return
            reason = DDFMError(f"the server ended after {_have(part)} of {known.size} bytes")
        except _TooLong:
            part.unlink()
            raise problem(
                known.url, f"more than {known.size} bytes", "the published file", "Nothing was kept."
            ) from None
        except _Refused as error:
            reason = error
            break
        except (requests.RequestException, ConnectionError) as error:
            reason = error
        fruitless = 0 if _have(part) > most else fruitless + 1
        most = max(most, _have(part))
    by_hand = f"Give the command again to go on, or put the file from {known.url} at {file} by hand and give it again."
    raise problem(known.name, f"no whole download ({_short(reason)})", "a connection to its publisher", by_hand)


class _TooLong(Exception):
    """More bytes than the published file has."""


class _Refused(Exception):
    """The server says no, and would say it again."""


def _have(part: Path) -> int:
    """Bytes that have arrived so far."""
    return part.stat().st_size if part.exists() else 0


def _short(reason: Exception | None) -> str:
    """The innermost cause without the address, which the message has anyway."""
    inner = getattr(reason.args[0] if reason and reason.args else None, "reason", None) or reason
    return str(inner).rpartition("object at 0x")[2].partition(": ")[2][:160] or str(inner)[:160]


def _receive(known: KnownPrior, part: Path) -> Iterator[int]:
    """Append to ``part`` from where it ends; the bytes there are so far."""
    have = _have(part)
    if have > known.size:
        raise _TooLong
    if have == known.size:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(known.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing after what we have: it is not the file we began with
            part.unlink()
            raise requests.ConnectionError("the server has a shorter file")
        if 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429):
            raise _Refused(f"{answer.status_code} {answer.reason}")
        answer.raise_for_status()
        go_on = answer.status_code == 206
        _check_length(known, answer, have if go_on else 0)
        done = have if go_on else 0
        with part.open("ab" if go_on else "wb") as out:  # a server that ignores the range sends all of it
            for chunk in answer.iter_content(CHUNK):
                done += len(chunk)
                if done > known.size:
                    raise _TooLong
                out.write(chunk)
                yield done


def _check_length(known: KnownPrior, answer: requests.Response, have: int) -> None:
    """A length that is not the published file's is another file, such as a login page; none at all is allowed."""
    stated = answer.headers.get("Content-Length")
    if stated is None or not stated.isdigit():
        return
    length = have + int(stated)
    if length > known.size:
        raise problem(known.url, f"a file of {length} bytes", f"{known.size}, as published", "Nothing was kept.")
    if length < known.size:  # nothing of it may stand at the beginning of the real one
        raise requests.ConnectionError(f"the server has a file of {length} bytes, expected {known.size}")


def _check_file(known: KnownPrior, file: Path, on_bytes: OnBytes) -> None:
    """Size and SHA-256 before anything parses it; another file is moved aside, not deleted."""
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        done = 0
        while size == known.size and (chunk := stream.read(CHUNK)):
            digest.update(chunk)
            done += len(chunk)
            on_bytes("checking", done, size)
    if size != known.size or digest.hexdigest() != known.sha256:
        aside = file.with_name(file.name + ".wrong")
        file.replace(aside)
        got = f"{size} bytes" if size != known.size else f"SHA-256 {digest.hexdigest()[:16]}..."
        expected = f"{known.size} bytes, SHA-256 {known.sha256[:16]}..."
        raise problem(known.name, f"another file ({got}), now {aside}", expected, "Give the command again to fetch it.")
