"""``cornernet report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from cornernet.cli.command import Command
from cornernet.cli.start import load
from cornernet.config import ConfigError
from cornernet.console import printable
from cornernet.files import Output

__all__ = ["ReportArguments", "run"]


@dataclass(frozen=True)
class ReportArguments:
    """The arguments of ``cornernet report``."""

    run: tyro.conf.Positional[Path]
    """A run's folder, written by cornernet train."""
    out: Path | None = None
    """File to write. Default: report.html in the run's folder."""
    images: int = 3
    """How many of the best and of the worst images to show. 0 needs no data."""
    other_data: bool = False
    """Show images also where the data at the run's path is not what the run was trained with."""
    overwrite: bool = False
    """Replace the file if it exists; one that this command wrote is replaced anyway."""


def run(command: Command, argv: Sequence[str]) -> int:
    """Write the page."""
    arguments = command.parse(ReportArguments, argv)
    if arguments.images < 0:
        raise ConfigError(f"--images is {arguments.images}; use 0 or more")
    out = arguments.run / "report.html" if arguments.out is None else arguments.out
    run = arguments.run
    output = Output(out.parent, "report", overwrite=arguments.overwrite)
    output.require([out.name])

    from cornernet.training.report import run_page
    from cornernet.weights.unfinished import has_weights

    detector = load(str(run), None) if (run / "config.json").is_file() and has_weights(run) else None
    output.write(out.name, run_page(run, arguments.images, detector, other_data=arguments.other_data))
    print(f"the page is {printable(out)}")
    return 0
