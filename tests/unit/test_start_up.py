"""What does not compute starts without what computes: the modules that a command has loaded when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cornernet

ROOT = Path(__file__).parents[2]

COMPUTES = {
    "torch", "numba", "llvmlite", "triton", "scipy", "pandas", "matplotlib", "seaborn", "pycocotools", "hotcoco",
    "safetensors", "psutil", "jinja2",
}  # fmt: skip
"""Modules that take a tenth of a second or more, or lead to one that does."""
READS = {"cv2", "numpy", "PIL", "msgspec", "yaml"}
"""Modules that only what reads data needs."""

ENDED = """
import importlib, json, os, sys
sys.argv = ["cornernet", *sys.argv[2:]]
program = importlib.import_module(os.environ["PROGRAM"])
try:
    status = program.main()
except SystemExit as stop:
    status = stop.code
print("\\n" + json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

ANSWERS = [
    (0, "--help"),
    (0, "--version"),
    (2, "trian"),
    (0, "train --help"),
    (2, "train --no-such-flag"),
    (2, "train --recipe tyni"),
    (2, "train --training.batch-size 0"),
    (2, "train --config-file there-is-none.json"),
    (0, "evaluate --help"),
    (2, "evaluate --no-such-flag"),
    (2, "evaluate --weights random --save-results there/is/none.json"),
    (0, "detect --help"),
    (2, "detect photo.jpg"),
    (0, "convert --help"),
    (2, "convert weights.pkl --out wrong.ending"),
    (0, "export --help"),
    (2, "export run --out wrong.ending"),
    (0, "report --help"),
    (2, "report run --images -1"),
    (0, "data show --help"),
    (2, "data show --count 0"),
    (0, "data check --help"),
    (0, "data import-voc --help"),
    (2, "data split folder --val much"),
]
"""Commands that only answer, with their exit status: they read nothing either."""

READERS = [
    "data check set",
    "data split set --file annotations/val.json --dry-run",
    "data import-voc voc",
    "data import-yolo yolo",
    "data import-labelme labelme",
    "data import-cvat cvat",
]

ABLATIONS = [
    (0, "--help"),
    (0, "--version"),
    (2, "--no-such-flag"),
    (2, "--profile qiuck"),
    (0, "status --help"),
    (0, "power --help"),
]


def ended(arguments: str, folder: Path, program: str = "cornernet.cli") -> tuple[int, set[str]]:
    """Run a command in a process of its own; return its exit status and the packages that it had loaded."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CORNERNET_CACHE": str(folder / "cache"), "PROGRAM": program}
    done = subprocess.run(
        [sys.executable, "-c", ENDED, "-", *arguments.split()],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, modules = json.loads(done.stdout.splitlines()[-1])
    return status, set(modules)


@pytest.mark.parametrize(("status", "arguments"), ANSWERS)
def test_help_and_errors_of_arguments_load_nothing_that_computes_or_reads(status, arguments, tmp_path) -> None:
    found, modules = ended(arguments, tmp_path)
    assert found == status
    assert modules & (COMPUTES | READS) == set()


@pytest.mark.parametrize("arguments", READERS)
def test_what_reads_data_loads_nothing_that_computes(arguments, tmp_path) -> None:
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "set" / "annotations" / "val.json").write_text(json.dumps(empty))
    _, modules = ended(arguments, tmp_path)
    assert "numpy" in modules
    assert modules & COMPUTES == set()


@pytest.mark.parametrize(("status", "arguments"), ABLATIONS)
def test_the_ablations_answer_without_what_computes(status, arguments, tmp_path) -> None:
    found, modules = ended(arguments, tmp_path, "cornernet.ablations.__main__")
    assert found == status
    assert modules & (COMPUTES | {"cv2"}) == set()


def test_the_state_of_studies_is_told_without_what_computes(tmp_path) -> None:
    found, modules = ended("status --studies table1", tmp_path, "cornernet.ablations.__main__")
    assert found == 0
    # where there is the driver of a GPU, torch is asked whether it can use it
    assert modules & COMPUTES <= ({"torch", "triton"} if Path("/proc/driver/nvidia").exists() else set())


def test_the_packages_load_their_public_names_when_they_are_used() -> None:
    code = (
        "import sys, cornernet, cornernet.kernels, cornernet.ablations\n"
        "assert not {'torch', 'numpy', 'pydantic', 'tyro'} & set(sys.modules)\n"
        "for package in (cornernet, cornernet.kernels):\n"
        "    assert set(package.__all__) <= set(dir(package))\n"
        "    for name in package.__all__:\n"
        "        value = getattr(package, name)\n"
        "        assert getattr(value, '__name__', name) == name and name in vars(package), name\n"
        "    assert not hasattr(package, 'there_is_none')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_configuration_is_read_without_what_computes() -> None:
    code = (
        "import sys\n"
        "from cornernet.config import Config\n"
        "from cornernet.config.recipes import recipe\n"
        "assert Config.from_json(recipe('small').to_json()) == recipe('small')\n"
        f"assert not {COMPUTES | READS!r} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_public_name_says_where_it_is() -> None:
    assert set(cornernet._WHERE) == set(cornernet.__all__)
