"""Pages of the corner pooling benchmark: a figure and tables from the rows in ``reports/benchmarks/DEVICE.json``.

Times are ratios to the memory floor, measured alternately in the same process (``benchmarks/measure.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cornernet.console import count
from cornernet.drawing.html import Cell, Table

from .figures.style import Drawing, drawing, legend, look, subplots
from .grid import Grid, Row
from .provenance import measured_with
from .templating import render_template

__all__ = ["KernelReport", "kernel_files", "read_benchmarks"]

MODES = {"forward": "forward", "both": "forward + backward", "backward": "backward"}
DRAWN = ("forward", "both")
_FIELDS = ("implementation", "mode", "shape", "dtype", "layout", "status", "ratio", "ratio_lower", "ratio_upper")
_COLUMNS = ["shape", "dtype", "layout", "implementation", "mode", "ratio", "lower", "upper", "ms", "GB/s", "status"]
_HOW = (
    "Times are multiples of the memory floor, which is torch.add of the same two maps into a new one. Each is the "
    "median over pairs timed alternately in one process, with quartiles."
)


@dataclass(frozen=True)
class KernelReport:
    """The benchmark rows of one device, and how they were measured."""

    name: str
    """Name of the JSON file, without its suffix."""
    device: str
    threads: int
    date: str
    versions: dict[str, str]
    data: pd.DataFrame

    def floor_ratios(self) -> Grid:
        """Return the ratios at the paper's map size for contiguous float32, a row for each implementation."""
        part = self.data[
            (self.data["dtype"] == "float32")
            & (self.data["layout"] == "contiguous")
            & self.data["shape"].isin(["1×128×128×128", "4×128×128×128"])
        ]
        columns = [(shape, mode) for shape in dict.fromkeys(part["shape"]) for mode in MODES.values()]
        rows = []
        for name in dict.fromkeys(part["implementation"]):
            own = part[part["implementation"] == name].set_index(["shape", "mode"])
            cells = []
            for column in columns:
                line = own.loc[column] if column in own.index else None
                if line is None or pd.isna(line["ratio"]):
                    cells.append(Cell("not measured" if line is None else str(line["status"])))
                else:
                    text = f"{line['ratio']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}]"
                    cells.append(Cell(text, sort=float(line["ratio"])))
            rows.append(Row(name, "variant", tuple(cells)))
        return Grid(tuple(f"{shape}, {mode}" for shape, mode in columns), tuple(rows))


def read_benchmarks(path: Path) -> KernelReport:
    """Return the benchmark rows in a JSON file. Raises ``ValueError`` that names the file and the fix."""
    fix = "publish it again by python -m benchmarks.results"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        common, rows = content["common"], [each["extra_info"] for each in content["benchmarks"]]
        missing = [name for row in rows for name in _FIELDS if name not in row]
        if missing or not rows:
            raise ValueError(f"a row lacks the field {missing[0]!r}" if missing else "it has no rows")
        lines = [_line(row) for row in rows]
        data = pd.DataFrame(lines, columns=_COLUMNS)
        return KernelReport(
            path.stem, common["device"], common["threads"], content["datetime"], common["versions"], data
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} holds no rows of the corner pooling benchmark: {error}; {fix}") from error


def _line(row: dict[str, Any]) -> list[Any]:
    shape = "×".join(map(str, row["shape"]))
    status = row["status"] if row["status"] == "ok" else f"{row['status']}: {row.get('reason')}"
    mode = MODES.get(row["mode"], row["mode"])
    values = [row.get(name) for name in ("ratio", "ratio_lower", "ratio_upper", "milliseconds", "gigabytes_per_second")]
    return [shape, row["dtype"], row["layout"], row["implementation"], mode, *values, status]


