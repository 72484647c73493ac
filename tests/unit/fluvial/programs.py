"""Random asyncio programs: what they are made of, and how they are run on whatever loop is there.

A program is a tree of tuples (kind, arguments…). It touches the world through steps alone, so it
can be run as a workflow and on a plain loop that plays the steps. What it does leaves a trace:
pairs of a time in milliseconds and what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from hypothesis import strategies as st

from fluvial.errors import StepFailedError

Program = tuple[Any, ...]
STEPS = ("quick", "medium", "slow", "broken", "flaky")
LIMIT_SECONDS = 20.0  # for a whole program: what waits for itself ends too

_delays = st.sampled_from([1, 3, 5, 8, 30, 200])
_numbers = st.integers(0, 1)

_WITH_SEVERAL = ("sequence", "gather", "gather all", "group", "first", "first error", "race")
_WITH_ONE = ("shield", "careful", "rescue", "mourn", "drop", "lock", "room", "stack", "generate")
_WITH_DELAY = ("timeout", "timeout at", "wait for", "cancel after", "shield for")

_steps: st.SearchStrategy[Program] = st.tuples(st.just("step"), st.sampled_from(STEPS))
_leaves: st.SearchStrategy[Program] = st.one_of(
    *[_steps] * 4,  # what waits for others is rare, or most programs would wait for ever
    st.tuples(st.just("sleep"), st.sampled_from([0, 1, 5, 30, 200])),
    st.tuples(st.sampled_from(["put", "get", "set", "await event"]), _numbers),
    st.tuples(st.sampled_from(["notify", "await condition", "meet"]), st.just(0)),
)


def _trees(depth: int) -> st.SearchStrategy[Program]:
    if depth == 0:
        return _leaves
    children = _trees(depth - 1)
    several = st.lists(children, min_size=2, max_size=4)
    return st.one_of(
        _steps,
        st.tuples(st.sampled_from(_WITH_SEVERAL), several),
        st.tuples(st.sampled_from(_WITH_SEVERAL), several),
        st.tuples(st.sampled_from(_WITH_ONE), children),
        st.tuples(st.sampled_from(_WITH_DELAY), children, _delays),
        st.tuples(st.just("wait"), several, _delays),
    )


programs: st.SearchStrategy[Program] = st.tuples(
    st.just("sequence"), st.lists(_trees(3), min_size=2, max_size=5)
)


class World:
    """What one run of a program works with."""

    def __init__(
        self,
        call: Callable[[str, int], Awaitable[int]],
        note: Callable[[str], None],
    ) -> None:
        self.call = call  # runs the step of that name
        self.note = note
        self.queues = (asyncio.Queue[int](1), asyncio.Queue[int]())
        self.events = (asyncio.Event(), asyncio.Event())
        self.condition = asyncio.Condition()
        self.barrier = asyncio.Barrier(2)
        self.lock = asyncio.Lock()
        self.room = asyncio.Semaphore(2)


async def execute(program: Program, world: World) -> str:
    """Run a program to its end; cancellation is raised. Returns how it ended."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await _run(program, world)
    except Exception as error:  # noqa: BLE001 - whatever came out of it is compared
        return _name(error)
    return "ended"


def _name(error: BaseException | None) -> str:
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return f"group of {sorted(map(_name, parts))}" if parts else type(error).__name__


def _all(children: list[Program], world: World) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(_run(child, world)) for child in children]


async def _run(program: Program, world: World) -> None:
    kind, content, *rest = program
    match kind:
        case "step":
            world.note(f"{content} gave {await world.call(content, len(content))}")
        case "sleep":
            await asyncio.sleep(content / 1000)
            world.note("slept")
        case "sequence":
            for each in content:
                await _run(each, world)
        case "gather" | "gather all" | "group" | "first" | "first error" | "race" | "wait":
            await _run_several(kind, content, rest, world)
        case "timeout" | "timeout at" | "wait for" | "cancel after" | "shield for":
            await _run_limited(kind, content, rest[0] / 1000, world)
        case "shield" | "careful" | "rescue" | "mourn" | "drop":
            await _run_guarded(kind, content, world)
        case "lock" | "room" | "stack" | "generate":
            await _run_within(kind, content, world)
        case _:
            await _meet_others(kind, content, world)


