"""A fence before the server: what no request may do, and what every answer carries.

Gradio downloads a file whose path in a request is an address; nobody needs that here, and it would be a way to make
this machine ask others. It serves uploads from the page's own origin; a browser must not take one for a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["Fence"]

#: Bytes of a request that is no upload.
MOST_BYTES = 1 << 22
#: Kinds of files that a browser may show; everything else is for the disk.
_SHOWN = (b"image/png", b"image/jpeg", b"image/webp", b"image/gif", b"image/bmp", b"video/mp4")
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
_ALWAYS += [(b"content-security-policy", b"frame-ancestors 'self'")]
_FILE = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox; default-src 'none'")]
Headers = list[tuple[bytes, bytes]]


class Fence:
    """ASGI middleware.

    hosts: names by which the server may be asked for, () for any; others would be pages that point their own name
    here. allow: names of pages that may post, besides the server's own. upload_bytes: of one request of uploads. full:
    whether there is no room for more. Refused, with a line on why: other hosts (421), ways past the queue (404), posts
    from pages of other origins (403), bodies with a file that lies elsewhere (400) or too long (413), uploads without
    room for them (507).
    """

    def __init__(
        self,
        app: Any,
        hosts: tuple[str, ...],
        upload_bytes: int,
        full: Callable[[], bool],
        allow: tuple[str, ...] = (),
    ) -> None:
        self.app, self.hosts, self.upload_bytes, self.full, self.allow = app, hosts, upload_bytes, full, allow

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _marked(send, "/file=" in scope["path"] or "/file/" in scope["path"])
        refused = self._refused(scope)
        if not refused and scope["method"] == "POST" and not _is_upload(scope):
            refused, receive = await _checked(receive)
        if refused:
            await _answer(send, *refused)
        else:
            await self.app(scope, receive, send)

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        """What can be told by the head of a request."""
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if self.hosts and _name(host) not in self.hosts:
            return 421, "Unknown host. The server was started for others; see ddfm app --allow-host."
        where = origin.partition("://")[2]
        if scope["method"] == "POST" and origin and where != host and _name(where) not in self.allow:
            return 403, "Posts from pages of another origin are refused; of a proxy's name see ddfm app --allow-host."
        if _path(scope).startswith(("/gradio_api/run/", "/gradio_api/api/")):
            return 404, "Requests wait in the queue: /gradio_api/call/fuse, or gradio_client."
        if _is_upload(scope):
            length = _header(scope, b"content-length")
            if not length.isdigit() or int(length) > self.upload_bytes:
                return 413, f"Uploads of one request may be {self.upload_bytes >> 20} MB in all."
            if self.full():
                return 507, "There is no room for more uploads now. Try again later."
        return None


def _header(scope: Any, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _name(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def _is_upload(scope: Any) -> bool:
    return scope["method"] == "POST" and _path(scope) == "/gradio_api/upload"


def _path(scope: Any) -> str:
    """Without what a proxy put before it."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


async def _checked(receive: Any) -> tuple[tuple[int, str] | None, Any]:
    """Why a body is refused, if it is; and a ``receive`` that gives it once more."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > MOST_BYTES:
            return (413, "This request is too long."), receive
    if _fetches(_parsed(body)):
        return (400, "Files are uploaded here, not fetched: with gradio_client, handle_file of a file."), receive
    return None, _replayed(body, receive)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # no JSON: the server's own parser will say so


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


def _replayed(body: bytes, receive: Any) -> Any:
    """A ``receive`` that gives the body, then what comes after it."""
    first = True

    async def again() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _marked(send: Any, is_file: bool) -> Any:
    """A ``send`` that puts the headers on."""

    async def marking(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            message = {**message, "headers": _as_file(headers) if is_file else headers + _ALWAYS}
        await send(message)

    return marking


def _as_file(headers: Headers) -> Headers:
    """Of a file: for the disk unless it is a picture, and nothing in it may run."""
    kind = next((value for key, value in headers if key.lower() == b"content-type"), b"").split(b";")[0].strip()
    if kind in _SHOWN:
        return headers + _FILE
    kept = [(key, value) for key, value in headers if key.lower() != b"content-disposition"]
    return [*kept, (b"content-disposition", b"attachment"), *_FILE]


async def _answer(send: Any, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
