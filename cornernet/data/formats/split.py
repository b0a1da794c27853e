"""Splitting one annotation file into train, val and test: random by seed, stratified by class, without leakage.

Images with identical bytes, whatever their names and ids, form a group, and a group is never divided. Groups are
assigned by iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data",
2011): the rarest class that still has unassigned images goes first, to the split that lacks most of it; groups without
objects go last. The result depends only on the content and the seed, not on names or order.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cornernet.console import count, listing, named, printable
from cornernet.data.dataset import DetectionDataset, content_digests
from cornernet.data.formats.annotation_file import written_integer
from cornernet.data.formats.coco import annotation_files, file_to_split, is_detection_file, read_annotations
from cornernet.data.formats.importing import WRITTEN_BY_US, annotation_file, require_new
from cornernet.data.images import DataError
from cornernet.files import atomic_write, make_folder, refuse_link

__all__ = ["Division", "deal", "divide", "write_division"]


@dataclass(frozen=True)
class Division:
    """How the images of an annotation file are split."""

    dataset: DetectionDataset
    file: Path
    """The annotation file that was split."""
    parts: dict[str, tuple[int, ...]]
    """Indices of the images of each split."""
    repeated: int
    """Number of images with the same bytes as another."""
    others: tuple[str, ...] = ()
    """Annotation files beside it, which stay as they are."""

    def to_text(self) -> str:
        """Return the numbers of images and of boxes of each class in every split."""
        labels = [np.concatenate([self.dataset.records[i].labels for i in part]) for part in self.parts.values()]
        counts = [np.bincount(found, minlength=len(self.dataset.classes)) for found in labels]
        lines = [f"{printable(self.file)}: {count(len(self.dataset), 'image')}"]
        for (split, part), found in zip(self.parts.items(), counts, strict=True):
            boxes = ", ".join(
                f"{named(name)} {number}" for name, number in zip(self.dataset.titles, found, strict=True)
            )
            lines.append(f"  {split}: {count(len(part), 'image')}; boxes: {boxes}")
        for label, name in enumerate(self.dataset.titles):
            lacking = [split for split, found in zip(self.parts, counts, strict=True) if not found[label]]
            if lacking:
                lines.append(f"  note: no box of the class {named(name)} in {' or '.join(lacking)}")
        if self.repeated:
            lines.append(f"  note: {count(self.repeated, 'image')} with the same bytes as another: kept in its split")
        if self.dataset.dropped:
            images = sum(item.annotation is None for item in self.dataset.dropped)
            lines.append(f"  note: {count(images, 'unusable image')} in no split: see cornernet data check")
        if self.others:
            lines.append(f"  note: left as it is: {listing(self.others)}")
        return "\n".join(lines)


def divide(folder: Path, fractions: dict[str, float], *, seed: int = 0, file: str | None = None) -> Division:
    """Split the annotation file of a COCO-format folder.

    ``fractions`` gives the share of every split except train, which gets the rest. ``file`` is a path below the folder.
    By default it is the only annotation file that is not of test, or that of train if there is none of val. Raises
    ``DataError`` where that is not a single one and ``file`` is not given, and where a split would be empty.
    """
    for split, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise DataError(f"--{split} is {fraction}; give a fraction of the images, such as 0.2")
    if sum(fractions.values()) >= 1:
        raise DataError(
            f"{' and '.join('--' + split for split in fractions)} together leave nothing for train; lower them"
        )
    there = [name for name in annotation_files(folder) if is_detection_file(folder / name)]
    name = _default_file(folder, there) if file is None else file
    if not (folder / name).is_file():
        raise DataError(f"there is no file {folder / name}; {folder} has {listing(annotation_files(folder))}")
    dataset = read_annotations(folder, name, "all")
    if not dataset.annotated:
        raise DataError(f"{folder / name} has no list 'annotations': it only serves to detect in its images")
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(content_digests(dataset)):
        groups[digest].append(index)
    ordered = [groups[digest] for digest in sorted(groups)]
    counts = np.zeros((len(ordered), len(dataset.classes)), np.int64)
    for row, group in enumerate(ordered):
        for index in group:
            counts[row, np.unique(dataset.records[index].labels)] += 1
    shares = {"train": 1 - sum(fractions.values()), **fractions}
    dealt = deal(counts, [len(group) for group in ordered], list(shares.values()), seed)
    parts = {
        split: tuple(sorted(index for row in np.flatnonzero(dealt == at) for index in ordered[row]))
        for at, split in enumerate(shares)
    }
    empty = [split for split, part in parts.items() if not part]
    if empty:
        raise DataError(
            f"{folder / name} has {count(len(ordered), 'different image')}, too few to give {empty[0]} one with these "
            "fractions"
        )
    others = tuple(other for other in there if other != name and other not in map(annotation_file, parts))
    return Division(dataset, folder / name, parts, len(dataset) - len(ordered), others)


def _default_file(folder: Path, files: list[str]) -> str:
    if not files:
        raise DataError(
            f"there is no annotation file in {folder}; expected annotations/*.json or *.json in COCO format"
        )
    name = file_to_split(files)
    if name is None:
        # a file that was split before is the likely one to be split again
        likely = next((each for each in files if Path(each).stem.endswith("_all")), files[0])
        raise DataError(
            f"{folder} has several annotation files: {listing(files)}; choose one, for example: --file {likely}"
        )
    return name


def deal(counts: NDArray[np.int64], sizes: Sequence[int], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return the part [G] to which every group is assigned by iterative stratification.

    ``counts`` [G, K] is how many images of a group have a class, ``sizes`` [G] how many images it has, and ``shares``
    the fraction of all images that each part should get. ``seed`` decides between parts that lack equally many.
    """
    rng = np.random.default_rng(seed)
    weights = np.asarray(sizes, np.int64)
    owed = np.outer(shares, counts.sum(0)).astype(np.float64)
    owed_images = np.asarray(shares, np.float64) * weights.sum()
    part = np.full(len(weights), -1, np.int64)
    order = rng.permutation(len(weights))

    def give(row: int, wants: NDArray[np.float64]) -> None:
        at = int(np.lexsort((rng.random(len(shares)), owed_images, wants))[-1])
        part[row] = at
        owed[at] -= counts[row]
        owed_images[at] -= weights[row]

    while True:
        waiting = part < 0
        remaining = counts[waiting].sum(0)
        if not remaining.any():
            break
        label = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
        # groups with many images of the class first: they are the hardest to balance
        rows = [row for row in order if part[row] < 0 and counts[row, label]]
        for row in sorted(rows, key=lambda row: -int(counts[row, label])):
            give(row, owed[:, label])
    for row in order:
        if part[row] < 0:
            give(row, owed_images)
    return part


