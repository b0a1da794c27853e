"""Export of a detector to ONNX, ``torch.export`` programs and AOTInductor packages. Every export is checked.

The exported programs take normalised images [B, 3, H, W] float32 of any batch size. Sides have the form
``total_stride * k - 1``, up to a maximum. The outputs are either the raw maps of the last stack or, decoded, the best
boxes in heatmap cells. The file also holds the required form of the images (mean, standard deviation, channel order,
padding), the strides and the classes.

* onnx: corner pooling in a fixed number of steps, without custom operators. Each step takes the maximum of a map and a
  copy that is shifted and padded with minus infinity.
* export: a ``torch.export`` program (.pt2) with ``kernels.logstep``. Run it with ``torch.export.load(path).module()``.
* inductor: the same program, compiled ahead of time for this kind of machine (.pt2). Compiling needs a C++ compiler,
  running does not. Run it with ``torch._inductor.aoti_load_package(path)``.

The last two load in a process that imports only torch.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cornernet.config import ConfigError
from cornernet.config.choices import ExportFormat
from cornernet.console import PrintableError
from cornernet.files import atomic_write
from cornernet.kernels.contract import AXIS_AND_REVERSED, DIRECTIONS_OF, Corner
from cornernet.model.detector import Detector
from cornernet.model.fast import optimised
from cornernet.model.heads.corner.head import CornerPooling

__all__ = ["DECODED", "RAW", "ExportError", "export_detector", "why_unavailable"]

RAW = tuple(
    f"{corner}_{what}" for what in ("heatmap", "embedding", "offset") for corner in ("top_left", "bottom_right")
)
"""Names of raw outputs: logits [B, K, h, w], embeddings [B, D, h, w], offsets [B, 2, h, w], at the output stride."""
DECODED = ("boxes", "scores", "corner_scores", "labels")
"""Names of decoded outputs: [B, N, 4] x1 y1 x2 y2 in heatmap cells, [B, N], [B, N, 2], [B, N]. Score -1 is no box."""

LARGEST_BATCH = 1024
TOLERANCE = 1e-4
"""Largest allowed difference between program and detector, as a fraction of the output's largest value."""


class ExportError(PrintableError, RuntimeError):
    """An export that failed, or whose results differ from the detector's. The message says why."""


class _LastStack(nn.Module):
    """A detector that returns the last stack's predictions, raw or decoded, as a flat tuple of tensors."""

    def __init__(self, detector: Detector, decoded: bool) -> None:
        super().__init__()
        self.detector = detector
        self.decoded = decoded

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        predictions = self.detector(images, last_only=True)[-1]
        if self.decoded:
            return tuple(self.detector.head.decode_padded(predictions, self.detector.config.testing))
        return tuple(tensor for pair in predictions for tensor in pair)


def why_unavailable(format_name: ExportFormat) -> str | None:
    """Return why a format cannot be written on this machine, or None if it can."""
    if format_name == "onnx":
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            return f"it needs {', '.join(missing)}: pip install 'cornernet-lab[export]'"
    if format_name == "inductor" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "it needs a C++ compiler, and neither g++ nor clang++ is installed"
    return None


def export_detector(
    detector: Detector,
    path: str | Path,
    format_name: ExportFormat,
    *,
    decoded: bool = False,
    largest: int = 2047,
    write: Callable[[Path, bytes], object] = atomic_write,
) -> list[str]:
    """Write a detector to ``path``, check it, and return the report of the check, one line per image size.

    ``largest`` is the longest side, in pixels, of an image that the program accepts. ``decoded`` adds the corner head's
    decoding according to ``detector.config.testing``, with up to ``num_candidates`` boxes per image. The file is only
    written if the program reproduces the detector's results at two sizes that it was not traced with. ``write`` is
    called to write it.

    Raises :class:`ExportError` if it does not, or if this machine cannot write the format, and ``ConfigError`` if
    ``largest`` is too small or the head's decoding cannot be exported.
    """
    path = Path(path)
    reason = why_unavailable(format_name)
    if reason is not None:
        raise ExportError(f"cannot export to {format_name}: {reason}")
    if decoded and not detector.head.finds_corners:
        raise ConfigError("decoding can be exported only for heads that find corners; export the raw maps instead")
    stride = detector.total_stride
    least, most = _fewest(detector, decoded), (largest + 1) // stride
    if most < least + 2:
        raise ConfigError(f"the largest side is {largest}, which is too small; use {(least + 2) * stride - 1} or more")
    model = _LastStack(copy.deepcopy(detector).float().cpu().eval(), decoded).eval()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), _quiet():
        partial = Path(folder) / f"model{path.suffix}"
        expected = copy.deepcopy(model)
        writer: dict[str, Callable[..., Callable[[Tensor], Sequence[Tensor]]]] = {
            "onnx": _write_onnx,
            "export": _write_program,
            "inductor": _write_package,
        }
        run = writer[format_name](model, partial, (least, most))
        lines = [_compare(run, expected, size, stride) for size in ((1, least + 2, least), (2, least, least + 2))]
        write(path, partial.read_bytes())
    return lines


