"""Which images a detector was trained on, by content, so that evaluating on them does not pass for a test."""

from __future__ import annotations

from pathlib import Path

from cornernet.config import CocoSource, Config
from cornernet.data.dataset import DetectionDataset, content_digests, shared_images
from cornernet.data.formats.coco import open_coco
from cornernet.data.images import DataError
from cornernet.files import atomic_write

__all__ = ["SEEN", "seen_warning", "write_seen"]

SEEN = "trained_on.txt"
"""File in a run's folder: a line an image, the first 32 hex digits of the sha256 of its file."""
_DIGITS = 32


def write_seen(out: Path, train_set: DetectionDataset) -> None:
    """Write :data:`SEEN` into a run's folder, unless it is there; generated pictures are left out."""
    path = out / SEEN
    if train_set.pixels is None and not path.exists():
        digests = sorted({digest.hex()[:_DIGITS] for digest in content_digests(train_set)})
        atomic_write(path, "".join(f"{digest}\n" for digest in digests))


def seen_warning(weights: Path, config: Config, dataset: DetectionDataset) -> str:
    """Return a warning where ``dataset`` holds images that ``weights`` were trained on, else ''.

    Images are compared by content: with :data:`SEEN` beside the weights, else with the training split that ``config``,
    the weights' own, names. Where neither is there, the text says that it is not known. Generated pictures of train
    and val are never the same, and no warning is given for them.
    """
    if dataset.pixels is not None or not isinstance(config.data.source, CocoSource):
        return ""
    listed = (weights if weights.is_dir() else weights.parent) / SEEN
    if listed.is_file():
        known = set(listed.read_text(encoding="utf-8").split())
        shared = sum(digest.hex()[:_DIGITS] in known for digest in content_digests(dataset))
    else:
        try:
            shared = shared_images(open_coco(config.data.source, "train"), dataset)
        except DataError:
            return (
                f"whether these weights were trained on images of {dataset.name} {dataset.split} is not known: there "
                f"is no {listed}, and their training data is not in {config.data.source.root}"
            )
    if not shared:
        return ""
    return (
        f"{shared} of the {len(dataset)} images of {dataset.name} {dataset.split} were trained on: metrics on them say "
        "how well they were learned, not how well others are detected"
    )
