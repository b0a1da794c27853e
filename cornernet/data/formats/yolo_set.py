"""What a YOLO folder says about itself: the names of the classes, the images of each split, and keypoints.

``data.yaml`` is followed as Ultralytics follows it. ``train``, ``val`` and ``test`` are folders, ``.txt`` files with
one image per line, or lists of either, relative to ``path``, which is relative to the yaml file. Exported files often
name the places of another machine. So an entry that is not there is looked for, in this order, without leading
``../``, relative to the yaml file and to the imported folder, below the part that has the imported folder's name, and,
where it is absolute, as the longest end of it that is there. The notes say what was found in this way.

Values of a yaml file are read as they are written: ``yes``, ``007`` and ``1e5`` are names, not values of other types.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cornernet.console import count
from cornernet.data.dataset import Dropped
from cornernet.data.formats.importing import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, files_below
from cornernet.data.images import DataError
from cornernet.files import nearest, read_regular

__all__ = [
    "DEEPEST",
    "LARGEST_FILE",
    "LARGEST_LIST",
    "LARGEST_YAML",
    "YoloSet",
    "foreign",
    "foreign_reason",
    "read_set",
    "read_text",
]

LARGEST_FILE = 4 * 2**20
"""Bytes of a text file."""
LARGEST_LIST = 2**28
"""Bytes of a list of images: some millions of lines."""
LARGEST_YAML = 256 * 2**10
"""Bytes of a yaml file: enough for the names of ten thousand classes. The yaml reader is a hundred times slower."""
DEEPEST = 32
"""Nesting of lists in a yaml file; names need two. The yaml reader takes minutes for some thousands."""

_YAML = (".yaml", ".yml")
_FIRST = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_TEXTS = ("classes.txt", "names.txt", "*.names", "_darknet.labels")
_SPLIT_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_EMPTY = ("", "~", "null", "Null", "NULL")
_DATA_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


@dataclass(frozen=True)
class YoloSet:
    """What a folder says about itself."""

    names: tuple[str, ...]
    """Class names in the order of their numbers."""
    images: tuple[tuple[Path, str], ...] | None = None
    """The images with their splits, or None where no file names them."""
    source: Path | None = None
    """The file that names the images."""
    keypoints: tuple[int, int] | None = None
    """``kpt_shape``: the number of keypoints and the numbers of each."""
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """A file that describes a data set, as it is written."""

    path: Path
    names: tuple[str, ...] | None = None
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each split the folders, lists or images."""
    root: str = ""
    """``path``."""
    keypoints: tuple[int, int] | None = None
    size: str = ""
    """``nc``, the number of classes, or nothing."""

    def base(self) -> Path:
        """Return the folder that the entries are relative to."""
        here = self.path.parent
        return next((here / root for root in _spellings(self.root) if (here / root).is_dir()), here)


def read_set(folder: Path, names: Path | None = None) -> YoloSet:
    """Read the files of ``folder`` that describe it; ``names`` is preferred to them.

    If ``names`` is a yaml file that names images, it alone decides about these. Raises ``DataError`` where a file is
    wrong, where yaml files contradict each other, and where there are no class names or no training images.
    """
    reader = _SetReader(folder)
    given = None if names is None else _given(names)
    sources = [given] if given is not None and given.splits else reader.yamls(strict=given is None)
    if given is None:
        _require_same_names([source for source in sources if source.names is not None])
    reader.require_same_images([source for source in sources if source.splits])
    own = given or next((source for source in sources if source.names is not None), None)
    source = next((source for source in sources if source.splits), None) or reader.lists()
    if own is not None and own.names is not None:
        known = own.names
        reader.compare_texts(own.path, known)
    else:
        known = reader.names_of_texts()
        _require_number(sources, known)
    images = None if source is None else reader.images(source)
    return YoloSet(
        names=known,
        images=images,
        source=None if source is None else source.path,
        keypoints=next((each.keypoints for each in sources if each.keypoints is not None), None),
        dropped=tuple(reader.dropped),
        notes=tuple(reader.notes),
    )


def foreign(path: Path) -> bool:
    """Return whether a file is a picture of a format that is not read."""
    return path.suffix.lower() in FOREIGN_SUFFIXES


def foreign_reason(suffix: str) -> str:
    """Return why a picture with this ending is dropped."""
    return f"pictures that end in {suffix.lower() or 'nothing'} cannot be read; convert them to .png or .jpg"


