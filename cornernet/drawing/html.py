"""Pages of one file: no network, readable on a phone, light and dark, with tables that sort.

Whatever comes from data goes through :func:`escape`; only what this module and :func:`inline_svg` made is put into a
page as it is.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cell", "data_uri", "details", "escape", "figure", "inline_svg", "page", "picture", "table"]


def escape(text: object) -> str:
    """Return text for the body of a page or for a quoted attribute: no character of it can begin markup."""
    return html.escape(str(text), quote=True)


@dataclass(frozen=True)
class Cell:
    """What stands in a table: plain ``text``, bold with ``strong``, a ``note`` in small letters below it.

    ``sort`` is the number to sort by; None sorts the text. ``link`` is where the text leads, within the reports.
    """

    text: str
    strong: bool = False
    note: str = ""
    sort: float | None = None
    link: str = ""


def table(
    header: Sequence[str], rows: Sequence[Sequence[Cell | str]], *, caption: str, kinds: Sequence[str] = ()
) -> str:
    """Return a sortable table in a box that scrolls sideways where it is wider than the page.

    ``kinds`` are names for the style of each row, letters only. The first cell of a row is its heading. Raises
    ``ValueError`` for a row of another length than the header.
    """
    lines = [f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="sortable">']
    lines.append(f"<caption>{escape(caption)}</caption>")
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(name) or "&nbsp;"}</button></th>' for name in header
    )
    lines.append(f"<thead><tr>{heads}</tr></thead><tbody>")
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"table {caption!r}: row {index} has {len(row)} cells and the header {len(header)}")
        kind = f' class="{escape(kinds[index])}"' if kinds else ""
        cells = "".join(_cell(cell, first=at == 0) for at, cell in enumerate(row))
        lines.append(f"<tr{kind}>{cells}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


_LONG = 32
"""Characters from which on a cell may break into lines."""


def _cell(cell: Cell | str, first: bool) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    text = escape(cell.text)
    if cell.link:
        text = f'<a href="{escape(cell.link)}">{text}</a>'
    if cell.strong:
        text = f"<strong>{text}</strong>"
    if cell.note:
        text += f"<small>{escape(cell.note)}</small>"
    sort = "" if cell.sort is None else f' data-sort="{cell.sort:.6g}"'
    long = ' class="long"' if len(cell.text) > _LONG else ""
    return f'<th scope="row"{sort}>{text}</th>' if first else f"<td{long}{sort}>{text}</td>"


def details(summary: str, body: str) -> str:
    """Return what a reader opens by a click; ``body`` is markup, ``summary`` is text."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>"


def inline_svg(svg: str, name: str, alternative: str) -> str:
    """Return a drawing of our own to stand within a page: its ids made unique by ``name``, with an alternative text."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = svg.replace("url(#", f"url(#{prefix}-")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)


def figure(drawing: str, caption: str, data: str = "") -> str:
    """Return a figure from the markup of :func:`inline_svg` or :func:`picture`, with the ``data`` behind it."""
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="Figure">{drawing}</div>'
    return f"<figure>{box}<figcaption>{escape(caption)}</figcaption>{data}</figure>"


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes of a kind such as image/png as an address that needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(content: bytes, kind: str, alternative: str) -> str:
    """Return a picture whose bytes stand within the page."""
    return f'<img src="{data_uri(content, kind)}" alt="{escape(alternative)}">'


def page(title: str, body: str) -> str:
    """Return a whole page. ``title`` is text, ``body`` markup made by this module's functions."""
    return _PAGE.format(title=escape(title), style=_STYLE, script=_SCRIPT, body=body)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{script}</script>
</body>
</html>
"""

_STYLE = """:root {
  --ground: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --band: #f3f5f7; --link: #0550ae;
}
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181d; --ink: #e6e9ec; --soft: #9da7b1; --line: #363d45; --band: #1f252c; --link: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
code { font-size: .9em; background: var(--band); padding: .1em .3em; border-radius: 3px; }
.note, figcaption, caption { color: var(--soft); font-size: .875rem; }
.badge { border: 1px solid var(--line); border-radius: 1em; padding: 0 .6em; white-space: nowrap; }
.controls { position: sticky; top: 0; z-index: 2; background: var(--ground); padding: .5rem 0;
  border-bottom: 1px solid var(--line); }
select { font: inherit; max-width: 100%; color: inherit; background: var(--band); border: 1px solid var(--line);
  border-radius: 4px; padding: .3rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: 1rem 0; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: min(14rem, 34vw); }
th[scope=row] { font-weight: 500; min-width: min(9rem, 24vw); }
thead th { background: var(--band); white-space: nowrap; }
thead button { all: unset; cursor: pointer; font-weight: 600; }
thead button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tr.difference th, tr.difference td { background: var(--band); }
td small, th small { display: block; color: var(--soft); }
figure { margin: 1.5rem 0; }
figure svg, figure img {
  display: block; width: 100%; max-width: 50rem; min-width: 32rem; height: auto; background: #fff; border-radius: 4px;
}
@media (max-width: 34rem) { figcaption::before { content: "Swipe the figure sideways to see all of it. "; } }
summary { cursor: pointer; color: var(--link); }
pre { overflow-x: auto; background: var(--band); padding: .75rem; }
[hidden] { display: none; }
"""

_SCRIPT = """'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], first = [...body.rows];
  const value = (row, at) => {
    const cell = row.cells[at];
    return 'sort' in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  heads.forEach((head, at) => head.firstElementChild.addEventListener('click', () => {
    const now = head.getAttribute('aria-sort');
    const next = now === null ? 'descending' : now === 'descending' ? 'ascending' : null;
    heads.forEach(each => each.removeAttribute('aria-sort'));
    if (next === null) { body.append(...first); return; }
    head.setAttribute('aria-sort', next);
    const sign = next === 'ascending' ? 1 : -1;
    const empty = x => x === '' || (typeof x === 'string' && /^not /.test(x));
    body.append(...[...first].sort((a, b) => {
      const x = value(a, at), y = value(b, at);
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      if (typeof x === 'number' && typeof y === 'number') return sign * (x - y);
      return sign * String(x).localeCompare(String(y), 'en', {numeric: true});
    }));
  }));
}
const filter = document.getElementById('filter');
if (filter) {
  filter.addEventListener('change', () => {
    for (const part of document.querySelectorAll('[data-study]'))
      part.hidden = filter.value !== '' && part.dataset.study !== filter.value;
  });
}
"""
