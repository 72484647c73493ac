"""Cuts: where the log of a run ends that is forked, so that the fork goes on from there.

A turn writes its outputs behind the inputs that it has consumed, in one block; between two turns'
blocks stands at least one input. So a log that ends in front of a block is what the run was before
that turn, with the block's inputs not consumed yet, and a log that ends in front of an input is
what it was before that input came.

To go on *from a step* is to have it, and what came after, happen again, and to keep every result
that was recorded before its own. If that turn asked for nothing else that has ended before the
step did, the cut is in front of the turn: the workflow then asks for the step anew, with the
arguments that its code, perhaps a newer one, makes now. Else it is in front of the step's end: the
step is executed again as it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluvial.errors import InvalidRequestError
from fluvial.events import INPUTS, OUTPUTS, TERMINAL, Event, EventType

_OPENS = frozenset(
    {
        EventType.STEP_SCHEDULED,
        EventType.TIMER_SET,
        EventType.HOOK_OPENED,
        EventType.CHILD_SCHEDULED,
    }
)
_ENDS = frozenset(
    {
        EventType.STEP_COMPLETED,
        EventType.STEP_FAILED,
        EventType.TIMER_FIRED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a log a fork keeps, and how many inputs of that its turns have consumed."""

    events: int
    consumed: int


def cut_before_step(log: Sequence[Event], step_id: int) -> Cut:
    """Return the cut from which a step happens again.

    Raises:
        InvalidRequestError: the log has no such step.
    """
    scheduled = _position(log, lambda e: e.type is EventType.STEP_SCHEDULED and e.id == step_id)
    if scheduled is None:
        known = [str(e.id) for e in log if e.type is EventType.STEP_SCHEDULED]
        shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
        raise InvalidRequestError(f"the run has no step {step_id}; its steps: {shown or 'none'}")
    first = _block_start(log, scheduled)
    end = _end_of(log, step_id, scheduled)
    together = _opened_by(log[first:])
    is_kept = any(e.type in _ENDS and e.id in together for e in log[first:end])
    return _cut(log, end if is_kept else first)


def cut_before_failure(log: Sequence[Event]) -> Cut:
    """Return the cut from which the step that failed last happens again.

    Raises:
        InvalidRequestError: no step of the run has failed.
    """
    failed = [event.id for event in log if event.type is EventType.STEP_FAILED]
    if not failed:
        raise InvalidRequestError("no step of the run has failed: say from which one to go on")
    return cut_before_step(log, failed[-1])


def cut_at_start(log: Sequence[Event]) -> Cut:
    """Return the cut behind the run's input: everything happens again."""
    return _cut(log, 1)


def open_children(log: Sequence[Event]) -> list[int]:
    """Return the children that have not ended in a log: they belong to its own run."""
    opened = {e.id for e in log if e.type is EventType.CHILD_SCHEDULED}
    ended = {e.id for e in log if e.type in _ENDS or e.type is EventType.CHILD_CANCELLED}
    detached = {e.id for e in log if e.meta.get("policy") == "detach"}
    return sorted(opened - ended - detached)


def _end_of(log: Sequence[Event], step_id: int, scheduled: int) -> int:
    """Return where a step's story ends: at its result, or where the run was cancelled, gave the
    step up, or ended; a turn is never cut in two."""
    for position in range(scheduled + 1, len(log)):
        event = log[position]
        if event.type is EventType.CANCEL_REQUESTED:
            return position
        if event.id == step_id and event.type in _ENDS:
            return position
        gives_up = event.type is EventType.STEP_CANCELLED and event.id == step_id
        if gives_up or event.type in TERMINAL:
            return _block_start(log, position)
    return len(log)


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


def _opened_by(block: Sequence[Event]) -> set[int]:
    """Return what one turn asked for: the block's outputs, up to the first that is none."""
    opened: set[int] = set()
    for event in block:
        if event.type not in OUTPUTS:
            break
        if event.type in _OPENS:
            opened.add(event.id)
    return opened


def _position(log: Sequence[Event], wanted: Callable[[Event], bool]) -> int | None:
    return next((i for i, event in enumerate(log) if wanted(event)), None)
