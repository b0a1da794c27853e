"""Configuration: frozen dataclasses in four parts, ``model``, ``data``, ``training``, ``testing``.

Everything that changes a result is a field here and nowhere else. A recipe (``cornernet.config.recipes``) is a
function that returns a full :class:`Config`; a variant of a study is an edit by path::

    config.with_("model.head.pooling", "none")

Configurations are written to JSON with every run and read back strictly: an unknown key, a wrong type or an
impossible combination is an error that names the field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from cornernet.kernels.registry import ROWS

LARGEST_FILE = 2**20
"""Bytes of a configuration file; ours have five thousand."""

__all__ = [
    "AnchorHeadConfig",
    "AugmentationConfig",
    "BackboneConfig",
    "CocoSource",
    "Config",
    "ConfigError",
    "CornerHeadConfig",
    "DataConfig",
    "HeadConfig",
    "HourglassConfig",
    "ModelConfig",
    "ResNetFPNConfig",
    "ShapesSource",
    "SourceConfig",
    "TestingConfig",
    "TrainingConfig",
]

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the field and the fix."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_known(name: str, names: tuple[str, ...], field: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, n=2) or names
        raise ConfigError(f"{field} is {name!r}; did you mean {' or '.join(near)}?")


def _require_implementation(name: str, field: str) -> None:
    _require_known(name, ("auto", *(row.name for row in ROWS)), field)


def _require_heatmap_loss(name: str, field: str) -> None:
    # here and not above: heads import this module
    from cornernet.model.heads.corner.heatmap_losses import HEATMAP_LOSSES

    _require_known(name, tuple(HEATMAP_LOSSES), field)


# --------------------------------------------------------------------------------------------- model


@dataclass(frozen=True, kw_only=True)
class HourglassConfig:
    """The hourglass backbone (paper section 3.5): a stem at stride 4, then stacks of hourglass modules.

    ``channels[0]`` is the width at stride 4, ``channels[1:]`` the width after each reduction; ``blocks`` counts
    the residual modules at each of these levels, its last entry those at the bottom of the hourglass.
    """

    kind: Literal["hourglass"] = "hourglass"
    stacks: int = 2
    """Hourglass modules one after another: 2 is Hourglass-104, 1 is Hourglass-52."""
    stem_channels: int = 128
    """Width of the 7x7 convolution that opens the network."""
    channels: tuple[int, ...] = (256, 256, 384, 384, 384, 512)
    """Width at stride 4, then after each reduction by 2; as many reductions as entries less one."""
    blocks: tuple[int, ...] = (2, 2, 2, 2, 2, 4)
    """Residual modules in the skip and on either side of the hourglass per level; the last at its bottom."""

    def __post_init__(self) -> None:
        _require(self.stacks >= 1, f"model.backbone.stacks is {self.stacks}; use 1 or more")
        _require(len(self.channels) >= 2, "model.backbone.channels needs 2 entries or more (one reduction)")
        _require(
            len(self.channels) == len(self.blocks),
            f"model.backbone.channels has {len(self.channels)} entries and .blocks has {len(self.blocks)}; "
            "give both one entry per level",
        )
        _require(min(self.channels) >= 1, f"model.backbone.channels must be positive, not {self.channels}")
        _require(min(self.blocks) >= 1, f"model.backbone.blocks must be 1 or more, not {self.blocks}")
        _require(self.stem_channels >= 1, "model.backbone.stem_channels must be 1 or more")

    @property
    def total_stride(self) -> int:
        """Input pixels per cell at the bottom of the hourglass: 128 for five reductions."""
        return 4 << (len(self.channels) - 1)


@dataclass(frozen=True, kw_only=True)
class ResNetFPNConfig:
    """A residual network with a feature pyramid (paper table 4), from scratch: maps at stride 4, 8, 16, 32.

    The defaults are ResNet-50; ResNet-101 has ``blocks`` (3, 4, 23, 3).
    """

    kind: Literal["resnet_fpn"] = "resnet_fpn"
    block: Literal["basic", "bottleneck"] = "bottleneck"
    """Two 3x3 convolutions, or three that narrow to a quarter of the width in between."""
    stem_channels: int = 64
    """Width of the 7x7 convolution that opens the network."""
    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    """Width of each stage, the first at stride 4, each next at twice the stride; two stages or more."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks of each stage."""
    fpn_channels: int = 256
    """Width of the pyramid."""
    outputs: Literal["finest", "all"] = "finest"
    """Maps that leave the pyramid: that at stride 4, which is all that corners are read from (the paper's final
    output); or one a stage."""

    def __post_init__(self) -> None:
        _require(len(self.channels) >= 2, "model.backbone.channels needs 2 entries or more (two stages)")
        _require(
            len(self.channels) == len(self.blocks),
            f"model.backbone.channels has {len(self.channels)} entries and .blocks has {len(self.blocks)}; "
            "give both one entry per stage",
        )
        _require(min(self.channels) >= 1, f"model.backbone.channels must be positive, not {self.channels}")
        _require(min(self.blocks) >= 1, f"model.backbone.blocks must be 1 or more, not {self.blocks}")
        _require(min(self.stem_channels, self.fpn_channels) >= 1, "model.backbone widths must be 1 or more")
        _require(
            self.block == "basic" or not any(width % 4 for width in self.channels),
            f"model.backbone.channels is {self.channels}; bottlenecks need multiples of 4",
        )

    @property
    def total_stride(self) -> int:
        """Input pixels per cell of the coarsest stage: 32 for four stages."""
        return 4 << (len(self.channels) - 1)


