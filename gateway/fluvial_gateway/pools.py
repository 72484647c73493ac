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
from collections.abc import Callable, Collection
from typing import Final

from fluvial.manifest import DeploymentSpec
from fluvial_gateway.activity import Room
from fluvial_gateway.health import TROUBLES
from fluvial_gateway.instance_starts import DEATH_NOTICE_SECONDS, InstanceStarts
from fluvial_gateway.instances import (
    NACK_PAUSE_SECONDS,
    TROUBLE_PAUSE_SECONDS,
    Instance,
    choose,
)
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.pool_context import Job, PoolContext
from fluvial_gateway.pool_contract import InstanceState
from fluvial_gateway.scheduling import Standing, StartBudget

logger = logging.getLogger(__name__)

_NO_ROOM: Final = "concurrency"
_NACK_REASONS: Final = frozenset({"draining", _NO_ROOM, *TROUBLES})
_LONGEST_RETRY_SECONDS: Final = 60.0


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
        self._least = 0  # instances at once, also without work
        self._forecast = context.forecasts.of(deployment)
        self._starts = self._new_starts()
        self._overdue_timer: asyncio.TimerHandle | None = None  # runs while something waits
        self._orphans: dict[str, list[Job]] = {}  # by instance: its fate is being looked up
        self._queue: deque[Job] = deque()
        self._waiting_reported = 0

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
        if self._queue:
            self._forecast.ended(self._context.clock(), self._places())
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
            starting=self._starts.under_way,
            problem=self._starts.hold.problem,
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
        self.refuse_all(Unavailable("unavailable", "the gateway is stopping", True))
        for instance in list(self._instances.values()):
            instance.link.close("the gateway is stopping")
        self._starts.close()
        self._stop_overdue_timer()

    # What instances tell

    def instance_ready(self, instance: Instance) -> None:
        now = instance.welcomed_at = self._context.clock()
        self._starts.hold.clear()
        if instance.tier != "warm":
            self._forecast.started(now - instance.started_at)
            self._context.observer.cold_start(self._app, instance.tier, now - instance.started_at)
        self._forecast.count_from(now)  # what it got before could not end before
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
            self._keep_some()
            self.start_more()

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
            self._starts.not_ready(instance)
        else:
            self.start_more()
            # Later: its invocations are told next, and some of them come back.
            asyncio.get_running_loop().call_soon(self.end_if_empty)

    # Queue

    def _enqueue(self, job: Job, *, first: bool) -> None:
        now = self._context.clock()
        refusal = self._starts.hold.refusal(now)
        if refusal is not None and not self._instances:
            job.refuse(refusal)
            return
        if first:
            self._queue.appendleft(job)
        else:
            overload = self._overload(job.deadline - now) if self._queue else None
            if overload is not None:
                job.refuse(overload)
                return
            self._queue.append(job)
        if len(self._queue) == 1:
            self._forecast.count_from(now)
        self._report_waiting()
        self.start_more()

    def _overload(self, patience_seconds: float) -> Unavailable | None:
        """Return why one more would wait in vain, if so."""
        standing = self._standing()
        if standing.waiting >= self._context.limits.queue_length:
            message = f"{standing.waiting} invocations already wait for an instance"
            seconds = self._forecast.wait_seconds(standing.waiting, standing)
        else:
            seconds = self._forecast.hopeless_seconds(standing, patience_seconds)
            if seconds is None:
                return None
            message = f"it would wait about {seconds:.1f} s for an instance, and has less"
        retry_seconds = min(_LONGEST_RETRY_SECONDS, max(1.0, seconds or 0.0))
        return Unavailable("overloaded", message, True, retry_after_seconds=retry_seconds)

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
        self.start_more()

    def refuse_all(self, reason: Unavailable) -> None:
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

    @property
    def spec(self) -> DeploymentSpec | None:
        """What is known of the deployment."""
        return self._spec

    @property
    def known(self) -> Collection[str]:
        """The ids of its instances."""
        return self._instances.keys()

    @property
    def wants_more(self) -> bool:
        """Whether it waits for an instance."""
        return bool(self._queue) or self._count_living() < self._least

    def keep(self, least: int) -> None:
        """Have so many instances at once from now on, also without work."""
        self._least = least
        self._keep_some()
        self.start_more()

    def learn(self, spec: DeploymentSpec) -> None:
        """This is the deployment."""
        self._spec = spec
        self._report_waiting()
        self.start_more()

    def adopt(self, instance: Instance) -> None:
        """It is connected, and hears what is sent as soon as it is ready."""
        self._instances[instance.id] = instance
        self._context.observer.instances_changed(self._app, "starting", 1)
        self._keep_some()
        self._feed()

    def settled(self, instance: Instance, failure: Unavailable | None) -> None:
        """It ended before it was ready: its work goes elsewhere, unless the code is to blame."""
        for job in reversed(self._orphans.pop(instance.id, [])):
            if job.ended:
                continue
            if failure is not None and not failure.retryable:
                job.refuse(failure)
            else:
                job.reroutes += 1
                self._submit_again(job)
        self.start_more()
        self.end_if_empty()

    def start_more(self) -> None:
        """Start what the forecast says, and look again if whoever is first waits for too long."""
        if not self.wants_more or self._starts.is_held:
            return
        standing = self._standing()
        self._starts.start(self._forecast.starts_wanted(standing))
        if self._queue and self._overdue_timer is None and standing.living < standing.most:
            loop = asyncio.get_running_loop()
            self._overdue_timer = loop.call_later(
                self._forecast.cold_seconds, self._overdue, self._queue[0]
            )

    def _overdue(self, first: Job) -> None:
        self._overdue_timer = None
        if self._queue and self._queue[0] is first and not self._starts.is_held:
            # It has waited for as long as a start takes, whatever was expected.
            self._starts.start(self._forecast.starts_overdue(self._standing()))
        self.start_more()

    def _stop_overdue_timer(self) -> None:
        if self._overdue_timer is not None:
            self._overdue_timer.cancel()
            self._overdue_timer = None

    def _standing(self) -> Standing:
        settings = self._spec.instance if self._spec is not None else None
        return Standing(
            waiting=len(self._queue),
            starting=self._starts.under_way,
            living=self._count_living(),
            most=settings.max_instances if settings is not None else 1,
            least=self._least,
            places=self._places(),
            room_of_one=self._measured_room(),
        )

    def _measured_room(self) -> int:
        """How many invocations a fresh instance will take, if it is like those that there are."""
        limits = [each.limit for each in self._instances.values() if each.watch is not None]
        return max(limits, default=self.room_of_one())

    def _places(self) -> int:
        """How many places will be given back: those of instances that then take others."""
        return sum(
            instance.in_flight
            for instance in self._instances.values()
            if not instance.draining and not instance.trouble and not instance.overdue
        )

    def room_of_one(self) -> int:
        """How many invocations one instance takes."""
        return self._spec.instance.max_concurrency if self._spec else len(self._queue)

    def _new_starts(self) -> InstanceStarts:
        limits = self._context.limits
        budget = StartBudget(limits.deployment_burst, limits.deployment_starts_per_second)
        return InstanceStarts(self, self._context, budget=budget, alone=False)

    def _count_living(self) -> int:
        """How many instances count against the deployment's limit."""
        return sum(not instance.draining for instance in self._instances.values())

    def _placed(self, instance: Instance) -> None:
        """An invocation was sent to this instance."""

    def _keep_some(self) -> None:
        """Tell so many instances, the oldest ones, that they are not to retire for idleness."""
        living = [each for each in self._instances.values() if not each.draining]
        for number, instance in enumerate(living):
            instance.keep(number < self._least)

    def end_if_empty(self) -> None:
        """Nothing is under way here any more, maybe."""
        used = self._instances or self._queue or self._orphans or self._least
        if not used and self._starts.is_idle:
            self._stop_overdue_timer()
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
