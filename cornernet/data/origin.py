"""Where the data of a run lay, and its digests, so that other data is not taken for it.

The path in a configuration may be relative to the folder in which training was started. From another folder it names
other data, or none. A run's folder therefore holds :data:`ORIGIN` with the absolute path. The digests are also in the
weights, which may be copied without the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cornernet.config import CocoSource, Config, DataConfig
from cornernet.data.dataset import DetectionDataset
from cornernet.data.formats.coco import open_coco
from cornernet.data.images import DataError
from cornernet.files import atomic_write, read_regular

__all__ = ["ORIGIN", "Origin", "at_origin", "is_same_data", "read_origin", "write_origin"]

ORIGIN = "data.json"
"""File in a run's folder; not for generated data, which the configuration determines."""
_LARGEST = 2**20


@dataclass(frozen=True)
class Origin:
    """The data of a run."""

    root: Path
    """Absolute path of its folder when the run was last started."""
    digests: dict[str, str]
    """``DetectionDataset.quick_fingerprint`` of train and of val."""


def write_origin(run: Path, source: CocoSource, digests: Mapping[str, str]) -> None:
    """Write :data:`ORIGIN` into a run's folder. Raises ``OSError`` where that is impossible."""
    tree = {"root": os.path.abspath(source.root), "quick_fingerprint": dict(digests)}  # noqa: PTH100 - keeps links
    atomic_write(run / ORIGIN, json.dumps(tree, indent=1) + "\n")


def read_origin(run: Path) -> Origin | None:
    """Return what a run's folder says about its data, or None for a run that does not say it, such as an older one.

    Raises :class:`DataError` for a damaged file.
    """
    path = run / ORIGIN
    try:
        tree = json.loads(read_regular(path, _LARGEST))
        root, digests = tree["root"], tree["quick_fingerprint"]
        if not isinstance(root, str) or not all(isinstance(digests[split], str) for split in ("train", "val")):
            raise TypeError("root and the digests must be text")
        return Origin(Path(root), {split: digests[split] for split in ("train", "val")})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} does not say what data the run is of: {error}; copy it again, or remove it, and the data is not "
            "checked"
        ) from error


def at_origin(config: Config, run: Path) -> Config:
    """Return a run's configuration with a relative path of its data as it was meant when the run was started.

    It is unchanged where the path means the same folder here, where the run does not say where its data lay, and where
    the data is no longer there but something is at the path from here: :func:`is_same_data` tells whether that is it.
    """
    source = config.data.source
    if not isinstance(source, CocoSource) or Path(source.root).is_absolute():
        return config
    origin, here = read_origin(run), Path(source.root).absolute()
    if origin is None or here.resolve() == origin.root.resolve() or (here.is_dir() and not origin.root.is_dir()):
        return config
    return config.with_("data.source.root", str(origin.root))


def is_same_data(
    dataset: DetectionDataset, data: DataConfig, split: str, digests: Mapping[str, str] | None
) -> bool | None:
    """Return whether ``dataset``, the split ``split`` of ``data``, is what has ``digests``; None if unknown.

    Where the digest of this split is not known, the data is the same if another split of ``data.source`` is.
    """
    source = data.source
    if dataset.pixels is not None or not isinstance(source, CocoSource):
        return True
    if not digests:
        return None
    if split in digests:
        return dataset.quick_fingerprint() == digests[split]
    for other in ("train", "val"):
        if other in digests:
            try:
                return open_coco(source, other, data).quick_fingerprint() == digests[other]
            except DataError:
                continue
    return None