def _fewest(detector: Detector, decoded: bool) -> int:
    """Return the smallest k of sides ``stride * k - 1``. Decoding ``top_k`` corners needs as many heatmap entries."""
    if not decoded:
        return 2
    cells = detector.total_stride // detector.output_stride
    entries = detector.config.model.num_classes * cells * cells
    return max(2, math.ceil(math.sqrt(detector.config.testing.top_k / entries)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings, which concern only their own internals, or torchvision, which is not needed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _metadata(detector: Detector, decoded: bool) -> dict[str, str]:
    """Return what users of the exported file need to know."""
    data = detector.config.data
    return {
        "producer": "cornernet-lab",
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "channel_order": data.channel_order,
        "padding": data.padding,
        "total_stride": str(detector.total_stride),
        "output_stride": str(detector.output_stride),
        "outputs": json.dumps(DECODED if decoded else RAW),
        "classes": json.dumps(detector.classes),
        "category_ids": json.dumps(detector.category_ids),
        "config": json.dumps(detector.config.to_dict()),
    }


def _traced(model: _LastStack, span: tuple[int, int]) -> torch.export.ExportedProgram:
    """Return the program of a model for any batch and for sides of ``total_stride * k - 1`` with k in ``span``."""
    stride, (least, most) = model.detector.total_stride, span
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    rows, columns = (torch.export.Dim(name, min=least, max=most) for name in ("rows", "columns"))
    sizes = {0: batch, 2: stride * rows - 1, 3: stride * columns - 1}
    example = torch.zeros(2, 3, (least + 1) * stride - 1, least * stride - 1)
    return torch.export.export(model, (example,), dynamic_shapes=(sizes,), strict=False)


def _write_program(model: _LastStack, path: Path, span: tuple[int, int]) -> Callable[[Tensor], Sequence[Tensor]]:
    with model.detector.pooling_by("logstep"):
        program = _traced(model, span)
    torch.export.save(program, path, extra_files=_metadata(model.detector, model.decoded))
    return torch.export.load(path).module()


def _write_package(model: _LastStack, path: Path, span: tuple[int, int]) -> Callable[[Tensor], Sequence[Tensor]]:
    import torch._inductor

    with model.detector.pooling_by("logstep"):
        program = _traced(model, span)
    configs = {"aot_inductor.metadata": _metadata(model.detector, model.decoded)}
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)
    loaded: Callable[[Tensor], Sequence[Tensor]] = torch._inductor.aoti_load_package(str(path))
    return loaded


def _write_onnx(model: _LastStack, path: Path, span: tuple[int, int]) -> Callable[[Tensor], Sequence[Tensor]]:
    import onnx
    import onnxruntime

    longest = span[1] * model.detector.total_stride // model.detector.output_stride
    for part in model.modules():
        if isinstance(part, CornerPooling):
            part.pool = _Scans(part.corner, longest)  # type: ignore[method-assign]
    names = DECODED if model.decoded else RAW
    # fewer operators to trace; what reads ONNX files folds batch norm anyway
    model.detector = optimised(model.detector).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = torch.onnx.export(
        _traced(model, span), dynamo=True, input_names=["images"], output_names=list(names), verbose=False,
        custom_translation_table={torch.ops.cornernet_export.scan.default: _scan_in_onnx},
    )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    for name, value in _metadata(model.detector, model.decoded).items():
        graph.metadata_props.add(key=name, value=value)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(np.asarray(each)) for each in session.run(list(names), {"images": images.numpy()})]

    return run


