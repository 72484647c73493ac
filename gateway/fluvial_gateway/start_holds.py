"""How long a pool waits before it tries to start an instance again after a failed start.

A deployment whose code cannot be imported would otherwise be forked for every request, and its
neighbours on the machine would pay for it.
"""

from __future__ import annotations

from typing import Final

from fluvial_gateway.invocations import Unavailable

FIRST_SECONDS: Final = 0.25
LONGEST_SECONDS: Final = 15.0


class StartHold:
    """Grows with each failed start in a row; a ready instance clears it."""

    __slots__ = ("_failures", "_refusal", "_until", "problem")

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0
        self._refusal: Unavailable | None = None
        self.problem = ""  # why the last start failed; empty once an instance is ready

    def failed(self, now: float, refusal: Unavailable | None, problem: str = "") -> float:
        """Note a failed start; return the seconds to wait.

        Args:
            now: the pool's clock.
            refusal: what invocations hear meanwhile; None if they shall rather wait in the queue.
            problem: why it failed, where `refusal` does not say it.
        """
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._until = now + seconds
        self._refusal = refusal
        self.problem = f"{refusal.code}: {refusal.message}" if refusal is not None else problem
        return seconds

    def end(self) -> None:
        """The wait is over: said by its timer, which may fire a little before `until`."""
        self._until = 0.0

    def clear(self) -> None:
        """An instance is ready: start as fast as asked for."""
        self._failures = 0
        self._until = 0.0
        self._refusal = None
        self.problem = ""

    def is_active(self, now: float) -> bool:
        """Say whether nothing may be started now."""
        return now < self._until

    def refusal(self, now: float) -> Unavailable | None:
        """Return what an invocation that finds no instance is to hear now, if anything."""
        return self._refusal if now < self._until else None
