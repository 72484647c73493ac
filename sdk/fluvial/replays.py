"""Replays: a workflow's code run again from its event log, to where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fluvial.audit import Auditor
from fluvial.checks import CheckReport, CheckRequest
from fluvial.context import current_invocation
from fluvial.divergence import Difference, Witness
from fluvial.errors import DecryptionError, FluvialError, NondeterminismError, WireError
from fluvial.events import INPUTS, OUTPUTS, EventType, unpack_log
from fluvial.execution import Execution, Input
from fluvial.invocations import TurnRequest
from fluvial.journal import Journal, Recorded
from fluvial.places import origins_tracked
from fluvial.scope import RunScope

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys, RunKeys
    from fluvial.registry import Registry

_INPUT_TYPES: Final = frozenset(int(t) for t in INPUTS)
_PATCHED: Final = int(EventType.PATCHED)
_STEP_SCHEDULED: Final = int(EventType.STEP_SCHEDULED)
_RUN_FORKED: Final = int(EventType.RUN_FORKED)
_MOVES: Final = frozenset({int(EventType.RUN_STARTED), int(EventType.RUN_RESUMED), _RUN_FORKED})
_COMPARED_STEPS: Final = 64  # whose arguments are opened at either end of a log: that costs time
_COMPARED_TYPES: Final = frozenset(int(t) for t in OUTPUTS) - {_PATCHED}
_AUDITED_TYPES: Final = frozenset({int(EventType.STEP_SCHEDULED), int(EventType.RUN_COMPLETED)})

Replayed = TurnRequest | CheckRequest


class Replays:
    """Brings runs of one app back from their logs. Synchronous; takes CPU only."""

    def __init__(self, registry: Registry, keys: AppKeys) -> None:
        self._registry = registry
        self._keys = keys

    def bring_back(self, request: TurnRequest) -> Execution:
        """Return the run with all inputs of the log consumed; its journal holds what is new.

        Raises:
            NondeterminismError: the workflow does not ask for what the log recorded.
            DecryptionError, WireError: the log cannot be read.
        """
        log = _Log(request.events)
        journal = Journal(self._run_keys(request), *log.outputs, log.arguments())
        execution = self._begin(request, log, journal)
        try:
            feed(execution, log.inputs[: request.consumed])
            if not execution.is_over:
                execution.journal.end_replay()
            execution.journal.at_ms = request.now_ms
            feed(execution, log.inputs[request.consumed :])
        except BaseException:
            execution.close()
            raise
        return execution

    def check(self, request: CheckRequest) -> CheckReport:
        """Replay the consumed inputs of a log, propose nothing, and report."""
        try:
            log = _Log(request.events)
            self._go_through(request, log, Journal(self._run_keys(request), *log.outputs))
            warnings = self._warnings(request, log) if request.compares_values else ()
        except NondeterminismError as error:
            difference = self.difference(request)
            detail = str(error) if difference is None else str(difference)
            return CheckReport(verdict="diverged", detail=detail)
        except (DecryptionError, WireError) as error:
            return CheckReport(verdict="unreadable", detail=str(error))
        return CheckReport(verdict="ok", warnings=warnings)

    def difference(self, request: Replayed) -> Difference | None:
        """Replay a log that has diverged once more, to see where; None: it does not show."""
        try:
            log = _Log(request.events)
            arguments = log.arguments() if isinstance(request, TurnRequest) else {}
            witness = Witness(self._run_keys(request), *log.outputs, arguments)
            with origins_tracked(), suppress(NondeterminismError):
                self._go_through(request, log, witness)
        except FluvialError:
            return None  # what was wrong with it was told before
        return witness.difference

    def _warnings(self, request: CheckRequest, log: _Log) -> Sequence[str]:
        auditor = Auditor(self._run_keys(request), *log.outputs, sealed=log.sealed())
        with origins_tracked():
            self._go_through(request, log, auditor)
        return auditor.warnings

    def _go_through(self, request: Replayed, log: _Log, journal: Journal) -> None:
        """Replay the consumed inputs; it must end where the log does."""
        execution = self._begin(request, log, journal)
        try:
            feed(execution, log.inputs[: request.consumed])
            if not execution.is_over:
                journal.check_complete()
        except NondeterminismError:
            if isinstance(journal, Witness):
                journal.note_silence(execution.coroutine)
            raise
        finally:
            execution.close()

    def _begin(self, request: Replayed, log: _Log, journal: Journal) -> Execution:
        workflow = self._registry.find_workflow(request.workflow)
        if workflow is None:
            raise NondeterminismError(f"this deployment has no workflow {request.workflow!r}")
        if not log.inputs or log.inputs[0][0] != EventType.RUN_STARTED:
            raise WireError("the log does not begin with RUN_STARTED")
        scope = RunScope(
            request.run_id,
            request.app,
            request.workflow,
            self._secret(request.run_id, log.inputs[0]),
            partitions=request.partitions,
        )
        return Execution(workflow, scope, self._run_keys(request), journal)

    def _secret(self, run_id: str, started: Input) -> Callable[[], bytes]:
        """Return what gives the seed of a run's chance: a forked run has that of its origin."""
        keys, sealed_input, seed = self._keys, started[3], started[4].get("seed")
        if seed is None:
            return lambda: keys.run_secret(run_id, sealed_input)
        # At once: should that key be gone, the run is kept from going on, not the code surprised.
        secret = keys.derive(str(seed["key"]), "secret", str(seed["run"]))
        return lambda: secret

    def _run_keys(self, request: Replayed) -> RunKeys:
        return self._keys.for_run(request.run_id)


