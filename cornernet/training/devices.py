"""Where a run computes: its device, the processes and replicas that share it, and the precision that it supports."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from cornernet.config import ConfigError, TrainingConfig
from cornernet.console import count
from cornernet.kernels import cpu

__all__ = [
    "MOST_CHOSEN",
    "Processes",
    "chosen_replicas",
    "in_replicas",
    "loss_scaler",
    "process_group",
    "resolve_device",
]

MOST_CHOSEN = 8
"""The most replicas that :func:`chosen_replicas` chooses: each takes the memory of a process."""

# the other processes wait while the first one evaluates; on COCO that takes longer than torch's default of ten minutes
_PATIENCE = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them."""

    rank: int
    """This process's number, from 0."""
    count: int
    device: torch.device
    """The device of this process."""

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, prints and writes files."""
        return self.rank == 0


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device that ``training.device`` names. ``auto`` is CUDA if it is available.

    ``cuda`` without a number is the device of ``local_rank``. Raises ``ConfigError`` for a device that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    match = re.fullmatch(r"cpu|cuda(?::([0-9]{1,9}))?", name)
    if match is None:
        raise ConfigError(f"training.device is {name!r}; use auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return torch.device("cpu")
    index = local_rank if match[1] is None else int(match[1])
    available = torch.cuda.device_count()
    if index >= available:
        devices = "1 CUDA device" if available == 1 else f"{available} CUDA devices"
        raise ConfigError(f"training.device is {name!r}, but torch finds {devices} here; use auto or cpu")
    return torch.device("cuda", index)


def chosen_replicas(training: TrainingConfig) -> TrainingConfig:
    """Return ``training`` with the replicas, and the threads of each, that suit this machine, if it leaves them open.

    ``training.replicas`` of 0 leaves them open. They take the place of torch's threads: the most that divide the images
    of a part of a batch evenly, up to :data:`MOST_CHOSEN`. One process trains where ``training.threads`` is set, under
    torchrun, and where replicas cannot train. Raises ``ConfigError`` for several replicas that cannot train, and for a
    device that does not exist.
    """
    problem = _no_replicas(training)
    if training.replicas > 1 and problem is not None:
        raise ConfigError(f"training.replicas is {training.replicas}, but {problem}; use --training.replicas 1")
    if training.replicas:
        return training
    threads, images = torch.get_num_threads(), training.batch_size // training.accumulation
    most = max(n for n in range(1, min(threads, images, MOST_CHOSEN) + 1) if images % n == 0)
    if most == 1 or training.threads or problem is not None:
        return replace(training, replicas=1)
    return replace(training, replicas=most, threads=threads // most)


def in_replicas(training: TrainingConfig) -> str:
    """Return several replicas in words."""
    return f"{training.replicas} replicas of {count(training.threads_each, 'thread')} each"


def _no_replicas(training: TrainingConfig) -> str | None:
    """Return why several replicas cannot train here, or None if they can."""
    if "RANK" in os.environ:
        return "torchrun's processes have no replicas"
    device = resolve_device(training.device)
    if device.type != "cpu":
        return f"replicas are for a CPU, and training.device is {device}"
    if training.precision != "float32" or training.compile:
        return "they train in float32 and without training.compile"
    why = cpu.why_unavailable()
    return None if why is None else f"they need the fused batch norm, which cannot be used here: {why}"


@contextlib.contextmanager
def process_group(training: TrainingConfig) -> Iterator[Processes]:
    """Join the process group if torchrun started this process, and yield the processes that train together.

    A group that exists already is used and left open. Raises ``ConfigError`` for a device that does not exist, and for
    a batch size that cannot be divided evenly.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield Processes(0, 1, resolve_device(training.device))
        return
    device = resolve_device(training.device, int(os.environ.get("LOCAL_RANK", "0")))
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        count = dist.get_world_size()
        if training.batch_size % (count * training.accumulation):
            raise ConfigError(
                f"training.batch_size {training.batch_size} cannot be divided evenly between {count} processes with "
                f"training.accumulation {training.accumulation}"
            )
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()


def loss_scaler(training: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    """Return the loss scaler of ``training.precision``: enabled for float16, a no-op for other precisions.

    Raises ``ConfigError`` for bfloat16 on a GPU that does not support it.
    """
    if (
        training.precision == "bfloat16"
        and device.type == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError(
            f"training.precision is bfloat16, which {torch.cuda.get_device_name(device)} does not support; "
            "use --training.precision float16"
        )
    return torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
