"""`python -m service`: the same as `segserve serve`."""

from service.cli import serve

serve(prog_name="python -m service")
