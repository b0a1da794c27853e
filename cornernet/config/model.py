"""Configuration of the network: backbones, heads, and :class:`ModelConfig`, which holds one of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, get_args

import pydantic

from cornernet.config.checks import require, require_implementation, require_known
from cornernet.config.limits import require_numbers, require_size

__all__ = [
    "AnchorHeadConfig",
    "BackboneConfig",
    "CornerHeadConfig",
    "HeadConfig",
    "HeatmapLossName",
    "HourglassConfig",
    "ModelConfig",
    "ResNetFPNConfig",
]

HeatmapLossName: TypeAlias = Literal["focal", "bce", "mse", "quality_focal", "adaptive_wing"]
"""The values of ``model.head.heatmap_loss``: the keys of ``HEATMAP_LOSSES``, which is above the configuration."""


# ------------------------------------------------------------------------------------------ backbones


@dataclass(frozen=True, kw_only=True)
class HourglassConfig:
    """The hourglass backbone (paper section 3.5): a stem at stride 4, then stacked hourglass modules.

    ``channels[0]`` is the width at stride 4 and ``channels[1:]`` the width after each reduction. ``blocks`` is the
    number of residual modules at each of these levels; its last entry is for the bottom of the hourglass.
    """

    kind: Literal["hourglass"] = "hourglass"
    stacks: int = 2
    """Number of stacked hourglass modules: 2 is Hourglass-104, 1 is Hourglass-52."""
    stem_channels: int = 128
    """Width of the 7x7 convolution at the input."""
    channels: tuple[int, ...] = (256, 256, 384, 384, 384, 512)
    """Width at stride 4, then the width after each reduction by 2. N entries give N - 1 reductions."""
    blocks: tuple[int, ...] = (2, 2, 2, 2, 2, 4)
    """Residual modules per level, in the skip and on each side of the hourglass; the last entry is its bottom."""

    def __post_init__(self) -> None:
        require_numbers(self, "model.backbone")
        require(self.stacks >= 1, f"model.backbone.stacks is {self.stacks}; use 1 or more")
        require(len(self.channels) >= 2, "model.backbone.channels needs 2 entries or more (one reduction)")
        require(
            len(self.channels) == len(self.blocks),
            f"model.backbone.channels has {len(self.channels)} entries and .blocks has {len(self.blocks)}; "
            "give both one entry per level",
        )
        require(min(self.channels) >= 1, f"model.backbone.channels must be positive, not {self.channels}")
        require(min(self.blocks) >= 1, f"model.backbone.blocks must be 1 or more, not {self.blocks}")
        require(self.stem_channels >= 1, "model.backbone.stem_channels must be 1 or more")

    @property
    def num_stacks(self) -> int:
        """Number of stacks, as every backbone has one or more."""
        return self.stacks

    @property
    def finest_channels(self) -> int:
        """Width of the map at stride 4, which heads read."""
        return self.channels[0]

    @property
    def total_stride(self) -> int:
        """Input pixels per cell at the bottom of the hourglass: 128 for five reductions."""
        return 4 << (len(self.channels) - 1)

    def size(self) -> tuple[int, int]:
        """Return the number of residual blocks, and about the number of parameters, which batch norm adds little to."""
        width, bottom = self.channels[0], self.channels[-1]
        blocks, parameters = self.blocks[-1], self.blocks[-1] * _basic(bottom, bottom)
        for here, below, number in zip(self.channels, self.channels[1:], self.blocks, strict=False):
            blocks += 3 * number
            parameters += number * _basic(here, here) + (2 * number - 2) * _basic(below, below)
            parameters += _basic(here, below) + _basic(below, here)
        between = 2 * width**2 + _basic(width, width)
        parameters = self.stacks * (parameters + 9 * width**2) + (self.stacks - 1) * between
        parameters += 147 * self.stem_channels + _basic(self.stem_channels, width)
        return self.stacks * (blocks + 1), parameters


@dataclass(frozen=True, kw_only=True)
class ResNetFPNConfig:
    """A residual network with a feature pyramid (paper table 4), trained from scratch: maps at strides 4, 8, 16, 32.

    The defaults are ResNet-50. ResNet-101 has ``blocks`` (3, 4, 23, 3).
    """

    kind: Literal["resnet_fpn"] = "resnet_fpn"
    block: Literal["basic", "bottleneck"] = "bottleneck"
    """Residual block: two 3x3 convolutions, or a bottleneck of three with a quarter of the width inside."""
    stem_channels: int = 64
    """Width of the 7x7 convolution at the input."""
    channels: tuple[int, ...] = (256, 512, 1024, 2048)
    """Width of each stage. The first is at stride 4 and each next one at twice the stride. Two stages or more."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Residual blocks per stage."""
    fpn_channels: int = 256
    """Width of the feature pyramid."""
    outputs: Literal["finest", "all"] = "finest"
    """Maps that the pyramid returns: only the one at stride 4, which is all that the corner head reads (the paper's
    final output), or one per stage."""

    def __post_init__(self) -> None:
        require_numbers(self, "model.backbone")
        require(len(self.channels) >= 2, "model.backbone.channels needs 2 entries or more (two stages)")
        require(
            len(self.channels) == len(self.blocks),
            f"model.backbone.channels has {len(self.channels)} entries and .blocks has {len(self.blocks)}; "
            "give both one entry per stage",
        )
        require(min(self.channels) >= 1, f"model.backbone.channels must be positive, not {self.channels}")
        require(min(self.blocks) >= 1, f"model.backbone.blocks must be 1 or more, not {self.blocks}")
        require(
            min(self.stem_channels, self.fpn_channels) >= 1,
            "model.backbone.stem_channels and .fpn_channels must be 1 or more",
        )
        require(
            self.block == "basic" or not any(width % 4 for width in self.channels),
            f"model.backbone.channels is {self.channels}; bottlenecks need multiples of 4",
        )

    @property
    def num_stacks(self) -> int:
        """Number of stacks: a residual network has one."""
        return 1

    @property
    def finest_channels(self) -> int:
        """Width of the map at stride 4, which heads read."""
        return self.fpn_channels

    @property
    def total_stride(self) -> int:
        """Input pixels per cell of the coarsest stage: 32 for four stages."""
        return 4 << (len(self.channels) - 1)

    def size(self) -> tuple[int, int]:
        """Return the number of residual blocks, and about the number of parameters, which batch norm adds little to."""
        block = _bottleneck if self.block == "bottleneck" else _basic
        parameters, before = 147 * self.stem_channels, self.stem_channels
        for width, number in zip(self.channels, self.blocks, strict=True):
            parameters += block(before, width) + (number - 1) * block(width, width) + width * self.fpn_channels
            before = width
        maps = 1 if self.outputs == "finest" else len(self.channels)
        return sum(self.blocks), parameters + maps * 9 * self.fpn_channels**2


