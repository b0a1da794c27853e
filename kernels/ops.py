"""cpu, triton and cuda as torch.library operators: schema, fakes, autograd, vmap, once for the three.

A module that wants to be served here (``kernels.cpu``, ``kernels.triton_pool``, ``kernels.cuda_pool``) provides

* ``pool_forward(x, direction) -> y``
* ``pool_backward(grad, x, direction) -> grad_x``
* ``corner_forward(vertical, horizontal, corner) -> y``
* ``corner_backward(grad, vertical, horizontal, corner) -> (grad_vertical, grad_horizontal)``
* ``why_unavailable() -> str | None``

What these four may assume, because this file sees to it:

* tensors are [N, C, H, W], not empty, of float64, float32, float16 or bfloat16, on a device the row names;
* tensors of one call share shape, dtype, device and layout, and are dense: all contiguous or all channels_last
  (``memory_format_of(x)`` says which; a size of 1 may leave both true, then it is contiguous). Anything else is
  copied once before the call;
* gradients are switched off.

What they must do: return new dense tensors of that same shape, dtype and layout, leave their inputs alone, and
accumulate gradients in float32 or wider, without atomics. Backward recomputes the scan from the input: the inputs
are what autograd saves, and a preceding convolution, batch norm or ReLU holds them anyway.

An operator is called ``torch.ops.cornernet_kernels.<name>_pool`` and so on, name being cpu, triton or cuda. All are
registered when this file is imported (about a millisecond); a kernel's module is imported at its first call.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF, memory_format_of

__all__ = ["NAMESPACE", "corner_pool", "directional_max_pool"]

NAMESPACE = "cornernet_kernels"

# name of the row: its module, and the dispatch keys it is registered under. Triton's interpreter works on the CPU
_MODULES = {
    "cpu": ("kernels.cpu", ("CPU",)),
    "triton": ("kernels.triton_pool", ("CUDA", "CPU")),
    "cuda": ("kernels.cuda_pool", ("CUDA",)),
}

_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


@functools.cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(_MODULES[name][0])


def directional_max_pool(name: str, x: Tensor, direction: str) -> Tensor:
    """Return the pool of ``x`` [N, C, H, W] by the operators called ``name``; see ``kernels.directional_max_pool``."""
    result: Tensor = getattr(torch.ops.cornernet_kernels, f"{name}_pool").default(x, direction)
    return result


def corner_pool(name: str, vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
    """Return the fused sum [N, C, H, W] by the operators called ``name``; see ``kernels.corner_pool``."""
    result: Tensor = getattr(torch.ops.cornernet_kernels, f"{name}_corner").default(vertical, horizontal, corner)
    return result


def _empty(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _dense(x: Tensor, like: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=memory_format_of(like))


# ---------------------------------------------------------------------------------------------- second derivatives
def _first_maximum(x: Tensor, direction: str) -> Tensor:
    """Return, for each position of [N, C, H, W], the int64 index along the scan's axis of the first maximum so far."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    order = range(x.shape[axis] - 1, -1, -1) if reverse else range(x.shape[axis])
    indices: list[Tensor] = []
    best = torch.empty(0)
    for i in order:
        new = x.select(axis, i)
        if not indices:
            best, index = new, torch.full_like(new, i, dtype=torch.int64)
        else:
            keep = (best >= new) | best.isnan()
            best, index = torch.where(keep, best, new), torch.where(keep, indices[-1], i)
        indices.append(index)
    if reverse:
        indices.reverse()
    return torch.stack(indices, axis)


def _at_maximum(values: Tensor, x: Tensor, direction: str) -> Tensor:
    """Return ``values`` [N, C, H, W] taken where ``x`` has its maxima: what the pool's derivative does to a tangent.

    The backward operator is linear in the incoming gradient and this is its transpose, so it serves second
    derivatives; plain differentiable torch, hence third ones too. Slow, and in no one's training loop.
    """
    if x.numel() == 0:
        return values
    return values.gather(AXIS_AND_REVERSED[direction][0], _first_maximum(x.detach(), direction))


