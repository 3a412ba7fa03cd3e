"""`python -m export`: the same as `segserve-export`."""

from export.cli import main as command


def main(name: str = "segserve-export") -> None:
    """Run the command line; a command whose packages are not installed says how to install them."""
    command(prog_name=name)


if __name__ == "__main__":
    main("python -m export")
