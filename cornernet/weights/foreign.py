"""Other projects' names for the weights of a CornerNet, and the conventions that these weights were trained with.

:data:`FORMATS` has one row per project. The rules of a row pair the start of a name of theirs with the start of ours.
``#`` stands for a number that both share, and the rest of a name is the same except for single parts such as ``low1``.
Every row can therefore be read in both directions.

Names are not enough to use the weights: normalisation, the order of channels, padding and decoding differ too. The
``conventions`` of a row are the fields of the configuration that belong to its weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cornernet.config import Config, CornerHeadConfig, DataConfig, HourglassConfig, ModelConfig
from cornernet.config.limits import MOST_ENTRIES
from cornernet.config.recipes import hourglass_104
from cornernet.model.detector import build_detector

__all__ = ["FORMATS", "Format", "inferred_config", "recognised"]


@dataclass(frozen=True)
class Rule:
    """A name that starts with ``theirs`` starts with ``ours`` in this project; ``parts`` translates the rest."""

    theirs: str
    ours: str
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Format:
    """The names that one project gives to the entries of a state dict."""

    name: str
    title: str
    mark: str
    """The start of names that only this format has."""
    rules: tuple[Rule, ...]
    conventions: tuple[tuple[str, Any], ...] = ()
    """Fields of the configuration, by path, that the project's weights need. All other fields are the authors'."""
    prefix: str = ""
    """Prefix of every name in the project's released files. Reading removes it if it is present."""

    @cached_property
    def _readers(self) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
        return [_translation(rule.theirs, rule.ours, dict(rule.parts)) for rule in self.rules]

    @cached_property
    def _writers(self) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
        return [_translation(rule.ours, rule.theirs, {b: a for a, b in rule.parts}) for rule in self.rules]

    def to_ours(self, name: str) -> str | None:
        """Return our name for an entry of theirs, given with or without the prefix; None for an unknown name."""
        return _translated(name.removeprefix("module."), self._readers)

    def from_ours(self, name: str) -> str | None:
        """Return their name, without the prefix, for an entry of ours; None if they have no such entry."""
        return _translated(name, self._writers)

    def with_conventions(self, config: Config) -> Config:
        """Return ``config`` with the normalisation, padding and decoding that these weights need."""
        for path, value in self.conventions:
            config = config.with_(path, value)
        return config


def _translation(source: str, target: str, parts: dict[str, str]) -> tuple[re.Pattern[str], str, dict[str, str]]:
    pattern = re.escape(source).replace(r"\#", r"([0-9]+)") + r"\.(.+)"
    return re.compile(pattern), target, parts


def _translated(name: str, translations: list[tuple[re.Pattern[str], str, dict[str, str]]]) -> str | None:
    for pattern, target, parts in translations:
        match = pattern.fullmatch(name)
        if match:
            rest = [parts.get(part, part) for part in match[match.lastindex or 1].split(".")]
            start = target.replace("#", match[1]) if "#" in target else target
            return ".".join([start, *rest])
    return None


# --------------------------------------------------------------------------------------- the authors and CornerNet-Lite

_SHORTCUT = (("skip", "shortcut"),)
_LEVELS = (("up1", "skip"), ("low1", "down"), ("low2", "inner"), ("low3", "up"))
_CORNERS = (("tl", "top_left"), ("br", "bottom_right"))
_AUTHORS_POOLING = (
    ("p1_conv1", "vertical"),
    ("p2_conv1", "horizontal"),
    ("p_conv1", "pooled.0"),
    ("p_bn1", "pooled.1"),
    ("conv1", "shortcut.0"),
    ("bn1", "shortcut.1"),
    ("conv2", "output"),
)


def _authors_rules(modules: Mapping[str, str], pools: str, branches: Mapping[str, str]) -> tuple[Rule, ...]:
    """Return the rules of the authors' two projects, which differ only in the names of the modules."""
    rules = [
        Rule(f"{modules['pre']}.#", "backbone.stem.#", _SHORTCUT),
        Rule(f"{modules['kps']}.#", "backbone.hourglasses.#", (*_LEVELS, *_SHORTCUT)),
        Rule(f"{modules['cnvs']}.#", "backbone.outputs.#"),
        Rule(f"{modules['inters_']}.#", "backbone.merge_inputs.#"),
        Rule(f"{modules['cnvs_']}.#", "backbone.merge_outputs.#"),
        Rule(f"{modules['inters']}.#", "backbone.merge_residuals.#", _SHORTCUT),
    ]
    for corner, our_corner in _CORNERS:
        ours = f"head.stacks.#.{our_corner}"
        rules += [Rule(f"{corner}_{pools}.#.{a}", f"{ours}.pooling.{b}") for a, b in _AUTHORS_POOLING]
        for branch, our_branch in branches.items():
            theirs = f"{corner}_{branch}.#"
            rules += [Rule(f"{theirs}.0.conv", f"{ours}.{our_branch}.0"), Rule(f"{theirs}.1", f"{ours}.{our_branch}.2")]
    return tuple(rules)


