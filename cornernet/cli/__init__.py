"""The command ``cornernet``: a file and a row for each subcommand."""

from cornernet.cli.dispatch import main

__all__ = ["main"]
