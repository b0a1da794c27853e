"""The public functions: accepted and rejected arguments, and the choice of implementation."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cornernet import kernels
from cornernet.kernels import registry

X = torch.arange(24.0).view(1, 2, 3, 4)


def test_every_implementation_has_a_row_that_says_whether_it_runs_here_and_why_not():
    rows = {row["name"]: row for row in kernels.implementations()}
    assert set(rows) == {"reference", "eager", "logstep", "cummax", "cpu", "triton", "cuda"}
    for row in rows.values():
        assert set(row) == {"name", "devices", "dtypes", "available", "reason", "note"}
        assert row["available"] == (row["reason"] == "")
    assert rows["eager"]["available"]


def test_a_pool_takes_the_maximum_towards_the_named_side():
    x = torch.tensor([[1.0, 3.0, 2.0], [0.0, 5.0, 4.0]])[None, None]
    expected = {
        "top": [[1.0, 5.0, 4.0], [0.0, 5.0, 4.0]],
        "bottom": [[1.0, 3.0, 2.0], [1.0, 5.0, 4.0]],
        "left": [[3.0, 3.0, 2.0], [5.0, 5.0, 4.0]],
        "right": [[1.0, 3.0, 3.0], [0.0, 5.0, 5.0]],
    }
    for direction, values in expected.items():
        assert kernels.directional_max_pool(x, direction).tolist() == [[values]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kernels.directional_max_pool(X, "up"), ValueError, "top, bottom, left, right, not 'up'"),
        (lambda: kernels.directional_max_pool(X[0], "top"), ValueError, r"4 dimensions \[N, C, H, W\]"),
        (lambda: kernels.directional_max_pool(X.int(), "top"), TypeError, "float64, float32.* not int32"),
        (lambda: kernels.directional_max_pool([1.0], "top"), TypeError, "must be a tensor, not list"),
        (lambda: kernels.directional_max_pool(X, "top", impl="eagre"), ValueError, "'eagre'; did you mean eager"),
        (lambda: kernels.corner_pool(X, X, "top_right"), ValueError, "top_left, bottom_right, not 'top_right'"),
        (lambda: kernels.corner_pool(X, X[:, :1], "top_left"), ValueError, "have the same shape"),
        (lambda: kernels.corner_pool(X, X.double(), "top_left"), ValueError, "have the same dtype"),
        (lambda: kernels.corner_pool(X, X.to("meta"), "top_left"), ValueError, "have the same device"),
        (lambda: kernels.corner_pool(X, X, "top_left", impl="cuda"), kernels.UnavailableError, "'cuda' cannot run"),
        (
            lambda: kernels.directional_max_pool(X.to("meta"), "top", impl="cpu"),
            kernels.UnavailableError,
            "runs on cpu, not on meta",
        ),
    ],
)
def test_wrong_arguments_are_rejected_with_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("impl", ["auto", *(row.name for row in registry.ROWS)])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: X.to_sparse(), "sparse_coo"),
        (lambda: X.to_sparse_csr(dense_dim=2), "sparse_csr"),
        (lambda: X.to_mkldnn(), "_mkldnn"),
        (lambda: torch.nested.nested_tensor([X[0], X[0]]), "nested"),
        (lambda: torch.nested.nested_tensor([X[0], X[0, :, :1]], layout=torch.jagged), "nested"),
    ],
)
def test_only_dense_tensors_are_pooled(make, kind, impl):
    with pytest.raises(TypeError, match=f"x must be a dense tensor, not {kind}"):
        kernels.directional_max_pool(make(), "top", impl=impl)
    for pair in ((make(), X), (X, make())):
        with pytest.raises(TypeError, match=f"l must be a dense tensor, not {kind}"):
            kernels.corner_pool(*pair, "top_left", impl=impl)


@pytest.mark.parametrize("impl", ["auto", *(row.name for row in registry.ROWS)])
def test_a_tensor_on_meta_is_pooled_on_meta_or_refused(impl):
    x = X.to("meta")
    for call in (
        lambda: kernels.directional_max_pool(x, "top", impl=impl),
        lambda: kernels.corner_pool(x, x, "top_left", impl=impl),
    ):
        if impl in ("auto", "eager", "logstep", "cummax"):
            assert call().device.type == "meta"
            assert call().shape == x.shape
        else:
            with pytest.raises(kernels.UnavailableError, match="meta"):
                call()


@pytest.mark.parametrize("impl", ["auto", *(row.name for row in registry.ROWS)])
def test_an_expanded_tensor_of_eight_terabytes_is_refused_by_its_size(impl):
    x = torch.zeros(1).expand(1, 2, 10**6, 10**6)
    with pytest.raises(ValueError, match=r"expanded to shape \[1, 2, 1000000, 1000000\].* 8,000,000,000,000 bytes"):
        kernels.directional_max_pool(x, "top", impl=impl)
    with pytest.raises(ValueError, match="expanded to shape"):
        kernels.corner_pool(x, x, "top_left", impl=impl)


def test_small_expanded_tensors_are_pooled():
    x = torch.arange(3.0).expand(1, 2, 4, 3)
    assert torch.equal(kernels.directional_max_pool(x, "left"), torch.full((1, 2, 4, 3), 2.0))


def test_auto_picks_the_cpu_loops_and_never_the_reference_cummax_or_an_interpreter():
    for dtype in registry.FLOATS:
        chosen = registry.choose("auto", "cpu", getattr(torch, dtype))
        assert chosen is registry.choose("cpu", "cpu", getattr(torch, dtype))
    never = {"reference", "cummax"}
    assert not never & {name for order in registry.AUTO_ORDER.values() for name in order}
    assert "triton" not in registry.AUTO_ORDER["cpu"]


def test_under_autocast_inputs_of_two_dtypes_are_pooled_in_the_wider():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = kernels.corner_pool(X, X.bfloat16(), "top_left")
    assert result.dtype == torch.float32


@pytest.mark.parametrize("impl", ["auto", "eager", "logstep"])
def test_under_autocast_the_output_of_a_convolution_is_pooled_in_its_own_dtype_and_trains(impl):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(2, 2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = convolution(X)
        result = kernels.corner_pool(maps, maps, "bottom_right", impl=impl)
    assert result.dtype == torch.bfloat16
    result.float().sum().backward()
    # the gradient of every output position goes to one position of each branch
    assert convolution.bias.grad.sum().item() == 2 * X.numel()


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_kernels_imports_neither_triton_nor_numba_nor_cuda_and_eager_needs_none_of_them():
    code = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("triton", "numba", "llvmlite", "cuda"):
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)
sys.meta_path.insert(0, Forbidden())
import torch
from cornernet import kernels
x = torch.tensor([1.0, 3.0, 2.0]).view(1, 1, 1, 3)
print(kernels.directional_max_pool(x, "left", impl="eager").flatten().tolist())
print(kernels.directional_max_pool(x, "left").flatten().tolist())
print({row["name"]: row["reason"] for row in kernels.implementations()}["cpu"])
"""
    first, second, reason = run_python(code).splitlines()
    assert first == second == "[3.0, 3.0, 2.0]"
    assert reason.startswith("it needs numba and llvmlite")


def test_importing_kernels_loads_no_kernel():
    unwanted = ("triton", "numba", "cuda.core", "torch._dynamo", "cornernet.kernels.cpu")
    code = f"import sys, cornernet.kernels; print([module for module in {unwanted} if module in sys.modules])"
    assert run_python(code) == "[]"