_MODULES = {name: name for name in ("pre", "kps", "cnvs", "inters_", "cnvs_", "inters")}
_LITE_MODULES = {name: f"hg.{name}" for name in _MODULES} | {"kps": "hg.hgs"}


# ---------------------------------------------------------------------------------------------------------- mmdetection

_DOWNSAMPLE = (("downsample", "shortcut"),)
_MMDETECTION_POOLING = (
    ("direction1_conv", "vertical"),
    ("direction2_conv", "horizontal"),
    ("aftpool_conv.conv", "pooled.0"),
    ("aftpool_conv.bn", "pooled.1"),
    ("conv1.conv", "shortcut.0"),
    ("conv1.bn", "shortcut.1"),
    ("conv2", "output"),
)


def _mmdetection_rules() -> tuple[Rule, ...]:
    rules = [
        Rule("backbone.stem.0", "backbone.stem.0"),
        Rule("backbone.stem.1.0", "backbone.stem.1", _DOWNSAMPLE),
        Rule("backbone.hourglass_modules.#", "backbone.hourglasses.#", (*_LEVELS, *_DOWNSAMPLE)),
        Rule("backbone.out_convs.#", "backbone.outputs.#"),
        Rule("backbone.conv1x1s.#.conv", "backbone.merge_inputs.#.0"),
        Rule("backbone.conv1x1s.#.bn", "backbone.merge_inputs.#.1"),
        Rule("backbone.remap_convs.#.conv", "backbone.merge_outputs.#.0"),
        Rule("backbone.remap_convs.#.bn", "backbone.merge_outputs.#.1"),
        Rule("backbone.inters.#", "backbone.merge_residuals.#", _DOWNSAMPLE),
    ]
    for corner, our_corner in _CORNERS:
        ours = f"head.stacks.#.{our_corner}"
        rules += [Rule(f"bbox_head.{corner}_pool.#.{a}", f"{ours}.pooling.{b}") for a, b in _MMDETECTION_POOLING]
        for branch, our_branch in (("heat", "heatmap"), ("emb", "embedding"), ("off", "offset")):
            theirs = f"bbox_head.{corner}_{branch}.#"
            rules += [
                Rule(f"{theirs}.0.conv", f"{ours}.{our_branch}.0"),
                Rule(f"{theirs}.1.conv", f"{ours}.{our_branch}.2"),
            ]
    return tuple(rules)


FORMATS: dict[str, Format] = {
    "authors": Format(
        name="authors",
        title="the authors' CornerNet",
        mark="kps.",
        prefix="module.",
        rules=_authors_rules(_MODULES, "cnvs", {"heats": "heatmap", "tags": "embedding", "regrs": "offset"}),
    ),
    "lite": Format(
        name="lite",
        title="CornerNet-Lite's CornerNet",
        mark="hg.hgs.",
        prefix="module.",
        rules=_authors_rules(_LITE_MODULES, "modules", {"heats": "heatmap", "tags": "embedding", "offs": "offset"}),
    ),
    "mmdetection": Format(
        name="mmdetection",
        title="mmdetection's CornerNet",
        mark="backbone.hourglass_modules.",
        rules=_mmdetection_rules(),
        conventions=(
            ("data.channel_order", "rgb"),
            ("data.mean", (0.485, 0.456, 0.406)),
            ("data.std", (0.229, 0.224, 0.225)),
            ("data.padding", "mean"),
            ("testing.reject_empty", True),
            ("testing.nms_extent", "points"),
            # their embedding losses have no factor of a half
            ("model.head.pull_weight", 0.2),
            ("model.head.push_weight", 0.2),
        ),
    ),
}


def recognised(names: Iterable[str]) -> Format | None:
    """Return the format of a state dict by its names, or None if it is not in :data:`FORMATS`."""
    plain = [name.removeprefix("module.") for name in names]
    for each in FORMATS.values():
        if any(name.startswith(each.mark) for name in plain):
            return each
    # the entries with the mark may be missing: choose the format of most names, so that the error that lists the
    # missing entries uses its names
    counts = Counter({each.name: sum(each.to_ours(name) is not None for name in plain) for each in FORMATS.values()})
    best, most = counts.most_common(1)[0]
    ours = sum(name.startswith(("head.stacks.", "backbone.hourglasses.")) for name in plain)
    return FORMATS[best] if most > ours and most > len(plain) // 2 else None


# ------------------------------------------------------------------------------------------------- sizes of the network


