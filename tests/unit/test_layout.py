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


# ------------------------------------------------------------------------------------------------ who writes files

WRITERS = {
    "write_text", "write_bytes", "mkdir", "makedirs", "touch", "rename", "renames", "unlink", "rmdir", "rmtree",
    "symlink_to", "hardlink_to", "symlink", "link", "truncate", "chmod", "copyfile", "copy2", "copytree", "copyfileobj",
    "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "imwrite", "savefig",
    "print_svg", "save", "save_file", "savez", "tofile", "to_csv", "umask",
}  # fmt: skip
ALLOWED = {
    # no file: tensors that the gradient needs
    "kernels/ops.py": {"save"},
    # into memory
    "ablations/reporting/folder.py": {"to_csv"},
    "cornernet/drawing/figures.py": {"print_svg"},
    "cornernet/weights/checkpoints.py": {"save"},
    "cornernet/training/starter.py": {"save"},
    "cornernet/data/shapes.py": {"savez"},
    "cornernet/data/formats/annotation_file.py": {"savez"},
    # into a folder or a file of the system's, which is gone afterwards
    "cornernet/weights/export.py": {"TemporaryDirectory", "save"},
    "cornernet/data/shared.py": {"TemporaryFile"},
    "ablations/running/executors.py": {"TemporaryFile"},
    "ablations/running/estimates.py": {"TemporaryDirectory"},
    "kernels/aot.py": {"NamedTemporaryFile"},
    # into a folder that it has just made, which is renamed when it is complete
    "cornernet/training/checkpoints.py": {"mkdir", "rename", "rmdir", "save", "save_file"},
    # /dev/null, in place of a pipe that nobody reads
    "cornernet/console.py": {"open"},
    # the caches of machine code: kernels need nothing else of the project
    "kernels/machine_code.py": {"open", "fdopen", "mkdir", "unlink"},
    "kernels/numba_compiler.py": {"save"},
    "kernels/cuda_pool.py": {"save"},
    # generated data in the benchmark's own folder
    "benchmarks/paced.py": {"TemporaryDirectory"},
    "benchmarks/results.py": {"mkdir"},
    "benchmarks/scale.py": {"mkdir", "hardlink_to", "unlink", "TemporaryDirectory"},
}
"""What modules other than ``cornernet/files.py`` may call, and why."""


def written_by(tree: ast.AST) -> set[str]:
    """The calls in a module that create, change or remove files."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        texts = [arg.value for arg in [*node.args, *(k.value for k in node.keywords)] if isinstance(arg, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and re.fullmatch(r"[rwaxbt+]{1,4}", text)]
        if name in ("open", "fdopen") and (
            any(set(mode) & set("wax+") for mode in modes) or re.search(r"O_(WRONLY|RDWR|CREAT)", ast.unparse(node))
        ):
            found.add(name)
        # Path.replace takes one argument, str.replace two, and dataclasses.replace keywords
        if name in WRITERS or (name == "replace" and len(node.args) == 1 and not node.keywords):
            found.add(name)
    return found


def test_the_search_for_writers_finds_them() -> None:
    for code in ("Path(x).open('w')", "open(x, mode='ab')", "os.open(x, os.O_RDWR)"):
        assert written_by(ast.parse(code)) == {"open"}
    assert written_by(ast.parse("a.replace(b)")) == {"replace"}
    assert written_by(ast.parse("s.replace('a', 'b'); replace(d, x=1)")) == set()
    assert written_by(ast.parse("x.open(); x.open('rb'); io.open(x, 'r')")) == set()
    assert written_by(ast.parse("torch.save(x, y); p.unlink()")) == {"save", "unlink"}


def test_files_are_written_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT)): written_by(ast.parse(path.read_text(encoding="utf-8")))
        for package in (*PACKAGES, "benchmarks")
        for path in sources(package)
    }
    assert found.pop("cornernet/files.py")
    assert {place: calls for place, calls in found.items() if calls} == ALLOWED


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
