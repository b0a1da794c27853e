"""The kernels' figure: ratio to the memory floor, by implementation, from published benchmark rows.

``python -m benchmarks.figure reports/benchmarks/DEVICE.json`` draws reports/benchmarks/DEVICE.svg beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.results import read_rows

SHAPES = {"[1, 128, 128, 128]": [1, 128, 128, 128], "[4, 128, 128, 128]": [4, 128, 128, 128]}
MODES = {"forward": "forward", "both": "forward + backward"}


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the measured float32 rows at the paper's sizes in long form."""
    lines = [
        {
            "implementation": row["implementation"],
            "mode": MODES[row["mode"]],
            "maps": f"{name}\n{row['layout']}",
            "ratio": row["ratio"],
            "lower": row["ratio_lower"],
            "upper": row["ratio_upper"],
        }
        for row in rows
        for name, shape in SHAPES.items()
        if row["status"] == "ok" and row["dtype"] == "float32" and list(row["shape"]) == shape and row["mode"] in MODES
    ]
    return pd.DataFrame(lines)


def draw(path: Path) -> Path:
    """Draw the figure of a published file and return where it is. The same rows give the same bytes."""
    rows = read_rows(path)
    data = frame(rows)
    if data.empty:
        raise ValueError(f"{path}: no measured float32 rows at {' or '.join(SHAPES)}")
    order = data.groupby("implementation")["ratio"].median().sort_values().index.tolist()
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cornernet-lab"})
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(1, len(MODES), figsize=(10, 4), sharey=True)
    for axis, mode in zip(axes, MODES.values(), strict=True):
        part = data[data["mode"] == mode]
        sns.stripplot(
            part, x="maps", y="ratio", hue="implementation", hue_order=order, dodge=True, size=7, jitter=False, ax=axis
        )
        axis.set_yscale("log")
        axis.axhline(1, color="black", linewidth=1)
        axis.set(title=mode, xlabel="", ylabel="times the memory floor")
        axis.tick_params(axis="x", labelsize=8)
    axes[0].get_legend().remove()
    axes[1].legend(title="", fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"Corner pooling, float32, {rows[0]['device']}, {rows[0]['threads']} threads", fontsize=10)
    figure.tight_layout()
    target = path.with_suffix(".svg")
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m benchmarks.figure reports/benchmarks/DEVICE.json")
    print(draw(Path(sys.argv[1])))
