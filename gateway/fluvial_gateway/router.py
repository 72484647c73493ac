"""The router: from a deployment to an instance with room, for HTTP and for the dispatcher."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fluvial_gateway.activity import Room
from fluvial_gateway.answer_invocations import AnswerInvocation
from fluvial_gateway.deadlines import Deadlines
from fluvial_gateway.death_notices import DeathNotices
from fluvial_gateway.http_invocations import HttpClient, HttpInvocation
from fluvial_gateway.invocations import Outcome, Subject
from fluvial_gateway.isolated_invocations import IsolatedInvocation
from fluvial_gateway.isolated_pools import IsolatedPool
from fluvial_gateway.link_calls import CallHandler
from fluvial_gateway.link_slots import RequestFields
from fluvial_gateway.occupancy import Occupancy, Occupied
from fluvial_gateway.owned_tasks import OwnedTasks
from fluvial_gateway.pool_context import PoolContext
from fluvial_gateway.pool_contract import (
    Acquirer,
    HttpObserver,
    PoolLimits,
    PoolObserver,
    SpecSource,
)
from fluvial_gateway.pooled_invocations import InvocationContext
from fluvial_gateway.pools import InstancePool
from fluvial_gateway.scheduling import Forecasts, StartBudget
from fluvial_gateway.websocket_invocations import WEBSOCKET_SCHEMES, WebSocketInvocation

_ISOLATED: Final = " isolated"  # of a pool's name, behind its deployment's


class Router:
    """Keeps a pool of instances per deployment in use; implements `Invocations`."""

    def __init__(
        self,
        *,
        spec: SpecSource,
        invoker: Acquirer,
        calls: CallHandler,
        pool_observer: PoolObserver,
        http_observer: HttpObserver,
        gateway: str,
        partitions: int,
        app_url: Callable[[str], str],
        limits: PoolLimits | None = None,
        occupancy: Occupancy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or PoolLimits()
        self.clock = clock
        self._tasks = OwnedTasks()
        self._deadlines = Deadlines(self.limits.resolution_seconds, clock)
        self._notices = DeathNotices()
        self._http_observer = http_observer
        self._pools: dict[str, InstancePool] = {}
        self._invocations = InvocationContext(self._deadlines, self.limits)
        self._context = PoolContext(
            spec=spec,
            invoker=invoker,
            observer=pool_observer,
            occupancy=occupancy or Occupancy(),
            calls=calls,
            tasks=self._tasks,
            forecasts=Forecasts(),
            starts=StartBudget(self.limits.platform_burst, self.limits.platform_starts_per_second),
            notices=self._notices,
            limits=self.limits,
            clock=clock,
            gateway=gateway,
            partitions=partitions,
            app_url=app_url,
        )
        invoker.subscribe(self._notices.tell)

    def invoke(
        self,
        deployment: str,
        fields: tuple[str, dict[str, Any], bytes],
        *,
        prefer: str | None,
        deadline_seconds: float,
        done: Callable[[Outcome], None],
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
        isolated: bool = False,
    ) -> AnswerInvocation:
        """Send a turn, a step or a reveal; see `Invocations.invoke`."""
        pool = self._isolated_pool(deployment) if isolated else self._pool(deployment)
        kind = IsolatedInvocation if isolated else AnswerInvocation
        invocation = kind(
            pool,
            self._invocations,
            fields,
            done,
            prefer=prefer,
            seconds=deadline_seconds,
            subject=subject,
            heartbeat_ms=heartbeat_ms,
        )
        invocation.start()
        return invocation

    def http(
        self,
        deployment: str,
        app: str,
        client: HttpClient,
        fields: RequestFields,
        now: float,
    ) -> HttpInvocation:
        """Prepare a request; the caller opens it."""
        kind = WebSocketInvocation if fields[5] in WEBSOCKET_SCHEMES else HttpInvocation
        return kind(
            self._pool(deployment),
            self._invocations,
            self._http_observer,
            client,
            app,
            fields,
            now,
        )

    def forget(self, instance: str, run_ids: Sequence[str]) -> None:
        """Hint that these live runs of the instance will not be asked for again."""
        for pool in self._pools.values():
            holder = pool.instance(instance)
            if holder is not None:
                holder.link.forget(list(run_ids))
                return

    def occupied(self) -> dict[str, Occupied]:
        """Return what each app occupies on the instances that this gateway uses."""
        living = [entry for pool in self._pools.values() for entry in pool.living()]
        return self._context.occupancy.read(living, self._context.clock())

    def room(self, deployment: str, *, isolated: bool = False) -> Room | None:
        """Return how a deployment's instances stand; None: nothing is known of any."""
        pool = self._pools.get(f"{deployment}{_ISOLATED}" if isolated else deployment)
        return None if pool is None else pool.room()

    def keep(self, least: Mapping[str, int]) -> None:
        """Have so many instances of these deployments at once, also without work; of others none.

        An instance that is not kept any more retires when it has been idle for long enough.
        """
        for deployment in least:
            self._pool(deployment)
        for pool in list(self._pools.values()):
            pool.keep(0 if isinstance(pool, IsolatedPool) else least.get(pool.deployment, 0))

    async def close(self) -> None:
        """Refuse what waits, drop all links (their invocations are lost), end all tasks."""
        for pool in list(self._pools.values()):
            pool.close()
        await self._tasks.close()
        self._deadlines.close()

    def _pool(self, deployment: str) -> InstancePool:
        pool = self._pools.get(deployment)
        if pool is None:
            pool = InstancePool(deployment, self._context, self._drop)
            self._pools[deployment] = pool
        return pool

    def _isolated_pool(self, deployment: str) -> InstancePool:
        name = f"{deployment}{_ISOLATED}"
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = IsolatedPool(deployment, self._context, self._drop)
        return pool

    def _drop(self, pool: InstancePool) -> None:
        isolated = isinstance(pool, IsolatedPool)
        name = f"{pool.deployment}{_ISOLATED}" if isolated else pool.deployment
        if self._pools.get(name) is pool:
            del self._pools[name]
