"""Hypothesis profiles, tests that run only in the thorough profile, Triton's interpreter without a GPU, and forks."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests import forks

# Triton reads it when a kernel is defined, so it must be set before kernels.triton_pool is imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# max_examples is per law; each implementation of a kernel has about fifteen laws
_COMMON = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=12, derandomize=True, **_COMMON)
settings.register_profile("ci", max_examples=150, **_COMMON)
settings.register_profile("thorough", max_examples=500, **_COMMON)
settings.register_profile("exhaustive", max_examples=3000, **_COMMON)
# for a mutant it only matters whether a test fails, not what the smallest example is
_NO_SHRINKING = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]
settings.register_profile("mutation", max_examples=12, derandomize=True, phases=_NO_SHRINKING, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``thorough`` unless the profile is thorough or exhaustive; keep ``forked`` ones on one worker.

    The process that is forked imports for seven seconds. Groups of tests also start before single ones, which keeps
    both workers busy to the end.
    """
    for item in items:
        if "forked" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("forked"))
    if os.environ.get("HYPOTHESIS_PROFILE") not in ("thorough", "exhaustive"):
        skip = pytest.mark.skip(reason="only in the thorough run: HYPOTHESIS_PROFILE=thorough")
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(skip)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python programs that the test starts, and those that they start, are forks; see ``tests.forks``."""
    monkeypatch.setattr(subprocess, "Popen", forks.Popen)
