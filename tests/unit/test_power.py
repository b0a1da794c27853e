"""``python -m ablations power``: what it prints, and where it takes the spread from."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cornernet.ablations.__main__ import main
from tests.unit.published_runs import publish_runs


def printed(capsys, *flags: str) -> str:
    assert main(["power", *flags]) == 0
    return capsys.readouterr().out


def test_it_prints_looks_with_power_and_minutes_and_the_seeds_for_a_power(capsys) -> None:
    out = printed(capsys, "--effect", "2", "--sd", "1.1", "--minutes", "5")
    assert "of a difference 1.56" in out
    rows = re.findall(r"^ +(\d) +(\d+) +(0\.\d+) +([\d.]+)% +([\d.]+)% +(\d+)$", out, re.MULTILINE)
    assert [row[1:3] for row in rows] == [("8", "0.0056"), ("16", "0.0189"), ("24", "0.0392")]
    assert [row[5] for row in rows] == ["40", "80", "120"], "two arms side by side"
    assert [float(row[3]) for row in rows] == sorted(float(row[3]) for row in rows)
    assert re.search(r"for 80%: \d+ seeds in a single look\n", out)
    # a pair of arms that vary together needs fewer
    wanted = [r"for 80%: (\d+) seeds? in a single look"]
    paired = printed(capsys, "--effect", "2", "--sd", "1.1", "--correlation", "0.9")
    assert int(re.findall(wanted[0], paired)[0]) < int(re.findall(wanted[0], out)[0])
    assert "minutes" not in paired


def test_with_several_claims_the_first_is_tested_at_a_smaller_level(capsys) -> None:
    out = printed(capsys, "--effect", "2", "--sd", "1.1", "--claims", "5", "--looks", "12")
    assert "first of 5 claims, tested at 1.0%" in out
    assert re.search(r"^ +1 +12 +0.0100 ", out, re.MULTILINE)
    assert "with looks at the same shares" not in out
    many = printed(capsys, "--effect", "0.5", "--sd", "5")
    assert "for 80%: more than 400 seeds in a single look" in many


def test_the_spread_is_read_from_records_without_a_difference(tmp_path, capsys) -> None:
    publish_runs(tmp_path, "shapes", seeds=(1, 2, 3, 4))
    folder = str(tmp_path / "records" / "standard-shapes")
    # the made-up records have 0.4 points more with every seed
    expected = 0.4 * np.std([1, 2, 3, 4], ddof=1)
    out = printed(capsys, "--effect", "2", "--records", folder)
    assert f"spread of an arm over seeds: {expected:.2f} points (table1, w/ corner pooling, 3 degrees of freedom" in out
    assert "minutes by then" in out, "a training took 100 seconds"
    both = printed(capsys, "--effect", "2", "--records", folder, "--arm", "all")
    assert f"{expected:.2f} points (table1, all, 6 degrees of freedom" in both
    assert "+5.0" not in both, "the difference between the arms"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--effect", "2"], "give either --sd"),
        (["--effect", "0", "--sd", "1"], "--effect is 0.0; use a number but 0"),
        (["--effect", "1", "--sd", "-1"], "--sd is -1.0; use more than 0"),
        (["--effect", "1", "--sd", "1", "--looks", "8", "8"], "--looks, --spending and --margin: looks are numbers"),
        (["--effect", "1", "--sd", "1", "--looks", "1", "8"], "use numbers from 2"),
        (["--effect", "1", "--sd", "1", "--correlation", "1"], "--correlation is 1.0"),
        (["--effect", "1", "--records", "nowhere-shapes"], "there is no folder of records nowhere-shapes"),
        (["--effect", "1", "--records", "."], "must be called PROFILE-DATA"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_flag(flags, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["power", *flags]) == 2
    assert message in capsys.readouterr().err


def test_an_arm_without_records_or_that_is_none_is_named(tmp_path, capsys) -> None:
    publish_runs(tmp_path, "shapes", seeds=(1, 2))
    folder = str(tmp_path / "records" / "standard-shapes")
    assert main(["power", "--effect", "2", "--records", folder]) == 2
    assert "2 seeds of AP in table1, w/ corner pooling; a spread needs three or more" in capsys.readouterr().err
    assert main(["power", "--effect", "2", "--records", folder, "--arm", "nobody"]) == 2
    assert "there is no row 'nobody'; use one of: w/o corner pooling, w/ corner pooling, all" in capsys.readouterr().err
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["records"], "it writes nothing"
