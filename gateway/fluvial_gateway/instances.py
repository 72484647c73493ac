"""What a gateway knows about one instance, and how it chooses among several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

from fluvial_gateway.health import LAG, Health
from fluvial_gateway.instance_watches import InstanceWatch
from fluvial_gateway.links import Link
from fluvial_gateway.pool_contract import InstanceState

# How long an instance that refused for lack of room is left alone when nothing of ours runs there
# whose end could tell us of room: other gateways fill it.
NACK_PAUSE_SECONDS: Final = 0.05
# The same for one that was in trouble, where its watchdog says nothing (a healthy sample ends it).
TROUBLE_PAUSE_SECONDS: Final = 0.25


class InstanceOwner(Protocol):
    """The pool, as its instances see it."""

    def instance_ready(self, instance: Instance) -> None:
        """It may start handlers."""
        ...

    def instance_health_changed(self, instance: Instance) -> None:
        """Its room is another one than before."""
        ...

    def instance_draining(self, instance: Instance) -> None:
        """It takes no more."""
        ...

    def instance_lost(self, instance: Instance, reason: str) -> None:
        """Its link is gone."""
        ...


class Instance:
    """One instance of a deployment, seen from here; the owner of its link."""

    __slots__ = (
        "_owner",
        "busy_since",
        "created_at",
        "draining",
        "headroom",
        "id",
        "import_seconds",
        "in_flight",
        "is_kept",
        "limit",
        "link",
        "most",
        "overdue",
        "paused",
        "reported",
        "started_at",
        "stuck",
        "tier",
        "trouble",
        "watch",
        "welcomed_at",
    )

    link: Link  # set by whoever dials, before the first use

    def __init__(
        self,
        owner: InstanceOwner,
        instance_id: str,
        *,
        tier: str,
        limit: int,
        started_at: float,
    ) -> None:
        self._owner = owner
        self.id = instance_id
        self.tier = tier
        self.most = limit
        self.limit = limit  # as its watchdog measures it, up to `most`
        self.headroom = 1.0  # how much of its CPU and memory is free
        self.trouble = ""  # what its watchdog has told last
        self.watch: InstanceWatch | None = None
        self.in_flight = 0
        self.busy_since = 0.0  # when it last got its first invocation; only while one is in flight
        self.overdue = 0  # of those in flight: told to stop at their deadline, no answer yet
        self.stuck = 0  # of those in flight: cancelled, and they do not yield
        self.paused = False  # it refused, and has not said or shown since that it is better
        self.draining = False
        self.is_kept = False  # it does not retire for idleness
        self.started_at = started_at
        self.created_at = started_at  # when its process existed
        self.import_seconds = 0.0  # of its deployment's modules, as it says itself
        self.welcomed_at: float | None = None
        self.reported: InstanceState = "starting"

    @property
    def room(self) -> int:
        """How many more invocations it may get now."""
        if self.draining or self.paused or self.overdue:  # it may not yield to others either
            return 0
        if self.trouble:
            # What it sends back beside others it takes alone; but a blocked loop takes nothing.
            return 0 if self.in_flight or self.trouble == LAG else 1
        return self.limit - self.in_flight

    def keep(self, wanted: bool) -> None:
        """Tell it whether to stay when it is idle."""
        if wanted != self.is_kept:
            self.is_kept = wanted
            self.link.keep(wanted=wanted)

    def link_ready(self, max_concurrency: int, import_seconds: float) -> None:
        self.import_seconds = import_seconds
        self.most = self.limit = min(self.limit, max_concurrency)
        self._owner.instance_ready(self)

    def link_draining(self, reason: str) -> None:
        self._owner.instance_draining(self)

    def link_lost(self, reason: str) -> None:
        self._owner.instance_lost(self, reason)

    def health_told(self, health: Health) -> None:
        self.trouble = health.trouble
        self.limit = min(self.most, health.limit)
        self.headroom = health.headroom
        if not health.trouble:
            self.paused = False
        if health.claimed is not None:
            self.link.take_back(health.claimed, health.trouble)
        self._owner.instance_health_changed(self)

    def watch_lost(self) -> None:
        self.watch = None
        self.trouble = ""  # nobody would say when it is over
        self._owner.instance_health_changed(self)


class Roomy(Protocol):
    """What can be chosen."""

    id: str
    headroom: float

    @property
    def room(self) -> int:
        """How many more invocations it may get now."""
        ...


_Roomy = TypeVar("_Roomy", bound=Roomy)


def choose(instances: Iterable[_Roomy], prefer: str | None) -> _Roomy | None:
    """Return the preferred instance if it has room, else the one with the most; None if none has.

    Room counts as much as its CPU and memory are free. Of equal ones the instance that has served
    longer wins, so that the youngest can retire.
    """
    best: _Roomy | None = None
    most = 0.0
    for instance in instances:
        room = instance.room
        if room > 0:
            if instance.id == prefer:
                return instance
            free = room * instance.headroom
            if free > most:
                best, most = instance, free
    return best
