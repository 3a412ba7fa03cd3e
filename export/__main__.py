"""`python -m export`: the same as `segserve-export`."""

import sys


def main(name: str = "segserve-export") -> None:
    """Run the command line; where the tools are not installed, say how to install them."""
    try:
        from export.cli import main as command
    except ModuleNotFoundError as error:
        sys.exit(f"{name} needs the package {error.name}: install the tools with `make tools`, or `segserve[export]`")
    command(prog_name=name)


if __name__ == "__main__":
    main("python -m export")
