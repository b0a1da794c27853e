"""Which exceptions a user can do something about, and the message for each."""

from __future__ import annotations

import errno
import sys

from cornernet.console import PrintableError, error_text, printable
from cornernet.kernels.registry import UnavailableError

__all__ = ["describe"]

_REPORTED = (PrintableError, UnavailableError, OSError)
"""All errors that this project raises for its users are printable ones."""

_SAVE_MEMORY_IN_TRAINING = """three flags that save memory, cheapest first:
  --training.accumulation 2            computes a batch in two parts, with the same result
  --training.checkpoint-activations    keeps fewer activations and recomputes them: a third more time
  --training.precision bfloat16        halves the activations on a GPU (float16 if it has no bfloat16)
If that is not enough, use smaller inputs, which costs small objects: --data.input-size 191 255 --data.fit 192 256"""
_SAVE_MEMORY_IN_TESTING = """three flags that save memory, cheapest first:
  --testing.no-flip                    runs one image at a time instead of two
  --testing.scales 1                   uses no scale larger than the photograph
  --data.fit 768 1024                  shrinks larger photographs to these sides, which costs small objects"""


def describe(error: Exception, command: str) -> str | None:
    """Return the message for an exception of the command named ``command``, or None where the exception is a bug."""
    if isinstance(error, _REPORTED):
        text = f"cornernet: error: {error_text(error)}"
        too_many = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        return f"{text}; raise the limit of open files: ulimit -n 1024" if too_many else text
    if not _out_of_memory(error):
        return None
    first_line = printable(str(error).partition("\n")[0])
    advice = _SAVE_MEMORY_IN_TRAINING if command == "train" else _SAVE_MEMORY_IN_TESTING
    return f"cornernet: error: out of memory: {first_line}\n{advice}"


def _out_of_memory(error: Exception) -> bool:
    """Return whether an error means that the memory of the GPU or of the machine is used up."""
    torch = sys.modules.get("torch")  # where it is not loaded, no error is of it
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    phrases = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
