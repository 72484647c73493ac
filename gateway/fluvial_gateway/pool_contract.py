"""What the pools need from the rest of the gateway, and their limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fluvial.manifest import DeploymentSpec
from fluvial_gateway.invoker_client import Acquired

InstanceState = Literal["starting", "ready", "paused", "draining"]
SpecSource = Callable[[str], Awaitable[DeploymentSpec | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Bounds of waiting, starting and stopping."""

    queue_length: int = 1000  # waiting invocations per deployment
    queue_seconds: float = 30.0  # how long an HTTP invocation waits for an instance
    # Starts of instances at once, and how fast that fills again: what protects the machine from a
    # crowd that comes all at once, and from apps whose instances come and go.
    deployment_burst: int = 50
    deployment_starts_per_second: float = 10.0
    platform_burst: int = 200
    platform_starts_per_second: float = 50.0
    start_seconds: float = 30.0  # from ACQUIRE to an open connection
    ready_seconds: float = 60.0  # from an open connection to WELCOME: imports and lifespan
    cancel_grace_seconds: float = 5.0  # from CANCEL at the deadline to "it does not yield"
    cancelled_seconds: float = 60.0  # the same for a step that is cancelled before its deadline
    silence_seconds: float = 3.0  # for a heartbeat's way, beyond what its instance itself allows
    stuck_drain_seconds: float = 30.0  # for the neighbours of an invocation that does not yield
    kill_grace_ms: int = 2000  # from SIGTERM to SIGKILL
    max_reroutes: int = 8  # of one invocation, before it is refused
    resolution_seconds: float = 0.25  # how exactly deadlines are kept


class PoolObserver(Protocol):
    """Counts what the pools do; metrics live elsewhere."""

    def cold_start(self, app: str, tier: str, seconds: float) -> None:
        """An instance became ready that was not warm."""
        ...

    def instances_changed(self, app: str, state: InstanceState, change: int) -> None:
        """So many instances more (or fewer) are in this state."""
        ...

    def nacked(self, app: str, reason: str) -> None:
        """An instance sent an invocation back."""
        ...

    def waiting_changed(self, app: str, change: int) -> None:
        """So many invocations more (or fewer) wait for an instance."""
        ...


class HttpObserver(Protocol):
    """Counts HTTP invocations."""

    def http_finished(self, app: str, outcome: str, seconds: float, cpu_us: int) -> None:
        """One ended; outcome: ok | error | cancelled | timeout | lost | refused."""
        ...


class Acquirer(Protocol):
    """The part of the invoker's client that the pools use."""

    async def acquire(
        self,
        spec: DeploymentSpec,
        exclude: Sequence[str],
        *,
        deadline_seconds: float,
        alone: bool = False,
    ) -> Acquired:
        """Return an instance to dial; `alone`: a fresh one that nobody else is handed."""
        ...

    def kill(self, instance: str, grace_ms: int) -> None:
        """End an instance."""
        ...

    def subscribe(self, on_dead: Callable[[str, str], None]) -> None:
        """Tell of every instance that ends."""
        ...