def read_text(path: Path, largest: int = LARGEST_FILE) -> str:
    """Return the content of a text file. Raises ``DataError`` where it cannot be read or is too large."""
    try:
        return read_regular(path, largest, "a text file of labels or names").decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}{nearest(path)}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


class _SetReader:
    """Reads what a folder says about itself; collects notes and what was dropped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.real = _plain(folder), folder.resolve()
        self.notes: list[str] = []
        self.dropped: dict[Dropped, None] = {}
        self.moved: Counter[str] = Counter()

    # ---------------------------------------------------------------------------------------- names

    def yamls(self, *, strict: bool) -> list[_Source]:
        """Return the yaml files of the folder that describe a data set, ``data.yaml`` first.

        A file that cannot be used raises ``DataError`` if it is called so, or if ``strict`` and there is no other.
        """
        found, errors = [], []
        for path in sorted(_visible(self.folder, _YAML), key=lambda path: (path.name.lower() not in _FIRST, path.name)):
            try:
                source = _yaml_source(path, required=False)
            except DataError as error:
                if path.name.lower() in _FIRST:
                    raise
                errors.append((path, error))
                continue
            if source is not None:
                found.append(source)
        if errors and strict and not found:
            raise errors[0][1]
        self.notes += [f"{path.name} was not used: {error}" for path, error in errors]
        return found

    def names_of_texts(self) -> tuple[str, ...]:
        """Return the names of the text files in the folder, or else below it, which must agree."""
        here = self._texts()
        if here:
            return _text_names(here[0])
        below = files_below(self.folder)
        texts = [path for pattern in _TEXTS for path in below if path.match(pattern)]
        if texts:
            names = _text_names(texts[0])
            for other in texts[1:]:
                if _text_names(other) != names:
                    raise DataError(
                        f"{texts[0]} and {other} give other names to the classes ({_differ(names, _text_names(other))})"
                        f"; say which is right with --names FILE, or import their folders one by one"
                    )
            return names
        nested = [path for path in below if path.name.lower() in _FIRST]
        also = f"; {nested[0]} is there: import {nested[0].parent}, or give it with --names" if nested else ""
        raise DataError(
            f"{self.folder} has no file with the class names: looked for data.yaml, *.yaml, *.yml, "
            f"{', '.join(_TEXTS)}{also or '; give one with --names FILE, one name per line'}"
        )

    def _texts(self) -> list[Path]:
        """Return the text files with class names in the folder itself, the likeliest first."""
        return [path for pattern in _TEXTS for path in sorted(self.folder.glob(pattern)) if path.is_file()]

    def compare_texts(self, path: Path, names: tuple[str, ...]) -> None:
        """Note a text file in the folder whose names are others than those of ``path``, which are used."""
        for other in self._texts():
            if other.resolve() == path.resolve():
                continue
            try:
                found = _text_names(other)
            except DataError:
                found = ()
            if found != names:
                self.notes.append(f"{other.name} has other class names; those of {path.name} were used")

    # --------------------------------------------------------------------------------------- images

    def lists(self) -> _Source | None:
        """Return what Darknet's files say where no yaml file does: ``*.data``, or else ``train.txt`` and so on."""
        for path in _visible(self.folder, (".data",)):
            rows = [row.partition("=") for row in read_text(path).splitlines() if not row.strip().startswith("#")]
            fields: dict[str, tuple[str, ...]] = {
                key.strip(): (value.strip(),) for key, _, value in rows if value.strip()
            }
            splits = {
                split: fields[key] for split, keys in _SPLIT_KEYS.items() for key in reversed(keys) if key in fields
            }
            if "train" in splits:
                return _Source(path, splits=splits)
        texts = {path.name.lower(): path for path in _visible(self.folder, (".txt",))}
        there: dict[str, Path] = {
            split: texts[f"{key}.txt"]
            for split, keys in _SPLIT_KEYS.items()
            for key in reversed(keys)
            if f"{key}.txt" in texts and _lists_images(texts[f"{key}.txt"])
        }
        if "train" not in there:
            return None
        return _Source(there["train"], splits={split: (path.name,) for split, path in there.items()})

    def require_same_images(self, sources: Sequence[_Source]) -> None:
        """Raise ``DataError`` naming two files that name other images."""
        for other in sources[1:]:
            first = sources[0]
            for split in _SPLIT_KEYS:
                a, b = (self._shown(source, split) for source in (first, other))
                if a != b:
                    raise DataError(
                        f"{first.path} and {other.path} describe different data sets ({split}: {', '.join(a) or 'none'}"
                        f" and {', '.join(b) or 'none'}); say which with --names {other.path} or --names {first.path}, "
                        "or move the other one away"
                    )

    def _shown(self, source: _Source, split: str) -> tuple[str, ...]:
        """Return the places of a split, as far as they are found, to be compared and shown."""
        places = [self._find(entry, source)[0] or entry for entry in source.splits.get(split, ())]
        return tuple(place if isinstance(place, str) else str(place) for place in places)

    def images(self, source: _Source) -> tuple[tuple[Path, str], ...]:
        """Return the images that a file names, with their splits, sorted by their paths."""
        if (
            source.root
            and source.root not in _EMPTY
            and not any((source.path.parent / root).is_dir() for root in _spellings(source.root))
        ):
            self.notes.append(
                f"path of {source.path.name} is {source.root}, which is not there: its own folder was used"
            )
        found: dict[tuple[Path, str], None] = {}
        for split, entries in source.splits.items():
            before = len(found)
            notes = len(self.notes)
            repeated = 0
            for entry in entries:
                for path in self._entry(entry, split, source):
                    repeated += (path, split) in found
                    found[path, split] = None
            if repeated:
                self.notes.append(f"{source.path.name} names {count(repeated, 'image')} of {split} twice: read once")
            if len(found) > before:
                continue
            if split == "train":
                raise DataError(
                    f"{source.path}: there is no image in train ({', '.join(entries)}); correct it, or restore the "
                    "files"
                )
            if len(self.notes) == notes:
                self.notes.append(f"{split} of {source.path.name} is {', '.join(entries)}, which has no image")
        for name, number in self.moved.items():
            self.notes.append(f"{name}: {count(number, 'line')} found at another place in the folder than named")
        splits = Counter(path for path, _ in found)
        shared = sum(number > 1 for number in splits.values())
        if shared:
            self.notes.append(
                f"{count(shared, 'image')} in more than one split, as {source.path.name} says; metrics on images that "
                "were used for training say little"
            )
        order = list(_SPLIT_KEYS)
        return tuple(sorted(found, key=lambda item: (item[0], order.index(item[1]))))

    def _entry(self, entry: str, split: str, source: _Source) -> Iterator[Path]:
        """Yield the images of a folder, of a list or of an image that ``source`` names."""
        path, how = self._find(entry, source)
        where = f"{split} of {source.path.name}"
        if path is None and how:
            raise DataError(
                f"{source.path}: {split} is {entry}, that is {how}, which is outside {self.folder}; import a folder "
                f"that contains both, with --names {source.path}"
            )
        if path is None:
            if split == "train":
                raise DataError(
                    f"{source.path}: train is {entry}, and {source.base() / entry} is not there, nor anything below "
                    f"{self.folder} that it could mean; correct it in {source.path.name}"
                )
            self.notes.append(f"{where} is {entry}, which is not there: left out")
            return
        if how:
            self.notes.append(f"{where} is {entry}: read from {path}")
        if path.is_dir():
            for file in files_below(path):
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    yield file
                elif foreign(file):
                    self._drop(file.relative_to(self.folder).as_posix(), foreign_reason(file.suffix))
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path
        elif path.suffix.lower() in (".txt", ".lst", ".list"):
            yield from self._list(path, source)
        else:
            raise DataError(f"{source.path}: {split} is {path}; give a folder, a .txt file with images, or an image")

    def _list(self, path: Path, source: _Source) -> Iterator[Path]:
        """Yield the images that a list names. What is not there is dropped."""
        missing = 0
        lines = [line.strip() for line in read_text(path, LARGEST_LIST).splitlines()]
        bases = (path.parent, source.base(), source.path.parent, self.folder)
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            suffix = PurePosixPath(line.replace("\\", "/")).suffix.lower()
            found, how = self._locate(line, bases, len(bases))
            where = f"{path.name} line {number}"
            if suffix in FOREIGN_SUFFIXES:
                self._drop(where, foreign_reason(suffix))
            elif found is None or not found.is_file():
                missing += 1
                reason = f"it names an image outside the folder: {how}" if found is None and how else ""
                self._drop(where, reason or "the image that it names is not there")
            elif suffix not in IMAGE_SUFFIXES:
                self._drop(where, "it names a file without the ending of an image")
            else:
                self.moved[path.name] += bool(how)
                yield found
        if missing and missing == sum(map(bool, lines)):
            first = next(line for line in lines if line)
            raise DataError(
                f"none of the {count(missing, 'image')} of the list {path} is there, such as {first}; looked relative "
                f"to {path.parent} and {self.folder}; correct the list, or remove it"
            )

    def _drop(self, what: str, reason: str) -> None:
        self.dropped[Dropped(what, None, reason)] = None

    # --------------------------------------------------------------------------------------- places

    def _find(self, entry: str, source: _Source) -> tuple[Path | None, str]:
        return self._locate(entry, (source.base(), source.path.parent, self.folder), 1)

    def _locate(self, entry: str, bases: Sequence[Path], regular: int) -> tuple[Path | None, str]:
        """Return what ``entry`` means below the folder, and '' or, where that is not what it says, what it says.

        The first ``regular`` of the ``bases`` are what it may be relative to; the others are where else it is looked
        for. If it is found outside the folder only, the place comes as text, without a path.
        """
        outside = ""
        for path, usual in self._candidates(entry, bases, regular):
            if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for a name that is too long
                continue
            inside = self._inside(path)
            if inside is not None:
                return inside, "" if usual and not outside else outside or entry
            outside = outside or str(path)
        return None, outside

    def _candidates(self, entry: str, bases: Sequence[Path], regular: int) -> Iterator[tuple[Path, bool]]:
        for spelling in _spellings(entry):
            bare = spelling
            while bare.startswith("../"):
                bare = bare[3:].lstrip("/")
            for number, base in enumerate(bases):
                yield base / spelling, number < regular
                if bare != spelling:  # Roboflow writes ../train/images into a file beside train
                    yield base / bare, number < regular
            drive = len(spelling) > 1 and spelling[1] == ":"
            parts = [part for part in PurePosixPath(spelling).parts if part not in ("/", ".", "..")][int(drive) :]
            if self.real.name in parts[:-1]:
                at = len(parts) - parts[::-1].index(self.real.name)
                if at < len(parts):
                    yield self.folder.joinpath(*parts[at:]), False
            if drive or spelling.startswith("/"):
                for start in range(len(parts)):
                    yield self.folder.joinpath(*parts[start:]), False
            elif parts[:1] == ["data"]:
                # Darknet's files are named from the folder above its data
                yield self.folder.joinpath(*parts[1:]), False

    def _inside(self, path: Path) -> Path | None:
        """Return ``path`` as a path that begins with the folder, or None where it is not below it."""
        plain = _plain(path)
        if plain.is_relative_to(self.root):
            return self.folder / plain.relative_to(self.root)
        real = path.resolve()
        return self.folder / real.relative_to(self.real) if real.is_relative_to(self.real) else None


