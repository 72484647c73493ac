"""The instances of the sequencer's worlds: they evaluate a program instead of running code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from fluvial.events import INPUTS, OUTPUTS, Event, EventType, decode_event
from fluvial.invocations import Answer
from fluvial_queue.jobs import Job
from tests.unit.fluvial_queue.sequencer_programs import EXHAUSTIBLE, Program

RETRY_DELAYS_MS = (0, 50)


Live = tuple[str, list[bytes]]
"""A live coroutine: its deployment, and the inputs that it has consumed."""


class Instances:
    """Two instances of every deployment; together they hold live coroutines: of each, whose code
    it runs and the inputs that it has consumed."""

    def __init__(self, program: Program, chance: random.Random) -> None:
        self._program = program
        self._random = chance
        self._live: list[dict[bytes, Live]] = [{}, {}]

    def forget(self) -> None:
        """One of them dies."""
        self._random.choice(self._live).clear()

    def evaluate(self, job: Job, log: Sequence[bytes], now_ms: int) -> tuple[str, Answer]:
        """Execute a job on one of them; `log` is that of the run. Return its name and answer."""
        number = self._pick(job.view.live_on)
        if job.kind == "turn":
            return f"ins{number}", self._turn(number, job, log[: job.base])
        return f"ins{number}", self._step(number, job, now_ms)

    def _pick(self, prefer: str | None) -> int:
        if prefer is not None and self._random.random() < 0.8:
            return int(prefer[-1])
        return self._random.randrange(2)

    def _turn(self, number: int, job: Job, log: Sequence[bytes]) -> Answer:
        live, view = self._live[number], job.view
        if job.replay:
            inputs = [e for e in log if decode_event(e).type in INPUTS]
            seen, fresh = inputs[: view.consumed], inputs[view.consumed : job.inputs]
            recorded = [e for e in log if decode_event(e).type in OUTPUTS]
            again = [o.encode() for o in self._outputs([], seen)]
            assert [_shape(e) for e in again] == [_shape(e) for e in recorded], "replay differs"
        elif view.consumed == 0:
            seen, fresh = [], list(view.pending)
        elif view.turn_id in live:
            code, seen = live.pop(view.turn_id or b"")
            assert code == job.deployment, "a coroutine goes on after its run has moved"
            fresh = list(view.pending)
        else:
            return Answer(outcome="not_live")
        return self._advance(live, (job.deployment, seen), fresh)

    def _advance(self, live: dict[bytes, Live], before: Live, fresh: list[bytes]) -> Answer:
        deployment, seen = before
        outputs = self._outputs(seen, fresh)
        turn_id = self._random.randbytes(8)
        live[turn_id] = deployment, [*seen, *fresh]
        return Answer(outcome="ok", turn_id=turn_id, events=[o.encode() for o in outputs])

    def _outputs(self, seen: list[bytes], fresh: list[bytes]) -> list[Event]:
        inputs = [decode_event(e) for e in seen]
        outputs: list[Event] = []
        for encoded in fresh:
            inputs.append(decode_event(encoded))
            outputs += self._program(inputs)
            if outputs and 30 <= outputs[-1].type < 40:
                break
        return outputs

    def _step(self, number: int, job: Job, now_ms: int) -> Answer:
        if self._random.random() < 0.15:
            delay_ms = self._random.choice(RETRY_DELAYS_MS)
            meta: dict[str, Any] = {"attempt": job.attempt, "delay_ms": delay_ms, "reason": "error"}
            if job.view.steps[job.step_id].name == EXHAUSTIBLE:
                meta |= {"exhausted": True, "delay_ms": 0}
            end = Event(EventType.STEP_RETRYING, now_ms, job.step_id, b"e", meta)
            return Answer(outcome="ok", events=[end.encode()])
        end = Event(EventType.STEP_COMPLETED, now_ms, job.step_id, b"r", {})
        live = self._live[number]
        if job.carry is None or live.get(job.carry, ("", []))[0] != job.deployment:
            return Answer(outcome="ok", events=[end.encode()])
        answer = self._advance(live, live.pop(job.carry), [end.encode()])
        events = [end.encode(), *answer.events]
        return Answer(outcome="ok", turn_id=answer.turn_id, events=events)


def _shape(encoded: bytes) -> tuple[EventType, int]:
    event = decode_event(encoded)
    return event.type, event.id
