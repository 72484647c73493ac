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

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from fluvial import guards
from fluvial.attempts import Attempts
from fluvial.checks import CheckReport, CheckRequest
from fluvial.context import current_invocation
from fluvial.errors import (
    DecryptionError,
    FluvialError,
    KeyDestroyedError,
    KeyMissingError,
    KeysFrozenError,
    NondeterminismError,
    WireError,
)
from fluvial.events import EventType, decode_event, pack_event, unpack_event
from fluvial.execution import Execution, Input
from fluvial.invocations import (
    MAX_EVENTS_PER_ANSWER,
    TURN_ID_BYTES,
    Answer,
    Revealed,
    RevealRequest,
    StepRequest,
    TurnRequest,
)
from fluvial.payloads import PayloadReader, render
from fluvial.replays import Replays, feed
from fluvial.resealing import ResealRequest, reseal
from fluvial.threads import StepThreads, Threads
from fluvial.unguarded import monotonic, random_bytes
from fluvial.verdicts import Verdict
from fluvial.webhook_checks import VerifyRequest, verdict

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.registry import Registry

DEFAULT_LIMIT_BYTES: Final = 64 * 1024 * 1024


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
        clock: Callable[[], float] = monotonic,
    ) -> None:
        guards.install()
        self._keys = keys
        self._limit_bytes = limit_bytes
        self._clock = clock
        used = threads if threads is not None else StepThreads()
        self._attempts = Attempts(registry, keys, used, clock)
        self._replays = Replays(registry, keys)
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
        if self._keys.is_frozen:
            return _blocked(KeysFrozenError(self._keys.app))
        try:
            if request.turn_id is None:
                self._drop(request.run_id)
                return self._conclude(request.run_id, self._replays.bring_back(request))
            execution = self._live.get(request.run_id)
            if execution is None or execution.turn_id != request.turn_id:
                return Answer(outcome="not_live")
            execution.journal.at_ms = request.now_ms
            inputs = (unpack_event(event) for event in request.events)
            feed(execution, inputs)
            return self._conclude(request.run_id, execution)
        except (KeyMissingError, KeyDestroyedError) as error:
            self._drop(request.run_id)
            return _blocked(error)
        except (NondeterminismError, DecryptionError, WireError) as error:
            self._drop(request.run_id)
            return Answer(outcome="diverged", reason=self._reason(request, error))
        except BaseException:
            self._drop(request.run_id)  # half advanced: nobody may continue it
            raise

    async def step(self, request: StepRequest) -> Answer:
        """Execute one attempt of a step, and take the next turn if `carry` is live here.

        A cancellation is raised, as ever: the caller answers `cancelled`.
        """
        if self._keys.is_frozen:  # its result could not be sealed
            return _blocked(KeysFrozenError(self._keys.app))
        started = self._clock()
        try:
            verdict = await self._attempts.execute(request)
        except (KeyMissingError, KeyDestroyedError) as error:
            return _blocked(error)
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

    def check(self, request: CheckRequest) -> CheckReport:
        """Replay a run's log and report; live runs and the run itself are left alone."""
        return self._replays.check(request)

    def reseal(self, request: ResealRequest) -> Answer:
        """Seal what a forked run takes over from its origin for the fork."""
        return reseal(request, self._keys)

    def reveal(self, request: RevealRequest) -> list[Revealed]:
        """Return what people are shown of each event."""
        reader = PayloadReader(self._keys.for_run(request.run_id))
        return list(render(reader, map(decode_event, request.events)))

    def verify(self, request: VerifyRequest) -> str | None:
        """Return what is wrong with the signature of a request to a webhook; None: nothing."""
        return verdict(request, self._keys)

    def close(self) -> None:
        """Drop all live runs."""
        self.forget(list(self._live))

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop live runs that will not be asked for again."""
        for run_id in run_ids:
            self._drop(run_id)

    def _reason(self, request: TurnRequest, error: FluvialError) -> str:
        difference = None
        if request.turn_id is None and isinstance(error, NondeterminismError):
            difference = self._replays.difference(request)
        return str(error) if difference is None else difference.explanation()

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

    def _conclude(self, run_id: str, execution: Execution) -> Answer:
        execution.turn_id = random_bytes(TURN_ID_BYTES)
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


def _blocked(error: FluvialError) -> Answer:
    return Answer(outcome="blocked", reason=f"{error.code}: {error}")
