"""The CPU loops in processes and threads, and the cache of their machine code."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from cornernet import kernels
from cornernet.kernels import cpu
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF, FLOATS
from tests.targets import targets

pytestmark = pytest.mark.skipif(
    not all(row["available"] for row in kernels.implementations() if row["name"] == "cpu"),
    reason="the CPU loops need numba",
)

SHAPE = (2, 32, 48, 40)  # large enough to be shared among threads


def inputs(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-99, 99, SHAPE, generator=generator).float() for _ in range(3)]


def pooled(vertical: torch.Tensor, horizontal: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    leaves = vertical.detach().requires_grad_(), horizontal.detach().requires_grad_()
    result = kernels.corner_pool(*leaves, "top_left", impl="cpu")
    return [result.detach(), *torch.autograd.grad(result, leaves, grad)]


def equal(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.fixture
def several_threads(monkeypatch):
    """Share even small tensors among three threads, a number that does not divide the pieces evenly."""
    monkeypatch.setattr("cornernet.kernels.cpu._SHARED_FROM", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def any_threads():
    """Let a test set the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(1, 1, 40, 40), (1, 2, 40, 40), (1, 33, 9, 7), (3, 70, 5, 6), SHAPE])
def test_any_number_of_threads_gives_the_same_bits(several_threads, layout, shape):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator).contiguous(memory_format=layout) for _ in range(3)]
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        results.append(pooled(*tensors))
    assert all(equal(result, results[0]) for result in results)


def awkward(shape: tuple[int, ...], dtype: str, seed: int) -> torch.Tensor:
    """Return channels_last values that reveal a scan down the rows that was cut or continued wrongly.

    By channel: ties of small integers; a record in every row, in one direction or the other; only -inf up to some row
    or from it on; one NaN in a line.
    """
    generator = torch.Generator().manual_seed(seed)
    images, channels, height, width = shape
    x = torch.randint(-2, 3, shape, generator=generator).float()
    rows, kind = torch.arange(height).view(1, 1, -1, 1), torch.arange(channels).view(1, -1, 1, 1) % 4
    cut = torch.randint(0, height, (images, channels, 1, width), generator=generator)
    upwards = torch.arange(width) % 2 == 0
    x = torch.where((kind == 1) & upwards, rows.float(), torch.where((kind == 1) & ~upwards, -rows.float(), x))
    x = torch.where((kind == 2) & torch.where(upwards, rows < cut, rows >= cut), -torch.inf, x)
    x = torch.where((kind == 3) & (rows == cut), torch.nan, x)
    return x.to(getattr(torch, dtype)).contiguous(memory_format=torch.channels_last)


