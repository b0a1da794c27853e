"""``python -m ablations.reporting``: rebuild every published folder from its records; ``--check``: list stale files.

Reads only reports/records/PROFILE-DATA/*.json, reports/benchmarks/*.json and the manifests of reports/pictures/. The
exit status is 1 where ``--check`` finds a stale file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cornernet.console import count, ended_by_its_reader, error_text, printable, survive_any_encoding

from .folder import render, stale, write_files
from .index import index_markdown
from .kernels_report import kernel_files, read_benchmarks
from .pictures import placed_pictures
from .report import published_report
from .speed_report import SUITES, read_speeds, speed_files

__all__ = ["main", "render_all"]

_NOT_FOLDERS = ("records", "benchmarks", "pictures")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Rebuild every published folder of results from the committed records and benchmarks."""

    reports: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("reports")
    """The folder of all reports."""
    check: bool = False
    """Write nothing; list the files that would change, and exit with 1 if there are any."""
    overwrite: bool = False
    """Also replace and remove files that no earlier call on this machine wrote, such as those of a clone."""


@ended_by_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0; 1 for stale files; 2 for what cannot be done."""
    survive_any_encoding()
    arguments = tyro.cli(
        Arguments,
        prog="python -m ablations.reporting",
        args=None if argv is None else list(argv),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        if not arguments.reports.is_dir():
            raise ValueError(f"there is no folder {arguments.reports}; run this from the root of the repository")
        folders, notes = render_all(arguments.reports)
        wrong = [folder / path for folder, files in folders.items() for path in stale(folder, files)]
        if not arguments.check:
            for folder, files in folders.items():
                left = write_files(folder, files, overwrite=arguments.overwrite)
                notes += [f"{folder / path} is left: it is not generated, and no call wrote it" for path in left]
    except (OSError, ValueError) as error:
        print(f"reporting: error: {error_text(error)}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"reporting: {printable(note)}", file=sys.stderr)
    total = sum(map(len, folders.values()))
    if not arguments.check:
        print(f"reporting: {count(total, 'file')}, {len(wrong)} of them changed")
        return 0
    for path in wrong:
        print(f"reporting: {printable(path)} is stale: the records give other content", file=sys.stderr)
    if wrong:
        stale_files = count(len(wrong), "stale file")
        print(f"reporting: {stale_files}; rebuild with: nox -s report", file=sys.stderr)
        return 1
    print(f"reporting: {count(total, 'file')}, all up to date with the records")
    return 0


def render_all(reports: Path) -> tuple[dict[Path, dict[str, bytes]], list[str]]:
    """Return the files of each folder generated below ``reports``, and a sentence for each thing left out."""
    names = sorted(path.name for path in (reports / "records").glob("*") if path.is_dir())
    notes: list[str] = []
    made, folders = {}, {}
    for name in names:
        pictures, missing = placed_pictures(reports / "pictures" / name)
        try:
            made[name] = published_report(reports / "records" / name)
        except ValueError as error:
            notes.append(f"records/{name} is left out: {error}")
            continue
        notes += [f"records/{name}: {line}" for line in (*made[name].broken, *missing)]
        folders[reports / name] = render(made[name], pictures, missing)
    kernels, speeds = [], []
    for path in sorted((reports / "benchmarks").glob("*.json")):
        try:
            if path.stem.endswith(tuple(f"-{suite}" for suite in SUITES)):
                speeds.append(read_speeds(path))
            else:
                kernels.append(read_benchmarks(path))
        except ValueError as error:
            notes.append(str(error))
    files: dict[str, bytes] = {}
    for each in kernels:
        files |= kernel_files(each)
    for suite in speeds:
        files |= speed_files(suite)
    if files:
        folders[reports / "benchmarks"] = files
    others = [path.parent.name for path in sorted(reports.glob("*/results.json")) if path.parent.name not in names]
    index = index_markdown(made, kernels, speeds, notes, [name for name in others if name not in _NOT_FOLDERS])
    folders[reports] = {"README.md": index.encode()}
    return folders, notes


if __name__ == "__main__":
    sys.exit(main())
