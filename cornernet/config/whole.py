"""The whole configuration: one run's model, data, training and testing, with edits by path and JSON.

A recipe (``cornernet.config.recipes``) is a function that returns a full :class:`Config`. A variant of a study is an
edit by path::

    config.with_("model.head.pooling", "none")

Configurations are written to JSON with every run and read back strictly: an unknown key, a wrong type or an
impossible combination is an error that names the field.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from cornernet.config.checks import ConfigError, holder, json_problem
from cornernet.config.data import AugmentationConfig, CocoSource, DataConfig, ShapesSource
from cornernet.config.model import AnchorHeadConfig, CornerHeadConfig, HourglassConfig, ModelConfig, ResNetFPNConfig
from cornernet.config.testing import TestingConfig
from cornernet.config.training import TrainingConfig
from cornernet.files import read_regular

__all__ = ["LARGEST_FILE", "LATER_FIELDS", "WITHOUT_EFFECT", "Config"]

LARGEST_FILE = 2**20
"""Largest size of a configuration file in bytes; ours have about five thousand."""

_MOST_LISTED = 20
"""Errors that a message lists."""

WITHOUT_EFFECT = (
    ("training", "workers"),
    ("training", "log_every"),
    ("training", "evaluate_every"),
    ("training", "checkpoint_every"),
)
"""Fields that do not change results: they only say how to load data and how often to log, evaluate and save."""

LATER_FIELDS: dict[str, Any] = {
    "model.head.heatmap_loss": "focal",
    "model.head.intermediate_supervision": True,
    "model.head.feedback": False,
    "testing.offsets": "predicted",
    "training.compile": False,
    "training.checkpoint_activations": False,
    "training.replicas": 1,
    "data.padding": "black",
    "testing.reject_empty": False,
    "testing.nms_extent": "pixels",
    "data.orientation": "annotations",
    "data.bits": 16,
    "data.duplicates": "keep",
    "data.unreadable": "error",
    "model.head.heatmap_bias": -2.19,
    "testing.location_radii": (),
}
"""Fields added after records were first published, by path, each with the value that keeps the earlier results.

A field at that value is left out of the keys, so that earlier runs are still found.
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: the model, its data, its training and its testing."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    testing: TestingConfig = field(default_factory=TestingConfig)

    def __post_init__(self) -> None:
        stride = self.model.backbone.total_stride
        for name, side in zip(("height", "width"), self.data.input_size, strict=True):
            if (side + 1) % stride:
                near = max(stride, round((side + 1) / stride) * stride) - 1
                raise ConfigError(
                    f"data.input_size has {name} {side}; this backbone needs a multiple of {stride} minus 1: use {near}"
                )
        images = self.training.batch_size // self.training.accumulation
        if images == 1 and all(side + 1 == stride for side in self.data.input_size):
            raise ConfigError(
                f"batch norm cannot learn from one image whose coarsest map is a single cell: raise "
                f"training.batch_size, or data.input_size above {stride - 1}"
            )

    def results_dict(self) -> dict[str, Any]:
        """Return :meth:`to_dict` without fields that do not change results.

        Left out are :data:`WITHOUT_EFFECT`, the path of the data, and :data:`LATER_FIELDS` at their neutral values.
        """
        tree = self.to_dict()
        for part, name in WITHOUT_EFFECT:
            del tree[part][name]
        tree["data"]["source"].pop("root", None)
        for path, neutral in LATER_FIELDS.items():
            with contextlib.suppress(ConfigError):  # a head of another kind does not have the field
                node, leaf = holder(tree, path)
                if node[leaf] == neutral:
                    del node[leaf]
        return tree

    def with_(self, path: str, value: Any) -> Config:
        """Return a copy with the field at ``path`` replaced, checked as if read from a file.

        ``path`` is dotted, such as ``model.head.pooling``; ``value`` is a plain value or a part of the configuration.
        Raises :class:`ConfigError` for an unknown field, with similar names, and for a value that does not fit.
        """
        tree = self.to_dict()
        node, leaf = holder(tree, path)
        node[leaf] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
        return Config.from_dict(tree)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain dicts, tuples and scalars."""
        # as dataclasses.asdict does it, in a fifteenth of the time: plans of studies make hundreds of configurations
        tree: dict[str, Any] = _adapter().dump_python(self, warnings=False)
        return tree

    def to_public_dict(self) -> dict[str, Any]:
        """Return :meth:`to_dict` with the data set's folder reduced to its name, for records and pages to publish."""
        tree = self.to_dict()
        source = tree["data"]["source"]
        if "root" in source:
            source["root"] = Path(source["root"]).resolve().name
        return tree

    @staticmethod
    def from_dict(tree: Any, origin: str = "configuration") -> Config:
        """Build a configuration from the form of :meth:`to_dict`, or from parsed JSON.

        Raises :class:`ConfigError` with ``origin`` and, for each field that is unknown or does not fit, the reason.
        """
        try:
            # through JSON, which makes a list of a tuple; strict, so that "12" is not a number and "yes" not a bool
            text = json.dumps(tree)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{origin} has a value that JSON cannot hold: {json_problem(error)}") from error
        try:
            return _adapter().validate_json(text, strict=True)
        except pydantic.ValidationError as error:
            found, lines = error.errors(), []
            for item in found[:_MOST_LISTED]:
                path = _path(item["loc"], tree)
                reason = item["msg"].removeprefix("Value error, ")
                if item["type"] == "unexpected_keyword_argument":
                    reason = "unknown field"
                lines.append(f"  {path + ': ' if path else ''}{reason}")
            if len(found) > len(lines):
                lines.append(f"  and {len(found) - len(lines):,} more")
            raise ConfigError(f"{origin} does not fit:", *lines) from error

    def to_json(self) -> str:
        """Return indented JSON, which :meth:`from_json` reads back to an equal configuration."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @staticmethod
    def from_json(text: str, origin: str = "configuration") -> Config:
        """Read the form of :meth:`to_json`. Raises :class:`ConfigError` that names ``origin`` and the field."""
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{origin} is not JSON that can be read: {json_problem(error)}") from error
        return Config.from_dict(tree, origin)

    @staticmethod
    def load(path: str | Path) -> Config:
        """Read a configuration file. Raises :class:`ConfigError` that names the file and the field."""
        path = Path(path)
        try:
            text = read_regular(path, LARGEST_FILE, "a configuration").decode("utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the configuration {path} is not UTF-8 text: {error.reason}") from error
        return Config.from_json(text, str(path))


def _path(location: tuple[int | str, ...], tree: Any) -> str:
    """Return the dotted path of an error of pydantic, which also names the kind of a part that has kinds."""
    parts, node = [], tree
    for part in location:
        if isinstance(node, dict) and part not in node and node.get("kind") == part:
            continue
        parts.append(str(part))
        node = node.get(part) if isinstance(node, dict) else None
    return ".".join(parts)


_STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
for _part in (
    HourglassConfig,
    ResNetFPNConfig,
    CornerHeadConfig,
    AnchorHeadConfig,
    ModelConfig,
    ShapesSource,
    CocoSource,
    AugmentationConfig,
    DataConfig,
    TrainingConfig,
    TestingConfig,
    Config,
):
    setattr(_part, "__pydantic_config__", _STRICT)  # noqa: B010 - dataclasses do not declare the attribute


@functools.cache
def _adapter() -> pydantic.TypeAdapter[Config]:
    """Return what checks JSON against the configuration. It takes as long to make as half of a command's help."""
    return pydantic.TypeAdapter(Config)
