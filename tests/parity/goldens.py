"""Stored outputs of the authors' code."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.parity import recipe

DATA = Path(__file__).parent / "data"


def load(name: str) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of a golden file."""
    with np.load(DATA / name, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def official_entries() -> list[tuple[str, list[int]]]:
    """Return the key, with its ``module.``, and the shape of every entry of the authors' Hourglass-104 state dict."""
    return [(key, shape) for key, shape, _ in json.loads((DATA / "official_keys.json").read_text())]


@functools.cache
def official_state() -> dict[str, Tensor]:
    """Return the golden weights under the authors' names, including ``module.`` (0.8 GB; made once per process)."""
    return {
        key: torch.from_numpy(np.asarray(recipe.tensor_for(key.removeprefix("module."), shape)))
        for key, shape in official_entries()
    }
