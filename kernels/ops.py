"""cpu, triton and cuda as torch.library operators: schemas, fakes, autograd and vmap, written once for all three.

A module whose operators are made here (``kernels.cpu``, ``kernels.triton_pool``, ``kernels.cuda_pool``) provides

* ``pool_forward(x, direction) -> y``
* ``pool_backward(grad, x, direction) -> grad_x``
* ``corner_forward(vertical, horizontal, corner) -> y``
* ``corner_backward(grad, vertical, horizontal, corner) -> (grad_vertical, grad_horizontal)``
* ``why_unavailable() -> str | None``: what is missing on this machine, checked once
* with ``device_limits`` in its row, ``why_not(device_type, auto) -> str | None``: why it does not support tensors on
  ``device_type``, or why ``impl="auto"`` does not pick it (Triton's interpreter)

The first four can assume the following, which this file ensures:

* Tensors are [N, C, H, W], not empty, of float64, float32, float16 or bfloat16, on a device of the row.
* Tensors of one call have the same shape, dtype, device and layout. They are dense, all contiguous or all channels_last
  (``memory_format_of(x)`` tells which; if a size of 1 makes both true, it is contiguous). Others are copied before the
  call.
* Gradients are switched off.

They must return new dense tensors of the same shape, dtype and layout, must not change their inputs, and must
accumulate gradients in float32 or wider, without atomics.

In backward, triton and cuda compute the scan again from the inputs. Autograd saves the inputs, which a preceding
convolution, batch norm or ReLU keeps anyway. Instead, cpu writes *records* in forward, a bit for every position that
replaces the running maximum (measurements in ``kernels.cpu``), so it has other functions for backward:

* ``pool_records(x, direction) -> (y, records)``, ``pool_backward(grad, records, direction) -> grad_x``
* ``corner_records(vertical, horizontal, corner) -> (y, records)``,
  ``corner_backward(grad, records, corner) -> (grad_vertical, grad_horizontal)``

Records are int16 words of 16 bits, shaped [N, C, H, ceil(W / 16)] for contiguous tensors and [N, H * W, ceil(C / 16)]
for channels_last ones, so the number of dimensions tells the layout. Those of a corner have a leading dimension of 2,
the vertical pool first. To keep the same records, another implementation is added to ``_KEEPS_RECORDS``.

Operators are called ``torch.ops.cornernet_kernels.<name>_pool`` and so on, where the name is cpu, triton or cuda. All
are registered when this file is imported (about ten milliseconds). A kernel's module is imported at its first call.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of

__all__ = ["LOADED_IN", "NAMESPACE", "Operators", "records_shape"]

NAMESPACE = "cornernet_kernels"

# The process that imported this file. OpenMP must not be used in a process forked from it.
LOADED_IN = os.getpid()

# Name of the row: its module and its dispatch keys. Triton's interpreter works on the CPU.
_MODULES = {
    "cpu": (".cpu", ("CPU",)),
    "triton": (".triton_pool", ("CUDA", "CPU")),
    "cuda": (".cuda_pool", ("CUDA",)),
}
_KEEPS_RECORDS = ("cpu",)

_LIBRARY: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]


@functools.cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(_MODULES[name][0], __package__)


_OPERATORS: dict[tuple[str, str], Any] = {}


def _operator(name: str, op: str) -> Any:
    return _OPERATORS[name, op]


class Operators:
    """The operators of one implementation, as the two functions that every row of ``kernels.registry`` has."""

    def __init__(self, name: str) -> None:
        self._pool, self._corner = _operator(name, "pool"), _operator(name, "corner")

    def directional_max_pool(self, x: Tensor, direction: str) -> Tensor:
        """Return the pool of ``x`` [N, C, H, W]; see ``kernels.directional_max_pool``."""
        result: Tensor = self._pool(x, direction)
        return result

    def corner_pool(self, vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
        """Return the fused sum [N, C, H, W]; see ``kernels.corner_pool``."""
        result: Tensor = self._corner(vertical, horizontal, corner)
        return result


# ---------------------------------------------------------------------------------------------- shapes and layouts
def _empty(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _dense(x: Tensor, layout: torch.memory_format) -> Tensor:
    return x.detach().contiguous(memory_format=layout)


def records_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of the records of ``x`` [N, C, H, W]: 16 lanes per word, along W or the channels."""
    n, c, h, w = x.shape
    if memory_format_of(x) == torch.channels_last:
        return n, h * w, (c + 15) // 16
    return n, c, h, (w + 15) // 16


