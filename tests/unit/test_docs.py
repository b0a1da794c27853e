"""The pages in docs/: the reference is current, figures are drawn, the tutorial runs, links and commands exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import cv2
import pytest
import torch

from cornernet.cli import main
from cornernet.config.reference import main as write_reference
from cornernet.config.reference import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """Import a script from docs/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_current(tmp_path) -> None:
    page = tmp_path / "configuration.md"
    assert write_reference(["--check", "--out", str(page)]) == 1
    assert write_reference(["--out", str(page)]) == 0
    assert write_reference(["--check", "--out", str(page)]) == 0
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == reference(), "stale"


def test_the_reference_has_every_field_with_a_text() -> None:
    page = reference()
    assert "| `penalty_reduction` | `none`, `fixed`, `object` | `object` | Penalty of negative locations" in page
    assert "- `training.iterations` `2400`" in page
    assert not re.findall(r"^\| `(?!kind)\w+` .*\| The kind of this part\. \|$", page, re.MULTILINE)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert all((DOCS / link).exists() for link in targets), targets


def test_the_differences_in_the_readme_are_those_of_the_reports() -> None:
    told = re.findall(r"[+-][0-9.]+ \[[+-][0-9.]+, [+-][0-9.]+\]", (ROOT / "README.md").read_text(encoding="utf-8"))
    tables = (path.read_text(encoding="utf-8") for path in (ROOT / "reports").glob("*/tables/*.md"))
    reported = set(re.findall(r"[+-][0-9.]+ \[[+-][0-9.]+, [+-][0-9.]+\]", "\n".join(tables)))
    assert len(told) > 10
    assert [each for each in told if each not in reported] == []


@pytest.mark.parametrize("page", ["quick-start.md", "your-data.md", "troubleshooting.md", "method.md"])
def test_every_command_and_flag_in_the_pages_exists(page: str, capsys) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert main(["--help"]) == 0
    commands = re.findall(r"^  (data [a-z-]+|[a-z]+) +[A-Z]", capsys.readouterr().out, re.MULTILINE)
    assert set(re.findall(r"^cornernet (data [a-z-]+|[a-z]+)", text, re.MULTILINE)) <= set(commands)
    helps = []
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main([*command.split(), "--help"])
        assert stop.value.code == 0
        helps.append(capsys.readouterr().out)
    known = set(re.findall(r"--[a-z][a-z.-]+", " ".join(helps)))
    theirs = {"--logdir"}  # tensorboard's own
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", text)) - known - theirs == set()


@pytest.mark.slow
def test_the_figures_of_the_method_are_drawn(tmp_path) -> None:
    script("figures").main(tmp_path)
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {path.name for path in (DOCS / "figures").glob("*.png")}
    for name in names:
        drawn, committed = (cv2.imread(str(place / name)) for place in (tmp_path, DOCS / "figures"))
        assert drawn is not None
        assert drawn.shape == committed.shape


@pytest.mark.slow
def test_the_tutorial_runs_from_a_voc_folder_to_a_report(tmp_path, capsys) -> None:
    before = torch.get_num_threads()
    tutorial = script("tutorial")
    tutorial.write_voc(tmp_path / "photos", 12)
    # a batch of two where the page takes eight
    commands = [c + " --training.batch-size 2" if " --out run" in c else c for c in tutorial.steps(3)]
    try:
        tutorial.run(tmp_path, commands)
    finally:
        torch.set_num_threads(before)
    out = capsys.readouterr().out
    assert "dropped: nothing" in out
    assert "This folder can be used." in out
    assert {path.name for path in (tmp_path / "run" / "previews").iterdir()} >= {"step-0000003.png"}
    assert (tmp_path / "found" / "coco.json").is_file()
    assert (tmp_path / "shown.png").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