@dataclass(frozen=True, kw_only=True)
class CornerHeadConfig:
    """The corner head (paper section 3): pooling modules, heatmaps, embeddings, offsets, targets and losses."""

    kind: Literal["corner"] = "corner"
    pooling: Literal["corner", "none"] = "corner"
    """'none' takes out the pooling operation alone and keeps every parameter (the ablation of table 1)."""
    pooling_impl: str = "auto"
    """Implementation of corner pooling, a name from kernels.implementations(). Changes speed, never meaning."""
    pool_channels: int = 128
    """Width of the two branches inside a pooling module."""
    embedding_dim: int = 1
    """Numbers in the embedding of a corner."""
    penalty_reduction: Literal["none", "fixed", "object"] = "object"
    """Negative locations around a corner: full penalty, a gaussian of fixed radius, or one by object size
    (paper section 3.2, table 2)."""
    fixed_radius: float = 2.5
    """Radius in heatmap cells under penalty_reduction 'fixed'."""
    min_iou: float = 0.3
    """A pair of corners within the radius keeps at least this IoU with the box."""
    radius_formula: Literal["corrected", "original"] = "corrected"
    """Radius of penalty_reduction 'object': the authors' formula since 2018, or the one before their fix, which gives
    larger radii than min_iou allows."""
    heatmap_loss: str = "focal"
    """Loss of the heatmaps, a name from cornernet.model.heads.corner.heatmap_losses; 'focal' is the paper's."""
    focal_alpha: float = 2.0
    """Exponent on the distance of the prediction from its target (paper equation 1)."""
    focal_beta: float = 4.0
    """Exponent of the penalty reduction around a corner (paper equation 1)."""
    pull_weight: float = 0.1
    """Weight of the loss that pulls the two embeddings of an object together (paper equation 4)."""
    push_weight: float = 0.1
    """Weight of the loss that pushes embeddings of different objects apart (paper equation 5)."""
    push_margin: float = 1.0
    """Distance beyond which two objects' embeddings are far enough (paper equation 5)."""
    offset_weight: float = 1.0
    """Weight of the smooth-L1 loss on offsets (paper equation 3). At 0 they learn nothing: set testing.offsets."""
    intermediate_supervision: bool = True
    """Every stack predicts and has its loss, as in the paper; without it the last stack alone."""
    feedback: bool = False
    """Add what a stack predicts to the input of the next, through a 1x1 convolution, as stacked hourglasses for human
    pose do (Newell et al., 2016). The authors do not: for corners it hurt (paper section 3.5)."""

    def __post_init__(self) -> None:
        _require_implementation(self.pooling_impl, "model.head.pooling_impl")
        _require_heatmap_loss(self.heatmap_loss, "model.head.heatmap_loss")
        _require(0.0 < self.min_iou < 1.0, f"model.head.min_iou is {self.min_iou}; use a value between 0 and 1")
        _require(self.fixed_radius >= 0.0, "model.head.fixed_radius must not be negative")
        _require(self.embedding_dim >= 1, "model.head.embedding_dim must be 1 or more")
        _require(self.pool_channels >= 1, "model.head.pool_channels must be 1 or more")
        _require(
            min(self.focal_alpha, self.focal_beta) >= 0,
            "model.head.focal_alpha and .focal_beta must not be negative: the loss of a corner would have no gradient",
        )
        weights = (self.pull_weight, self.push_weight, self.offset_weight)
        _require(min(weights) >= 0, "model.head.pull_weight, .push_weight and .offset_weight must not be negative")


