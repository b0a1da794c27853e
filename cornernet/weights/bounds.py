"""What is checked in weights of unknown origin before their names and tensors are used.

A file of a kilobyte can hold a name such as ``kps.9999999.0``, which asks for ten million stacks, or a tensor that
repeats one number ten million times ten million times. Nothing is built and nothing is copied before these checks.
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cornernet.console import count, printable

__all__ = ["problem_in_file", "problem_in_state"]

MOST_ENTRIES = 200_000
"""Entries of a state dict. Hourglass-104 has 1,100."""
LONGEST_NAME = 400
"""Characters of an entry's name. The longest of Hourglass-104 has 75."""
MOST_DIGITS = 4
"""Digits of a number in a name."""
MOST_REPEATED = 2**26
"""Bytes that entries may take when they are copied, beyond a few times the memory that they share."""

_LONG_NUMBER = re.compile(rf"\d{{{MOST_DIGITS + 1},}}")


def problem_in_state(state: Mapping[str, Tensor]) -> str | None:
    """Return why the entries of a state dict cannot be used, or None if they can.

    Only names, kinds and sizes are looked at.
    """
    if len(state) > MOST_ENTRIES:
        return f"it has {count(len(state), 'entry', 'entries')}, and the limit is {MOST_ENTRIES:,}"
    needed, held = 0, {}
    for name, value in state.items():
        if len(name) > LONGEST_NAME:
            return f"the name {_shown(name)} has {len(name):,} characters, and the limit is {LONGEST_NAME}"
        number = _LONG_NUMBER.search(name)
        if number is not None:
            return (
                f"the name {_shown(name)} has a number of {count(len(number[0]), 'digit')}, and the limit is "
                f"{MOST_DIGITS}: no network has so many stacks or blocks"
            )
        kind = _unusual(value)
        if kind is not None:
            return f"the entry {_shown(name)} is {kind}; save ordinary (dense) tensors"
        storage = value.untyped_storage()
        needed += value.numel() * value.element_size()
        held[storage.data_ptr()] = storage.nbytes()
    if needed > MOST_REPEATED + 4 * sum(held.values()):
        return (
            f"its entries have {needed:,} bytes but repeat {sum(held.values()):,} bytes of memory, as expanded tensors "
            "do; save contiguous copies"
        )
    return None


def _unusual(value: Tensor) -> str | None:
    """Return what a tensor is, if it is not a dense one with values."""
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {str(value.layout).removeprefix('torch.')}"
    if value.is_meta:
        return "a tensor without values (on the device meta)"
    if value.is_quantized:
        return "a quantized tensor"
    return None


def problem_in_file(path: Path) -> str | None:
    """Return why reading a pickled file would take far more memory than its size, or None.

    torch stores without compression, so that the parts of an archive add up to at most the file's size. In others, a
    kilobyte can stand for gigabytes. Besides tensors, torch reads a few harmless types. Of these, only a bytearray,
    which no weights need, can be stated by its size alone.
    """
    size = path.stat().st_size
    if (total := _archived(path)) > size:
        return f"it is compressed: {size:,} bytes that stand for {total:,}, and torch does not compress"
    if _mentions(path, b"bytearray"):
        return "it asks for a bytearray, which may be of any size"
    return None


def _archived(path: Path) -> int:
    """Return the bytes of all parts of a zip archive; 0 for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(part.file_size for part in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return 0


def _mentions(path: Path, text: bytes) -> bool:
    # nothing is compressed, so that a name in a pickle appears in the file as it is
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def _shown(name: str) -> str:
    return printable(name if len(name) <= 60 else f"{name[:60]}...")
