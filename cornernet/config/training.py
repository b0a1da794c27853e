"""Configuration of training: budget, optimiser, precision, device, and how often to log and save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cornernet.config.checks import require
from cornernet.config.limits import require_numbers

__all__ = ["TrainingConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimisation. Its budget is a number of iterations, never a time."""

    seed: int = 0
    """Seed of the initial weights, the order of images and the augmentation."""
    iterations: int = 500_000
    """Optimiser steps."""
    batch_size: int = 49
    """Images per step, summed over all devices and accumulation parts."""
    accumulation: int = 1
    """Parts that a step's batch is split into to save memory; losses are normalised over the whole batch."""
    learning_rate: float = 2.5e-4
    """Peak learning rate of Adam."""
    schedule: Literal["step", "cosine"] = "step"
    """'step' multiplies the learning rate by decay_factor at decay_at; 'cosine' lowers it to zero at the end."""
    decay_at: tuple[int, ...] = (450_000,)
    """Iterations at which the step schedule decays."""
    decay_factor: float = 0.1
    """Factor of each decay in the step schedule."""
    warmup: int = 0
    """Iterations over which the learning rate rises linearly to its peak."""
    clip_norm: float | None = None
    """Largest gradient norm; None does not clip."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """bfloat16 runs the network under autocast; losses stay in float32. float16, for GPUs without bfloat16, does the
    same and scales the loss, so that small gradients do not vanish."""
    channels_last: bool = True
    """Use the channels_last memory format: faster convolutions on CPUs and on tensor cores."""
    compile: bool = False
    """Compile the network with torch.compile: faster on a GPU, after some minutes of compiling."""
    checkpoint_activations: bool = False
    """Compute the maps of each stack a second time in backward and keep fewer in memory: allows larger batches, takes
    a third more time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto uses CUDA if it is available."""
    threads: int = 0
    """CPU threads of torch, in each replica; 0 keeps torch's default, or takes 1 with several replicas. Results are
    bit-exact only for the same number of threads."""
    replicas: int = 1
    """Processes on a CPU that each compute a share of every batch, which is faster than as many threads. 0 chooses as
    many as suit the machine when a run begins, and records them; it is the default of cornernet train. Results are
    bit-exact only for the same number of replicas, on any number of cores."""
    workers: int = 0
    """Loader processes, of each replica. The batches are the same for any number."""
    log_every: int = 20
    """Iterations between lines of metrics."""
    evaluate_every: int = 0
    """Iterations between evaluations on val; 0 evaluates only at the end."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints; the last iteration always writes one."""

    @property
    def threads_each(self) -> int:
        """Threads of this process and of every replica; 0 keeps torch's default."""
        return self.threads or (1 if self.replicas > 1 else 0)

    def __post_init__(self) -> None:
        require_numbers(self, "training")
        require(self.iterations >= 1, "training.iterations must be 1 or more")
        require(self.accumulation >= 1, "training.accumulation must be 1 or more")
        require(self.batch_size >= 1, "training.batch_size must be 1 or more")
        require(
            self.batch_size % self.accumulation == 0,
            f"training.batch_size {self.batch_size} is not a multiple of training.accumulation {self.accumulation}",
        )
        require(self.replicas >= 0, "training.replicas must not be negative")
        require(
            self.batch_size % (self.accumulation * max(1, self.replicas)) == 0,
            f"training.batch_size {self.batch_size} is not a multiple of training.accumulation {self.accumulation} "
            f"times training.replicas {self.replicas}",
        )
        require(
            self.replicas <= 1 or (self.precision == "float32" and not self.compile),
            f"training.replicas is {self.replicas}; several train in float32 and without training.compile: use 1",
        )
        require(self.learning_rate > 0, "training.learning_rate must be positive")
        require(self.warmup >= 0, "training.warmup must not be negative")
        require(self.clip_norm is None or self.clip_norm > 0, "training.clip_norm must be positive or None")
        require(
            min(self.threads, self.workers, self.evaluate_every) >= 0,
            "training.threads, .workers and .evaluate_every must not be negative",
        )
        require(
            min(self.log_every, self.checkpoint_every) >= 1,
            "training.log_every and .checkpoint_every must be 1 or more",
        )
