"""One optimiser step: what training repeats, and what :mod:`cornernet.training.timing` measures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from cornernet.training.gradients import Lap, accumulate_gradients, memory_format, no_lap
from cornernet.training.heap import keep_freed_memory
from cornernet.training.replicas import Replicas, Share

__all__ = ["StepResult", "TrainStep"]

STEPS_UNCHECKED = 100
"""The most steps between two checks for numbers that are not finite, where a check would make every step wait."""


class StepResult(NamedTuple):
    """The outcome of one step."""

    losses: dict[str, Tensor]
    """This process's share of each loss of the batch, with those of its replicas; scalars without gradients."""
    gradient_norm: Tensor | None
    """Before clipping; None if ``training.clip_norm`` is not set."""
    stopping: bool
    """Whether any process was asked to stop."""


class TrainStep:
    """Takes optimiser steps as ``training`` describes them, with the state that this needs.

    A new one moves ``detector`` to its device, in the configured memory format, and starts with a new optimiser.
    """

    replicas: Replicas | None = None
    """The processes that compute the other shares of every batch, where ``training.replicas`` asks for them."""

    def __init__(self, detector: Detector, training: TrainingConfig, processes: Processes) -> None:
        self.detector, self.training, self.processes = detector, training, processes
        if processes.device.type == "cpu":
            keep_freed_memory()
        detector.to(device=processes.device, memory_format=memory_format(training))  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(detector.parameters(), lr=training.learning_rate, fused=True)
        self.scaler = loss_scaler(training, processes.device)
        self.model = _wrapped(detector, training, processes)
        self._unchecked: list[_Values] = []

    def __call__(self, parts: Sequence[Batch], iteration: int, *, stop: bool = False, lap: Lap = no_lap) -> StepResult:
        """Take step number ``iteration`` over the parts of a batch.

        Losses are divided by counts over the whole batch, all parts, processes and replicas together. They and their
        gradients are therefore those of the large batch, however it is split. ``stop`` says that this process was asked
        to stop; all processes learn of it in the same step.

        Raises :class:`NotFiniteError` before a loss or a gradient that is not finite reaches the weights. On a GPU, and
        with several processes, such numbers are found later, by :meth:`require_finite`, so that no step waits.
        """
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        targets = [part.targets.to(self.processes.device) for part in parts]
        counts, stopping = self._shared_counts(targets, stop)
        shares = self._shares(parts, targets, counts, lap)
        losses = shares[0].losses
        for share in shares[1:]:
            losses = {name: value + share.losses[name] for name, value in losses.items()}
        norm = None
        if self.training.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            norm = nn.utils.clip_grad_norm_(self.detector.parameters(), self.training.clip_norm)
            lap("clipping")
        self._remember(iteration, shares, norm)
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
        broken = ~torch.stack([step.numbers() for step in steps]).isfinite()
        anywhere = broken.float()
        if self.processes.count > 1:
            dist.all_reduce(anywhere)
        if not anywhere.any():
            return
        at = int(anywhere.any(dim=1).int().argmax())
        found = steps[at].broken()
        if self.processes.count > 1:
            everywhere: list[Any] = [None] * self.processes.count
            dist.all_gather_object(everywhere, found)
            found = [each for process in everywhere for each in process]
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
        if self.replicas is not None:
            return self.replicas.add_counts(counts), stop
        if self.processes.count == 1:
            return counts, stop
        shared = torch.cat([counts, counts.new_tensor([float(stop)])])
        dist.all_reduce(shared)
        return shared[:-1], bool(shared[-1] > 0)

    def _shares(self, parts: Sequence[Batch], targets: Sequence[Any], counts: Tensor, lap: Lap) -> list[Share]:
        """Compute the gradients of the batch, and return this process's losses and images, then those of replicas."""

        def scaled(loss: Tensor) -> Tensor:
            # DistributedDataParallel averages gradients over processes; here they must add up
            return self.scaler.scale(loss * self.processes.count)

        with nullcontext() if self.replicas is None else self.replicas.sharing():
            losses = accumulate_gradients(
                self.model, self.detector, self.training, self.processes.device, parts, targets, counts,
                scale=scaled, lap=lap,
            )  # fmt: skip
        own = Share(losses, [each for part in parts for each in part.image_ids])
        return [own] if self.replicas is None else self.replicas.add_up(own)

    def _remember(self, iteration: int, shares: list[Share], norm: Tensor | None) -> None:
        """Keep the numbers of a step until they are checked; check at once where that makes nothing wait."""
        gradient = None
        if not self.scaler.is_enabled():  # float16 gradients may overflow: the scaler deals with it
            gradient = _gradient_norm(self.detector) if norm is None else norm
        self._unchecked.append(_Values(iteration, shares, gradient))
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
    shares: list[Share]
    """What this process and its replicas found."""
    gradient: Tensor | None
    """The norm of the gradient of the whole batch; None where it need not be finite."""

    def numbers(self) -> Tensor:
        """Return all of them."""
        losses = [value for share in self.shares for value in share.losses.values()]
        return torch.stack(losses if self.gradient is None else [*losses, self.gradient])

    def broken(self) -> list[tuple[dict[str, float], list[int]]]:
        """Return the losses of each share that are not finite, and its images."""
        return [
            ({name: value.item() for name, value in losses.items() if not value.isfinite()}, image_ids)
            for losses, image_ids in self.shares
        ]


def _not_finite(found: list[tuple[dict[str, float], list[int]]]) -> str:
    """Return what is not finite and in which images, from the losses of each share of a batch that are not."""
    losses = {name: value for values, _ in found for name, value in values.items()}
    # the gradient is that of the whole batch
    ids = [each for values, image_ids in found if values or not losses for each in image_ids]
    what = _loss_not_finite(losses) if losses else "the gradient is not finite, though the loss is"
    return f"{what}, in the batch of image ids {', '.join(map(str, ids))}"


def _loss_not_finite(losses: Mapping[str, float]) -> str:
    return "the loss is not finite: " + ", ".join(f"{name} is {value}" for name, value in losses.items())


def _gradient_norm(module: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
