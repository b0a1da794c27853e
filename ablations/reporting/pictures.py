"""Committed pictures, which :mod:`ablations.pictures` makes while a run's weights exist, read with their manifest.

``reports/pictures/PROFILE-DATA/manifest.json`` lists for each file its hash, what it shows, the rule that chose it, and
the runs it came from. A file that is missing or has a different hash is left out, and the report says so.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MANIFEST", "PlacedPicture", "placed_pictures"]

MANIFEST = "manifest.json"
_KINDS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
_FIELDS = ("file", "sha256", "title", "caption", "alternative", "rule", "runs")


@dataclass(frozen=True, kw_only=True)
class PlacedPicture:
    """A picture: its bytes, what it shows, how it was chosen, and the runs whose weights were used."""

    path: str
    """Relative to the folder of the pictures."""
    content: bytes
    kind: str
    title: str
    caption: str
    alternative: str
    rule: str
    runs: tuple[str, ...]
    sha256: str


def placed_pictures(folder: Path) -> tuple[list[PlacedPicture], list[str]]:
    """Return the pictures in a folder's manifest, and a sentence on each that is left out.

    Both lists are empty if there is no manifest.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        return [], []
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["pictures"]
        found = [_read(folder, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        text = str(error).replace(str(manifest), MANIFEST)
        return [], [f"{folder.name}/{MANIFEST} cannot be read: {text}; make the pictures again"]
    pictures = [each for each in found if isinstance(each, PlacedPicture)]
    return pictures, [each for each in found if isinstance(each, str)]


def _read(folder: Path, entry: dict[str, Any]) -> PlacedPicture | str:
    missing = [name for name in _FIELDS if name not in entry]
    if missing:
        raise ValueError(f"an entry lacks {missing[0]!r}")
    name = str(entry["file"])
    path = folder / name
    if Path(name).name != name or path.suffix not in _KINDS:
        return f"{name} is left out: a picture must be a jpg or png file in the folder itself"
    if not path.is_file():
        return f"{name} is left out: there is no such file; make the pictures again"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        return f"{name} is left out: its hash is not the one in the manifest; make the pictures again"
    texts = {field: str(entry[field]) for field in ("title", "caption", "alternative", "rule", "sha256")}
    runs = tuple(map(str, entry["runs"]))
    return PlacedPicture(path=name, content=content, kind=_KINDS[path.suffix], runs=runs, **texts)