# -------------------------------------------------------------------------------------------------- one set of four
def _register(name: str, keys: tuple[str, ...]) -> None:
    """Define and implement the four operators of one implementation."""

    def pool(x: Tensor, direction: str) -> Tensor:
        if x.numel() == 0:
            return _empty(x)
        result: Tensor = _module(name).pool_forward(_dense(x, x), direction)
        return result

    def pool_backward(grad: Tensor, x: Tensor, direction: str) -> Tensor:
        if x.numel() == 0:
            return _empty(x)
        result: Tensor = _module(name).pool_backward(_dense(grad, x), _dense(x, x), direction)
        return result

    def corner(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
        if vertical.numel() == 0:
            return _empty(vertical)
        inputs = _dense(vertical, vertical), _dense(horizontal, vertical)
        result: Tensor = _module(name).corner_forward(*inputs, corner)
        return result

    def corner_backward(grad: Tensor, vertical: Tensor, horizontal: Tensor, corner: str) -> tuple[Tensor, Tensor]:
        if vertical.numel() == 0:
            return _empty(vertical), _empty(vertical)
        inputs = (_dense(tensor, vertical) for tensor in (grad, vertical, horizontal))
        result: tuple[Tensor, Tensor] = _module(name).corner_backward(*inputs, corner)
        return result

    operators = {
        f"{name}_pool(Tensor x, str direction) -> Tensor": pool,
        f"{name}_pool_backward(Tensor grad, Tensor x, str direction) -> Tensor": pool_backward,
        f"{name}_corner(Tensor vertical, Tensor horizontal, str corner) -> Tensor": corner,
        f"{name}_corner_backward(Tensor grad, Tensor vertical, Tensor horizontal, str corner) -> (Tensor, Tensor)": (
            corner_backward
        ),
    }
    for schema, function in operators.items():
        # exact strides: the layout of the result follows that of the input, so Inductor must not change it
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
        _LIBRARY.define(schema, tags=tags)
        for key in keys:
            _LIBRARY.impl(schema.partition("(")[0], function, key)
    _register_fakes(name)
    _register_autograd(name)
    _register_vmap(name)


def _register_fakes(name: str) -> None:
    def fake(op: str, function: Any) -> None:
        torch.library.register_fake(f"{NAMESPACE}::{name}_{op}", function, lib=_LIBRARY)

    fake("pool", lambda x, direction: _empty(x))
    fake("pool_backward", lambda grad, x, direction: _empty(x))
    fake("corner", lambda vertical, horizontal, corner: _empty(vertical))
    fake("corner_backward", lambda grad, vertical, horizontal, corner: (_empty(vertical), _empty(vertical)))


def _register_autograd(name: str) -> None:
    operators = torch.ops.cornernet_kernels

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.which = inputs
        ctx.save_for_backward(*tensors)

    def save_inputs_only(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, *tensors, ctx.which = inputs
        ctx.save_for_backward(*tensors)

    def pool(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return getattr(operators, f"{name}_pool_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def corner(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return *getattr(operators, f"{name}_corner_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def pool_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        # linear in the gradient, and piecewise constant in x: its derivative with respect to x is zero
        return _at_maximum(grad, *ctx.saved_tensors, ctx.which), None, None

    def corner_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        pairs = zip(grads, ctx.saved_tensors, DIRECTIONS_OF[ctx.which], strict=True)
        first, second = (_at_maximum(grad, x, direction) for grad, x, direction in pairs)
        return first + second, None, None, None

    for op, function, setup in (
        ("pool", pool, save),
        ("corner", corner, save),
        ("pool_backward", pool_backward, save_inputs_only),
        ("corner_backward", corner_backward, save_inputs_only),
    ):
        torch.library.register_autograd(f"{NAMESPACE}::{name}_{op}", function, setup_context=setup, lib=_LIBRARY)


def _register_vmap(name: str) -> None:
    """Let vmap fold the mapped dimension into the batch: pooling treats every image alike."""

    def fold(op: str) -> Any:
        operator = getattr(torch.ops.cornernet_kernels, f"{name}_{op}")

        def batched(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
            *tensors, which = args
            moved = [
                tensor.movedim(dim, 0) if dim is not None else tensor.expand(info.batch_size, *tensor.shape)
                for tensor, dim in zip(tensors, in_dims, strict=False)
            ]
            result = operator(*(tensor.flatten(0, 1) for tensor in moved), which)
            split = moved[0].shape[:2]
            if isinstance(result, Tensor):
                return result.unflatten(0, split), 0
            return tuple(part.unflatten(0, split) for part in result), (0,) * len(result)

        return batched

    for op in ("pool", "pool_backward", "corner", "corner_backward"):
        torch.library.register_vmap(f"{NAMESPACE}::{name}_{op}", fold(op), lib=_LIBRARY)


for _name, (_, _keys) in _MODULES.items():
    _register(_name, _keys)
