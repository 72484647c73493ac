"""Whatever the implementation does to the model's programs, the model allows.

`FLUVIAL_HISTORIES` sets how many histories of each program are held against it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.workflows import Workflow
from fluvial_queue.entries import EntryDraft
from fluvial_queue.messages import Message
from fluvial_queue.ready import ReadyResult, ReadyTurn
from tests.model.allowed import Allowed
from tests.model.handoff import MUTANTS, PROGRAMS, Log, Model, explore
from tests.model.histories import DISTURBANCES, MOST_DISTURBANCES, History, play
from tests.model.programs import PROGRAMS as WORKFLOWS

# Bugs are planted in the inner parts, too.
# pyright: reportPrivateUsage=false

HISTORIES = int(os.environ.get("FLUVIAL_HISTORIES", "300"))
HISTORIES_TO_CATCH = 150
STATES = {"fan_out": 15_767, "retry_and_sleep": 34_710}  # of the model, with one disturbance

_known: dict[str, Allowed] = {}


def allowed_of(name: str, program: Callable[[Log], Log]) -> Allowed:
    """Return what the model allows; it is explored once."""
    if name not in _known:
        _known[name] = Allowed(program, disturbances=1)
    return _known[name]


def refusal(allowed: Allowed, history: History) -> str:
    """Return what is wrong with a history, for people; empty if nothing is."""
    index = allowed.refused(history.sights)
    if index is None:
        return ""
    lines = "\n".join(history.lines)
    return f"the model does not allow this after what came before: {history.sights[index]}\n{lines}"


each_program = pytest.mark.parametrize(
    ("workflow", "program"), WORKFLOWS, ids=[workflow.name for workflow, _ in WORKFLOWS]
)


@each_program
def test_every_history_is_one_that_the_model_allows(
    workflow: Workflow[..., Any], program: Callable[[Log], Log]
) -> None:
    allowed = allowed_of(workflow.name, program)
    hits: Counter[str] = Counter()
    for seed in range(HISTORIES):
        history = play(workflow, seed, seed % (MOST_DISTURBANCES + 1))
        hits.update(history.disturbances)

        assert refusal(allowed, history) == "", f"seed {seed}"

    assert hits.keys() == set(DISTURBANCES)
    assert sum(hits.values()) > HISTORIES
    assert allowed.states == STATES[workflow.name]


def _result_twice(patch: pytest.MonkeyPatch) -> None:
    real = EntryDraft._add_end

    def add_end(self: EntryDraft, result: ReadyResult, end: Event) -> None:
        real(self, result, end)
        if end.type is EventType.STEP_COMPLETED and end in self.events and self.turn is None:
            self._add(end)

    patch.setattr(EntryDraft, "_add_end", add_end)


def _too_little_consumed(patch: pytest.MonkeyPatch) -> None:
    real = EntryDraft._add_outputs

    def add_outputs(self: EntryDraft, turn: ReadyTurn, consumed: int) -> None:
        real(self, turn, max(1, consumed - 1))

    patch.setattr(EntryDraft, "_add_outputs", add_outputs)


def _payload_not_recorded(patch: pytest.MonkeyPatch) -> None:
    real = EntryDraft._input
    count = iter(range(1_000_000))

    def take(self: EntryDraft, message: Message) -> Event | None:
        event = real(self, message)
        is_payload = event is not None and event.type is EventType.HOOK_RECEIVED
        return None if is_payload and next(count) % 5 == 0 else event

    patch.setattr(EntryDraft, "_input", take)


@pytest.mark.parametrize("plant", [_result_twice, _too_little_consumed, _payload_not_recorded])
def test_a_planted_bug_shows_in_a_history(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for workflow, program in WORKFLOWS:
        allowed = allowed_of(workflow.name, program)
        for seed in range(HISTORIES_TO_CATCH):
            try:
                history = play(workflow, seed, seed % (MOST_DISTURBANCES + 1))
            except AssertionError:
                return  # it does not come to an end
            if allowed.refused(history.sights) is not None:
                return
    pytest.fail("the model has allowed everything")


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_bug_in_the_model_is_caught_by_it(mutant: str) -> None:
    for disturbances in (0, 1):
        for program in PROGRAMS.values():
            if explore(Model(program, mutant, disturbances), 50_000).violation:
                return
    pytest.fail("the model breaks none of its invariants")