def write_division(division: Division, folder: Path, *, overwrite: bool = False, dry_run: bool = False) -> list[str]:
    """Write an annotation file for each split below ``folder`` and return a line for each.

    The entries keep all their fields; only ``file_name`` becomes the path below the folder. If the file that was split
    is in the place of a split (val is taken out of ``instances_train.json``), its content is kept beside it, as
    ``instances_train_all.json``. Raises ``DataError`` where a file exists already and ``overwrite`` is not set; also
    for the file that was split, unless an importer wrote it.
    """
    targets = {split: folder / annotation_file(split) for split in division.parts}
    content = division.file.read_bytes()
    tree: dict[str, Any] = json.loads(content)
    kept = _kept_as(division, tree, list(targets.values()), overwrite)
    require_new([path for path in targets.values() if not kept or path != kept[0]], folder, overwrite=overwrite)
    for path in kept or ():
        refuse_link(path, below=folder)
    if kept and kept[1].exists() and kept[1].read_bytes() != content:
        again = f"--file {kept[1].relative_to(folder).as_posix()} --overwrite"
        raise DataError(
            f"{kept[1]} exists already, and the content of {kept[0]} would be kept there; split that file instead: "
            f"{again}, or rename it"
        )
    lines = [f"{'would keep' if dry_run else 'kept'} {printable(kept[0])} as {printable(kept[1])}"] if kept else []
    if dry_run:
        return lines + [f"would write {printable(path)}" for path in targets.values()]
    images = {row["id"]: row for row in tree["images"]}
    rows = defaultdict(list)
    for row in tree["annotations"]:
        # annotations without an image, which data check lists, are in no split
        number = written_integer(row.get("image_id"))
        if number is not None:
            rows[number].append(row)
    make_folder(targets[next(iter(targets))].parent, below=folder)
    if kept and not kept[1].exists():
        atomic_write(kept[1], content)
    about = tree.get("info")
    tree["info"] = {**(about if isinstance(about, dict) else {}), **WRITTEN_BY_US}
    # train first: what is left by a process that is killed in between has no image in two splits
    for split, part in division.parts.items():
        records = [division.dataset.records[index] for index in part]
        named = [
            # not resolved: an image may be a link to a file elsewhere
            {**images[record.image_id], "file_name": record.path.relative_to(folder).as_posix()}
            for record in records
        ]
        annotations = [row for record in records for row in rows[record.image_id]]
        atomic_write(targets[split], json.dumps({**tree, "images": named, "annotations": annotations}) + "\n")
    return lines + [f"wrote {printable(path)}" for path in targets.values()]


def _kept_as(
    division: Division, tree: dict[str, Any], targets: Sequence[Path], overwrite: bool
) -> tuple[Path, Path] | None:
    """Return the target that is the file to split, and where its content is kept; None if no target is that file.

    ``tree`` is the content of the file to split. Raises ``DataError`` where it may not be replaced.
    """
    same = next((path for path in targets if path.resolve() == division.file.resolve()), None)
    if same is None:
        return None
    what = f"{same} is the file to split, and writing the splits would overwrite it"
    # another split is there: this file has been split before, or its rest is in use
    if any(path.exists() for path in targets if path != same):
        raise DataError(f"{what}; rename it first, for example to instances_all.json")
    kept = same.with_name(f"{same.stem}_all.json")
    if not overwrite and (same.is_symlink() or not _written_by_us(tree)):
        raise DataError(f"{what}; give --overwrite, and its content is kept in {kept.name}")
    return same, kept


def _written_by_us(tree: dict[str, Any]) -> bool:
    about = tree.get("info")
    return isinstance(about, dict) and WRITTEN_BY_US.items() <= about.items()
