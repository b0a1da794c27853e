"""A study's table: our rows with their spread over seeds, the paper's beside them, and the paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.statistics import MIN_SEEDS_FOR_VERDICT, Summary, paired_differences, summarise
from ablations.study import Study
from cornernet.files import atomic_write

__all__ = ["Context", "StudyTable", "study_table", "write_reports"]

NOT_MEASURED = "not measured"
NOT_RUN = "not run"

Records = Mapping[tuple[str, str, int], dict[str, Any] | None]
"""The record of each (study, variant, seed); None where the job did not run or failed."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reader needs to know of a run of studies as a whole."""

    profile: str
    data: str
    command: str
    seeds: tuple[int, ...]
    areas: tuple[int, int, int]
    """Small, medium and large objects evaluated on."""


@dataclass(frozen=True)
class StudyTable:
    """One study's results: a row for each variant and contrast, values in percent.

    ``rows`` are plain data, as in the JSON: ``label``, ``kind`` (variant or difference), ``values`` (metric to the
    value under each seed), ``latency`` (milliseconds an image under each seed) and ``paper`` (metric to the printed
    figure, or None).
    """

    study: Study
    context: Context
    rows: list[dict[str, Any]]
    true_corners: dict[str, int] | None = None
    """How many true corners each corner metric is measured on, where there are any."""

    def to_frame(self) -> pd.DataFrame:
        """Return the table in long form: a line for each row, metric and seed, and for the paper's figures."""
        lines = []
        for row in self.rows:
            for metric in self.study.metrics:
                for seed, value in row["values"][metric].items():
                    lines.append((row["label"], row["kind"], metric, "ours", seed, value))
                if row["paper"] is not None and metric in row["paper"]:
                    lines.append((row["label"], row["kind"], metric, "paper", "", row["paper"][metric]))
        return pd.DataFrame(lines, columns=["row", "kind", "metric", "source", "seed", "percent"])

    def to_markdown(self) -> str:
        """Return the table with its heading and what may be concluded from it."""
        header = ["", *self.study.metrics, *(["ms an image"] if self.study.latency else []), "seeds"]
        body = []
        for row in self.rows:
            name = row["label"] if row["kind"] == "variant" else f"*difference: {row['label']}*"
            signed = row["kind"] == "difference"
            summaries = [summarise(list(row["values"][metric].values())) for metric in self.study.metrics]
            ran = [seed for seed in self.context.seeds if seed in row["seeds"]]
            cells = [_cell(s, signed) if ran else NOT_RUN for s in summaries]
            latency = [_cell(summarise(list(row["latency"].values())), signed)] if self.study.latency else []
            body.append([name, *cells, *latency, str(len(ran))])
            if row["paper"] is not None:
                sign = "+" if signed else ""
                printed = [f"{row['paper'][m]:{sign}.1f}" if m in row["paper"] else "" for m in self.study.metrics]
                body.append(["&emsp;the paper, COCO", *printed, *("" for _ in latency), ""])
        frame = pd.DataFrame(body, columns=header)
        number = "" if self.study.table is None else f"Table {self.study.table}. "
        return "\n\n".join(
            [
                f"### {number}{self.study.title}",
                self.study.question,
                frame.to_markdown(index=False, disable_numparse=True),
                self._footnote(),
            ]
        )

    def _footnote(self) -> str:
        lines = [
            f"Ours: {self.context.data}, profile `{self.context.profile}`; mean ± standard deviation over seeds, in "
            "percent; differences are paired by seed. A small-budget run, not COCO: compare signs and sizes of "
            "differences with the paper's, not levels.",
            "Objects evaluated on: {} small, {} medium, {} large.".format(*self.context.areas),
        ]
        if self.true_corners is not None:
            counts = ", ".join(f"{self.true_corners[m]} for {m}" for m in self.study.metrics if m in self.true_corners)
            lines.append(f"Corners evaluated on: {counts}.")
        for row in self.rows:
            if row["kind"] == "difference":
                primary = self.study.metrics[0]
                per_seed = row["values"][primary]
                each = ", ".join(f"seed {seed}: {value:+.1f}" for seed, value in per_seed.items()) or NOT_RUN
                lines.append(f"{primary}, {row['label']}: {each}.")
        fewest = min(len(row["seeds"]) for row in self.rows)
        if fewest < MIN_SEEDS_FOR_VERDICT:
            lines.append(f"Too few seeds for a verdict ({fewest}; {MIN_SEEDS_FOR_VERDICT} are needed).")
        return "  \n".join(lines)


