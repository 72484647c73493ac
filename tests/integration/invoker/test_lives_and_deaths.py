"""How instances, zygotes and the invoker end, and what the others see of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from typing import Any

import pytest

from fluvial.wire import FrameType
from tests.integration.invoker.conftest import end_of

APP = """
    import asyncio, ctypes, os, sys
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        path = scope["path"]
        if path == "/raise":
            raise ValueError("of the user")
        if path == "/exit":
            sys.exit(3)
        if path == "/task-exit":
            async def leave():
                sys.exit(4)
            await asyncio.create_task(leave())
        if path == "/lost-task":
            async def fail():
                raise ValueError("in a task nobody awaits")
            asyncio.create_task(fail())
        if path == "/os-exit":
            os._exit(7)
        if path == "/crash":
            ctypes.string_at(0)
        if path == "/wait":
            await asyncio.sleep(3600)
        if path == "/stubborn":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        if path == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            raise ValueError("too late")
        if path == "/silent":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


async def gone(pid: int, seconds: float = 20.0) -> None:
    """Wait until a process has ended."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_reader(fd, ended.set)
            await asyncio.wait_for(ended.wait(), seconds)
            loop.remove_reader(fd)
        finally:
            os.close(fd)


async def dial_again(link: Any, address: str) -> Any:
    return await link.dial(address)


def is_alive(pid: int) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([fd], [], [], 0)[0]
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["/raise", "/exit", "/task-exit", "/silent"])
def test_failure_of_one_invocation_is_its_own(machine: Any, serve: Any, path: str) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (_, _, link):
            neighbour = link.request("/wait")
            failed = await link.get(path)
            after = await link.get("/")

            assert (failed.status, failed.outcome) == (500, "error")
            assert failed.body == b"Internal Server Error"
            assert after.outcome == "ok"
            link.send(FrameType.CANCEL, neighbour, "test")
            assert (await link.reply(neighbour)).outcome == "cancelled"
        if path == "/raise":
            await machine.logged("ValueError: of the user")

    asyncio.run(main())


def test_failure_after_the_head_breaks_the_response(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (_, _, link):
            reply = await link.get("/late")

            assert (reply.status, reply.broken, reply.outcome) == (200, "error", "error")

    asyncio.run(main())


def test_task_that_nobody_awaits_harms_nobody(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (_, _, link):
            assert (await link.get("/lost-task")).outcome == "ok"
            assert (await link.get("/")).outcome == "ok"

    asyncio.run(main())


@pytest.mark.parametrize(("path", "reason"), [("/os-exit", "exit:7"), ("/crash", "signal:11")])
def test_death_of_an_instance_is_told(machine: Any, serve: Any, path: str, reason: str) -> None:
    spec = machine.spec(APP)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            link.request(path)
            await link.wait_closed()

            assert await invoker.death_of(handed.instance) == reason
            assert os.listdir(machine.run_dir / "i") == []
            fresh, other = await invoker.open(spec, [handed.instance])
            assert fresh.instance != handed.instance
            assert (await other.get()).outcome == "ok"
            await other.close()

    asyncio.run(main())


def test_killed_instance_is_told(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (invoker, handed, link):
            await link.get()
            os.kill(await invoker.pid_of(handed.instance), signal.SIGKILL)

            assert await invoker.death_of(handed.instance) == "signal:9"

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/wait", "/stubborn"])
def test_kill_ends_an_instance_within_its_grace(machine: Any, serve: Any, path: str) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (invoker, handed, link):
            await link.get()
            link.request(path)
            invoker.send(FrameType.KILL, 0, handed.instance, 300)
            goaway = await link.next(kind=FrameType.GOAWAY)

            assert goaway.header[2] == "terminated"
            assert await invoker.death_of(handed.instance) == "killed"

    asyncio.run(main())


def test_instances_die_with_their_zygote(machine: Any, serve: Any) -> None:
    spec = machine.spec(APP)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            await link.get()
            pid = await invoker.pid_of(handed.instance)
            _, zygotes = await invoker.survey()
            os.kill(zygotes[0]["pid"], signal.SIGKILL)

            assert await invoker.death_of(handed.instance) == "signal:9"
            await gone(pid)
            again, other = await invoker.open(spec, [handed.instance])
            assert again.tier == "zygote"
            assert (await other.get()).outcome == "ok"
            await other.close()

    asyncio.run(main())


def test_everything_dies_with_the_invoker(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (invoker, handed, link):
            await link.get()
            pid = await invoker.pid_of(handed.instance)
            _, zygotes = await invoker.survey()
            machine.process.kill()
            machine.process.wait()

            await link.wait_closed()
            await gone(pid)
            await gone(zygotes[0]["pid"])

    asyncio.run(main())


def test_children_of_an_instance_die_with_it(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import subprocess
        def app(request):
            return str(subprocess.Popen(["sleep", "3600"]).pid)
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            child = int((await link.get()).body)
            assert is_alive(child)
            os.kill(await invoker.pid_of(handed.instance), signal.SIGKILL)
            await invoker.death_of(handed.instance)
            await gone(child)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("def app(", "SyntaxError"),
        ("application = 1", "main has no 'app'"),
        ("app = 5", "main:app: is a int: expected"),
        ("def app(a, b, c, d): pass", "is a function with 4 positional parameters"),
        ("raise SystemExit('no thanks')", "SystemExit: no thanks"),
        ("import os; os._exit(9)", "exit:9 before it was ready"),
        ("import ctypes; ctypes.string_at(0)", "signal:11 before it was ready"),
    ],
)
def test_deployment_that_cannot_be_loaded_says_why(
    machine: Any, source: str, expected: str
) -> None:
    async def main() -> None:
        invoker = await machine.connect()
        handed = await invoker.acquire(machine.spec(source))  # not dialled: it may be gone by then
        reason = await invoker.death_of(handed.instance)
        await invoker.close()

        assert reason.startswith("import_failed: ")
        assert expected in reason
        assert len(reason) < 5000

    asyncio.run(main())


def test_failed_lifespan_start_up_is_told(machine: Any) -> None:
    spec = machine.spec("""
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """)

    async def main() -> None:
        invoker = await machine.connect()
        handed = await invoker.acquire(spec)
        reason = await invoker.death_of(handed.instance)
        await invoker.close()

        assert reason == "import_failed: lifespan start-up failed: no database"

    asyncio.run(main())


def test_idle_instance_says_goodbye_and_leaves(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP, idle_seconds=0.2)) as (invoker, handed, link):
            await link.get()
            goaway = await link.next(kind=FrameType.GOAWAY)
            nack = await link.next(link.request())
            await link.close()

            assert goaway.header[2] == "idle"
            assert nack.header[0] == FrameType.NACK
            assert nack.header[2] == "draining"
            assert await invoker.death_of(handed.instance) == "idle"

    asyncio.run(main())


def test_busy_instance_is_not_idle(machine: Any, serve: Any) -> None:
    spec = machine.spec(
        """
        import asyncio
        async def app(request):
            await asyncio.sleep(0.6)
            return "done"
    """,
        idle_seconds=0.2,
    )

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            assert (await link.get()).body == b"done"

    asyncio.run(main())


def test_lost_link_cancels_its_invocations_before_another_is_served(
    machine: Any, serve: Any
) -> None:
    spec = machine.spec("""
        import asyncio
        running = 0
        async def app(request):
            global running
            if request.path == "/count":
                return str(running)
            running += 1
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.2)
                running -= 1
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            assert (await link.get("/count")).body == b"0"
            for _ in range(5):
                link.request("/wait")
            assert (await link.get("/count")).body == b"5"
            link.abort()
            await link.wait_closed()
            again, other = await invoker.open(spec)

            assert again.instance == handed.instance
            assert again.tier == "warm"
            assert (await other.get("/count")).body == b"0"
            await other.close()

    asyncio.run(main())


