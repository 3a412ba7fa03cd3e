"""`python -m segserve`: the same as `segserve`."""

from segserve.cli import main

main(prog_name="segserve")
