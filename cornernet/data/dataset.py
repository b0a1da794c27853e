"""What every source of data becomes: one class, with boxes in flat arrays and pictures read on demand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cornernet.config import Size
from cornernet.data.images import DataError, read_image
from cornernet.data.shared import SharedState, spawning

__all__ = [
    "COCO_AREA_BANDS",
    "CROWDED",
    "AnnotationTable",
    "DataError",
    "DetectionDataset",
    "Dropped",
    "ImageRecord",
    "ImageTable",
    "content_digests",
    "require_same_classes",
]

COCO_AREA_BANDS = (32.0**2, 96.0**2)
"""Upper area of small and of medium objects in square pixels, as COCO has them."""

CROWDED = 4096
"""Objects in one training input: the push loss compares each with each, and at this many takes 64 MB a copy."""

_FINGERPRINT_VERSION = 1


@dataclass(frozen=True)
class ImageRecord:
    """One picture and its objects; crowds are not among them."""

    image_id: int
    path: Path
    height: int
    width: int
    boxes: NDArray[np.float64]
    """[N, 4] x1 y1 x2 y2 in pixels of the original picture, clipped to it; x2 and y2 are exclusive edges."""
    labels: NDArray[np.int64]
    """[N] in 0..K-1."""


@dataclass(frozen=True)
class Dropped:
    """An image or an annotation that is not used, and why."""

    image: str
    """File name, or what is known of it."""
    annotation: int | None
    """Id of the annotation; None where the whole image is dropped or the annotation has no id."""
    reason: str


@dataclass(frozen=True)
class ImageTable:
    """N pictures, in columns."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """[N, 2] height, width."""
    names: Sequence[str]
    """Names in the annotations, which do not depend on where the folder lies."""
    folders: tuple[str, ...] = ("",)
    folder: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """[N] index into ``folders``, the folder in which the name was found; empty stands for the first everywhere."""


@dataclass(frozen=True)
class AnnotationTable:
    """M objects, in columns, sorted by ``image``."""

    ids: NDArray[np.int64]
    image: NDArray[np.int64]
    """[M] row of the image table."""
    labels: NDArray[np.int64]
    xywh: NDArray[np.float64]
    """[M, 4] as the source has them: x, y, width, height."""
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    """[M] a group that is ignored in evaluation and left out of training."""


class _Records(Sequence[ImageRecord]):
    """Records made when asked for, so that a large data set costs no object per box."""

    def __init__(self, images: ImageTable, annotations: AnnotationTable) -> None:
        self._images = images
        self._annotations = annotations
        self._starts = np.searchsorted(annotations.image, np.arange(len(images.ids) + 1))

    def __len__(self) -> int:
        return len(self._images.ids)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageRecord]: ...
    def __getitem__(self, index: int | slice) -> ImageRecord | Sequence[ImageRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        images, annotations = self._images, self._annotations
        rows = np.arange(self._starts[i], self._starts[i + 1])
        rows = rows[~annotations.crowd[rows]]
        height, width = (int(side) for side in images.sizes[i])
        xywh = annotations.xywh[rows]
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        folder = images.folders[int(images.folder[i]) if len(images.folder) else 0]
        return ImageRecord(
            image_id=int(images.ids[i]),
            path=Path(folder, images.names[i]),
            height=height,
            width=width,
            boxes=np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64)),
            labels=annotations.labels[rows],
        )


class DetectionDataset:
    """Pictures with boxes: one split of a COCO folder or of ``shapes``. Reads pictures on demand.

    Light to pickle; a child process that is spawned maps its arrays, pixels included, instead of copying them
    (``cornernet.data.shared``).
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        classes: tuple[str, ...],
        category_ids: tuple[int, ...],
        images: ImageTable,
        annotations: AnnotationTable,
        dropped: Sequence[Dropped] = (),
        area_bands: tuple[float, float] = COCO_AREA_BANDS,
        notes: tuple[str, ...] = (),
        pixels: NDArray[np.uint8] | None = None,
    ) -> None:
        self.name = name
        self.split = split
        self.classes = classes
        self.category_ids = category_ids
        """Category id of each label, in COCO's numbering."""
        self.dropped = tuple(dropped)
        self.area_bands = area_bands
        """Upper area of small and of medium objects in square pixels."""
        self.notes = notes
        """Decisions about the data that a reader of results wants to know, one line each."""
        self.pixels = pixels
        """[N, H, W, 3] uint8 BGR where the pictures are generated, else None."""
        self.records: Sequence[ImageRecord] = _Records(images, annotations)
        self._images = images
        self._annotations = annotations
        self._fingerprint: str | None = None
        self._shared: SharedState | None = None

    def __getstate__(self) -> dict[str, Any]:
        if not spawning():
            return {**self.__dict__, "_shared": None}
        if self._shared is None:
            shared = SharedState(self.__dict__)
            # from here on this process uses the block too
            self.__dict__.update(shared.state())
            self._shared = shared
        return {"_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state["_shared"]
        self.__dict__.update(state if shared is None else {**shared.state(), "_shared": shared})

    def __len__(self) -> int:
        return len(self._images.ids)

    def image_id(self, index: int) -> int:
        """Return the id of picture ``index``, without making its record."""
        return int(self._images.ids[index])

    def size(self, index: int) -> Size:
        """Return (height, width) of picture ``index`` as the annotations state it."""
        height, width = self._images.sizes[index]
        return int(height), int(width)

    def image_paths(self) -> set[Path]:
        """Return the files of all images."""
        images = self._images
        folder = images.folder if len(images.folder) else np.zeros(len(images.ids), np.uint8)
        return {Path(images.folders[at], name) for at, name in zip(folder.tolist(), images.names, strict=True)}

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return picture ``index`` as uint8 [H, W, 3] BGR at its original size; the caller may write to it.

        Raises :class:`DataError` that names the file where it cannot be read or has another size than stated.
        """
        if self.pixels is not None:
            return np.array(self.pixels[index], np.uint8)
        record = self.records[index]
        return read_image(record.path, (record.height, record.width))

    def ground_truth(self) -> dict[str, Any]:
        """Return the data set in COCO's form, for COCOeval: original ids, boxes and areas, crowds included.

        Boxes are as the source has them, not clipped, so that AP is that of pycocotools on the source's file;
        what :attr:`dropped` lists is left out.
        """
        images, annotations = self._images, self._annotations
        categories = np.array(self.category_ids, np.int64)[annotations.labels]
        rows = zip(
            annotations.ids.tolist(),
            images.ids[annotations.image].tolist(),
            categories.tolist(),
            annotations.xywh.tolist(),
            annotations.areas.tolist(),
            annotations.crowd.astype(np.int64).tolist(),
            strict=True,
        )
        return {
            "info": {"description": f"{self.name} {self.split}"},
            "images": [
                {"id": number, "file_name": name, "height": height, "width": width}
                for number, name, (height, width) in zip(
                    images.ids.tolist(), images.names, images.sizes.tolist(), strict=True
                )
            ],
            "categories": [{"id": i, "name": name} for i, name in zip(self.category_ids, self.classes, strict=True)],
            "annotations": [
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}
                for number, image, category, box, area, crowd in rows
            ],
        }

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of all that determines results, wherever the folder lies; computed once, when first asked for.

        Over classes and category ids, area bands, image ids, names and sizes, labels, boxes, areas and crowds, and
        the whole content of every image file (of the generated pixels for ``shapes``). Files are hashed by eight
        threads: about a second a gigabyte from a warm disk. Annotation ids and dropped things do not enter.
        """
        if self._fingerprint is None:
            self._fingerprint = self._compute_fingerprint()
        return self._fingerprint

    def quick_fingerprint(self) -> str:
        """Return a sha256 (hex) that changes with what :attr:`fingerprint` covers, where it can be told at a glance.

        The sizes of image files stand for their content, so that no image is read. Raises :class:`DataError` for a
        file that is gone.
        """
        digest = self._digest_of_tables()
        if self.pixels is not None:
            digest.update(np.ascontiguousarray(self.pixels).tobytes())
            return digest.hexdigest()
        for record in self.records:
            try:
                digest.update(record.path.stat().st_size.to_bytes(8, "little"))
            except OSError as error:
                raise DataError(f"{record.path} cannot be read: {error.strerror}") from error
        return digest.hexdigest()

    def _compute_fingerprint(self) -> str:
        digest = self._digest_of_tables()
        for content in self._content_digests():
            digest.update(content)
        return digest.hexdigest()

    def _digest_of_tables(self) -> hashlib._Hash:
        images, annotations = self._images, self._annotations
        digest = hashlib.sha256()
        header = [_FINGERPRINT_VERSION, self.classes, self.category_ids, self.area_bands, list(images.names)]
        digest.update(json.dumps(header).encode())
        for column, dtype in (
            (images.ids, "<i8"),
            (images.sizes, "<i8"),
            (annotations.image, "<i8"),
            (annotations.labels, "<i8"),
            (annotations.xywh, "<f8"),
            (annotations.areas, "<f8"),
            (annotations.crowd, "u1"),
        ):
            digest.update(np.ascontiguousarray(column, np.dtype(dtype)).tobytes())
        return digest

    def _content_digests(self) -> Iterator[bytes]:
        if self.pixels is not None:
            yield hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).digest()
            return
        with ThreadPoolExecutor(8) as pool:
            yield from pool.map(_file_digest, (record.path for record in self.records))

    def box_counts(self) -> dict[str, int]:
        """Return the number of boxes for training of each class, zeros included, in the order of the labels."""
        labels = self._annotations.labels[~self._annotations.crowd]
        counts = np.bincount(labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    def area_counts(self) -> tuple[int, int, int]:
        """Return the numbers of small, medium and large objects, crowds left out, by :attr:`area_bands`."""
        areas = self._annotations.areas[~self._annotations.crowd]
        small, medium = self.area_bands
        return (
            int((areas < small).sum()),
            int(((areas >= small) & (areas < medium)).sum()),
            int((areas >= medium).sum()),
        )

    def summary(self) -> str:
        """Return a few lines for people: images, boxes, classes with counts, sizes, and what was dropped and why."""
        annotations = self._annotations
        crowds = int(annotations.crowd.sum())
        empty = len(self) - len(np.unique(annotations.image[~annotations.crowd]))
        small, medium, large = self.area_counts()
        lines = [
            f"{self.name} {self.split}: {_count(len(self), 'image')} ({_sizes(self._images.sizes)}; {empty} without "
            f"objects), {_count(len(annotations.ids) - crowds, 'box')}, {_count(crowds, 'crowd')}",
            f"  {_count(len(self.classes), 'class')}: {_class_counts(self.box_counts())}",
            f"  sizes: {small} small (area below {self.area_bands[0]:g}), {medium} medium, {large} large "
            f"(from {self.area_bands[1]:g})",
        ]
        lines += [f"  note: {note}" for note in self.notes]
        if self.dropped:
            reasons = Counter(item.reason for item in self.dropped)
            lines.append(
                f"  dropped {len(self.dropped)}: "
                + "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
            )
        return "\n".join(lines)


def require_same_classes(train: DetectionDataset, val: DetectionDataset) -> None:
    """Raise :class:`DataError` unless both splits have the same classes under the same category ids."""
    if (train.classes, train.category_ids) == (val.classes, val.category_ids):
        return
    a = dict(zip(train.category_ids, train.classes, strict=True))
    b = dict(zip(val.category_ids, val.classes, strict=True))
    differing = [
        f"{i}: {a.get(i, 'absent')!r} and {b.get(i, 'absent')!r}" for i in sorted({*a, *b}) if a.get(i) != b.get(i)
    ]
    raise DataError(
        f"'categories' differ between {train.name} {train.split} and {val.name} {val.split} "
        f"({'; '.join(differing[:5])}); give both annotation files the same list"
    )


def content_digests(dataset: DetectionDataset) -> list[bytes]:
    """Return the sha256 of every picture's file in order, of its pixels where pictures are generated.

    Raises :class:`DataError` where a file cannot be read.
    """
    if dataset.pixels is not None:
        return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in dataset.pixels]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_file_digest, (record.path for record in dataset.records)))