def test_instance_whose_code_does_not_stop_leaves(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (invoker, handed, link):
            link.request("/stubborn")
            await link.get()
            link.abort()

            assert await invoker.death_of(handed.instance) == "stuck"

    asyncio.run(main())


def test_credentials_are_single_use(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (_, handed, link):
            await link.get()
            for credential in (handed.credential, b"guess"):
                other: Any = await dial_again(link, handed.address)
                other.hello(credential)
                other.request()
                await other.wait_closed()
                assert not other.waiting

    asyncio.run(main())


def test_room_is_limited(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP, max_concurrency=2)) as (_, _, link):
            running = [link.request("/wait"), link.request("/wait")]
            nack = await link.next(link.request())
            link.send(FrameType.CANCEL, running[0], "test")
            await link.reply(running[0])

            assert nack.header[0] == FrameType.NACK
            assert nack.header[2] == "concurrency"
            assert (await link.get()).outcome == "ok"

    asyncio.run(main())


def test_invoker_stops_everything_on_sigterm(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (invoker, handed, link):
            await link.get()
            pid = await invoker.pid_of(handed.instance)
            machine.process.send_signal(signal.SIGTERM)
            goaway = await link.next(kind=FrameType.GOAWAY)
            await link.close()

            assert goaway.header[2] == "terminated"
            assert await asyncio.to_thread(machine.process.wait, 20) == 0
            assert not is_alive(pid)
            assert os.listdir(machine.run_dir / "i") == []

    asyncio.run(main())


def test_idle_invoker_exits_and_the_next_one_serves(machine: Any) -> None:
    async def main() -> None:
        machine.process.terminate()
        await asyncio.to_thread(machine.process.wait, 20)
        machine.start(FLUVIAL_INVOKER_IDLE="0.5")
        invoker = await machine.connect()
        handed, link = await invoker.open(machine.spec(APP, idle_seconds=0.1))
        await link.get()
        await link.next(kind=FrameType.GOAWAY)
        await link.close()
        await invoker.death_of(handed.instance)
        await invoker.wait_closed()

        assert await asyncio.to_thread(machine.process.wait, 20) == 0
        machine.start()
        invoker = await machine.connect()
        _, link = await invoker.open(machine.spec(APP))
        assert (await link.get()).outcome == "ok"
        await link.close()
        await invoker.close()

    asyncio.run(main())


def test_what_an_instance_has_started_ends_with_it(machine: Any, serve: Any) -> None:
    """Also what has a session of its own, and what is a daemon."""
    spec = machine.spec(
        """
        import os, subprocess

        def app(request):
            if request.path == "/exit":
                os._exit(3)
            sleep = ["sleep", "3600"]
            child = subprocess.Popen(sleep, start_new_session=True)
            daemon = subprocess.run(
                ["sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 & echo $!"],
                capture_output=True, text=True,
            )
            return f"{child.pid} {daemon.stdout}"
    """
    )

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            pids = [int(pid) for pid in (await link.get("/")).body.split()]
            watched = [os.pidfd_open(pid) for pid in pids]
            link.request("/exit")
            reason = await invoker.death_of(handed.instance)
            for fd in watched:
                await end_of(fd)

            assert reason == "exit:3"
            assert len(pids) == 2

    asyncio.run(main())
