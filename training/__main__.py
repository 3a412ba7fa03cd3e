"""`python -m training`: the same as `segserve-train`."""

from training.cli import main

main(prog_name="python -m training")
