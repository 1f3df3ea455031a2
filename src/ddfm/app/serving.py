"""The server: bound to this machine unless told otherwise, with limits, without telemetry."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddfm._checks import DDFMError, problem
from ddfm.app.fence import Fence
from ddfm.app.folders import Folders
from ddfm.app.limits import Limits
from ddfm.app.runs import Desk
from ddfm.config import check_device

__all__ = ["LOCAL", "Server", "serving"]

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True)
class Server:
    """Where and for whom.

    host: to bind to. port: 0 for any that is free. auth: (user, password) pairs, () for none. allow: further names by
    which it may be asked for, as by a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: tuple[tuple[str, str], ...] = ()
    device: str = "auto"
    limits: Limits = dataclasses.field(default_factory=Limits)
    allow: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine's users can come."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_open(self) -> bool:
        """Whether others can come, unasked for a password."""
        return not self.is_local and not self.auth

    @property
    def names(self) -> tuple[str, ...]:
        """By which it may be asked for, () for any."""
        return (*LOCAL, self.host, *map(str.lower, self.allow)) if self.is_local else ()


@contextlib.contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve the page; gives its address. Everything that was uploaded or made is deleted at the end.

    Raises DDFMError without the extra, and for an address that cannot be had.
    """
    check_device(server.device)
    server = dataclasses.replace(server, port=_free_port(server))
    folders = Folders(server.limits.minutes)
    try:
        folders.watch()
        _quiet(folders.uploads)
        desk = Desk()
        page, theme, css = _page(server, folders, desk)
        _, address, _ = page.launch(**_launch_options(server, folders), theme=theme, css=css)
        try:
            yield str(address)
        finally:
            desk.close()
            page.close(verbose=False)
    finally:
        folders.close()


def _free_port(server: Server) -> int:
    """The port, or one that is free for 0; an address that cannot be had is refused at once. Raises DDFMError."""
    if not server.host:
        raise problem("--host", "nothing", "an address of this machine, such as 127.0.0.1")
    try:
        family = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((server.host, server.port))
            return int(tried.getsockname()[1])
    except OSError as error:
        where = f"{server.host}:{server.port} ({error.strerror})"
        expected = "an address of this machine and a port that is free"
        raise problem("--host, --port", where, expected, f"Try --port {server.port + 1}, or 0 for any.") from error


def _quiet(uploads: Path) -> None:
    """No telemetry, no look for newer versions, uploads below our own folder; read by Gradio when it is imported."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(uploads),
        "GRADIO_RUN_HISTORY": "False",
    }


def _page(server: Server, folders: Folders, desk: Desk) -> tuple[Any, Any, str]:
    try:
        import gradio as gr
    except ImportError as error:
        raise DDFMError("gradio: got no such package, expected it. pip install 'ddfm[app]'.") from error
    from ddfm.app import page, pieces
    from ddfm.app.examples import write_examples
    from ddfm.app.handlers import Handlers
    from ddfm.app.studio import Studio

    handlers = Handlers(Studio(server.limits, folders, server.device), folders, desk)
    blocks = page.build(handlers, write_examples(folders.examples))
    blocks.queue(max_size=server.limits.waiting, default_concurrency_limit=2)
    system = ["system-ui", "sans-serif"]  # Gradio's own fonts would be fetched from elsewhere
    theme = gr.themes.Default(primary_hue="teal", font=system, font_mono=["ui-monospace", "monospace"])
    return blocks, theme, pieces.CSS


def _launch_options(server: Server, folders: Folders) -> dict[str, Any]:
    from starlette.middleware import Middleware

    limits = server.limits
    fence = Middleware(
        Fence,
        hosts=server.names,
        allow=tuple(map(str.lower, server.allow)),
        upload_bytes=limits.bytes * limits.unpacked,
        full=lambda: folders.bytes() > limits.gigabytes * 2**30,
    )
    return {
        "server_name": server.host,
        "server_port": server.port,
        "auth": list(server.auth) or None,
        "max_file_size": server.limits.bytes,
        "allowed_paths": [str(folders.requests), str(folders.examples)],  # and nothing else
        "share": False,
        "quiet": True,
        "prevent_thread_lock": True,
        "show_error": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "footer_links": ["api"],
        "run_history": False,
        "max_threads": 16,
        "app_kwargs": {"middleware": [fence]},
    }