async def _run_several(kind: str, children: list[Program], rest: list[int], world: World) -> None:
    if kind in {"gather", "gather all"}:
        results = await asyncio.gather(
            *(_run(child, world) for child in children), return_exceptions=kind == "gather all"
        )
        world.note(f"gathered {list(map(_name, results))}")
        return
    if kind == "group":
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(_run(child, world))
        world.note("group done")
        return
    tasks = _all(children, world)
    if kind == "race":
        for each in asyncio.as_completed(tasks):
            await each
            world.note("one more")
        return
    when = {"first": asyncio.FIRST_COMPLETED, "first error": asyncio.FIRST_EXCEPTION}
    done, pending = await asyncio.wait(
        tasks,
        timeout=rest[0] / 1000 if rest else None,
        return_when=when.get(kind, asyncio.ALL_COMPLETED),
    )
    world.note(f"waited: {[tasks.index(task) for task in done]} done")
    for task in pending:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    world.note(f"then {list(map(_name, results))}")


async def _run_limited(kind: str, child: Program, seconds: float, world: World) -> None:
    loop = asyncio.get_running_loop()
    try:
        match kind:
            case "timeout":
                async with asyncio.timeout(seconds):
                    await _run(child, world)
            case "timeout at":
                async with asyncio.timeout_at(loop.time() + seconds):
                    await _run(child, world)
            case "wait for":
                await asyncio.wait_for(_run(child, world), seconds)
            case "cancel after":
                task = asyncio.create_task(_run(child, world))
                timer = loop.call_later(seconds, task.cancel)
                await asyncio.wait([task])
                timer.cancel()
                world.note("cancelled" if task.cancelled() else _name(task.exception()))
            case _:
                async with asyncio.timeout(seconds):
                    await asyncio.shield(_run(child, world))
    except TimeoutError:
        world.note("timeout")


async def _run_guarded(kind: str, child: Program, world: World) -> None:
    match kind:
        case "shield":
            await asyncio.shield(_run(child, world))
        case "careful":
            try:
                await _run(child, world)
            finally:
                world.note(f"cleaned up {await world.call('undo', 1)}")
        case "rescue":
            try:
                await _run(child, world)
            except (StepFailedError, ExceptionGroup) as error:
                world.note(f"rescued from {_name(error)}")
        case "mourn":
            try:
                await _run(child, world)
            except asyncio.CancelledError:
                world.note("was cancelled")
                await asyncio.sleep(0.002)
                raise
        case _:
            task = asyncio.create_task(_run(child, world))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.sleep(0)


async def _run_within(kind: str, child: Program, world: World) -> None:
    match kind:
        case "lock":
            async with world.lock:
                await _run(child, world)
        case "room":
            async with world.room:
                await _run(child, world)
        case "stack":
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(world.call, "undo", 1)
                stack.callback(world.note, "unwinding")
                await _run(child, world)
        case _:
            async with contextlib.aclosing(_generate(child, world)) as numbers:
                async for number in numbers:
                    world.note(f"generated {number}")
                    if number == 1:
                        break


async def _generate(child: Program, world: World) -> AsyncGenerator[int, None]:
    try:
        for number in range(3):
            await _run(child, world)
            yield number
    finally:
        world.note(f"generator cleaned up {await world.call('undo', 1)}")


async def _meet_others(kind: str, number: int, world: World) -> None:
    match kind:
        case "put":
            await world.queues[number].put(number)
            world.note("put")
        case "get":
            world.note(f"got {await world.queues[number].get()}")
        case "set":
            world.events[number].set()
        case "await event":
            await world.events[number].wait()
            world.note("event")
        case "notify":
            async with world.condition:
                world.condition.notify()
        case "await condition":
            async with world.condition:
                await world.condition.wait()
            world.note("notified")
        case "meet":
            try:
                world.note(f"met at {await world.barrier.wait()}")
            except asyncio.BrokenBarrierError:
                world.note("nobody came")
        case _:
            raise AssertionError(f"no such kind: {kind}")
