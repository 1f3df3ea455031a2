"""``python -m ddfm``: the command line."""

from ddfm.cli import main

main()