def shared_images(train: DetectionDataset, val: DetectionDataset) -> int:
    """Return how many images of ``val`` are also in ``train``, by their content, whatever they are named.

    Only files of a size that occurs in both are read. Generated pictures are never in both.
    """
    if train.pixels is not None or val.pixels is not None:
        return 0
    ours, theirs = _by_file_size(train), _by_file_size(val)
    shared = 0
    with ThreadPoolExecutor(8) as pool:
        for size in ours.keys() & theirs.keys():
            # the same path needs no reading
            known = ours[size] & theirs[size]
            rest = sorted(theirs[size] - known)
            digests = set(pool.map(_file_digest, ours[size])) if rest else set()
            shared += len(known) + sum(digest in digests for digest in pool.map(_file_digest, rest))
    return shared


def _by_file_size(dataset: DetectionDataset) -> dict[int, set[Path]]:
    found: dict[int, set[Path]] = {}
    for path in dataset.image_paths():
        try:
            found.setdefault(path.stat().st_size, set()).add(path)
        except OSError as error:
            raise DataError(f"cannot read the image {path}: {error.strerror}; restore the file") from error
    return found


def shared_images_warning(shared: int, val: DetectionDataset) -> str:
    """Return what results on such a split are worth."""
    return (
        f"{shared} of the {len(val)} images of {val.name} {val.split} are also trained on: metrics on them say how "
        "well they were learned, not how well others are detected"
    )


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; restore the file") from error


def _count(number: int, noun: str) -> str:
    plural = {"box": "boxes", "class": "classes"}.get(noun, noun + "s")
    return f"{number} {noun if number == 1 else plural}"


def _sizes(sizes: NDArray[np.int64]) -> str:
    (low_h, low_w), (high_h, high_w) = sizes.min(0), sizes.max(0)
    if (low_h, low_w) == (high_h, high_w):
        return f"{low_w}x{low_h} pixels"
    return f"{low_w}-{high_w} x {low_h}-{high_h} pixels"


def _class_counts(counts: dict[str, int], shown: int = 12) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1]) if len(counts) > shown else list(counts.items())
    text = ", ".join(f"{name} {count}" for name, count in ordered[:shown])
    if len(ordered) > shown:
        text += f", and {len(ordered) - shown} more"
    unused = [name for name, count in ordered[shown:] if count == 0]
    return text + (f" ({len(unused)} of them without a box)" if unused else "")