def _plain(path: Path) -> Path:
    """Return an absolute path without ``..``, links not followed."""
    return Path(os.path.normpath(path.absolute()))


def _spellings(entry: str) -> list[str]:
    """Return an entry as written, and with slashes where it has Windows' backslashes."""
    return [entry, entry.replace("\\", "/")] if "\\" in entry else [entry]


def _visible(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _lists_images(path: Path) -> bool:
    first = next((row.strip() for row in read_text(path, LARGEST_LIST).splitlines() if row.strip()), "")
    return first.lower().endswith(IMAGE_SUFFIXES)


# ------------------------------------------------------------------------------------------ yaml files


class _AsWritten(yaml.BaseLoader):
    """Makes texts, lists and mappings only; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, number in keys.items():
            if number > 1:
                raise yaml.constructor.ConstructorError(None, None, f"it has {key!r} twice", node.start_mark)
        result: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return result


def _given(path: Path) -> _Source:
    """Return what the file given with --names says."""
    if path.suffix.lower() not in _YAML:
        return _Source(path, _text_names(path))
    source = _yaml_source(path, required=True)
    if source is None or source.names is None:
        raise DataError(f"{path}: names must be a list of names, or a mapping from the numbers 0, 1, ... to names")
    return source


def _yaml_source(path: Path, *, required: bool) -> _Source | None:
    """Return what a yaml file says about a data set, or None where it is about something else."""
    text = read_text(path)
    if not required and "names" not in text and "train" not in text:
        return None
    tree = _tree(path, text)
    if not isinstance(tree, dict) or not ("names" in tree or isinstance(tree.get("train"), list | str)):
        return None
    names = _yaml_names(path, tree["names"]) if "names" in tree else None
    size = tree.get("nc", "")
    if not isinstance(size, str) or not (size in _EMPTY or (size.isascii() and size.isdigit())):
        raise DataError(f"{path}: nc must be the number of classes")
    root = tree.get("path", "")
    if not isinstance(root, str):
        raise DataError(f"{path}: path must be a folder")
    size = "" if size in _EMPTY else size.lstrip("0") or "0"
    root = "" if root in _EMPTY else root
    source = _Source(path, names, _splits(path, tree), root, _keypoints(path, tree), size)
    if names is not None:
        _require_number([source], names)
    return source


def _tree(path: Path, text: str) -> Any:
    if len(text) > LARGEST_YAML:
        raise DataError(
            f"{path} has more than {LARGEST_YAML >> 10} KiB; is it really the file with the class names? "
            "If not, give --names FILE"
        )
    try:
        _refuse_traps(path, text)
        loader = _AsWritten(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is not yaml: {' '.join(str(error).split())[:300]}") from error


def _refuse_traps(path: Path, text: str) -> None:
    """Refuse, before anything is built, what could take unlimited memory or time, and values that are no data."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        # aliases of aliases can expand exponentially
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path} has yaml aliases (*name), which a list of names does not need; write them out")
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _DATA_TAGS:
            raise DataError(f"{path} is not yaml of names and folders: it has the tag {tag[:80]!r}; remove it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise DataError(f"{path} is not a yaml file of class names: it nests lists more than {DEEPEST} deep")


def _splits(path: Path, tree: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {}
    for split, keys in _SPLIT_KEYS.items():
        given = [key for key in keys if tree.get(key, "") not in _EMPTY]
        if len(given) > 1:
            raise DataError(f"{path} has both {given[0]} and {given[1]}; remove one")
        if not given:
            continue
        value = tree[given[0]]
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, str) and entry.strip() for entry in entries):
            raise DataError(
                f"{path}: {given[0]} must be a folder, a .txt file with one image per line, or a list of these"
            )
        found[split] = tuple(entries)
    if found and "train" not in found:
        raise DataError(f"{path} has {', '.join(found)} but no train; add the folder of the training images")
    return found


