"""The turn engine: live runs, replays, and steps that carry over into the next turn.

Invariants (DESIGN §5.3):

1.  Every evaluated turn gets a fresh random turn id. A live coroutine is continued only by a
    request that names the id of its last turn; by anything else (an older id, another history of
    the same length) it is not, and the answer is `not_live`.
2.  A request with the log replays it from the beginning: the consumed inputs must lead to exactly
    the recorded outputs. Otherwise the answer is `diverged`, and nothing is proposed or kept.
3.  A step carries over only into the coroutine that the request names, synchronously, after its
    result is known: live and replay see the same plaintext at the same place.
4.  Nothing per turn depends on the length of the history.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from fluvial import guards
from fluvial.attempts import Attempts
from fluvial.context import current_invocation
from fluvial.errors import DecryptionError, NondeterminismError, WireError
from fluvial.events import INPUTS, OUTPUTS, EventType, decode_event, pack_event, unpack_event
from fluvial.execution import Execution, Input
from fluvial.invocations import (
    MAX_EVENTS_PER_ANSWER,
    TURN_ID_BYTES,
    Answer,
    RevealRequest,
    StepRequest,
    TurnRequest,
)
from fluvial.journal import Recorded
from fluvial.payloads import PayloadReader, render
from fluvial.scope import RunScope
from fluvial.threads import StepThreads, Threads
from fluvial.verdicts import Verdict

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.registry import Registry

DEFAULT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_INPUT_TYPES: Final = frozenset(int(t) for t in INPUTS)
_OUTPUT_TYPES: Final = frozenset(int(t) for t in OUTPUTS)


class LiveRuns:
    """An instance's live runs, and all that it answers to turns, steps and reveals.

    Used from one event loop. `limit_bytes` bounds the memory (estimated) of suspended runs; the
    one used last is always kept.
    """

    def __init__(
        self,
        registry: Registry,
        keys: AppKeys,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        threads: Threads | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        guards.install()
        self._registry = registry
        self._keys = keys
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._attempts = Attempts(registry, keys, threads if threads is not None else StepThreads())
        self._live: OrderedDict[str, Execution] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def held_bytes(self) -> int:
        """The estimated memory of all live runs."""
        return self._held_bytes

    def turn(self, request: TurnRequest) -> Answer:
        """Advance a run by its new inputs. Synchronous; takes CPU only."""
        try:
            if request.turn_id is None:
                return self._replay(request)
            execution = self._live.get(request.run_id)
            if execution is None or execution.turn_id != request.turn_id:
                return Answer(outcome="not_live")
            execution.journal.at_ms = request.now_ms
            inputs = (unpack_event(event) for event in request.events)
            self._advance(execution, inputs)
            return self._conclude(request.run_id, execution)
        except (NondeterminismError, DecryptionError, WireError) as error:
            self._drop(request.run_id)
            return Answer(outcome="diverged", reason=str(error))
        except BaseException:
            self._drop(request.run_id)  # half advanced: nobody may continue it
            raise

    async def step(self, request: StepRequest) -> Answer:
        """Execute one attempt of a step, and take the next turn if `carry` is live here.

        A cancellation is raised, as ever: the caller answers `cancelled`.
        """
        started = self._clock()
        verdict = await self._attempts.execute(request)
        at_ms = request.now_ms + int((self._clock() - started) * 1000)
        meta = {"attempt": request.attempt, "invocation": request.invocation, **verdict.meta}
        index = request.attempt if verdict.kind == "step_error" else 0
        payload = self._keys.for_run(request.run_id).seal(
            verdict.plaintext, verdict.kind, request.id, index
        )
        outcome: Input = (int(verdict.type), at_ms, request.id, payload, meta)
        event = pack_event(*outcome)
        if request.carry is not None and verdict.type is not EventType.STEP_RETRYING:
            carried = self._carry(request, outcome, verdict)
            if carried is not None:
                return Answer(
                    outcome="ok", turn_id=carried.turn_id, events=(event, *carried.events)
                )
        return Answer(outcome="ok", events=(event,))

    def reveal(self, request: RevealRequest) -> list[str | None]:
        """Return a text for people per event; None for an event without payload."""
        reader = PayloadReader(self._keys.for_run(request.run_id))
        return list(render(reader, map(decode_event, request.events)))

    def close(self) -> None:
        """Drop all live runs."""
        self.forget(list(self._live))

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop live runs that will not be asked for again."""
        for run_id in run_ids:
            self._drop(run_id)

    def _carry(self, request: StepRequest, outcome: Input, verdict: Verdict) -> Answer | None:
        execution = self._live.get(request.run_id)
        if execution is None or execution.turn_id != request.carry:
            return None
        try:
            execution.journal.at_ms = outcome[1]
            execution.loop.invocation = current_invocation()
            with execution.loop.running():
                execution.feed(outcome, verdict.plaintext)
            answer = self._conclude(request.run_id, execution)
        except (NondeterminismError, DecryptionError):
            self._drop(request.run_id)  # the result stands; the turn comes again, as a replay
            return None
        except BaseException:
            self._drop(request.run_id)
            raise
        if len(answer.events) >= MAX_EVENTS_PER_ANSWER:  # no room for the step's own event
            self._drop(request.run_id)
            return None
        return answer

    def _replay(self, request: TurnRequest) -> Answer:
        self._drop(request.run_id)
        log = [unpack_event(event) for event in request.events]
        inputs = [event for event in log if event[0] in _INPUT_TYPES]
        recorded: list[Recorded] = [(e[0], e[2], e[4]) for e in log if e[0] in _OUTPUT_TYPES]
        execution = self._new_execution(request, inputs, recorded)
        try:
            consumed = request.consumed
            self._advance(execution, inputs[:consumed])
            if not execution.is_over:
                execution.journal.end_replay()
            execution.journal.at_ms = request.now_ms
            self._advance(execution, inputs[consumed:])
        except BaseException:
            execution.close()
            raise
        return self._conclude(request.run_id, execution)

    def _new_execution(
        self, request: TurnRequest, inputs: list[Input], recorded: list[Recorded]
    ) -> Execution:
        workflow = self._registry.workflows.get(request.workflow)
        if workflow is None:
            raise NondeterminismError(f"this deployment has no workflow {request.workflow!r}")
        if not inputs or inputs[0][0] != EventType.RUN_STARTED:
            raise WireError("the log does not begin with RUN_STARTED")
        keys, run_id, sealed_input = self._keys, request.run_id, inputs[0][3]
        scope = RunScope(
            run_id, request.app, request.workflow, lambda: keys.run_secret(run_id, sealed_input)
        )
        return Execution(workflow, scope, keys.for_run(run_id), recorded)

    def _advance(self, execution: Execution, inputs: Iterable[Input]) -> None:
        execution.loop.invocation = current_invocation()
        with execution.loop.running():
            for given in inputs:
                if execution.is_over:
                    return
                execution.feed(given)

    def _conclude(self, run_id: str, execution: Execution) -> Answer:
        execution.turn_id = os.urandom(TURN_ID_BYTES)
        events = execution.journal.take_outputs()
        if execution.is_over:
            self._drop(run_id)
            execution.close()
        else:
            self._keep(run_id, execution)
        return Answer(outcome="ok", turn_id=execution.turn_id, events=events)

    def _keep(self, run_id: str, execution: Execution) -> None:
        self._live[run_id] = execution
        self._live.move_to_end(run_id)
        size = execution.held_bytes
        self._held_bytes += size - self._sizes.get(run_id, 0)
        self._sizes[run_id] = size
        while self._held_bytes > self._limit_bytes and len(self._live) > 1:
            self._drop(next(iter(self._live)))

    def _drop(self, run_id: str) -> None:
        execution = self._live.pop(run_id, None)
        if execution is not None:
            self._held_bytes -= self._sizes.pop(run_id)
            execution.close()
