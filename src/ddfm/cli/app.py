"""``ddfm app``: the web page."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ddfm.cli._shared import Device, say

__all__ = ["serve"]

Auth = Annotated[
    str | None,
    typer.Option("--auth", envvar="DDFM_APP_AUTH", help="USER:PASSWORD that visitors must give; several by commas."),
]


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to bind to; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 7860,
    auth: Auth = None,
    device: Device = "auto",
    megabytes: Annotated[float, typer.Option("--max-mb", help="Of one upload.")] = 64,
    megapixels: Annotated[float, typer.Option("--max-mp", help="Megapixels of one picture.")] = 40,
    pairs: Annotated[int, typer.Option("--max-pairs", help="Of one batch.")] = 200,
    waiting: Annotated[int, typer.Option("--max-waiting", help="Requests in the queue.")] = 64,
    minutes: Annotated[float, typer.Option("--keep-minutes", help="After which results are deleted.")] = 60,
    gigabytes: Annotated[float, typer.Option("--max-gb", help="Of all uploads and results at a time.")] = 8,
    allow: Annotated[
        list[str] | None, typer.Option("--allow-host", help="Name that a proxy asks by; again for more.")
    ] = None,
) -> None:
    """Serve the web page on this machine: drop two pictures, fuse, compare, explain, download. Ctrl-C ends it."""
    from ddfm.app.limits import Limits
    from ddfm.app.serving import Server, serving

    limits = Limits(megabytes, megapixels, pairs, waiting, minutes, gigabytes=gigabytes)
    server = Server(host, port, parse_auth(auth), device, limits, tuple(allow or ()))
    if server.is_open:
        say(f"warning: anybody who reaches {host} can use this server; give --auth USER:PASSWORD", "yellow")
    with serving(server) as address:
        say(f"ddfm app: {address}  (Ctrl-C ends it)")
        while True:
            time.sleep(3600)


def parse_auth(text: str | None) -> tuple[tuple[str, str], ...]:
    """Pairs of user and password. Raises DDFMError without showing either."""
    from ddfm._checks import problem

    if text is None:
        return ()
    found = [tuple(part.split(":", 1)) for part in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in found):
        raise problem("--auth", "something else", "USER:PASSWORD, several by commas", "It is not shown here.")
    return tuple((user, password) for user, password in found)
