"""Writes docs/configuration.md, every field, from the dataclasses: ``python -m cornernet.config.reference``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cornernet.config import Config
from cornernet.config import whole as module
from cornernet.config.recipes import RECIPES, recipe
from cornernet.files import atomic_write

__all__ = ["reference"]

HEAD = """# Configuration reference

Written by `python -m cornernet.config.reference` from `cornernet/config/whole.py`; a test holds that it is current.
Every field is a flag of `cornernet train`, `evaluate` and `detect`, `--training.iterations 900`, and an edit in Python,
`config.with_("training.iterations", 900)`. Defaults are those of the paper; recipes change them, as the last section
lists.
"""


def reference() -> str:
    """Return the page: a section a dataclass, a row a field, then what each recipe changes."""
    texts = _field_texts()
    parts = [HEAD, *_sections(Config, "", texts), "## Recipes\n"]
    for name, function in RECIPES.items():
        summary = (inspect.getdoc(function) or "").splitlines()[0].replace("``", "`")
        parts.append(f"### {name}\n\n{summary}\n")
        changes = [f"- `{path}` {_code(value)}" for path, value in _changes(recipe(name))]
        parts.append("\n".join(changes or ["The defaults above."]) + "\n")
    return "\n".join(parts)


def _sections(kind: type, path: str, texts: dict[tuple[str, str], str]) -> list[str]:
    """The section of a dataclass, then those of the dataclasses in its fields."""
    hints = typing.get_type_hints(kind, include_extras=False)
    rows, below = [], []
    for item in dataclasses.fields(kind):
        members = [part for part in _members(hints[item.name]) if isinstance(part, type)]
        parts = [part for part in members if dataclasses.is_dataclass(part)]
        if parts:
            for part in parts:
                below += _sections(part, f"{path}{item.name}.", texts)
            continue
        text = " ".join(texts.get((kind.__name__, item.name), "Says which part this is.").split())
        text = text.replace("|", "\\|")
        rows.append(f"| `{item.name}` | {_type(hints[item.name])} | {_code(item.default)} | {text} |")
    title = f"## {path.rstrip('.')}: {kind.__name__}\n" if path else ""
    if not title:
        return below
    about = inspect.getdoc(kind) or ""
    table = ["| field | values | default | |", "|---|---|---|---|", *rows]
    return [title, about.replace("``", "`") + "\n", *(["\n".join(table) + "\n"] if rows else []), *below]


def _members(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows."""
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in _members(part))
    return (hint,)


def _type(hint: Any) -> str:
    if len(members := _members(hint)) > 1:
        return " or ".join(_type(member) for member in members)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return f"any number of {_type(inner[0])}"
        return " ".join(_type(part) for part in inner)
    return "None" if hint is type(None) else str(getattr(hint, "__name__", hint))


def _code(value: Any) -> str:
    if isinstance(value, tuple | list):
        value = " ".join(str(part) for part in value) or "none"
    return f"`{value}`" if value != "" else "empty"


def _changes(config: Config) -> list[tuple[str, Any]]:
    """The fields in which a configuration differs from the defaults, by path."""

    def walk(ours: Any, default: Any, path: str) -> typing.Iterator[tuple[str, Any]]:
        if isinstance(ours, dict):
            for key, value in ours.items():
                other = default.get(key) if isinstance(default, dict) else None
                yield from walk(value, other, f"{path}.{key}" if path else key)
        elif ours != default:
            yield path, ours

    return list(walk(config.to_dict(), Config().to_dict(), ""))


def _field_texts() -> dict[tuple[str, str], str]:
    """The text under each field of the module's dataclasses, by class and field."""
    texts = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for first, second in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(first, ast.AnnAssign)
                and isinstance(first.target, ast.Name)
                and isinstance(second, ast.Expr)
                and isinstance(second.value, ast.Constant)
            ):
                texts[node.name, first.target.id] = str(second.value.value)
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    parser = argparse.ArgumentParser(prog="python -m cornernet.config.reference", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/configuration.md"))
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the page is stale")
    arguments = parser.parse_args(argv)
    page = reference()
    if not arguments.check:
        atomic_write(arguments.out, page)
        return 0
    if arguments.out.is_file() and arguments.out.read_text(encoding="utf-8") == page:
        return 0
    print(f"{arguments.out} is stale; run python -m cornernet.config.reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
