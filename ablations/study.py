"""What a study declares: the variants to compare, the contrasts between them, and the paper's rows beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cornernet.config import Config

__all__ = ["Contrast", "Study", "Variant"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One arm of a study: edits of the base configuration by path, and the paper's row that it stands for."""

    name: str
    edits: tuple[tuple[str, Any], ...] = ()
    paper_row: str | None = None

    def apply(self, base: Config) -> Config:
        """Return the base configuration with this variant's edits. Raises ``ConfigError`` for an edit that fails."""
        for path, value in self.edits:
            base = base.with_(path, value)
        return base


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired difference: ``variant`` less ``base``, seed by seed."""

    variant: str
    base: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """One table: its variants, contrasts and columns. Everything else follows from the machinery.

    ``table`` is the paper's number of it; ``question`` what it asks, in a sentence that stands above the table.
    """

    name: str
    title: str
    question: str
    table: int | None
    variants: tuple[Variant, ...]
    contrasts: tuple[Contrast, ...]
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"study {self.name}: two variants share a name among {names}")
        for contrast in self.contrasts:
            for side in (contrast.variant, contrast.base):
                if side not in names:
                    raise ValueError(f"study {self.name}: a contrast names {side!r}, which is none of {names}")
