"""Weights on disk: our own files, the authors', CornerNet-Lite's and mmdetection's.

Our format is a single ``.safetensors`` file. It holds the weights and, in its header, the configuration and the
classes, so testing needs nothing else. The other projects' files are pickled state dicts. They are read without
executing pickled code, and the conventions of their weights (``cornernet.weights.foreign``) become part of the
configuration. docs/checkpoints.md lists what is supported.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cornernet.config import Config, ConfigError, HourglassConfig
from cornernet.config.checks import json_problem, value_at
from cornernet.config.choices import PICKLED
from cornernet.console import PrintableError, count
from cornernet.files import atomic_write, nearest, require_regular
from cornernet.model.detector import Detector, build_detector
from cornernet.weights.bounds import problem_in_file, problem_in_state
from cornernet.weights.foreign import FORMATS, Format, inferred_config, recognised
from cornernet.weights.unfinished import WEIGHTS, newest, read_contents, read_newest, require_unchanged

__all__ = [
    "CheckpointError",
    "foreign_state",
    "from_authors_key",
    "header",
    "load_detector",
    "save_detector",
    "save_foreign",
]

FORMAT = "cornernet-lab/1"
STARTER = Path(__file__).with_name("starter.safetensors")
"""The weights that ship with the package under the name ``starter`` (``cornernet.training.starter``)."""

LARGEST_FILE = 64 * 2**30
"""Bytes of a file of weights."""

_MOST_LISTED = 8
"""Entries that a message lists before it ends in an ellipsis."""


class CheckpointError(PrintableError, ValueError):
    """Weights that cannot be read or do not fit. The message names the file, the difference, and the fix."""


def save_detector(detector: Detector, path: str | Path) -> None:
    """Write a detector's weights, configuration and classes to ``path`` (.safetensors), whole or not at all."""
    # safetensors stores dense row-major tensors: channels_last weights are copied
    state = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    atomic_write(path, safetensors.torch.save(state, {**header(detector), "sha256": _digest(state)}))


def header(detector: Detector) -> dict[str, str]:
    """Return what the header of a file in our format says about a detector, without the digest of the weights."""
    return {
        "format": FORMAT,
        "config": detector.config.to_json(),
        "classes": json.dumps(detector.classes),
        "category_ids": json.dumps(detector.category_ids),
        **({} if detector.data_digests is None else {"data": json.dumps(detector.data_digests)}),
    }


def _digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of names and values on the CPU. A flipped bit would otherwise read as a valid weight."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_detector(
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    config: Config | None = None,
    device: str | torch.device = "cpu",
    *,
    start: Config | None = None,
) -> Detector:
    """Return a detector in eval mode with the weights of ``source``.

    ``source`` is one of

    * a file in our format (.safetensors), the folder of a run, or ``starter``, the package's own weights. Of a run
      that is not finished, the newest checkpoint is taken, also while it is being trained, and ``unfinished`` of the
      detector says at which iteration it was written;
    * a pickled file (.pkl, .pth, .pt, .bin);
    * a state dict, with the names of this project, the authors' CornerNet, CornerNet-Lite or mmdetection.

    Names may start with ``module.``. Entries ``num_batches_tracked``, which checkpoints of torch 0.4 lack, may be
    missing.

    ``config`` overrides the configuration in the file, and is required only for a state dict with our names. Without
    it, other projects' weights get the paper's configuration, with the network that the shapes of the weights imply,
    and with the normalisation, padding and decoding that belong to these weights. ``start`` replaces the paper's
    configuration in this.

    Raises :class:`CheckpointError` that lists missing, extra and differing entries by the source's names.
    """
    found = _read(source)
    if found.config is not None:
        config = config or start or found.config
    state, theirs = found.state, recognised(found.state)
    if theirs is not None:
        state = _renamed(state, theirs, found.origin)
        if config is None:
            try:
                config = theirs.with_conventions(inferred_config(state, start))
            except ConfigError as error:
                # the shapes and names in the file ask for a network above the limits
                raise CheckpointError(f"{found.origin} does not hold a usable network: {error}") from error
        if not isinstance(config.model.backbone, HourglassConfig):
            raise CheckpointError(
                f"{found.origin} holds {theirs.title}, which has an hourglass backbone, but the configuration has a "
                f"{config.model.backbone.kind} backbone"
            )
    config = config or start
    if config is None:
        raise CheckpointError(_without_config(found))
    # built on meta: no weights are drawn only to be overwritten
    with torch.device("meta"):
        detector = build_detector(config)
    _fit(detector, state, found.origin, theirs)
    detector.classes, detector.category_ids = found.classes, found.category_ids
    detector.data_digests, detector.unfinished = found.data_digests, found.unfinished
    return detector.to(device).eval()


