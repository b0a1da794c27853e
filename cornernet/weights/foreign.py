"""Other projects' names for the weights of a CornerNet, and the conventions that their weights were trained with.

One row of :data:`FORMATS` a project. A row's rules pair the beginning of a name of theirs with the beginning of ours;
``#`` stands for a number that both share, and the rest of a name is the same but for single parts such as ``low1``. So
every row reads in both directions.

Names alone do not make a model: normalisation, the order of channels, padding and decoding differ too. A row's
``conventions`` are the fields of the configuration that go with its weights.
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
from cornernet.config.recipes import hourglass_104
from cornernet.model.detector import build_detector

__all__ = ["FORMATS", "Format", "inferred_config", "recognised"]


@dataclass(frozen=True)
class Rule:
    """Names that begin with ``theirs`` begin with ``ours`` in this project, and what follows differs by ``parts``."""

    theirs: str
    ours: str
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Format:
    """How one project names the entries of a state dict."""

    name: str
    title: str
    mark: str
    """The beginning of names that no other format has."""
    rules: tuple[Rule, ...]
    conventions: tuple[tuple[str, Any], ...] = ()
    """Fields of the configuration, by path, that the project's weights need; all others are the authors'."""
    prefix: str = ""
    """What the project's released files put before every name; reading takes it away where it is there."""

    @cached_property
    def _readers(self) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
        return [_translation(rule.theirs, rule.ours, dict(rule.parts)) for rule in self.rules]

    @cached_property
    def _writers(self) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
        return [_translation(rule.ours, rule.theirs, {b: a for a, b in rule.parts}) for rule in self.rules]

    def to_ours(self, name: str) -> str | None:
        """Return our name of an entry of theirs, with or without the prefix; None where it is none of theirs."""
        return _translated(name.removeprefix("module."), self._readers)

    def from_ours(self, name: str) -> str | None:
        """Return their name, without the prefix, of an entry of ours; None where they have no such entry."""
        return _translated(name, self._writers)

    def with_conventions(self, config: Config) -> Config:
        """Return ``config`` with the normalisation, padding and decoding that these weights need."""
        for path, value in self.conventions:
            config = config.with_(path, value)
        return config


def _translation(source: str, target: str, parts: dict[str, str]) -> tuple[re.Pattern[str], str, dict[str, str]]:
    pattern = re.escape(source).replace(r"\#", r"(\d+)") + r"\.(.+)"
    return re.compile(pattern), target, parts


def _translated(name: str, translations: list[tuple[re.Pattern[str], str, dict[str, str]]]) -> str | None:
    for pattern, target, parts in translations:
        match = pattern.fullmatch(name)
        if match:
            rest = [parts.get(part, part) for part in match[match.lastindex or 1].split(".")]
            place = target.replace("#", match[1]) if "#" in target else target
            return ".".join([place, *rest])
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


def _authors_rules(places: Mapping[str, str], pools: str, branches: Mapping[str, str]) -> tuple[Rule, ...]:
    """Rules of the authors' two projects, which differ in the names of places alone."""
    rules = [
        Rule(f"{places['pre']}.#", "backbone.stem.#", _SHORTCUT),
        Rule(f"{places['kps']}.#", "backbone.hourglasses.#", (*_LEVELS, *_SHORTCUT)),
        Rule(f"{places['cnvs']}.#", "backbone.outputs.#"),
        Rule(f"{places['inters_']}.#", "backbone.merge_inputs.#"),
        Rule(f"{places['cnvs_']}.#", "backbone.merge_outputs.#"),
        Rule(f"{places['inters']}.#", "backbone.merge_residuals.#", _SHORTCUT),
    ]
    for corner, our_corner in _CORNERS:
        ours = f"head.stacks.#.{our_corner}"
        rules += [Rule(f"{corner}_{pools}.#.{a}", f"{ours}.pooling.{b}") for a, b in _AUTHORS_POOLING]
        for branch, our_branch in branches.items():
            theirs = f"{corner}_{branch}.#"
            rules += [Rule(f"{theirs}.0.conv", f"{ours}.{our_branch}.0"), Rule(f"{theirs}.1", f"{ours}.{our_branch}.2")]
    return tuple(rules)


