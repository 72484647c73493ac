"""Workflows of the sequencer's worlds: pure functions from the inputs seen so far to the outputs
that the last one causes, as in the model of the hand-off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fluvial.events import Event, EventType
from fluvial.ids import child_run_id, continued_run_id

Program = Callable[[Sequence[Event]], list[Event]]
EXHAUSTIBLE: Final = "exhaustible"  # the name of steps that have one attempt, then the run pauses
DONE: Final = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)


def sequence(seen: Sequence[Event]) -> list[Event]:
    """Five steps, one after the other."""
    return [_step(len(seen))] if len(seen) <= 5 else [_end()]


def fan_out(seen: Sequence[Event]) -> list[Event]:
    """Three parallel steps; a step after all of them; a hook with a chosen token; done."""
    last = seen[-1]
    done = [event.id for event in seen if event.type in DONE]
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _step(2), _step(3)]
    if last.type in DONE and last.id <= 3:
        return [_step(4)] if len(done) == 3 else []
    if last.type in DONE:
        return [_hook(5, chosen=True)]
    return [_end()] if last.type is EventType.HOOK_RECEIVED else []


def hook_first(seen: Sequence[Event]) -> list[Event]:
    """A hook opened up front beside a step; then a sleep unless the payload came; then both."""
    kinds = {event.type for event in seen}
    if seen[-1].type is EventType.RUN_STARTED:
        return [_hook(1, chosen=False), _step(2)]
    has_payload = EventType.HOOK_RECEIVED in kinds
    if seen[-1].type in DONE:
        return [_end()] if has_payload else [_timer(3, 100)]
    return [_end()] if has_payload and EventType.TIMER_FIRED in kinds else []


def race(seen: Sequence[Event]) -> list[Event]:
    """A step against a timer: the loser is given up; then one more step."""
    last = seen[-1]
    rivals = [e for e in seen if e.type is EventType.TIMER_FIRED or (e.type in DONE and e.id == 1)]
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _timer(2, 60)]
    if last in rivals and len(rivals) > 1:
        return []
    if last.type is EventType.TIMER_FIRED:
        return [Event(EventType.STEP_CANCELLED, 0, 1), _step(3)]
    if last.type in DONE and last.id == 1:
        return [Event(EventType.TIMER_CANCELLED, 0, 2), _step(3)]
    return [_end()]


def closing(seen: Sequence[Event]) -> list[Event]:
    """A hook beside a step: the step's end closes the hook, whatever is on its way to it."""
    if seen[-1].type is EventType.RUN_STARTED:
        return [_hook(1, chosen=False), _step(2), _step(3)]
    done = [event.id for event in seen if event.type in DONE]
    if seen[-1].type in DONE and seen[-1].id == 2:
        closed = Event(EventType.HOOK_CLOSED, 0, 1, b"", {"token": "token"})
        return [closed, _end()] if 3 in done else [closed]
    return [_end()] if seen[-1].type in DONE and 2 in done else []


def rivals(seen: Sequence[Event]) -> list[Event]:
    """A token that every run wants: who has it waits for a payload, the others do without."""
    last = seen[-1]
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _hook(2, chosen=True)]
    answered = any(e.type in (EventType.HOOK_RECEIVED, EventType.HOOK_CONFLICT) for e in seen)
    done = [event.id for event in seen if event.type in DONE]
    if last.type is EventType.HOOK_CONFLICT:
        return [_step(3)]
    refused = any(e.type is EventType.HOOK_CONFLICT for e in seen)
    wanted = 2 if refused else 1
    return [_end()] if answered and len(done) == wanted else []


def stoppable(seen: Sequence[Event]) -> list[Event]:
    """Pairs of parallel steps until a cancel; then one step of clean-up; then cancelled."""
    asked = [i for i, event in enumerate(seen) if event.type is EventType.CANCEL_REQUESTED]
    last = seen[-1]
    if asked:
        if last.type is EventType.CANCEL_REQUESTED:
            return [_step(1_000)]
        over = last.type in DONE and last.id == 1_000
        return [Event(EventType.RUN_CANCELLED, 0)] if over else []
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _step(2)]
    done = sum(event.type in DONE for event in seen)
    return [_step(done + 1), _step(done + 2)] if done % 2 == 0 else []


def family(seen: Sequence[Event]) -> list[Event]:
    """A parent with two children beside a step of its own; a child is two steps and a sleep."""
    if seen[0].meta["workflow"] == "child":
        timer = [_timer(3, 60)] if len(seen) == 3 else [_end()]
        return [_step(len(seen))] if len(seen) < 3 else timer
    if len(seen) == 1:
        return [_child(seen, 1, "cancel"), _child(seen, 2, "cancel"), _step(3)]
    return [_end()] if len(seen) == 4 else []


