"""The extended run: nets that this project did not write, exported and compared."""
