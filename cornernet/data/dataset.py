"""One split of any source of data: boxes in flat arrays, images read on demand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cornernet.config import Orientation, Size
from cornernet.console import count, named, printable
from cornernet.data.images import LARGEST_FILE, DataError, Picture, inspect_image
from cornernet.data.parallel import in_order
from cornernet.data.shared import SharedState, spawning
from cornernet.files import open_regular

__all__ = [
    "COCO_AREA_BANDS",
    "CROWDED",
    "AnnotationTable",
    "DataError",
    "DetectionDataset",
    "Dropped",
    "ImageRecord",
    "ImageTable",
    "class_titles",
    "content_digests",
    "require_boxes",
    "require_same_classes",
]

COCO_AREA_BANDS = (32.0**2, 96.0**2)
"""Upper area of small and of medium objects in square pixels, as in COCO."""

CROWDED = 4096
"""Most objects in one training input: the push loss compares all pairs, and at this number takes 64 MB per copy."""

_FINGERPRINT_VERSION = 1


@dataclass(frozen=True)
class ImageRecord:
    """One image and its objects, without crowds."""

    image_id: int
    path: Path
    height: int
    width: int
    boxes: NDArray[np.float64]
    """[N, 4] x1 y1 x2 y2 in pixels of the original image, clipped to it; x2 and y2 are exclusive edges."""
    labels: NDArray[np.int64]
    """[N] in 0..K-1."""


@dataclass(frozen=True)
class Dropped:
    """An image or an annotation that is not used, and why."""

    image: str
    """File name, or whatever identifies the image."""
    annotation: int | None
    """Id of the annotation; None if the whole image is dropped or the annotation has no id."""
    reason: str


@dataclass(frozen=True)
class ImageTable:
    """N images, in columns."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    """[N, 2] height, width."""
    names: Sequence[str]
    """File names as in the annotations, independent of where the folder is."""
    folders: tuple[str, ...] = ("",)
    folder: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """[N] index into ``folders``, where the file was found; an empty array means the first folder for all."""


@dataclass(frozen=True)
class AnnotationTable:
    """M objects, in columns, sorted by ``image``."""

    ids: NDArray[np.int64]
    image: NDArray[np.int64]
    """[M] row of the image table."""
    labels: NDArray[np.int64]
    xywh: NDArray[np.float64]
    """[M, 4] x, y, width, height, as in the source."""
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    """[M] whether it is a group, ignored in evaluation and left out of training."""


class _Records(Sequence[ImageRecord]):
    """Creates records on demand, so that a large data set needs no Python object per box."""

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
    """Images with boxes: one split of a COCO folder or of ``shapes``. Reads images on demand.

    Cheap to pickle: a spawned child process maps the arrays, pixels included, instead of copying them
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
        warnings: tuple[str, ...] = (),
        annotated: bool = True,
        left_out: tuple[tuple[int, str], ...] = (),
        orientation: Orientation = "annotations",
        bits: int = 16,
        pixels: NDArray[np.uint8] | None = None,
    ) -> None:
        self.name = name
        self.split = split
        self.classes = classes
        self.category_ids = category_ids
        """Category id of each label, as in the annotations."""
        self.dropped = tuple(dropped)
        self.area_bands = area_bands
        """Upper area of small and of medium objects in square pixels."""
        self.notes = notes
        """Decisions about the data that matter for reading the results, one line each."""
        self.warnings = warnings
        """What makes the boxes doubtful, one line each."""
        self.annotated = annotated
        """Whether the source has annotations at all; without, there is nothing to train on or to measure."""
        self.left_out = left_out
        """Ids and names of categories of the source that only group others; they are not among the classes."""
        self.orientation = orientation
        self.bits = bits
        self.pixels = pixels
        """[N, H, W, 3] uint8 BGR if the images are generated, else None."""
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
            # from now on this process uses the shared block too
            self.__dict__.update(shared.state())
            self._shared = shared
        return {"_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state["_shared"]
        self.__dict__.update(state if shared is None else {**shared.state(), "_shared": shared})

    def __len__(self) -> int:
        return len(self._images.ids)

    def image_id(self, index: int) -> int:
        """Return the id of image ``index`` without creating its record."""
        return int(self._images.ids[index])

    def size(self, index: int) -> Size:
        """Return (height, width) of image ``index`` as stated in the annotations."""
        height, width = self._images.sizes[index]
        return int(height), int(width)

    def image_paths(self) -> set[Path]:
        """Return the files of all images."""
        images = self._images
        folder = images.folder if len(images.folder) else np.zeros(len(images.ids), np.uint8)
        return {Path(images.folders[at], name) for at, name in zip(folder.tolist(), images.names, strict=True)}

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image ``index`` as uint8 [H, W, 3] BGR at its original size; the caller may write to it.

        Raises :class:`DataError` naming the file where it cannot be read or its size is not the stated one.
        """
        return self.inspect(index).pixels

    def inspect(self, index: int) -> Picture:
        """Return what :meth:`read` does, with what is doubtful about it. Raises :class:`DataError` as it does."""
        if self.pixels is not None:
            return Picture(np.array(self.pixels[index], np.uint8))
        record = self.records[index]
        size = (record.height, record.width)
        return inspect_image(record.path, size, orientation=self.orientation, bits=self.bits)

    def without(self, images: Sequence[Dropped | None], note: str) -> DetectionDataset:
        """Return the data set without the images for which ``images``, one entry each, says why they are dropped."""
        kept = np.array([item is None for item in images], np.bool_)
        if kept.all():
            return self
        if not kept.any():
            raise DataError(f"no image of {self.name} {self.split} can be read; the first: {self._first(images)}")
        table, annotations = self._images, self._annotations
        rows = np.flatnonzero(kept)
        used = np.flatnonzero(kept[annotations.image])
        place = np.cumsum(kept) - 1
        return self._changed(
            images=ImageTable(
                ids=table.ids[rows],
                sizes=table.sizes[rows],
                names=[table.names[row] for row in rows.tolist()],
                folders=table.folders,
                folder=table.folder[rows] if len(table.folder) else table.folder,
            ),
            annotations=AnnotationTable(
                ids=annotations.ids[used],
                image=place[annotations.image[used]],
                labels=annotations.labels[used],
                xywh=annotations.xywh[used],
                areas=annotations.areas[used],
                crowd=annotations.crowd[used],
            ),
            dropped=(*self.dropped, *(item for item in images if item is not None)),
            notes=(*self.notes, note),
        )

    def with_left_out(self) -> DetectionDataset:
        """Return the data set with :attr:`left_out` among its classes, as before such categories were left out."""
        names = dict([*zip(self.category_ids, self.classes, strict=True), *self.left_out])
        ids = sorted(names)
        place = np.array([ids.index(number) for number in self.category_ids], np.int64)
        return self._changed(
            classes=tuple(names[number] for number in ids),
            category_ids=tuple(ids),
            annotations=replace(self._annotations, labels=place[self._annotations.labels]),
            left_out=(),
        )

    def _changed(self, **changes: Any) -> DetectionDataset:
        fields: dict[str, Any] = {
            "name": self.name,
            "split": self.split,
            "classes": self.classes,
            "category_ids": self.category_ids,
            "images": self._images,
            "annotations": self._annotations,
            "dropped": self.dropped,
            "area_bands": self.area_bands,
            "notes": self.notes,
            "warnings": self.warnings,
            "annotated": self.annotated,
            "left_out": self.left_out,
            "orientation": self.orientation,
            "bits": self.bits,
            "pixels": self.pixels,
        }
        return DetectionDataset(**{**fields, **changes})

    @staticmethod
    def _first(images: Sequence[Dropped | None]) -> str:
        return next(item.reason for item in images if item is not None)

    def ground_truth(self) -> dict[str, Any]:
        """Return the data set as a COCO annotation tree for COCOeval: original ids, boxes and areas, crowds included.

        Boxes are not clipped, so that AP equals that of pycocotools on the source's own file. What :attr:`dropped`
        lists is left out.
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
        """sha256 (hex) of everything that determines results, wherever the folder is; computed on first use.

        It covers classes and category ids, area bands, image ids, names and sizes, labels, boxes, areas and crowds,
        and the whole content of every image file (for ``shapes``, the generated pixels). Eight threads hash the files:
        about a second per gigabyte from a warm disk. Annotation ids and dropped items are not covered.
        """
        if self._fingerprint is None:
            self._fingerprint = self._compute_fingerprint()
        return self._fingerprint

    def quick_fingerprint(self) -> str:
        """Return a sha256 (hex) over the same things as :attr:`fingerprint`, but without reading any image file.

        The sizes of the files stand for their content. Raises :class:`DataError` for a missing file.
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
        yield from in_order(_file_digest, (record.path for record in self.records), 8)

    @property
    def titles(self) -> tuple[str, ...]:
        """The classes by label, told apart where names repeat: ``cat``, but ``dog (id 3)`` and ``dog (id 7)``."""
        return class_titles(self.classes, self.category_ids)

    def box_counts(self) -> dict[str, int]:
        """Return the number of training boxes of each class by :attr:`titles`, zeros included, in order of the labels.

        Classes of one name are counted apart.
        """
        labels = self._annotations.labels[~self._annotations.crowd]
        counts = np.bincount(labels, minlength=len(self.classes))
        return {title: int(count) for title, count in zip(self.titles, counts, strict=True)}

    def images_above(self, objects: int, *, of_one_class: bool) -> int:
        """Return how many images have more than a number of objects, in all or of one class, without crowds."""
        annotations = self._annotations
        rows = ~annotations.crowd
        key = annotations.image[rows]
        if of_one_class:
            key = key * len(self.classes) + annotations.labels[rows]
        keys, counts = np.unique(key, return_counts=True)
        images = keys[counts > objects]
        return len(np.unique(images // len(self.classes) if of_one_class else images))

    def area_counts(self) -> tuple[int, int, int]:
        """Return the numbers of small, medium and large objects by :attr:`area_bands`, without crowds."""
        areas = self._annotations.areas[~self._annotations.crowd]
        small, medium = self.area_bands
        return (
            int((areas < small).sum()),
            int(((areas >= small) & (areas < medium)).sum()),
            int((areas >= medium).sum()),
        )

    def summary(self) -> str:
        """Return a short description: images, boxes, classes with counts, sizes, and what was dropped and why."""
        annotations = self._annotations
        crowds = int(annotations.crowd.sum())
        empty = len(self) - len(np.unique(annotations.image[~annotations.crowd]))
        small, medium, large = self.area_counts()
        lines = [
            f"{printable(self.name)} {printable(self.split)}: "
            f"{count(len(self), 'image')} ({_sizes(self._images.sizes)}; {empty} without "
            f"objects), {count(len(annotations.ids) - crowds, 'box', 'boxes')}, {count(crowds, 'crowd')}",
            f"  {count(len(self.classes), 'class', 'classes')}: {_class_counts(self.box_counts())}",
            f"  sizes: {small} small (area below {self.area_bands[0]:g}), {medium} medium, {large} large "
            f"(from {self.area_bands[1]:g})",
        ]
        lines += [f"  note: {printable(note)}" for note in self.notes]
        lines += [f"  warning: {printable(warning)}" for warning in self.warnings]
        if self.dropped:
            reasons = Counter(item.reason for item in self.dropped)
            lines.append(
                f"  dropped {len(self.dropped)}: "
                + "; ".join(f"{number} because {printable(reason)}" for reason, number in reasons.most_common())
            )
        return "\n".join(lines)


def class_titles(classes: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
    """Return the names of classes, with the category id where a name repeats, so that no two are equal."""
    repeated = {name for name, number in Counter(classes).items() if number > 1}
    titles = list(classes)
    while repeated:
        titles = [
            f"{title} (id {number})" if title in repeated else title
            for title, number in zip(titles, category_ids, strict=True)
        ]
        # a class may be named like another with its id
        repeated = {title for title, number in Counter(titles).items() if number > 1}
    return tuple(titles)


def require_boxes(*datasets: DetectionDataset) -> None:
    """Raise :class:`DataError` for a split that has no box: nothing can be learned from it, and nothing measured."""
    for dataset in datasets:
        if sum(dataset.box_counts().values()):
            continue
        if not dataset.annotated:
            raise DataError(
                f"{dataset.name} {dataset.split} has no list 'annotations', so that it only serves to detect in its "
                "images: cornernet evaluate --save-results"
            )
        reasons = Counter(item.reason for item in dataset.dropped if item.annotation is not None)
        reasons = reasons or Counter(item.reason for item in dataset.dropped)
        why = "; ".join(f"{number} dropped because {reason}" for reason, number in reasons.most_common())
        raise DataError(
            f"{dataset.name} {dataset.split} has no box{': ' + why if why else ''}; correct the annotations"
        )


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
    """Return the sha256 of every image file, in order; of the pixels if the images are generated.

    Raises :class:`DataError` where a file cannot be read.
    """
    if dataset.pixels is not None:
        return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in dataset.pixels]
    return list(in_order(_file_digest, (record.path for record in dataset.records), 8))


def shared_images(train: DetectionDataset, val: DetectionDataset) -> int:
    """Return how many images of ``val`` are also in ``train``, by content, whatever their names.

    Only files whose size occurs in both are read. Generated images are never in both. Raises :class:`DataError` where a
    file cannot be read.
    """
    if train.pixels is not None or val.pixels is not None:
        return 0
    ours, theirs = _by_file_size(train), _by_file_size(val)
    shared = 0
    # by size, the files of train and those of val that have to be read: the same path need not be
    read: list[tuple[list[Path], list[Path]]] = []
    for size in ours.keys() & theirs.keys():
        known = ours[size] & theirs[size]
        shared += len(known)
        if rest := sorted(theirs[size] - known):
            read.append((sorted(ours[size]), rest))
    digests = in_order(_file_digest, (path for mine, rest in read for path in (*mine, *rest)), 8)
    for mine, rest in read:
        found = {next(digests) for _ in mine}
        shared += sum(next(digests) in found for _ in rest)
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
    """Return a warning about metrics on ``val`` when it shares ``shared`` images with the training split."""
    return (
        f"{shared} of the {count(len(val), 'image')} of {printable(val.name)} {printable(val.split)} "
        f"{'is' if shared == 1 else 'are'} also used for training: metrics on them show how well they "
        "were learned, not how well objects in new images are detected"
    )


def _file_digest(path: Path) -> bytes:
    try:
        with open_regular(path, LARGEST_FILE) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; restore the file") from error


def _sizes(sizes: NDArray[np.int64]) -> str:
    (low_h, low_w), (high_h, high_w) = sizes.min(0), sizes.max(0)
    if (low_h, low_w) == (high_h, high_w):
        return f"{low_w}x{low_h} pixels"
    return f"{low_w}-{high_w} x {low_h}-{high_h} pixels"


def _class_counts(counts: dict[str, int], shown: int = 12) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1]) if len(counts) > shown else list(counts.items())
    text = ", ".join(f"{named(name)} {number}" for name, number in ordered[:shown])
    if len(ordered) > shown:
        text += f", and {len(ordered) - shown} more"
    unused = [name for name, number in ordered[shown:] if number == 0]
    return text + (f" ({len(unused)} of them without a box)" if unused else "")
