"""What the user surface needs from whatever serves it: a Protocol that the instance implements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys


class Platform(Protocol):
    """The platform as one instance may use it, limited to its app."""

    @property
    def app(self) -> str:
        """The app's name."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions the store has; the ids of runs that have a key need it."""
        ...

    def new_run_id(self) -> str:
        """Return the id of a run that is about to be started without a key."""
        ...

    @property
    def keys(self) -> AppKeys:
        """The app's keys."""
        ...

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Ask the platform for one operation; returns (result, body).

        Raises:
            FluvialError: of the class whose code the platform answered.
        """
        ...


@runtime_checkable
class HeartbeatPort(Protocol):
    """A platform that wants to hear of heartbeats; others leave them to the process itself."""

    def open_pulse(self) -> Callable[[bytes], None]:
        """Return what reports that the invocation running here is alive, and its progress: sealed,
        empty if there is nothing new. It must be called on the event loop."""
        ...


@runtime_checkable
class BackgroundPort(Protocol):
    """An invocation that can go on after its response."""

    def wait_until(self, work: Awaitable[Any] | Callable[[], Any], /) -> None:
        """Keep the instance until `work` has ended; it may be called in any thread."""
        ...


@runtime_checkable
class ClockPort(Protocol):
    """A platform whose time is not that of its host: a test's."""

    def now_seconds(self) -> float:
        """Its time, as Unix seconds."""
        ...
