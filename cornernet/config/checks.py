"""Checks and look-ups that all parts of the configuration share, and the error that they raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cornernet.console import PrintableError
from cornernet.kernels.registry import ROWS

__all__ = [
    "ABSENT",
    "ConfigError",
    "changed_fields",
    "did_you_mean",
    "holder",
    "json_problem",
    "require",
    "require_implementation",
    "require_known",
    "value_at",
]

MOST_LISTED = 20
"""Names that a message lists where none is similar to the wrong one."""


class ConfigError(PrintableError, ValueError):
    """A configuration that cannot be used. The message names the field and the fix."""


def json_problem(error: Exception) -> str:
    """Return what is wrong with a JSON text, from what ``json.loads`` or ``json.dumps`` raised.

    Python's own message about nesting names no text, and the one about long numbers gives advice for programmers.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if "integer string conversion" in str(error):
        return "it has a number of thousands of digits"
    return str(error)


# ---------------------------------------------------------------------------------------------- names


def did_you_mean(name: str, known: Iterable[str], most: int = 2) -> str:
    """Return the end of a message about an unknown name, starting with a semicolon.

    ``; did you mean tiny or small?`` gives the ``most`` similar names; ``; choose from tiny, small`` gives the first
    known names where none is similar. Empty where no names are known.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=most)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if not names:
        return ""
    rest = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"; choose from {', '.join(names[:MOST_LISTED])}{rest}"


# --------------------------------------------------------------------------------------------- fields


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigError` with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_known(name: str, names: Iterable[str], field: str) -> None:
    """Raise :class:`ConfigError` unless ``names`` has the value ``name`` of ``field``, a dotted path."""
    names = tuple(names)
    if name not in names:
        raise ConfigError(f"{field} is {name!r}{did_you_mean(name, names)}")


def require_implementation(name: str, field: str) -> None:
    """Raise :class:`ConfigError` unless the value of ``field`` names an implementation of corner pooling, or auto."""
    require_known(name, ("auto", *(row.name for row in ROWS)), field)


# --------------------------------------------------------------------------------------- dotted paths


def holder(tree: Any, path: str) -> tuple[dict[str, Any], str]:
    """Return the dict that holds the last name of a dotted path, and that name.

    ``tree`` is a configuration as nested dicts: ``model.head.pooling`` gives ``tree["model"]["head"], "pooling"``.
    Raises :class:`ConfigError` for a name that is not there; the message gives similar ones.
    """
    *parents, leaf = path.split(".")
    node = tree
    for depth, name in enumerate((*parents, leaf)):
        if not isinstance(node, Mapping) or name not in node:
            where = ".".join(parents[:depth]) or "the configuration"
            known = sorted(node) if isinstance(node, Mapping) else []
            raise ConfigError(f"{where} has no field {name!r}{did_you_mean(name, known, most=3)}")
        if depth < len(parents):
            node = node[name]
    return node, leaf


def value_at(tree: Any, path: str) -> Any:
    """Return the value at a dotted path of a configuration as nested dicts; raises as :func:`holder`."""
    node, leaf = holder(tree, path)
    return node[leaf]


class _Absent:
    """The value of a field that one of two configurations does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()
"""Stands for the value of a field that one of two compared configurations does not have; prints as ``absent``."""


def changed_fields(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each field in which two configurations as nested dicts differ: its dotted path, our value, their value.

    A field that only one of them has, because a part is of another kind, has the value :data:`ABSENT` in the other.
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in {**ours, **theirs}:
            below = f"{path}.{key}" if path else key
            yield from changed_fields(ours.get(key, ABSENT), theirs.get(key, ABSENT), below)
    elif ours != theirs:
        yield path, ours, theirs
