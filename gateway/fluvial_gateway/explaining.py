"""Explaining: why a run waits, down to the child run at which a chain of runs ends.

It reads the run's whole log, in pieces, so it takes the longer the longer that is: for people and
alarms, not for loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fluvial.events import Event
from fluvial.ids import continued_run_id, partition_of
from fluvial_gateway.activity import Activity, Room
from fluvial_gateway.awaited import Awaited, History, awaited_of
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunRecord, RunStatus

_PAGE: Final = 500  # events read at a time
_MAX_DEPTH: Final = 20  # children of children that are followed
_MAX_HOPS: Final = 100  # runs in a row that went on as new ones


class ExplainingStore(Protocol):
    """The part of a store that explaining needs."""

    async def read_run(self, run_id: str) -> RunRecord | None: ...

    async def lease_owner(self, partition: int) -> str | None: ...

    async def now_ms(self) -> int: ...


class Dispatching(Protocol):
    """Knows the invocations of the runs that it owns; the dispatcher does."""

    def activities(self, run_id: str) -> Sequence[Activity] | None:
        """Return those of a run; None: it belongs to another gateway, or to none."""
        ...


class Rooms(Protocol):
    """Knows how the instances of deployments stand; the router does."""

    def room(self, deployment: str, *, isolated: bool = False) -> Room | None:
        """None: nothing is known of any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a run waits."""

    run: RunRecord
    now_ms: int
    awaited: Sequence[Awaited]  # what is to be expected first at the front; never empty
    owner: str | None  # the gateway that owns its partition, where that is another one
    cancelled: Event | None  # the request to cancel it
    room: Room | None  # of the instance that is waited for first, if one is
    child: Explanation | None  # of the child that is waited for first, if one is

    @property
    def first(self) -> Awaited:
        """What is to be expected first."""
        return self.awaited[0]

    @property
    def leaf(self) -> Explanation:
        """Where the chain of children ends."""
        return self if self.child is None else self.child.leaf


class Explaining:
    """Explains runs."""

    def __init__(
        self, runs: Runs, store: ExplainingStore, dispatching: Dispatching, rooms: Rooms
    ) -> None:
        self._runs = runs
        self._store = store
        self._dispatching = dispatching
        self._rooms = rooms

    async def explain(self, record: RunRecord) -> Explanation:
        """Return why a run waits."""
        return await self._explain(record, await self._store.now_ms(), 0)

    async def _explain(self, record: RunRecord, now_ms: int, depth: int) -> Explanation:
        history = await self._history(record)
        activities = self._dispatching.activities(record.run_id)
        owner = None
        if activities is None and not record.status.is_terminal:
            owner = await self._store.lease_owner(partition_of(record.run_id))
        awaited = awaited_of(
            record,
            history,
            activities,
            is_owned=activities is not None or owner is not None,
            now_ms=now_ms,
        )
        return Explanation(
            run=record,
            now_ms=now_ms,
            awaited=awaited,
            owner=owner,
            cancelled=None if record.status.is_terminal else history.cancelled,
            room=self._room(awaited[0]),
            child=await self._child(awaited[0], now_ms, depth),
        )

    async def _history(self, record: RunRecord) -> History:
        """Read the log up to where it was when the record was read."""
        history = History.of(record)
        if record.status.is_terminal:
            return history
        while history.view.length < record.events:
            left = record.events - history.view.length
            start = history.view.length
            events = await self._runs.events(record.run_id, start=start, limit=min(left, _PAGE))
            if not events:
                break
            history.read(record, events)
        return history

    def _room(self, first: Awaited) -> Room | None:
        activity = first.activity
        if activity is None or activity.state not in ("instance", "refused"):
            return None
        return self._rooms.room(activity.deployment, isolated=activity.is_isolated)

    async def _child(self, first: Awaited, now_ms: int, depth: int) -> Explanation | None:
        if first.kind != "child" or depth >= _MAX_DEPTH:
            return None
        run_id = first.run_id
        for _ in range(_MAX_HOPS):
            child = await self._store.read_run(run_id)
            if child is None:
                return None  # it is about to be started
            if child.status is not RunStatus.CONTINUED:
                return await self._explain(child, now_ms, depth + 1)
            run_id = continued_run_id(run_id)
        return None
