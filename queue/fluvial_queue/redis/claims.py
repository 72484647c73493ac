"""Claims of user-chosen hook tokens: (app, token) → the run that holds it.

A claim lives in the slot of its own hash, the hook's state in the slot of its run, so a claim may
outlive what it stands for. It is void once its run is gone or has ended, or has closed that hook.
The next claimer checks that and replaces exactly the claim that it checked (compare-and-set on a
value that is never used twice); a sweep removes the rest.
"""

from __future__ import annotations

import secrets
from typing import Final

from fluvial_queue.contract import RunStatus
from fluvial_queue.redis import lua
from fluvial_queue.redis.keys import Keys, claim_field, claim_partition
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Scripts

_ATTEMPTS: Final = 3  # each lost one means that somebody else has just won
_NONCE_HEX: Final = 8
_TERMINAL: Final = frozenset(s.value.encode() for s in RunStatus if s.is_terminal)


class Claims:
    """Claims, looks up and sweeps tokens."""

    def __init__(self, link: Link, scripts: Scripts, keys: Keys, partitions: int) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._partitions = partitions

    async def claim(self, app: str, token: str, run_id: str) -> str:
        """Claim a token; return the id of the run that holds it then."""
        await self._scripts.run(lua.REOPEN, [self._keys.hooks(run_id)], [token])
        void, holder = "", ""
        for _ in range(_ATTEMPTS):
            claim = await self._put(app, token, run_id, void)
            holder = _holder(claim)
            if holder == run_id or not await self._is_void(holder, token):
                break
            void = claim
        return holder

    async def holder(self, app: str, token: str) -> str | None:
        """Return the run that a token's claim names, void or not."""
        key = self._keys.claims(claim_partition(app, token, self._partitions))
        claim = await self._link.call(("HGET", key, claim_field(app, token)), writes=False)
        return None if claim is None else _holder(claim.decode())

    async def sweep(self, partition: int, cursor: bytes) -> bytes:
        """Remove void claims among the next few; return where to go on (`b"0"`: from the start)."""
        key = self._keys.claims(partition)
        command = ("HSCAN", key, cursor, "COUNT", 50)
        cursor, found = await self._link.call(command, writes=False)
        for field, claim in zip(found[::2], found[1::2], strict=True):
            _, _, token = field.decode().partition("\0")
            if await self._is_void(_holder(claim.decode()), token):
                await self._scripts.run(lua.UNCLAIM, [key], [field, claim])
        return cursor

    async def _put(self, app: str, token: str, run_id: str, void: str) -> str:
        key = self._keys.claims(claim_partition(app, token, self._partitions))
        nonce = secrets.token_hex(_NONCE_HEX // 2)
        arguments: list[lua.Argument] = [claim_field(app, token), run_id, nonce, void]
        reply: bytes = await self._scripts.run(lua.CLAIM, [key], arguments)
        return reply.decode()

    async def _is_void(self, run_id: str, token: str) -> bool:
        commands = (
            ("HGET", self._keys.run(run_id), "status"),
            ("HGET", self._keys.hooks(run_id), token),
        )
        status, hook = await self._link.calls(commands, writes=False)
        return status is None or status in _TERMINAL or hook == b""


def _holder(claim: str) -> str:
    return claim[:-_NONCE_HEX]
