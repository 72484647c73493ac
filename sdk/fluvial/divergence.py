"""Divergence: where a replay asks for something else than the log recorded, told to people.

It costs nothing as long as replays match: only a replay that has diverged is made a second time,
with a `Witness` in the journal's place, which remembers what matched last and which line of user
code asked for what. The text is a small diff:

        STEP_SCHEDULED reserve (operation 1)
        TIMER_SET 3600000 ms (operation 2)
      - recorded: STEP_SCHEDULED charge (operation 3)
      + now:      STEP_SCHEDULED refund (operation 3) at main.py:42 in fulfil

It holds names and numbers from code and log, and no user data.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fluvial.errors import NondeterminismError
from fluvial.events import EventType
from fluvial.journal import Journal, Operation, Recorded, describe
from fluvial.places import Place, place_of_caller, place_of_error, place_of_origin, place_of_wait

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys

_MATCHED: Final = 3  # operations shown before the difference
_ADVICE: Final = (
    "A workflow must ask for the same things in the same order whenever it is run again. Deploy"
    ' code that does (guard an intended change with fluvial.patched("…")), then let the run go on'
    " there: fluvial runs resume RUN --deployment latest"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first place at which a replay and its log part."""

    matched: Sequence[str]  # the last outputs before it, oldest first
    recorded: str | None  # None: the log has no further output there
    now: str | None  # None: the workflow asks for nothing there
    place: Place | None  # which line asks for it, or waits

    def __str__(self) -> str:
        """The diff in lines, without advice."""
        place = "" if self.place is None else f" at {self.place}"
        if self.now is not None:
            now = f"{self.now}{place}"
        else:
            now = f"nothing; the workflow waits{place}"
        recorded = "nothing more" if self.recorded is None else self.recorded
        lines = [f"    {line}" for line in self.matched]
        return "\n".join([*lines, f"  - recorded: {recorded}", f"  + now:      {now}"])

    def explanation(self) -> str:
        """The diff with a heading and what to do next."""
        heading = "the workflow now asks for something else than the log recorded"
        return f"{heading}\n{self}\n{_ADVICE}"


class Witness(Journal):
    """A journal of a replay that sees who asks for what; slower, and only for the second look."""

    __slots__ = ("_asked_at", "_closed_at", "_here", "_is_missing", "_matched", "difference")

    def __init__(
        self,
        keys: RunKeys,
        recorded: Sequence[Recorded],
        patches: Sequence[str],
        arguments: Mapping[int, bytes] = MappingProxyType({}),
    ) -> None:
        super().__init__(keys, recorded, patches, arguments)
        self._matched: deque[str] = deque(maxlen=_MATCHED)
        self._asked_at: dict[Operation, Place | None] = {}
        self._closed_at: dict[int, Place | None] = {}
        self._here: Place | None = None  # of the opening that is being compared
        self._is_missing = False  # the workflow has not asked for what the log goes on with
        self.difference: Difference | None = None

    def ask(self, operation: Operation) -> None:
        super().ask(operation)
        self._asked_at[operation] = _place_of_asking()

    def withdraw(self, operation: Operation) -> None:
        if operation.is_open and operation.id:
            self._closed_at[operation.id] = _place_of_asking()
        super().withdraw(operation)

    def put_opening(self, operation: Operation) -> None:
        self._here = self._asked_at.pop(operation, None)
        recorded = self.upcoming
        try:
            super().put_opening(operation)
        except NondeterminismError:
            if self.difference is None:  # it is the same by what `match` compares
                self._matched.pop()
                now = describe(operation.opens, operation.id, operation.opening_meta())
                what = "another token" if operation.announces else "other arguments"
                self._differs(recorded, f"{now} with {what}", self._here)
            raise
        self._here = None

    def place_of(self, operation: Operation) -> Place | None:
        """Return the line that asks for an operation which is not settled yet."""
        return self._asked_at.get(operation)

    def match(self, event_type: EventType, operation_id: int, meta: dict[str, Any]) -> None:
        recorded = self.upcoming
        now = describe(event_type, operation_id, meta)
        try:
            super().match(event_type, operation_id, meta)
        except NondeterminismError:
            place = self._here or self._closed_at.get(operation_id)
            self._differs(recorded, now, place)
            raise
        self._matched.append(now)

    def match_last(
        self, event_type: EventType, error: BaseException | None, plaintext: bytes | None
    ) -> None:
        self._here = None if error is None else place_of_error(error)
        super().match_last(event_type, error, plaintext)

    def find(self, operation_id: int) -> Operation | None:
        try:
            return super().find(operation_id)
        except NondeterminismError:
            self._is_missing = True
            raise

    def check_complete(self) -> None:
        self._is_missing = self.upcoming is not None
        super().check_complete()

    def note_silence(self, coroutine: Any) -> None:
        """Say where the workflow waits, if it should have asked for what the log goes on with."""
        if self._is_missing and self.upcoming is not None:
            self._differs(self.upcoming, None, place_of_wait(coroutine))

    def _differs(self, recorded: Recorded | None, now: str | None, place: Place | None) -> None:
        self.difference = Difference(
            matched=tuple(self._matched),
            recorded=None if recorded is None else describe(*recorded),
            now=now,
            place=place,
        )


def _place_of_asking() -> Place | None:
    """Return the line that is running, or, where a task of a step's own is (in a gather, say), the
    line that called the step."""
    here = place_of_caller()
    if here is not None:
        return here
    task = asyncio.current_task()
    return None if task is None else place_of_origin(task.get_coro())
