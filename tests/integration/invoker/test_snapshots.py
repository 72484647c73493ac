"""Snapshots: instances forked from what has imported their app, and when there are none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.wire import FrameType
from tests.integration.invoker.test_cold_start import layer
from tests.integration.invoker.test_environment import with_variables
from tests.integration.invoker.test_keys import root_of
from tests.integration.invoker.test_lives_and_deaths import gone
from tests.process_memory import holds

APP = """
    import os, random, secrets, threading, uuid
    imported_by = os.getpid()
    print("imported")
    started_by = []
    seen = []
    own = random.Random()
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            started_by.append(os.getpid())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen.append([scope["path"], dict(scope["headers"]).get(b"user-agent", b"").decode()])
        import json
        body = json.dumps({
            "pid": os.getpid(), "imported_by": imported_by, "started_by": started_by,
            "seen": seen, "random": random.random(), "uuid": str(uuid.uuid4()),
            "uuid1": str(uuid.uuid1()), "token": secrets.token_hex(8),
            "fds": sorted(os.listdir("/proc/self/fd")), "uid": os.getuid(), "cwd": os.getcwd(),
            "secret": os.environ.get("SECRET"), "tasks": len(os.listdir("/proc/self/task")),
        }).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


async def snapshot(invoker: Any, deployment: str, *states: str) -> dict[str, Any]:
    """Wait until a snapshot is ready, or there will be none; return what the survey says."""
    wanted = states or ("ready", "refused")
    async with asyncio.timeout(30):
        while True:
            for each in await invoker.snapshots():
                if each["deployment"] == deployment and each["state"] in wanted:
                    return dict(each)
            await asyncio.sleep(0.02)  # a survey is a question: nothing tells of a change


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the state of another process
            await asyncio.sleep(0.02)


async def leave(invoker: Any, handed: Any, link: Any) -> None:
    invoker.send(FrameType.KILL, 0, handed.instance, 1000)
    await link.next(kind=FrameType.GOAWAY)
    await link.close()
    await invoker.death_of(handed.instance)


async def first_instance(invoker: Any, spec: Any) -> dict[str, Any]:
    """Start the first instance, wait for what becomes of its snapshot, and end the instance."""
    handed, link = await invoker.open(spec)
    assert handed.tier in ("zygote", "spawn")
    await link.get()
    found = await snapshot(invoker, spec.deployment)
    await leave(invoker, handed, link)
    return found


async def seen_by(invoker: Any, spec: Any, exclude: list[str] | None = None) -> tuple[Any, ...]:
    handed, link = await invoker.open(spec, exclude)
    reply = await link.get("/seen")
    return handed, link, json.loads(reply.body)


def test_instances_come_from_a_snapshot_that_has_imported_the_app(machine: Any) -> None:
    spec = machine.spec(APP, environment={"SECRET": "s3"}, warm_up="/warm?up=1")

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        assert (found["state"], found["reason"]) == ("ready", "")
        one, link_1, first = await seen_by(invoker, spec)
        two, link_2, second = await seen_by(invoker, spec, [one.instance])

        assert (one.tier, two.tier) == ("snapshot", "snapshot")
        for seen in (first, second):
            assert seen["imported_by"] == found["pid"]
            assert seen["started_by"] == [seen["pid"]]  # each its own lifespan
            assert seen["seen"] == [["/warm", "fluvial-warm-up"], ["/seen", ""]]
            assert seen["secret"] == "s3"
        for chance in ("random", "uuid", "uuid1", "token"):
            assert first[chance] != second[chance]
        after = await snapshot(invoker, spec.deployment)
        assert (after["forks"], after["children"]) == (2, 2)
        await leave(invoker, one, link_1)
        await leave(invoker, two, link_2)
        await invoker.close()
        # By the first instance and by the snapshot, not by those that came from it.
        assert machine.app_log().count('"imported"') == 2

    asyncio.run(main())


