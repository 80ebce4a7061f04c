"""`python -m consilo`: the command line where no script is on the path."""

from __future__ import annotations

from consilo.start import main

main(prog_name="consilo")
