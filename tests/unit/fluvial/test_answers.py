"""Clocks and chance: repeatable in workflows, as ever everywhere else."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import logging
import os
import pickle
import random
import secrets
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fluvial import determinism, guards
from fluvial.errors import WorkflowSandboxError
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

guards.install()
START_SECONDS = 1_700_000_000
START_NS = START_SECONDS * 10**9

CLOCKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "time": (lambda: time.time(), START_SECONDS),
    "time_ns": (lambda: time.time_ns(), START_NS),
    "monotonic": (lambda: time.monotonic(), START_SECONDS),
    "monotonic_ns": (lambda: time.monotonic_ns(), START_NS),
    "perf_counter": (lambda: time.perf_counter(), START_SECONDS),
    "perf_counter_ns": (lambda: time.perf_counter_ns(), START_NS),
    "process_time": (lambda: time.process_time(), 0.0),
    "process_time_ns": (lambda: time.process_time_ns(), 0),
    "thread_time": (lambda: time.thread_time(), 0.0),
    "thread_time_ns": (lambda: time.thread_time_ns(), 0),
    "clock_gettime": (lambda: time.clock_gettime(time.CLOCK_REALTIME), START_SECONDS),
    "clock_gettime of CPU": (lambda: time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID), 0.0),
    "clock_gettime_ns": (lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC), START_NS),
    "gmtime": (lambda: tuple(time.gmtime()), tuple(time.gmtime(START_SECONDS))),
    "gmtime of None": (lambda: tuple(time.gmtime(None)), tuple(time.gmtime(START_SECONDS))),
    "gmtime of an hour": (lambda: tuple(time.gmtime(3600))[:4], (1970, 1, 1, 1)),
    "localtime": (lambda: tuple(time.localtime()), tuple(time.localtime(START_SECONDS))),
    "ctime": (lambda: time.ctime(), time.ctime(START_SECONDS)),
    "asctime": (lambda: time.asctime(), time.ctime(START_SECONDS)),
    "strftime": (
        lambda: time.strftime("%Y-%m-%d %H:%M"),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(START_SECONDS)),
    ),
    "strftime of a time": (lambda: time.strftime("%Y", time.gmtime(0)), "1970"),
    "the loop's": (lambda: asyncio.get_running_loop().time(), START_SECONDS),
    "now": (lambda: determinism.now(), datetime.fromtimestamp(START_SECONDS, UTC)),
}

DRAWS: dict[str, Callable[[], Any]] = {
    "random.random": lambda: random.random(),
    "random.randint": lambda: random.randint(1, 10**9),
    "random.gauss": lambda: [random.gauss(0, 1) for _ in range(3)],
    "random.sample": lambda: random.sample(range(10**6), 4),
    "random.choice": lambda: random.choice(range(10**9)),
    "random.shuffle": lambda: _shuffled(list(range(50))),
    "random.getstate": lambda: hash(random.getstate()),
    "Random()": lambda: random.Random().random(),
    "SystemRandom": lambda: random.SystemRandom().getrandbits(128).to_bytes(16, "big"),
    "SystemRandom.random": lambda: random.SystemRandom().random(),
    "uuid1": lambda: uuid.uuid1(),
    "uuid4": lambda: uuid.uuid4(),
    "os.urandom": lambda: os.urandom(16),
    "os.getrandom": lambda: os.getrandom(16, os.GRND_NONBLOCK),
    "secrets.token_bytes": lambda: secrets.token_bytes(16),
    "secrets.token_hex": lambda: secrets.token_hex(16),
    "secrets.token_urlsafe": lambda: secrets.token_urlsafe(16),
    "secrets.randbelow": lambda: secrets.randbelow(10**9),
    "secrets.choice": lambda: secrets.choice(range(10**9)),
    "fluvial.random": lambda: determinism.random(),
    "fluvial.uuid4": lambda: determinism.uuid4(),
}


def _shuffled(numbers: list[int]) -> list[int]:
    random.shuffle(numbers)
    return numbers


@step(name="answers.one")
async def one() -> None: ...


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    registry.add_step(one)


@pytest.mark.parametrize("name", CLOCKS)
def test_a_clock_stands_at_the_last_event(play: Play, name: str) -> None:
    read, expected = CLOCKS[name]

    @workflow
    async def main() -> Any:
        return read()

    assert play(main).result == expected


def test_clocks_move_with_events_and_never_back(play: Play) -> None:
    @workflow
    async def main() -> list[float]:
        seen = [time.time()]
        for seconds in (0.25, 3600, 0.001):
            await asyncio.sleep(seconds)
            seen += [time.time(), time.monotonic(), time.time_ns() // 1000 / 10**6]
        return seen

    seen = play(main).result

    assert [round(moment - START_SECONDS, 6) for moment in seen[1::3]] == [0.25, 3600.25, 3600.251]
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_repeats_and_is_fresh_each_time(play: Play, name: str) -> None:
    draw = DRAWS[name]

    @workflow
    async def main() -> list[Any]:
        drawn: list[Any] = []
        for _ in range(3):
            drawn.append(draw())
            await one()
        return drawn

    first, again = play(main).result, play(main).result

    assert first == again
    assert name == "random.getstate" or len({str(each) for each in first}) == 3
    assert str(draw()) != str(draw()) or name == "random.getstate"


def test_all_modes_draw_the_same(play: Play) -> None:
    drawn: list[list[Any]] = []

    @workflow
    async def main() -> None:
        values = [draw() for draw in DRAWS.values()]
        drawn.append(values)
        await one()
        drawn.append([draw() for draw in DRAWS.values()])

    play(main)
    firsts = [values for values in drawn if values[-1] == drawn[0][-1]]

    # Live and carried: both halves once; replayed or evicted: the first half once more.
    assert len(drawn) == 2 * 2 + 2 * 3
    assert firsts == [drawn[0]] * 6
    assert drawn[1] == drawn[4] == drawn[6]


def test_a_seed_is_the_runs_own(play: Play) -> None:
    random.seed(99)
    state = random.getstate()

    @workflow
    async def main() -> list[float]:
        random.seed(7)
        first = random.random()
        await one()
        state = random.getstate()
        second = random.random()
        random.setstate(state)
        return [first, second, random.random(), float(uuid.uuid4().version or 0)]

    expected = random.Random(7)
    first, second = expected.random(), expected.random()

    assert play(main).result == [first, second, second, 4.0]
    assert random.getstate() == state  # nobody else's numbers have changed


def test_a_seeded_run_still_has_ids_of_its_own(play: Play) -> None:
    drawn: set[str] = set()

    @workflow
    async def main() -> None:
        random.seed(7)
        drawn.add(f"{uuid.uuid4()} {secrets.token_hex()}")

    @workflow
    async def unseeded() -> None:
        drawn.add(f"{uuid.uuid4()} {secrets.token_hex()}")

    play(main)
    play(unseeded)

    assert len(drawn) == 1  # a seed of `random` is none of the operating system's


def test_uuid1_is_a_proper_time_based_id(play: Play) -> None:
    @workflow
    async def main() -> list[uuid.UUID]:
        return [uuid.uuid1(), uuid.uuid1(), uuid.uuid1(node=5, clock_seq=9)]

    first, second, third = play(main).result

    assert {each.version for each in (first, second, third)} == {1}
    assert {each.variant for each in (first, second, third)} == {uuid.RFC_4122}
    assert first.time < second.time < third.time
    assert (third.node, third.clock_seq) == (5, 9)
    since_1970 = first.time - 0x01B21DD213814000
    assert since_1970 // 10_000_000 == START_SECONDS
    assert first.node >> 40 & 1  # a random node is marked as none of a network card


def test_a_workflow_that_waits_for_a_clock_to_move_is_told(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial.loop.MAX_CLOCK_READS", 1000)

    @workflow
    async def main() -> None:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            pass

    error = play(main).error

    assert isinstance(error, WorkflowSandboxError)
    assert "stands still while workflow code runs" in str(error)
    assert str(error).startswith(f"{__file__}:")


def test_an_import_draws_nothing_from_the_run(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module's body runs in the first replay of a process and in none of the later ones."""
    (tmp_path / "drawing_at_import.py").write_text(
        "import random, time, uuid\n"
        "drawn = [random.random(), uuid.uuid4(), random.Random().random()]\nat = time.time()\n"
        "import pathlib; text = pathlib.Path(__file__).read_text()\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    imports: list[float] = []

    @workflow
    async def main(with_import: bool) -> list[Any]:
        if with_import:
            imports.append(importlib.import_module("drawing_at_import").at)
        return [random.random(), str(uuid.uuid4())]

    without = play(main, False).result
    sys.modules.pop("drawing_at_import", None)
    result = play(main, True, before=lambda: sys.modules.pop("drawing_at_import", None)).result

    assert result == without
    assert len(imports) == len(play.modes)
    assert all(abs(at - time.time()) < 600 for at in imports)


def test_a_finaliser_draws_nothing_from_the_run(play: Play) -> None:
    class Dropped:
        def __del__(self) -> None:
            seen.append(random.random())

    seen: list[float] = []

    @workflow
    async def main() -> float:
        Dropped()
        return random.random()

    @workflow
    async def plain() -> float:
        return random.random()

    assert play(main).result == play(plain).result
    assert len(seen) == len(play.modes)


def test_a_dropped_generator_draws_nothing_from_the_run(play: Play) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            random.random()

    async def draw_after_dropping() -> float:
        async for _ in numbers():
            break
        return random.random()

    async def draw() -> float:
        return random.random()

    dropped = play(workflow(name="dropping")(draw_after_dropping))

    assert dropped.result == play(workflow(name="drawing")(draw)).result


def test_log_records_carry_the_workflows_time(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def main() -> None:
        logging.getLogger("user").warning("here")

    play(main)

    created = [round(r.created) for r in caplog.records if r.name == "user"]
    assert created == [START_SECONDS] * len(play.modes)


# Outside workflows


REPLACED = [
    *((time, name) for name in CLOCKS if name.isidentifier() and hasattr(time, name)),
    (time, "sleep"), (os, "urandom"), (os, "getrandom"), (uuid, "uuid1"),
    *((random, name) for name in random.__all__),
]  # fmt: skip


def test_answers_are_real_outside_workflows() -> None:
    assert abs(time.time() - datetime.now(UTC).timestamp()) < 5
    assert abs(time.time_ns() / 1e9 - time.time()) < 5
    assert abs(time.mktime(time.localtime()) - time.time()) < 5
    assert time.monotonic() != START_SECONDS
    assert time.perf_counter() < time.perf_counter()
    assert time.process_time() > 0
    assert time.strftime("%Y", time.gmtime(0)) == "1970"
    assert len(os.urandom(5)) == 5
    assert uuid.uuid1() != uuid.uuid1()
    assert abs(determinism.now().timestamp() - time.time()) < 5
    random.seed(5)
    first = [random.random(), random.choice(range(100))]
    random.seed(5)
    assert [random.random(), random.choice(range(100))] == first
    assert random.Random(5).random() == first[0]
    assert random.Random().random() != random.Random().random()


@pytest.mark.parametrize(("module", "name"), REPLACED, ids=lambda value: str(value))
def test_a_replacement_passes_for_the_original(module: Any, name: str) -> None:
    function = getattr(module, name)

    assert function.__name__ == name
    assert function.__module__ == module.__name__
    assert pickle.loads(pickle.dumps(function)) is not None
    assert copy.deepcopy({"clock": function})["clock"] == function
    assert copy.copy(function) == function


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (os.urandom, "(size, /)"),
        (random.choice, "(seq)"),
        (random.gauss, "(mu=0.0, sigma=1.0)"),
        (uuid.uuid1, "(node=None, clock_seq=None)"),
        (asyncio.as_completed, "(fs, *, timeout=None)"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_signatures_are_the_originals(function: Callable[..., Any], signature: str) -> None:
    assert str(inspect.signature(function)) == signature


def test_a_function_in_a_class_does_not_take_the_instance() -> None:
    functions = {"converter": time.gmtime, "clock": time.time, "draw": random.random}
    stamped: Any = type("Stamped", (logging.Formatter,), functions)("%(asctime)s", "%Y")
    record = logging.makeLogRecord({"created": 0.0})

    assert stamped.format(record) == "1970"
    assert stamped.clock() > 0
    assert 0 <= stamped.draw() < 1
