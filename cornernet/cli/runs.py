"""The runs in ``runs/``: the name of the next one, and the one that ``train --resume`` continues."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from cornernet.config import CocoSource, Config, ConfigError
from cornernet.console import count, printable
from cornernet.data import DataError
from cornernet.data.origin import at_origin
from cornernet.training.run_folder import RunFolder
from cornernet.weights.unfinished import newest

__all__ = ["RUNS", "newest_unfinished", "next_folder"]

RUNS = Path("runs")
"""The folder of runs without --out, where the command is called."""


@dataclass(frozen=True)
class _Run:
    folder: RunFolder
    config: Config

    @property
    def changed(self) -> float:
        """When training last wrote to it."""
        files = (self.folder.config, self.folder.metrics, self.folder.checkpoints)
        return max(path.stat().st_mtime for path in files if path.exists())

    @property
    def iteration(self) -> int:
        """The iteration at which it resumes."""
        checkpoint = newest(self.folder.checkpoints)
        return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def next_folder(stem: str) -> Path:
    """Return the first unused folder runs/STEM-N."""
    number = 1
    while (RUNS / f"{stem}-{number}").exists():
        number += 1
    return RUNS / f"{stem}-{number}"


def newest_unfinished(data: Path | None) -> tuple[Path, str]:
    """Return the run in ``runs/`` that was trained last and is not finished, and a line that says which it is.

    With ``data``, only runs on that folder count. Raises ``ConfigError`` where there is none.
    """
    found = sorted(_runs(data), key=lambda run: run.changed, reverse=True)
    left = [run for run in found if not run.folder.evaluation.exists()]
    of_data = "" if data is None else f" on {printable(data)}"
    if not left:
        finished = f"; {count(len(found), 'run')}{of_data} there {'is' if len(found) == 1 else 'are'} finished"
        raise ConfigError(
            f"there is no unfinished run{of_data} in {RUNS.absolute()}{finished if found else ''}; name the folder of "
            "the run to resume with --out"
        )
    run = left[0]
    line = (
        f"resuming {printable(run.folder)}, the newest unfinished run{of_data} in {RUNS}, from iteration "
        f"{run.iteration} of {run.config.training.iterations}"
    )
    newer = found[: found.index(run)]
    return run.folder.path, line + (f" ({printable(newer[0].folder)} is newer and finished)" if newer else "")


def _runs(data: Path | None) -> list[_Run]:
    found = []
    for path in sorted(RUNS.glob("*/config.json")):
        try:
            config = at_origin(Config.load(path), path.parent)
        except (ConfigError, DataError) as error:
            print(f"warning: passed over {printable(path.parent)}: {error}", file=sys.stderr)
            continue
        source = config.data.source
        if data is None or (isinstance(source, CocoSource) and Path(source.root).resolve() == data.resolve()):
            found.append(_Run(RunFolder(path.parent), config))
    return found
