"""The snapshots of deployments: made in the background, forked from, and given up.

* A snapshot is wanted when an instance of its deployment has become ready by other means: so what
  is not used costs nothing, what cannot be imported is not imported twice, and no request waits for
  it. One is made at a time.
* It serves from the moment on at which it says that it is ready. Whatever goes wrong before or
  after, instances are started as if there were no snapshots, and the reason is remembered.
* Room is limited: in number, in bytes, and by what the machine has left. What is worth least goes
  first (`evictions`), but never one whose instances live: they would end with it. One that must
  not be used any more and has instances retires, and is ended with the last of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from fluvial.errors import FluvialError
from fluvial.ids import new_id
from fluvial.manifest import DeploymentSpec
from fluvial_invoker import memory, process_stats
from fluvial_invoker.evictions import Values
from fluvial_invoker.forkers import NotReadyError, UnfitError
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.keyring import LoadedKeys
from fluvial_invoker.snapshot_processes import Snapshot
from fluvial_invoker.starter import Starter

IDLE_SECONDS: Final = 1800.0
MAX_SNAPSHOTS: Final = 64
READY_SECONDS: Final = 60.0  # as long as the import at a deploy may take
_MAX_OF_AN_APP: Final = 2  # what is in production, and what it may be rolled back to
_MAX_REMEMBERED: Final = 1000
_MAX_STRIKES: Final = 3
_CHECK_SECONDS: Final = 30.0  # for idle ones, and for memory where the kernel does not call

_log = logging.getLogger(__name__)


class SnapshotState(Enum):
    """What is known about a deployment's snapshot."""

    PREPARING = "preparing"
    READY = "ready"
    REFUSED = "refused"  # there will be none, see the reason


@dataclass(slots=True)
class _Entry:
    spec: DeploymentSpec
    state: SnapshotState = SnapshotState.PREPARING
    reason: str = ""
    snapshot: Snapshot | None = None
    cost_ms: float = 0.0
    size_bytes: int = 0
    forks: int = 0
    used_at: float = 0.0


