"""`python -m export`: the same as `segserve-export`."""

from export.cli import main

main(prog_name="python -m export")
