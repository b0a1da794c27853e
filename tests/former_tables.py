"""Compares the tables of a run of studies with those of commit 9336543, to the last digit that they hold.

``python tests/former_tables.py smoke reports/smoke-shapes/results.json``. It needs no package, so that the session that
builds the wheel can run it. Bit equality is promised on one type of machine: on another processor it compares nothing,
and says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FORMER = Path(__file__).parent / "parity" / "former_tables.json"
"""By profile: the processor, and by study, variant, metric and seed the value in percent."""


def values(results: dict[str, Any]) -> dict[str, Any]:
    """The value of each study, variant, metric and seed in the contents of a results.json."""
    return {
        table["study"]: {row["label"]: row["values"] for row in table["rows"] if row["kind"] == "variant"}
        for table in results["tables"]
    }


def compare(profile: str, results: dict[str, Any]) -> str:
    """Return a sentence on the comparison; raises ``ValueError`` for the first study that differs or is missing."""
    former = json.loads(FORMER.read_text(encoding="utf-8"))[profile]
    processors = former.pop("_")["processor"]
    if results["provenance"]["processors"] != processors:
        here = ", ".join(results["provenance"]["processors"])
        return f"not compared: the former tables were made on {processors[0]}, these on {here}"
    now = values(results)
    for study, rows in former.items():
        if now.get(study) != rows:
            raise ValueError(f"{study} was {rows} at commit 9336543, and is {now.get(study)}")
    return f"the same tables as at commit 9336543, {len(former)} of {len(now)}"


if __name__ == "__main__":
    print(compare(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))))
