"""Keeping the embedded store running, whatever ends it.

A store that syncs each write ends itself when a write fails. Where the disk is full, starting it
again would only end it again: it is started when there is room, and that counts as no failure.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from fluvial_deploy.up.keeping import Deaths, ProgramFailedError, Tell
from fluvial_deploy.up.processes import Program, status_text
from fluvial_queue.redis.embedded import EmbeddedValkey
from fluvial_queue.redis.room import LEAST_BYTES, DiskRoom

_LOOK_SECONDS: Final = 1.0


class StoreKeeper:
    """Starts the store again when it has ended."""

    def __init__(self, store: EmbeddedValkey, folder: Path, *, log: Path, tell: Tell) -> None:
        self._store = store
        self._folder = folder
        self._room = DiskRoom(folder)
        self._log = log
        self._tell = tell

    async def keep(self) -> None:
        """Keep the store, which runs already.

        Raises:
            ProgramFailedError: it died too often.
        """
        deaths = Deaths(asyncio.get_running_loop().time)
        while True:
            status = status_text(await self._store.wait())
            if not self._room.allows_a_server:
                await self._wait_for_room(status)
            else:
                await self._mourn(status, deaths)
            await self._store.start()

    async def _wait_for_room(self, status: str) -> None:
        self._tell(
            f"store ended ({status}): the disk of {self._folder} is full; the store is started "
            f"again when {LEAST_BYTES >> 20} MiB are free there"
        )
        while not self._room.allows_a_server:  # noqa: ASYNC110 - nothing announces room on a disk
            await asyncio.sleep(_LOOK_SECONDS)
        self._tell("there is room again: starting the store")

    async def _mourn(self, status: str, deaths: Deaths) -> None:
        delay = deaths.add()
        if delay is None:
            program = Program(name="store", command=(), environment={}, log=self._log)
            raise ProgramFailedError(program, "died again and again")
        self._tell(f"store ended ({status}): starting it again; log {self._log}")
        await asyncio.sleep(delay)
