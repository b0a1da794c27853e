"""What only a checkout has: a revision, and the short names ``kernels`` and ``ablations``.

An installed package has one top-level name, ``cornernet``, which contains :mod:`cornernet.kernels` and
:mod:`cornernet.ablations`. In a checkout both are folders beside ``cornernet``, and two symbolic links put them inside.
``import kernels`` from the root of the checkout would load the same files a second time and register the operators
twice. :func:`alias` makes it another name for the same modules.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

__all__ = ["alias", "revision", "version"]


def revision() -> str:
    """Return the commit of the code, followed by ``+changes`` if files differ from it; ``unknown`` outside git."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # an installed package may lie inside another repository
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return "unknown"
        return git("describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"


def version() -> str:
    """Return the version of the package, followed by the commit where it is known: ``0.1.0 (4cddfef)``."""
    number, commit = importlib.import_module("cornernet").__version__, revision()
    return f"{number}" if commit == "unknown" else f"{number} ({commit})"


def alias(name: str) -> None:
    """Make ``name`` and all below it other names for ``cornernet.<name>`` and what is below that."""
    if not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(name))
    sys.modules[name] = importlib.import_module(f"cornernet.{name}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``kernels.api`` as the module ``cornernet.kernels.api``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system gives them
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{self.name}."):
            return None
        real = importlib.util.find_spec(f"cornernet.{fullname}")
        if real is None:
            return None
        is_package = real.submodule_search_locations is not None
        return importlib.machinery.ModuleSpec(fullname, _Loader(real), origin=real.origin, is_package=is_package)


class _Loader(importlib.abc.InspectLoader):
    """Gives the module that another name has, and its code to ``python -m``."""

    def __init__(self, real: importlib.machinery.ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:  # noqa: ARG002
        module = importlib.import_module(self.real.name)
        self.real = module.__spec__ or self.real
        return module

    def exec_module(self, module: ModuleType) -> None:
        # it ran under its own name; the import system has just given it the alias's spec
        module.__spec__ = self.real

    def get_code(self, fullname: str) -> CodeType | None:  # noqa: ARG002
        loader = self.real.loader
        return loader.get_code(self.real.name) if isinstance(loader, importlib.abc.InspectLoader) else None

    def get_source(self, fullname: str) -> str | None:  # noqa: ARG002
        loader = self.real.loader
        return loader.get_source(self.real.name) if isinstance(loader, importlib.abc.InspectLoader) else None
