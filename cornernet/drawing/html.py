"""HTML pages from Jinja2 templates: one file each, no network, light and dark, tables that sort, readable on a phone.

``templates/page.html.j2`` is the frame of every page, with its style and script, and ``templates/parts.html.j2`` has
macros for tables, figures and details. A page extends the frame and has its own template beside the code that
prepares its data. All text is made printable (``cornernet.console``) and escaped by the templates; only
:func:`inline_svg` and :func:`lines` return markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup, escape

from cornernet.console import printable

__all__ = ["Cell", "Table", "data_uri", "environment", "inline_svg", "lines"]

_TEMPLATES = Path(__file__).parent / "templates"
_LONG = 32
"""A cell with more characters may wrap."""


@dataclass(frozen=True)
class Cell:
    """A table cell: plain ``text``, bold if ``strong``, with a ``note`` in small letters below it.

    ``sort`` is the number to sort by; None sorts by the text. ``link`` is the target of a link, within the reports.
    """

    text: str
    strong: bool = False
    note: str = ""
    sort: float | None = None
    link: str = ""

    @property
    def long(self) -> bool:
        """Whether the text is long enough to wrap."""
        return len(self.text) > _LONG


@dataclass(frozen=True)
class Table:
    """A sortable table for the macro ``table``. The first cell of each row is the row's heading.

    ``kinds`` are CSS classes, one for each row, or empty. Raises ``ValueError`` if a row and the header differ in
    length.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        columns = len(self.header)
        for index, row in enumerate(self.rows):
            if len(row) != columns:
                raise ValueError(f"table {self.caption!r}: row {index} has {len(row)} cells and the header {columns}")


def environment(templates: Path) -> Environment:
    """Return the Jinja2 environment for the folder ``templates``, in which the shared templates are found too.

    Templates named ``*.html.j2`` are autoescaped, after each text was made printable; all others are plain text. An
    undefined name is an error.
    """
    made = Environment(
        loader=FileSystemLoader([templates, _TEMPLATES]),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    made.filters |= {"data_uri": data_uri, "inline_svg": inline_svg, "lines": lines}
    return made


@pass_eval_context
def _shown(context: EvalContext, value: object) -> object:
    """Return what a template inserts: in a page a text becomes one printable line, and markup stays."""
    return (
        printable(value) if context.autoescape and isinstance(value, str) and not isinstance(value, Markup) else value
    )


def lines(text: str) -> Markup:
    """Return a text of several lines for a ``<pre>``, each line printable and escaped."""
    return Markup("\n").join(map(printable, text.split("\n")))


def inline_svg(svg: bytes, name: str, alternative: str) -> Markup:
    """Return one of our own drawings as markup for a page, with an alternative text.

    Its ids get the prefix ``name``, so that they are unique on the page.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(printable(alternative))}" ', 1))


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes of a media type such as image/png as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
