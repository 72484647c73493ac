"""Hooks: durable waits for payloads from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from fluvial.errors import (
    HookClosedError,
    HookConflictError,
    InvalidRequestError,
    NotInWorkflowError,
    SerializationError,
)
from fluvial.events import EventType, decode_event
from fluvial.hook_tokens import named_token, run_of_token
from fluvial.hooks import Hook
from fluvial.payloads import PayloadReader
from fluvial.resealing import ResealRequest, reseal
from fluvial.steps import step
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, OTHER_RUN, RUN, make_keys

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


DAY_MS = 86_400_000


class Approval(BaseModel):
    approved: bool
    by: str


@dataclass(frozen=True)
class Vote:
    by: str
    weight: int = 1


def test_a_payload_comes_back_in_its_type(play: Play) -> None:
    @workflow
    async def main() -> list[object]:
        async with Hook(Approval, token="order:1") as approval:
            answer = await approval
        return [answer.approved, answer.by, type(answer).__name__]

    outcome = play(main, actions=[play.resume(5, Approval(approved=True, by="ada"))])

    assert outcome.result == [True, "ada", "Approval"]
    assert outcome.types == [
        "RUN_STARTED",
        "HOOK_OPENED",
        "HOOK_RECEIVED",
        "HOOK_CLOSED",
        "RUN_COMPLETED",
    ]
    meta = dict(outcome.events[1].meta)
    assert meta.pop("schema")["required"] == ["approved", "by"]
    assert meta == {"token": "order:1", "chosen": True}


@pytest.mark.parametrize("as_json", [True, False])
def test_a_plain_object_is_shaped(play: Play, as_json: bool) -> None:
    @workflow
    async def main() -> list[object]:
        async with Hook(Approval, token="a") as one, Hook(Vote, token="b") as two:
            return [(await one).by, (await two).weight]

    actions = [
        play.resume(1, {"approved": True, "by": "ada"}, token="a", as_json=as_json),
        play.resume(2, {"by": "bob", "weight": 3}, token="b", as_json=as_json),
    ]

    assert play(main, actions=actions).result == ["ada", 3]


def test_a_payload_of_the_wrong_type_raises_where_it_is_awaited(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        async with Hook(Approval, token="a") as hook:
            try:
                await hook
            except SerializationError as error:
                answer = await hook
                return [error.path, answer.by]
        return []

    actions = [
        play.resume(1, {"nonsense": 1}, as_json=True),
        play.resume(2, {"approved": False, "by": "ada"}, as_json=True),
    ]

    assert play(main, actions=actions).result == ["payload.approved", "ada"]


def test_iteration_takes_payloads_in_the_order_of_the_log(play: Play) -> None:
    @step
    async def note(number: int) -> None: ...

    @workflow
    async def main() -> list[int]:
        seen: list[int] = []
        async with Hook(int, token="n") as numbers:
            async for number in numbers:
                seen.append(number)
                await note(number)
                if number == 0:
                    break
        return seen

    actions = [play.resume(t, v) for t, v in ((1, 5), (2, 4), (2, 3), (30, 0))]

    assert play(main, actions=actions, durations={"note": 9}).result == [5, 4, 3, 0]


def test_a_hook_without_token_makes_one_that_carries_the_run(play: Play) -> None:
    seen: list[str] = []

    @step
    async def send(token: str) -> None:
        seen.append(token)

    @workflow
    async def main() -> str:
        async with Hook(str) as one, Hook(str) as two:
            await send(one.token)
            await send(two.token)
            return await two

    outcome = play(main, actions=[play.resume(50, "hello")], before=seen.clear)

    assert outcome.result == "hello"
    assert len(set(seen)) == 2
    assert run_of_token(seen[0]) == "run_0000000000000000000000000a"
    opened = [e.meta for e in outcome.events if e.type is EventType.HOOK_OPENED]
    schema = {"type": "string"}
    assert opened == [{"token": token, "chosen": False, "schema": schema} for token in seen]


def test_a_hook_may_be_awaited_without_opening_it(play: Play) -> None:
    @workflow
    async def main() -> int:
        return await Hook(int, token="x") + await Hook(int, token="y")

    outcome = play(main, actions=[play.resume(1, 1), play.resume(2, 2)])

    assert outcome.result == 3
    assert outcome.count(EventType.HOOK_CLOSED) == 2


def test_a_timeout_loses_no_payload(play: Play) -> None:
    @workflow
    async def main() -> list[object]:
        seen: list[object] = []
        async with Hook(str, token="x") as hook:
            while len(seen) < 3:
                try:
                    async with asyncio.timeout(0.010):
                        seen.append(await hook)
                except TimeoutError:
                    seen.append("timeout")
        return seen

    outcome = play(main, actions=[play.resume(10, "at the same time"), play.resume(25, "later")])

    assert sorted(map(str, outcome.result)) == ["at the same time", "later", "timeout"]


def test_a_payload_for_a_closed_hook_changes_nothing(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(str, token="x") as hook:
            first = await hook
        await asyncio.sleep(1)
        return first

    outcome = play(main, batch=True, actions=[play.resume(1, "first"), play.resume(1, "second")])

    assert outcome.result == "first"


def test_a_taken_token_raises_on_every_wait(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        seen: list[str] = []
        async with Hook(str, token="taken") as hook:
            for _ in range(2):
                try:
                    await hook
                except HookConflictError as error:
                    seen.append(error.token)
        return seen

    outcome = play(main, actions=[play.resume(1, conflict=True)])

    assert outcome.result == ["taken", "taken"]
    assert outcome.count(EventType.HOOK_CLOSED) == 0  # it never was this run's


def test_a_token_is_open_once_within_a_run(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(str, token="x") as hook:
            try:
                async with Hook(str, token="x"):
                    return "both"
            except HookConflictError:
                return await hook

    assert play(main, actions=[play.resume(1, "one")]).result == "one"


def test_a_token_can_be_opened_again_after_it_was_closed(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        return [await Hook(str, token="x") for _ in range(2)]

    assert play(main, actions=[play.resume(1, "a"), play.resume(2, "b")]).result == ["a", "b"]


def test_a_cancelled_wait_in_a_gather_takes_no_payload(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(str, token="x") as hook:
            first = asyncio.ensure_future(hook)
            second = asyncio.ensure_future(hook)
            await asyncio.sleep(0.001)
            first.cancel()
            return await second

    assert play(main, actions=[play.resume(5, "for the second")]).result == "for the second"


def test_hooks_work_in_workflows_only() -> None:
    async def outside() -> None:
        async with Hook(str, token="x"):
            pass

    with pytest.raises(NotInWorkflowError):
        asyncio.run(outside())


@pytest.mark.parametrize("token", ["", "x" * 257, "hook_mine"])
def test_a_bad_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="token"):
        Hook(str, token=token)


def test_the_token_is_unknown_before_a_hook_is_open() -> None:
    with pytest.raises(InvalidRequestError, match="no token"):
        _ = Hook(str).token
    assert Hook(str, token="x").token == "x"


# ---- metadata, timeouts, disposal, conflicts ----


def test_metadata_is_sealed_for_those_who_read_the_log(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(str, token="x", metadata={"amount": 4200}) as hook:
            return await hook

    outcome = play(main, actions=[play.resume(1, "ok")])

    opened = outcome.events[1]
    assert "4200" not in str(opened.meta)
    assert b"amount" not in opened.payload
    assert PayloadReader(make_keys().for_run(RUN)).value(opened) == {"amount": 4200}


def test_a_timeout_closes_the_hook_and_raises(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        seen: list[str] = []
        async with Hook(str, token="x", timeout="2 d") as hook:
            for _ in range(2):
                try:
                    await hook
                except TimeoutError as error:
                    seen.append(str(error))
            async with Hook(str, token="x") as again:  # the token is free
                seen.append(await again)
        return seen

    outcome = play(main, actions=[play.resume(2 * DAY_MS + 1, "late")])

    assert outcome.result == ["nothing came to the hook within 172800 seconds"] * 2 + ["late"]
    assert outcome.events[1].meta["timeout_ms"] == 2 * DAY_MS
    assert outcome.types[:5] == [
        "RUN_STARTED",
        "HOOK_OPENED",
        "TIMER_SET",
        "TIMER_FIRED",
        "HOOK_CLOSED",
    ]


def test_what_came_before_the_timeout_can_still_be_taken(play: Play) -> None:
    @workflow
    async def main() -> list[object]:
        async with Hook(int, token="x", timeout=0.010) as hook:
            await asyncio.sleep(1)
            seen: list[object] = [await hook, await hook]
            try:
                await hook
            except TimeoutError:
                seen.append("timeout")
            return seen

    assert play(main, actions=[play.resume(1, 1), play.resume(2, 2)]).result == [1, 2, "timeout"]


def test_a_hook_that_was_answered_or_closed_has_no_timer_left(play: Play) -> None:
    @workflow
    async def main() -> int:
        first = await Hook(int, token="x", timeout="1h")
        hook = await Hook(int, token="y", timeout="1h").open()
        hook.close()
        hook.close()
        await asyncio.sleep(1)
        return first

    outcome = play(main, actions=[play.resume(5, 7)])

    assert outcome.result == 7
    assert outcome.count(EventType.TIMER_CANCELLED) == 1  # the other never was set
    assert outcome.count(EventType.TIMER_FIRED) == 1  # the sleep


def test_whoever_waits_for_a_hook_hears_that_it_was_closed(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        hook = await Hook(int, token="x").open()

        async def wait() -> str:
            try:
                return str(await hook)
            except HookClosedError:
                return "closed"

        async def count() -> str:
            return str([number async for number in hook])

        tasks = [asyncio.ensure_future(each) for each in (count(), wait(), wait())]
        await asyncio.sleep(0.010)
        hook.close()
        return await asyncio.gather(*tasks)

    outcome = play(main, actions=[play.resume(1, 5)])

    assert outcome.result == ["[5]", "closed", "closed"]


def test_what_nobody_took_is_dropped_when_the_hook_closes(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        hook = await Hook(int, token="x").open()
        await asyncio.sleep(0.010)
        hook.close()
        return [number async for number in hook]

    assert play(main, actions=[play.resume(1, 5)]).result == []


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_conflict_is_told_without_an_error(play: Play, is_taken: bool) -> None:
    @workflow
    async def main() -> list[object]:
        async with Hook(str, token="x") as hook:
            holder = await hook.conflict()
            if holder is not None:
                return [holder, await hook.conflict()]
            return [await hook.conflict(), await hook, await hook.conflict()]

    actions = [play.resume(0, conflict=True)] if is_taken else [play.resume(5, "mine")]
    outcome = play(main, actions=actions)

    assert outcome.result == ([OTHER_RUN, OTHER_RUN] if is_taken else [None, "mine", None])
    assert outcome.count(EventType.TIMER_SET) == 1


def test_a_made_token_has_no_conflict(play: Play) -> None:
    @workflow
    async def main() -> object:
        async with Hook(str) as hook:
            return await hook.conflict()

    outcome = play(main)

    assert outcome.result is None
    assert outcome.count(EventType.TIMER_SET) == 0


def test_a_conflict_ends_the_timeout_too(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            return await Hook(str, token="x", timeout="1h")
        except HookConflictError as error:
            await asyncio.sleep(1)
            return error.run_id

    outcome = play(main, actions=[play.resume(1, conflict=True)])

    assert outcome.result == OTHER_RUN
    assert outcome.count(EventType.TIMER_CANCELLED) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"name": "no spaces"},
        {"name": "1st"},
        {"name": "x" * 65},
        {"name": "a", "token": "b"},
        {"timeout": 0},
        {"timeout": "soon"},
    ],
)
def test_a_hook_with_impossible_options_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        Hook(str, **options)  # type: ignore[arg-type] # as a user's mistake


# ---- requests ----


def test_a_workflow_answers_and_refuses(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        moves: list[str] = []
        async with Hook(Vote, name="vote") as votes:
            async for request in votes.requests():
                if request.value.weight > 5:
                    request.refuse("too heavy")
                    continue
                moves.append(request.value.by)
                await request.answer({"so far": moves})
                if request.value.by == "last":
                    break
        return moves

    actions = [
        play.resume(1, Vote("ada"), ask=True, resume="1"),
        play.resume(2, Vote("bob", 6), ask=True, resume="2"),
        play.resume(3, {"by": "cid", "weight": "x"}, ask=True, resume="3", as_json=True),
        play.resume(4, Vote("sent"), resume="4"),
        play.resume(5, {"nonsense": 1}, resume="5", as_json=True),
        play.resume(6, Vote("last"), ask=True, resume="6"),
    ]
    outcome = play(main, actions=actions)

    assert outcome.result == ["ada", "sent", "last"]
    assert outcome.events[1].meta["token"] == f"hook_{RUN[4:]}_n.vote"
    assert outcome.events[1].meta["name"] == "vote"
    answers = outcome.answers()
    assert answers.pop("3")[:2] == (False, "invalid")
    assert answers == {
        "1": (True, "", {"so far": ["ada"]}),
        "2": (False, "", "too heavy"),
        "6": (True, "", {"so far": ["ada", "sent", "last"]}),
    }


def test_a_request_is_answered_once_also_after_its_hook_is_closed(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(int, name="n") as hook:
            request = await anext(aiter(hook.requests()))
        request.answer(request.value + 1)
        try:
            request.refuse("changed my mind")
        except InvalidRequestError as error:
            return str(error)
        return "twice"

    outcome = play(main, actions=[play.resume(1, 41, ask=True)])

    assert outcome.result == "a request is answered once"
    assert outcome.answers() == {"r": (True, "", 42)}
    assert outcome.types[-3:] == ["HOOK_CLOSED", "HOOK_ANSWERED", "RUN_COMPLETED"]


def test_who_asks_a_hook_that_answers_nothing_hears_that_it_was_taken(play: Play) -> None:
    @workflow
    async def main() -> int:
        return await Hook(int, token="x")

    outcome = play(main, actions=[play.resume(1, 5, ask=True)])

    assert outcome.answers() == {"r": (True, "", None)}


def test_who_asks_a_hook_that_closes_is_told(play: Play) -> None:
    @workflow
    async def main() -> int:
        async with Hook(int, token="x") as hook:
            first = await hook
            await asyncio.sleep(0.010)
        await asyncio.sleep(0.010)
        return first

    actions = [
        play.resume(1, 1, ask=True, resume="taken"),
        play.resume(2, 2, ask=True, resume="untaken"),
        play.resume(3, 3, resume="sent"),
        play.resume(15, 4, ask=True, resume="late", late=True),
        play.resume(16, 5, resume="late and sent", late=True),
    ]
    outcome = play(main, actions=actions)

    closed = (False, "closed", "the hook was closed before the workflow took this")
    assert outcome.result == 1
    assert outcome.answers() == {"taken": (True, "", None), "untaken": closed, "late": closed}


def test_an_invalid_payload_that_was_asked_with_never_reaches_the_workflow(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(Approval, token="a") as hook:
            return (await hook).by

    actions = [
        play.resume(1, {"nonsense": 1}, ask=True, resume="1", as_json=True),
        play.resume(2, Approval(approved=True, by="ada")),
    ]
    outcome = play(main, actions=actions)

    assert outcome.result == "ada"
    assert outcome.answers()["1"][:2] == (False, "invalid")


def test_an_answer_that_cannot_be_stored_raises_in_the_workflow(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(int, name="n") as hook:
            async for request in hook.requests():
                try:
                    request.answer(object())
                except SerializationError as error:
                    request.refuse(error.path)
                    return error.path
        return ""

    outcome = play(main, actions=[play.resume(1, 1, ask=True)])

    assert outcome.result == "answer"
    assert outcome.answers() == {"r": (False, "", "answer")}


def test_a_name_belongs_to_the_run_also_in_a_fork(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with Hook(str, name="word", metadata="for people") as hook, Hook(str) as made:
            word = await hook
            return word + made.token[:0]

    outcome = play(
        main, actions=[play.resume(1, "hello", token=named_token(RUN, "word"), ask=True)]
    )
    taken = [event.encode() for event in outcome.events]
    request = ResealRequest(run_id=RUN, target=OTHER_RUN, app=APP, workflow=main.name, events=taken)
    forked = [decode_event(event) for event in reseal(request, make_keys()).events]

    tokens = [{event.meta["token"] for event in forked if event.id == n} for n in (1, 2)]
    assert tokens[0] == {named_token(OTHER_RUN, "word")}
    assert [run_of_token(token) for token in tokens[1]] == [RUN]  # a secret stays what it was
    reader = PayloadReader(make_keys().for_run(OTHER_RUN))
    values = [reader.value(event) for event in forked if event.type.name.startswith("HOOK_")]
    assert values == ["for people", None, "hello", None, None, None]
