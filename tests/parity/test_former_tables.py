"""The quick profile gives the table of commit 9336543. The session ``build`` compares ``smoke`` likewise."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cornernet.ablations.__main__ import main
from tests.former_tables import FORMER, compare


@pytest.mark.slow
@pytest.mark.thorough
def test_the_quick_profile_gives_the_former_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--profile", "quick", "--out", "tables"]) == 0
    said = compare("quick", json.loads((tmp_path / "tables" / "results.json").read_text(encoding="utf-8")))
    if said.startswith("not compared"):
        pytest.skip(said)
    assert said == "the same tables as at commit 9336543, 1 of 1"


def test_a_changed_digit_is_noticed() -> None:
    former = json.loads(FORMER.read_text(encoding="utf-8"))["quick"]
    processors = former.pop("_")["processor"]
    rows = [{"label": label, "kind": "variant", "values": values} for label, values in former["table1"].items()]
    results: dict[str, Any] = {
        "provenance": {"processors": processors},
        "tables": [{"study": "table1", "rows": rows}],
    }
    assert compare("quick", results) == "the same tables as at commit 9336543, 1 of 1"
    changed = copy.deepcopy(results)
    changed["tables"][0]["rows"][1]["values"]["AP"]["0"] += 1e-7
    with pytest.raises(ValueError, match="table1 was"):
        compare("quick", changed)
    assert compare("quick", {**results, "provenance": {"processors": ["another"]}}).startswith("not compared")
