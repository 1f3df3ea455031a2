"""A fence before the server: no request makes it fetch something from elsewhere.

Gradio downloads a file whose path in a request is an address; nobody needs that here, and it would be a way to make
this machine ask others.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["NoDownloads"]

#: Bytes of a request that is no upload.
MOST_BYTES = 1 << 22


class NoDownloads:
    """ASGI middleware: JSON bodies with a ``path`` or ``url`` elsewhere, or too long, are answered with 400 or 413."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST" or not _is_json(scope):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False) and message["type"] == "http.request"
            if len(body) > MOST_BYTES:
                await _refuse(send, 413, "This request is too long.")
                return
        if _fetches(_parsed(body)):
            await _refuse(send, 400, "Files are uploaded here, not fetched: with gradio_client, handle_file of a file.")
            return
        await self.app(scope, _replayed(body, receive), send)


def _is_json(scope: Any) -> bool:
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    return not any(kind.startswith(b"multipart/") for kind in kinds)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # the server's own parser will say so


def _fetches(value: Any) -> bool:
    """Whether anything in it is a file that lies elsewhere."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if any(_is_elsewhere(one.get(key)) for key in ("path", "name")):
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False


def _is_elsewhere(text: Any) -> bool:
    return isinstance(text, str) and "://" in text.strip()[:20]


async def _refuse(send: Any, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Any) -> Any:
    """A ``receive`` that gives the body once more, then what comes after it."""
    first = True

    async def again() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
