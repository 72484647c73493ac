"""Talking to live runs by the names of their hooks.

Who talks to a run that is on its way to the hook may wait for it to open: woken by what the run
does, for a bounded time. What is said to a run that has gone on as a new one is for the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from fluvial.errors import HookNotFoundError, RunClosedError
from fluvial.hook_tokens import named_token
from fluvial_gateway.hooks import Hooks, Resumed
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunRecord, RunStatus

_MAX_HOPS: Final = 1000  # runs in a row that went on as new ones


@dataclass(frozen=True, slots=True)
class Said:
    """What became of something that was said to a run."""

    run_id: str
    token: str
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

        "continued": it is to be sealed anew, for the run that goes on in the place of this one.

        Raises:
            InvalidRequestError: it is no name.
            RunClosedError: the run has ended.
        """
        token = named_token(record.run_id, name)

        async def deliver(at: RunRecord) -> Resumed:
            hook = await self._hooks.open_hook(at.run_id, token)
            return await self._hooks.deliver(at, token, hook, payload, resume_id, asks=asks)

        return await self._say(record, token, deliver, _deadline(seconds))

    async def say_json(
        self,
        record: RunRecord,
        hook: str,
        value: Any,
        resume_id: str,
        *,
        asks: bool,
        seconds: float,
    ) -> Said:
        """Deliver a JSON value to a hook with a name, likewise, or to the open one with an id.

        Raises:
            InvalidRequestError, RunClosedError, ProblemError, KeysFrozenError
            HookNotFoundError: no hook of that id is open.
        """
        deadline = _deadline(seconds)
        for _ in range(_MAX_HOPS):
            said = await self._say_json(record, hook, value, resume_id, asks, deadline)
            if said.outcome != "continued":
                return said
            record = await self._runs.get(said.run_id)
        raise RunClosedError(record.run_id)

    async def _say_json(
        self,
        record: RunRecord,
        hook: str,
        value: Any,
        resume_id: str,
        asks: bool,
        deadline: float,
    ) -> Said:
        hook_id = int(hook) if hook.isdecimal() else 0
        if hook_id:
            token = await self._hooks.token_of(record.run_id, hook_id)
            deadline = _now()  # an id that is not open never will be
        else:
            token = named_token(record.run_id, hook)

        async def deliver(at: RunRecord) -> Resumed:
            return await self._hooks.deliver_json(
                at, token, value, resume_id, asks=asks, hook_id=hook_id
            )

        return await self._say(record, token, deliver, deadline)

    async def _say(
        self,
        record: RunRecord,
        token: str,
        deliver: Callable[[RunRecord], Awaitable[Resumed]],
        deadline: float,
    ) -> Said:
        run_id = record.run_id
        while True:
            left = deadline - _now()
            try:
                resumed = await deliver(record)
            except RunClosedError:
                return await self._continued(run_id, token, left)
            except HookNotFoundError:
                if left <= 0:
                    return Said(run_id, token, "not_open")
                # The record is older than the look at the hook, so nothing is missed.
                record = await self._runs.wait_for_events(run_id, record.events, left)
            else:
                return Said(run_id, token, resumed.outcome, resumed.position)

    async def _continued(self, run_id: str, token: str, left: float) -> Said:
        record = await self._runs.get(run_id)
        following = await self._runs.following(record, left)
        if following is not None:
            return Said(following.run_id, token, "continued")
        if record.status is RunStatus.CONTINUED:
            return Said(run_id, token, "not_open")
        raise RunClosedError(run_id)


def _deadline(seconds: float) -> float:
    return _now() + seconds


def _now() -> float:
    return asyncio.get_running_loop().time()