def test_an_instance_of_a_snapshot_has_no_descriptors_of_others(machine: Any) -> None:
    spec = machine.spec(APP)

    async def main() -> None:
        invoker = await machine.connect()
        handed, link, alone = await seen_by(invoker, spec)
        await snapshot(invoker, spec.deployment)
        one, link_1, _ = await seen_by(invoker, spec, [handed.instance])
        two, link_2, second = await seen_by(invoker, spec, [handed.instance, one.instance])

        assert two.tier == "snapshot"
        assert len(second["fds"]) == len(alone["fds"])
        for each in (link, link_1, link_2):
            await each.close()
        await invoker.close()

    asyncio.run(main())


def test_descriptors_of_many_instances_do_not_stay_in_the_snapshot(machine: Any) -> None:
    spec = machine.spec(APP)

    def open_descriptors(pid: int) -> list[str]:
        return sorted(os.listdir(f"/proc/{pid}/fd"))

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        pids = (machine.process.pid, found["pid"])
        before = [open_descriptors(pid) for pid in pids]
        for _ in range(5):
            handed, link, _ = await seen_by(invoker, spec)
            assert handed.tier == "snapshot"
            await leave(invoker, handed, link)
        after = [open_descriptors(pid) for pid in pids]
        await invoker.close()

        assert after == before

    asyncio.run(main())


HAZARDS = {
    "thread": ("threading.Thread(target=threading.Event().wait, daemon=True, name='poll').start()",
               "checks: 1 threads: poll"),
    "socket": ("kept = socket.create_server(('127.0.0.1', 0))", "checks: descriptor 6: a socket"),
    "loop": ("kept = asyncio.new_event_loop()", "an event loop or a selector"),
    "file": ("kept = open(__file__)", "main.py"),
    "child": ("kept = subprocess.Popen(['sleep', '60'])", "a child process"),
    "pipe": ("kept = os.pipe()", "a pipe"),
    "hook": ("fluvial.register_before_snapshot(lambda: 1 / 0)", "hooks: ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", HAZARDS)
def test_an_app_that_is_unsafe_to_fork_says_why_and_starts_otherwise(
    machine: Any, name: str
) -> None:
    code, reason = HAZARDS[name]
    source = f"import asyncio, fluvial, os, socket, subprocess, threading\n{code}\n"
    spec = machine.spec(source + "def app(request):\n    return 'hello'\n")

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        handed, link = await invoker.open(spec)

        assert found["state"] == "refused"
        assert reason in found["reason"]
        assert handed.tier == "zygote"
        assert (await link.get()).body == b"hello"
        await link.close()
        await invoker.close()
        assert machine.invoker_log.count("no snapshot") == 1  # said once, then remembered

    asyncio.run(main())


SYNC = """
    import threading, time
    from anyio.to_thread import run_sync
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    def sync(request):
        return PlainTextResponse(str(threading.current_thread() is threading.main_thread()))
    app = Starlette(routes=[Route("/", sync)])
"""


@pytest.mark.parametrize(
    "source",
    [SYNC, "def app(environ, start):\n    start('200 OK', [])\n    return [b'False']\n"],
    ids=["anyio", "wsgi"],
)
def test_threads_of_the_warm_up_end_with_it(machine: Any, source: str) -> None:
    spec = machine.spec(source, layer=layer(machine.home, "starlette", conflicting=False))

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        handed, link = await invoker.open(spec)

        assert (found["state"], found["reason"]) == ("ready", "")
        assert handed.tier == "snapshot"
        assert (await link.get()).body == b"False"
        await link.close()
        await invoker.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_server(('127.0.0.1', 0))",
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "os._exit(3)",
    ],
)
def test_what_only_the_warm_up_request_spoils_is_done_without_it(machine: Any, code: str) -> None:
    spec = machine.spec(f"""
        import os, socket, threading
        kept = []
        def app(request):
            if request.headers.get("user-agent") == "fluvial-warm-up":
                kept.append({code})
            return "hello"
    """)

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        handed, link = await invoker.open(spec)

        assert found["state"] == "ready"
        assert found["reason"].startswith("without a warm-up request: ")
        assert handed.tier == "snapshot"
        assert (await link.get()).body == b"hello"
        await link.close()
        await invoker.close()

    asyncio.run(main())