_PLACES = {name: name for name in ("pre", "kps", "cnvs", "inters_", "cnvs_", "inters")}
_LITE_PLACES = {name: f"hg.{name}" for name in _PLACES} | {"kps": "hg.hgs"}


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
        rules=_authors_rules(_PLACES, "cnvs", {"heats": "heatmap", "tags": "embedding", "regrs": "offset"}),
    ),
    "lite": Format(
        name="lite",
        title="CornerNet-Lite's CornerNet",
        mark="hg.hgs.",
        prefix="module.",
        rules=_authors_rules(_LITE_PLACES, "modules", {"heats": "heatmap", "tags": "embedding", "offs": "offset"}),
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
    """Return the format that a state dict's names are in, None where it is none of :data:`FORMATS`."""
    plain = [name.removeprefix("module.") for name in names]
    for each in FORMATS.values():
        if any(name.startswith(each.mark) for name in plain):
            return each
    # too little is left of it to see its mark: the error that lists what is missing is in the names it has most of
    counts = Counter({each.name: sum(each.to_ours(name) is not None for name in plain) for each in FORMATS.values()})
    best, most = counts.most_common(1)[0]
    ours = sum(name.startswith(("head.stacks.", "backbone.hourglasses.")) for name in plain)
    return FORMATS[best] if most > ours and most > len(plain) // 2 else None


# ------------------------------------------------------------------------------------------------- sizes of the network


def inferred_config(state: Mapping[str, Tensor], start: Config | None = None) -> Config:
    """Return ``start`` (the paper's by default) with the classes, embedding and hourglass found in ``state``.

    ``state`` has our names. Widths and numbers of blocks are those of ``start`` where as much of ``state`` fits them
    as fits what is read from ``state`` itself, so that one damaged entry does not pass for another network.
    """
    config = hourglass_104() if start is None else start
    stacks = _count(state, r"backbone\.hourglasses\.(\d+)\.")
    for path, branch in (("model.num_classes", "heatmap"), ("model.head.embedding_dim", "embedding")):
        pattern = re.compile(rf"head\.stacks\.\d+\.\w+\.{branch}\.2\.weight")
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
    """Return the largest multiple of ``stride`` less one that is not over ``side``, two of them at the least."""
    return max(2, (side + 1) // stride) * stride - 1


def _count(state: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number that ``pattern`` finds at the beginning of a name, 0 where none."""
    found = (re.match(pattern, name) for name in state)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _width(state: Mapping[str, Tensor], pattern: str) -> int | None:
    """Return the first size that most entries have whose names begin as ``pattern``, None where there are none."""
    sizes = (value.shape[0] for name, value in state.items() if value.dim() and re.match(pattern, name))
    widths = Counter(size for size in sizes if size)
    return widths.most_common(1)[0][0] if widths else None


def _inferred_hourglass(state: Mapping[str, Tensor], stacks: int) -> tuple[HourglassConfig, int] | None:
    """Return the backbone and the width of pooling that the shapes in ``state`` tell, None where they tell none."""
    stem = _width(state, r"backbone\.stem\.0\.")
    pool = _width(state, r"head\.stacks\.\d+\.\w+\.pooling\.(vertical|horizontal)\.")
    channels, blocks, place = [], [], r"backbone\.hourglasses\.\d+\."
    while _count(state, place + r"skip\.(\d+)\."):
        channels.append(_width(state, place + r"skip\."))
        blocks.append(_count(state, place + r"skip\.(\d+)\."))
        place += r"inner\."
    channels.append(_width(state, place + r"\d+\."))
    blocks.append(_count(state, place + r"(\d+)\."))
    widths = tuple(width for width in channels if width is not None)
    if stem is None or pool is None or len(channels) < 2 or len(widths) < len(channels) or 0 in blocks:
        return None
    return HourglassConfig(stacks=stacks, stem_channels=stem, channels=widths, blocks=tuple(blocks)), pool


def _misfits(state: Mapping[str, Tensor], backbone: HourglassConfig, pool_channels: int) -> int:
    """Return how many entries of the backbone and the pooling modules are missing, extra or of another shape."""
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