@dataclass(frozen=True, kw_only=True)
class AnchorHeadConfig:
    """The anchor head (paper table 4): RetinaNet's on the maps of each hourglass's way up.

    The paper says of its anchors that they follow RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017)
    and are predicted at several resolutions of each hourglass module, with intermediate supervision; what it leaves
    open is as RetinaNet has it.
    """

    kind: Literal["anchor"] = "anchor"
    finest_stride: int = 4
    """Input pixels per cell of the finest map that is read; all coarser ones are read too. 8 gives RetinaNet's levels
    under Hourglass-104, and leaves the last stack's finest map unused."""
    anchor_size: float = 4.0
    """Side of a level's square anchor of scale 1, in multiples of the level's stride."""
    octave_scales: int = 3
    """Sizes of anchors at a level: 2^(i / octave_scales) times the first, from one level to the next."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors of each size; their area stays."""
    channels: int | None = None
    """Width of the subnets that classify and box; None is the backbone's at stride 4, 256 under Hourglass-104."""
    depth: int = 4
    """3x3 convolutions of each subnet before its last one; the subnets are shared by all levels of a stack."""
    positive_iou: float = 0.5
    """An anchor that overlaps an object by this IoU or more learns it."""
    negative_iou: float = 0.4
    """An anchor that overlaps every object by less learns that there is none; one in between learns nothing."""
    best_anchors: bool = True
    """The anchors that overlap an object most learn it however little that is, as in RetinaNet's released code."""
    prior: float = 0.01
    """Score of every anchor and class before training."""
    focal_alpha: float = 0.25
    """Weight of positives in the focal loss; negatives have 1 less this."""
    focal_gamma: float = 2.0
    """Exponent on the distance of the prediction from its target."""
    box_beta: float = 1 / 9
    """Where the smooth-L1 loss of box codes turns from quadratic to linear, here as in RetinaNet's released code; 0 is
    the L1 loss."""
    box_weight: float = 1.0
    """Weight of the loss of box codes."""

    def __post_init__(self) -> None:
        stride = self.finest_stride
        _require(
            stride >= 4 and stride & (stride - 1) == 0,
            f"model.head.finest_stride is {stride}; use 4, 8, 16 and so on",
        )
        _require(self.anchor_size > 0, "model.head.anchor_size must be positive")
        _require(self.octave_scales >= 1, "model.head.octave_scales must be 1 or more")
        _require(
            len(self.ratios) > 0 and min(self.ratios) > 0, "model.head.ratios must be positive numbers, one or more"
        )
        _require(self.channels is None or self.channels >= 1, "model.head.channels must be 1 or more, or None")
        _require(self.depth >= 0, "model.head.depth must not be negative")
        _require(
            0.0 < self.negative_iou <= self.positive_iou <= 1.0,
            f"model.head.negative_iou is {self.negative_iou} and .positive_iou {self.positive_iou}; "
            "use 0 < negative_iou <= positive_iou <= 1",
        )
        _require(0.0 < self.prior < 1.0, f"model.head.prior is {self.prior}; use a value between 0 and 1")
        _require(0.0 < self.focal_alpha < 1.0, "model.head.focal_alpha must be between 0 and 1")
        _require(
            min(self.focal_gamma, self.box_beta, self.box_weight) >= 0,
            "model.head.focal_gamma, .box_beta and .box_weight must not be negative",
        )