def leaving(seen: Sequence[Event]) -> list[Event]:
    """A parent that ends long before its children: each policy has one."""
    if seen[0].meta["workflow"] == "child":
        if seen[-1].type is EventType.CANCEL_REQUESTED:
            return [Event(EventType.RUN_CANCELLED, 0)]
        return [_timer(1, 400)] if len(seen) == 1 else [_end()]
    if len(seen) == 1:
        policies = ("cancel", "terminate", "abandon", "detach")
        children = [_child(seen, number, policy) for number, policy in enumerate(policies, 1)]
        return [*children, _step(5)]
    given_up = Event(EventType.CHILD_CANCELLED, 0, 1)
    return [given_up, _step(6)] if len(seen) == 2 else [_end()]


def quitting(seen: Sequence[Event]) -> list[Event]:
    """A parent that gives its child up and ends, in one turn."""
    if len(seen) == 1:
        return [_child(seen, 1, "cancel"), _step(2)]
    return [Event(EventType.CHILD_CANCELLED, 0, 1), _end()]


def continuing(seen: Sequence[Event]) -> list[Event]:
    """A child that goes on as a new run twice, and a parent that hears of the last one's end."""
    run_id = seen[0].payload.decode()
    if seen[0].meta["workflow"] != "child":
        return [_child(seen, 1, "cancel")] if len(seen) == 1 else [_end()]
    if len(seen) == 1:
        return [_step(1)]
    first = child_run_id("run_00" + 24 * "0", 1, 1)
    if run_id == continued_run_id(continued_run_id(first)):
        return [_end()]
    following = continued_run_id(run_id)
    return [Event(EventType.RUN_CONTINUED, 0, 0, following.encode(), {"run": following})]


def sleepy(seen: Sequence[Event]) -> list[Event]:
    """Sleeps so long that somebody has to end them, beside a step."""
    if len(seen) == 1:
        return [_timer(1, 50_000, sleep=True), _timer(2, 50_000, sleep=True), _step(3)]
    return [_end()] if len(seen) == 4 else []


def once(seen: Sequence[Event]) -> list[Event]:
    """Steps that run at most once, beside ordinary ones and after them."""
    done = [event.id for event in seen if event.type in DONE]
    if len(seen) == 1:
        return [_step(1, once=True), _step(2), _step(3, once=True)]
    if len(done) == 3:
        return [_step(4, once=True)]
    return [_end()] if len(done) == 4 else []


def exhausting(seen: Sequence[Event]) -> list[Event]:
    """Steps whose last attempt pauses the run when it fails, one after another and together."""
    done = sum(event.type in DONE for event in seen)
    if len(seen) == 1:
        return [_step(1, name=EXHAUSTIBLE)]
    if done == 1:
        return [_step(2, name=EXHAUSTIBLE), _step(3), _step(4, name=EXHAUSTIBLE)]
    return [_end()] if done == 4 else []


def alone(seen: Sequence[Event]) -> list[Event]:
    """Isolated steps, with one retry each: odd ones fail when it is used up, even ones pause."""
    done = sum(event.type in DONE for event in seen)
    if len(seen) == 1 or done in (2, 4, 6):
        first = done + 1
        return [
            _step(first, isolated=_isolated(pauses=False)),
            _step(first + 1, isolated=_isolated(pauses=True)),
        ]
    return [_end()] if done == 8 else []


def _isolated(*, pauses: bool) -> dict[str, Any]:
    return {"retries": 1, "first_ms": 40, "pauses": pauses}


def hurried(seen: Sequence[Event]) -> list[Event]:
    """Steps with a deadline, of which one is given up when another one has ended."""
    done = [event.id for event in seen if event.type in DONE]
    if len(seen) == 1:
        return [_step(1, deadline_ms=1), _step(2, deadline_ms=1), _step(3)]
    if seen[-1].type in DONE and seen[-1].id == 3 and 2 not in done:
        return [Event(EventType.STEP_CANCELLED, 0, 2), _step(4, deadline_ms=1)]
    if seen[-1].type in DONE and seen[-1].id == 3:
        return [_step(4, deadline_ms=1)]
    return [_end()] if 4 in done and 1 in done else []


def _child(seen: Sequence[Event], number: int, policy: str) -> Event:
    run_id = child_run_id(seen[0].payload.decode(), number, 1)
    meta = {"workflow": "child", "run": run_id, "policy": policy}
    return Event(EventType.CHILD_SCHEDULED, 0, number, run_id.encode(), meta)


def _step(step_id: int, *, name: str = "s", **rules: object) -> Event:
    meta: dict[str, Any] = {"name": name, "timeout_ms": 0, **rules}
    return Event(EventType.STEP_SCHEDULED, 0, step_id, b"a", meta)


def _hook(hook_id: int, *, chosen: bool) -> Event:
    return Event(EventType.HOOK_OPENED, 0, hook_id, b"", {"token": "token", "chosen": chosen})


def _timer(timer_id: int, delay_ms: int, *, sleep: bool = False) -> Event:
    return Event(EventType.TIMER_SET, 0, timer_id, b"", {"delay_ms": delay_ms, "sleep": sleep})


def _end() -> Event:
    return Event(EventType.RUN_COMPLETED, 0, 0, b"result")
