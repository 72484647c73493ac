"""Amounts of what is billed, and the hours and days that they are kept by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24
MAX_FUNCTIONS: Final = 500  # of one record; what would be more is counted as `other`
_OTHER: Final = "other"


Function = tuple[str, str, str]
"""What was invoked: its app, its kind (http, turn or step), and the workflow's or step's name."""


@dataclass(slots=True)
class Amount:
    """What one function has used."""

    invocations: int = 0
    cpu_us: int = 0
    busy_ms: int = 0  # the time that its invocations took, added up

    def add(self, other: Amount) -> None:
        self.invocations += other.invocations
        self.cpu_us += other.cpu_us
        self.busy_ms += other.busy_ms


@dataclass(slots=True)
class Memory:
    """What one app's instances were provisioned with, while something was in flight in them."""

    byte_seconds: float = 0.0
    memory_bytes: int = 0  # of one instance, by the manifest
    first_ms: int = 0  # when the app used something first

    def add(self, other: Memory) -> None:
        self.byte_seconds += other.byte_seconds
        self.memory_bytes = max(self.memory_bytes, other.memory_bytes)
        if other.first_ms:
            self.first_ms = min(self.first_ms or other.first_ms, other.first_ms)


@dataclass(slots=True)
class Used:
    """What was used in some hours."""

    functions: dict[Function, Amount] = field(default_factory=dict[Function, Amount])
    memory: dict[str, Memory] = field(default_factory=dict[str, Memory])

    def of(self, function: Function) -> Amount:
        """Return a function's amount, to be added to; bounded in number."""
        found = self.functions.get(function)
        if found is not None:
            return found
        if len(self.functions) >= MAX_FUNCTIONS:
            function = (function[0], function[1], _OTHER)
            if function not in self.functions and len(self.functions) >= 2 * MAX_FUNCTIONS:
                function = (_OTHER, _OTHER, _OTHER)
        return self.functions.setdefault(function, Amount())

    def memory_of(self, app: str) -> Memory:
        """Return an app's memory, to be added to; bounded in number."""
        if app not in self.memory and len(self.memory) >= MAX_FUNCTIONS:
            app = _OTHER
        return self.memory.setdefault(app, Memory())

    def add(self, other: Used) -> None:
        for function, amount in other.functions.items():
            self.of(function).add(amount)
        for app, memory in other.memory.items():
            self.memory_of(app).add(memory)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a record."""
        return {
            "functions": [
                [*function, amount.invocations, amount.cpu_us, amount.busy_ms]
                for function, amount in self.functions.items()
            ],
            "memory": [
                [app, memory.byte_seconds, memory.memory_bytes, memory.first_ms]
                for app, memory in self.memory.items()
            ],
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Used:
        """Return what `to_dict` made `plain` from."""
        used = cls()
        for app, kind, name, *amount in cast("list[list[Any]]", plain["functions"]):
            used.functions[app, kind, name] = Amount(*amount[:3])
        for app, *memory in cast("list[list[Any]]", plain["memory"]):
            used.memory[app] = Memory(*memory[:3])
        return used


def total(parts: Iterable[Used]) -> Used:
    """Return the sum of several."""
    summed = Used()
    for part in parts:
        summed.add(part)
    return summed
