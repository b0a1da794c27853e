"""Weights on disk: our own files, the authors', CornerNet-Lite's and mmdetection's.

Ours is one ``.safetensors`` file: the weights, and in its header the configuration and the classes, so that a file
is all that testing needs. The others' are pickled state dicts; they are read without executing pickled code, and what
goes with their weights (``cornernet.weights.foreign``) becomes part of the configuration. docs/checkpoints.md says what
is supported.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cornernet.config import Config
from cornernet.config.checks import value_at
from cornernet.files import atomic_write, nearest
from cornernet.model.detector import Detector, build_detector
from cornernet.weights.foreign import FORMATS, Format, inferred_config, recognised

__all__ = ["CheckpointError", "foreign_state", "from_authors_key", "load_detector", "save_detector", "save_foreign"]

FORMAT = "cornernet-lab/1"
STARTER = Path(__file__).with_name("starter.safetensors")
"""The weights that ship with the package, which ``starter`` names (``cornernet.training.starter``)."""
PICKLED = (".pkl", ".pth", ".pt", ".bin")


class CheckpointError(ValueError):
    """Weights that cannot be read or do not fit. The message names the file, what differs, and the fix."""


def save_detector(detector: Detector, path: str | Path) -> None:
    """Write a detector's weights, configuration and classes to ``path`` (.safetensors), whole or not at all."""
    metadata = {
        "format": FORMAT,
        "config": detector.config.to_json(),
        "classes": json.dumps(detector.classes),
        "category_ids": json.dumps(detector.category_ids),
    }
    # safetensors stores dense row-major tensors: channels_last weights are copied
    state = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    atomic_write(path, safetensors.torch.save(state, {**metadata, "sha256": _digest(state)}))


