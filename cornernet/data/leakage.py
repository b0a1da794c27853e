"""Which images a detector was trained on, by content, so that evaluating on them is not mistaken for a test."""

from __future__ import annotations

from pathlib import Path

from cornernet.config import CocoSource, Config
from cornernet.console import count, printable
from cornernet.data.dataset import DetectionDataset, content_digests, shared_images
from cornernet.data.formats.coco import open_coco
from cornernet.data.images import DataError
from cornernet.files import atomic_write

__all__ = ["TRAINED_ON", "leakage_warning", "write_training_digests"]

TRAINED_ON = "trained_on.txt"
"""File in a run's folder. Each line is an image: the first 32 hex digits of the sha256 of its file."""
_DIGITS = 32


def write_training_digests(out: Path, train_set: DetectionDataset) -> None:
    """Write :data:`TRAINED_ON` into a run's folder, unless it exists; generated images are not listed.

    Raises ``DataError`` where an image file cannot be read, and ``OSError`` where the list cannot be written.
    """
    path = out / TRAINED_ON
    if train_set.pixels is None and not path.exists():
        digests = sorted({digest.hex()[:_DIGITS] for digest in content_digests(train_set)})
        atomic_write(path, "".join(f"{digest}\n" for digest in digests))


def leakage_warning(weights: Path, config: Config, dataset: DetectionDataset) -> str:
    """Return a warning if ``dataset`` contains images that ``weights`` were trained on, else ''.

    Images are compared by content, with :data:`TRAINED_ON` beside the weights, or else with the training split that
    ``config``, the configuration of the weights, names. If neither exists, the warning says that the overlap is
    unknown. Generated images never overlap between train and val, so there is no warning for them.
    """
    if dataset.pixels is not None or not isinstance(config.data.source, CocoSource):
        return ""
    name = f"{printable(dataset.name)} {printable(dataset.split)}"
    listed = (weights if weights.is_dir() else weights.parent) / TRAINED_ON
    if listed.is_file():
        known = set(listed.read_text(encoding="utf-8", errors="replace").split())
        shared = sum(digest.hex()[:_DIGITS] in known for digest in content_digests(dataset))
    else:
        try:
            shared = shared_images(open_coco(config.data.source, "train", config.data), dataset)
        except DataError:
            return (
                f"it is not known whether these weights were trained on images of {name}: there is no "
                f"{printable(listed)}, and their training data is not in {printable(config.data.source.root)}"
            )
    if not shared:
        return ""
    return (
        f"{shared} of the {count(len(dataset), 'image')} of {name} "
        f"{'was' if shared == 1 else 'were'} used for training: metrics on them show how well they were learned, not "
        "how well objects in new images are detected"
    )
