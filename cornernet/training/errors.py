"""What training raises."""

from __future__ import annotations

from cornernet.console import PrintableError

__all__ = ["Interrupted", "NotFiniteError", "ReplicaError", "TrainingError"]


class TrainingError(PrintableError, RuntimeError):
    """Training cannot continue. The message says why, and at which iteration if it had started."""


class NotFiniteError(TrainingError):
    """A loss, a gradient or a weight is NaN or infinite."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; a lower training.learning_rate or a training.clip_norm may help")


class ReplicaError(TrainingError):
    """The process of a replica has ended, or it failed with an error that only its text can tell."""


class Interrupted(PrintableError, KeyboardInterrupt):
    """A run was asked to stop. The message says how to continue it."""