def pools_and_gradients(inputs: list[torch.Tensor], grad: torch.Tensor, impl: str) -> dict[str, torch.Tensor]:
    """Return the results of all directions and both corners, with and without gradients."""
    found = {}
    for which in (*AXIS_AND_REVERSED, *DIRECTIONS_OF):
        if which in DIRECTIONS_OF:
            leaves = [x.detach().requires_grad_() for x in inputs]
            result = kernels.corner_pool(*leaves, which, impl=impl)
            with torch.no_grad():
                found[f"{which} without records"] = kernels.corner_pool(*inputs, which, impl=impl)
        else:
            leaves = [inputs[0].detach().requires_grad_()]
            result = kernels.directional_max_pool(*leaves, which, impl=impl)
            with torch.no_grad():
                found[f"{which} without records"] = kernels.directional_max_pool(inputs[0], which, impl=impl)
        found[which] = result.detach()
        for i, gradient in enumerate(torch.autograd.grad(result, leaves, grad)):
            found[f"{which} gradient {i}"] = gradient
    return found


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.dtype.itemsize])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("height", [1, 2, 3, 5, 31, 33, 129])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_channels_last_is_exact_and_the_same_bits_for_any_number_of_threads(any_threads, images, height, dtype):
    channels = 16 * -(-cpu._SHARED_FROM // (images * height * 20 * 16)) + 5  # large enough for the threads to share it
    shape = images, channels, height, 20
    inputs = [awkward(shape, dtype, seed) for seed in (1, 2)]
    whole = torch.randint(-2, 3, shape).to(inputs[0].dtype).contiguous(memory_format=torch.channels_last)
    fractions = torch.randn(shape).to(inputs[0].dtype).contiguous(memory_format=torch.channels_last)
    expected = pools_and_gradients(inputs, whole, "eager")
    torch.set_num_threads(1)
    for what, value in pools_and_gradients(inputs, whole, "cpu").items():
        torch.testing.assert_close(value, expected[what], rtol=0, atol=0, equal_nan=True, msg=what)
    alone = pools_and_gradients(inputs, fractions, "cpu")
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        for what, value in pools_and_gradients(inputs, fractions, "cpu").items():  # sums that depend on their order
            assert torch.equal(bits(value), bits(alone[what])), f"{what}, {threads} threads"


@pytest.mark.parametrize("replay_share", [0.0, 1 / 3, 1 / 2])
@pytest.mark.parametrize("bands", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("height", [1, 2, 3, 5, 31, 33, 129, 4096])
def test_bands_have_every_row_once_and_equal_run_times(height, bands, replay_share):
    starts = cpu.band_starts(height, bands, replay_share)
    assert starts[0] == 0
    assert starts[-1] == height
    lengths = [stop - start for start, stop in itertools.pairwise(starts)]
    assert min(lengths) > 0
    assert 1 <= len(lengths) <= bands
    costs = [length + replay_share * start for start, length in zip(starts[:-1], lengths, strict=True)]
    assert max(costs) - min(costs) <= 2  # a row of rounding at either end


def test_without_replay_there_are_as_many_bands_as_requested():
    assert len(cpu.band_starts(4096, 64, 0.0)) == 65


def test_the_loops_start_no_python_thread(several_threads):
    before = threading.active_count()
    pooled(*inputs())
    assert threading.active_count() == before


def test_two_python_threads_can_call_at_the_same_time(several_threads):
    expected = {seed: pooled(*inputs(seed)) for seed in range(4)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        wrong.extend(seed for _ in range(25) if not equal(pooled(*inputs(seed)), expected[seed]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_a_backward_that_autograd_runs_on_another_thread_gives_the_same(several_threads):
    vertical, horizontal, grad = inputs()
    expected = pooled(vertical, horizontal, grad)
    leaves = vertical.requires_grad_(), horizontal.requires_grad_()
    result = kernels.corner_pool(*leaves, "top_left", impl="cpu")
    thread = threading.Thread(target=lambda: result.backward(grad))
    thread.start()
    thread.join(60)
    assert equal([leaf.grad for leaf in leaves], expected[1:])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_pools_without_openmps_threads(several_threads):
    tensors = inputs()
    expected = pooled(*tensors)  # OpenMP's threads exist now, in the parent only
    child = os.fork()
    if (
        child == 0
    ):  # the child uses neither pytest, because it reports by its exit status, nor OpenMP, which hangs there
        results = zip(pooled(*tensors), expected, strict=True)
        os._exit(0 if all(np.array_equal(actual, wanted) for actual, wanted in results) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert equal(pooled(*tensors), expected)


def test_a_data_loader_worker_can_pool():
    class Maps(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            return kernels.directional_max_pool(torch.arange(12.0).view(1, 1, 3, 4) * (index + 1), "bottom", impl="cpu")

    loaded = list(torch.utils.data.DataLoader(Maps(), num_workers=2, multiprocessing_context="fork"))
    assert [batch.max().item() for batch in loaded] == [11.0, 22.0]


_ONE_PROCESS = """
import warnings
import torch
from cornernet import kernels
warnings.simplefilter("error")
torch.set_num_threads(1)
x = torch.arange(2.0 * 8 * 32 * 32).view(2, 8, 32, 32).requires_grad_()
for _ in range(20):
    result = kernels.corner_pool(x, x, "bottom_right", impl="cpu")
    (grad,) = torch.autograd.grad(result.sum(), x)
print(result.double().sum().item(), grad.double().sum().item())
"""


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("forked")
def test_two_single_threaded_processes_side_by_side_agree():
    command = [sys.executable, "-c", _ONE_PROCESS]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=600)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(answers) == 1
    assert answers.pop().strip()


@pytest.mark.usefixtures("forked")
@pytest.mark.slow
def test_machine_code_is_kept_on_disk_and_without_a_disk_compiled_in_memory(tmp_path):
    first = _python(_ONE_PROCESS, CORNERNET_CACHE=str(tmp_path / "cache"))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.code")}
    assert kept
    assert _python(_ONE_PROCESS, CORNERNET_CACHE=str(tmp_path / "cache")) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.code")} == kept
    # root can write anywhere, so the folder is made impossible: it would have to be inside a file
    blocked = tmp_path / "file"
    blocked.write_text("")
    nowhere = {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked / "x"), "CORNERNET_CACHE": ""}
    assert _python(_ONE_PROCESS, **nowhere) == first


@pytest.mark.parametrize("target", [p for p in targets() if p.values[0].name == "cpu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_fused_sum_of_sixteen_bit_values_is_rounded_once(target, dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    every = bits.view(getattr(torch, dtype)).view(1, 1, 256, 256).permute(3, 2, 1, 0).contiguous()  # lines of one
    for shift in (1, 4097, 20011):
        other = every.flatten().roll(shift).view(every.shape)
        result = kernels.corner_pool(every, other, "top_left", impl=target.name)
        expected = kernels.corner_pool(every, other, "top_left", impl="eager")
        torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
