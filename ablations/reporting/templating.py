"""The templates of the reports: ``templates/*.html.j2`` are pages, ``templates/*.md.j2`` are Markdown.

Pages are autoescaped. Markdown templates escape with filters: ``md`` for text, ``alt`` for the alternative text of an
image, ``code`` for a code span, and ``url`` for a path in a link.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from cornernet.console import count
from cornernet.drawing.escapes import markdown_code, markdown_escape
from cornernet.drawing.html import environment

__all__ = ["render_template"]


def render_template(name: str, **values: Any) -> str:
    """Return the text of a template. Raises ``jinja2.UndefinedError`` if it uses a value that is not given."""
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> Environment:
    made = environment(Path(__file__).parent / "templates")
    made.filters |= {
        "alt": _alternative,
        "code": markdown_code,
        "count": count,
        "md": markdown_escape,
        "unmarked": _unmarked,
        "url": quote,
    }
    return made


def _alternative(text: str) -> str:
    return markdown_escape(text).replace("]", "&#93;").replace("[", "&#91;")


def _unmarked(line: str) -> str:
    """Return a sentence of this project without its Markdown emphasis and code spans."""
    return line.replace("*", "").replace("`", "")
