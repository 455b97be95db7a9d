"""`python -m ingester` is `ingester`."""

from ingester.cli import main

main(prog_name="ingester")
