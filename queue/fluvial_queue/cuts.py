"""Cuts: where the log of a run ends that is forked, so that the fork goes on from there.

A turn writes its outputs behind the inputs that it has consumed, in one block; between two turns'
blocks stands at least one input. So a log that ends in front of a block is what the run was before
that turn, with the block's inputs not consumed yet, and a log that ends in front of an input is
what it was before that input came.

To go on *from a step* is to have it, and what came after, happen again, and to keep every result
that was recorded before its own. If there is none since it was asked for, the cut is in front of
the turn that did: the workflow then asks for the step anew, with the arguments that its code,
perhaps a newer one, makes now. Else it is in front of the step's end: the step is executed again
as it was asked for. A timeout that fired is no result: it is set again.

To go on *from what failed last* is to leave the failures out that no turn has reacted to before the
last one did, and to keep everything else: to a turn, the order of results is what it happens to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fluvial.errors import InvalidRequestError
from fluvial.events import INPUTS, OUTPUTS, TERMINAL, Event, EventType

_ENDS_OF_STEPS = frozenset({EventType.STEP_COMPLETED, EventType.STEP_FAILED})
_ENDS_OF_CHILDREN = frozenset(
    {EventType.CHILD_COMPLETED, EventType.CHILD_FAILED, EventType.CHILD_CANCELLED}
)
_RESULTS = frozenset(
    {
        *_ENDS_OF_STEPS,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
        EventType.HOOK_RECEIVED,
    }
)
_SHOWN = 20  # steps that an error names


class StepNotFoundError(InvalidRequestError):
    """A log has no such step; the error lists those that it has."""

    code = "step_not_found"

    def __init__(self, wanted: int | str, steps: Mapping[int, str]) -> None:
        named = f"step {wanted}" if isinstance(wanted, int) else f"step named {wanted!r}"
        super().__init__(f"the run has no {named}; its steps: {_listed(steps)}")
        self.steps = dict(steps)


class StepAmbiguousError(InvalidRequestError):
    """A log has several steps of a name; the error lists them."""

    code = "step_ambiguous"

    def __init__(self, wanted: str, steps: Mapping[int, str]) -> None:
        super().__init__(f"the run has several steps named {wanted!r}, say which: {_listed(steps)}")
        self.steps = dict(steps)


class NoFailedStepError(InvalidRequestError):
    """No step of a log has failed; the error lists its steps."""

    code = "no_failed_step"

    def __init__(self, steps: Mapping[int, str]) -> None:
        super().__init__(
            "no step of the run has failed: fork it from one of its steps, or run it again as a "
            f"whole; its steps: {_listed(steps)}"
        )
        self.steps = dict(steps)


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a log a fork keeps, and how many inputs of that its turns have consumed."""

    events: int
    consumed: int
    left_out: frozenset[int] = frozenset()  # positions, behind the last turn's block

    def kept(self, log: Sequence[Event]) -> list[Event]:
        """Return the events that the fork begins with."""
        return [e for at, e in enumerate(log[: self.events]) if at not in self.left_out]


def steps_of(log: Sequence[Event]) -> dict[int, str]:
    """Return the steps that a log has asked for: ids and names."""
    return {e.id: str(e.meta["name"]) for e in log if e.type is EventType.STEP_SCHEDULED}


def find_step(log: Sequence[Event], wanted: int | str) -> int:
    """Return the id of a step that is named by its id or, if no other has it, its name.

    Raises:
        StepNotFoundError, StepAmbiguousError
    """
    steps = steps_of(log)
    if isinstance(wanted, int):
        if wanted not in steps:
            raise StepNotFoundError(wanted, steps)
        return wanted
    named = {step_id: name for step_id, name in steps.items() if name == wanted}
    if len(named) > 1:
        raise StepAmbiguousError(wanted, named)
    if not named:
        raise StepNotFoundError(wanted, steps)
    return next(iter(named))


def cut_before_step(log: Sequence[Event], step_id: int) -> Cut:
    """Return the cut from which a step happens again.

    Raises:
        StepNotFoundError
    """
    scheduled = _position(log, lambda e: e.type is EventType.STEP_SCHEDULED and e.id == step_id)
    if scheduled is None:
        raise StepNotFoundError(step_id, steps_of(log))
    first = _block_start(log, scheduled)
    end = _end_of(log, step_id, scheduled)
    return _cut(log, end if _has_result(log, log[first:end]) else first)