@dataclass(frozen=True)
class _Source:
    """The contents of a source of weights; ``origin`` names it in messages."""

    origin: str
    state: dict[str, Tensor]
    config: Config | None = None
    classes: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    data_digests: dict[str, str] | None = None
    unfinished: tuple[int, int] | None = None


def _read(source: str | os.PathLike[str] | Mapping[str, Tensor]) -> _Source:
    if isinstance(source, Mapping):
        return _Source("the state dict", _state_dict(source, "the state dict"))
    if source != "starter" and _is_unfinished(Path(source)):
        return _read_unfinished(Path(source))
    origin, path = _located(source)
    if path.suffix in PICKLED:
        return _Source(origin, _read_pickled(path))
    found = _read_ours(origin, path)
    return found if found.data_digests else replace(found, data_digests=_digests_of_older_run(path))


def _is_unfinished(run: Path) -> bool:
    """Return whether a folder is that of a run without final weights."""
    return ((run / "checkpoints").is_dir() or (run / "config.json").is_file()) and not (run / WEIGHTS).exists()


def _read_ours(origin: str, path: Path) -> _Source:
    """Return the contents of a file in our format, or of a .safetensors file without a configuration."""
    state, metadata = _read_safetensors(path)
    _require_usable(state, str(path))
    if "config" not in metadata:
        return _Source(origin, state)
    config = Config.from_json(metadata["config"], f"the configuration in {path}")
    classes = _listed(path, metadata, "classes", str)
    category_ids = _listed(path, metadata, "category_ids", int)
    if len(classes or ()) != len(category_ids or ()):
        raise CheckpointError(
            f"{path} has {count(len(classes or ()), 'entry', 'entries')} in classes and {len(category_ids or ())} in "
            "category_ids; the numbers must be equal. Save the detector again"
        )
    if classes and len(classes) != config.model.num_classes:
        raise CheckpointError(
            f"{path} names {count(len(classes), 'class', 'classes')}, but the network in it has "
            f"{config.model.num_classes}. Save the detector again"
        )
    for number, times in Counter(category_ids or ()).items():
        if times > 1 or not -(2**63) <= number < 2**63:
            what = "twice" if times > 1 else "which does not fit 64 bits"
            raise CheckpointError(
                f"{path} has the category id {number}, {what}, in category_ids. Save the detector again"
            )
    return _Source(
        origin, state, config, tuple(classes or ()) or None, tuple(category_ids or ()) or None, _digests(path, metadata)
    )


def _digests(path: Path, metadata: Mapping[str, str]) -> dict[str, str] | None:
    """Return the digests of the data by split, or None in files that have none."""
    try:
        found = json.loads(metadata.get("data", "null"))
    except (ValueError, RecursionError):
        found = ()
    if found is None or (isinstance(found, dict) and all(isinstance(each, str) for each in found.values())):
        return found
    raise CheckpointError(f"{path}: data in its metadata is not an object of text; save the detector again")


def _digests_of_older_run(path: Path) -> dict[str, str] | None:
    """Return the digest of the training data from the checkpoint beside weights that do not have it themselves."""
    checkpoint = newest(path.parent / "checkpoints") if path.name == WEIGHTS else None
    if checkpoint is not None:
        with contextlib.suppress(OSError, ValueError):
            digest = read_contents(checkpoint).get("data")
            return {"train": digest} if isinstance(digest, str) else None
    return None


