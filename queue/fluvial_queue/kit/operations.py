"""Operations of the kit's platform: their shape, and what they need of the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

OperationAnswer = tuple[dict[str, Any], bytes]
Operation = Callable[[dict[str, Any], bytes], Awaitable[OperationAnswer]]


class Drive(Protocol):
    """Lets things happen, and shows what has."""

    @property
    def now_ms(self) -> int: ...

    async def reach(self, condition: Callable[[], bool], what: str) -> None:
        """Let things happen until `condition` holds."""
        ...

    def has_run(self, run_id: str) -> bool: ...

    def status(self, run_id: str) -> str: ...

    def log_length(self, run_id: str) -> int: ...

    def open_hooks(self, run_id: str) -> list[str]:
        """The tokens of a run's open hooks."""
        ...

    def stream_length(self, run_id: str, name: str) -> int:
        """How many positions a stream has; a run's end counts as one more."""
        ...
