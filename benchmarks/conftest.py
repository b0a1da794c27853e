"""Let ``pytest benchmarks`` collect ``bench_*.py``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if file_path.match("bench_*.py") and not parent.session.isinitpath(file_path):  # pytest collects named files itself
        return pytest.Module.from_parent(parent, path=file_path)
    return None
