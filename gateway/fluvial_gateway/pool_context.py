"""What a pool of instances is given: what all pools share, and the invocations as it sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fluvial.manifest import DeploymentSpec
from fluvial_gateway.death_notices import DeathNotices
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.link_calls import CallHandler
from fluvial_gateway.occupancy import Occupancy
from fluvial_gateway.owned_tasks import OwnedTasks
from fluvial_gateway.pool_contract import Acquirer, PoolLimits, PoolObserver, SpecSource
from fluvial_gateway.scheduling import Forecasts, StartBudget


class Job(Protocol):
    """An invocation, as the pool sees it."""

    prefer: str | None
    deadline: float
    reroutes: int
    ended: bool

    def place(self, instance: Instance, spec: DeploymentSpec) -> None:
        """Send it to this instance, whose room it has."""
        ...

    def refuse(self, reason: Unavailable) -> None:
        """It will not be started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolContext:
    """What all pools of a gateway share."""

    spec: SpecSource
    invoker: Acquirer
    observer: PoolObserver
    occupancy: Occupancy
    calls: CallHandler
    tasks: OwnedTasks
    forecasts: Forecasts
    starts: StartBudget  # of all deployments together
    notices: DeathNotices
    limits: PoolLimits
    clock: Callable[[], float]
    gateway: str
    partitions: int
    app_url: Callable[[str], str]  # where an app answers, for the world outside
