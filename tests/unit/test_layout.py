"""The house: what the layers of import-linter (pyproject.toml, ``nox -s lint``) cannot say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernels", "cornernet", "ablations")
LOOKERS = {"benchmarks", "reports", "tests"}


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports; relative imports name nothing at top level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def sources(package: str) -> list[Path]:
    """The files of a package; links to other packages are not followed."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return [path for path in files if not any(parent.is_symlink() for parent in path.parents)]


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_what_looks_at_the_packages(package: str) -> None:
    assert not {str(path.relative_to(ROOT)): bad for path in sources(package) if (bad := imported(path) & LOOKERS)}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_name_each_other_by_the_long_name_only(package: str) -> None:
    short = {"kernels", "ablations"}
    assert not {str(path.relative_to(ROOT)): bad for path in sources(package) if (bad := imported(path) & short)}


def test_kernels_know_nothing_else_of_the_project() -> None:
    assert not [str(path.relative_to(ROOT)) for path in sources("kernels") if "cornernet" in imported(path)]


def test_few_files_lie_outside_a_room() -> None:
    assert len(list((ROOT / "cornernet").glob("*.py"))) <= 5
    assert {path.name for path in (ROOT / "ablations").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "pictures.py",
        "profiles.py",
    }


@pytest.mark.parametrize("name", ["kernels", "ablations"])
def test_a_link_puts_a_folder_into_the_package(name: str) -> None:
    link = ROOT / "cornernet" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


def test_every_backbone_and_head_file_has_a_row() -> None:
    from cornernet.model.backbones import BACKBONES
    from cornernet.model.heads import HEADS

    backbones = {f.stem for f in (ROOT / "cornernet/model/backbones").glob("*.py")} - {"__init__", "base"}
    heads = {f.name for f in (ROOT / "cornernet/model/heads").iterdir() if f.is_dir()} - {"__pycache__"}
    assert backbones == set(BACKBONES)
    assert heads == set(HEADS)


def test_every_heatmap_loss_file_has_a_row() -> None:
    from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES

    files = {f.stem for f in (ROOT / "cornernet/model/heads/corner/heatmap_losses").glob("*.py")} - {"__init__"}
    assert files == set(HEATMAP_LOSSES)


def test_every_study_file_has_a_row() -> None:
    from cornernet.ablations.studies import STUDIES

    files = {f.stem for f in (ROOT / "ablations/studies").glob("*.py")} - {"__init__", "study", "paper"}
    assert len(files) == len(STUDIES)
    assert all(any(file.startswith(name) for file in files) for name in STUDIES)


# --------------------------------------------------------------------------------------------- what texts refer to

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "noxfile.py"]
DOTTED = re.compile(r"(?<![\w./-])(?:cornernet|kernels|ablations|benchmarks)(?:\.[a-z_]\w*)+")
FILE = re.compile(r"(?<![\w./-])(?:cornernet|kernels|ablations|benchmarks|tests|docs|\.ci)/[\w./*-]*[\w*]/?")


def exists(dotted: str) -> bool:
    """Whether a dotted name leads to a module, or to a name that stands in one."""
    place, *parts = dotted.split(".")
    folder = ROOT / place
    for part in parts:
        if (folder / part).is_dir():
            folder /= part
            continue
        module = folder / f"{part}.py"
        return module.is_file() or re.search(rf"\b{part}\b", (folder / "__init__.py").read_text()) is not None
    return True


def referring() -> list[Path]:
    return [*TEXTS, *(path for package in (*PACKAGES, "benchmarks") for path in sources(package))]


def test_modules_named_in_texts_exist() -> None:
    missing = {}
    for path in referring():
        found = {name for name in DOTTED.findall(path.read_text(encoding="utf-8")) if not name.endswith(".safetensors")}
        if path.suffix == ".py":  # the short names are names of variables too
            found = {name for name in found if name.startswith("cornernet.")}
        if bad := sorted(name for name in found if not exists(name)):
            missing[str(path.relative_to(ROOT))] = bad
    assert not missing


def test_files_named_in_texts_exist() -> None:
    missing = {}
    for path in referring():
        found = {name.rstrip("/.") for name in FILE.findall(path.read_text(encoding="utf-8"))}
        found = {name for name in found if "NAME" not in name}
        if bad := sorted(name for name in found if not any(ROOT.glob(name))):
            missing[str(path.relative_to(ROOT))] = bad
    assert not missing