def feed(execution: Execution, inputs: Iterable[Input]) -> None:
    """Let a run consume inputs, one at a time, until it is over."""
    execution.loop.invocation = current_invocation()
    with execution.loop.running():
        for given in inputs:
            if execution.is_over:
                return
            execution.feed(given)


class _Log:
    """What a replay needs of a log.

    Raises:
        WireError: it holds something else than events.
    """

    def __init__(self, encoded: Sequence[bytes]) -> None:
        self._events = unpack_log(encoded)
        self.inputs = [event for event in self._events if event[0] in _INPUT_TYPES]

    @property
    def outputs(self) -> tuple[list[Recorded], list[str]]:
        """What a journal compares with, and the patches that were taken."""
        events = self._events
        recorded = [(e[0], e[2], e[4]) for e in events if e[0] in _COMPARED_TYPES]
        return recorded, [str(e[4].get("patch")) for e in events if e[0] == _PATCHED]

    def arguments(self) -> dict[int, bytes]:
        """The recorded arguments that a replay compares, by the ids of their steps: of those that
        this very deployment has asked for, as another one's code may well have given others."""
        steps = [e for e in self._events[self._own_part() :] if e[0] == _STEP_SCHEDULED]
        if len(steps) > 2 * _COMPARED_STEPS:
            steps = steps[:_COMPARED_STEPS] + steps[-_COMPARED_STEPS:]
        return {e[2]: e[3] for e in steps}

    def _own_part(self) -> int:
        """Return where the events begin that the run has had on this deployment."""
        invocation = current_invocation()
        moves = [(at, e) for at, e in enumerate(self._events) if e[0] in _MOVES]
        for at, event in moves[::-1]:
            if event[0] == _RUN_FORKED:
                return at
            deployment = event[4].get("deployment")
            if deployment is not None:
                is_here = invocation is None or deployment == invocation.deployment
                return at if is_here else len(self._events)
        return 0

    def sealed(self) -> dict[int, bytes]:
        """The recorded arguments of steps by their ids; the run's result by 0."""
        return {e[2]: e[3] for e in self._events if e[0] in _AUDITED_TYPES}
