"""The instances of one deployment, and the invocations that wait for them.

Invariants:

1. An invocation is either placed on an instance, in the queue, among the orphans of an instance
   whose fate is being looked up, or ended; `in_flight` counts the placed ones.
2. Whoever waits has priority over whoever comes, and what was sent back goes to the front.
3. While something waits there is a start under way, an instance whose progress will make room, or
   a timer that ends a hold; and every waiting invocation has its own deadline besides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from fluvial.errors import FluvialError, UnavailableError
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.activity import Room
from fluvial_gateway.health import TROUBLES
from fluvial_gateway.instance_watches import InstanceWatch
from fluvial_gateway.instances import (
    NACK_PAUSE_SECONDS,
    TROUBLE_PAUSE_SECONDS,
    Instance,
    choose,
    starts_wanted,
)
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.invoker_client import Acquired, RefusedError
from fluvial_gateway.link_calls import CallDesk, LinkContext
from fluvial_gateway.links import Link
from fluvial_gateway.pool_context import Job, PoolContext
from fluvial_gateway.pool_contract import InstanceState
from fluvial_gateway.start_holds import StartHold

logger = logging.getLogger(__name__)

DEATH_NOTICE_SECONDS: Final = 2.0  # the invoker reaps within milliseconds
FAILURE_MEMORY_SECONDS: Final = 60.0  # an otherwise empty pool remembers failed starts so long
_ACQUIRES: Final = 4  # of one start, while what the invoker hands out has just died
_NO_ROOM: Final = "concurrency"
_NACK_REASONS: Final = frozenset({"draining", _NO_ROOM, *TROUBLES})
_IMPORT_FAILED: Final = "import_failed"
_START_FAILED: Final = "start_failed"
_RETIRED: Final = frozenset({"idle", "exit:0"})
_TRANSIENT: Final = frozenset(
    {"capacity", "shutting_down", "kms_failed"}
)  # refusals that waiting can cure


class InstancePool:
    """Places invocations on the instances of one deployment and starts more when needed."""

    def __init__(
        self, deployment: str, context: PoolContext, on_empty: Callable[[InstancePool], None]
    ) -> None:
        self.deployment = deployment
        self._context = context
        self._on_empty = on_empty
        self._spec: DeploymentSpec | None = None
        self._instances: dict[str, Instance] = {}
        self._dialling: set[str] = set()
        self._orphans: dict[str, list[Job]] = {}  # by instance: its fate is being looked up
        self._queue: deque[Job] = deque()
        self._waiting_reported = 0
        self._starting = 0
        self._hold = StartHold()
        self._hold_timer: asyncio.TimerHandle | None = None

    # What invocations ask for

    @property
    def waiting(self) -> int:
        """How many invocations wait for an instance."""
        return len(self._queue)

    def instance(self, instance_id: str) -> Instance | None:
        """Return a living instance by id."""
        return self._instances.get(instance_id)

    def submit(self, job: Job, *, first: bool = False) -> None:
        """Place the job now, or queue it (at the front if it comes back), or refuse it."""
        if self._spec is not None and (first or not self._queue):
            instance = choose(self._instances.values(), job.prefer)
            if instance is not None:
                self._context.occupancy.enter(instance, self._context.clock())
                job.place(instance, self._spec)
                self._placed(instance)
                return
        self._enqueue(job, first=first)

    def withdraw(self, job: Job) -> None:
        """Take a waiting job out of the queue."""
        if job in self._queue:
            self._queue.remove(job)
            self._report_waiting()

    def release(self, instance: Instance) -> None:
        """One of the instance's invocations ended."""
        self._leave(instance)
        instance.paused = False
        self._hang_up_if_done(instance)
        if self._queue:
            self._feed()

    def nacked(self, job: Job, instance: Instance, reason: str) -> None:
        """The instance sent the job back before its handler started: send it elsewhere."""
        self._context.observer.nacked(self._app, reason if reason in _NACK_REASONS else "other")
        self._leave(instance)
        if reason == _NO_ROOM:
            instance.paused = True
            if instance.in_flight == 0:
                self._resume_in(NACK_PAUSE_SECONDS, instance)
        elif reason in TROUBLES:
            if not instance.trouble and not instance.paused:
                instance.paused = True
                self._resume_in(TROUBLE_PAUSE_SECONDS, instance)
        else:
            job.reroutes += 1
            self.instance_draining(instance)
        self._hang_up_if_done(instance)
        self._submit_again(job)

    def _leave(self, instance: Instance) -> None:
        context = self._context
        memory_bytes = self._spec.instance.memory_bytes if self._spec is not None else 0
        context.occupancy.leave(self._app, memory_bytes, instance, context.clock())

    def living(self) -> list[tuple[str, int, Instance]]:
        """Return the pool's instances, each with the app and the memory it may use."""
        memory_bytes = self._spec.instance.memory_bytes if self._spec is not None else 0
        return [(self._app, memory_bytes, instance) for instance in self._instances.values()]

    def room(self) -> Room:
        """Return how the pool's instances stand."""
        instances = self._instances.values()
        return Room(
            instances=self._count_living(),
            most=self._spec.instance.max_instances if self._spec is not None else 0,
            in_flight=sum(instance.in_flight for instance in instances),
            waiting=len(self._queue),
            starting=self._starting,
            problem=self._hold.problem,
        )

    def orphaned(self, job: Job, instance: Instance) -> None:
        """The job's instance ended before it was ready: no handler has started."""
        self._orphans.setdefault(instance.id, []).append(job)

    def does_not_yield(self, instance: Instance, since: float) -> None:
        """A cancelled invocation goes on: drain the instance, then have it killed."""
        context = self._context
        self.instance_draining(instance)
        patience_over = context.clock() - since >= context.limits.stuck_drain_seconds
        if instance.in_flight <= instance.stuck or patience_over:
            logger.warning("an instance does not yield", extra={"instance": instance.id})
            context.invoker.kill(instance.id, context.limits.kill_grace_ms)

    def tell_fate(self, instance: Instance, tell: Callable[[str | None], None]) -> None:
        """Say how an instance ended that was lost with its invocation; None: not known."""
        self._context.tasks.start(self._tell_fate(instance.id, tell), f"fate of {instance.id}")

    async def _tell_fate(self, instance: str, tell: Callable[[str | None], None]) -> None:
        tell(await self._context.notices.reason(instance, DEATH_NOTICE_SECONDS))

    def close(self) -> None:
        """Refuse what waits and drop all links."""
        self._refuse_all(Unavailable("unavailable", "the gateway is stopping", True))
        for instance in list(self._instances.values()):
            instance.link.close("the gateway is stopping")
        if self._hold_timer is not None:
            self._hold_timer.cancel()

    # What instances tell

    def instance_ready(self, instance: Instance) -> None:
        now = instance.welcomed_at = self._context.clock()
        self._hold.clear()
        if instance.tier != "warm":
            self._context.observer.cold_start(self._app, instance.tier, now - instance.started_at)
        if not instance.draining:
            self._report_state(instance, "ready")

    def instance_health_changed(self, instance: Instance) -> None:
        if instance.welcomed_at is not None and not instance.draining:
            self._report_state(instance, "paused" if instance.trouble else "ready")
        self._feed()

    def instance_draining(self, instance: Instance) -> None:
        if not instance.draining:
            instance.draining = True
            self._report_state(instance, "draining")
            self._hang_up_if_done(instance)
            self._start_more()

    def _hang_up_if_done(self, instance: Instance) -> None:
        if instance.draining and not instance.in_flight:
            instance.link.hang_up()  # an instance that retires waits until nobody is connected

    def instance_lost(self, instance: Instance, reason: str) -> None:
        instance.draining = True
        if instance.watch is not None:
            instance.watch.close()
        if self._instances.pop(instance.id, None) is None:
            return
        self._context.observer.instances_changed(self._app, instance.reported, -1)
        if instance.welcomed_at is None:
            self._orphans.setdefault(instance.id, [])
            self._context.tasks.start(self._settle(instance), f"settle {instance.id}")
        else:
            self._start_more()
            # Later: its invocations are told next, and some of them come back.
            asyncio.get_running_loop().call_soon(self._end_if_empty)

    # Queue

    def _enqueue(self, job: Job, *, first: bool) -> None:
        now = self._context.clock()
        refusal = self._hold.refusal(now)
        if refusal is not None and not self._instances:
            job.refuse(refusal)
            return
        if first:
            self._queue.appendleft(job)
        elif len(self._queue) >= self._context.limits.queue_length:
            message = f"{len(self._queue)} invocations already wait for an instance"
            job.refuse(Unavailable("overloaded", message, True, retry_after_seconds=1.0))
            return
        else:
            self._queue.append(job)
        self._report_waiting()
        self._start_more()

    def _submit_again(self, job: Job) -> None:
        if job.ended:
            return
        if job.reroutes > self._context.limits.max_reroutes:
            message = f"{job.reroutes} instances in a row did not start it"
            job.refuse(Unavailable("unavailable", message, True, retry_after_seconds=1.0))
        else:
            self.submit(job, first=True)

    def _feed(self) -> None:
        spec = self._spec
        while self._queue and spec is not None:
            instance = choose(self._instances.values(), self._queue[0].prefer)
            if instance is None:
                break
            self._context.occupancy.enter(instance, self._context.clock())
            self._queue.popleft().place(instance, spec)
            self._placed(instance)
        self._report_waiting()
        self._start_more()

    def _refuse_all(self, reason: Unavailable) -> None:
        waiting, self._queue = self._queue, deque()
        self._report_waiting()
        for job in waiting:
            job.refuse(reason)

    def _resume_in(self, seconds: float, instance: Instance) -> None:
        asyncio.get_running_loop().call_later(seconds, self._resume, instance)

    def _resume(self, instance: Instance) -> None:
        instance.paused = False
        self._feed()

    # Starting

    def _start_more(self) -> None:
        if not self._queue or self._hold.is_active(self._context.clock()):
            return
        settings = self._spec.instance if self._spec is not None else None
        wanted = starts_wanted(
            len(self._queue),
            self._room_of_one(),
            self._count_living(),
            settings.max_instances if settings else 1,
            self._starting,
        )
        for _ in range(wanted):
            self._starting += 1
            self._context.tasks.start(self._start(), f"start {self.deployment}")

    def _room_of_one(self) -> int:
        """How many invocations one instance takes."""
        return self._spec.instance.max_concurrency if self._spec else len(self._queue)

    def _new_watch(self, instance: Instance) -> InstanceWatch | None:
        """Return what will hear of the instance's health, if that is of use."""
        return InstanceWatch(instance)

    def _count_living(self) -> int:
        """How many instances count against the deployment's limit."""
        return sum(not instance.draining for instance in self._instances.values())

    def _placed(self, instance: Instance) -> None:
        """An invocation was sent to this instance."""

    async def _start(self) -> None:
        try:
            await self._acquire()
        except RefusedError as error:
            transient = error.reason in _TRANSIENT
            refusal = Unavailable(error.reason, error.message, transient)
            problem = f"{error.reason}: {error.message}"
            self._start_failed(None if transient else refusal, problem)
        except (FluvialError, OSError) as error:
            logger.warning("no instance could be started", extra={"reason": str(error)})
            self._start_failed(Unavailable("unavailable", str(error), True, 1.0))
        except Exception:  # the boundary of the task: whoever waits must hear of it
            logger.exception("starting an instance failed", extra={"deployment": self.deployment})
            self._start_failed(Unavailable("unavailable", "starting failed", True, 1.0))
        finally:
            self._starting -= 1
            self._start_more()
            self._end_if_empty()

    async def _acquire(self) -> None:
        context = self._context
        started_at = context.clock()
        async with asyncio.timeout(context.limits.start_seconds):
            spec = self._spec or await context.spec(self.deployment)
        if spec is None:
            message = f"no deployment {self.deployment}"
            self._refuse_all(Unavailable("deployment_not_found", message, False))
            return
        if self._spec is None:
            self._spec = spec
            self._report_waiting()
            self._start_more()
        for _ in range(_ACQUIRES):
            acquired = await self._ask_for_one(spec)
            if acquired.instance in self._instances or acquired.instance in self._dialling:
                continue  # another start was handed it in the same moment
            self._dialling.add(acquired.instance)
            try:
                if await self._dial(spec, acquired, started_at):
                    return
            finally:
                self._dialling.discard(acquired.instance)
        raise UnavailableError(f"{_ACQUIRES} instances in a row were gone when they were dialled")

    async def _ask_for_one(self, spec: DeploymentSpec) -> Acquired:
        return await self._context.invoker.acquire(
            spec,
            [*self._instances, *self._dialling],
            deadline_seconds=self._context.limits.start_seconds,
        )

    async def _dial(self, spec: DeploymentSpec, acquired: Acquired, started_at: float) -> bool:
        """Connect to an instance; false: it was a warm one that has died meanwhile."""
        context = self._context
        instance = Instance(
            self,
            acquired.instance,
            tier=acquired.tier,
            limit=self._room_of_one(),
            started_at=started_at,
        )
        instance.created_at = context.clock()
        caller = LinkContext(instance=instance.id, deployment=spec.deployment, app=spec.app)
        link = instance.link = Link(instance, CallDesk(caller, context.calls, context.tasks))
        loop = asyncio.get_running_loop()
        # First the watchdog's: what blocks the loop may be the first thing that is sent to it.
        watch = instance.watch = self._new_watch(instance)
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
        self._instances[instance.id] = instance
        context.observer.instances_changed(spec.app, "starting", 1)
        app_url = context.app_url(spec.app)
        token = watch.token if watch is not None else b""
        link.hello(acquired.credential, context.gateway, context.partitions, app_url, token)
        loop.call_later(context.limits.ready_seconds, self._insist_on_ready, instance)
        self._feed()
        return True

    def _insist_on_ready(self, instance: Instance) -> None:
        if instance.welcomed_at is None and instance.id in self._instances:
            logger.warning("an instance does not get ready", extra={"instance": instance.id})
            self._context.invoker.kill(instance.id, self._context.limits.kill_grace_ms)
            instance.link.close("not ready in time")

    async def _settle(self, instance: Instance) -> None:
        """Find out why an instance ended before it was ready, and what follows for its work."""
        reason = await self._context.notices.reason(instance.id, DEATH_NOTICE_SECONDS)
        orphans = self._orphans.pop(instance.id, [])
        failure = _failure(reason)
        if failure is not None:
            self._start_failed(failure)
        elif instance.tier != "warm" and reason is not None and reason not in _RETIRED:
            self._start_failed(None, f"an instance ended before it was ready: {reason}")
        for job in reversed(orphans):
            if job.ended:
                continue
            if failure is not None and not failure.retryable:
                job.refuse(failure)
            else:
                job.reroutes += 1
                self._submit_again(job)
        self._start_more()
        self._end_if_empty()

    def _start_failed(self, refusal: Unavailable | None, problem: str = "") -> None:
        seconds = self._hold.failed(self._context.clock(), refusal, problem)
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        loop = asyncio.get_running_loop()
        self._hold_timer = loop.call_later(seconds, self._hold_over)
        if refusal is not None and not self._instances:
            self._refuse_all(refusal)

    def _hold_over(self) -> None:
        self._hold_timer = None
        self._hold.end()
        if self._queue:
            self._start_more()
        elif not self._instances and not self._starting:
            loop = asyncio.get_running_loop()
            self._hold_timer = loop.call_later(FAILURE_MEMORY_SECONDS, self._forget_failures)

    def _forget_failures(self) -> None:
        self._hold_timer = None
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        used = self._instances or self._queue or self._orphans or self._starting
        if not used and self._hold_timer is None:
            self._on_empty(self)

    # Reports

    @property
    def _app(self) -> str:
        return self._spec.app if self._spec is not None else ""

    def _report_waiting(self) -> None:
        change = len(self._queue) - self._waiting_reported
        if change and self._spec is not None:
            self._waiting_reported += change
            self._context.observer.waiting_changed(self._app, change)

    def _report_state(self, instance: Instance, state: InstanceState) -> None:
        observer = self._context.observer
        if instance.id in self._instances:
            observer.instances_changed(self._app, instance.reported, -1)
            observer.instances_changed(self._app, state, 1)
        instance.reported = state


def _failure(reason: str | None) -> Unavailable | None:
    """Return what a death before the instance was ready means for its work; None: try again."""
    if reason is not None and reason.startswith(_IMPORT_FAILED):
        message = reason.removeprefix(_IMPORT_FAILED).lstrip(": ")
        return Unavailable(_IMPORT_FAILED, message, False)
    if reason is not None and reason.startswith(_START_FAILED):
        return Unavailable(_START_FAILED, f"the instance ended with {reason}", True, 1.0)
    return None  # it retired, or was killed when it was ready already: not the code's failure
