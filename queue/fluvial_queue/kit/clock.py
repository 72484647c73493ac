"""Virtual time."""

from __future__ import annotations


class VirtualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start_ms: int) -> None:
        self.now_ms = start_ms

    def __call__(self) -> int:
        return self.now_ms

    def seconds(self) -> float:
        """Return the time as `time.time` would."""
        return self.now_ms / 1000

    def move_to(self, at_ms: int) -> None:
        """Move forward; never back."""
        self.now_ms = max(self.now_ms, at_ms)
