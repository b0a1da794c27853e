"""Compares the metrics of a run of studies with those that the same studies had before, to the last digit kept.

``python tests/former_tables.py smoke runs/ablations`` compares the records of a store. It needs no package, so that the
session that builds the wheel can run it. ``--write REVISION`` keeps a store's metrics as those to compare with, for
when training is meant to give other numbers and its revision is raised (cornernet/training/revision.py). Equal bits
are promised on one type of machine: on another processor it compares nothing, and says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FORMER = Path(__file__).parent / "parity" / "former_tables.json"
"""By profile: the processor, the revision, and by evaluation key the metrics."""


def metrics(store: Path) -> tuple[set[str], dict[str, Any]]:
    """The processors of a store's records, and the metrics of each by evaluation key."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(store.glob("evaluations/*.json"))]
    processors = {record["provenance"]["processor"] for record in records}
    return processors, {record["evaluation_key"]: record["metrics"] for record in records}


def compare(profile: str, store: Path) -> str:
    """Return a sentence on the comparison; raises ``ValueError`` for the first record that differs or is missing."""
    former = json.loads(FORMER.read_text(encoding="utf-8"))[profile]
    processors, now = metrics(store)
    if processors != {former["processor"]}:
        here = ", ".join(sorted(processors))
        return f"not compared: the former metrics are of {former['processor']}, these of {here}"
    for key, expected in former["metrics"].items():
        if now.get(key) != expected:
            raise ValueError(f"{key} had {expected}, and has {now.get(key)}")
    return f"the same metrics as before, {len(former['metrics'])} of {len(now)} records"


def write(profile: str, store: Path, revision: int) -> None:
    """Keep a store's metrics as those to compare with."""
    former = json.loads(FORMER.read_text(encoding="utf-8"))
    (processor,), found = metrics(store)
    former[profile] = {"processor": processor, "revision": revision, "metrics": found}
    FORMER.write_text(json.dumps(former, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[3:4] == ["--write"]:
        write(sys.argv[1], Path(sys.argv[2]), int(sys.argv[4]))
    else:
        print(compare(sys.argv[1], Path(sys.argv[2])))