def kernel_files(report: KernelReport) -> dict[str, bytes]:
    """Return the files of a device by name, to be written beside its JSON: the figure, a Markdown table, and a page."""
    made = _draw(report)
    files = {} if made.svg is None else {f"{report.name}.svg": made.svg}
    values = {
        "report": report,
        "drawing": made,
        "how": _HOW,
        "about": measured_with(report.threads, report.versions, report.date),
    }
    ratios = report.floor_ratios()
    files[f"{report.name}.md"] = render_template("kernels.md.j2", ratios=ratios, **values).encode()
    page = render_template(
        "kernels.html.j2",
        title=f"Corner pooling on {report.device}",
        ratios=ratios.to_table("Contiguous, float32: multiples of the memory floor with quartiles"),
        rows=_all_rows(report),
        **values,
    )
    files[f"{report.name}.html"] = page.encode()
    return files


def _all_rows(report: KernelReport) -> Table:
    lines = report.data.itertuples(index=False)
    rows = [[Cell(str(shape)), *map(_cell, values)] for shape, *values in lines]
    return Table("All rows", ["", *_COLUMNS[1:]], rows, ["variant"] * len(rows))


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(value)
    return Cell("") if pd.isna(value) else Cell(f"{value:.3g}", sort=float(value))


def _draw(report: KernelReport) -> Drawing:
    data = report.data[report.data["ratio"].notna() & report.data["mode"].isin([MODES[mode] for mode in DRAWN])]
    order = data.groupby("implementation")["ratio"].median().sort_values().index.tolist()
    fastest = data[data["implementation"].isin(order[:1])]
    words = "; ".join(
        ", ".join(line[name] for name in ("implementation", "shape", "dtype", "layout", "mode"))
        + f": {line['ratio']:.2f}"
        for line in fastest.head(8).to_dict("records")
    )
    return drawing(
        report.name,
        "",
        f"Time of corner pooling as a multiple of the memory floor, by shape and dtype, on {report.device} with "
        f"{count(report.threads, 'thread')}. Filled markers: contiguous; hollow: channels_last. Logarithmic scale.",
        f"Time as a multiple of the memory floor, for {', '.join(order)}. Fastest: {words}",
        data,
        lambda: _panels(data, order),
        "nothing was measured",
    )


def _panels(data: pd.DataFrame, order: Sequence[str]) -> Figure:
    """Return a figure with a row of panels for each dtype and a column for each mode of :data:`DRAWN`."""
    dtypes = list(dict.fromkeys(data["dtype"]))
    made, axes = subplots(len(dtypes), len(DRAWN), (4 * len(DRAWN), 2.7 * len(dtypes) + 0.6), share_y=True)
    for at, axis in enumerate(axes):
        dtype, mode = dtypes[at // len(DRAWN)], MODES[DRAWN[at % len(DRAWN)]]
        part = data[(data["mode"] == mode) & (data["dtype"] == dtype)]
        _panel(axis, part, order, f"{dtype}, {mode}", data)
        if at % len(DRAWN):
            axis.set_ylabel("")
    legend(made, axes[0])
    return made


def _panel(axis: Axes, part: pd.DataFrame, order: Sequence[str], title: str, everything: pd.DataFrame) -> None:
    shapes = list(dict.fromkeys(everything["shape"]))
    for at, name in enumerate(order):
        colour, marker = look(name, order)
        for layout, hollow in (("contiguous", False), ("channels_last", True)):
            own = part[(part["implementation"] == name) & (part["layout"] == layout)]
            x = [shapes.index(shape) + 0.7 * ((at + 0.5) / len(order) - 0.5) for shape in own["shape"]]
            face = "none" if hollow else colour
            label = None if hollow else name
            axis.scatter(x, own["ratio"], marker=marker, s=26, facecolors=face, edgecolors=[colour], label=label)
    axis.axhline(1, color="black", linewidth=1)
    axis.set(title=title, ylabel="times the memory floor", yscale="log", xlim=(-0.5, len(shapes) - 0.5))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xticks(range(len(shapes)), shapes, rotation=30, ha="right")
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(visible=False, axis="x")