class Snapshots:
    """All snapshots, by deployment."""

    def __init__(
        self,
        starter: Starter,
        *,
        certify: Callable[[DeploymentSpec, str], BirthCertificate],
        keys: Callable[[str], Awaitable[LoadedKeys]],
        open_snapshot: Callable[..., Snapshot],
        max_bytes: int,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._starter = starter
        self._certify = certify
        self._keys = keys
        self._open_snapshot = open_snapshot
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._entries: dict[str, _Entry] = {}
        self._strikes: dict[str, int] = {}
        self._living: set[Snapshot] = set()
        self._values = Values()
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()
        self._pressure: memory.PressureWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False

    # What the fleet asks for

    def find(self, deployment: str) -> Snapshot | None:
        """Return what an instance of the deployment can be forked from now."""
        entry = self._entries.get(deployment)
        if entry is None or entry.state is not SnapshotState.READY:
            return None
        entry.forks += 1
        entry.used_at = time.monotonic()
        self._values.use(deployment, cost_ms=entry.cost_ms, size_bytes=entry.size_bytes)
        return entry.snapshot

    def want(self, spec: DeploymentSpec) -> None:
        """An instance became ready without a snapshot: make one, if there is to be one."""
        off = spec.instance.snapshot == "off" or not self._max_bytes or self._is_closing
        off = off or spec.instance.isolation == "jail"  # its forks are in another namespace
        if off or spec.deployment in self._entries or memory.is_low():
            return
        self._forget_some()
        entry = self._entries[spec.deployment] = _Entry(spec)
        task = asyncio.get_running_loop().create_task(self._make(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refuse(self, deployment: str, reason: str) -> None:
        """Use the deployment's snapshot no more, and make no other."""
        entry = self._entries.get(deployment)
        if entry is not None and entry.state is not SnapshotState.REFUSED:
            _log.warning("no snapshot", extra={"deployment": deployment, "reason": reason})
            self._let_go(entry)
            entry.state, entry.reason = SnapshotState.REFUSED, reason

    def blame(self, deployment: str, reason: str) -> None:
        """An instance that came from the snapshot did not become ready. Whose fault it is shows
        the next one, which is started without: the snapshot is made anew a few times at most."""
        if self._strike(deployment):
            self.refuse(deployment, reason)
        elif deployment in self._entries:
            _log.warning("snapshot dropped", extra={"deployment": deployment, "reason": reason})
            self._forget(self._entries[deployment])

    def drop_app(self, app: str) -> None:
        """End the snapshots of an app: its keys have changed hands or are gone."""
        for entry in [each for each in self._entries.values() if each.spec.app == app]:
            self._forget(entry)

    def survey(self) -> list[dict[str, Any]]:
        """Return what SURVEYED says about snapshots, those that there will not be included."""
        return [_described(entry) for entry in self._entries.values()]

    async def close(self) -> None:
        """End all of them."""
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in list(self._entries.values()):
            self._forget(entry)
        for snapshot in self._living:
            snapshot.close()
        while self._living:
            self._gone.clear()
            await self._gone.wait()
        self._watch()

    # Making

    async def _make(self, entry: _Entry) -> None:
        async with self._one_at_a_time:
            try:
                await self._prepare_twice(entry)
            except NotReadyError as error:
                self.refuse(entry.spec.deployment, str(error))
            except (FluvialError, OSError) as error:
                self._failed(entry, f"{type(error).__name__}: {error}")

    async def _prepare_twice(self, entry: _Entry) -> None:
        """Prepare it, and where the warm-up request is the obstacle, once more without."""
        warm_up = entry.spec.instance.warm_up
        try:
            await self._prepare(entry, warm_up)
        except UnfitError as error:
            early = isinstance(error, NotReadyError) and error.stage != "warm-up"
            if early or warm_up is None:
                raise
            extra = {"deployment": entry.spec.deployment, "reason": str(error)}
            _log.info("a snapshot without a warm-up request", extra=extra)
            await self._prepare(entry, None)
            entry.reason = f"without a warm-up request: {error}"

    async def _prepare(self, entry: _Entry, warm_up: str | None) -> None:
        spec = entry.spec
        began = time.monotonic()
        certificate = replace(self._certify(spec, new_id("snp")), is_snapshot=True, warm_up=warm_up)
        keys = await self._keys(spec.app) if spec.sealed_environment else None
        snapshot = self._open_snapshot(certificate, on_child_exit=self._starter.child_ended)
        try:
            fds = await snapshot.open(keys)
            started = await self._starter.start(certificate, fds)
        except BaseException:
            snapshot.abandon()
            raise
        finally:
            snapshot.close_theirs()
        snapshot.started(started.pid)
        self._living.add(snapshot)
        self._starter.watch(started.pid, lambda exit_code: self._ended(snapshot, exit_code))
        try:
            await snapshot.wait_until_ready(READY_SECONDS)
        except BaseException:
            snapshot.close()
            raise
        if self._entries.get(spec.deployment) is not entry:  # dropped meanwhile
            snapshot.close()
            return
        entry.cost_ms = (time.monotonic() - began) * 1000
        entry.size_bytes = _own_bytes(started.pid, shares=started.tier == "zygote")
        self._ready(entry, snapshot)

    def _ready(self, entry: _Entry, snapshot: Snapshot) -> None:
        entry.snapshot, entry.state = snapshot, SnapshotState.READY
        entry.used_at = time.monotonic()
        spec = entry.spec
        self._values.use(spec.deployment, cost_ms=entry.cost_ms, size_bytes=entry.size_bytes)
        _log.info(
            "snapshot ready",
            extra={
                "deployment": spec.deployment,
                "pid": snapshot.pid,
                "ms": round(entry.cost_ms),
                "bytes": entry.size_bytes,
            },
        )
        self._watch()
        of_app = [each for each in self._ready_ones() if each.spec.app == spec.app]
        for older in sorted(of_app, key=lambda each: each.used_at)[:-_MAX_OF_AN_APP]:
            self._forget(older)
        self._make_room()

    def _failed(self, entry: _Entry, reason: str) -> None:
        """It has crashed, or hung, or was killed by somebody who needed memory."""
        deployment = entry.spec.deployment
        if "-9" not in reason or self._strike(deployment):
            self.refuse(deployment, reason)
        else:
            self._forget(entry)

    def _strike(self, deployment: str) -> bool:
        """Count a failure that may not be the deployment's fault; true: it is one too many."""
        self._strikes[deployment] = self._strikes.get(deployment, 0) + 1
        return self._strikes[deployment] >= _MAX_STRIKES

    # Giving up

    def _ready_ones(self) -> Iterator[_Entry]:
        return (each for each in self._entries.values() if each.state is SnapshotState.READY)

    def _make_room(self) -> None:
        ready = list(self._ready_ones())
        total = sum(each.size_bytes for each in ready)
        while len(ready) > MAX_SNAPSHOTS or total > self._max_bytes:
            victim = self._give_up_one("the limit of snapshots")
            if victim is None:
                return
            ready.remove(victim)
            total -= victim.size_bytes

    def _relieve(self) -> None:
        """Memory may be scarce: give up one, and look again when it has ended."""
        if memory.is_low():
            self._give_up_one("memory is scarce")

    def _give_up_one(self, why: str) -> _Entry | None:
        unused = [
            each for each in self._ready_ones() if each.snapshot and not each.snapshot.is_used
        ]
        key = self._values.least(each.spec.deployment for each in unused)
        if key is None:
            return None
        entry = self._entries[key]
        self._values.give_up(key)
        _log.info("snapshot given up", extra={"deployment": key, "reason": why})
        self._forget(entry)
        return entry

    def _forget(self, entry: _Entry) -> None:
        """Let it go; another one may be made."""
        self._let_go(entry)
        if self._entries.get(entry.spec.deployment) is entry:
            del self._entries[entry.spec.deployment]

    def _let_go(self, entry: _Entry) -> None:
        self._values.forget(entry.spec.deployment)
        snapshot, entry.snapshot = entry.snapshot, None
        if snapshot is not None:
            snapshot.retire()

    def _forget_some(self) -> None:
        refused = [
            key for key, each in self._entries.items() if each.state is SnapshotState.REFUSED
        ]
        for key in refused[: max(0, len(refused) - _MAX_REMEMBERED)]:
            del self._entries[key]
            self._strikes.pop(key, None)

    def _ended(self, snapshot: Snapshot, exit_code: int) -> None:
        snapshot.ended(exit_code)
        self._living.discard(snapshot)
        self._gone.set()
        entry = self._entries.get(snapshot.deployment)
        if entry is not None and entry.snapshot is snapshot:  # nobody has asked it to
            self._failed(entry, f"it ended with {exit_code}")
        self._watch()
        self._relieve()

    # Watching

    def _watch(self) -> None:
        """Watch memory and the clock exactly while there is something to give up."""
        loop = asyncio.get_running_loop()
        if not any(True for _ in self._ready_ones()):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._pressure is not None:
                self._pressure.close()
                self._pressure = None
        elif self._timer is None:
            self._timer = loop.call_later(_CHECK_SECONDS, self._check)
            self._pressure = self._pressure or memory.PressureWatch(self._relieve)

    def _check(self) -> None:
        self._timer = None
        idle_since = time.monotonic() - self._idle_seconds
        for entry in list(self._ready_ones()):
            is_used = entry.snapshot is not None and entry.snapshot.is_used
            if entry.used_at < idle_since and not is_used:
                extra = {"deployment": entry.spec.deployment, "reason": "idle"}
                _log.info("snapshot given up", extra=extra)
                self._forget(entry)
        self._relieve()
        self._watch()


def _own_bytes(pid: int, *, shares: bool) -> int:
    """Return about what ends with a snapshot: its memory without what it shares with its zygote."""
    own = process_stats.anonymous_bytes(pid)
    parent = process_stats.parent_pid(pid) if shares else None
    shared = process_stats.anonymous_bytes(parent) if parent else 0
    return max(1024 * 1024, own - shared)


def _described(entry: _Entry) -> dict[str, Any]:
    snapshot = entry.snapshot
    return {
        "layer": entry.spec.layer,
        "pid": snapshot.pid if snapshot else 0,
        "app": entry.spec.app,
        "deployment": entry.spec.deployment,
        "state": entry.state.value,
        "reason": entry.reason,
        "rss_bytes": process_stats.rss_bytes(snapshot.pid) if snapshot else 0,
        "children": len(snapshot.children) if snapshot else 0,
        "forks": entry.forks,
    }
