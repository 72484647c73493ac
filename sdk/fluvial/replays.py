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
_OUTPUT_TYPES: Final = frozenset(int(t) for t in OUTPUTS)


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
        inputs, recorded = _read(request)
        execution = self._begin(request, inputs, Journal(self._run_keys(request), recorded))
        try:
            feed(execution, inputs[: request.consumed])
            if not execution.is_over:
                execution.journal.end_replay()
            execution.journal.at_ms = request.now_ms
            feed(execution, inputs[request.consumed :])
        except BaseException:
            execution.close()
            raise
        return execution

    def explain(self, request: TurnRequest) -> str:
        """Replay a log that has diverged once more and say how; "" where it does not show."""
        try:
            inputs, recorded = _read(request)
            witness = Witness(self._run_keys(request), recorded)
            with origins_tracked():
                self._watch(request, inputs, witness)
        except FluvialError:
            return ""  # what was wrong with it was told before
        return "" if witness.difference is None else witness.difference.explanation()

    def _watch(self, request: TurnRequest, inputs: list[Input], witness: Witness) -> None:
        execution = self._begin(request, inputs, witness)
        try:
            feed(execution, inputs[: request.consumed])
            if not execution.is_over:
                witness.check_complete()
        except NondeterminismError:
            witness.note_silence(execution.coroutine)
        finally:
            execution.close()

    def _begin(self, request: TurnRequest, inputs: list[Input], journal: Journal) -> Execution:
        workflow = self._registry.workflows.get(request.workflow)
        if workflow is None:
            raise NondeterminismError(f"this deployment has no workflow {request.workflow!r}")
        if not inputs or inputs[0][0] != EventType.RUN_STARTED:
            raise WireError("the log does not begin with RUN_STARTED")
        keys, run_id, sealed_input = self._keys, request.run_id, inputs[0][3]
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


def _read(request: TurnRequest) -> tuple[list[Input], list[Recorded]]:
    """Return a log's inputs and outputs."""
    log = [unpack_event(event) for event in request.events]
    inputs = [event for event in log if event[0] in _INPUT_TYPES]
    recorded: list[Recorded] = [(e[0], e[2], e[4]) for e in log if e[0] in _OUTPUT_TYPES]
    return inputs, recorded
