"""Replays: a workflow's code run again from its event log, to where it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from fluvial.context import current_invocation
from fluvial.divergence import Witness
from fluvial.errors import FluvialError, NondeterminismError, WireError
from fluvial.events import INPUTS, OUTPUTS, EventType, unpack_event
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
_COMPARED_TYPES: Final = frozenset(int(t) for t in OUTPUTS) - {_PATCHED}


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
        journal = Journal(self._run_keys(request), log.recorded, log.patches)
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

    def explain(self, request: TurnRequest) -> str:
        """Replay a log that has diverged once more and say how; "" where it does not show."""
        try:
            log = _Log(request.events)
            witness = Witness(self._run_keys(request), log.recorded, log.patches)
            with origins_tracked():
                self._watch(request, log, witness)
        except FluvialError:
            return ""  # what was wrong with it was told before
        return "" if witness.difference is None else witness.difference.explanation()

    def _watch(self, request: TurnRequest, log: _Log, witness: Witness) -> None:
        execution = self._begin(request, log, witness)
        try:
            feed(execution, log.inputs[: request.consumed])
            if not execution.is_over:
                witness.check_complete()
        except NondeterminismError:
            witness.note_silence(execution.coroutine)
        finally:
            execution.close()

    def _begin(self, request: TurnRequest, log: _Log, journal: Journal) -> Execution:
        workflow = self._registry.workflows.get(request.workflow)
        if workflow is None:
            raise NondeterminismError(f"this deployment has no workflow {request.workflow!r}")
        if not log.inputs or log.inputs[0][0] != EventType.RUN_STARTED:
            raise WireError("the log does not begin with RUN_STARTED")
        keys, run_id, sealed_input = self._keys, request.run_id, log.inputs[0][3]
        scope = RunScope(
            run_id, request.app, request.workflow, lambda: keys.run_secret(run_id, sealed_input)
        )
        return Execution(workflow, scope, self._run_keys(request), journal)

    def _run_keys(self, request: TurnRequest) -> RunKeys:
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

    def __init__(self, encoded: Iterable[bytes]) -> None:
        events = [unpack_event(event) for event in encoded]
        self.inputs = [event for event in events if event[0] in _INPUT_TYPES]
        self.recorded: list[Recorded] = [
            (e[0], e[2], e[4]) for e in events if e[0] in _COMPARED_TYPES
        ]
        self.patches = [str(e[4].get("patch")) for e in events if e[0] == _PATCHED]
