"""Read the output of ``pytest benchmarks --benchmark-json=out.json`` and publish it.

``python -m benchmarks.results out.json reports/benchmarks`` writes reports/benchmarks/<device>.json: the same rows, one
per line, with the plugin's statistics reduced to a few figures. Several files, slices of one run, are merged. If two of
them contain the same row, the later file wins. All must come from the same device, threads and versions.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import FIELDS
from benchmarks.stages import STAGE_FIELDS
from cornernet.console import printable, survive_any_encoding
from cornernet.files import atomic_write

STATUSES = ("ok", "error", "unavailable", "not measured")
_FIGURES = ("bytes_moved", "gigabytes_per_second", "ratio", "ratio_lower", "ratio_upper", "milliseconds")
_COMMON = ("device", "threads", "versions")  # the same in every row of a run, so stored once


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a raw or published file. Raises ``ValueError``, naming file and row, for a malformed row."""
    content = json.loads(path.read_text(encoding="utf-8"))
    common = content.get("common", {})
    rows = [{**common, **each["extra_info"]} for each in content["benchmarks"] if "status" in each["extra_info"]]
    for row in rows:
        what = f"{path}: row {row.get('implementation')} {row.get('mode')} {row.get('shape')}"
        fields, figures = (STAGE_FIELDS, ("milliseconds",)) if "suite" in row else (FIELDS, _FIGURES)
        missing = set(fields) - set(row)
        if missing:
            raise ValueError(f"{what}: the fields {sorted(missing)} are missing; run the benchmarks again")
        if row["status"] not in STATUSES:
            raise ValueError(f"{what}: status must be one of {', '.join(STATUSES)}, not {row['status']!r}")
        if (row["status"] == "ok") != all(row[field] is not None for field in figures):
            raise ValueError(f"{what}: status {row['status']!r} and its figures contradict each other")
        if row["status"] != "ok" and not row["reason"]:
            raise ValueError(f"{what}: no figures, and no reason given")
    return rows


def publish(sources: Sequence[Path], folder: Path) -> Path:
    """Write the rows of ``sources`` to ``folder``/<device>.json, one row per line, and return the path.

    Rows of a suite, ``inference`` or ``training``, go to <device>-<suite>.json. One call publishes one suite.

    Raises ``ValueError``, naming the file, if it has no rows, or comes from another device, threads or versions.
    """
    merged: dict[str, dict[str, Any]] = {}
    suites: set[str | None] = set()
    common: dict[str, Any] = {}
    for source in sources:
        rows = read_rows(source)
        if not rows:
            raise ValueError(f"{source}: no rows; run pytest benchmarks --benchmark-json={source}")
        suites |= {row.get("suite") for row in rows}
        if len(suites) > 1:
            raise ValueError(f"{source}: its suite is another than that of {sources[0]}; publish each by itself")
        content = json.loads(source.read_text(encoding="utf-8"))
        merged |= {each["name"]: each for each in content["benchmarks"] if "status" in each["extra_info"]}
        for row in rows:
            common = common or {field: row[field] for field in _COMMON}
            for field in _COMMON:
                if row[field] != common[field]:
                    raise ValueError(
                        f"{source}: {field} is {row[field]!r}, but {common[field]!r} in {sources[0]}; "
                        "publish only what was run alike"
                    )
    lines = []
    for each in merged.values():
        info = {
            field: value for field, value in each["extra_info"].items() if field not in _COMMON and value is not None
        }
        fields = STAGE_FIELDS if "suite" in info else FIELDS
        info = {**dict.fromkeys((f for f in fields if f not in _COMMON), None), **info}
        stats = {field: round(each["stats"][field], 9) for field in ("min", "median", "rounds")}
        lines.append(json.dumps({"name": each["name"], "extra_info": info, "stats": stats}, separators=(",", ":")))
    head = {"datetime": content["datetime"], "common": common}
    text = json.dumps(head, indent=1)[:-2] + ',\n "benchmarks": [\n' + ",\n".join(lines) + "\n ]\n}\n"
    path = folder / (
        re.sub(r"[^a-z0-9]+", "-", common["device"].lower()).strip("-")
        + "".join(f"-{suite}" for suite in suites if suite)
        + ".json"
    )
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)
    return path


if __name__ == "__main__":
    survive_any_encoding()
    if len(sys.argv) < 3:
        raise SystemExit("usage: python -m benchmarks.results out.json [more.json ...] reports/benchmarks")
    *raw, target = map(Path, sys.argv[1:])
    print(printable(publish(raw, target)))