def _basic(inside: int, out: int) -> int:
    """Return the weights of a residual block of two 3x3 convolutions, with a shortcut where the width changes."""
    return 9 * out * (inside + out) + (inside * out if inside != out else 0)


def _bottleneck(inside: int, out: int) -> int:
    """Return the weights of a bottleneck, with a shortcut where the width changes."""
    inner = out // 4
    return inner * (inside + 9 * inner + out) + (inside * out if inside != out else 0)


# ---------------------------------------------------------------------------------------------- heads


@dataclass(frozen=True, kw_only=True)
class CornerHeadConfig:
    """The corner head (paper section 3): pooling modules, heatmaps, embeddings, offsets, targets and losses."""

    kind: Literal["corner"] = "corner"
    pooling: Literal["corner", "none"] = "corner"
    """'none' removes only the pooling operation and keeps every parameter (the ablation of table 1)."""
    pooling_impl: str = "auto"
    """Implementation of corner pooling, a name from kernels.implementations(). Changes speed, not results."""
    pool_channels: int = 128
    """Width of the two branches inside a pooling module."""
    embedding_dim: int = 1
    """Length of a corner's embedding vector."""
    penalty_reduction: Literal["none", "fixed", "object"] = "object"
    """Penalty of negative locations around a corner: full, reduced by a gaussian of fixed radius, or reduced by a
    gaussian whose radius depends on the object's size (paper section 3.2, table 2)."""
    fixed_radius: float = 2.5
    """Radius in heatmap cells under penalty_reduction 'fixed'."""
    min_iou: float = 0.3
    """Lowest IoU with the true box of a box whose corners lie within the radius."""
    radius_formula: Literal["corrected", "original"] = "corrected"
    """Radius under penalty_reduction 'object': the authors' formula since 2018, or the one before their fix, whose
    radii are larger than min_iou allows."""
    heatmap_loss: str = "focal"
    """Loss of the heatmaps: focal (the paper's), bce, mse, quality_focal or adaptive_wing."""
    heatmap_bias: float = -2.19
    """Initial bias of the heatmaps, before the sigmoid: the authors' gives every cell a score of 0.1, so that the many
    negatives do not dominate the first steps."""
    focal_alpha: float = 2.0
    """Exponent of the distance between prediction and target (paper equation 1)."""
    focal_beta: float = 4.0
    """Exponent of the penalty reduction around a corner (paper equation 1)."""
    pull_weight: float = 0.1
    """Weight of the loss that pulls the two embeddings of an object together (paper equation 4)."""
    push_weight: float = 0.1
    """Weight of the loss that pushes the embeddings of different objects apart (paper equation 5)."""
    push_margin: float = 1.0
    """Distance from which two objects' embeddings are not pushed further apart (paper equation 5)."""
    offset_weight: float = 1.0
    """Weight of the smooth-L1 loss of the offsets (paper equation 3). At 0 offsets learn nothing: set
    testing.offsets too."""
    intermediate_supervision: bool = True
    """Predict from every stack and train every prediction, as in the paper. Off: only the last stack."""
    feedback: bool = False
    """Add the predictions of a stack to the input of the next, through a 1x1 convolution, as stacked hourglasses for
    human pose do (Newell et al., 2016). The authors do not: for corners it hurt (paper section 3.5)."""

    def __post_init__(self) -> None:
        require_numbers(self, "model.head")
        require_implementation(self.pooling_impl, "model.head.pooling_impl")
        require_known(self.heatmap_loss, get_args(HeatmapLossName), "model.head.heatmap_loss")
        require(0.0 < self.min_iou < 1.0, f"model.head.min_iou is {self.min_iou}; use a value between 0 and 1")
        require(self.fixed_radius >= 0.0, "model.head.fixed_radius must not be negative")
        require(self.embedding_dim >= 1, "model.head.embedding_dim must be 1 or more")
        require(self.pool_channels >= 1, "model.head.pool_channels must be 1 or more")
        require(
            min(self.focal_alpha, self.focal_beta) >= 0,
            "model.head.focal_alpha and .focal_beta must not be negative: the loss at a corner would have no gradient",
        )
        weights = (self.pull_weight, self.push_weight, self.offset_weight)
        require(min(weights) >= 0, "model.head.pull_weight, .push_weight and .offset_weight must not be negative")

    def parameters(self, width: int, stacks: int, num_classes: int) -> int:
        """Return about the number of parameters on a backbone whose finest map has ``width`` channels."""
        branch = 27 * width * self.pool_channels + 10 * width**2
        branch += 27 * width**2 + width * (num_classes + self.embedding_dim + 2)
        if self.feedback or self.intermediate_supervision:
            branch *= stacks
        fed = 2 * (num_classes + self.embedding_dim + 2) * width * (stacks - 1) if self.feedback else 0
        return 2 * branch + fed


