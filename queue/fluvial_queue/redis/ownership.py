"""What a partition's owner does: leases, windows, timers and commits."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fluvial.errors import InvalidRequestError
from fluvial_queue.checks import check_entries
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    CommitReply,
    FiredTimers,
    Lease,
    Pulse,
    StoredMessage,
)
from fluvial_queue.messages import decode_message
from fluvial_queue.redis import lua
from fluvial_queue.redis.commits import commit_answers, commit_arguments, split_group
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.lua import Argument, Scripts


class Ownership:
    """The owner's operations. Those of one partition reach the server in call order, except that
    a group too large for one script goes in parts; `_large` holds the others back meanwhile."""

    def __init__(self, scripts: Scripts, keys: Keys, retention_ms: int) -> None:
        self._scripts = scripts
        self._keys = keys
        self._retention_ms = retention_ms
        self._large: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    # ---- leases ----

    async def acquire(self, partition: int, *, owner: str, ttl_ms: int) -> Lease | None:
        """Take a partition that is free, expired, or held under the same name."""
        nonce = secrets.token_hex(8)
        keys = [self._keys.lease(partition)]
        reply = await self._scripts.run(lua.ACQUIRE, keys, [owner, _ttl(ttl_ms), nonce])
        return None if reply is None else Lease(partition, reply[0], nonce, reply[1])

    async def renew(self, leases: Sequence[Lease], *, ttl_ms: int) -> list[Pulse]:
        """Prolong leases that are still held."""
        _ttl(ttl_ms)
        return await asyncio.gather(*[self._renew(lease, ttl_ms) for lease in leases])

    async def _renew(self, lease: Lease, ttl_ms: int) -> Pulse:
        partition = lease.partition
        keys = [
            self._keys.lease(partition),
            self._keys.messages(partition),
            self._keys.timers(partition),
        ]
        reply = await self._scripts.run(lua.RENEW, keys, [lease.epoch, lease.nonce, ttl_ms])
        if reply is None:
            return Pulse(False, None, "")
        return Pulse(True, _due(reply[0]), reply[1].decode())

    async def release(self, lease: Lease, *, rested: bool) -> None:
        """Give a partition up."""
        keys = [self._keys.lease(lease.partition)]
        await self._scripts.run(lua.RELEASE, keys, [lease.epoch, lease.nonce, int(rested)])

    # ---- messages and timers ----

    async def window(self, lease: Lease, *, after: str, limit: int) -> list[StoredMessage] | None:
        """Read outstanding messages, behind every commit that was called before."""
        start = f"({after}" if after else "-"
        keys = [self._keys.lease(lease.partition), self._keys.messages(lease.partition)]
        arguments: list[Argument] = [lease.epoch, lease.nonce, start, limit]
        await self._wait_for_large(lease.partition)
        while True:
            repeats = self._scripts.repeats
            entries = await self._scripts.run(lua.WINDOW, keys, arguments)
            if repeats == self._scripts.repeats:
                break  # else a commit that was called before this may have come behind it
        return None if entries is None else [_stored(id_, fields) for id_, fields in entries]

    async def fire_timers(self, lease: Lease, *, limit: int) -> FiredTimers | None:
        """Move due timers into the messages: look which, then move them with their runs' keys."""
        partition = lease.partition
        keys = [
            self._keys.lease(partition),
            self._keys.messages(partition),
            self._keys.timers(partition),
        ]
        guard: list[Argument] = [lease.epoch, lease.nonce]
        found = await self._scripts.run(lua.DUE, [keys[0], keys[2]], [*guard, limit])
        if found is None:
            return None
        now_ms, next_due, bodies = found
        if not bodies:
            return FiredTimers((), _due(next_due), now_ms)
        runs = [self._keys.run(decode_message(body).run_id) for body in bodies]
        moved = await self._scripts.run(lua.FIRE, [*keys, *runs], [*guard, *bodies])
        if moved is None:
            return None
        now_ms, next_due, ids = moved
        messages = [
            StoredMessage(id_.decode(), lease.epoch, body)
            for id_, body in zip(ids, bodies, strict=True)
            if id_
        ]
        return FiredTimers(tuple(messages), _due(next_due), now_ms)

    # ---- commits ----

    async def commit(self, lease: Lease, entries: Sequence[CommitEntry]) -> CommitReply:
        """Apply a group, each entry atomically."""
        check_entries(lease, entries)
        parts = list(split_group(entries))
        if len(parts) > 1:
            async with self._large[lease.partition]:
                return await self._commit_parts(lease, parts)
        await self._wait_for_large(lease.partition)
        return await self._commit(lease, entries)

    async def _commit(self, lease: Lease, entries: Sequence[CommitEntry]) -> CommitReply:
        partition = lease.partition
        keys = [
            self._keys.lease(partition),
            self._keys.messages(partition),
            self._keys.timers(partition),
            self._keys.open(partition),
        ]
        arguments: list[Argument] = [
            lease.epoch,
            lease.nonce,
            self._retention_ms,
            self._keys.bell,
        ]
        commit_arguments(self._keys, entries, keys, arguments)
        now_ms, *replies = await self._scripts.run(lua.COMMIT, keys, arguments)
        return CommitReply(tuple(commit_answers(replies)), now_ms)

    async def _commit_parts(self, lease: Lease, parts: Sequence[list[CommitEntry]]) -> CommitReply:
        """Apply one part after the other: a run that was refused stays refused in the next."""
        refused: dict[str, CommitAnswer] = {}
        answers: list[CommitAnswer] = []
        now_ms = 0
        for part in parts:
            skipped = frozenset(refused)
            reply = await self._commit(lease, [e for e in part if e.run_id not in skipped])
            now_ms = reply.now_ms
            fresh = iter(reply.answers)
            for entry in part:
                answer = refused[entry.run_id] if entry.run_id in skipped else next(fresh)
                if answer.outcome is not CommitOutcome.OK:
                    refused[entry.run_id] = answer
                answers.append(answer)
        return CommitReply(tuple(answers), now_ms)

    async def _wait_for_large(self, partition: int) -> None:
        large = self._large.get(partition)
        if large is not None and large.locked():
            async with large:
                pass


def _ttl(ttl_ms: int) -> int:
    if ttl_ms < 1:
        raise InvalidRequestError(f"ttl_ms must be at least 1, got {ttl_ms}")
    return ttl_ms


def _due(score: bytes) -> int | None:
    return int(score) if score else None


def _stored(message_id: bytes, fields: list[Any]) -> StoredMessage:
    return StoredMessage(message_id.decode(), int(fields[1]), fields[3])