def study_table(study: Study, records: Records, context: Context) -> StudyTable:
    """Return a study's table from the records of its jobs."""
    values: dict[str, dict[str, dict[int, float | None]]] = {}
    rows: list[dict[str, Any]] = []
    papers: dict[str, dict[str, float] | None] = {}
    latencies: dict[str, dict[int, float | None]] = {}
    for variant in study.variants:
        found = {seed: records.get((study.name, variant.name, seed)) for seed in context.seeds}
        values[variant.name] = {
            metric: {seed: _percent(r["metrics"][metric]) for seed, r in found.items() if r is not None}
            for metric in study.metrics
        }
        latencies[variant.name] = {
            seed: r["latency"]["milliseconds"] for seed, r in found.items() if r is not None and "latency" in r
        }
        papers[variant.name] = study.paper_figures(variant)
        seeds = [seed for seed, record in found.items() if record is not None]
        rows.append(
            {
                "label": variant.name,
                "kind": "variant",
                "seeds": seeds,
                "values": values[variant.name],
                "latency": latencies[variant.name],
                "paper": papers[variant.name],
            }
        )
    for contrast in study.contrasts:
        ours, base = values[contrast.variant], values[contrast.base]
        theirs, theirs_base = papers[contrast.variant], papers[contrast.base]
        differences = {metric: paired_differences(ours[metric], base[metric]) for metric in study.metrics}
        paired = [seed for seed in context.seeds if all(seed in values[c][study.metrics[0]] for c in _sides(contrast))]
        rows.append(
            {
                "label": f"{contrast.variant} less {contrast.base}",
                "kind": "difference",
                "seeds": paired,
                "values": differences,
                "latency": paired_differences(latencies[contrast.variant], latencies[contrast.base]),
                # of the printed rows: the paper's own improvement row does not equal them
                "paper": {m: round(theirs[m] - theirs_base[m], 1) for m in theirs}
                if theirs is not None and theirs_base is not None
                else None,
            }
        )
    # the same in every record: all are evaluated on the same data
    counts = (r.get("true_corners") for (name, _, _), r in records.items() if name == study.name and r is not None)
    return StudyTable(study, context, rows, next((each for each in counts if each is not None), None))


def _sides(contrast: Any) -> tuple[str, str]:
    return contrast.variant, contrast.base


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _cell(summary: Summary, signed: bool) -> str:
    if summary.count == 0:
        return NOT_MEASURED
    mean = f"{summary.mean:{'+' if signed else ''}.1f}"
    return mean if math.isnan(summary.deviation) else f"{mean} ± {summary.deviation:.1f}"


def write_reports(folder: Path, tables: Sequence[StudyTable], records: Records, context: Context) -> None:
    """Write each table as Markdown and CSV, all of it as results.json, and a README.md that shows the tables."""
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for table in tables:
        atomic_write(folder / "tables" / f"{table.study.name}.md", table.to_markdown() + "\n")
        atomic_write(folder / "tables" / f"{table.study.name}.csv", table.to_frame().to_csv(index=False))
    results = {
        "context": {
            "profile": context.profile,
            "data": context.data,
            "command": context.command,
            "seeds": list(context.seeds),
            "areas": list(context.areas),
        },
        "tables": [
            {
                "study": table.study.name,
                "table": table.study.table,
                "title": table.study.title,
                "unit": "percent",
                "rows": [{**row, **_with_text_keys(row)} for row in table.rows],
            }
            for table in tables
        ],
        "runs": [
            {"study": study, "variant": variant, "seed": seed, **record}
            for (study, variant, seed), record in records.items()
            if record is not None
        ],
    }
    atomic_write(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    body = [f"# Profile `{context.profile}` on {context.data}", *(table.to_markdown() for table in tables)]
    body += ["## How it was made", f"`{context.command}`", _made_with(records)]
    atomic_write(folder / "README.md", "\n\n".join(body) + "\n")


def _with_text_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row holds by seed, with the seeds as text, as JSON has them."""
    values = {metric: {str(seed): value for seed, value in each.items()} for metric, each in row["values"].items()}
    return {"values": values, "latency": {str(seed): value for seed, value in row["latency"].items()}}


def _made_with(records: Records) -> str:
    """Return a table of where and how fast the runs were."""
    lines = []
    for (study, variant, seed), record in records.items():
        if record is None:
            lines.append([study, variant, seed, NOT_RUN, "", "", "", ""])
            continue
        made = record["provenance"]
        training = record["config"]["training"]
        lines.append(
            [
                study,
                variant,
                seed,
                training["iterations"],
                "resumed" if record["seconds"]["training"] is None else round(record["seconds"]["training"]),
                made["processor"],
                made["versions"]["torch"],
                made["revision"],
            ]
        )
    columns = ["study", "variant", "seed", "iterations", "seconds", "processor", "torch", "revision"]
    return str(pd.DataFrame(lines, columns=columns).to_markdown(index=False, disable_numparse=True))