@dataclass(frozen=True, kw_only=True)
class AnchorHeadConfig:
    """The anchor head (paper table 4): RetinaNet's, on the maps of each hourglass's way up.

    The paper says that its anchors follow RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017) and
    are predicted at several resolutions of each hourglass module, with intermediate supervision. What the paper leaves
    open is done as in RetinaNet.
    """

    kind: Literal["anchor"] = "anchor"
    finest_stride: int = 4
    """Input pixels per cell of the finest map that is read; all coarser maps are read too. 8 gives RetinaNet's levels
    on Hourglass-104 and leaves the last stack's finest map unused."""
    anchor_size: float = 4.0
    """Side of a level's square anchor of scale 1, in multiples of the level's stride."""
    octave_scales: int = 3
    """Anchor sizes per level: size i is 2^(i / octave_scales) times the first."""
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors of each size; all have the same area."""
    channels: int | None = None
    """Width of the class and box subnets. None takes the backbone's width at stride 4, 256 for Hourglass-104."""
    depth: int = 4
    """3x3 convolutions in each subnet before its last one. All levels of a stack share the subnets."""
    positive_iou: float = 0.5
    """An anchor whose IoU with an object is this or more learns the object."""
    negative_iou: float = 0.4
    """An anchor whose IoU with every object is below this learns background. An anchor in between learns nothing."""
    best_anchors: bool = True
    """Each object is also learned by the anchors that overlap it most, however small the overlap, as in RetinaNet's
    released code."""
    prior: float = 0.01
    """Score of every anchor and class before training."""
    focal_alpha: float = 0.25
    """Weight of positives in the focal loss; negatives have the weight 1 - focal_alpha."""
    focal_gamma: float = 2.0
    """Exponent of the distance between prediction and target."""
    box_beta: float = 1 / 9
    """Error at which the smooth-L1 loss of box codes turns from quadratic to linear, by default as in RetinaNet's
    released code; 0 is the L1 loss."""
    box_weight: float = 1.0
    """Weight of the loss of box codes."""

    def __post_init__(self) -> None:
        require_numbers(self, "model.head")
        stride = self.finest_stride
        require(
            stride >= 4 and stride & (stride - 1) == 0,
            f"model.head.finest_stride is {stride}; use 4, 8, 16 and so on",
        )
        require(self.anchor_size > 0, "model.head.anchor_size must be positive")
        require(self.octave_scales >= 1, "model.head.octave_scales must be 1 or more")
        require(
            len(self.ratios) > 0 and min(self.ratios) > 0, "model.head.ratios must be positive numbers, one or more"
        )
        require(self.channels is None or self.channels >= 1, "model.head.channels must be 1 or more, or None")
        require(self.depth >= 0, "model.head.depth must not be negative")
        require(
            0.0 < self.negative_iou <= self.positive_iou <= 1.0,
            f"model.head.negative_iou is {self.negative_iou} and .positive_iou {self.positive_iou}; "
            "use 0 < negative_iou <= positive_iou <= 1",
        )
        require(0.0 < self.prior < 1.0, f"model.head.prior is {self.prior}; use a value between 0 and 1")
        require(0.0 < self.focal_alpha < 1.0, "model.head.focal_alpha must be between 0 and 1")
        require(
            min(self.focal_gamma, self.box_beta, self.box_weight) >= 0,
            "model.head.focal_gamma, .box_beta and .box_weight must not be negative",
        )

    def parameters(self, width: int, stacks: int, num_classes: int) -> int:
        """Return about the number of parameters on a backbone whose finest map has ``width`` channels.

        The 1x1 convolutions at the inputs are left out; they are less than a level of the backbone.
        """
        width = self.channels or width
        outputs = self.octave_scales * len(self.ratios) * (num_classes + 4)
        return stacks * 9 * width * (2 * self.depth * width + outputs)