def _empty_records(x: Tensor, *leading: int) -> Tensor:
    return torch.empty((*leading, *records_shape(x)), dtype=torch.int16, device=x.device)


def _empty_of(grad: Tensor, records: Tensor, trailing: int) -> Tensor:
    """Return an empty tensor like ``grad`` in the layout of ``records``."""
    return torch.empty(grad.shape, dtype=grad.dtype, device=grad.device, memory_format=_layout(records, trailing))


def _layout(records: Tensor, dimensions: int) -> torch.memory_format:
    return torch.contiguous_format if records.dim() == dimensions else torch.channels_last


# ---------------------------------------------------------------------------------------------- second derivatives
# A backward operator is linear in the incoming gradient, and its transpose gathers a tangent at the maxima. Second
# derivatives need that. It is plain differentiable torch, so third derivatives work too. It is slow, but no training
# loop uses it.
def _first_maximum(x: Tensor, direction: str) -> Tensor:
    """Return the int64 index, along the scan's axis, of the first maximum up to each position of ``x`` [N, C, H, W]."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    order = range(x.shape[axis] - 1, -1, -1) if reverse else range(x.shape[axis])
    best = x.select(axis, order[0])
    indices = [torch.full_like(best, order[0], dtype=torch.int64)]
    for i in order[1:]:
        new = x.select(axis, i)
        keep = (best >= new) | best.isnan()
        best = torch.where(keep, best, new)
        indices.append(torch.where(keep, indices[-1], i))
    return torch.stack(indices[::-1] if reverse else indices, axis)


def _last_record(records: Tensor, shape: torch.Size, direction: str) -> Tensor:
    """Return the same as :func:`_first_maximum` from the records of one pool, for a tensor of ``shape``."""
    axis, reverse = AXIS_AND_REVERSED[direction]
    bits = ((records.int().unsqueeze(-1) >> torch.arange(16, device=records.device)) & 1).flatten(-2)
    last_axis = 1 if records.dim() == 3 else 3
    bits = bits[..., : shape[last_axis]]
    if last_axis == 1:
        bits = bits.reshape(shape[0], shape[2], shape[3], shape[1]).movedim(-1, 1)
    index = torch.arange(shape[axis], device=records.device).view((-1, 1) if axis == 2 else (-1,))
    if reverse:
        return torch.where(bits > 0, index, shape[axis]).flip(axis).cummin(axis).values.flip(axis)
    return torch.where(bits > 0, index, -1).cummax(axis).values


def _at_maximum(values: Tensor, index: Callable[..., Tensor], *index_arguments: Any) -> Tensor:
    """Return ``values`` [N, C, H, W] gathered at the maxima, which ``index(..., direction)`` finds."""
    if values.numel() == 0:
        return values
    return values.gather(AXIS_AND_REVERSED[index_arguments[-1]][0], index(*index_arguments))


# --------------------------------------------------------------------------------------- operators that recompute
def _recompute(name: str, keys: tuple[str, ...]) -> None:
    """Register the four operators of an implementation whose backward reads the inputs again."""

    def pool(x: Tensor, direction: str) -> Tensor:
        result: Tensor = _module(name).pool_forward(_dense(x, memory_format_of(x)), direction)
        return result

    def pool_backward(grad: Tensor, x: Tensor, direction: str) -> Tensor:
        layout = memory_format_of(x)
        result: Tensor = _module(name).pool_backward(_dense(grad, layout), _dense(x, layout), direction)
        return result

    def corner(vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
        layout = memory_format_of(vertical)
        result: Tensor = _module(name).corner_forward(_dense(vertical, layout), _dense(horizontal, layout), corner)
        return result

    def corner_backward(grad: Tensor, vertical: Tensor, horizontal: Tensor, corner: str) -> tuple[Tensor, Tensor]:
        layout = memory_format_of(vertical)
        inputs = (_dense(tensor, layout) for tensor in (grad, vertical, horizontal))
        result: tuple[Tensor, Tensor] = _module(name).corner_backward(*inputs, corner)
        return result

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 (torch passes it by name)
        *tensors, ctx.which = inputs
        ctx.save_for_backward(*tensors)

    def save_all_but_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        save(ctx, inputs[1:], output)

    def pool_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _operator(name, "pool_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def corner_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return *_operator(name, "corner_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def pool_second(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _at_maximum(grad, _first_maximum, *ctx.saved_tensors, ctx.which), None, None

    def corner_second(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        pairs = zip(grads, ctx.saved_tensors, DIRECTIONS_OF[ctx.which], strict=True)
        down, across = (_at_maximum(grad, _first_maximum, x, direction) for grad, x, direction in pairs)
        return down + across, None, None, None

    define = functools.partial(_define, name, keys)
    define("pool(Tensor x, str direction) -> Tensor", pool, lambda x, _: _empty(x))
    define(
        "pool_backward(Tensor grad, Tensor x, str direction) -> Tensor", pool_backward, lambda _grad, x, _: _empty(x)
    )
    define("corner(Tensor vertical, Tensor horizontal, str corner) -> Tensor", corner, lambda v, _h, _: _empty(v))
    define(
        "corner_backward(Tensor grad, Tensor vertical, Tensor horizontal, str corner) -> (Tensor, Tensor)",
        corner_backward,
        lambda _grad, v, _h, _: (_empty(v), _empty(v)),
    )
    _differentiate(name, "pool", pool_gradient, save)
    _differentiate(name, "corner", corner_gradient, save)
    _differentiate(name, "pool_backward", pool_second, save_all_but_grad)
    _differentiate(name, "corner_backward", corner_second, save_all_but_grad)
    for op, tensors in (("pool", 1), ("pool_backward", 2), ("corner", 2), ("corner_backward", 3)):
        _vectorise(name, op, (0,) * tensors, (0, 0))


# ------------------------------------------------------------------------------------- operators that keep records
def _keep_records(name: str, keys: tuple[str, ...]) -> None:
    """Register the six operators of an implementation whose forward writes records for backward."""

    def forward(function: str, *tensors: Tensor, which: str) -> Any:
        layout = memory_format_of(tensors[0])
        return getattr(_module(name), function)(*(_dense(tensor, layout) for tensor in tensors), which)

    def pool(x: Tensor, direction: str) -> Any:
        return forward("pool_forward", x, which=direction)

    def pool_records(x: Tensor, direction: str) -> Any:
        return forward("pool_records", x, which=direction)

    def pool_backward(grad: Tensor, records: Tensor, direction: str) -> Any:
        return _module(name).pool_backward(_dense(grad, _layout(records, 4)), records.contiguous(), direction)

    def corner(vertical: Tensor, horizontal: Tensor, corner: str) -> Any:
        return forward("corner_forward", vertical, horizontal, which=corner)

    def corner_records(vertical: Tensor, horizontal: Tensor, corner: str) -> Any:
        return forward("corner_records", vertical, horizontal, which=corner)

    def corner_backward(grad: Tensor, records: Tensor, corner: str) -> Any:
        return _module(name).corner_backward(_dense(grad, _layout(records, 5)), records.contiguous(), corner)

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.which = inputs[-1]

    def save_records(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 (torch passes it by name)
        ctx.save_for_backward(inputs[1])
        ctx.shape, ctx.which = inputs[0].shape, inputs[2]

    def pool_gradient(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        return _operator(name, "pool_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def corner_gradient(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
        return *_operator(name, "corner_backward")(grad, *ctx.saved_tensors, ctx.which), None

    def pool_second(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _at_maximum(grad, _last_record, *ctx.saved_tensors, ctx.shape, ctx.which), None, None

    def corner_second(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        pairs = zip(grads, ctx.saved_tensors[0], DIRECTIONS_OF[ctx.which], strict=True)
        down, across = (
            _at_maximum(grad, _last_record, records, ctx.shape, direction) for grad, records, direction in pairs
        )
        return down + across, None, None

    define = functools.partial(_define, name, keys)
    one, two = "(Tensor x, str direction)", "(Tensor vertical, Tensor horizontal, str corner)"
    define(f"pool{one} -> Tensor", pool, lambda x, _: _empty(x))
    define(f"pool_records{one} -> (Tensor, Tensor)", pool_records, lambda x, _: (_empty(x), _empty_records(x)))
    define(
        "pool_backward(Tensor grad, Tensor records, str direction) -> Tensor",
        pool_backward,
        lambda grad, records, _: _empty_of(grad, records, 4),
    )
    define(f"corner{two} -> Tensor", corner, lambda v, _h, _: _empty(v))
    define(
        f"corner_records{two} -> (Tensor, Tensor)", corner_records, lambda v, _h, _: (_empty(v), _empty_records(v, 2))
    )
    define(
        "corner_backward(Tensor grad, Tensor records, str corner) -> (Tensor, Tensor)",
        corner_backward,
        lambda grad, records, _: (_empty_of(grad, records, 5), _empty_of(grad, records, 5)),
    )
    _differentiate_by(name, "pool", "pool_records")
    _differentiate_by(name, "corner", "corner_records")
    _differentiate(name, "pool_records", pool_gradient, save)
    _differentiate(name, "corner_records", corner_gradient, save)
    _differentiate(name, "pool_backward", pool_second, save_records)
    _differentiate(name, "corner_backward", corner_second, save_records)
    _vectorise(name, "pool", (0,), (0,))
    _vectorise(name, "pool_records", (0,), (0, 0))
    _vectorise(name, "pool_backward", (0, 0), (0,))
    _vectorise(name, "corner", (0, 0), (0,))
    _vectorise(name, "corner_records", (0, 0), (0, 1))
    _vectorise(name, "corner_backward", (0, 1), (0, 0))


# ------------------------------------------------------------------------------------------------ shared by both kinds
def _define(name: str, keys: tuple[str, ...], schema: str, function: Any, fake: Any) -> None:
    """Define ``<name>_<schema>``: ``fake`` handles empty and fake tensors, ``function`` all others."""

    def implementation(*args: Any) -> Any:
        return fake(*args) if args[0].numel() == 0 else function(*args)

    # exact strides: the layout of the result depends on that of the input, so Inductor must not change it
    _LIBRARY.define(f"{name}_{schema}", tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides))
    operator = f"{name}_{schema.partition('(')[0]}"
    for key in keys:
        _LIBRARY.impl(operator, implementation, key)
    torch.library.register_fake(f"{NAMESPACE}::{operator}", fake, lib=_LIBRARY)
    _OPERATORS[name, operator.removeprefix(f"{name}_")] = getattr(torch.ops.cornernet_kernels, operator).default


def _differentiate(name: str, op: str, gradient: Any, save: Any) -> None:
    torch.library.register_autograd(f"{NAMESPACE}::{name}_{op}", gradient, setup_context=save, lib=_LIBRARY)


def _differentiate_by(name: str, op: str, recording: str) -> None:
    """Run ``op`` as ``recording``, whose first output is the same, if a gradient will be needed."""

    def implementation(*args: Any) -> Any:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in args[:-1]):
            return _operator(name, recording)(*args)[0]
        with torch._C._AutoDispatchBelowAutograd():
            return _operator(name, op)(*args)

    _LIBRARY.impl(f"{name}_{op}", implementation, "Autograd")


def _vectorise(name: str, op: str, axes: tuple[int, ...], result_axes: tuple[int, ...]) -> None:
    """Let vmap fold the mapped dimension into the images, at ``axes``: pooling handles each image separately."""

    def fold(tensor: Tensor, dim: int | None, axis: int, size: int) -> Tensor:
        moved = tensor.movedim(dim, axis) if dim is not None else torch.stack([tensor] * size, axis)
        return moved.flatten(axis, axis + 1)

    def unfold(tensor: Tensor, axis: int, size: int) -> Tensor:
        shape = tensor.shape
        return tensor.reshape(*shape[:axis], size, shape[axis] // size, *shape[axis + 1 :])

    def mapped(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        *tensors, which = args
        size = info.batch_size
        inputs = [fold(*each, size) for each in zip(tensors, in_dims, axes, strict=False)]
        result = _operator(name, op)(*inputs, which)
        if isinstance(result, Tensor):
            return unfold(result, 0, size), 0
        return tuple(unfold(part, axis, size) for part, axis in zip(result, result_axes, strict=True)), result_axes

    torch.library.register_vmap(f"{NAMESPACE}::{name}_{op}", mapped, lib=_LIBRARY)


for _name, (_, _keys) in _MODULES.items():
    (_keep_records if _name in _KEEPS_RECORDS else _recompute)(_name, _keys)
