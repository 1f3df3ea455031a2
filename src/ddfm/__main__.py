"""Where ``ddfm`` and ``python -m ddfm`` begin: so early that Ctrl-C while modules are loaded is no traceback."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The command line; see ``ddfm.cli``."""
    try:
        from ddfm.cli import main as run

        run()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