CRASHES = ["os._exit(9)", "ctypes.string_at(0)", "raise ValueError('not now')", "hang()"]


@pytest.mark.parametrize("code", CRASHES)
def test_a_snapshot_that_does_not_come_about_harms_nobody(machine: Any, code: str) -> None:
    spec = machine.spec(
        f"""
        import ctypes, os, threading
        def hang():
            threading.Event().wait()
        with open(os.environ["IMPORTS"], "a") as imports:
            imports.write("i")
            is_second = imports.tell() == 2
        if is_second:
            {code}
        def app(request):
            return "hello"
        """,
        environment={"IMPORTS": str(machine.home / "imports")},
        warm_up=None,
    )

    async def main() -> None:
        invoker = await machine.connect()
        one, link = await invoker.open(spec)
        imports = machine.home / "imports"
        await until(lambda: imports.exists() and len(imports.read_text()) == 2)
        state = "preparing" if code == "hang()" else "refused"
        await snapshot(invoker, spec.deployment, state)
        two, other = await invoker.open(spec, [one.instance])

        assert two.tier == "zygote"
        assert (await link.get()).body == (await other.get()).body == b"hello"
        await other.close()
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_opting_out(machine: Any) -> None:
    spec = machine.spec(APP, snapshot="off")

    async def main() -> None:
        invoker = await machine.connect()
        one, link, _ = await seen_by(invoker, spec)
        two, other, seen = await seen_by(invoker, spec, [one.instance])

        assert two.tier == "zygote"
        assert seen["imported_by"] == seen["pid"]
        assert await invoker.snapshots() == []
        for each in (link, other):
            await each.close()
        await invoker.close()

    asyncio.run(main())


HOOKS = """
    import os, sys, types
    import fluvial
    theirs = types.ModuleType("snapshot_restore_py")
    before, after, order = [], [], []
    theirs.get_before_snapshot = lambda: before
    theirs.get_after_restore = lambda: after
    sys.modules["snapshot_restore_py"] = theirs
    before += [(order.append, ("their before 1",), {}), (order.append, ("their before 2",), {})]
    after += [(order.append, ("their after 1",), {}), (order.append, ("their after 2",), {})]
    fluvial.register_before_snapshot(order.append, "our before 1")
    fluvial.register_before_snapshot(order.append, "our before 2")
    @fluvial.register_after_restore
    def again():
        order.append("our after 1")
    fluvial.register_after_restore(order.append, "our after 2")
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            order.append("lifespan")
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": ",".join(order).encode()})
"""


