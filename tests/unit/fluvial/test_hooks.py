"""Hooks: durable waits for payloads from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from fluvial.errors import (
    HookConflictError,
    InvalidRequestError,
    NotInWorkflowError,
    SerializationError,
)
from fluvial.events import EventType
from fluvial.hooks import Hook
from fluvial.scope import run_of_token
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


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
    assert outcome.events[1].meta == {"token": "order:1", "chosen": True}


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
    assert opened == [{"token": token, "chosen": False} for token in seen]


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
