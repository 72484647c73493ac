"""A log that was tampered with is refused: values altered, swapped, or brought from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import StepFailedError
from fluvial.events import INPUTS, Event, EventType, decode_event
from fluvial.hooks import Hook
from fluvial.invocations import RevealRequest, StepRequest, TurnRequest, Unreadable
from fluvial.payloads import PayloadReader
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import RUN, Play

OTHER_RUN = "run_0000000000000000000000000b"


@pytest.fixture
def events(play: Play) -> list[Event]:
    """The log of a run with values of many kinds, most of them equal."""

    @step
    async def echo(text: str) -> str:
        return text

    @step(retries=0)
    async def fail(text: str) -> None:
        raise ValueError(text)

    @workflow(name="main")
    async def main(text: str) -> str:
        one, two = await echo(text), await echo(text)
        try:
            await fail(one)
        except StepFailedError:
            text = two
        async with Hook(str, token="hook") as hook:
            return text + await hook

    outcome = play(main, "same", actions=[play.resume(5, "same", token="hook")])
    assert outcome.types[-1] == "RUN_COMPLETED"
    return outcome.events


def replayed(keys: AppKeys, events: list[Event]) -> str:
    """Take the last turn of a run again, by its log; return the answer's outcome."""
    inputs = [place for place, event in enumerate(events) if event.type in INPUTS]
    log = events[: inputs[-1] + 1]
    request = TurnRequest(
        run_id=RUN,
        app="orders",
        workflow="main",
        turn_id=None,
        consumed=len(inputs) - 1,
        now_ms=10_000,
        events=[event.encode() for event in log],
    )
    return LiveRuns(registry, keys).turn(request).outcome


def executed(keys: AppKeys, scheduled: Event) -> EventType:
    """Execute a step by its event; return how it ended."""
    request = StepRequest(
        run_id=RUN,
        app="orders",
        workflow="main",
        step=scheduled.meta["name"],
        id=scheduled.id,
        attempt=1,
        invocation="inv_x",
        timeout_ms=0,
        now_ms=10_000,
        carry=None,
        input=scheduled.payload,
    )
    answer = asyncio.run(LiveRuns(registry, keys).step(request))
    if answer.outcome == "blocked":  # it names a key that nobody has
        return EventType.RUN_PAUSED
    return decode_event(answer.events[0]).type


def sealed_elsewhere(keys: AppKeys, events: list[Event], wanted: Event) -> bytes:
    """Return the same value, sealed for the same place of another run."""
    reader = PayloadReader(keys.for_run(RUN))
    for event in events:
        place, plaintext = reader.place_of(event), reader.open(event)
        if event is wanted and place is not None:
            other = keys.for_run(OTHER_RUN)
            return other.seal(plaintext or b"", place.kind, place.correlation, place.index)
    raise AssertionError("the event has no value")


def wrong_payloads(keys: AppKeys, events: list[Event], event: Event) -> Iterator[bytes]:
    """Yield what may stand in an event's place: others' values, its own from elsewhere, altered."""
    own = event.payload
    yield from (other.payload for other in events if other.payload not in (b"", own))
    yield sealed_elsewhere(keys, events, event)
    yield own[:-1]
    yield own + b"\0"
    for position in range(len(own)):
        yield own[:position] + bytes((own[position] ^ 1,)) + own[position + 1 :]


def test_what_a_workflow_consumes_is_refused_in_any_other_form(
    keys: AppKeys, events: list[Event]
) -> None:
    consumed = [event for event in events if event.type in INPUTS and event.payload]
    assert {event.type.name for event in consumed} == {
        "RUN_STARTED",
        "STEP_COMPLETED",
        "STEP_FAILED",
        "HOOK_RECEIVED",
    }
    assert replayed(keys, events) == "ok"

    for event in consumed:
        for payload in wrong_payloads(keys, events, event):
            tampered = replace(event, payload=payload)
            log = [tampered if other is event else other for other in events]
            # blocked: the flipped bit is in the key's name
            assert replayed(keys, log) in ("diverged", "blocked"), (event, payload)


def test_what_a_step_is_given_is_refused_in_any_other_form(
    keys: AppKeys, events: list[Event]
) -> None:
    scheduled = next(event for event in events if event.type is EventType.STEP_SCHEDULED)
    assert executed(keys, scheduled) is EventType.STEP_COMPLETED

    for payload in wrong_payloads(keys, events, scheduled):
        end = executed(keys, replace(scheduled, payload=payload))
        assert end in (EventType.STEP_FAILED, EventType.RUN_PAUSED), payload


def test_what_people_are_shown_is_refused_in_any_other_form(
    keys: AppKeys, events: list[Event]
) -> None:
    for event in [event for event in events if event.payload]:
        opened = [other for other in events if other.type is EventType.HOOK_OPENED]
        for payload in wrong_payloads(keys, events, event):
            tampered = replace(event, payload=payload)
            request = RevealRequest(
                run_id=RUN,
                app="orders",
                workflow="main",
                events=[other.encode() for other in [*opened, tampered]],
            )
            *_, shown = LiveRuns(registry, keys).reveal(request)
            assert isinstance(shown, Unreadable), (event, payload)
