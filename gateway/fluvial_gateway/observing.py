"""What the gateway's parts tell about their work; `metrics.Metrics` listens.

The dispatcher depends on `DispatchObserver` alone, so its tests need no metrics library.
"""

from __future__ import annotations

from typing import Protocol


class DispatchObserver(Protocol):
    """What a dispatcher tells. Every call is synchronous, cheap and never raises."""

    def invocation_finished(
        self,
        app: str,
        kind: str,
        outcome: str,
        seconds: float,
        cpu_us: int,
        *,
        function: str = "",
    ) -> None:
        """An invocation (kind: turn or step) of the workflow or step called `function` ended;
        `seconds` is its time from dispatch."""

    def step_finished(self, app: str, step: str, outcome: str) -> None:
        """A step has its one recorded outcome: completed, failed, cancelled, abandoned."""

    def step_attempt(self, app: str, reason: str) -> None:
        """A step was started; `reason` is `first`, or why it was started again."""

    def run_finished(self, app: str, workflow: str, outcome: str) -> None:
        """A run became terminal with this status."""

    def run_paused(self, app: str, code: str) -> None:
        """A run was paused: `code` says in what trouble it is; empty: somebody wants it so."""

    def commit(self, answer: str, seconds: float) -> None:
        """The store answered one commit entry: ok, epoch, gone, sequence."""

    def handoff(self, seconds: float) -> None:
        """Time from a commit's answer to the start of the invocation that it asked for."""

    def replay(self, reason: str, events: int) -> None:
        """A turn was replayed from a log of `events` events."""
