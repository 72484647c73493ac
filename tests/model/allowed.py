"""What the model of the hand-off allows: its states as an outsider sees them, and the ways between.

A *sight* is what can be seen of a run in a store: the names of the events in its log, how many
inputs its turns have consumed, its outstanding messages and its timers. Who believes what, and
which coroutines are alive, cannot be seen: several states of the model look the same.

A history of sights is allowed if some path through the model shows it. One step of an
implementation may be several actions of the model (an entry holds several results); then what is
seen on the way must lie between the two sights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tests.model.handoff import Log, Model, State, Store, ViolationError, consumed


class Sight(NamedTuple):
    """What can be seen of a run in a store."""

    log: Log = ()
    consumed: int = 0
    messages: frozenset[str] = frozenset()
    timers: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = [f"log [{' '.join(self.log)}]", f"{self.consumed} consumed"]
        parts += [f"messages {sorted(self.messages)}"] if self.messages else []
        parts += [f"timers {sorted(self.timers)}"] if self.timers else []
        return ", ".join(parts)


class Allowed:
    """All states of the model with up to so many disturbances, and what follows on each.

    Histories may have more disturbances than that, as long as no more of them can be seen: what a
    lost reply or a crash changes is mostly who believes what.

    Raises:
        ViolationError: the model breaks one of its own invariants.
    """

    def __init__(self, program: Callable[[Log], Log], disturbances: int) -> None:
        model = Model(program, faults=disturbances)
        numbers: dict[State, int] = {State(): 0}
        states = [State()]
        self._next: list[list[int]] = []
        for state in states:  # it grows while we walk it
            following: list[int] = []
            for _, _, after in model.successors(state):
                number = numbers.setdefault(after, len(states))
                if number == len(states):
                    states.append(after)
                    if broken := model.broken_in(after.store):
                        raise ViolationError(broken)
                following.append(number)
            self._next.append(following)
        self.states = len(states)
        self._sights = [_sight(state.store) for state in states]

    def refused(self, history: Sequence[Sight]) -> int | None:
        """Return the index of the first sight that no path through the model shows; None: there is
        a path that shows them all."""
        here = self._at(Sight(), {0})
        for index, sight in enumerate(history):
            here = self._reach(here, sight)
            if not here:
                return index
        return None

    def _reach(self, origin: Iterable[int], target: Sight) -> set[int]:
        """Return the states that look like `target`, by ways that show nothing else."""
        seen, todo = set(origin), list(origin)
        reached: set[int] = set()
        while todo:
            for number in self._next[todo.pop()]:
                if number in seen:
                    continue
                sight = self._sights[number]
                if sight == target:
                    reached.add(number)
                elif not _is_before(sight, target):
                    continue
                seen.add(number)
                todo.append(number)
        return self._at(target, reached)

    def _at(self, sight: Sight, origin: set[int]) -> set[int]:
        """Return `origin` and what follows on it without anything to be seen."""
        seen, todo = set(origin), list(origin)
        while todo:
            for number in self._next[todo.pop()]:
                if number not in seen and self._sights[number] == sight:
                    seen.add(number)
                    todo.append(number)
        return seen


def _is_before(sight: Sight, target: Sight) -> bool:
    log = sight.log
    return target.log[: len(log)] == log and sight.consumed <= target.consumed


def _sight(store: Store) -> Sight:
    log = tuple(event for event in store.log if not event.startswith("turn:"))
    return Sight(log, consumed(store.log), _names(store.messages), _names(store.timers))


def _names(messages: Iterable[str]) -> frozenset[str]:
    """Leave out of messages what only tells several of one kind apart."""
    return frozenset(m if m.startswith("step:") else m.partition(":")[0] for m in messages)
