"""Where a Redis store keeps the claims of singletons, and their sweep."""

from __future__ import annotations

from typing import Final

from fluvial_queue.contract import RunStatus, SingletonClaim
from fluvial_queue.redis import lua
from fluvial_queue.redis.keys import Keys, claim_field, claim_partition
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Scripts
from fluvial_queue.singletons import claim_singleton, is_void

_SWEPT: Final = 50  # claims looked at in one step


class Singletons:
    """Claims and sweeps singletons; a `ClaimBoard`."""

    def __init__(self, link: Link, scripts: Scripts, keys: Keys, partitions: int) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._partitions = partitions

    async def claim(self, app: str, key: str, run_id: str, replaces: str) -> SingletonClaim:
        """Claim a singleton for a run that is about to be started."""
        return await claim_singleton(self, app, key, run_id, replaces=replaces)

    async def sweep(self, partition: int, cursor: bytes) -> bytes:
        """Remove void claims among the next few; return where to go on (`b"0"`: from the start)."""
        name = self._keys.singletons(partition)
        cursor, found = await self._link.call(
            ("HSCAN", name, cursor, "COUNT", _SWEPT), writes=False
        )
        now_ms = await self.now_ms() if found else 0
        for field, claim in zip(found[::2], found[1::2], strict=True):
            if await is_void(self, claim.decode(), now_ms):
                await self._scripts.run(lua.UNCLAIM, [name], [field, claim])
        return cursor

    # ---- ClaimBoard ----

    async def now_ms(self) -> int:
        seconds, microseconds = await self._link.call(("TIME",), writes=False)
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def put(self, app: str, key: str, run_id: str, stamp: str, void: str) -> str:
        name = self._keys.singletons(claim_partition(app, key, self._partitions))
        arguments: list[lua.Argument] = [claim_field(app, key), run_id, stamp, void]
        held: bytes = await self._scripts.run(lua.CLAIM, [name], arguments)
        return held.decode()

    async def status_of(self, run_id: str) -> RunStatus | None:
        status = await self._link.call(("HGET", self._keys.run(run_id), "status"), writes=False)
        return None if status is None else RunStatus(status.decode())
