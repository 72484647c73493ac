"""Effects at their targets: carried out again they change nothing, too early they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fluvial.events import Event, EventType
from fluvial.ids import child_run_id, continued_run_id
from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.contract import StartRun
from fluvial_queue.effects import close_child, start_child, start_next, tell_parent
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, decode_message
from fluvial_queue.views import ChildView, RunView

PARENT = f"run_00{'0' * 24}"
CHILD = child_run_id(PARENT, 1, 1)
NOW_MS = 1_000_000
OF_PARENT = {"parent": PARENT, "operation": 1, "root": PARENT}
ENDED = Event(EventType.RUN_COMPLETED, NOW_MS, 0, b"result")


def play(main: Callable[[MemoryStore], Awaitable[None]]) -> None:
    """Have a test act on a store that has the parent."""

    async def body() -> None:
        store = MemoryStore(now_ms=lambda: NOW_MS, partitions=1)
        await start(store, PARENT)
        await main(store)

    asyncio.run(body())


async def start(store: MemoryStore, run_id: str, **meta: object) -> RunView:
    await store.start(
        StartRun(run_id=run_id, app="app", workflow="w", deployment="dpl", input=b"", meta=meta)
    )
    record = await store.read_run(run_id)
    assert record is not None
    return RunView(record)


def child_of(view: RunView) -> Message:
    meta = {"run": CHILD, "workflow": "child", "policy": "cancel"}
    asked = Event(EventType.CHILD_SCHEDULED, NOW_MS, 1, b"input", meta)
    return decode_message(start_child(view, asked))


def test_an_end_that_is_told_twice_reaches_the_parent_once() -> None:
    async def main(store: MemoryStore) -> None:
        child = await start(store, CHILD, **OF_PARENT)
        told = tell_parent(child, ENDED)
        assert told is not None
        before, _ = await store.depth([0])
        for _ in range(2):
            assert await carry_out(store, "app", decode_message(told), NOW_MS) == ""

        assert await store.depth([0]) == (before + 1, 0)

    play(main)


def test_a_child_is_closed_once_it_exists() -> None:
    async def main(store: MemoryStore) -> None:
        view = await start(store, PARENT)
        closes = close_child(view, 1, ChildView(CHILD, "child", "cancel"))
        assert closes is not None
        with pytest.raises(TooEarlyError):
            await carry_out(store, "app", decode_message(closes), NOW_MS)
        await carry_out(store, "app", child_of(view), NOW_MS)

        assert await carry_out(store, "app", decode_message(closes), NOW_MS) == ""

    play(main)


def test_a_child_that_was_started_before_is_the_same_and_a_stranger_is_not() -> None:
    async def main(store: MemoryStore) -> None:
        view = await start(store, PARENT)
        for _ in range(2):
            assert await carry_out(store, "app", child_of(view), NOW_MS) == ""

        other = MemoryStore(now_ms=lambda: NOW_MS, partitions=1)
        await start(other, CHILD)  # by somebody else, with the same key
        assert "another run has this id" in await carry_out(other, "app", child_of(view), NOW_MS)

    play(main)


def test_a_parent_is_told_of_the_child_that_it_has_started() -> None:
    async def main(store: MemoryStore) -> None:
        following = continued_run_id(CHILD)
        last = await start(store, following, **OF_PARENT, first=CHILD, hops=1)
        told = decode_message(tell_parent(last, ENDED) or b"")

        assert (told.meta["run"], told.meta["operation"]) == (PARENT, 1)
        assert (told.meta["first"], told.meta["hops"]) == (CHILD, 1)
        assert told.meta["child"] == following

    play(main)


def test_a_run_that_goes_on_keeps_what_is_left_of_its_deadline() -> None:
    async def main(store: MemoryStore) -> None:
        view = await start(store, CHILD, **OF_PARENT, deadline_at=NOW_MS + 500)
        following = continued_run_id(CHILD)
        asked = Event(EventType.RUN_CONTINUED, NOW_MS, 0, b"input", {"run": following})

        effect = decode_message(start_next(view, asked, {"a": "b"}, NOW_MS + 100))
        assert effect.meta["options"] == {"tags": {"a": "b"}, "deadline_ms": 400}
        assert (effect.meta["meta"]["first"], effect.meta["meta"]["hops"]) == (CHILD, 1)
        assert effect.meta["meta"]["parent"] == PARENT

    play(main)
