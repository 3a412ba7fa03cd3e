"""segserve's tests: real parts, offline."""
