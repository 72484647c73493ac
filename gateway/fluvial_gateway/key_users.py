"""Which runs hold values under a key, as far as the gateway can tell.

It cannot open a value, but reads in its head under which key it is. A run's input is its oldest
value, so the key of the input says what the run holds:

    the key itself     the run cannot be read, and cannot go on, without it
    an older key       it was started before; what it did while the key was current is under the key
    a newer key        it was started after the key had ceased to seal: it holds nothing under it

Of a run of the second kind nothing more is known without reading all that it did: it may need it. A
forked run needs, besides, the key of its origin's input, of which its random numbers are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fluvial.errors import DecryptionError, KeysFrozenError
from fluvial.events import decode_event
from fluvial.sealing import read_head
from fluvial_gateway.keyrings import KeyringState
from fluvial_queue.contract import RunPage, RunQuery, RunRecord, RunStatus

MAX_EXAMINED: Final = 20_000  # runs of each kind; a minute's work for the store
_PAGE: Final = 200
_LIVE: Final = frozenset(status for status in RunStatus if not status.is_terminal)
_FINISHED: Final = frozenset(RunStatus) - _LIVE


class RunReader(Protocol):
    """The part of a store that lists runs and reads their logs."""

    async def query_runs(self, query: RunQuery) -> RunPage: ...

    async def read_events(
        self, run_id: str, *, start: int = 0, limit: int = 1000
    ) -> list[bytes]: ...


@dataclass(frozen=True, slots=True)
class KeyUser:
    """A run that holds values under a key, or may."""

    run_id: str
    is_certain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUsers:
    """The runs that destroying a key would make unreadable, in whole or in part."""

    live: tuple[KeyUser, ...]
    finished: int
    has_all_live: bool  # False: there are too many runs to look at all of them
    has_all_finished: bool


async def users_of(runs: RunReader, keyring: KeyringState, key_id: str) -> KeyUsers:
    """Return the runs of the keyring's app that hold values under a key, or may."""
    live, has_all_live = await _among(runs, keyring, key_id, _LIVE)
    finished, has_all_finished = await _among(runs, keyring, key_id, _FINISHED)
    return KeyUsers(
        live=tuple(live),
        finished=len(finished),
        has_all_live=has_all_live,
        has_all_finished=has_all_finished,
    )


async def paused_by_freeze(runs: RunReader, app: str) -> list[RunRecord]:
    """Return up to MAX_EXAMINED runs that are paused because the app's keys were frozen."""
    reason = f"{KeysFrozenError.code}:"
    pages = _pages(runs, app, frozenset({RunStatus.PAUSED}))
    return [record async for page in pages for record in page if record.reason.startswith(reason)]


async def _among(
    runs: RunReader, keyring: KeyringState, key_id: str, statuses: frozenset[RunStatus]
) -> tuple[list[KeyUser], bool]:
    """Return the users among runs of some statuses, and whether all of these were looked at."""
    users: list[KeyUser] = []
    examined = 0
    async for page in _pages(runs, keyring.app, statuses):
        starts = await asyncio.gather(*(_start_of(runs, record) for record in page))
        for record, start in zip(page, starts, strict=True):
            is_certain = _use(keyring, key_id, start)
            if is_certain is not None:
                users.append(KeyUser(record.run_id, is_certain))
        examined += len(page)
    return users, examined < MAX_EXAMINED


async def _pages(
    runs: RunReader, app: str, statuses: frozenset[RunStatus]
) -> AsyncIterator[Sequence[RunRecord]]:
    """Yield up to MAX_EXAMINED runs of an app, page by page."""
    cursor: str | None = None
    examined = 0
    while examined < MAX_EXAMINED:
        query = RunQuery(app=app, statuses=statuses, limit=_PAGE, cursor=cursor)
        page = await runs.query_runs(query)
        yield page.runs
        examined += len(page.runs)
        cursor = page.cursor
        if cursor is None:
            return


@dataclass(frozen=True, slots=True)
class _Start:
    """The keys that a run has needed from its start on."""

    input: str
    seed: str = ""  # a fork's chance is its origin's: made with the key of the origin's input


async def _start_of(runs: RunReader, record: RunRecord) -> _Start:
    if not record.events:
        return _Start(_key_of(record.input))
    first = await runs.read_events(record.run_id, start=0, limit=1)
    if not first:
        return _Start("")  # its retention ended just now
    event = decode_event(first[0])
    seed = event.meta.get("seed")
    return _Start(_key_of(event.payload), str(seed["key"]) if seed else "")


def _use(keyring: KeyringState, key_id: str, start: _Start) -> bool | None:
    """Tell whether a run certainly uses a key; None: it does not."""
    if key_id in (start.input, start.seed):
        return True
    begun, wanted = keyring.position(start.input), keyring.position(key_id)
    if begun is None or wanted is None:
        return False  # a key that was lost, or is none at all: nothing can be excluded
    return None if begun > wanted else False


def _key_of(envelope: bytes) -> str:
    try:
        return read_head(envelope)[1]
    except DecryptionError:
        return ""
