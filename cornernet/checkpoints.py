"""Weights on disk: our own files, and the authors'.

Ours is one ``.safetensors`` file: the weights, and in its header the configuration and the classes, so that a file
is all that testing needs. The authors' is a pickled state dict; it is read without executing pickled code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cornernet.config import Config
from cornernet.detector import Detector, build_detector
from cornernet.files import atomic_write, nearest
from cornernet.recipes import hourglass_104

__all__ = ["CheckpointError", "from_authors_key", "load_detector", "save_detector"]

FORMAT = "cornernet-lab/1"
STARTER = Path(__file__).with_name("starter.safetensors")
"""The weights that ship with the package, which ``starter`` names (``cornernet.starter``)."""
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
    atomic_write(path, safetensors.torch.save(state, metadata))


def load_detector(
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    config: Config | None = None,
    device: str | torch.device = "cpu",
) -> Detector:
    """Return a detector in eval mode with the weights of ``source``.

    ``source`` is a file of ours (.safetensors), a run's folder, ``starter`` (the package's own), a file in the
    authors' format (.pkl, .pth), or a state dict with our keys or the authors'. Authors' keys may start with
    ``module.`` and may lack ``num_batches_tracked``,
    which checkpoints of torch 0.4 do not have. ``config`` is needed for a state dict of ours alone; for the authors'
    it defaults to Hourglass-104 (or -52, by the stacks found) with as many classes as the heatmaps have.
    Raises :class:`CheckpointError` that lists what is missing, what is extra and which shapes differ.
    """
    classes, category_ids = None, None
    if isinstance(source, Mapping):
        origin, state = "the state dict", dict(source)
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
                config = config or Config.from_json(metadata["config"], f"the configuration in {path}")
                classes = json.loads(metadata["classes"])
                category_ids = json.loads(metadata["category_ids"])

    if is_authors(state):
        state = {from_authors_key(key): value for key, value in state.items()}
        config = config or _authors_config(state)
    if config is None:
        raise CheckpointError(f"{origin} holds no configuration; pass config=")
    # built without drawing weights that would be overwritten at once
    with torch.device("meta"):
        detector = build_detector(config)
    _fit(detector, state, origin)
    detector.classes = tuple(classes) if classes else None
    detector.category_ids = tuple(category_ids) if category_ids else None
    return detector.to(device).eval()


def _fit(detector: Detector, state: dict[str, Tensor], origin: str) -> None:
    """Give ``detector`` the tensors of ``state``, or say all that does not fit."""
    expected = detector.state_dict()
    for key, value in expected.items():
        if key.endswith("num_batches_tracked") and key not in state:
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    differ = [
        f"{key}: {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if missing or extra or differ:
        parts = [
            f"{len(names)} {what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for what, names in (("missing", missing), ("extra", extra), ("of another shape", differ))
            if names
        ]
        raise CheckpointError(f"{origin} does not fit the configured detector; " + "; ".join(parts))
    copied = {key: state[key].to(value.dtype).clone() for key, value in expected.items()}
    detector.load_state_dict(copied, assign=True)
    for parameter in detector.parameters():
        parameter.requires_grad_(True)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            return state, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole .safetensors file: {error}") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as weights: {error}. Only tensors are read from pickled files, never code; "
            "save the state dict alone"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state dict (names to tensors)")
    return dict(state)


# ------------------------------------------------------------------------------------- authors' names

_AUTHORS_PLACES: tuple[tuple[str, str], ...] = (
    (r"pre\.(\d+)", r"backbone.stem.\1"),
    (r"kps\.(\d+)", r"backbone.hourglasses.\1"),
    (r"cnvs\.(\d+)", r"backbone.outputs.\1"),
    (r"inters_\.(\d+)", r"backbone.merge_inputs.\1"),
    (r"cnvs_\.(\d+)", r"backbone.merge_outputs.\1"),
    (r"inters\.(\d+)", r"backbone.merge_residuals.\1"),
)
_AUTHORS_BLOCKS = {"up1": "skip", "low1": "down", "low2": "inner", "low3": "up", "skip": "shortcut"}
_AUTHORS_CORNERS = {"tl": "top_left", "br": "bottom_right"}
_AUTHORS_POOLING = {
    "p1_conv1": "vertical",
    "p2_conv1": "horizontal",
    "p_conv1": "pooled.0",
    "p_bn1": "pooled.1",
    "conv1": "shortcut.0",
    "bn1": "shortcut.1",
    "conv2": "output",
}
_AUTHORS_HEADS = {"heats": "heatmap", "tags": "embedding", "regrs": "offset"}
_AUTHORS_LAYERS = {"0.conv": "0", "1": "2"}


def is_authors(state: Mapping[str, Any]) -> bool:
    """Tell whether a state dict has the authors' names."""
    return any(key.removeprefix("module.").startswith("pre.0.") for key in state)


def from_authors_key(key: str) -> str:
    """Return our name of an entry of the authors' state dict, or the name unchanged where it is none of theirs."""
    name = key.removeprefix("module.")
    for pattern, place in _AUTHORS_PLACES:
        match = re.match(pattern + r"\.", name)
        if match:
            rest = [_AUTHORS_BLOCKS.get(part, part) for part in name[match.end() :].split(".")]
            return ".".join([match.expand(place), *rest])
    match = re.fullmatch(r"(tl|br)_cnvs\.(\d+)\.(\w+)\.(.+)", name)
    if match and match[3] in _AUTHORS_POOLING:
        return f"head.stacks.{match[2]}.{_AUTHORS_CORNERS[match[1]]}.pooling.{_AUTHORS_POOLING[match[3]]}.{match[4]}"
    match = re.fullmatch(r"(tl|br)_(heats|tags|regrs)\.(\d+)\.(0\.conv|1)\.(\w+)", name)
    if match:
        branch = f"head.stacks.{match[3]}.{_AUTHORS_CORNERS[match[1]]}.{_AUTHORS_HEADS[match[2]]}"
        return f"{branch}.{_AUTHORS_LAYERS[match[4]]}.{match[5]}"
    return name


def _authors_config(state: Mapping[str, Tensor]) -> Config:
    """Return the configuration of the authors' network with the stacks, classes and embedding found in ``state``."""
    stacks = {int(m[1]) for key in state if (m := re.match(r"backbone\.hourglasses\.(\d+)\.", key))}
    config = hourglass_104().with_("model.backbone.stacks", max(len(stacks), 1))
    for path, layer in (("model.num_classes", "heatmap"), ("model.head.embedding_dim", "embedding")):
        weight = state.get(f"head.stacks.0.top_left.{layer}.2.weight")
        if weight is not None and weight.dim() == 4:
            config = config.with_(path, weight.shape[0])
    return config
