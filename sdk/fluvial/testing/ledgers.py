"""A stand-in for an outside system, which counts what was done to it."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Ledger:
    """Effects on the outside world: a bank, a mail server, a warehouse.

    An effect with a key happens once, as at any service that takes idempotency keys: doing it again
    returns what the first time returned. An effect without a key happens every time.
    """

    def __init__(self) -> None:
        self._effects: list[tuple[str, Any]] = []
        self._known: dict[tuple[str, str], Any] = {}

    def apply(self, effect: str, value: Any = None, *, key: str | None = None) -> Any:
        """Do something, once per `key`; return `value`, or that of the first time."""
        if key is not None and (effect, key) in self._known:
            return self._known[effect, key]
        self._effects.append((effect, value))
        if key is not None:
            self._known[effect, key] = value
        return value

    @property
    def effects(self) -> list[tuple[str, Any]]:
        """What happened, in order: (effect, value)."""
        return list(self._effects)

    def count(self, effect: str) -> int:
        """How often an effect happened."""
        return sum(name == effect for name, _ in self._effects)

    def summary(self) -> dict[str, int]:
        """How often each effect happened, without their order."""
        return dict(sorted(Counter(name for name, _ in self._effects).items()))
