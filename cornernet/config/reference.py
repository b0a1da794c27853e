"""Writes docs/configuration.md, the page of all fields: ``python -m cornernet.config.reference``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cornernet.config import Config
from cornernet.config.checks import ABSENT, changed_fields
from cornernet.config.limits import LIMITS, MOST_BLOCKS, MOST_ENTRIES, MOST_PARAMETERS
from cornernet.config.recipes import RECIPES, recipe
from cornernet.console import ended_by_its_reader, printable, survive_any_encoding
from cornernet.files import Output

__all__ = ["reference"]

HEAD = """# Configuration reference

Written by `python -m cornernet.config.reference` from the dataclasses in `cornernet/config/`; a test checks that it is
current. Every field is a flag of `cornernet train`, `evaluate` and `detect`, such as `--training.iterations 900`, and
can be edited in Python with `config.with_("training.iterations", 900)`. The defaults are the paper's. The last two
sections list what each recipe changes, and the largest values.
"""

LIMITS_HEAD = f"""## Limits

These are far above what anybody trains, and a configuration above one is refused before
anything is built, because it may come with a stranger's weights. Besides, a backbone has at most {MOST_BLOCKS:,}
residual blocks, a model about {MOST_PARAMETERS // 10**9} billion parameters, and a generated split 2^33 pixels. Whole
numbers without a limit of their own must fit 64 bits, and all numbers must be finite.
"""


def reference() -> str:
    """Return the page: a section per dataclass with a row per field, then the changes of each recipe."""
    parts = [HEAD, *_sections(Config, ""), "## Recipes\n"]
    for name, function in RECIPES.items():
        summary = (inspect.getdoc(function) or "").splitlines()[0].replace("``", "`")
        parts.append(f"### {name}\n\n{summary}\n")
        fields = changed_fields(recipe(name).to_dict(), Config().to_dict())
        changes = [f"- `{path}` {_code(value)}" for path, value, _ in fields if value is not ABSENT]
        parts.append("\n".join(changes or ["The defaults above."]) + "\n")
    return "\n".join([*parts, *_limits()])


def _limits() -> list[str]:
    """Return the section on the largest values."""
    rows = [f"| `{field}` | {most:,} | {_entries(field)} |" for field, most in LIMITS.items()]
    rows += [f"| `{field}` | | {_entries(field)} |" for field in MOST_ENTRIES if field not in LIMITS]
    return [LIMITS_HEAD, "\n".join(["| field | largest value | most entries |", "|---|---|---|", *rows]) + "\n"]


def _entries(field: str) -> str:
    return f"{MOST_ENTRIES[field]:,}" if field in MOST_ENTRIES else ""


def _sections(kind: type, path: str) -> list[str]:
    """Return the section of a dataclass, then those of the dataclasses in its fields."""
    texts = _field_texts(kind)
    hints = typing.get_type_hints(kind, include_extras=False)
    rows, below = [], []
    for item in dataclasses.fields(kind):
        members = [part for part in _members(hints[item.name]) if isinstance(part, type)]
        parts = [part for part in members if dataclasses.is_dataclass(part)]
        if parts:
            for part in parts:
                below += _sections(part, f"{path}{item.name}.")
            continue
        text = " ".join(texts.get(item.name, "The kind of this part.").split())
        text = text.replace("|", "\\|")
        rows.append(f"| `{item.name}` | {_type(hints[item.name])} | {_code(item.default)} | {text} |")
    title = f"## {path.rstrip('.')}: {kind.__name__}\n" if path else ""
    if not title:
        return below
    about = inspect.getdoc(kind) or ""
    table = ["| field | values | default | |", "|---|---|---|---|", *rows]
    return [title, about.replace("``", "`") + "\n", *(["\n".join(table) + "\n"] if rows else []), *below]


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types that a hint allows."""
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


def _field_texts(kind: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, by field."""
    texts = {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for first, second in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(first, ast.AnnAssign)
            and isinstance(first.target, ast.Name)
            and isinstance(second, ast.Expr)
            and isinstance(second.value, ast.Constant)
        ):
            texts[first.target.id] = str(second.value.value)
    return texts


def _is_reference(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(HEAD.partition("\n")[0].encode())


@ended_by_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or with ``--check`` tell whether it is current."""
    parser = argparse.ArgumentParser(prog="python -m cornernet.config.reference", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/configuration.md"))
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is not this page")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if the page is stale")
    survive_any_encoding()
    arguments = parser.parse_args(argv)
    page = reference()
    if not arguments.check:
        # the committed page is this command's, though it was written on another machine
        known = [arguments.out.name] if _is_reference(arguments.out) else []
        Output(arguments.out.parent, "reference", overwrite=arguments.overwrite, known=known).write(
            arguments.out.name, page
        )
        return 0
    if arguments.out.is_file() and arguments.out.read_text(encoding="utf-8") == page:
        return 0
    print(f"{printable(arguments.out)} is stale; run python -m cornernet.config.reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