def _digest(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of names and values on the CPU: a flipped bit makes others that are as readable."""
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

    ``source`` is a file of ours (.safetensors), a run's folder, ``starter`` (the package's own), a pickled file (.pkl,
    .pth, .pt, .bin) or a state dict with the names of ours, of the authors' CornerNet, of CornerNet-Lite's or of
    mmdetection's. Names may start with ``module.`` and ``num_batches_tracked``, which checkpoints of torch 0.4 do not
    have, may be missing.

    ``config`` is needed for a state dict of ours alone, and counts before what a file says. Without it others' weights
    get the paper's configuration with the network that their shapes tell, and with the normalisation, the padding and
    the way of decoding that go with them; ``start`` takes the place of the paper's configuration in this.

    Raises :class:`CheckpointError` that lists what is missing, what is extra and what differs, in the source's names.
    """
    classes, category_ids = None, None
    if isinstance(source, Mapping):
        origin, state = "the state dict", _state_dict(source, "the state dict")
    else:
        path = STARTER if source == "starter" else Path(source)
        origin = str(path)
        if path.is_dir():
            path = path / "model.safetensors"
            if not path.is_file() and (path.parent / "checkpoints").is_dir():
                raise CheckpointError(
                    f"the run in {path.parent} is not finished; go on with it: "
                    f"cornernet train --out {path.parent} --resume"
                )
        if not path.is_file():
            raise CheckpointError(
                f"there is no file {path}; give a .safetensors file, a run's folder, or a .pkl file{nearest(path)}"
            )
        if path.suffix in PICKLED:
            state = _read_pickled(path)
        else:
            state, metadata = _read_safetensors(path)
            if "config" in metadata:
                own = Config.from_json(metadata["config"], f"the configuration in {path}")
                config = config or start or own
                classes = _listed(path, metadata, "classes", str)
                category_ids = _listed(path, metadata, "category_ids", int)
                if len(classes or ()) != len(category_ids or ()):
                    raise CheckpointError(f"{path} has another number of classes than of category_ids")

    theirs = recognised(state)
    if theirs is not None:
        state = _renamed(state, theirs, origin)
        config = config or theirs.with_conventions(inferred_config(state, start))
        if not hasattr(config.model.backbone, "stacks"):
            raise CheckpointError(
                f"{origin} holds {theirs.title}, an hourglass, and the configuration another backbone"
            )
    config = config or start
    if config is None:
        raise CheckpointError(
            f"{origin} holds no configuration, and its names are none of {', '.join(FORMATS)}; pass config="
        )
    # built without drawing weights that would be overwritten at once
    with torch.device("meta"):
        detector = build_detector(config)
    _fit(detector, state, origin, theirs)
    detector.classes = tuple(classes) if classes else None
    detector.category_ids = tuple(category_ids) if category_ids else None
    return detector.to(device).eval()


def _renamed(state: Mapping[str, Tensor], theirs: Format, origin: str) -> dict[str, Tensor]:
    """Return ``state`` with our names; names that are none of theirs stay. Raises where two would be one."""
    renamed: dict[str, Tensor] = {}
    before: dict[str, str] = {}
    for name, value in state.items():
        ours = theirs.to_ours(name) or name
        if ours in renamed:
            raise CheckpointError(f"{origin} holds an entry twice, as {before[ours]} and as {name}; remove one")
        renamed[ours], before[ours] = value, name
    return renamed


def _fit(detector: Detector, state: dict[str, Tensor], origin: str, theirs: Format | None) -> None:
    """Give ``detector`` the tensors of ``state``, or say all that does not fit, in the names of the source."""

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
        parts = [
            f"{len(names)} {what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for what, names in listed
            if names
        ]
        what = "the configured detector" if theirs is None else f"the detector that {theirs.title} would be"
        raise CheckpointError(f"{origin} does not fit {what}; " + "; ".join(parts))
    copied = {key: state[key].to(value.dtype).clone() for key, value in expected.items()}
    wild = [named(key) for key, value in copied.items() if not torch.isfinite(value).all()]
    if wild:
        raise CheckpointError(
            f"{origin} holds values that are not finite, in {len(wild)} entries: {', '.join(wild[:8])}; with them it "
            "would find nothing, or anything: take an earlier checkpoint"
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
        raise CheckpointError(f"{path} is not a whole .safetensors file: {error}") from error
    # files from before it was written have none
    if "sha256" in metadata and metadata["sha256"] != _digest(state):
        raise CheckpointError(f"{path} does not hold the weights that were written: the file is damaged; copy it again")
    return state, metadata


def _listed(path: Path, metadata: Mapping[str, str], name: str, kind: type) -> list[Any] | None:
    """Return a list of the metadata; None where the detector knows none."""
    try:
        found = json.loads(metadata.get(name, "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: {name} in its metadata is not JSON: {error}; save the detector again"
        ) from error
    if found is None or (isinstance(found, list) and all(type(each) is kind for each in found)):
        return found
    raise CheckpointError(f"{path}: {name} in its metadata is no list of {kind.__name__}; save it again")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own words advise to read it all the same, and run what is in it
        if "weights_only" in str(error):
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            holds = f"it asks for {wanted[1]}" if wanted else "it holds something else than tensors, or it is damaged"
            fix = "save the state dict alone"
        else:
            reason = str(error).partition(". ")[0].splitlines()[0] if str(error) else type(error).__name__
            holds, fix = f"it is no file of torch's, or damaged or cut short ({reason})", "download or copy it again"
        raise CheckpointError(
            f"{path} cannot be read as weights: {holds}; {fix}. Only tensors are read from pickled files, never code"
        ) from error
    return _state_dict(state, str(path))


def _state_dict(content: Any, origin: str) -> dict[str, Tensor]:
    """Return the state dict that ``content`` is, or holds under ``state_dict``."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise CheckpointError(f"{origin} holds no state dict (names to tensors)")
    return dict(content)


# ------------------------------------------------------------------------------------------------------- others' names


def foreign_state(detector: Detector, format_name: str) -> OrderedDict[str, Tensor]:
    """Return a detector's weights under the names of ``format_name``, a row of ``cornernet.weights.foreign.FORMATS``.

    Names have the prefix of the project's released files. The tensors are copies on the CPU. Raises
    :class:`CheckpointError` where the project has no such network.
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
        raise CheckpointError(
            f"{theirs.title} has no place for {len(without)} of this detector's entries: {', '.join(without[:8])}"
        )
    return result


def save_foreign(detector: Detector, path: str | Path, format_name: str) -> list[str]:
    """Write a detector's weights as ``format_name``'s project saves them, whole or not at all.

    That is a pickled dict of tensors (mmdetection's inside ``{"state_dict": ...}``). Returns what the file cannot say,
    a line each: fields of the configuration that the project would take otherwise.
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
    return [f"{path} is {here}, and {theirs.title} takes {there}" for path, here, there in pairs if here != there]


def from_authors_key(key: str) -> str:
    """Return our name of an entry of the authors' state dict, or the name unchanged where it is none of theirs."""
    return FORMATS["authors"].to_ours(key) or key.removeprefix("module.")
