"""Planted programs: workflows that ask what differs between two processes, and who must notice.

    python -m tests.unit.fluvial.planted record FILE     play each, and write its log down
    python -m tests.unit.fluvial.planted replay FILE     play each for another run, which leaves its
                                                         traces; then replay the logs, and print
                                                         what came of it as JSON

The two processes differ in their hash seed, environment, arguments, folder, time zone and past.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import itertools
import json
import os
import random
import resource
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgpack

from fluvial import guards
from fluvial.codec import decode
from fluvial.events import INPUTS, Event, EventType, decode_event
from fluvial.invocations import TurnRequest
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, RUN, Player, make_keys

guards.install()
Body = Callable[[], Coroutine[Any, Any, Any]]
CAUGHT: dict[str, Body] = {}
HARMLESS: dict[str, Body] = {}

NAMES: Final = tuple(f"name {number}" for number in range(12))
OTHER_RUN: Final = RUN.replace("a", "b")
IMPORTED_AT: Final = time.time()
DRAWN_AT_IMPORT: Final = random.random()
CHANCE: Final = random.Random()
NUMBERS: Final = itertools.count()
CACHE: dict[str, str] = {}
SEEN: list[str] = []


class Color(Enum):
    RED, GREEN, BLUE, BLACK, WHITE = NAMES[:5]


class Thing:
    made = 0

    def __init__(self, name: str) -> None:
        Thing.made += 1
        self.name = name


@step(name="planted.fetch")
async def fetch(name: str) -> str:
    return f"content of {name}"


@step(name="planted.use")
async def use(value: Any) -> str:
    return "used"


@step(name="planted.list_names")
async def list_names() -> set[str]:
    return set(NAMES)


@step(name="planted.map_names")
async def map_names() -> dict[str, int]:
    return {name: len(name) for name in reversed(NAMES)}


@functools.cache
def token_of_the_process() -> str:
    return secrets.token_hex()


def caught(body: Body) -> Body:
    CAUGHT[body.__name__] = body
    return body


def harmless(body: Body) -> Body:
    HARMLESS[body.__name__] = body
    return body


@caught
async def iterates_over_a_set_of_strings() -> dict[str, str]:
    return {name: await fetch(name) for name in set(NAMES)}


@caught
async def fans_out_over_a_set_of_strings() -> list[str]:
    return await asyncio.gather(*(fetch(name) for name in frozenset(NAMES)))


@caught
async def iterates_over_a_set_from_a_step() -> list[str]:
    return [await fetch(name) for name in await list_names()]


@caught
async def iterates_over_a_set_of_enum_members() -> list[str]:
    return [await fetch(color.value) for color in set(Color)]


@caught
async def iterates_over_a_set_of_objects() -> list[str]:
    return [await fetch(thing.name) for thing in set(map(Thing, NAMES))]


@caught
async def takes_any_element_of_a_set() -> str:
    names = set(NAMES)
    return await fetch(names.pop()) + await fetch(names.pop()) + await fetch(names.pop())


@caught
async def uses_the_hash_of_a_string() -> str:
    return await use(hash("x"))


@caught
async def sleeps_by_the_hash_of_a_string() -> None:
    await asyncio.sleep(1 + hash("x") % 1000)


@caught
async def uses_an_address() -> str:
    return await use(id(Thing("x")))


@caught
async def uses_the_text_of_an_object() -> str:
    return await use(repr(Thing("x")))


@caught
async def counts_globally() -> str:
    return await use(next(NUMBERS))


@caught
async def counts_instances() -> str:
    return await use(Thing("x").made)


@caught
async def caches_in_the_module() -> str:
    if "x" not in CACHE:
        CACHE["x"] = await fetch("x")
    return await use(1)


@caught
async def remembers_in_the_module() -> str:
    SEEN.append("x")
    return await fetch(f"x{len(SEEN)}")


@caught
async def caches_a_function() -> str:
    return await use(token_of_the_process())


@caught
async def uses_the_time_of_the_import() -> str:
    return await use(IMPORTED_AT)


@caught
async def sleeps_since_the_import() -> None:
    await asyncio.sleep(1 + IMPORTED_AT % 1000)


@caught
async def uses_what_the_import_drew() -> str:
    return await use(DRAWN_AT_IMPORT)


@caught
async def draws_from_a_generator_of_the_module() -> str:
    return await use(CHANCE.random())


@caught
async def decides_by_the_environment() -> str:
    return await (fetch("x") if os.environ["PLANTED"] == "record" else use("x"))


@caught
async def decides_by_the_arguments_of_the_process() -> str:
    return await fetch(sys.argv[1])


@caught
async def uses_the_process_id() -> str:
    return await use(os.getpid())


@caught
async def uses_the_thread_id() -> str:
    return await use(threading.get_native_id())


@caught
async def uses_the_folder() -> str:
    return await use(os.getcwd())


@caught
async def uses_the_local_hour() -> str:
    return await use(datetime.now().astimezone().hour)


@caught
async def measures_the_process() -> str:
    return await use([resource.getrusage(resource.RUSAGE_SELF).ru_minflt, os.times().elapsed])


@caught
async def counts_objects() -> str:
    return await use([gc.get_count(), len(gc.get_objects()), sys.getallocatedblocks()])


@caught
async def asks_for_less_than_before() -> None:
    if Thing.made < 1000:
        await fetch("x")
        Thing.made = 1000
    await asyncio.sleep(5)


@harmless
async def uses_the_clock() -> list[Any]:
    return [await use([time.time(), time.monotonic(), time.perf_counter_ns()]), time.time_ns()]


@harmless
async def uses_dates() -> list[Any]:
    return [await use([datetime.now(UTC), time.strftime("%c", time.gmtime())]), datetime.now(UTC)]


@harmless
async def draws() -> list[Any]:
    return [await use([random.random(), random.sample(NAMES, 3)]), random.gauss(0, 1)]


@harmless
async def draws_from_a_new_generator() -> list[Any]:
    return [await use(random.Random().random()), random.SystemRandom().random()]


@harmless
async def makes_ids() -> list[str]:
    return [await use([str(uuid.uuid4()), str(uuid.uuid1())]), str(uuid.uuid4())]


@harmless
async def makes_secrets() -> list[Any]:
    return [await use([secrets.token_hex(), os.urandom(8)]), secrets.token_urlsafe()]


@harmless
async def sleeps_by_chance() -> float:
    await asyncio.sleep(random.uniform(1, 60))
    return time.time()


@harmless
async def decides_by_chance() -> str:
    return await (fetch("x") if random.random() < 0.5 else use("x"))


@harmless
async def waits_for_a_set_of_tasks() -> list[str]:
    done, _ = await asyncio.wait({asyncio.ensure_future(fetch(name)) for name in NAMES})
    return [await fetch(task.result()) for task in done]


@harmless
async def takes_tasks_as_they_complete() -> list[str]:
    return [await fetch(await each) for each in asyncio.as_completed(list(map(fetch, NAMES)))]


@harmless
async def lists_all_tasks() -> list[str]:
    tasks = [asyncio.ensure_future(fetch(name)) for name in NAMES]
    names = [await use(task.get_name()) for task in asyncio.all_tasks()]
    await asyncio.gather(*tasks)
    return names


@harmless
async def passes_a_set_on() -> str:
    return await use(set(NAMES))


@harmless
async def iterates_over_a_dict_from_a_step() -> list[str]:
    return [await fetch(name) for name in await map_names()]


@harmless
async def sorts_a_set() -> list[str]:
    return [await fetch(name) for name in sorted(set(NAMES))]


@harmless
async def asks_a_set_for_members() -> list[str]:
    known = set(NAMES[::2])
    return [await fetch(name) for name in NAMES if name in known]


@harmless
async def imports_late() -> str:
    assert importlib.import_module("this_module_draws").DRAWN  # made by the test
    return await use(random.random())


PROGRAMS: Final = {**CAUGHT, **HARMLESS}


def _play(name: str, run_id: str = RUN) -> list[Event]:
    player = Player("live", run_id=run_id)
    asyncio.run(player.play(registry.workflows[name], (), ()))
    return player.events()


def _until_last_input(events: list[Event]) -> list[Event]:
    last = max(at for at, event in enumerate(events) if event.type in INPUTS)
    return events[: last + 1]


def _record(path: Path) -> None:
    logs = {name: [event.encode() for event in _play(name)] for name in PROGRAMS}
    path.write_bytes(msgpack.packb(logs))


def _replay(path: Path) -> dict[str, str]:
    logs: dict[str, list[bytes]] = msgpack.unpackb(path.read_bytes())
    for name in PROGRAMS:
        _play(name, OTHER_RUN)
    return {name: _verdict(name, list(map(decode_event, log))) for name, log in logs.items()}


def _verdict(name: str, events: list[Event]) -> str:
    """Return why a replay diverged; "" if it ends as the recording did."""
    seen = _until_last_input(events)
    answer = LiveRuns(registry, make_keys()).turn(
        TurnRequest(
            run_id=RUN, app=APP, workflow=name, turn_id=None,
            consumed=sum(event.type in INPUTS for event in seen) - 1, now_ms=seen[-1].at_ms,
            events=[event.encode() for event in seen],
        )
    )  # fmt: skip
    if answer.outcome == "diverged":
        return answer.reason
    ends = [decode_event(data) for data in answer.events]
    assert list(map(_plain, ends)) == list(map(_plain, events[len(seen) :])), name
    return ""


def _plain(event: Event) -> tuple[Any, ...]:
    if event.type is EventType.RUN_COMPLETED:
        return event.type, decode(make_keys().for_run(RUN).open(event.payload, "result"))
    return event.type, event.id, event.meta


def main() -> None:
    """Record or replay."""
    for name, body in PROGRAMS.items():
        workflow(name=name)(body)
    if sys.argv[1] == "record":
        _record(Path(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(_replay(Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
