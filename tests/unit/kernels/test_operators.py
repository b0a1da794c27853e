"""Every implementation inside PyTorch: operators, compile, export, vmap, determinism, memory that is not its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cornernet import kernels
from tests.targets import Target, targets

every_target = pytest.mark.parametrize("target", targets("reference"))
operators = pytest.mark.parametrize("target", [p for p in targets() if p.values[0].row.operators])
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])

SHAPE = (2, 3, 5, 18)


def maps(target: Target, layout: torch.memory_format, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    """Return a vertical and a horizontal map and a gradient, of integers so that sums are exact."""
    generator = torch.Generator().manual_seed(0)
    made = (torch.randint(-9, 9, shape, generator=generator).to(target.device, torch.float32) for _ in range(3))
    return [tensor.contiguous(memory_format=layout) for tensor in made]


def gradients(function, vertical: Tensor, horizontal: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    inputs = vertical.detach().requires_grad_(), horizontal.detach().requires_grad_()
    result = function(*inputs)
    return result, *torch.autograd.grad(result, inputs, grad)


@operators
@layouts
def test_the_operators_pass_torchs_own_checks(target, layout):
    vertical, horizontal, grad = maps(target, layout, (1, 2, 3, 4) if target.is_interpreted else SHAPE)
    vertical.requires_grad_()
    horizontal.requires_grad_()
    namespace = torch.ops.cornernet_kernels

    def check(op: str, *args) -> None:
        results = torch.library.opcheck(getattr(namespace, f"{target.name}_{op}").default, args)
        assert set(results.values()) == {"SUCCESS"}

    check("pool", vertical, "left")
    check("corner", vertical, horizontal, "top_left")
    grad.requires_grad_()
    if hasattr(namespace, f"{target.name}_corner_records"):
        check("pool_records", vertical, "top")
        check("corner_records", vertical, horizontal, "top_left")
        check("pool_backward", grad, namespace.cpu_pool_records(vertical, "top")[1], "top")
        check("corner_backward", grad, namespace.cpu_corner_records(vertical, horizontal, "top_left")[1], "top_left")
    else:
        check("pool_backward", grad, vertical, "top")
        check("corner_backward", grad, vertical, horizontal, "top_left")


@every_target
@layouts
def test_a_compiled_model_gives_the_same_values_gradients_and_layout_in_one_graph(target, layout):
    def function(v: Tensor, h: Tensor) -> Tensor:
        return kernels.corner_pool(v.relu(), h.relu(), "bottom_right", impl=target.name)

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    vertical, horizontal, grad = maps(target, layout)
    expected = gradients(function, vertical, horizontal, grad)
    for actual, wanted in zip(gradients(compiled, vertical, horizontal, grad), expected, strict=True):
        assert torch.equal(actual, wanted)
        assert actual.stride() == wanted.stride()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # Inductor's own
@pytest.mark.parametrize("target", targets("reference", "eager", "cummax"))
def test_inductor_compiles_it_with_code_around_it(target, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if target.is_interpreted:
        pytest.skip("Inductor itself uses Triton, which here is the interpreter")

    def function(v: Tensor, h: Tensor) -> Tensor:
        return kernels.corner_pool(v * 2, h + 1, "top_left", impl=target.name) * 3

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True)
    vertical, horizontal, grad = maps(target, torch.channels_last)
    expected = gradients(function, vertical, horizontal, grad)
    for actual, wanted in zip(gradients(compiled, vertical, horizontal, grad), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


class Pool(nn.Module):
    def __init__(self, impl: str) -> None:
        super().__init__()
        self.impl = impl

    def forward(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        return kernels.corner_pool(vertical, horizontal, "top_left", impl=self.impl)


@pytest.mark.parametrize("target", targets("reference", "eager"))
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_graph_serves_other_sizes(target, strict):
    vertical, horizontal, _ = maps(target, torch.contiguous_format)
    dynamic = torch.export.Dim.DYNAMIC
    sizes = ({0: dynamic, 2: dynamic, 3: dynamic},) * 2
    exported = torch.export.export(Pool(target.name), (vertical, horizontal), dynamic_shapes=sizes, strict=strict)
    for n, h, w in ((1, 40, 70), (3, 2, 3)):
        v, o = (torch.randn(n, 3, h, w, device=target.device) for _ in range(2))
        assert torch.equal(exported.module()(v, o), kernels.corner_pool(v, o, "top_left", impl="eager"))


def test_eager_exports_with_fixed_sizes_and_logstep_without_any_custom_operator():
    vertical, horizontal = torch.randn(SHAPE), torch.randn(SHAPE)
    for impl in ("eager", "logstep"):
        exported = torch.export.export(Pool(impl), (vertical, horizontal))
        calls = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
        assert calls
        assert not any("cornernet" in call for call in calls)
        assert torch.equal(exported.module()(vertical, horizontal), Pool("reference")(vertical, horizontal))


@every_target
def test_vmap_folds_a_mapped_dimension_into_the_images_and_differentiates(target):
    def function(v: Tensor, h: Tensor) -> Tensor:
        return kernels.corner_pool(v, h, "bottom_right", impl=target.name)

    generator = torch.Generator().manual_seed(0)
    vertical, horizontal = (
        torch.randn(3, 2, 3, 4, 5, generator=generator).to(target.device).requires_grad_() for _ in range(2)
    )
    separate = torch.stack([function(v, h) for v, h in zip(vertical, horizontal, strict=True)])
    mapped = torch.vmap(function)(vertical, horizontal)
    assert torch.equal(mapped, separate)
    wanted = torch.autograd.grad(separate.square().sum(), (vertical, horizontal))
    actual = torch.autograd.grad(mapped.square().sum(), (vertical, horizontal))
    for a, w in zip(actual, wanted, strict=True):
        torch.testing.assert_close(a, w)
    shared = torch.vmap(function, in_dims=(2, None))(vertical.movedim(0, 2), horizontal[0])
    assert torch.equal(shared, torch.stack([function(v, horizontal[0]) for v in vertical]))


@every_target
def test_the_same_call_gives_the_same_bits(target):
    generator = torch.Generator().manual_seed(1)
    vertical, horizontal, grad = (torch.randn(4, 8, 33, 40, generator=generator).to(target.device) for _ in range(3))
    if target.is_interpreted:
        vertical, horizontal, grad = vertical[:1, :1, :9], horizontal[:1, :1, :9], grad[:1, :1, :9]

    def function(v: Tensor, h: Tensor) -> Tensor:
        return kernels.corner_pool(v, h, "top_left", impl=target.name)

    first = gradients(function, vertical, horizontal, grad)
    for _ in range(3):
        for actual, wanted in zip(gradients(function, vertical, horizontal, grad), first, strict=True):
            assert torch.equal(actual, wanted)


@operators
@layouts
@pytest.mark.parametrize("width", [1, 15, 17, 33])
def test_every_element_is_written_and_nothing_beside_the_output_is(target, layout, width, monkeypatch):
    """Outputs are in the middle of buffers full of a sentinel, which reveals unwritten elements and overruns."""
    margin, sentinel, buffers = 67, 7.25e3, []
    shape = (2, 3, 4, width)

    def guarded(like: Tensor, *args, **kwargs) -> Tensor:
        buffer = torch.full((like.numel() + 2 * margin,), sentinel).to(like.device, like.dtype)
        buffers.append((buffer, like.numel()))
        return buffer.as_strided(like.shape, like.stride(), margin)

    vertical, horizontal, grad = maps(target, layout, shape)
    wanted = gradients(lambda v, h: kernels.corner_pool(v, h, "top_left", "eager"), vertical, horizontal, grad)
    monkeypatch.setattr(torch, "empty_like", guarded)
    actual = gradients(lambda v, h: kernels.corner_pool(v, h, "top_left", target.name), vertical, horizontal, grad)
    monkeypatch.undo()
    assert len(buffers) >= 3, "the implementation no longer allocates its outputs with torch.empty_like"
    for a, w in zip(actual, wanted, strict=True):
        assert torch.equal(a, w)
    for buffer, size in buffers:
        assert (buffer[:margin] == sentinel).all()
        assert (buffer[margin + size :] == sentinel).all()


@every_target
def test_a_model_under_distributed_data_parallel_trains_as_without(target, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Conv2d(3, 3, 1), _PoolOfItself(target.name)).to(target.device)
        x = maps(target, torch.contiguous_format)[0]
        expected = torch.autograd.grad(model(x).sum(), list(model.parameters()))
        nn.parallel.DistributedDataParallel(model)(x).sum().backward()
        for parameter, wanted in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, wanted)
    finally:
        torch.distributed.destroy_process_group()


class _PoolOfItself(nn.Module):
    def __init__(self, impl: str) -> None:
        super().__init__()
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        return kernels.corner_pool(x, x, "top_left", impl=self.impl)


def test_what_the_cpu_loops_keep_for_backward_is_a_sixteenth_of_their_inputs():
    held = []
    vertical, horizontal = (torch.randn(1, 4, 32, 32).requires_grad_() for _ in range(2))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t.nbytes) or t, lambda t: t):
        kernels.corner_pool(vertical, horizontal, "top_left", impl="cpu")
    assert sum(held) == (vertical.nbytes + horizontal.nbytes) // 32
