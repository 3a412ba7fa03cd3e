"""The extended run: engines for many machines, which install other people's packages and take a while."""
