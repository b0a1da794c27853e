"""Corner pooling equals the authors' C++ extension, including ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cornernet import kernels
from cornernet.kernels.contract import AXIS_AND_REVERSED
from tests.targets import targets
from tests.tolerances import AUTHORS_GRADIENT_ATOL

GOLDEN = Path(__file__).parent / "data" / "corner_pool.npz"
CASES = ("random", "ties", "constant", "negative", "row", "col", "single", "relu")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("direction", AXIS_AND_REVERSED)
@pytest.mark.parametrize("case", CASES)
def test_a_pool_equals_the_authors_code_and_so_does_its_gradient(golden, target, direction, case):
    x = golden[f"x_{case}"].to(target.device).requires_grad_()
    result = kernels.directional_max_pool(x, direction, impl=target.name)
    assert torch.equal(result.cpu(), golden[f"y_{direction}_{case}"])
    (grad_x,) = torch.autograd.grad(result, x, golden[f"g_{case}"].to(target.device))
    expected = golden[f"gx_{direction}_{case}"]
    if target.row.ties_to_first:
        torch.testing.assert_close(grad_x.cpu(), expected, rtol=0, atol=AUTHORS_GRADIENT_ATOL)
    elif case in ("ties", "constant", "relu"):
        assert not torch.allclose(grad_x.cpu(), expected, atol=AUTHORS_GRADIENT_ATOL)  # as its note says
