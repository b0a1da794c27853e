"""Corner pooling in CUDA C++: ``cuda/corner_pool.cu``, compiled at first use by NVRTC through ``cuda.core``.

It needs no nvcc, no headers and no binary interface of torch: the source includes nothing, tensors are passed as
addresses, and the kernels run on torch's current stream. CUDA graphs can record them after one call outside the
capture, which compiles and loads them. Machine code is cached (:mod:`.machine_code`).

By design, the device memory traffic per element of b bytes is: 2b for the forward of one direction; 3b for the fused
forward (each input is read once, the sum written once); 3b for the backward of one direction; 5b for the fused backward
(the second read of the gradient hits the L2 cache). If a block cannot span a row, or if there are too few planes to
fill the GPU, the fused forward takes two launches and 5b instead.

Launches are planned (:class:`Kernels`) separately from their execution, so the tests can run the same plans and the
same source on a host emulation.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import machine_code
from .contract import AXIS_AND_REVERSED, DIRECTIONS_OF
from .layout import memory_format_of

__all__ = [
    "ENTRIES",
    "SOURCE",
    "THREADS",
    "Kernels",
    "Launch",
    "Variant",
    "compile_cubin",
    "corner_backward",
    "corner_forward",
    "load_cubin",
    "pool_backward",
    "pool_forward",
    "why_unavailable",
]

SOURCE = Path(__file__).parent / "cuda" / "corner_pool.cu"
THREADS = 256  # of every block
SHARED_BYTES = 48 * 1024  # shared memory that a block can have without requesting more
ACCESS_BYTES = 16  # the widest access of one thread
ENTRIES = (
    "corner_forward_planes",
    "corner_forward_channels",
    "strided_forward",
    "rows_forward",
    "corner_backward_planes",
    "corner_backward_channels",
    "strided_backward",
    "rows_backward",
)


# ------------------------------------------------------------------------------------------------------------- planning
@dataclass(frozen=True)
class Variant:
    """One compilation of the source: an element type, and the number of neighbouring elements per access."""

    dtype: torch.dtype
    vec: int

    @property
    def held(self) -> int:
        """Accesses in flight per thread and tensor: as many as fit in 128 registers without a spill."""
        if self.vec == 1:
            return 4 if self.dtype == torch.float64 else 8
        return 2 if self.dtype.itemsize == 2 else 4

    @property
    def wide_bytes(self) -> int:
        """Bytes of the type that values are compared and summed in."""
        return max(4, self.dtype.itemsize)

    @property
    def macros(self) -> dict[str, str]:
        """Macros that the compiler defines."""
        kind = str(self.dtype).removeprefix("torch.").upper()
        return {kind: "1", "VEC": str(self.vec), "HELD": str(self.held), "THREADS": str(THREADS)}


@dataclass(frozen=True)
class Launch:
    """One launch with :data:`THREADS` threads per block. Tensors among the arguments stand for their addresses."""

    entry: str
    blocks: int
    shared: int
    arguments: tuple[Tensor | int | None, ...]


Execute = Callable[[Variant, Launch, torch.device], None]


@dataclass(frozen=True)
class _Scan:
    """Lines to scan: elements (outer, position, lane) of a dense array. Without lanes the lines are contiguous."""

    outer: int
    length: int
    lanes: int | None

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.outer, self.length) if self.lanes is None else (self.outer, self.length, self.lanes)

    @property
    def kind(self) -> str:
        return "rows" if self.lanes is None else "strided"


@dataclass(frozen=True)
class _Blocks:
    """How a scan is cut into blocks: ``slots`` threads share a line, in ``chunks`` steps."""

    blocks: int
    slots: int
    chunks: int
    lines: int

    def shared(self, variant: Variant, marks: bool) -> int:
        cells = self.slots * (self.lines | 1)
        return variant.wide_bytes * (cells + self.lines) + marks * cells


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _scan_of(x: Tensor, axis: int) -> _Scan:
    n, c, h, w = x.shape
    if memory_format_of(x) == torch.channels_last:
        return _Scan(n, h, w * c) if axis == 2 else _Scan(n * h, w, c)
    return _Scan(n * c, h, w) if axis == 2 else _Scan(n * c * h, w, None)


def _cut(scan: _Scan, variant: Variant) -> _Blocks:
    """Cut ``scan`` into blocks: several short lines per block, or a long line on up to 64 threads (256 for rows).

    Neighbouring threads should access at least 64 neighbouring bytes. So a block takes neighbouring lines that together
    span that many; contiguous lines span them without a limit on the threads per line.
    """
    if scan.lanes is not None:
        widest = max(1, THREADS * variant.vec * variant.dtype.itemsize // 64)
        slots = min(_ceil(scan.length, variant.held), widest, 64)
        across = THREADS // slots
        blocks = _ceil(scan.outer * (scan.lanes // variant.vec), across)
        return _Blocks(blocks, slots, _ceil(scan.length, slots * variant.held), across * variant.vec)
    slots = min(_ceil(scan.length, variant.vec), THREADS)
    lines = THREADS // slots * variant.held
    return _Blocks(_ceil(scan.outer, lines), slots, _ceil(scan.length, slots * variant.vec), lines)


def _variant(tensors: tuple[Tensor, ...]) -> Variant:
    """Return the variant with the widest access that sizes and addresses allow."""
    x = tensors[0]
    vec = ACCESS_BYTES // x.dtype.itemsize
    contiguous = x.shape[1] if memory_format_of(x) == torch.channels_last else x.shape[3]
    if contiguous % vec or any(tensor.data_ptr() % ACCESS_BYTES for tensor in tensors):
        vec = 1
    return Variant(x.dtype, vec)


def _span(x: Tensor, variant: Variant, processors: int) -> Launch | None:
    """Plan the one-pass fused forward, as a launch without its tensors and direction.

    Returns None if a block cannot span a row, or if fewer than half of the GPU's multiprocessors would be busy.
    """
    n, c, h, w = x.shape
    channels_last = memory_format_of(x) == torch.channels_last
    if channels_last:
        columns, down = _ceil(w, variant.held), 1
        vectors = c // variant.vec
        groups = min(vectors, max(1, 32 // (variant.vec * x.dtype.itemsize)))
        if n * _ceil(vectors, 2 * groups) >= 2 * processors:
            groups *= 2
        groups = min(groups, THREADS // columns)
    else:
        columns, down = _ceil(w, variant.vec), variant.held
        groups = 1
    if columns > THREADS or groups < 1:
        return None
    rows = max(1, min(THREADS // (groups * columns), _ceil(h, down)))
    if not channels_last:
        groups = max(1, min(THREADS // (columns * rows), n * c // (2 * processors)))
    blocks = n * _ceil(c // variant.vec, groups) if channels_last else _ceil(n * c, groups)
    per_place = variant.vec * variant.held if channels_last else variant.vec
    vertical = groups * columns * per_place
    horizontal = groups * rows * (variant.vec if channels_last else variant.held)
    cells = rows * (vertical | 1) + vertical + columns * (horizontal | 1) + horizontal
    if 2 * blocks < processors or cells * variant.wide_bytes > SHARED_BYTES:
        return None
    entry = "corner_forward_channels" if channels_last else "corner_forward_planes"
    return Launch(entry, blocks, cells * variant.wide_bytes, (n, c, h, w, groups, columns, rows))


class Kernels:
    """The four operations, planned here and executed by ``execute(variant, launch, device)``.

    ``processors(device)`` returns the number of multiprocessors. Tensors are as ``kernels.ops`` ensures: dense, not
    empty, of one layout.
    """

    def __init__(self, execute: Execute, processors: Callable[[torch.device], int]) -> None:
        self._execute = execute
        self._processors = processors

    def pool_forward(self, x: Tensor, direction: str) -> Tensor:
        """Return the running maximum of ``x`` [N, C, H, W] in ``direction``."""
        y = torch.empty_like(x)
        self._forward(x, None, y, direction)
        return y

    def corner_forward(self, vertical: Tensor, horizontal: Tensor, corner: str) -> Tensor:
        """Return the sum of both pools [N, C, H, W] for ``corner``, top_left or bottom_right."""
        y = torch.empty_like(vertical)
        down, across = DIRECTIONS_OF[corner]
        variant = _variant((vertical, horizontal, y))
        plan = _span(vertical, variant, self._processors(y.device))
        if plan is None:
            self._forward(horizontal, None, y, across)
            self._forward(vertical, y, y, down)
            return y
        arguments = (vertical, horizontal, y, *plan.arguments, int(AXIS_AND_REVERSED[down][1]))
        self._execute(variant, dataclasses.replace(plan, arguments=arguments), y.device)
        return y

    def pool_backward(self, grad: Tensor, x: Tensor, direction: str) -> Tensor:
        """Return the gradient of the pool's input ``x`` [N, C, H, W], given that of its output."""
        out = torch.empty_like(x)
        axis, reversed_ = AXIS_AND_REVERSED[direction]
        variant = _variant((x, grad, out))
        scan = _scan_of(x, axis)
        cut = _cut(scan, variant)
        arguments = (grad, x, out, _records(cut, x), *scan.sizes, cut.slots, int(reversed_))
        launch = Launch(f"{scan.kind}_backward", cut.blocks, cut.shared(variant, True), arguments)
        self._execute(variant, launch, x.device)
        return out

    def corner_backward(self, grad: Tensor, vertical: Tensor, horizontal: Tensor, corner: str) -> tuple[Tensor, Tensor]:
        """Return the gradients of both inputs [N, C, H, W], given that of the sum."""
        grads = torch.empty_like(vertical), torch.empty_like(horizontal)
        variant = _variant((grad, vertical, horizontal, *grads))
        cuts = [_cut(_scan_of(vertical, axis), variant) for axis in (2, 3)]
        arguments = (
            *(grad, vertical, horizontal, *grads),
            *(_records(cut, vertical) for cut in cuts),
            *vertical.shape,
            *(cuts[0].blocks, cuts[0].slots, cuts[1].slots),
            int(AXIS_AND_REVERSED[DIRECTIONS_OF[corner][0]][1]),
        )
        entry = f"corner_backward_{'channels' if memory_format_of(vertical) == torch.channels_last else 'planes'}"
        shared = max(cut.shared(variant, True) for cut in cuts)
        self._execute(variant, Launch(entry, sum(cut.blocks for cut in cuts), shared, arguments), vertical.device)
        return grads

    def _forward(self, x: Tensor, addend: Tensor | None, y: Tensor, direction: str) -> None:
        axis, reversed_ = AXIS_AND_REVERSED[direction]
        variant = _variant((x, y))
        scan = _scan_of(x, axis)
        cut = _cut(scan, variant)
        arguments = (x, addend, y, *scan.sizes, cut.slots, int(reversed_))
        launch = Launch(f"{scan.kind}_forward", cut.blocks, cut.shared(variant, False), arguments)
        self._execute(variant, launch, x.device)