def _read_unfinished(run: Path) -> _Source:
    """Return the newest checkpoint of a run that has no final weights, whether or not it is being trained."""

    def read(checkpoint: Path) -> _Source:
        try:
            contents = read_contents(checkpoint)
            require_unchanged(checkpoint, contents, WEIGHTS)
            found = _read_ours(str(checkpoint), checkpoint / WEIGHTS)
            digests = found.data_digests or {"train": str(contents["data"])}
            iteration = int(contents["iteration"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"cannot read the checkpoint {checkpoint}: {error}") from error
        # older checkpoints hold no configuration and no classes
        config = found.config or Config.load(run / "config.json")
        unfinished = (iteration, config.training.iterations)
        return replace(found, config=config, data_digests=digests, unfinished=unfinished)

    source = read_newest(run / "checkpoints", read)
    if source is None:
        raise CheckpointError(
            f"the run in {run} has no checkpoint yet. If it is being trained, wait for the first one; otherwise resume "
            f"it: cornernet train --resume --out {shlex.quote(str(run))}"
        )
    return source


def _located(source: str | os.PathLike[str]) -> tuple[str, Path]:
    """Return the name of a source in messages and the path of its file. Raises ``CheckpointError`` if there is none."""
    path = STARTER if source == "starter" else Path(source)
    origin = str(path)
    if path.is_dir():
        path = path / WEIGHTS
    try:
        require_regular(path, LARGEST_FILE)
    except FileNotFoundError:
        raise CheckpointError(
            f"there is no file {path}; give a .safetensors file, the folder of a run, or a .pkl file{nearest(path)}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror}") from error
    return origin, path


def _without_config(found: _Source) -> str:
    """Return the message about weights whose configuration is neither stored nor implied by a known format."""
    titles = [each.title for each in FORMATS.values()]
    return (
        f"{found.origin} holds no configuration. Its entries ({_first(list(found.state), 3)}) are not named as in "
        f"{', '.join(titles[:-1])} or {titles[-1]}, whose configuration could be inferred. If they have this project's "
        "names, pass config= (--recipe on the command line)"
    )


def _first(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    """Return the first names, separated by commas, and an ellipsis if there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _renamed(state: Mapping[str, Tensor], theirs: Format, origin: str) -> dict[str, Tensor]:
    """Return ``state`` with our names; names unknown to the format stay. Raises if two entries get the same name."""
    renamed: dict[str, Tensor] = {}
    before: dict[str, str] = {}
    for name, value in state.items():
        ours = theirs.to_ours(name) or name
        if ours in renamed:
            raise CheckpointError(f"{origin} holds the same entry twice, as {before[ours]} and as {name}; remove one")
        renamed[ours], before[ours] = value, name
    return renamed


def _fit(detector: Detector, state: dict[str, Tensor], origin: str, theirs: Format | None) -> None:
    """Load ``state`` into ``detector``, or raise an error that lists everything that does not fit, by source names."""

    def named(name: str) -> str:
        return (theirs.from_ours(name) if theirs is not None else None) or name

    expected = detector.state_dict()
    for key, value in expected.items():
        if key.endswith("num_batches_tracked") and key not in state:
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
    missing = [named(key) for key in expected if key not in state]
    extra = [named(key) for key in state if key not in expected]
    differ = [
        f"{named(key)}: {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = [
        f"{named(key)}: {str(state[key].dtype).removeprefix('torch.')}"
        for key, value in expected.items()
        if key in state and value.is_floating_point() and not state[key].is_floating_point()
    ]
    if missing or extra or differ or kinds:
        listed = (
            ("missing", missing), ("extra", extra), ("of another shape", differ), ("not floating point", kinds),
        )  # fmt: skip
        parts = [f"{len(names)} {what}: {_first(names)}" for what, names in listed if names]
        what = "the configured detector" if theirs is None else f"the detector expected of {theirs.title}"
        raise CheckpointError(f"{origin} does not fit {what}; " + "; ".join(parts))
    try:
        copied = {key: state[key].to(value.dtype).clone() for key, value in expected.items()}
    except (NotImplementedError, RuntimeError) as error:  # some of torch's packed types of 4 bits convert to nothing
        raise CheckpointError(f"{origin} holds weights of a type that cannot be converted: {error}") from error
    wild = [named(key) for key, value in copied.items() if not torch.isfinite(value).all()]
    if wild:
        raise CheckpointError(
            f"{origin} holds values that are not finite, in {count(len(wild), 'entry', 'entries')}: {_first(wild)}. "
            "Its detections would be meaningless; use an earlier checkpoint"
        )
    detector.load_state_dict(copied, assign=True)
    for parameter in detector.parameters():
        parameter.requires_grad_(True)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete .safetensors file: {error}") from error
    # older files have no digest
    if "sha256" in metadata and metadata["sha256"] != _digest(state):
        raise CheckpointError(f"{path} is damaged: its weights do not match the stored checksum; copy it again")
    return state, metadata


def _listed(path: Path, metadata: Mapping[str, str], name: str, kind: type) -> list[Any] | None:
    """Return a list from the metadata, or None if the detector has none."""
    try:
        found = json.loads(metadata.get(name, "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {name} in its metadata is not JSON: {json_problem(error)}; save the detector again"
        ) from error
    if found is None or (isinstance(found, list) and all(type(each) is kind for each in found)):
        return found
    raise CheckpointError(f"{path}: {name} in its metadata is not a list of {kind.__name__}; save the detector again")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    if (problem := problem_in_file(path)) is not None:
        raise CheckpointError(f"{path} cannot be read as weights: {problem}; save the state dict again with torch.save")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises reading the file anyway, which would run the code in it
        if "weights_only" in str(error):
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            holds = f"it asks for {wanted[1]}" if wanted else "it holds more than tensors, or it is damaged"
            fix = "save only the state dict"
        else:
            reason = str(error).partition(". ")[0].splitlines()[0] if str(error) else type(error).__name__
            holds, fix = (
                f"it is not a torch file, or it is damaged or incomplete ({reason})",
                "download or copy it again",
            )
        raise CheckpointError(
            f"{path} cannot be read as weights: {holds}; {fix}. Only tensors are loaded from pickled files, never code"
        ) from error
    return _state_dict(state, str(path))


def _state_dict(content: Any, origin: str) -> dict[str, Tensor]:
    """Return ``content`` as a state dict, or what it holds under the key ``state_dict``."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise CheckpointError(f"{origin} holds no state dict (a mapping from names to tensors)")
    state = dict(content)
    _require_usable(state, origin)
    return state


def _require_usable(state: Mapping[str, Tensor], origin: str) -> None:
    if (problem := problem_in_state(state)) is not None:
        raise CheckpointError(f"{origin} cannot be used as weights: {problem}")


# ------------------------------------------------------------------------------------------------------- other names


def foreign_state(detector: Detector, format_name: str) -> OrderedDict[str, Tensor]:
    """Return a detector's weights under the names of ``format_name``, a row of ``cornernet.weights.foreign.FORMATS``.

    Names have the prefix of the project's released files. The tensors are copies on the CPU. Raises
    :class:`CheckpointError` for an unknown format and for a network that the project does not have.
    """
    if format_name not in FORMATS:
        raise CheckpointError(f"there is no format {format_name!r}; use one of {', '.join(FORMATS)}")
    theirs = FORMATS[format_name]
    result: OrderedDict[str, Tensor] = OrderedDict()
    without = []
    for key, value in detector.state_dict().items():
        name = theirs.from_ours(key)
        if name is None:
            without.append(key)
        else:
            result[theirs.prefix + name] = value.detach().cpu().contiguous().clone()
    if without:
        entries = count(len(without), "entry", "entries")
        raise CheckpointError(f"{theirs.title} has no names for {entries} of this detector: {_first(without)}")
    return result


def save_foreign(detector: Detector, path: str | Path, format_name: str) -> list[str]:
    """Write a detector's weights the way ``format_name``'s project saves them, whole or not at all.

    The file is a pickled dict of tensors (for mmdetection, inside ``{"state_dict": ...}``). Returns what is lost, one
    line per field of the configuration that the file cannot hold and that the project sets differently.
    """
    state: Any = foreign_state(detector, format_name)
    buffer = io.BytesIO()
    torch.save({"meta": {}, "state_dict": state} if format_name == "mmdetection" else state, buffer)
    atomic_write(path, buffer.getvalue())
    return _left_out(detector.config, FORMATS[format_name])


_CONVENTIONS = (
    "data.channel_order",
    "data.mean",
    "data.std",
    "data.padding",
    "testing.reject_empty",
    "testing.nms_extent",
)


def _left_out(config: Config, theirs: Format) -> list[str]:
    ours, usual = config.to_dict(), theirs.with_conventions(Config()).to_dict()
    pairs = ((path, value_at(ours, path), value_at(usual, path)) for path in _CONVENTIONS)
    return [f"{path} is {here}, but {theirs.title} uses {there}" for path, here, there in pairs if here != there]


def from_authors_key(key: str) -> str:
    """Return our name for an entry of the authors' state dict, or the name without ``module.`` if it is not theirs."""
    return FORMATS["authors"].to_ours(key) or key.removeprefix("module.")
