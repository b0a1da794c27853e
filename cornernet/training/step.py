"""One optimiser step: what training repeats, and what :mod:`cornernet.training.timing` measures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cornernet.config import TrainingConfig
from cornernet.data.loader import Batch
from cornernet.model.detector import Detector
from cornernet.training.devices import Processes, loss_scaler
from cornernet.training.errors import NotFiniteError

__all__ = ["Lap", "StepResult", "TrainStep"]

Lap = Callable[[str], None]
"""Called with the name of a stage when it ends: forward, loss, backward, clipping, optimiser."""

STEPS_UNCHECKED = 100
"""The most steps between two checks for numbers that are not finite, where a check would make every step wait."""

_GRADIENT = "gradient"


class StepResult(NamedTuple):
    """The outcome of one step."""

    losses: dict[str, Tensor]
    """This process's share of each loss of the batch; scalars without gradients."""
    gradient_norm: Tensor | None
    """Before clipping; None if ``training.clip_norm`` is not set."""
    stopping: bool
    """Whether any process was asked to stop."""


class TrainStep:
    """Takes optimiser steps as ``training`` describes them, with the state that this needs.

    A new one moves ``detector`` to its device, in the configured memory format, and starts with a new optimiser.
    """

    def __init__(self, detector: Detector, training: TrainingConfig, processes: Processes) -> None:
        self.detector, self.training, self.processes = detector, training, processes
        self.memory_format = torch.channels_last if training.channels_last else torch.contiguous_format
        detector.to(device=processes.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(detector.parameters(), lr=training.learning_rate, fused=True)
        self.scaler = loss_scaler(training, processes.device)
        self.model = _wrapped(detector, training, processes)
        self._unchecked: list[_Values] = []

    def __call__(
        self, parts: Sequence[Batch], iteration: int, *, stop: bool = False, lap: Lap = lambda _: None
    ) -> StepResult:
        """Take step number ``iteration`` over the parts of a batch.

        Losses are divided by counts over the whole batch, all parts and processes together. They and their gradients
        are therefore those of the large batch, however it is split. ``stop`` says that this process was asked to stop;
        all processes learn of it in the same step.

        Raises :class:`NotFiniteError` before a loss or a gradient that is not finite reaches the weights. On a GPU, and
        with several processes, such numbers are found later, by :meth:`require_finite`, so that no step waits.
        """
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        targets = [part.targets.to(self.processes.device) for part in parts]
        counts, stopping = self._shared_counts(targets, stop)
        losses = self._accumulate_gradients(parts, targets, counts, lap)
        norm = None
        if self.training.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(self.detector.parameters(), self.training.clip_norm)
            lap("clipping")
        self._remember(iteration, parts, losses, norm)
        # with float16, a step whose gradients overflow is skipped, and the scale is lowered
        self.scaler.step(self.optimiser)
        self.scaler.update()
        lap("optimiser")
        return StepResult(losses, norm, stopping)

    def set_learning_rate(self, rate: float) -> None:
        """Use a learning rate from the next step on."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser and of the scaler. The detector has its own."""
        return {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        self.optimiser.load_state_dict(state["optimiser"])
        if state.get("scaler"):  # missing from checkpoints older than float16, empty for other precisions
            self.scaler.load_state_dict(state["scaler"])

    def require_finite(self) -> None:
        """Raise :class:`NotFiniteError` for the first step since the last check with a loss or gradient not finite."""
        steps, self._unchecked = self._unchecked, []
        if not steps:
            return
        broken = ~torch.stack([torch.stack(list(step.values.values())) for step in steps]).isfinite()
        anywhere = broken.float()
        if self.processes.count > 1:
            dist.all_reduce(anywhere)
        if not anywhere.any():
            return
        at = int(anywhere.any(dim=1).int().argmax())
        found: list[Any] = [steps[at].broken()]
        if self.processes.count > 1:
            found *= self.processes.count
            dist.all_gather_object(found, steps[at].broken())
        raise NotFiniteError(f"at iteration {steps[at].iteration} {_not_finite(found)}")

    def total_losses(self, result: StepResult, iteration: int) -> dict[str, float]:
        """Return the losses of the whole batch. Raises :class:`NotFiniteError` if one is not finite."""
        values = torch.stack(list(result.losses.values()))
        if self.processes.count > 1:
            dist.all_reduce(values)
        numbers = dict(zip(result.losses, values.tolist(), strict=True))
        broken = {name: value for name, value in numbers.items() if not math.isfinite(value)}
        if broken:
            raise NotFiniteError(f"at iteration {iteration} {_loss_not_finite(broken)}")
        return numbers

    def _shared_counts(self, targets: Sequence[Any], stop: bool) -> tuple[Tensor, bool]:
        """Return the counts over the whole batch, and whether any process was asked to stop."""
        counts = torch.stack([target.counts() for target in targets]).sum(0)
        if self.processes.count == 1:
            return counts, stop
        shared = torch.cat([counts, counts.new_tensor([float(stop)])])
        dist.all_reduce(shared)
        return shared[:-1], bool(shared[-1] > 0)

    def _accumulate_gradients(
        self, parts: Sequence[Batch], targets: Sequence[Any], counts: Tensor, lap: Lap
    ) -> dict[str, Tensor]:
        """Add up the gradients of the parts, and return the sums of their losses."""
        precision, device = self.training.precision, self.processes.device
        dtype = torch.float16 if precision == "float16" else torch.bfloat16
        autocast = torch.autocast(device.type, dtype, enabled=precision != "float32")
        found: list[dict[str, Tensor]] = []
        for index, (part, target) in enumerate(zip(parts, targets, strict=True)):
            images = part.images.to(device, non_blocking=True, memory_format=self.memory_format)
            with self._synchronised(index == len(parts) - 1):
                with autocast:
                    outputs = self.model(images)
                lap("forward")
                losses = self.detector.head.loss(outputs, target, counts)
                lap("loss")
                # DistributedDataParallel averages gradients over processes; here they must add up
                self.scaler.scale(losses["total"] * self.processes.count).backward()  # type: ignore[no-untyped-call]
                lap("backward")
            found.append({name: value.detach() for name, value in losses.items()})
        return {name: torch.stack([each[name] for each in found]).sum() for name in found[0]}

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Exchange gradients between processes only after the last part of a batch."""
        if self.processes.count > 1 and not last:
            model: Any = self.model
            return model.no_sync()  # type: ignore[no-any-return]
        return contextlib.nullcontext()

    def _remember(
        self, iteration: int, parts: Sequence[Batch], losses: Mapping[str, Tensor], norm: Tensor | None
    ) -> None:
        """Keep the numbers of a step until they are checked; check at once where that makes nothing wait."""
        values = dict(losses)
        if not self.scaler.is_enabled():  # float16 gradients may overflow: the scaler deals with it
            values[_GRADIENT] = _gradient_norm(self.detector) if norm is None else norm
        self._unchecked.append(_Values(iteration, [each for part in parts for each in part.image_ids], values))
        waits = self.processes.device.type != "cpu" or self.processes.count > 1
        if not waits or len(self._unchecked) >= STEPS_UNCHECKED:
            self.require_finite()


def _wrapped(detector: Detector, training: TrainingConfig, processes: Processes) -> nn.Module:
    """Return the detector as training calls it: distributed and compiled as configured, with the same weights."""
    model: nn.Module = detector
    if processes.count > 1:
        model = DistributedDataParallel(
            detector,
            device_ids=[processes.device] if processes.device.type == "cuda" else None,
            find_unused_parameters=detector.head.leaves_unused,
        )
    if training.compile:
        # evaluation uses the detector itself: its inputs have many sizes, and each would be compiled
        model = torch.compile(model)  # type: ignore[assignment]
    return model


@dataclass(frozen=True)
class _Values:
    """The numbers of one step that must be finite, and where they come from."""

    iteration: int
    image_ids: list[int]
    """This process's part of the batch."""
    values: dict[str, Tensor]
    """The losses and the norm of the gradient."""

    def broken(self) -> tuple[dict[str, float], list[int]]:
        """Return the values that are not finite, and the images."""
        values = {name: value.item() for name, value in self.values.items()}
        return {name: value for name, value in values.items() if not math.isfinite(value)}, self.image_ids


def _not_finite(found: list[tuple[dict[str, float], list[int]]]) -> str:
    """Return what is not finite and in which images, from what each process found in its part of a batch."""
    losses = {name: value for values, _ in found for name, value in values.items() if name != _GRADIENT}
    # every process has the gradient of the whole batch, but only the losses of its own images
    ids = [each for values, image_ids in found if not losses or values.keys() - {_GRADIENT} for each in image_ids]
    what = _loss_not_finite(losses) if losses else "the gradient is not finite, though the loss is"
    return f"{what}, in the batch of image ids {', '.join(map(str, ids))}"


def _loss_not_finite(losses: Mapping[str, float]) -> str:
    return "the loss is not finite: " + ", ".join(f"{name} is {value}" for name, value in losses.items())


def _gradient_norm(module: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