def _keypoints(path: Path, tree: dict[str, Any]) -> tuple[int, int] | None:
    value = tree.get("kpt_shape", "")
    if isinstance(value, str) and value in _EMPTY:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value):
        number, size = value
        if number.isascii() and number.isdigit() and 0 < len(number) < 6 and int(number) and size in ("2", "3"):
            return int(number), int(size)
    raise DataError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3]: x and y, and perhaps the visibility")


# --------------------------------------------------------------------------------------------- names


def _yaml_names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and all(key.isascii() and key.isdigit() and len(key) < 10 for key in names):
        numbered = {int(key): name for key, name in names.items()}
        if set(numbered) == set(range(len(names))):
            names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: names must be a list of names, or a mapping from the numbers 0, 1, ... to names")
    return _require_names(path, [name.strip() for name in names])


def _text_names(path: Path) -> tuple[str, ...]:
    rows = [row.strip() for row in read_text(path).splitlines()]
    while rows and not rows[-1]:
        rows.pop()
    return _require_names(path, rows)


def _require_names(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    result = tuple(names)
    blank = [number for number, name in enumerate(result) if not name]
    twice = [name for name, number in sorted(Counter(result).items()) if number > 1]
    if not result or blank or twice:
        what = "no name" if not result else f"no name for class {blank[0]}" if blank else f"{twice[0]!r} twice"
        raise DataError(f"{path} has {what}; give every class its own name, in the order of the class numbers")
    return result


def _require_number(sources: Sequence[_Source], names: Sequence[str]) -> None:
    """Raise ``DataError`` where ``nc`` is not the number of the names."""
    for source in sources:
        if source.size and source.size != str(len(names)):
            raise DataError(
                f"{source.path}: nc is {source.size[:20]}, and the number of names is {len(names)}; correct one of "
                "the two"
            )


def _require_same_names(sources: Sequence[_Source]) -> None:
    for other in sources[1:]:
        first = sources[0]
        if first.names is not None and other.names is not None and first.names != other.names:
            raise DataError(
                f"{first.path} and {other.path} describe different data sets (names: "
                f"{_differ(first.names, other.names)}); say which with --names {other.path} or --names {first.path}, "
                "or move the other one away"
            )


def _differ(a: Sequence[str], b: Sequence[str]) -> str:
    """Return the first class whose name differs, in words."""
    number = next((n for n, (left, right) in enumerate(zip(a, b, strict=False)) if left != right), min(len(a), len(b)))
    left, right = (repr(names[number][:60]) if number < len(names) else "no name" for names in (a, b))
    return f"class {number} is {left} and {right}"