def cut_before_failure(log: Sequence[Event]) -> Cut:
    """Return the cut from which the step that failed last, and those that failed beside it, happen
    again.

    Raises:
        NoFailedStepError
    """
    failed = [at for at, event in enumerate(log) if event.type is EventType.STEP_FAILED]
    if not failed:
        raise NoFailedStepError(steps_of(log))
    start = _inputs_start(log, failed[-1])
    end = _inputs_end(log, start)
    again = [at for at in failed if start <= at < end]
    if not again:  # the run was cancelled before
        return cut_before_step(log, log[failed[-1]].id)
    ids = {log[at].id for at in again}
    first = _position(log, lambda e: e.type is EventType.STEP_SCHEDULED and e.id in ids)
    first = start if first is None else _block_start(log, first)
    kept = [log[at] for at in range(first, end) if at not in again]
    if not _has_result(log, kept):
        return _cut(log, first)
    return replace(_cut(log, end), left_out=frozenset(again))


def cut_at_start(log: Sequence[Event]) -> Cut:
    """Return the cut behind the run's input: everything happens again."""
    return _cut(log, 1)


def open_children(log: Sequence[Event]) -> list[int]:
    """Return the children that have not ended in a log: they belong to its own run."""
    opened = {e.id for e in log if e.type is EventType.CHILD_SCHEDULED}
    ended = {e.id for e in log if e.type in _ENDS_OF_CHILDREN}
    detached = {e.id for e in log if e.meta.get("policy") == "detach"}
    return sorted(opened - ended - detached)


def _listed(steps: Mapping[int, str]) -> str:
    shown = [f"{step_id} {name}" for step_id, name in list(steps.items())[:_SHOWN]]
    return (", ".join(shown) or "none") + (", …" if len(steps) > _SHOWN else "")


def _end_of(log: Sequence[Event], step_id: int, scheduled: int) -> int:
    """Return where a step's story ends: at its result, or where the run was cancelled, or in front
    of the last that came before the workflow gave the step up, or ended."""
    for position in range(scheduled + 1, len(log)):
        event = log[position]
        if event.type is EventType.CANCEL_REQUESTED:
            return position
        if event.id == step_id and event.type in _ENDS_OF_STEPS:
            return position
        gives_up = event.type is EventType.STEP_CANCELLED and event.id == step_id
        if gives_up or event.type in TERMINAL:
            return max(0, _block_start(log, position) - 1)
    return len(log)


def _has_result(log: Sequence[Event], part: Sequence[Event]) -> bool:
    """Whether a result, or the end of a sleep, is in a part of a log."""
    fired = {event.id for event in part if event.type is EventType.TIMER_FIRED}
    return any(event.type in _RESULTS for event in part) or any(
        event.id in fired and event.meta.get("sleep")
        for event in log
        if event.type is EventType.TIMER_SET
    )


def _cut(log: Sequence[Event], events: int) -> Cut:
    """Return a cut, with what earlier turns have consumed: the inputs before their last block."""
    last = events
    while last and log[last - 1].type not in OUTPUTS:
        last -= 1
    consumed = log[: _block_start(log, last)]
    return Cut(events, sum(event.type in INPUTS for event in consumed))


def _block_start(log: Sequence[Event], position: int) -> int:
    while position and log[position - 1].type in OUTPUTS:
        position -= 1
    return position


def _inputs_start(log: Sequence[Event], position: int) -> int:
    while position and log[position - 1].type in INPUTS:
        position -= 1
    return position


def _inputs_end(log: Sequence[Event], position: int) -> int:
    """Return where inputs end that stand in a row, or the run was cancelled."""
    while position < len(log) and log[position].type in INPUTS - {EventType.CANCEL_REQUESTED}:
        position += 1
    return position


def _position(log: Sequence[Event], wanted: Callable[[Event], bool]) -> int | None:
    return next((i for i, event in enumerate(log) if wanted(event)), None)
