"""Pictures that were made while weights existed (:mod:`ablations.pictures`), read back with their manifest.

``reports/pictures/PROFILE-DATA/manifest.json`` names each file with its hash, what it shows, the rule that chose it and
the runs it came from. A file that is missing or has another hash is left out and named: what is shown is what was made.
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
    """A picture: its bytes, what it shows, how it was chosen and which runs' weights made it."""

    path: str
    """Below the folder of the pictures."""
    content: bytes
    kind: str
    title: str
    caption: str
    alternative: str
    rule: str
    runs: tuple[str, ...]
    sha256: str


def placed_pictures(folder: Path) -> tuple[list[PlacedPicture], list[str]]:
    """Return the pictures of a folder's manifest, and a sentence on each that is left out; nothing without a folder."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        return [], []
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["pictures"]
        found = [_read(folder, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        text = str(error).replace(str(manifest), MANIFEST)
        return [], [f"{folder.name}/{MANIFEST} cannot be read: {text}; make the pictures again"]
    return [each for each in found if isinstance(each, PlacedPicture)], [
        each for each in found if isinstance(each, str)
    ]


def _read(folder: Path, entry: dict[str, Any]) -> PlacedPicture | str:
    missing = [name for name in _FIELDS if name not in entry]
    if missing:
        raise ValueError(f"an entry lacks {missing[0]!r}")
    name = str(entry["file"])
    path = folder / name
    if Path(name).name != name or path.suffix not in _KINDS:
        return f"{name} is left out: a picture's name is that of a jpg or png file in the folder itself"
    if not path.is_file():
        return f"{name} is left out: there is no such file; make the pictures again"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        return f"{name} is left out: its hash is not the one in the manifest; make the pictures again"
    texts = {field: str(entry[field]) for field in ("title", "caption", "alternative", "rule", "sha256")}
    runs = tuple(map(str, entry["runs"]))
    return PlacedPicture(path=name, content=content, kind=_KINDS[path.suffix], runs=runs, **texts)
