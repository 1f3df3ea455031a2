"""Where ``ddfm`` and ``python -m ddfm`` begin: so early that Ctrl-C while modules are loaded is no traceback."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """The command line; see ``ddfm.cli``. The process ends with it."""
    try:
        from ddfm._runtime import stop_once

        stop_once()
        from ddfm.cli import main as run

        run()
    except KeyboardInterrupt:
        _be_deaf()
        print("stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        _be_deaf()


def _be_deaf() -> None:
    """All is done: from here on, while Python takes itself down, a signal would be a traceback or another exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
