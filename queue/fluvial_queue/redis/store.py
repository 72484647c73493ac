"""`RedisStore`: the store contract on Redis ≥ 7.0 or Valkey.

Every change is one script in one slot (`scripts/`), every key is in `keys`. All calls go over one
pipelined connection in call order; only the doorbells have their own.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, Final

import msgpack

from fluvial.errors import InvalidRequestError
from fluvial.stream_entries import MAX_CHUNKS
from fluvial_queue.checks import check_partition, check_run_id, check_values
from fluvial_queue.contract import (
    Bell,
    CommitEntry,
    CommitReply,
    DeleteOutcome,
    Durability,
    FiredTimers,
    Lease,
    Pulse,
    Record,
    RecordKind,
    RunPage,
    RunQuery,
    RunRecord,
    RunStatus,
    SendOutcome,
    SingletonClaim,
    StartOutcome,
    StartRun,
    StoredMessage,
    UnsafeStoreError,
)
from fluvial_queue.hook_contract import FoundHook, OpenHook
from fluvial_queue.messages import deadline_body, start_body
from fluvial_queue.redis import lua
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.bells import Subscription
from fluvial_queue.redis.claims import Claims
from fluvial_queue.redis.dialing import Command
from fluvial_queue.redis.documents import Documents
from fluvial_queue.redis.hooks import Hooks, written
from fluvial_queue.redis.index import RunIndex
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Argument, Scripts
from fluvial_queue.redis.ownership import Ownership
from fluvial_queue.redis.retirement import Retirement
from fluvial_queue.redis.room import DiskRoom
from fluvial_queue.redis.settings import check_server
from fluvial_queue.redis.singletons import Singletons
from fluvial_queue.redis.streams import Streams
from fluvial_queue.redis.sweeping import Sweep
from fluvial_queue.retirement_contract import Counts, DeploymentUse
from fluvial_queue.stream_contract import (
    Append,
    AppendAnswer,
    StreamPage,
    StreamRecord,
    check_append,
    check_page,
)

FORMAT: Final = "1"  # of the keys and values; a store of another format is refused


class RedisStore:
    """A store on a server of the Redis protocol. Its docstrings are those of `Store`."""

    def __init__(self, address: Address, *, patience_seconds: float = 0.0) -> None:
        """`patience_seconds`: how long `open` waits for a server that does not answer yet."""
        self._address = address
        self._patience_seconds = patience_seconds
        self._keys = Keys(address.prefix)
        self._link = Link(address, greeting=lua.LOAD_ALL)
        room = DiskRoom(address.folder) if address.folder is not None else None
        self._scripts = Scripts(self._link, room)
        self._owned = Ownership(self._scripts, self._keys, address.retention_ms)
        self._streams = Streams(self._scripts, self._keys, address.stream_bytes)
        self._documents = Documents(self._link, self._scripts, self._keys)
        self._partitions = 0
        self._durability: Durability = "memory"
        self._subscriptions: set[Subscription] = set()
        self._is_closed = False
        self._set_partitions(address.partitions)

    def _set_partitions(self, partitions: int) -> None:
        self._partitions = partitions
        parts = self._link, self._scripts, self._keys, partitions
        self._index = RunIndex(*parts)
        self._claims = Claims(*parts)
        self._hooks = Hooks(self._link, self._keys)
        self._singletons = Singletons(*parts)
        self._retirement = Retirement(*parts)
        self._sweep = Sweep(self._index, self._claims, self._singletons, self._retirement)

    @property
    def partitions(self) -> int:
        return self._partitions

    @property
    def durability(self) -> Durability:
        return self._durability

    async def open(self) -> None:
        self._is_closed = False
        await self._link.open(patience_seconds=self._patience_seconds)
        try:
            self._durability = await check_server(self._link, self._address)
            arguments: list[Argument] = [FORMAT, self._address.partitions]
            found, partitions = await self._scripts.run(lua.CREATE, [self._keys.meta], arguments)
            if found.decode() != FORMAT:
                raise UnsafeStoreError(
                    f"the store has format {found.decode()}, this version reads {FORMAT}: "
                    "use the version that wrote it, or another ?prefix="
                )
            self._set_partitions(int(partitions))
        except BaseException:
            await self._link.close()
            raise

    async def close(self) -> None:
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.close()
        await self._link.close()

    async def now_ms(self) -> int:
        seconds, microseconds = await self._link.call(("TIME",), writes=False)
        return int(seconds) * 1000 + int(microseconds) // 1000

    # ---- ownership ----

    async def acquire(self, partition: int, *, owner: str, ttl_ms: int) -> Lease | None:
        check_partition(partition, self._partitions)
        return await self._owned.acquire(partition, owner=owner, ttl_ms=ttl_ms)

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Pulse]:
        pulses = await self._owned.renew(leases, ttl_ms=ttl_ms)
        now_seconds = asyncio.get_running_loop().time()
        await self._sweep.step([lease.partition for lease in leases], now_seconds)
        return pulses

    async def release(self, lease: Lease, *, rested: bool = False) -> None:
        await self._owned.release(lease, rested=rested)

    async def lease_owner(self, partition: int) -> str | None:
        check_partition(partition, self._partitions)
        held: Command = ("HMGET", self._keys.lease(partition), "owner", "until")
        (owner, until), now_ms = await asyncio.gather(
            self._link.call(held, writes=False), self.now_ms()
        )
        return owner.decode() if until is not None and now_ms < int(until) else None

    # ---- the owner's work ----

    async def window(self, lease: Lease, *, after: str, limit: int) -> list[StoredMessage] | None:
        return await self._owned.window(lease, after=after, limit=limit)

    async def fire_timers(self, lease: Lease, *, limit: int) -> FiredTimers | None:
        return await self._owned.fire_timers(lease, limit=limit)

    async def commit(self, lease: Lease, entries: Sequence[CommitEntry]) -> CommitReply:
        return await self._owned.commit(lease, entries)

    # ---- everybody's work ----

    async def start(self, run: StartRun) -> StartOutcome:
        partition = check_run_id(run.run_id, self._partitions)
        meta: bytes = msgpack.packb(run.meta)
        check_values((run.input, meta, *run.log))
        keys = [
            self._keys.run(run.run_id),
            self._keys.input(run.run_id),
            self._keys.messages(partition),
            self._keys.index(partition),
            self._keys.open(partition),
            self._keys.log(run.run_id),
            self._keys.timers(partition),
            self._keys.retired(partition),
        ]
        body = start_body(run.run_id)
        arguments: list[Argument] = [
            *(run.run_id, run.app, run.workflow, run.deployment, run.key, run.fingerprint),
            *(meta, run.input, body, self._keys.bell, partition),
            *(msgpack.packb(dict(run.tags)) if run.tags else b"", run.turn),
            *(_or_empty(run.retention_ms), run.delay_ms, _or_empty(run.deadline_ms)),
            *(deadline_body(run.run_id), _or_empty(run.not_after_ms)),
            *("1" if run.is_carried else "", *run.log),
        ]
        reply: bytes = await self._scripts.run(lua.START, keys, arguments)
        return StartOutcome(reply.decode())

    async def send(
        self,
        run_id: str,
        body: bytes,
        *,
        token: str | None = None,
        hook: OpenHook | None = None,
        resume_id: str = "",
        urgent: bool = False,
    ) -> SendOutcome:
        partition = check_run_id(run_id, self._partitions)
        check_values((body,))
        keys = [
            self._keys.run(run_id),
            self._keys.hooks(run_id),
            self._keys.resumes(run_id),
            self._keys.messages(partition),
        ]
        arguments: list[Argument] = [
            *(body, int(token is not None), token or "", "" if hook is None else written(hook)),
            resume_id,
            *(self._keys.bell, partition),
        ]
        script = lua.SEND_URGENT if urgent else lua.SEND
        reply: bytes = await self._scripts.run(script, keys, arguments)
        return SendOutcome(reply.decode())

    async def delete_run(self, run_id: str) -> DeleteOutcome:
        partition = check_run_id(run_id, self._partitions)
        keys = [self._keys.run(run_id), self._keys.log(run_id), self._keys.index(partition)]
        keys.append(self._keys.streams(run_id))
        reply: bytes = await self._scripts.run(lua.DELETE, keys, [run_id])
        return DeleteOutcome(reply.decode())

    async def claim_token(self, app: str, token: str, run_id: str) -> str:
        check_run_id(run_id, self._partitions)
        return await self._claims.claim(app, token, run_id)

    async def claim_singleton(
        self, app: str, key: str, run_id: str, *, replaces: str = ""
    ) -> SingletonClaim:
        check_run_id(run_id, self._partitions)
        return await self._singletons.claim(app, key, run_id, replaces)

    async def token_holder(self, app: str, token: str) -> str | None:
        return await self._claims.holder(app, token)

    async def read_run(self, run_id: str) -> RunRecord | None:
        check_run_id(run_id, self._partitions)
        return await self._index.read(run_id)

    async def read_events(self, run_id: str, *, start: int = 0, limit: int = 1000) -> list[bytes]:
        check_run_id(run_id, self._partitions)
        if start < 0 or limit < 1:
            raise InvalidRequestError(f"start {start} or limit {limit} is too small")
        command = ("LRANGE", self._keys.log(run_id), start, start + limit - 1)
        events: list[bytes] = await self._link.call(command, writes=False)
        return events

    async def open_hooks(self, run_id: str) -> dict[str, OpenHook]:
        check_run_id(run_id, self._partitions)
        return await self._hooks.all_of(run_id)

    async def find_hook(self, run_id: str, token: str) -> FoundHook:
        check_run_id(run_id, self._partitions)
        return await self._hooks.find(run_id, token)

    async def has_resumed(self, run_id: str, token: str, resume_id: str) -> bool:
        check_run_id(run_id, self._partitions)
        return await self._hooks.has_resumed(run_id, token, resume_id)

    async def query_runs(self, query: RunQuery) -> RunPage:
        return await self._index.query(query)

    async def count_runs(self) -> dict[tuple[str, RunStatus], int]:
        commands: list[Command] = [
            ("HGETALL", self._keys.open(partition)) for partition in range(self._partitions)
        ]
        counts: defaultdict[tuple[str, RunStatus], int] = defaultdict(int)
        for reply in await self._link.calls(commands, writes=False):
            for field, count in zip(reply[::2], reply[1::2], strict=True):
                app, _, status = field.decode().partition("\0")
                counts[app, RunStatus(status)] += int(count)
        return dict(counts)

    async def bells(self) -> AsyncGenerator[Bell, None]:
        subscription = Subscription(self._address, self._keys.bell)
        if self._is_closed:
            return
        self._subscriptions.add(subscription)
        try:
            async for bell in subscription.listen():
                yield bell
        finally:
            self._subscriptions.discard(subscription)
            subscription.close()

    # ---- streams ----

    async def append_stream(self, append: Append) -> AppendAnswer:
        check_run_id(append.run_id, self._partitions)
        check_append(append)
        return await self._streams.append(append)

    async def read_stream(
        self, run_id: str, name: str, *, start: int, limit: int = MAX_CHUNKS
    ) -> StreamPage | None:
        check_run_id(run_id, self._partitions)
        check_page(name, limit)
        return await self._streams.read(run_id, name, start, limit)

    async def list_streams(self, run_id: str) -> list[StreamRecord] | None:
        check_run_id(run_id, self._partitions)
        return await self._streams.records(run_id)

    # ---- deployments that are to be deleted ----

    async def retire_deployment(self, deployment: str) -> Counts:
        return await self._retirement.retire(deployment)

    async def reinstate_deployment(self, deployment: str) -> None:
        await self._retirement.reinstate(deployment)

    async def deployment_uses(self, deployments: Collection[str]) -> dict[str, DeploymentUse]:
        return await self._retirement.uses(deployments)

    async def close_deployment(self, deployment: str, counts: Counts) -> bool:
        return await self._retirement.close(deployment, counts)

    # ---- records ----

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        return await self._documents.put(kind, record_id, value, expect)

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None:
        return await self._documents.get(kind, record_id)

    async def list_records(self, kind: RecordKind) -> list[Record]:
        return await self._documents.list(kind)

    async def delete_record(self, kind: RecordKind, record_id: str) -> bool:
        return await self._documents.delete(kind, record_id)

    # ---- numbers ----

    async def depth(self, partitions: Sequence[int]) -> tuple[int, int]:
        commands: list[Command] = []
        for partition in partitions:
            commands.append(("XLEN", self._keys.messages(partition)))
            commands.append(("ZCARD", self._keys.timers(partition)))
        lengths = await self._link.calls(commands, writes=False)
        return sum(lengths[::2]), sum(lengths[1::2])

    async def oldest_message_ms(self, partitions: Sequence[int]) -> int | None:
        commands: list[Command] = [
            ("XRANGE", self._keys.messages(partition), "-", "+", "COUNT", "1")
            for partition in partitions
        ]
        firsts = [found[0] for found in await self._link.calls(commands, writes=False) if found]
        # A stream's ids begin with the server's milliseconds at the time of the XADD.
        return min((int(entry[0].partition(b"-")[0]) for entry in firsts), default=None)


def _or_empty(value: int | None) -> Argument:
    return "" if value is None else value
