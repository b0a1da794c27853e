"""The house: imports run one way, and every part has a row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "kernels": {"kernels"},
    "cornernet": {"kernels", "cornernet"},
    "ablations": {"kernels", "cornernet", "ablations"},
}
OURS = {*MAY_IMPORT, "benchmarks", "reports", "tests"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(f.relative_to(ROOT)): bad for f in files if (bad := imported(f) & OURS - MAY_IMPORT[package])}
    assert not wrong


def test_every_backbone_and_head_file_has_a_row() -> None:
    from cornernet.model.backbones import BACKBONES
    from cornernet.model.heads import HEADS

    backbones = {f.stem for f in (ROOT / "cornernet/backbones").glob("*.py")} - {"__init__"}
    heads = {f.name for f in (ROOT / "cornernet/heads").iterdir() if f.is_dir()} - {"__pycache__"}
    assert backbones == set(BACKBONES)
    assert heads == set(HEADS)


def test_every_heatmap_loss_file_has_a_row() -> None:
    from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES

    files = {f.stem for f in (ROOT / "cornernet/model/heads/corner/heatmap_losses").glob("*.py")} - {"__init__"}
    assert files == set(HEATMAP_LOSSES)


def test_every_study_file_has_a_row() -> None:
    from cornernet.ablations.studies import STUDIES

    files = {f.stem for f in (ROOT / "ablations/studies").glob("*.py")} - {"__init__", "paper", "study"}
    assert len(files) == len(STUDIES)
    assert all(any(file.startswith(name) for file in files) for name in STUDIES)
