"""The record of an app's environment: names in clear, values sealed to the app's key.

It may be there before the app is deployed for the first time. A deployment takes a copy of the
sealed values along, so changing this record changes no deployment that exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable; nobody who has the record can read its value."""

    sealed: bytes  # bound by `fluvial.sealing.variable_binding`
    size_bytes: int  # of name and value
    is_secret: bool
    set_ms: int
    set_by: str  # the token's name

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.sealed, self.size_bytes, self.is_secret, self.set_ms, self.set_by]

    @classmethod
    def from_list(cls, value: Sequence[Any]) -> Self:
        """Return the variable that `to_list` made `value` from."""
        sealed, size_bytes, is_secret, set_ms, set_by, *_ = value
        return cls(
            sealed=sealed,
            size_bytes=size_bytes,
            is_secret=is_secret,
            set_ms=set_ms,
            set_by=set_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """Kind `environment`; the id is the app's name."""

    variables: Mapping[str, Variable] = field(default_factory=dict[str, Variable])

    @property
    def sealed(self) -> dict[str, bytes]:
        """What a deployment takes along: sealed values by name."""
        return {name: self.variables[name].sealed for name in sorted(self.variables)}

    @property
    def size_bytes(self) -> int:
        """The size of all names and values."""
        return sum(variable.size_bytes for variable in self.variables.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        return {"variables": {name: each.to_list() for name, each in self.variables.items()}}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        found = {name: Variable.from_list(each) for name, each in value["variables"].items()}
        return cls(variables=found)