def inferred_config(state: Mapping[str, Tensor], start: Config | None = None) -> Config:
    """Return ``start`` with the number of classes, the embedding and the hourglass that ``state`` implies.

    ``state`` has our names. ``start`` defaults to the paper's configuration. The hourglass is the paper's if it fits
    ``state`` as well as the one inferred from shapes does, so that one damaged entry does not pass for another network.
    """
    config = hourglass_104() if start is None else start
    stacks = _count(state, r"backbone\.hourglasses\.([0-9]+)\.")
    for path, branch in (("model.num_classes", "heatmap"), ("model.head.embedding_dim", "embedding")):
        pattern = re.compile(rf"head\.stacks\.[0-9]+\.\w+\.{branch}\.2\.weight")
        widths = Counter(
            value.shape[0] for name, value in state.items() if pattern.fullmatch(name) and value.dim() == 4
        )
        if widths:
            config = config.with_(path, max(widths.most_common(1)[0][0], 1))
    if not stacks:
        return config
    read = _inferred_hourglass(state, stacks)
    usual = hourglass_104().with_("model.backbone.stacks", stacks).model
    assert isinstance(usual.backbone, HourglassConfig)
    assert isinstance(usual.head, CornerHeadConfig)
    if read is None or _misfits(state, usual.backbone, usual.head.pool_channels) <= _misfits(state, *read):
        backbone, pool_channels = usual.backbone, usual.head.pool_channels
    else:
        backbone, pool_channels = read
    head = config.model.head if isinstance(config.model.head, CornerHeadConfig) else CornerHeadConfig()
    model = replace(config.model, backbone=backbone, head=replace(head, pool_channels=pool_channels))
    height, width = (_nearest_input(side, backbone.total_stride) for side in config.data.input_size)
    return replace(config, model=model, data=replace(config.data, input_size=(height, width)))


def _nearest_input(side: int, stride: int) -> int:
    """Return the largest ``k * stride - 1`` that does not exceed ``side``, with k of at least 2."""
    return max(2, (side + 1) // stride) * stride - 1


def _count(state: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number that ``pattern`` matches at the start of a name; 0 without a match."""
    found = (re.match(pattern, name) for name in state)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _width(state: Mapping[str, Tensor], pattern: str) -> int | None:
    """Return the most common first dimension of the entries whose names match ``pattern``; None without a match."""
    sizes = (value.shape[0] for name, value in state.items() if value.dim() and re.match(pattern, name))
    widths = Counter(size for size in sizes if size)
    return widths.most_common(1)[0][0] if widths else None


def _inferred_hourglass(state: Mapping[str, Tensor], stacks: int) -> tuple[HourglassConfig, int] | None:
    """Return the backbone and the pooling width that the shapes in ``state`` imply; None if they are incomplete."""
    stem = _width(state, r"backbone\.stem\.0\.")
    pool = _width(state, r"head\.stacks\.[0-9]+\.\w+\.pooling\.(vertical|horizontal)\.")
    channels: list[int | None] = []
    blocks, level = [], r"backbone\.hourglasses\.[0-9]+\."
    # one level above the limit is enough for its error
    while len(channels) <= MOST_ENTRIES["model.backbone.channels"] and _count(state, level + r"skip\.([0-9]+)\."):
        channels.append(_width(state, level + r"skip\."))
        blocks.append(_count(state, level + r"skip\.([0-9]+)\."))
        level += r"inner\."
    channels.append(_width(state, level + r"[0-9]+\."))
    blocks.append(_count(state, level + r"([0-9]+)\."))
    widths = tuple(width for width in channels if width is not None)
    if stem is None or pool is None or len(channels) < 2 or len(widths) < len(channels) or 0 in blocks:
        return None
    return HourglassConfig(stacks=stacks, stem_channels=stem, channels=widths, blocks=tuple(blocks)), pool


def _misfits(state: Mapping[str, Tensor], backbone: HourglassConfig, pool_channels: int) -> int:
    """Return the number of entries that are missing, extra or of another shape with this backbone and pooling."""
    model = ModelConfig(backbone=backbone, head=CornerHeadConfig(pool_channels=pool_channels))
    side = _nearest_input(511, backbone.total_stride)
    with torch.device("meta"):
        detector = build_detector(Config(model=model, data=DataConfig(input_size=(side, side))))
    expected = {name: value.shape for name, value in detector.state_dict().items() if not name.endswith("tracked")}
    counted = {name for name in {*expected, *state} if not name.endswith("tracked")}
    branch = re.compile(r"\.(heatmap|embedding)\.2\.")
    return sum(
        name not in state or name not in expected or state[name].shape != expected[name]
        for name in counted
        if not branch.search(name)
    )