class _Scans:
    """Corner pooling of maps with sides of up to ``longest`` cells, as an operator that only tracing sees.

    :func:`_scan_in_onnx` writes it in a fixed number of steps. Traced one by one, the steps of a detector take a third
    of the export's time, because every shape in them is symbolic.
    """

    def __init__(self, corner: Corner, longest: int) -> None:
        self.corner = corner
        self.steps = math.ceil(math.log2(longest))

    def __call__(self, vertical: Tensor, horizontal: Tensor) -> Tensor:
        down, across = (AXIS_AND_REVERSED[direction] for direction in DIRECTIONS_OF[self.corner])
        scan = torch.ops.cornernet_export.scan
        result: Tensor = scan(vertical, *down, self.steps) + scan(horizontal, *across, self.steps)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> _Scans:
        return self


_LIBRARY: Any = torch.library.Library("cornernet_export", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("scan(Tensor x, int axis, bool reverse, int steps) -> Tensor")
torch.library.impl(_LIBRARY, "scan", "Meta")(lambda x, *_: torch.empty_like(x))


def _scan_in_onnx(x: Any, axis: int, reverse: bool, steps: int) -> Any:
    """Return the running maximum of ``x`` along an axis: a maximum with itself, shifted by 1, 2, 4, ..."""
    op: Any = importlib.import_module("onnxscript").opset18

    for step in range(steps):
        by = 2**step
        begins, ends = [0] * 4, [0] * 4
        (ends if reverse else begins)[axis] = by
        padded = op.Pad(x, op.Constant(value_ints=begins + ends), op.Constant(value_float=-math.inf))
        first, last = (by, 2**62) if reverse else (0, -by)
        shifted = op.Slice(
            padded, op.Constant(value_ints=[first]), op.Constant(value_ints=[last]), op.Constant(value_ints=[axis])
        )
        x = op.Max(x, shifted)
    return x


# ------------------------------------------------------------------------------------------------------------ the check


def _compare(
    run: Callable[[Tensor], Sequence[Tensor]], model: _LastStack, size: tuple[int, int, int], stride: int
) -> str:
    """Run program and detector on one batch and return a line that compares them; ``ExportError`` if they differ."""
    batch, rows, columns = size
    generator = torch.Generator().manual_seed(batch + rows)
    images = torch.randn(batch, 3, stride * rows - 1, stride * columns - 1, generator=generator)
    found, expected = list(run(images)), list(model(images))
    where = f"{batch}x3x{images.shape[2]}x{images.shape[3]}"
    if [each.shape for each in found] != [each.shape for each in expected]:
        raise ExportError(
            f"at {where} the program's outputs have the shapes {[list(each.shape) for each in found]} instead of "
            f"{[list(each.shape) for each in expected]}"
        )
    if model.decoded:
        worst = _unmatched(found, expected)
        if worst > 0.02:
            raise ExportError(f"at {where} the program misses {100 * worst:.1f}% of the detector's boxes")
        return f"{where}: {100 * (1 - worst):.1f}% of the boxes reproduced"
    worst = 0.0
    for name, mine, theirs in zip(RAW, found, expected, strict=True):
        difference = float((mine - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))
        if not difference <= TOLERANCE:
            raise ExportError(f"at {where} {name} differs by {difference:.1e} of its largest value")
        worst = max(worst, difference)
    return f"{where}: largest difference {worst:.1e} of the largest value"


def _unmatched(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the fraction of expected boxes without a partner: a box of the same label, position and score.

    Order does not matter, because boxes whose scores differ only in the last digits may swap, and at the end of the
    list one may replace the other. Boxes with a corner of score 0 do not count: such corners fill maps that have too
    few, and their positions are arbitrary.
    """
    missing = count = 0
    for image in range(len(expected[0])):
        rows = [
            torch.cat([each[0][image], each[1][image][:, None], each[3][image][:, None].float()], dim=1)
            for each in (found, expected)
        ]
        theirs = rows[1][(rows[1][:, 4] > -1) & (expected[2][image] > 0).all(1)]
        if len(theirs):
            distance = (theirs[:, None] - rows[0][None]).abs().amax(2).amin(1)
            missing += int((distance > 1e-2).sum())
            count += len(theirs)
    return missing / count if count else 0.0