BackboneConfig: TypeAlias = HourglassConfig | ResNetFPNConfig
_Backbone: TypeAlias = Annotated[HourglassConfig | ResNetFPNConfig, pydantic.Field(discriminator="kind")]
HeadConfig: TypeAlias = CornerHeadConfig | AnchorHeadConfig
_Head: TypeAlias = Annotated[CornerHeadConfig | AnchorHeadConfig, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is built: a backbone and a head."""

    backbone: _Backbone = field(default_factory=HourglassConfig)
    head: _Head = field(default_factory=CornerHeadConfig)
    num_classes: int = 80
    """Classes to detect. Training sets it from the data."""

    def __post_init__(self) -> None:
        _require(self.num_classes >= 1, "model.num_classes must be 1 or more")
        if isinstance(self.head, AnchorHeadConfig):
            _require(
                self.head.finest_stride <= self.backbone.total_stride,
                f"model.head.finest_stride is {self.head.finest_stride}, and this backbone's coarsest map has a stride "
                f"of {self.backbone.total_stride}: use that or less",
            )
        if isinstance(self.head, CornerHeadConfig) and getattr(self.backbone, "stacks", 1) == 1:
            # where they do nothing, they would make two names for one training
            _require(not self.head.feedback, "model.head.feedback needs a next stack: raise model.backbone.stacks")
            _require(
                self.head.intermediate_supervision,
                "model.head.intermediate_supervision can be off where there are several stacks: raise "
                "model.backbone.stacks",
            )


# ---------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True)
class ShapesSource:
    """Generated photographs of rotated shapes, the default: nothing to download (cornernet.data.shapes)."""

    kind: Literal["shapes"] = "shapes"
    seed: int = 0
    """Draws the whole data set; train and val come from separate streams of it."""
    image_size: Size = (95, 95)
    """Height and width of the pictures."""
    classes: tuple[str, ...] = ("ellipse", "triangle", "cross")
    """Of ellipse, triangle, rhombus, cross, star, ring."""
    object_size: tuple[float, float] = (0.25, 0.70)
    """Smallest and largest side of an object's box as a fraction of the shorter side of the picture."""
    max_objects: int = 3
    """Objects in a picture: 1 to this many."""
    train_images: int = 400
    """Pictures in the train split."""
    val_images: int = 200
    """Pictures in the val split."""

    def __post_init__(self) -> None:
        low, high = self.object_size
        _require(
            0.0 < low <= high <= 1.0,
            f"data.source.object_size is {self.object_size}; use 0 < low <= high <= 1",
        )
        _require(self.max_objects >= 0, "data.source.max_objects must not be negative")
        _require(len(set(self.classes)) == len(self.classes) > 0, "data.source.classes needs distinct names")
        _require(min(self.image_size) >= 16, f"data.source.image_size is {self.image_size}; use 16 or more")
        _require(min(self.train_images, self.val_images) >= 1, "data.source needs 1 image or more in each split")


@dataclass(frozen=True, kw_only=True)
class CocoSource:
    """A folder in COCO format: annotations/*.json and the images (cornernet.data.formats.coco)."""

    kind: Literal["coco"] = "coco"
    root: str = ""
    """The folder."""
    train_split: str = "train"
    """Part of the annotation file's name, or a path to the file below the folder."""
    val_split: str = "val"
    """Likewise for evaluation."""

    def __post_init__(self) -> None:
        _require(bool(self.root), "data.source.root is empty; give the folder of the data set")


SourceConfig: TypeAlias = ShapesSource | CocoSource
_Source: TypeAlias = Annotated[ShapesSource | CocoSource, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Training augmentation as the authors': random crop and scale, flip, colour jitter, PCA lighting."""

    random_crop: bool = True
    """Crop a random window; without it the picture is centred in a square and resized."""
    crop_scales: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
    """Sides of the window, as multiples of data.input_size in pixels of the picture."""
    crop_border: int = 128
    """The centre of the window keeps this distance from the picture's edge, less in small pictures."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    colour_jitter: float = 0.4
    """Strength of brightness, contrast and saturation changes; 0 turns them off."""
    lighting: float = 0.1
    """Standard deviation of the PCA lighting noise; 0 turns it off."""

    def __post_init__(self) -> None:
        _require(0.0 <= self.flip <= 1.0, f"data.augmentation.flip is {self.flip}; use a probability")
        _require(len(self.crop_scales) > 0, "data.augmentation.crop_scales is empty")
        _require(min(self.crop_scales) > 0, "data.augmentation.crop_scales must be positive")
        _require(self.crop_border >= 0, "data.augmentation.crop_border must not be negative")
        _require(self.colour_jitter >= 0 and self.lighting >= 0, "data.augmentation strengths must not be negative")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where photographs come from and how they become tensors."""

    source: _Source = field(default_factory=ShapesSource)
    input_size: Size = (511, 511)
    """Height and width of a training input: a multiple of the backbone's total stride, less one."""
    fit: Size | None = None
    """Shrink every photograph to fit this height and width when it is read, in training and testing alike;
    None keeps its size, as the authors do. Boxes are reported in pixels of the original photograph."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    mean: tuple[float, float, float] = (0.40789654, 0.44719302, 0.47026115)
    """Mean of the channels in the order of channel_order, of pixels in 0..1."""
    std: tuple[float, float, float] = (0.28863828, 0.27408164, 0.27809835)
    """Standard deviation of the channels, likewise."""
    channel_order: Literal["bgr", "rgb"] = "bgr"
    """Order of the channels that the network sees."""
    padding: Literal["black", "mean"] = "black"
    """What lies around a photograph on its canvas: black, as the authors have it, or the colour of `mean`."""

    def __post_init__(self) -> None:
        _require(min(self.input_size) >= 1, "data.input_size must be positive")
        _require(self.fit is None or min(self.fit) >= 1, "data.fit must be positive")
        _require(min(self.std) > 0, "data.std must be positive")


# ------------------------------------------------------------------------------------------ training


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimisation: budget in iterations, never in seconds."""

    seed: int = 0
    """Draws initial weights, the order of images and every augmentation."""
    iterations: int = 500_000
    """Optimiser steps."""
    batch_size: int = 49
    """Images in a step, over all devices and accumulation steps together."""
    accumulation: int = 1
    """Parts that a step's batch is computed in, to save memory; losses are normalised over the whole batch."""
    learning_rate: float = 2.5e-4
    """Peak learning rate of Adam."""
    schedule: Literal["step", "cosine"] = "step"
    """'step' multiplies by decay_factor at decay_at; 'cosine' falls to zero at the end."""
    decay_at: tuple[int, ...] = (450_000,)
    """Iterations at which the step schedule decays."""
    decay_factor: float = 0.1
    """What the step schedule multiplies by."""
    warmup: int = 0
    """Iterations over which the learning rate rises linearly to its peak."""
    clip_norm: float | None = None
    """Largest norm of the gradient; None does not clip."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """bfloat16 runs the network under autocast; losses stay in float32. float16, for GPUs without bfloat16, does so
    too and scales the loss, so that small gradients do not vanish."""
    channels_last: bool = True
    """Memory format of the network: faster convolutions on CPU and on tensor cores."""
    compile: bool = False
    """Compile the network with torch.compile: faster on a GPU after minutes of compiling."""
    checkpoint_activations: bool = False
    """Compute the maps of each stack twice, to keep less of them in memory: larger batches, a third more time."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto takes cuda where there is one."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's default. Results are bit-exact for one count only."""
    workers: int = 0
    """Loader processes. Any number draws the same batches."""
    log_every: int = 20
    """Iterations between lines of metrics."""
    evaluate_every: int = 0
    """Iterations between evaluations on val; 0 evaluates at the end alone."""
    checkpoint_every: int = 1000
    """Iterations between checkpoints; the last iteration always writes one."""

    def __post_init__(self) -> None:
        _require(self.iterations >= 1, "training.iterations must be 1 or more")
        _require(self.accumulation >= 1, "training.accumulation must be 1 or more")
        _require(self.batch_size >= 1, "training.batch_size must be 1 or more")
        _require(
            self.batch_size % self.accumulation == 0,
            f"training.batch_size {self.batch_size} is not a multiple of training.accumulation {self.accumulation}",
        )
        _require(self.learning_rate > 0, "training.learning_rate must be positive")
        _require(self.warmup >= 0, "training.warmup must not be negative")
        _require(self.clip_norm is None or self.clip_norm > 0, "training.clip_norm must be positive or None")
        _require(min(self.threads, self.workers, self.evaluate_every) >= 0, "training counts must not be negative")
        _require(
            min(self.log_every, self.checkpoint_every) >= 1,
            "training.log_every and .checkpoint_every: 1 or more",
        )


# ------------------------------------------------------------------------------------------- testing


@dataclass(frozen=True, kw_only=True)
class TestingConfig:
    """From the network's outputs to reported boxes (paper section 4.2)."""

    scales: tuple[float, ...] = (1.0,)
    """Sizes at which a photograph is tested; the paper's multi-scale is 0.5 0.75 1 1.25 1.5."""
    flip: bool = True
    """Also test the mirrored photograph and merge the boxes."""
    top_k: int = 100
    """Corners of each kind kept from the heatmaps of an input."""
    peak_kernel: int = 3
    """Side of the window in which a corner must be the maximum of its heatmap."""
    embedding_threshold: float = 0.5
    """Largest distance between the embeddings of two corners that form a box."""
    offsets: Literal["predicted", "none", "centre"] = "predicted"
    """Where in its cell a corner lies: as predicted; at the cell's own corner, as the authors' code has it without
    offsets; or at its centre, where the truth lies on average."""
    reject_empty: bool = False
    """Also reject a pair whose corners share a row or a column, a box without an inside, as mmdetection does."""
    num_candidates: int = 1000
    """Boxes kept from the pairs of an input, before suppression."""
    nms: Literal["hard", "linear", "gaussian"] = "gaussian"
    """Kind of (soft) non-maximum suppression, per class."""
    nms_iou: float = 0.5
    """IoU above which 'hard' discards and 'linear' lowers a score, and above which merging averages."""
    nms_sigma: float = 0.5
    """Width of the gaussian by which 'gaussian' lowers a score."""
    nms_extent: Literal["pixels", "points"] = "pixels"
    """What the IoU of suppression measures a box by: 'pixels' counts them, x2 - x1 + 1, as the authors do; 'points'
    is x2 - x1."""
    min_score: float = 0.001
    """A box whose score falls below this under suppression is discarded."""
    merge: bool = False
    """Average the corners of overlapping boxes, weighted by score, as the authors do over several scales."""
    merge_exponent: float = 10.0
    """Exponent of the weight of an overlapping box under merging."""
    max_detections: int = 100
    """Boxes reported for a photograph, over all classes."""
    authors_compatible: bool = False
    """Reproduce the two defects of the authors' test path (see cornernet.inference.detect)."""
    substitute: tuple[Literal["heatmaps", "offsets", "embeddings"], ...] = ()
    """Outputs replaced by the ground truth (paper section 4.5.4, table 6). Needs the truth: evaluation alone has it."""
    corner_metrics: bool = False
    """Evaluate corners by themselves too, by quadrant of the photograph (paper table 3)."""
    corner_radius: float = 1.5
    """Distance in heatmap cells within which a predicted corner counts as the true one under corner_metrics."""
    error_types: bool = False
    """Also report how much AP each type of error costs (TIDE), at an IoU of 0.5."""
    pooling_impl: str | None = None
    """Implementation of corner pooling when testing, a name from kernels.implementations(); None is the model's own.
    Changes speed, never meaning."""
    measure_step: bool = False
    """Also measure the time and memory of a training step under pooling_impl, on a copy: the detector stays."""

    def __post_init__(self) -> None:
        _require(len(self.scales) > 0 and min(self.scales) > 0, "testing.scales must be positive, one or more")
        _require(self.peak_kernel % 2 == 1 and self.peak_kernel > 0, "testing.peak_kernel must be odd")
        _require(
            min(self.top_k, self.num_candidates, self.max_detections) >= 1,
            "testing.top_k, .num_candidates and .max_detections must be 1 or more",
        )
        _require(self.nms_sigma > 0, "testing.nms_sigma must be positive")
        _require(
            len(set(self.substitute)) == len(self.substitute),
            f"testing.substitute names an output twice: {' '.join(self.substitute)}",
        )
        _require(
            self.offsets == "predicted" or "offsets" not in self.substitute,
            f"testing.offsets is {self.offsets!r}, so true offsets in testing.substitute would not be read; use "
            "'predicted'",
        )
        _require(self.corner_radius >= 0, "testing.corner_radius must not be negative")
        if self.pooling_impl is not None:
            _require_implementation(self.pooling_impl, "testing.pooling_impl")


# --------------------------------------------------------------------------------------------- whole


# Fields that say where and how often, and change no result.
WITHOUT_EFFECT = (
    ("training", "workers"),
    ("training", "log_every"),
    ("training", "evaluate_every"),
    ("training", "checkpoint_every"),
)

# Fields that came after records were first published, by path, each with the value that leaves results as they were
# before it: at that value a field is left out of what keys are made of, so that runs from before it are still found.
LATER_FIELDS: dict[str, Any] = {
    "model.head.heatmap_loss": "focal",
    "model.head.intermediate_supervision": True,
    "model.head.feedback": False,
    "testing.offsets": "predicted",
    "training.compile": False,
    "training.checkpoint_activations": False,
    "data.padding": "black",
    "testing.reject_empty": False,
    "testing.nms_extent": "pixels",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run, whole: the model, its data, its training and its testing."""

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
                    f"data.input_size has {name} {side}; this backbone needs a multiple of {stride} less one: "
                    f"use {near}"
                )
        images = self.training.batch_size // self.training.accumulation
        if images == 1 and all(side + 1 == stride for side in self.data.input_size):
            raise ConfigError(
                f"batch norm cannot learn from one image whose coarsest map is one cell: raise training.batch_size, or "
                f"data.input_size above {stride - 1}"
            )

    def results_dict(self) -> dict[str, Any]:
        """Return :meth:`to_dict` without what changes no result: how often to log, where the data lies, and fields of
        :data:`LATER_FIELDS` at the value that does nothing."""
        tree = self.to_dict()
        for part, name in WITHOUT_EFFECT:
            del tree[part][name]
        tree["data"]["source"].pop("root", None)
        for path, neutral in LATER_FIELDS.items():
            *parents, leaf = path.split(".")
            node: Any = tree
            for name in parents:
                node = node.get(name, {})
            if leaf in node and node[leaf] == neutral:
                del node[leaf]
        return tree

    def with_(self, path: str, value: Any) -> Config:
        """Return a copy with the field at ``path`` replaced, checked as if read from a file.

        ``path`` is dotted, ``model.head.pooling``; ``value`` a plain value or one of this module's dataclasses.
        Raises :class:`ConfigError` for an unknown field, naming the nearest ones, and for a value that does not fit.
        """
        tree = self.to_dict()
        node: Any = tree
        *parents, leaf = path.split(".")
        for depth, name in enumerate([*parents, leaf]):
            if not isinstance(node, dict) or name not in node:
                where = ".".join(path.split(".")[:depth]) or "the configuration"
                known = sorted(node) if isinstance(node, dict) else []
                near = difflib.get_close_matches(name, known, n=3) or known
                raise ConfigError(
                    f"{where} has no field {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
                )
            if depth < len(parents):
                node = node[name]
        node[leaf] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
        return Config.from_dict(tree)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, tuples and scalars."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(tree: Any, origin: str = "configuration") -> Config:
        """Build a configuration from :meth:`to_dict`'s form or parsed JSON.

        Raises :class:`ConfigError` naming ``origin``, each field that is unknown or does not fit, and why.
        """
        try:
            # through JSON, where a list is a tuple; strictly, where "12" is no number and "yes" no truth
            text = json.dumps(tree)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{origin} holds something that JSON cannot: {error}") from error
        try:
            return _ADAPTER.validate_json(text, strict=True)
        except pydantic.ValidationError as error:
            lines = []
            for item in error.errors():
                path = _path(item["loc"], tree)
                what = item["msg"].removeprefix("Value error, ")
                if item["type"] == "unexpected_keyword_argument":
                    what = "unknown field"
                lines.append(f"  {path + ': ' if path else ''}{what}")
            raise ConfigError(f"{origin} does not fit:\n" + "\n".join(lines)) from error

    def to_json(self) -> str:
        """Return indented JSON that :meth:`from_json` reads back to an equal configuration."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @staticmethod
    def from_json(text: str, origin: str = "configuration") -> Config:
        """Read :meth:`to_json`'s form. Raises :class:`ConfigError` naming ``origin`` and the field."""
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{origin} is not JSON: {error}") from error
        return Config.from_dict(tree, origin)

    @staticmethod
    def load(path: str | Path) -> Config:
        """Read a configuration file. Raises :class:`ConfigError` naming the file and the field."""
        path = Path(path)
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ConfigError(
                    f"the configuration {path} has more than {LARGEST_FILE >> 10} KiB; is it another file?"
                )
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the configuration {path} is not text in UTF-8: {error.reason}") from error
        return Config.from_json(text, str(path))


def _path(location: tuple[int | str, ...], tree: Any) -> str:
    """Return where pydantic found an error, without the kinds that it names beside the parts that have one."""
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

_ADAPTER = pydantic.TypeAdapter(Config)
