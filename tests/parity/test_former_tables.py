"""The quick profile gives the metrics that it gave before. The session ``build`` compares ``smoke`` likewise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cornernet.ablations.__main__ import main
from cornernet.training.revision import TRAINING_REVISION
from tests.former_tables import FORMER, compare


@pytest.mark.slow
@pytest.mark.thorough
def test_the_quick_profile_gives_the_former_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--profile", "quick", "--out", "tables"]) == 0
    said = compare("quick", tmp_path / "runs" / "ablations")
    if said.startswith("not compared"):
        pytest.skip(said)
    assert said == "the same metrics as before, 4 of 4 records"


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_a_changed_digit_and_a_missing_record_are_noticed(profile: str, tmp_path: Path) -> None:
    former = json.loads(FORMER.read_text(encoding="utf-8"))[profile]
    assert former["revision"] == TRAINING_REVISION

    def write(key: str, metrics: dict[str, float], processor: str = former["processor"]) -> Path:
        tree = {"evaluation_key": key, "metrics": metrics, "provenance": {"processor": processor}}
        path = tmp_path / "evaluations" / f"{key}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(tree), encoding="utf-8")
        return path

    paths = [write(key, metrics) for key, metrics in former["metrics"].items()]
    assert compare(profile, tmp_path) == f"the same metrics as before, {len(paths)} of {len(paths)} records"
    key, metrics = next(iter(former["metrics"].items()))
    write(key, {**metrics, "AP": metrics["AP"] + 1e-9})
    with pytest.raises(ValueError, match=f"{key} had"):
        compare(profile, tmp_path)
    (tmp_path / "evaluations" / f"{key}.json").unlink()
    with pytest.raises(ValueError, match="has None"):
        compare(profile, tmp_path)
    for each, values in former["metrics"].items():
        write(each, values, "another")
    assert compare(profile, tmp_path).startswith("not compared")