def _records(cut: _Blocks, x: Tensor) -> Tensor | None:
    """Return memory for the records of a backward pass in several chunks, a word per thread and chunk, or None."""
    if cut.chunks == 1:
        return None
    return torch.empty(cut.blocks * cut.chunks * THREADS, dtype=torch.int32, device=x.device)


# ------------------------------------------------------------------------------------------------------------ compiling
def compile_cubin(variant: Variant, arch: str, log: Any = None) -> bytes:
    """Compile the source for ``arch`` (such as sm_90) and return machine code; this needs no GPU.

    The compiler writes the resources of each kernel to ``log``, a text stream, if it is given. Raises ``RuntimeError``
    with the compiler's message if compiling fails.
    """
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        arch=arch,
        std="c++17",
        define_macro=list(variant.macros.items()),
        ptxas_options=["-v"] if log is not None else None,
    )
    try:
        code: bytes = Program(SOURCE.read_text(encoding="utf-8"), "c++", options).compile("cubin", logs=log).code
    except Exception as error:
        raise RuntimeError(f"NVRTC could not compile {SOURCE.name} for {arch} ({variant}): {error}") from error
    return code


def load_cubin(variant: Variant, arch: str) -> bytes:
    """Return machine code from the cache on disk (:mod:`.machine_code`); if it is missing, compile and save it first.

    If the cache cannot be read, written or trusted, the code is compiled again.
    """
    key = "\0".join(
        (SOURCE.read_text(encoding="utf-8"), repr(sorted(variant.macros.items())), arch, _version("cuda-core"))
    )
    code = machine_code.load("cuda_pool", key)
    if code is None:
        code = compile_cubin(variant, arch)
        machine_code.save("cuda_pool", key, code)
    return code


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# -------------------------------------------------------------------------------------------------------------- running
@functools.cache
def why_unavailable() -> str | None:
    """Return what is missing on this machine and how to install it, or None."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if not torch.cuda.is_available():
        return "no CUDA device or driver was found (torch.cuda.is_available() is False)"
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.core") is None:
        return "the package cuda.core is missing; pip install 'cornernet-lab[cuda]'"
    try:
        from cuda.core import Program  # noqa: F401
    except ImportError as error:
        return f"cuda.core cannot be imported ({error}); pip install 'cornernet-lab[cuda]'"
    return _why_no_compiler()


def _why_no_compiler() -> str | None:
    from cuda.bindings import nvrtc

    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        return f"the compiler library NVRTC is missing ({' '.join(str(error).split())}); pip install nvidia-cuda-nvrtc"
    return None


class _TorchStream:
    """Torch's current stream, in the form in which cuda.core accepts streams of other libraries."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


@functools.cache
def _kernel(variant: Variant, entry: str, arch: str) -> Any:
    from cuda.core import ObjectCode

    return ObjectCode.from_cubin(load_cubin(variant, arch)).get_kernel(entry)


@functools.cache
def _arch(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _execute(variant: Variant, launch: Launch, device: torch.device) -> None:
    from cuda.core import Device, LaunchConfig
    from cuda.core import launch as start

    arguments = [
        argument.data_ptr() if isinstance(argument, Tensor) else argument or 0 for argument in launch.arguments
    ]
    with torch.cuda.device(device):
        here = Device(device.index)
        here.set_current()
        stream = here.create_stream(_TorchStream(torch.cuda.current_stream(device).cuda_stream))
        config = LaunchConfig(grid=launch.blocks, block=THREADS, shmem_size=launch.shared)
        start(stream, config, _kernel(variant, launch.entry, _arch(device)), *arguments)


_KERNELS = Kernels(_execute, _multiprocessors)
pool_forward = _KERNELS.pool_forward
pool_backward = _KERNELS.pool_backward
corner_forward = _KERNELS.corner_forward
corner_backward = _KERNELS.corner_backward
