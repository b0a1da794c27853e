"""COCO-format folders: finding the annotation file and the images, and reading both without silent errors.

Annotation files are looked for in ``annotations/``, in the folder itself, and as ``<split>/*annotations*.json``.
The file of a split is the one whose name contains the split's name at the start of a word (``instances_train2017``
for ``train``). Among several, an exact match is preferred, then one that begins with ``instances_``. A split may also
be given as a path below the folder.

Images are looked for, in this order, in ``images/S`` and ``S`` (S is the file's name without ``instances_``, then the
split's name), the annotation file's own folder, ``images``, and the folder itself; if none is there, below the folder
by name (:mod:`cornernet.data.formats.image_places`). A file without a list of annotations, as of COCO's test images, is
read with no box.

Unusable images and annotations are dropped and listed with the reason. What casts doubt on the whole file (wrong types,
duplicate ids) is a ``DataError``. Boxes come from ``bbox``, and from ``segmentation`` only where there is no ``bbox``.
``area`` is kept unchanged. Boxes that seem to be written in another form are left as they are, with a warning
(:mod:`cornernet.data.formats.doubts`).
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cornernet.config import CocoSource, DataConfig
from cornernet.config.choices import Split
from cornernet.console import count, listing
from cornernet.data.dataset import CROWDED, AnnotationTable, DetectionDataset, Dropped, ImageTable
from cornernet.data.formats.annotation_file import NOTHING, AnnotationColumns, is_detection_file, read_columns
from cornernet.data.formats.doubts import box_doubts, repeated_boxes
from cornernet.data.formats.image_places import AMBIGUOUS, MISSING, ImagePlaces, names_split, stays_inside
from cornernet.data.images import DataError, read_image
from cornernet.data.shared import Texts
from cornernet.data.survey import without_unreadable
from cornernet.files import nearest

__all__ = [
    "annotation_files",
    "file_to_split",
    "find_annotations",
    "is_detection_file",
    "open_coco",
    "read_annotations",
    "split_of",
]

_UNUSABLE = (
    "",
    "its category_id is not in 'categories'",
    "its bbox is not a list of four numbers",
    "its bbox is not four finite numbers",
    "its bbox has a negative width or height",
    "its bbox has no width or no height",
    "its bbox lies outside the image",
    "its iscrowd is neither 0 nor 1",
)
"""Why an annotation of an existing image cannot be used; the first that applies is reported. '' if it can be used."""
_REPEATED = "it repeats the class and box of an earlier annotation"
_FOUND_AT_LEAST = 0.5
"""Share of the images that a search by name must find: fewer are more likely to be other files of the same names."""


def open_coco(source: CocoSource, split: Split, data: DataConfig | None = None) -> DetectionDataset:
    """Return one split of the folder ``source.root``, read as ``data`` says. The name of the test split is ``test``.

    With ``data.unreadable`` at ``skip`` every image is decoded, to leave out those that cannot be.

    Raises ``DataError``, naming file, field and fix, where the folder, its annotation file or its images cannot be
    found, or the file is not in COCO format.
    """
    root = Path(source.root)
    wanted = {"train": source.train_split, "val": source.val_split, "test": "test"}[split]
    dataset = read_annotations(root, find_annotations(root, wanted, split), wanted, data)
    return without_unreadable(dataset) if data is not None and data.unreadable == "skip" else dataset


# ------------------------------------------------------------------------------------ finding the file


def annotation_files(root: Path) -> list[str]:
    """Return the paths of all files below ``root`` that may contain annotations, relative to it, with slashes.

    Hidden files and folders (of Jupyter, macOS, editors) are passed over.
    Raises ``DataError`` where ``root`` is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the data set (data.source.root){nearest(root)}")
    found: set[Path] = set()
    for pattern in ("*.json", "annotations/*.json", "*/*annotations*.json"):
        found.update(path for path in root.glob(pattern) if path.is_file())
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return [name for name in names if not name.startswith(".") and "/." not in name]


