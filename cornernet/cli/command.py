"""A command of ``cornernet``: one row of the table in ``cornernet.cli.dispatch``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import tyro

__all__ = ["Command"]

T = TypeVar("T")


@dataclass(frozen=True)
class Command:
    """What the dispatcher knows about a command.

    ``module`` is imported only when the command is called, so that ``cornernet --help`` does not import torch.
    """

    name: str
    """One word, or two for ``data ...``."""
    summary: str
    """One line for the list of commands, and the first line of the command's own help."""
    example: str
    """A command line, shown in the command's own help."""
    module: str
    function: str = "run"
    """``function(command, argv)`` in ``module`` runs the command and returns its exit status."""

    def run(self, argv: Sequence[str]) -> int:
        """Import the command's module, run the command on ``argv`` and return its exit status."""
        status: int = getattr(importlib.import_module(self.module), self.function)(self, argv)
        return status

    def parse(self, arguments: type[T], argv: Sequence[str], default: T | None = None) -> T:
        """Return ``argv`` parsed as the dataclass ``arguments``; fields that are not given are those of ``default``.

        Prints the help, or what is wrong, and raises ``SystemExit`` for ``--help`` and for a wrong command line.
        """
        return tyro.cli(
            arguments,
            prog=f"cornernet {self.name}",
            description=f"{self.summary}\n\nExample: {self.example}",
            args=list(argv),
            default=tyro.MISSING_NONPROP if default is None else default,
            config=(tyro.conf.AvoidSubcommands,),
        )

    def read_first(self, flags: type[T], argv: Sequence[str], default: T | None = None) -> T:
        """Return the flags of the dataclass ``flags`` in ``argv``, ignoring everything else in it, ``--help`` too.

        For flags that decide the defaults of others: :meth:`parse` reads them again, with all the rest. ``arguments``
        there inherits from ``flags`` here, so that each flag is declared once.
        """
        found: tuple[T, list[str]] = tyro.cli(
            flags,
            prog=f"cornernet {self.name}",
            args=list(argv),
            default=tyro.MISSING_NONPROP if default is None else default,
            add_help=False,
            return_unknown_args=True,
        )
        return found[0]
