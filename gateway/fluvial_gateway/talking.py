"""Talking to live runs by the names of their hooks.

Who talks to a run that is on its way to the hook may wait for it to open: woken by what the run
does, for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from fluvial.errors import HookNotFoundError, RunClosedError
from fluvial.hook_tokens import named_token
from fluvial_gateway.hooks import Hooks, Resumed
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunRecord, RunStatus


@dataclass(frozen=True, slots=True)
class Said:
    """What became of something that was said to a run."""

    outcome: Literal["accepted", "duplicate", "not_open", "continued"]
    position: int = 0  # in the run's log, behind which an answer would stand


class Talking:
    """Says things to runs."""

    def __init__(self, runs: Runs, hooks: Hooks) -> None:
        self._runs = runs
        self._hooks = hooks

    async def say_sealed(
        self,
        record: RunRecord,
        name: str,
        payload: bytes,
        resume_id: str,
        *,
        asks: bool,
        seconds: float,
    ) -> Said:
        """Deliver what an instance has sealed, waiting up to `seconds` for the hook to open.

        Raises:
            InvalidRequestError: it is no name.
            RunClosedError: the run has ended.
        """
        token = named_token(record.run_id, name)

        async def deliver(at: RunRecord) -> Resumed:
            hook = await self._hooks.open_hook(at.run_id, token)
            return await self._hooks.deliver(at, token, hook, payload, resume_id, asks=asks)

        return await self._say(record, deliver, seconds)

    async def say_json(
        self,
        record: RunRecord,
        name: str,
        value: Any,
        resume_id: str,
        *,
        asks: bool,
        seconds: float,
    ) -> Said:
        """Deliver a JSON value, likewise.

        Raises:
            InvalidRequestError, RunClosedError, ProblemError, KeysFrozenError
        """
        token = named_token(record.run_id, name)

        async def deliver(at: RunRecord) -> Resumed:
            return await self._hooks.deliver_json(at, token, value, resume_id, asks=asks)

        return await self._say(record, deliver, seconds)

    async def _say(
        self, record: RunRecord, deliver: Callable[[RunRecord], Awaitable[Resumed]], seconds: float
    ) -> Said:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            try:
                resumed = await deliver(record)
            except RunClosedError:
                if (await self._runs.get(record.run_id)).status is RunStatus.CONTINUED:
                    return Said("continued")
                raise
            except HookNotFoundError:
                left = deadline - loop.time()
                if left <= 0:
                    return Said("not_open")
                # The record is older than the look at the hook, so nothing is missed.
                record = await self._runs.wait_for_events(record.run_id, record.events, left)
            else:
                return Said(resumed.outcome, resumed.position)