def find_annotations(root: Path, wanted: str, split: str) -> str:
    """Return the annotation file of a split, relative to ``root``.

    ``wanted`` is part of its name, or its path below ``root``; ``split`` is 'train', 'val' or 'test', for messages.
    Raises ``DataError``, listing the files, where none or several match.
    """
    files = annotation_files(root)
    if not wanted:
        raise DataError(f"data.source.{split}_split is empty; name a split of {root}: {listing(files, 8)}")
    if wanted.endswith(".json"):
        if not stays_inside(wanted):
            raise DataError(f"data.source.{split}_split is {wanted!r}; give a path below {root}")
        if (root / wanted).is_file():
            return Path(wanted).as_posix()
    if not files:
        raise DataError(f"there is no annotation file in {root}; expected annotations/*.json or *.json in COCO format")
    matches = _matches(files, wanted)
    if len(matches) == 1:
        return matches[0]
    # there is no configuration of a test split: any file can be evaluated in place of val
    flag = "--split val --data.source.val-split" if split == "test" else f"--data.source.{split}-split"
    if matches:
        raise DataError(
            f"several annotation files in {root} match the split {wanted!r}: {listing(matches, 8)}; "
            f"choose one, for example: {flag} {matches[0]}"
        )
    source = file_to_split(files)
    if source is not None and wanted == split != "test":
        fix = (
            f"split {source}: cornernet data split {shlex.quote(str(root))}; or, only to try things out, use the same "
            f"file for both: {flag} {split_of(source)}"
        )
    else:
        fix = f"choose one: {flag} PART-OF-ITS-NAME"
    raise DataError(f"no annotation file in {root} matches the split {wanted!r}: it has {listing(files, 8)}; {fix}")


def file_to_split(files: Sequence[str]) -> str | None:
    """Return the annotation file among ``files`` from which ``cornernet data split`` takes what is missing, or None.

    It is the only file, or the one that is not of test, or that of train if there is none of val.
    """
    if len(files) == 1:
        return files[0]
    rest = [name for name in files if split_of(name) != "test"]
    if any(split_of(name) == "val" for name in rest):
        return None
    matches = rest if len(rest) == 1 else _matches(rest, "train")
    return matches[0] if len(matches) == 1 else None


def _matches(files: Sequence[str], wanted: str) -> list[str]:
    """Return the files of a split: of its very name, or else with it in their names; those of ``instances_`` first."""
    matches = [name for name in files if names_split(name, wanted)]
    matches = [name for name in matches if _stem(name).removeprefix("instances_") == wanted.lower()] or matches
    return [name for name in matches if _stem(name).startswith("instances_")] or matches


def _stem(name: str) -> str:
    return name.lower().removeprefix("annotations/").removesuffix(".json")


def split_of(name: str) -> str:
    """Return the split that an annotation file's name contains, or the whole name if it contains none."""
    for word in ("train", "val", "test"):
        if names_split(name, word):
            return word
    return name


# ---------------------------------------------------------------------------------- reading the file


def read_annotations(root: Path, file: str, split: str, data: DataConfig | None = None) -> DetectionDataset:
    """Return the data set in the annotation file ``file`` (relative to ``root``), read as ``data`` says.

    ``split`` gives its name and the folders where its images may be. Raises ``DataError`` naming file, field and fix.
    """
    data = DataConfig() if data is None else data
    columns = read_columns(root / file)
    empty = _empty_parents(root, file, columns)
    if empty.any():
        left_out = tuple(
            (int(columns.category_ids[at]), columns.category_names[at]) for at in np.flatnonzero(empty).tolist()
        )
        columns = replace(
            columns,
            category_ids=columns.category_ids[~empty],
            category_names=columns.category_names.take(np.flatnonzero(~empty)),
        )
    else:
        left_out = ()
    reader = _Reader(root, file, split, columns, drop_repeated=data.duplicates == "drop")
    reader.note_categories(left_out)
    images = reader.images()
    annotations = reader.annotations(images)
    return DetectionDataset(
        name=root.resolve().name,
        split=split,
        classes=tuple(columns.category_names),
        category_ids=tuple(columns.category_ids.tolist()),
        images=images,
        annotations=annotations,
        dropped=reader.dropped,
        notes=tuple(reader.notes),
        warnings=tuple(reader.warnings),
        annotated=bool(columns.annotated[0]),
        left_out=left_out,
        orientation=data.orientation,
        bits=data.bits,
    )


def _empty_parents(root: Path, file: str, columns: AnnotationColumns) -> NDArray[np.bool_]:
    """Return which categories only group others, and have no annotation in any annotation file of the folder.

    All files count, so that train and val have the same categories.
    """
    empty = columns.parents.copy()
    if not empty.any() or not len(columns.category):
        return np.zeros_like(empty)
    empty &= ~np.isin(columns.category_ids, columns.category)
    for name in annotation_files(root) if empty.any() else ():
        if name != file and is_detection_file(root / name):
            with contextlib.suppress(DataError):  # it is reported where it is used
                empty &= ~np.isin(columns.category_ids, read_columns(root / name).category)
    return empty


