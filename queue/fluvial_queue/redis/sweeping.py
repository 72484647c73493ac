"""The sweep: removes index entries of expired runs, void claims of tokens and singletons, and marks
of deployments that were deleted long ago, a few at a time.

It rides on lease renewals, one partition each time, so a store without owners is never swept and
one with many is swept no more often than one with few.
"""

from __future__ import annotations

import logging
from typing import Final

from fluvial_queue.contract import StoreError
from fluvial_queue.redis.claims import Claims
from fluvial_queue.redis.index import RunIndex
from fluvial_queue.redis.retirement import Retirement
from fluvial_queue.redis.singletons import Singletons

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 1.0
_START: Final = b"0"


class Sweep:
    """Remembers how far it has got in each partition."""

    def __init__(
        self, index: RunIndex, claims: Claims, singletons: Singletons, retirement: Retirement
    ) -> None:
        self._index = index
        self._claims = claims
        self._singletons = singletons
        self._retirement = retirement
        self._turn = 0
        self._offsets: dict[int, int] = {}
        self._cursors: dict[int, bytes] = {}
        self._singleton_cursors: dict[int, bytes] = {}
        self._next_at = 0.0

    async def step(self, partitions: list[int], now_seconds: float) -> None:
        """Sweep a little of one of `partitions`, if it is time; `now_seconds` is monotonic."""
        if not partitions or now_seconds < self._next_at:
            return
        self._next_at = now_seconds + _INTERVAL_SECONDS
        self._turn += 1
        partition = partitions[self._turn % len(partitions)]
        try:
            await self.sweep(partition)
        except StoreError as error:  # what rides along must not fail the renewal
            logger.info("sweep failed", extra={"partition": partition, "reason": str(error)})

    async def sweep(self, partition: int) -> None:
        """Sweep the next few entries of a partition."""
        offset = self._offsets.get(partition, 0)
        self._offsets[partition] = await self._index.sweep(partition, offset)
        cursor = self._cursors.get(partition, _START)
        self._cursors[partition] = await self._claims.sweep(partition, cursor)
        cursor = self._singleton_cursors.get(partition, _START)
        self._singleton_cursors[partition] = await self._singletons.sweep(partition, cursor)
        await self._retirement.sweep(partition)
