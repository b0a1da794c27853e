"""The tables of trainings today are those of commit 9336543, before the files moved: to the last digit that it wrote.

Bit equality is promised on one type of machine, so this is skipped where the processor is another one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from cornernet.ablations.__main__ import main
from cornernet.ablations.records.provenance import processor

FORMER = json.loads((Path(__file__).parent / "data" / "former_tables.json").read_text(encoding="utf-8"))
"""By profile: the processor, and by study, variant, metric and seed the value in percent."""


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["smoke", pytest.param("quick", marks=pytest.mark.thorough)])
def test_trainings_give_the_former_tables(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    former = dict(FORMER[profile])
    made_on = former.pop("_")["processor"]
    if [processor(torch.device("cpu"))] != made_on:
        pytest.skip(f"the former tables were made on {made_on[0]}: bits are promised on one type of machine")
    assert main(["--profile", profile, "--out", "tables", "--no-records"]) == 0
    tables = json.loads((tmp_path / "tables" / "results.json").read_text(encoding="utf-8"))["tables"]
    now = {
        table["study"]: {row["label"]: row["values"] for row in table["rows"] if row["kind"] == "variant"}
        for table in tables
    }
    assert now == former
    values = [v for study in now.values() for row in study.values() for metric in row.values() for v in metric.values()]
    assert sum(value is not None and math.isfinite(value) for value in values) > 10
