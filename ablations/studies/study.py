"""What a study declares: variants to compare, contrasts between them, and the corresponding rows of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cornernet.config import Config, ShapesSource
from cornernet.kernels import registry

from ..statistics.claims import Claim
from .paper import paper_table

__all__ = ["Contrast", "Edit", "OnData", "Study", "Variant", "edited"]


Edit: TypeAlias = tuple[str, Any]
"""A path and its value, or a function from the configuration so far to the value, for example half of a width."""


def edited(config: Config, edits: Iterable[Edit]) -> Config:
    """Return a configuration with edits applied in order. Raises ``ConfigError`` for an edit that fails."""
    for path, value in edits:
        config = config.with_(path, value(config) if callable(value) else value)
    return config


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One arm of a study: edits of the base configuration by path, and the corresponding row of the paper."""

    name: str
    edits: tuple[Edit, ...] = ()
    paper_row: str | None = None

    def apply(self, base: Config) -> Config:
        """Return the base configuration with this variant's edits. Raises ``ConfigError`` for an edit that fails."""
        return edited(base, self.edits)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired difference: ``variant`` minus ``base``, seed by seed."""

    variant: str
    base: str

    @property
    def label(self) -> str:
        """What the difference is called."""
        return f"{self.variant} minus {self.base}"

    @property
    def sides(self) -> tuple[str, str]:
        """The names of both variants."""
        return self.variant, self.base


@dataclass(frozen=True, kw_only=True)
class OnData:
    """The claims that a study declares on one data set in place of its own, and why; both are set beforehand."""

    data: str
    """The name of the data set: its folder's, or ``shapes``."""
    claims: tuple[Claim, ...]
    why: str
    """A sentence that stands below the table."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table: its variants, contrasts and columns. Everything else is derived from them.

    ``table`` is its number in the paper; ``question`` is the sentence that stands above the table.

    A study that the profile's data cannot answer edits the base configuration for all its variants: ``base_edits``
    (path, value) on any data, and then ``shapes_edits`` only on the generated data. Only ``shapes_edits`` may touch
    ``data.source``, because photographs are what they are. Such a study shares no training with others. With
    ``shapes_edits_below``, ``shapes_edits`` apply to profiles whose heatmaps have fewer cells on the shorter side.

    ``paper_names`` are pairs of a metric and its name in the paper's table, where that differs; ``paper_transposed``
    means that the paper prints our metrics as rows and our variants as columns. ``latency`` shows the time of an image
    beside the metrics, and ``step_latency`` that of a training step, each measured for all variants in turn
    (:mod:`ablations.running.timings`) and as a multiple of that of ``time_base``, by default the first variant;
    ``costs`` shows multiply-adds, parameters, and the
    memory of a training step where ``testing.measure_step`` measured it. ``identical`` means that all variants must
    measure the same to the last digit, seed by seed; :meth:`disagreements` finds where they do not.
    ``lower_is_better`` applies to all its metrics. ``published`` are rows of the paper's table without a variant of
    ours: other detectors, shown in a separate block below.

    An ``exploratory`` study is not pre-registered: it declares no claims, and its table says so. Claims that one data
    set cannot test are replaced there by those of ``on_data``: see :meth:`on`. ``remark`` stands below the table.
    """

    name: str
    title: str
    question: str
    table: int | None
    variants: tuple[Variant, ...]
    contrasts: tuple[Contrast, ...]
    metrics: tuple[str, ...]
    base_edits: tuple[Edit, ...] = ()
    shapes_edits: tuple[Edit, ...] = ()
    shapes_edits_below: int | None = None
    paper_names: tuple[tuple[str, str], ...] = ()
    paper_transposed: bool = False
    latency: bool = False
    step_latency: bool = False
    time_base: str | None = None
    costs: bool = False
    identical: bool = False
    lower_is_better: bool = False
    exploratory: bool = False
    published: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    on_data: tuple[OnData, ...] = ()
    remark: str = ""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        for path, _ in self.base_edits:
            if path == "data" or path.startswith("data.source"):
                raise ValueError(f"study {self.name}: {path} is for shapes_edits; base_edits apply to photographs too")
        if self.exploratory and (self.claims or self.on_data):
            raise ValueError(f"study {self.name}: an exploratory study declares no claims")
        if len(set(names)) != len(names):
            raise ValueError(f"study {self.name}: two variants share a name among {names}")
        if self.published and self.table is None:
            raise ValueError(
                f"study {self.name}: published rows are those of a table of the paper, and this study has none"
            )
        if self.time_base is not None and self.time_base not in names:
            raise ValueError(f"study {self.name}: time_base is {self.time_base!r}; the variants are {names}")
        for contrast in self.contrasts:
            for side in (contrast.variant, contrast.base):
                if side not in names:
                    raise ValueError(f"study {self.name}: a contrast names {side!r}; the variants are {names}")

    @property
    def timed(self) -> bool:
        """Whether the study shows times."""
        return self.latency or self.step_latency

    @property
    def time_base_name(self) -> str:
        """The variant whose times the others are multiples of."""
        return self.variants[0].name if self.time_base is None else self.time_base

    def on(self, data: str) -> Study:
        """Return the study as it is declared on a data set, which is named by its folder, or ``shapes``."""
        for other in self.on_data:
            if other.data == data:
                remark = f"{self.remark} {other.why}".strip()
                return dataclasses.replace(self, claims=other.claims, on_data=(), remark=remark)
        return self

    def configure(self, base: Config, variant: Variant) -> Config:
        """Return the configuration of a variant: the profile's base, edited for the study and then for the variant.

        Raises ``ConfigError`` for an edit that does not fit.
        """
        edits = self.base_edits
        # heatmaps have stride 4 (paper section 4.1)
        cells = (min(base.data.input_size) + 1) // 4
        small = self.shapes_edits_below is None or cells < self.shapes_edits_below
        if isinstance(base.data.source, ShapesSource) and small:
            edits += self.shapes_edits
        return variant.apply(edited(base, edits))

    def why_not(self, base: Config, variant: Variant) -> str | None:
        """Return why this machine cannot run a variant, or None where it can.

        It cannot where the variant's ``testing.pooling_impl`` does not run here, or runs only in an interpreter for
        tests.
        """
        config = self.configure(base, variant)
        if config.testing.pooling_impl in (None, "auto"):
            return None
        # a plan can be made on a machine without the GPU: only the kind of device matters
        wanted = config.training.device
        if wanted == "auto":
            from cornernet.training.devices import resolve_device

            wanted = resolve_device(wanted).type
        return registry.row(config.testing.pooling_impl).why_not(wanted.partition(":")[0], "float32", auto=True)

    def disagreements(self, measured: Mapping[tuple[str, int], Mapping[str, float | None]]) -> list[str]:
        """Return a sentence for each variant and seed whose metrics differ from those of the first variant measured.

        ``measured`` holds metrics by (variant, seed), None where the data cannot measure one. The :attr:`metrics` must
        be equal to the last digit, without tolerance. A seed under which only one variant was measured gives no
        sentence.
        """
        found = []
        for seed in sorted({seed for _, seed in measured}):
            names = [variant.name for variant in self.variants if (variant.name, seed) in measured]
            for name in names[1:]:
                base, other = measured[names[0], seed], measured[name, seed]
                unequal = [metric for metric in self.metrics if base[metric] != other[metric]]
                if unequal:
                    found.append(f"{name} differs from {names[0]} in {', '.join(unequal)} under seed {seed}")
        return found

    def paper_values(self, variant: Variant) -> dict[str, float] | None:
        """Return the paper's values of the variant's row in percent, by our metrics; None where it has no such row.

        Metrics that the paper does not print are left out.
        """
        return None if variant.paper_row is None else self._printed(variant.paper_row)

    def published_values(self) -> dict[str, dict[str, float]]:
        """Return the paper's values of :attr:`published` in percent, by row and by our metrics."""
        return {name: self._printed(name) or {} for name in self.published}

    def published_group(self, name: str) -> str:
        """Return the group under which the paper prints a row of :attr:`published`; empty where it has no groups."""
        return "" if self.table is None else paper_table(self.table).group(name)

    def _printed(self, name: str) -> dict[str, float] | None:
        if self.table is None:
            return None
        table = paper_table(self.table)
        row = (table.transposed() if self.paper_transposed else table).row(name)
        names = {metric: metric for metric in self.metrics} | dict(self.paper_names)
        return {metric: row[names[metric]] for metric in self.metrics if names[metric] in row}
