"""The commands of `segserve-export`, one a file."""
