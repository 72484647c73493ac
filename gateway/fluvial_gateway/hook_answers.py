"""Waiting for what a run answers to a payload: HOOK_ANSWERED with the id of its resume."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from fluvial.events import EventType, unpack_event
from fluvial_gateway.runs import Runs

_PAGE: Final = 64  # events read at a time; each may have megabytes
_HOOK_ANSWERED: Final = int(EventType.HOOK_ANSWERED)


@dataclass(frozen=True, slots=True)
class Answered:
    """The run has answered."""

    event: bytes  # HOOK_ANSWERED, encoded
    is_ok: bool
    why: str  # if the runtime has refused: "invalid" or "closed"


@dataclass(frozen=True, slots=True)
class Silent:
    """The run has not answered; if `status` is a terminal one, it never will."""

    position: int  # in the log, up to which there is no answer
    status: str
    is_over: bool


class HookAnswers:
    """Waits for answers in runs' logs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def wait(
        self, run_id: str, token: str, resume_id: str, *, start: int, seconds: float
    ) -> Answered | Silent:
        """Return the answer as soon as it is in the log behind `start`; or, after `seconds` or once
        the run has ended, that there is none.

        Raises:
            RunNotFoundError: its retention is over.
        """
        loop = asyncio.get_running_loop()
        deadline, position = loop.time() + seconds, start
        while True:
            events = await self._runs.events(run_id, start=position, limit=_PAGE)
            for encoded in events:
                answered = _answer_in(encoded, token, resume_id)
                if answered is not None:
                    return answered
            position += len(events)
            if events:
                continue
            record = await self._runs.get(run_id)
            if record.events > position:
                continue
            left = deadline - loop.time()
            if record.status.is_terminal or left <= 0:
                return Silent(position, record.status.value, record.status.is_terminal)
            await self._runs.wait_for_events(run_id, position, left)


def _answer_in(encoded: bytes, token: str, resume_id: str) -> Answered | None:
    kind, _, _, _, meta = unpack_event(encoded)
    if kind != _HOOK_ANSWERED or meta.get("token") != token or meta.get("resume") != resume_id:
        return None
    return Answered(encoded, meta.get("ok") is True, str(meta.get("why", "")))
