"""``cornernet ablate``: the command line of the ablations."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from cornernet.cli.command import Command

__all__ = ["run"]


def run(command: Command, argv: Sequence[str]) -> int:  # noqa: ARG001 - every command is called with its row
    """Run the ablations' command line and return its exit status."""
    # by its name: cornernet.ablations imports cornernet, and nothing in cornernet imports it
    ablations = importlib.import_module("cornernet.ablations.__main__")
    return int(ablations.main(argv))