# ---------------------------------------------------------------------------------------------- model

BackboneConfig: TypeAlias = HourglassConfig | ResNetFPNConfig
_Backbone: TypeAlias = Annotated[HourglassConfig | ResNetFPNConfig, pydantic.Field(discriminator="kind")]
HeadConfig: TypeAlias = CornerHeadConfig | AnchorHeadConfig
_Head: TypeAlias = Annotated[CornerHeadConfig | AnchorHeadConfig, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: a backbone and a head."""

    backbone: _Backbone = field(default_factory=HourglassConfig)
    head: _Head = field(default_factory=CornerHeadConfig)
    num_classes: int = 80
    """Number of classes. Training sets it from the data."""

    def __post_init__(self) -> None:
        require_numbers(self, "model")
        require(self.num_classes >= 1, "model.num_classes must be 1 or more")
        blocks, parameters = self.backbone.size()
        stacks, width = self.backbone.num_stacks, self.backbone.finest_channels
        require_size(blocks, parameters + self.head.parameters(width, stacks, self.num_classes))
        if isinstance(self.head, AnchorHeadConfig):
            require(
                self.head.finest_stride <= self.backbone.total_stride,
                f"model.head.finest_stride is {self.head.finest_stride}, but this backbone's coarsest map has a stride "
                f"of {self.backbone.total_stride}: use that or less",
            )
        if isinstance(self.head, CornerHeadConfig) and self.backbone.num_stacks == 1:
            # here the two fields do nothing, and would give one training two names
            require(not self.head.feedback, "model.head.feedback needs a next stack: raise model.backbone.stacks")
            require(
                self.head.intermediate_supervision,
                "model.head.intermediate_supervision can only be off with several stacks: raise model.backbone.stacks",
            )