def test_hooks_run_in_the_order_that_is_promised(machine: Any) -> None:
    spec = machine.spec(HOOKS)

    async def main() -> None:
        invoker = await machine.connect()
        handed, link = await invoker.open(spec)
        without = (await link.get()).body
        await snapshot(invoker, spec.deployment)
        restored, other = await invoker.open(spec, [handed.instance])
        order = (await other.get()).body.decode().split(",")

        assert without == b"lifespan"  # no snapshot, no hook
        assert restored.tier == "snapshot"
        assert order == [
            "our before 2", "our before 1", "their before 2", "their before 1",
            "their after 1", "their after 2", "our after 1", "our after 2", "lifespan",
        ]  # fmt: skip
        await other.close()
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_a_hook_makes_an_unsafe_app_safe(machine: Any) -> None:
    spec = machine.spec("""
        import fluvial, os, socket
        kept = socket.create_server(("127.0.0.1", 0))
        fluvial.register_before_snapshot(kept.close)
        log = open(os.environ["LOG"], "a")
        def app(request):
            print("line", file=log, flush=True)
            return str(kept.fileno())
    """, environment={"LOG": str(machine.home / "own.log")}, warm_up=None)  # fmt: skip

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        handed, link = await invoker.open(spec)

        assert found["state"] == "ready"
        assert handed.tier == "snapshot"
        assert (await link.get()).body == b"-1"
        assert (machine.home / "own.log").read_text() == "line\n" * 2  # appending is shared
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_an_instance_that_cannot_be_restored_costs_the_snapshot_not_the_request(
    machine: Any,
) -> None:
    spec = machine.spec("""
        import fluvial
        fluvial.register_after_restore(lambda: 1 / 0)
        def app(request):
            return "hello"
    """)

    async def main() -> None:
        invoker = await machine.connect()
        await first_instance(invoker, spec)
        handed = await invoker.acquire(spec)
        reason = await invoker.death_of(handed.instance)
        again, link = await invoker.open(spec)

        assert handed.tier == "snapshot"
        assert reason.startswith("snapshot_failed: ")
        assert "ZeroDivisionError" in reason
        assert again.tier == "zygote"
        assert (await link.get()).body == b"hello"
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_a_snapshot_that_dies_takes_its_instances_with_it_and_is_made_again(machine: Any) -> None:
    spec = machine.spec(APP)

    async def main() -> None:
        invoker = await machine.connect()
        found = await first_instance(invoker, spec)
        handed, link, _ = await seen_by(invoker, spec)
        os.kill(found["pid"], signal.SIGKILL)
        assert await invoker.death_of(handed.instance) == "signal:9"
        await link.close()
        again = await first_instance(invoker, spec)

        assert again["state"] == "ready"
        assert again["pid"] != found["pid"]
        await invoker.close()

    asyncio.run(main())


def test_snapshots_are_given_up_when_there_is_no_room_for_them(machine: Any) -> None:
    machine.restart(FLUVIAL_SNAPSHOT_MEMORY="1MiB")
    spec = machine.spec(APP)

    async def main() -> None:
        invoker = await machine.connect()
        one, link, _ = await seen_by(invoker, spec)
        other = machine.spec(APP, app="other")
        two, other_link, _ = await seen_by(invoker, other)
        await until(lambda: machine.invoker_log.count("snapshot given up") == 1)
        # One fits, and the instances live on.
        assert len(await invoker.snapshots()) == 1
        assert (await link.get()).status == (await other_link.get()).status == 200
        await leave(invoker, one, link)
        await leave(invoker, two, other_link)
        await invoker.close()

    asyncio.run(main())


def test_a_snapshot_knows_the_environment_and_no_keys_and_ends_with_them(machine: Any) -> None:
    async def main() -> None:
        invoker = await machine.connect()
        spec = await with_variables(machine, machine.spec(APP), SECRET="canary-8841")
        found = await first_instance(invoker, spec)
        handed, link, seen = await seen_by(invoker, spec)
        assert (handed.tier, seen["secret"]) == ("snapshot", "canary-8841")
        root = root_of(machine)
        assert holds(found["pid"], [root, b"canary-8841"]) == [b"canary-8841"]
        assert root in holds(seen["pid"], [root])

        await invoker.keyring("demo", "freeze")
        assert await invoker.death_of(handed.instance) == "keys_changed"
        assert await invoker.snapshots() == []
        await gone(found["pid"])
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_a_newer_deployment_of_the_app_takes_the_place_of_the_oldest(machine: Any) -> None:
    specs = [machine.spec(APP) for _ in range(3)]

    async def main() -> None:
        invoker = await machine.connect()
        for spec in specs:
            await first_instance(invoker, spec)
        found = await invoker.snapshots()
        await invoker.close()

        assert [each["deployment"] for each in found] == [spec.deployment for spec in specs[1:]]

    asyncio.run(main())
