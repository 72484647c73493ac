"""Starting instances for one pool: ask the invoker, dial, and find out why one has failed.

While a start fails again and again the next one is held back for longer and longer; whoever waits
is either told so or waits for the next attempt (`start_holds.py`). How many are started at a time
is bounded, too, per deployment and for the whole gateway (`scheduling.StartBudget`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Final, Protocol

from fluvial.errors import FluvialError, UnavailableError
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.instance_watches import InstanceWatch
from fluvial_gateway.instances import Instance, InstanceOwner
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.invoker_client import Acquired, RefusedError
from fluvial_gateway.link_calls import CallDesk, LinkContext
from fluvial_gateway.links import Link
from fluvial_gateway.pool_context import PoolContext
from fluvial_gateway.scheduling import StartBudget
from fluvial_gateway.start_holds import StartHold

logger = logging.getLogger(__name__)

DEATH_NOTICE_SECONDS: Final = 2.0  # the invoker reaps within milliseconds
FAILURE_MEMORY_SECONDS: Final = 60.0  # an otherwise empty pool remembers failed starts so long
_ACQUIRES: Final = 4  # of one start, while what the invoker hands out has just died
_IMPORT_FAILED: Final = "import_failed"
_START_FAILED: Final = "start_failed"
_RETIRED: Final = frozenset({"idle", "exit:0"})
_TRANSIENT: Final = frozenset(
    {"capacity", "shutting_down", "kms_failed"}
)  # refusals that waiting can cure


class StartingPool(InstanceOwner, Protocol):
    """The pool, as its starts see it."""

    deployment: str

    @property
    def spec(self) -> DeploymentSpec | None:
        """What is known of the deployment."""
        ...

    @property
    def known(self) -> Collection[str]:
        """The ids of its instances."""
        ...

    @property
    def wants_more(self) -> bool:
        """Whether it waits for an instance."""
        ...

    def learn(self, spec: DeploymentSpec) -> None:
        """This is the deployment."""
        ...

    def room_of_one(self) -> int:
        """How many invocations one instance takes."""
        ...

    def adopt(self, instance: Instance) -> None:
        """It is connected, and hears what is sent as soon as it is ready."""
        ...

    def settled(self, instance: Instance, failure: Unavailable | None) -> None:
        """It ended before it was ready; this is why, if its code is to blame."""
        ...

    def refuse_all(self, reason: Unavailable) -> None:
        """Nothing that waits will be started."""
        ...

    def start_more(self) -> None:
        """Something about starts has changed."""
        ...

    def end_if_empty(self) -> None:
        """Nothing is under way here any more."""
        ...


class InstanceStarts:
    """The starts of one pool that are under way, and what keeps the next ones back."""

    def __init__(
        self, pool: StartingPool, context: PoolContext, *, budget: StartBudget | None, alone: bool
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            pool: whose instances these are.
            context: what all pools share.
            budget: how many may be started, beside what the whole gateway may; None: both are for
                others.
            alone: ask for instances that take one invocation and are handed to nobody else.
        """
        self.under_way = 0
        self.hold = StartHold()
        self._pool = pool
        self._context = context
        self._budgets = () if budget is None else (budget, context.starts)
        self._alone = alone
        self._dialling: set[str] = set()
        self._hold_timer: asyncio.TimerHandle | None = None
        self._budget_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and no failure is to be remembered."""
        return not self.under_way and self._hold_timer is None

    @property
    def is_held(self) -> bool:
        """Whether nothing may be started now; the pool hears when that is over."""
        return self.hold.is_active(self._context.clock())

    def start(self, wanted: int) -> None:
        """Start so many, or as many as may be started now; the pool is asked again for the rest."""
        now = self._context.clock()
        granted = min([wanted, *(budget.available(now) for budget in self._budgets)])
        for budget in self._budgets:
            budget.take(granted)
        if granted < wanted and self._budget_timer is None:
            seconds = max(budget.seconds_to_next() for budget in self._budgets)
            loop = asyncio.get_running_loop()
            self._budget_timer = loop.call_later(seconds, self._budget_filled)
        for _ in range(granted):
            self.under_way += 1
            self._context.tasks.start(self._start(), f"start {self._pool.deployment}")

    def close(self) -> None:
        """Stop the timers."""
        for timer in (self._hold_timer, self._budget_timer):
            if timer is not None:
                timer.cancel()

    def not_ready(self, instance: Instance) -> None:
        """An instance ended before it was ready: find out why."""
        self._context.tasks.start(self._settle(instance), f"settle {instance.id}")

    def _budget_filled(self) -> None:
        self._budget_timer = None
        self._pool.start_more()

    # One start

    async def _start(self) -> None:
        try:
            await self._acquire()
        except RefusedError as error:
            transient = error.reason in _TRANSIENT
            refusal = Unavailable(error.reason, error.message, transient)
            problem = f"{error.reason}: {error.message}"
            self._failed(None if transient else refusal, problem)
        except (FluvialError, OSError) as error:
            logger.warning("no instance could be started", extra={"reason": str(error)})
            self._failed(Unavailable("unavailable", str(error), True, 1.0))
        except Exception:  # the boundary of the task: whoever waits must hear of it
            logger.exception(
                "starting an instance failed", extra={"deployment": self._pool.deployment}
            )
            self._failed(Unavailable("unavailable", "starting failed", True, 1.0))
        finally:
            self.under_way -= 1
            self._pool.start_more()
            self._pool.end_if_empty()

    async def _acquire(self) -> None:
        context, pool = self._context, self._pool
        started_at = context.clock()
        async with asyncio.timeout(context.limits.start_seconds):
            spec = pool.spec or await context.spec(pool.deployment)
        if spec is None:
            message = f"no deployment {pool.deployment}"
            pool.refuse_all(Unavailable("deployment_not_found", message, False))
            return
        if pool.spec is None:
            pool.learn(spec)
        for _ in range(_ACQUIRES):
            acquired = await self._ask_for_one(spec)
            if acquired.instance in pool.known or acquired.instance in self._dialling:
                continue  # another start was handed it in the same moment
            self._dialling.add(acquired.instance)
            try:
                if await self._dial(spec, acquired, started_at):
                    return
            finally:
                self._dialling.discard(acquired.instance)
        raise UnavailableError(f"{_ACQUIRES} instances in a row were gone when they were dialled")

    async def _ask_for_one(self, spec: DeploymentSpec) -> Acquired:
        if self._alone:
            spec = replace(spec, instance=replace(spec.instance, max_concurrency=1))
        return await self._context.invoker.acquire(
            spec,
            [*self._pool.known, *self._dialling],
            deadline_seconds=self._context.limits.start_seconds,
            alone=self._alone,
        )

    async def _dial(self, spec: DeploymentSpec, acquired: Acquired, started_at: float) -> bool:
        """Connect to an instance; false: it was a warm one that has died meanwhile."""
        context = self._context
        instance = Instance(
            self._pool,
            acquired.instance,
            tier=acquired.tier,
            limit=self._pool.room_of_one(),
            started_at=started_at,
        )
        instance.created_at = context.clock()
        caller = LinkContext(instance=instance.id, deployment=spec.deployment, app=spec.app)
        link = instance.link = Link(instance, CallDesk(caller, context.calls, context.tasks))
        loop = asyncio.get_running_loop()
        # First the watchdog's: what blocks the loop may be the first thing that is sent to it. A
        # single invocation leaves nobody waiting beside it.
        watch = instance.watch = None if self._alone else InstanceWatch(instance)
        try:
            async with asyncio.timeout(context.limits.start_seconds):
                if watch is not None:
                    await loop.create_unix_connection(lambda: watch, acquired.address)
                await loop.create_unix_connection(lambda: link, acquired.address)
        except OSError as error:  # also its TimeoutError
            if watch is not None:
                watch.close()
            logger.warning("an instance cannot be dialled", extra={"reason": str(error)})
            if instance.tier == "warm":  # once the invoker knows, it hands out another one
                await context.notices.reason(instance.id, DEATH_NOTICE_SECONDS)
                return False
            await self._settle(instance)
            return True
        app_url = context.app_url(spec.app)
        token = watch.token if watch is not None else b""
        link.hello(acquired.credential, context.gateway, context.partitions, app_url, token)
        loop.call_later(context.limits.ready_seconds, self._insist_on_ready, instance)
        self._pool.adopt(instance)
        return True

    def _insist_on_ready(self, instance: Instance) -> None:
        if instance.welcomed_at is None and instance.id in self._pool.known:
            logger.warning("an instance does not get ready", extra={"instance": instance.id})
            self._context.invoker.kill(instance.id, self._context.limits.kill_grace_ms)
            instance.link.close("not ready in time")

    # Failures

    async def _settle(self, instance: Instance) -> None:
        reason = await self._context.notices.reason(instance.id, DEATH_NOTICE_SECONDS)
        failure = _failure(reason)
        if failure is not None:
            self._failed(failure)
        elif instance.tier != "warm" and reason is not None and reason not in _RETIRED:
            self._failed(None, f"an instance ended before it was ready: {reason}")
        self._pool.settled(instance, failure)

    def _failed(self, refusal: Unavailable | None, problem: str = "") -> None:
        seconds = self.hold.failed(self._context.clock(), refusal, problem)
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        loop = asyncio.get_running_loop()
        self._hold_timer = loop.call_later(seconds, self._hold_over)
        if refusal is not None and not self._pool.known:
            self._pool.refuse_all(refusal)

    def _hold_over(self) -> None:
        self._hold_timer = None
        self.hold.end()
        if self._pool.wants_more:
            self._pool.start_more()
        elif not self._pool.known and not self.under_way:
            loop = asyncio.get_running_loop()
            self._hold_timer = loop.call_later(FAILURE_MEMORY_SECONDS, self._forget_failures)

    def _forget_failures(self) -> None:
        self._hold_timer = None
        self._pool.end_if_empty()


def _failure(reason: str | None) -> Unavailable | None:
    """Return what a death before the instance was ready means for its work; None: try again."""
    if reason is not None and reason.startswith(_IMPORT_FAILED):
        message = reason.removeprefix(_IMPORT_FAILED).lstrip(": ")
        return Unavailable(_IMPORT_FAILED, message, False)
    if reason is not None and reason.startswith(_START_FAILED):
        return Unavailable(_START_FAILED, f"the instance ended with {reason}", True, 1.0)
    return None  # it retired, or was killed when it was ready already: not the code's failure
