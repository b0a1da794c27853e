"""The parts of the CUDA implementation that need no GPU: source, plans of launches, compiling and its cache."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch

from cornernet.kernels import cuda_pool
from cornernet.kernels.cuda_pool import SHARED_BYTES, THREADS, Kernels, Launch, Variant, compile_cubin, load_cubin

HOPPER = 132  # multiprocessors of an H100

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None,
    reason="cuda.core is not installed (the extra 'cuda'): nothing compiles the CUDA text here",
)


def launches(function: str, shape: tuple[int, ...], layout: torch.memory_format, *last: str) -> list[Launch]:
    """Return the launches of an operation on an H100, on tensors without memory."""
    x = torch.empty(shape, device="meta", memory_format=layout)
    planned: list[Launch] = []
    kernels = Kernels(lambda variant, launch, device: planned.append(launch), lambda _: HOPPER)
    inputs = {"pool_forward": 1, "corner_forward": 2, "pool_backward": 2, "corner_backward": 3}[function]
    getattr(kernels, function)(*[x] * inputs, *last)
    return planned


def test_the_source_includes_nothing():
    assert not re.search(r"^\s*#\s*include", cuda_pool.SOURCE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_fused_forward_of_a_batch_of_eight_is_one_launch(layout):
    (launch,) = launches("corner_forward", (8, 128, 128, 128), layout, "top_left")
    assert launch.blocks >= HOPPER / 2


def test_rows_longer_than_a_block_take_two_launches():
    assert len(launches("corner_forward", (1, 300, 4, 5000), torch.contiguous_format, "top_left")) == 2


def test_planes_too_few_to_fill_the_gpu_take_two_launches():
    assert len(launches("corner_forward", (1, 4, 128, 128), torch.contiguous_format, "top_left")) == 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("corner", ["top_left", "bottom_right"])
def test_both_gradients_are_one_launch(layout, corner):
    assert len(launches("corner_backward", (1, 128, 128, 128), layout, corner)) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 2, 24, 127, 128, 256, 700, 3000])
@pytest.mark.parametrize("channels", [1, 3, 128])
def test_every_plan_fits_the_shared_memory_of_a_block(layout, size, channels):
    for shape in [(2, channels, size, 64), (2, channels, 64, size), (2, channels, size, 1), (2, channels, 1, size)]:
        planned = [
            *launches("corner_forward", shape, layout, "top_left"),
            *launches("corner_backward", shape, layout, "top_left"),
            *launches("pool_forward", shape, layout, "left"),
            *launches("pool_backward", shape, layout, "top"),
        ]
        assert all(0 < launch.shared <= SHARED_BYTES for launch in planned)
        assert all(0 < launch.blocks < 2**31 for launch in planned)


def test_a_tensor_beyond_two_to_the_31_elements_gets_a_grid_that_covers_it():
    (launch,) = launches("pool_forward", (20, 1024, 400, 400), torch.contiguous_format, "left")
    rows_a_block = THREADS // (400 // 4) * 4
    assert launch.blocks == -(-20 * 1024 * 400 // rows_a_block)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_the_reason_names_it(monkeypatch):
    cuda_pool.why_unavailable.cache_clear()
    assert "CUDA" in (cuda_pool.why_unavailable() or "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    cuda_pool.why_unavailable.cache_clear()
    assert "device or driver" in (cuda_pool.why_unavailable() or "")
    cuda_pool.why_unavailable.cache_clear()


def test_without_cuda_core_the_reason_names_the_extra(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cuda_pool.why_unavailable.cache_clear()
    assert "cornernet-lab[cuda]" in (cuda_pool.why_unavailable() or "")
    cuda_pool.why_unavailable.cache_clear()


@needs_compiler
def test_without_nvrtc_the_reason_names_it(monkeypatch):
    from cuda.bindings import nvrtc

    def missing() -> None:
        raise RuntimeError("libnvrtc.so was not found")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", missing)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cuda_pool.why_unavailable.cache_clear()
    assert "NVRTC" in (cuda_pool.why_unavailable() or "")
    cuda_pool.why_unavailable.cache_clear()


@needs_compiler
def test_code_is_compiled_once_and_then_read_from_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path))
    variant = Variant(torch.float32, 4)
    code = load_cubin(variant, "sm_90")
    assert code.startswith(b"\x7fELF")
    monkeypatch.setattr(cuda_pool, "compile_cubin", lambda *_: pytest.fail("compiled again"))
    assert load_cubin(variant, "sm_90") == code
    assert len(list(tmp_path.glob("machine-code-*/cuda_pool-*.code"))) == 1


@needs_compiler
def test_a_broken_cache_file_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path))
    monkeypatch.setattr(cuda_pool, "compile_cubin", lambda *_: b"\x7fELF new")
    variant = Variant(torch.float32, 4)
    load_cubin(variant, "sm_90")
    (path,) = tmp_path.glob("machine-code-*/cuda_pool-*.code")
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert load_cubin(variant, "sm_90") == b"\x7fELF new"
    assert path.read_bytes() == whole


@needs_compiler
@pytest.mark.parametrize("obstacle", ["a file in its place", "a folder without permission to write"])
def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path, monkeypatch, obstacle):
    monkeypatch.setattr(cuda_pool, "compile_cubin", lambda *_: b"\x7fELF new")
    place = tmp_path / "cache"
    if obstacle == "a file in its place":
        place.write_text("")
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        place.mkdir(mode=0o500)
    monkeypatch.setenv("CORNERNET_CACHE", str(place))
    assert load_cubin(Variant(torch.float32, 4), "sm_90") == b"\x7fELF new"


@needs_compiler
def test_an_error_has_the_compiler_s_message(monkeypatch, tmp_path):
    broken = tmp_path / "broken.cu"
    broken.write_text("this is no CUDA")
    monkeypatch.setattr(cuda_pool, "SOURCE", Path(broken))
    with pytest.raises(RuntimeError, match=r"broken\.cu for sm_90"):
        compile_cubin(Variant(torch.float32, 4), "sm_90")
