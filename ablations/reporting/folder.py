"""A folder of results: all its files as bytes, which depend only on the report; writing them, and finding stale ones.

README.md is what people see first. index.html shows the same, and more, on one page. tables/ and figures/ are for a
paper. results.json holds everything that is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cornernet.drawing.escapes import csv_escape
from cornernet.files import Output, remove_unfinished

from .contents import Contents
from .figures import Drawing
from .page import index_page
from .pictures import PlacedPicture
from .readme import readme
from .report import Report
from .results import DIGITS, results_json
from .tables import StudyTable
from .verdicts import claims_frame

__all__ = ["GENERATED", "output", "render", "stale", "write_files"]

GENERATED = ("tables", "figures")
"""Folders that hold only generated files: a file in them that is no longer generated is stale."""


def render(report: Report, pictures: Sequence[PlacedPicture] = (), notes: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of a report's folder by their path in it. The same report gives the same bytes.

    ``notes`` are sentences on what was left out in addition to records.
    """
    contents = Contents.of(report, pictures, notes)
    files: dict[str, bytes | str] = {}
    for table in report.tables:
        files |= _tables(table)
    for drawing in contents.drawings:
        files |= _figures(drawing)
    files["results.json"] = results_json(contents)
    files["README.md"] = readme(contents)
    files["index.html"] = index_page(contents)
    return {path: content.encode() if isinstance(content, str) else content for path, content in files.items()}


def _tables(table: StudyTable) -> dict[str, str]:
    start = f"tables/{table.study.name}"
    files = {
        f"{start}.md": table.to_markdown() + "\n",
        f"{start}.csv": _csv(table.to_frame()),
        f"{start}.tex": table.to_latex(),
    }
    if table.judged:
        files[f"{start}-claims.csv"] = _csv(claims_frame(table.judged))
    return files


def _csv(frame: pd.DataFrame) -> str:
    # numbers, also negative ones, stay; texts are those of columns of objects and strings
    texts = frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]
    frame = frame.assign(
        **{name: [csv_escape(cell) if isinstance(cell, str) else cell for cell in frame[name]] for name in texts}
    )
    return str(frame.to_csv(index=False, lineterminator="\n", float_format=f"%.{DIGITS}g"))


def _figures(drawing: Drawing) -> dict[str, bytes]:
    return {} if drawing.svg is None else {f"figures/{drawing.name}.svg": drawing.svg}


def output(folder: Path, overwrite: bool = False) -> Output:
    """Return what writes a folder of results: it replaces the files of an earlier call, and others on ``overwrite``.

    A clone of the repository has committed folders that this machine did not write: results.json tells their files.
    """
    return Output(folder, "ablations", overwrite=overwrite, known=_committed(folder))


def _committed(folder: Path) -> Iterator[str]:
    """Yield the files that the results.json of a folder speaks of; none if it is missing or not ours."""
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        if not {"version", "context", "provenance"} <= set(found):
            return
        tables = [str(table["study"]) for table in found["tables"]]
        figures = [str(figure["name"]) for figure in found["figures"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    yield from ("results.json", "README.md", "index.html")
    for name in tables:
        yield from (f"tables/{name}{ending}" for ending in (".md", ".csv", ".tex", "-claims.csv"))
    for name in figures:
        # figures were PNG files too
        yield from (f"figures/{name}{ending}" for ending in (".svg", ".png"))


def write_files(folder: Path, files: Mapping[str, bytes], *, overwrite: bool = False) -> list[str]:
    """Write the files that differ, and remove files of :data:`GENERATED` that are no longer generated.

    Each file is written atomically. If a call is killed, the next call or a check finds the files that remain stale.
    Returns the files of :data:`GENERATED` that are not generated and stay, because no call wrote them. Raises
    ``OutputError``, before anything is written, for a file in the way that no call wrote, unless ``overwrite`` is set.
    """
    for part in ("", *GENERATED):
        remove_unfinished(folder / part)
    wrong, writer = stale(folder, files), output(folder, overwrite)
    writer.require(path for path in wrong if path in files)
    for path in wrong:
        if path in files:
            writer.write(path, files[path])
    return [path for path in wrong if path not in files and not writer.remove(path)]


def stale(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Return the paths in a folder that are missing, differ from ``files``, or are no longer generated."""
    wrong = [path for path, content in files.items() if not _same(folder / path, content)]
    present = (path for part in GENERATED for path in (folder / part).glob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in present)
    return [*wrong, *sorted(name for name in names if name not in files)]


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
