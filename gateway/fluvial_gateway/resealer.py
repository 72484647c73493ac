"""Resealing: having values of one run sealed for another.

A sealed value is bound to its run, and the gateway can open none. An instance of the app can, and
seals it anew (`fluvial.resealing`). Whoever needs that holds a whole log in memory meanwhile, so
few are admitted at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fluvial.resealing import ResealRequest
from fluvial_gateway.invocations import (
    Answered,
    Invocations,
    Lost,
    Outcome,
    Unavailable,
    outcome_of,
)
from fluvial_gateway.problems import ProblemError
from fluvial_queue.contract import RunRecord

_UNDER_WAY: Final = 2  # logs in memory, twice each
_ADMITTED: Final = 32  # with those that wait for their turn
_BATCH_EVENTS: Final = 2_000  # sealed anew in one invocation
_BATCH_BYTES: Final = 8 * 1024 * 1024
_DEADLINE_SECONDS: Final = 60.0  # of a batch: a cold start with heavy imports, and some


class Resealer:
    """Asks deployments to seal events anew."""

    def __init__(self, invocations: Invocations) -> None:
        self._invocations = invocations
        self._places = asyncio.Semaphore(_UNDER_WAY)
        self._admitted = 0

    @asynccontextmanager
    async def admitted(self) -> AsyncGenerator[None, None]:
        """Let the block hold a log in memory, when it is its turn.

        Raises:
            ProblemError: too many wait already, or its turn does not come.
        """
        if self._admitted >= _ADMITTED:
            raise ProblemError("too_many_waits", f"{_ADMITTED} forks and reruns wait already")
        self._admitted += 1
        try:
            await self._turn()
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._admitted -= 1

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise ProblemError(
                "too_many_waits", f"{_UNDER_WAY} forks and reruns are under way for too long"
            ) from None

    async def reseal(
        self, origin: RunRecord, target: str, deployment: str, events: Sequence[bytes]
    ) -> list[bytes]:
        """Return events of `origin`, from the first of its log on, sealed for the run `target` by
        an instance of `deployment`.

        Raises:
            ProblemError: it was not done.
        """
        sealed: list[bytes] = []
        for batch in _batches(events):
            request = ResealRequest(
                run_id=origin.run_id,
                target=target,
                app=origin.app,
                workflow=origin.workflow,
                events=batch,
            )
            outcome = await outcome_of(
                self._invocations,
                deployment,
                request.to_frame_fields(),
                deadline_seconds=_DEADLINE_SECONDS,
            )
            sealed += _resealed(outcome, len(batch))
        return sealed


def _resealed(outcome: Outcome, expected: int) -> Sequence[bytes]:
    match outcome:
        case Answered(answer=answer):
            if answer.outcome == "ok" and len(answer.events) == expected:
                return answer.events
            reason = "the instance answered without it: see its log"
        case Lost(reason=reason):
            reason = f"the instance that did it ended: {reason}"
        case Unavailable(code=code, message=message, retryable=retryable):
            reason = f"no instance could be asked: {code}: {message}"
            if retryable:
                raise ProblemError("unavailable", reason)
    raise ProblemError("not_resealed", f"what the run did cannot be taken over: {reason}")


def _batches(events: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        if batches[-1] and (len(batches[-1]) >= _BATCH_EVENTS or size + len(event) > _BATCH_BYTES):
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += len(event)
    return batches
