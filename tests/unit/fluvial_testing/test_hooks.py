"""Hooks on the kit's engine: the sequencer, the store's rules, and whoever talks to runs, together,
in the three modes in which turns can continue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import get_args

import pytest

import fluvial
from fluvial import (
    AskRefusedError,
    AskUnansweredError,
    Hook,
    HookNotFoundError,
    InvalidRequestError,
    RunClosedError,
    RunNotFoundError,
    start,
    step,
    workflow,
)
from fluvial.events import EventType
from fluvial.ids import continued_run_id
from fluvial.testing import Environment, Mode, StuckError, SyncEnvironment


@dataclass
class Move:
    player: str
    column: int


@dataclass
class Board:
    moves: list[int]


Play = Callable[[Callable[[Environment], Awaitable[None]]], None]


@pytest.fixture(params=get_args(Mode))
def play(request: pytest.FixtureRequest) -> Play:
    def play_in_mode(scenario: Callable[[Environment], Awaitable[None]]) -> None:
        async def body() -> None:
            async with Environment(mode=request.param) as env:
                await scenario(env)

        asyncio.run(body())

    return play_in_mode


@step(name="kit.hooks.think")
async def think(column: int) -> int:
    return column


@workflow(name="kit.hooks.game")
async def game(until: int) -> list[int]:
    board = Board([])
    async with Hook(Move, name="move") as moves:
        async for request in moves.requests():
            column = await think(request.value.column)
            if column in board.moves:
                request.refuse(f"column {column} is taken")
                continue
            board.moves.append(column)
            fluvial.publish(len(board.moves))
            request.answer(board)
            if len(board.moves) == until:
                break
    return board.moves


@workflow(name="kit.hooks.late")
async def late() -> str:
    await fluvial.sleep(5)
    return await Hook(str, name="word")


@workflow(name="kit.hooks.deaf")
async def deaf(how: str) -> str:
    async with Hook(str, name="word", timeout="1h") as hook:
        await fluvial.sleep(60)
        if how == "close":
            hook.close()
            await fluvial.sleep(60)
        if how == "fail":
            raise ValueError("no")
    return how


@workflow(name="kit.hooks.endless")
async def endless(number: int) -> None:
    word = await Hook(str, name="word")
    if word == "next":
        fluvial.continue_as_new(number + 1)


@workflow(name="kit.hooks.holder")
async def holder(token: str) -> str | None:
    async with Hook(str, token=token) as hook:
        other = await hook.conflict()
        if other is not None:
            return other
        return await hook


@workflow(name="kit.hooks.sums")
async def sums() -> list[int]:
    return [await Hook(int, token="number") for _ in range(2)]


def test_a_game_is_played_by_asking(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(game, 3)
        assert await env.ask(run, "move", Move("ada", 1), wanted=Board) == Board([1])
        with pytest.raises(AskRefusedError, match="column 1 is taken") as refused:
            await env.ask(run, "move", Move("bob", 1))
        assert (refused.value.name, refused.value.reason) == ("move", "column 1 is taken")
        with pytest.raises(AskRefusedError, match="payload"):
            await env.ask(run, "move", {"player": "bob"})
        assert await env.send(run, "move", Move("bob", 2))
        assert await env.ask(run, "move", Move("ada", 3)) == Board([1, 2, 3])
        assert await run.state() == 3
        assert await run.result() == [1, 2, 3]

    play(scenario)


def test_asking_again_with_the_same_id_is_the_same_question(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(game, 2)
        for _ in range(2):
            assert await env.ask(run, "move", Move("a", 1), resume_id="1") == Board([1])
        assert await env.send(run, "move", Move("b", 2), resume_id="2")
        assert not await env.send(run, "move", Move("b", 2), resume_id="2")
        assert await run.result() == [1, 2]

    play(scenario)


@pytest.mark.parametrize("resume_id", ["", "r" * 513])
def test_a_resume_id_is_short_text(play: Play, resume_id: str) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(late)
        with pytest.raises(InvalidRequestError, match="resume_id"):
            await run.send("word", "hello", resume_id=resume_id)

    play(scenario)


def test_a_run_may_be_asked_before_it_has_opened_the_hook(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await start(late, key="k")  # an HTTP handler's: start, then ask at once
        assert await run.ask("word", "hello") is None
        assert await run.result() == "hello"

    play(scenario)


def test_a_hook_that_never_opens_is_told(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(late)
        with pytest.raises(HookNotFoundError, match="has no open hook 'word'"):
            await run.send("word", "hello", wait=0)
        with pytest.raises(StuckError):  # in the kit, nothing else can happen
            await env.ask(run, "other", 1)

    play(scenario)


@pytest.mark.parametrize("how", ["close", "fail", "return"])
def test_who_asks_a_hook_that_closes_is_told(play: Play, how: str) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(deaf, how)
        with pytest.raises(AskUnansweredError, match="the hook was closed"):
            await env.ask(run, "word", "hello?")

    play(scenario)


def test_who_asks_a_run_that_ends_is_told(play: Play) -> None:
    @workflow(name="kit.hooks.leaving")
    async def leaving() -> None:
        await Hook(str, name="word").open()
        await fluvial.sleep(60)

    async def scenario(env: Environment) -> None:
        run = await env.start(leaving)
        with pytest.raises(AskUnansweredError, match=r"has ended \(completed\)"):
            await env.ask(run, "word", "hello?")

    play(scenario)


def test_an_ended_or_unknown_run_cannot_be_talked_to(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(late)
        await run.send("word", "hello")
        await run.result()
        with pytest.raises(RunClosedError):
            await env.ask(run, "word", "again")
        run.last_id = "run_00" + "z" * 24
        with pytest.raises(RunNotFoundError):
            await env.send(run, "word", "again")

    play(scenario)


def test_what_is_said_reaches_the_run_that_goes_on(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(endless, 1)
        await env.send(run, "word", "next")
        await env.settle()
        assert await env.send(run, "word", "stop")
        assert run.last_id == continued_run_id(run.id)
        await run.result()

    play(scenario)


def test_a_conflict_names_the_holder(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        first = await env.start(holder, "t")
        await env.until(first, hook="t")
        second = await env.start(holder, "t")
        assert await second.result() == first.id
        await env.resume("t", "done")
        assert await first.result() == "done"

    play(scenario)


def test_what_came_to_one_opening_is_not_for_the_next(play: Play) -> None:
    """A second click on "approve" must not approve what is asked for next."""

    async def scenario(env: Environment) -> None:
        run = await env.start(sums)
        await env.until(run, hook="number")
        assert await fluvial.resume_hook("number", 1)
        assert await fluvial.resume_hook("number", 2)  # before the run hears of the first
        await env.settle()
        assert await env.resume("number", 3)
        assert await run.result() == [1, 3]

    play(scenario)


def test_a_payload_that_was_accepted_is_in_the_log_also_if_its_hook_closed(play: Play) -> None:
    @workflow(name="kit.hooks.once")
    async def once() -> int:
        first = await Hook(int, token="once")
        await fluvial.sleep(1)
        return first

    async def scenario(env: Environment) -> None:
        run = await env.start(once)
        await env.until(run, hook="once")
        accepted = [await fluvial.resume_hook("once", n, resume_id=str(n)) for n in range(3)]
        assert accepted == [True] * 3
        assert await run.result() == 0
        assert [e.meta["resume"] for e in run.log.of(EventType.HOOK_RECEIVED)] == ["0", "1", "2"]

    play(scenario)


def test_tests_that_are_not_async_talk_to_runs_too(env: SyncEnvironment) -> None:
    run = env.start(game, 2)

    assert env.ask(run, "move", Move("ada", 1), wanted=Board) == Board([1])
    assert env.state(run) == 1
    assert env.send(run, "move", Move("bob", 2))
    assert run.result() == [1, 2]
