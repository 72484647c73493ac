"""Where a memory store keeps the claims of singletons."""

from __future__ import annotations

from fluvial_queue.contract import RunStatus
from fluvial_queue.memory.state import Backend


class MemoryClaimBoard:
    """A `ClaimBoard` over a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def now_ms(self) -> int:
        return self._backend.clock()

    async def put(self, app: str, key: str, run_id: str, stamp: str, void: str) -> str:
        claims = self._backend.singletons
        held = claims.get((app, key))
        if held is None or held == void or held.startswith(run_id):
            held = claims[app, key] = run_id + stamp
        return held

    async def status_of(self, run_id: str) -> RunStatus | None:
        run = self._backend.run(run_id)
        return None if run is None else run.status