class _Reader:
    """Reads one annotation file; knows where its images may be and what was dropped."""

    def __init__(
        self, root: Path, file: str, split: str, columns: AnnotationColumns, *, drop_repeated: bool = False
    ) -> None:
        self.root = root
        self.file = root / file
        self.columns = columns
        self.dropped: list[Dropped] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._drop_repeated = drop_repeated
        self._searched = False
        self._dropped_images: dict[int, str] = {}
        self._places = ImagePlaces(root, file, split)
        self.folders = self._places.folders

    def note_categories(self, left_out: Sequence[tuple[int, str]]) -> None:
        counts = Counter(self.columns.category_names)
        repeated = [name for name, number in counts.items() if number > 1]
        if repeated:
            self.notes.append(f"several categories are named {', '.join(map(repr, repeated))}; they are kept apart")
        for number, name in left_out:
            self.notes.append(
                f"the category {name!r} (id {number}) is left out: it has no box and only groups the others"
            )
        if not self.columns.annotated[0]:
            self.notes.append("there is no list 'annotations': the images only serve to detect in them")

    # ---- images

    def images(self) -> ImageTable:
        columns = self.columns
        located = self._located()
        kept: list[int] = []
        folders: list[int] = []
        names: list[str] = []
        sizes = columns.image_sizes.copy()
        measured = missing = 0
        for row, name in enumerate(columns.image_names):
            found = located[row]
            if isinstance(found, str):
                missing += found == MISSING
                self._drop_image(row, name, found)
                continue
            folder, name = found
            if sizes[row, 0] < 0:
                sizes[row] = self._measure(Path(self.folders[folder], name))
                measured += 1
            if sizes[row, 0] < 1:
                reason = "its width or height is not a positive integer, or is unknown"
                self._drop_image(row, name, reason)
                continue
            kept.append(row)
            folders.append(folder)
            names.append(name)
        if not kept:
            self._refuse_empty(missing)
        if measured:
            self.notes.append(f"{count(measured, 'image')} without width and height: taken from the file")
        self._note_names(kept, names)
        rows = np.array(kept, np.int64)
        return ImageTable(
            ids=columns.image_ids[rows],
            sizes=sizes[rows],
            names=Texts.of(names),
            folders=self.folders,
            folder=np.array(folders, np.uint8),
        )

    def _located(self) -> list[tuple[int, str] | str]:
        """Return for every image its folder and name, or the reason why there is none."""
        columns, places = self.columns, self._places
        found: list[tuple[int, str] | str] = []
        for row, name in enumerate(columns.image_names):
            if columns.unnamed[row]:
                found.append("its file_name is not valid Unicode")
                continue
            place = places.locate(name)
            if place == MISSING and columns.from_url[row]:
                place = places.locate(name.rpartition("/")[2])
            found.append(place)
        if not found or any(not isinstance(place, str) for place in found):
            return found
        searched: list[tuple[int, str] | str] = [
            place if columns.unnamed[row] else places.search(columns.image_names[row])
            for row, place in enumerate(found)
        ]
        if MISSING in searched or AMBIGUOUS in searched:
            searched = [*(places.together(columns.image_names) or searched)]
        there = sum(not isinstance(place, str) for place in searched)
        ambiguous = AMBIGUOUS in searched
        if there < _FOUND_AT_LEAST * len(found) and not (ambiguous and there == 0):
            return found
        if there:
            first = next(place[1] for place in searched if not isinstance(place, str))
            self.notes.append(
                f"{count(there, 'image')} found by name below the folder, because none is in the usual places; the "
                f"first is {first}"
            )
        self._searched = True
        return searched

    def _note_names(self, rows: list[int], names: list[str]) -> None:
        columns = self.columns
        urls = int(columns.from_url[rows].sum())
        if urls:
            self.notes.append(f"{count(urls, 'image')} without file_name: named by the end of coco_url")
        others = [
            (columns.image_names[row], name)
            for row, name in zip(rows, names, strict=True)
            if not columns.from_url[row] and columns.image_names[row] != name
        ]
        if others and not self._searched:
            wanted, there = others[0]
            self.notes.append(
                f"{count(len(others), 'image')} under another spelling of file_name, the first: {wanted} is {there}"
            )

    def _measure(self, path: Path) -> tuple[int, int]:
        try:
            image = read_image(path)
        except DataError:
            return 0, 0
        return image.shape[0], image.shape[1]

    def _drop_image(self, row: int, name: str, reason: str) -> None:
        number = int(self.columns.image_ids[row])
        shown = name or f"image id {number}"
        self._dropped_images[number] = shown
        self.dropped.append(Dropped(shown, None, reason))

    def _refuse_empty(self, missing: int) -> None:
        number = len(self.columns.image_ids)
        if not number:
            raise DataError(f"{self.file}: 'images' is empty; there is nothing to read")
        first = self.dropped[0]
        if missing == number:
            raise DataError(
                f"none of the {count(number, 'image')} of {self.file} exists (the first is {first.image}); looked in "
                f"{', '.join(self.folders)}, and by name everywhere below {self.root}; put them in one of these folders"
            )
        if first.reason == AMBIGUOUS:
            raise DataError(
                f"it is not clear which files below {self.root} are the images of {self.file}: {AMBIGUOUS}, the first "
                f"being {first.image}; give each file_name its folder, as in train2017/{Path(first.image).name}"
            )
        raise DataError(
            f"none of the {count(number, 'image')} of {self.file} can be used; the first is {first.image}: "
            f"{first.reason}"
        )

    # ---- annotations

    def annotations(self, images: ImageTable) -> AnnotationTable:
        columns = self.columns
        image, known = _rows_of(columns.image, images.ids)
        label, labelled = _rows_of(columns.category, columns.category_ids)
        reason = self._reasons(images.sizes[image], labelled)
        kept = known & (reason == 0)
        again = self._repetitions(kept, image, label)
        kept[again] = False
        repeated = dict.fromkeys(again.tolist(), "it occurs twice")
        twins = np.flatnonzero(kept)
        twins = twins[repeated_boxes(image[twins], label[twins], columns.crowd[twins], columns.xywh[twins])]
        if self._drop_repeated:
            kept[twins] = False
            repeated |= dict.fromkeys(twins.tolist(), _REPEATED)
        else:
            self._note_repeated(len(twins), int(kept.sum()))
        for row in np.flatnonzero(~kept).tolist():
            why = repeated.get(row) or _UNUSABLE[reason[row]]
            self._drop_annotation(row, why, images.names[int(image[row])] if known[row] else None)
        rows = np.flatnonzero(kept)
        rows = rows[np.argsort(image[rows], kind="stable")]  # the file's order within an image
        xywh, areas = columns.xywh[rows], columns.areas[rows]
        self._note_boxes(image[rows], xywh, areas, images)
        self._note_fields(rows)
        objects = columns.crowd[rows] != 1
        self.warnings += box_doubts(images.sizes[image[rows]][objects], xywh[objects], areas[objects])
        with np.errstate(over="ignore"):
            areas = np.where(np.isnan(areas), xywh[:, 2] * xywh[:, 3], areas)
        return AnnotationTable(
            ids=self._usable_ids(columns.ids[rows]),
            image=image[rows],
            labels=label[rows],
            xywh=xywh,
            areas=areas,
            crowd=columns.crowd[rows] == 1,
        )

    def _reasons(self, sizes: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return for every annotation an index into :data:`_UNUSABLE`, given the ``sizes`` [M, 2] of their images."""
        columns = self.columns
        box = columns.xywh
        finite = np.asarray(np.isfinite(box).all(axis=1))
        x, y, width, height = np.where(finite[:, None], box, 0.0).T
        with np.errstate(over="ignore"):
            right, bottom = x + width, y + height
        outside = (np.minimum(right, sizes[:, 1]) <= np.maximum(x, 0)) | (
            np.minimum(bottom, sizes[:, 0]) <= np.maximum(y, 0)
        )
        conditions = [
            ~labelled,
            columns.no_box,
            ~finite,
            (width < 0) | (height < 0),
            (width == 0) | (height == 0),
            outside,
            columns.crowd > 1,
        ]
        return np.select(conditions, list(range(1, len(_UNUSABLE))), 0).astype(np.uint8)

    def _repetitions(
        self, kept: NDArray[np.bool_], image: NDArray[np.int64], label: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the usable annotations that repeat an earlier one: the same id and the same content."""
        columns = self.columns
        rows = np.flatnonzero(kept & (columns.ids != NOTHING))
        if not _repeats(columns.ids[rows]):
            return rows[:0]
        _, inverse, counts = np.unique(columns.ids[rows], return_inverse=True, return_counts=True)
        rows = rows[counts[inverse] > 1]
        seen: dict[int, tuple[object, ...]] = {}
        again = []
        for row in rows.tolist():
            area = float(columns.areas[row])
            said = (image[row], label[row], *columns.xywh[row], None if area != area else area, columns.crowd[row])
            number = int(columns.ids[row])
            if seen.get(number) == said:
                again.append(row)
            else:
                seen[number] = said
        return np.array(again, np.int64)

    def _drop_annotation(self, row: int, why: str, image: str | None) -> None:
        """List an annotation as dropped; ``image`` is its image's name, or None if that image is not kept."""
        columns = self.columns
        number = None if columns.ids[row] == NOTHING else int(columns.ids[row])
        if image is None:
            wanted = int(columns.image[row])
            image = self._dropped_images.get(wanted)
            why = "its image_id is not in 'images'" if image is None else "its image was dropped"
            if image is None and wanted == NOTHING:
                image = f"image id {columns.odd_texts[int(np.searchsorted(columns.odd_rows, row))]}"
            elif image is None:
                image = f"image id {wanted}"
        self.dropped.append(Dropped(image, number, why))

    def _note_boxes(
        self, image: NDArray[np.int64], xywh: NDArray[np.float64], areas: NDArray[np.float64], images: ImageTable
    ) -> None:
        without = int(np.isnan(areas).sum())
        if without:
            self.notes.append(f"{count(without, 'annotation')} without a usable area: taken as width times height")
        height, width = images.sizes[image].T
        x, y, w, h = xywh.T
        over = int(((x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1)).sum())
        if over:
            self.notes.append(
                f"{count(over, 'box', 'boxes')} beyond the edge of the image by more than a pixel: clipped for "
                "training, unchanged for evaluation"
            )
        crowded = np.flatnonzero(np.bincount(image, minlength=1) > CROWDED)
        if len(crowded):
            self.notes.append(
                f"{count(len(crowded), 'image')} with more than {CROWDED} objects, first "
                f"{images.names[int(crowded[0])]}: training stops if a crop contains more than that; cut "
                "such images into tiles"
            )

    def _note_repeated(self, repeated: int, objects: int) -> None:
        if not repeated:
            return
        text = (
            f"{count(repeated, 'annotation')} with the class and box of an earlier one: a detector that finds each "
            "object once misses them; --data.duplicates drop leaves them out"
        )
        # large sets have a few by accident
        (self.warnings if repeated > 0.01 * objects else self.notes).append(text)

    def _note_fields(self, rows: NDArray[np.int64]) -> None:
        columns = self.columns
        from_mask = int(columns.from_mask[rows].sum())
        if from_mask:
            self.notes.append(f"{count(from_mask, 'annotation')} without bbox: the box of the segmentation is used")
        as_text = int(columns.as_text[rows].sum())
        if as_text:
            self.notes.append(f"{count(as_text, 'annotation')} with an id written as a text: read as a number")
        ignored = int((columns.ignored[rows] & (columns.crowd[rows] != 1)).sum())
        if ignored:
            self.warnings.append(
                f"{count(ignored, 'annotation')} with 'ignore' set and iscrowd 0, which count as objects, as in "
                "pycocotools: to leave them out of training and ignore them in evaluation, set iscrowd to 1"
            )

    def _usable_ids(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the annotations' ids, or 1, 2, ... where COCOeval would miscount: ids repeated or below 1."""
        if (ids < 1).any() or _repeats(ids):
            self.notes.append("annotation ids are missing, repeated or below 1: renumbered for evaluation")
            return np.arange(1, len(ids) + 1, dtype=np.int64)
        return ids


def _rows_of(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the index in ``ids`` (distinct) of each of ``wanted``, 0 if it has none, and whether it has one."""
    low, high = int(ids.min()), int(ids.max())
    if high - low < 4 * len(ids) + 1024:
        # a lookup table is five times as fast as a search, and ids are seldom far apart
        table = np.full(high - low + 1, -1, np.int64)
        table[ids - low] = np.arange(len(ids))
        inside = (wanted >= low) & (wanted <= high)
        found = table[np.where(inside, wanted, low) - low]
        there = inside & (found >= 0)
        return np.where(there, found, 0), there
    order = np.argsort(ids)
    at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    there = ids[at] == wanted
    return np.where(there, at, 0), there


def _repeats(ids: NDArray[np.int64]) -> bool:
    """Return whether a number occurs twice; fast for rising ids, as in most files."""
    if (ids[1:] > ids[:-1]).all():
        return False
    ids = np.sort(ids)
    return bool((ids[1:] == ids[:-1]).any())
