"""Checking JSON values against schemas that come from user code (`fluvial.json_schemas`).

Neither is trusted. The schema is read as far as it makes sense, nothing of it is executed (no
patterns, no references to elsewhere), and the work is bounded: what would take longer counts as
fitting, since the code that takes the value looks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

MAX_WORK: Final = 20_000  # values compared with schemas
MAX_DEPTH: Final = 64
_DEFINITIONS: Final = "#/$defs/"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a value does not fit, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def mismatch(value: Any, schema: Any, path: str = "payload") -> Mismatch | None:
    """Return where `value` does not fit `schema`; None: it fits, as far as can be told."""
    try:
        return _Check(schema).of(value, schema, path, 0)
    except _TooMuchError:
        return None


class _TooMuchError(Exception):
    """Checking takes more work than it is worth."""


class _Check:
    def __init__(self, schema: Any) -> None:
        definitions = _member(schema, "$defs")
        self._definitions = _mapping(definitions)
        self._work = 0

    def of(self, value: Any, schema: Any, path: str, depth: int) -> Mismatch | None:
        self._work += 1
        if self._work > MAX_WORK or depth > MAX_DEPTH:
            raise _TooMuchError
        if not isinstance(schema, Mapping):
            return None
        rules = cast("Mapping[str, Any]", schema)
        reference = rules.get("$ref")
        if isinstance(reference, str) and reference.startswith(_DEFINITIONS):
            name = reference.removeprefix(_DEFINITIONS)
            found = self.of(value, self._definitions.get(name), path, depth + 1)
            if found is not None:
                return found
        return (
            _wrong_type(value, rules.get("type"), path)
            or _wrong_choice(value, rules.get("enum"), path)
            or self._any_of(value, rules.get("anyOf"), path, depth)
            or self._parts(value, rules, path, depth)
        )

    def _any_of(self, value: Any, choices: Any, path: str, depth: int) -> Mismatch | None:
        if not isinstance(choices, list | tuple) or not choices:
            return None
        found: list[Mismatch] = []
        for choice in cast("list[Any]", choices):
            wrong = self.of(value, choice, path, depth + 1)
            if wrong is None:
                return None
            found.append(wrong)
        deepest = max(found, key=lambda wrong: len(wrong.path))
        if len(deepest.path) > len(path):
            return deepest
        return Mismatch(path, "; or ".join(dict.fromkeys(wrong.reason for wrong in found)))

    def _parts(
        self, value: Any, rules: Mapping[str, Any], path: str, depth: int
    ) -> Mismatch | None:
        if isinstance(value, dict):
            return self._members(cast("dict[str, Any]", value), rules, path, depth)
        if isinstance(value, list):
            return self._items(cast("list[Any]", value), rules, path, depth)
        return None

    def _members(
        self, value: dict[str, Any], rules: Mapping[str, Any], path: str, depth: int
    ) -> Mismatch | None:
        known, further = _mapping(rules.get("properties")), rules.get("additionalProperties")
        required = rules.get("required")
        if isinstance(required, list | tuple):
            for name in cast("list[Any]", required):
                if isinstance(name, str) and name not in value:
                    return Mismatch(f"{path}.{name}", "is missing")
        for name, item in value.items():
            if name not in known and further is False:
                listed = ", ".join(map(str, known)) or "none"
                return Mismatch(f"{path}.{name}", f"is unknown; known: {listed}")
            rule = known.get(name, further)
            wrong = self.of(item, rule, f"{path}.{name}", depth + 1)
            if wrong is not None:
                return wrong
        return None

    def _items(
        self, value: list[Any], rules: Mapping[str, Any], path: str, depth: int
    ) -> Mismatch | None:
        least, most = rules.get("minItems"), rules.get("maxItems")
        if isinstance(least, int) and len(value) < least:
            return Mismatch(path, f"has {len(value)} items, and needs {least}")
        if isinstance(most, int) and len(value) > most:
            return Mismatch(path, f"has {len(value)} items, above {most}")
        prefix = rules.get("prefixItems")
        first: list[Any] = (
            list(cast("list[Any]", prefix)) if isinstance(prefix, list | tuple) else []
        )
        for index, item in enumerate(value):
            rule = first[index] if index < len(first) else rules.get("items")
            wrong = self.of(item, rule, f"{path}[{index}]", depth + 1)
            if wrong is not None:
                return wrong
        return None


def _wrong_type(value: Any, kinds: Any, path: str) -> Mismatch | None:
    wanted = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(wanted, list | tuple):
        return None
    names = [str(kind) for kind in cast("list[Any]", wanted)]
    own = _kinds_of(value)
    if not names or any(name in own or name not in _KNOWN for name in names):
        return None
    return Mismatch(path, f"must be {_listed(names)}, got {own[0]}")


_KNOWN: Final = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


def _kinds_of(value: Any) -> tuple[str, ...]:
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case int():
            return ("integer", "number")
        case float():
            return ("number", "integer") if value.is_integer() else ("number",)
        case str():
            return ("string",)
        case list():
            return ("array",)
        case _:
            return ("object",)


def _listed(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _wrong_choice(value: Any, choices: Any, path: str) -> Mismatch | None:
    if not isinstance(choices, list | tuple):
        return None
    allowed = list(cast("list[Any]", choices))
    if value in allowed:
        return None
    return Mismatch(path, f"must be one of {', '.join(map(repr, allowed[:20]))}")


def _member(schema: Any, name: str) -> Any:
    return cast("Mapping[str, Any]", schema).get(name) if isinstance(schema, Mapping) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
