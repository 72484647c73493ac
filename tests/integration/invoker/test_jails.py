"""Instances in jails: they live and die like others, with less around them."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from fluvial.wire import FrameType
from fluvial_invoker import process_stats
from tests.escapes.observing import open_machine, reachable_python
from tests.integration.invoker.conftest import RefusedByInvokerError, end_of, linked
from tests.integration.invoker.test_isolation import layer_with

APP = """
    import asyncio, ctypes, os, socket, subprocess, sys, tempfile

    def dial(port):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError as error:
            return type(error).__name__
        return "connected"

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError
        name, _, rest = scope["path"][1:].partition("/")
        answer = name
        if name == "exit":
            os._exit(int(rest))
        elif name == "crash":
            ctypes.string_at(0)
        elif name == "dial":
            answer = dial(int(rest))
        elif name == "start":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"],
                             start_new_session=True)
            answer = "started"
        elif name == "wait":
            await asyncio.sleep(3600)
        elif name == "look":
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
            said = subprocess.run(["sh", "-c", "echo said"], capture_output=True, text=True)
            answer = repr([os.getpid(), sorted(os.listdir("/tmp")), said.stdout, os.getcwd(),
                           os.path.exists(os.path.expanduser("~"))])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer.encode()})
"""

# The invoker, on a machine that lets nobody make namespaces: the filter of a jail does just that.
WITHOUT_NAMESPACES = """
import runpy
from fluvial_invoker.instance.jail import kernel, seccomp
kernel.control_process(38, 1)
seccomp.install()
runpy.run_module("fluvial_invoker", run_name="__main__")
"""


def inside(warden: int) -> int:
    """Return the process that a warden watches, as the machine knows it."""
    (child,) = Path(f"/proc/{warden}/task/{warden}/children").read_text().split()
    return int(child)


def descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [each for child in children for each in (child, *descendants(child))]


def test_code_in_a_jail_finds_what_programs_need(machine: Any, serve: Any) -> None:
    spec = machine.spec(APP, isolation="jail")

    async def main() -> None:
        async with serve(spec) as (_, handed, link):
            seen = ast.literal_eval((await link.get("/look")).body.decode())
            pid, files, said, folder, has_home = seen

            assert handed.tier == "zygote"
            assert pid == 1
            assert files == [machine.home.name]  # the way to the bundle, as it happens
            assert said == "said\n"
            assert folder == str(machine.home / "bundles" / spec.bundle)
            assert has_home

    asyncio.run(main())


@pytest.mark.parametrize(("path", "reason"), [("/exit/3", "exit:3"), ("/crash", "signal:11")])
def test_an_instance_in_a_jail_ends_as_its_code_ends_it(
    machine: Any, serve: Any, path: str, reason: str
) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP, isolation="jail")) as (invoker, handed, link):
            await link.get("/ready")
            link.request(path)

            assert await invoker.death_of(handed.instance) == reason

    asyncio.run(main())


def test_an_instance_in_a_jail_drains_when_it_is_told_to(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP, isolation="jail")) as (invoker, handed, link):
            await link.get("/ready")
            invoker.send(FrameType.KILL, 0, handed.instance, 10_000)
            await link.next(kind=FrameType.GOAWAY)
            await link.close()

            assert await invoker.death_of(handed.instance) == "terminated"

    asyncio.run(main())


def test_nothing_of_a_jail_outlives_its_warden(machine: Any, serve: Any) -> None:
    """Not even what has left its session, and its group."""

    async def main() -> None:
        async with serve(machine.spec(APP, isolation="jail")) as (invoker, handed, link):
            await link.get("/start")
            warden = await invoker.pid_of(handed.instance)
            started = descendants(warden)
            watched = [os.pidfd_open(pid) for pid in started]
            os.kill(warden, signal.SIGKILL)
            reason = await invoker.death_of(handed.instance)
            for fd in watched:
                await end_of(fd)

            assert reason == "signal:9"
            assert len(started) == 2

    asyncio.run(main())


def test_the_survey_measures_the_instance_and_not_its_warden(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP, isolation="jail")) as (invoker, _, link):
            await link.get("/ready")
            (seen,), _ = await invoker.survey()
            instance = inside(seen["pid"])

            assert seen["rss_bytes"] == pytest.approx(process_stats.rss_bytes(instance), rel=0.2)

    asyncio.run(main())


@pytest.mark.parametrize("allowed", ["all", "none", "this port", "another port"])
def test_the_manifest_says_what_a_jail_may_dial(machine: Any, serve: Any, allowed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        network = {"this port": str(port), "another port": "1,443"}.get(allowed, allowed)
        spec = machine.spec(APP, isolation="jail", network=network)

        async def main() -> str:
            async with serve(spec) as (_, _, link):
                return str((await link.get(f"/dial/{port}")).body.decode())

        seen = asyncio.run(main())

    expected = {"none": "OSError", "another port": "PermissionError"}
    assert seen == expected.get(allowed, "connected")


def test_a_layer_that_a_jail_cannot_serve_is_refused(machine: Any) -> None:
    layer = layer_with(machine.home, "cffi", "0.0.1")
    spec = machine.spec(APP, isolation="jail", layer=layer)

    async def main() -> None:
        invoker = await machine.connect()
        with pytest.raises(RefusedByInvokerError) as caught:
            await invoker.acquire(spec)
        await invoker.close()

        code, message = caught.value.args
        assert code == "isolation_unavailable"
        assert "other versions of what the platform lends: cffi" in message

    asyncio.run(main())


def test_a_jail_imports_its_layer_itself(machine: Any, serve: Any) -> None:
    """The zygote that all share never imports what a layer brings."""
    folder = machine.home / "layers" / "layer1"
    folder.mkdir(parents=True)
    (folder / "flask.py").write_text("import os\nwhere = os.getpid()\n")
    main_text = "import flask\ndef app(request):\n    return str(flask.where)\n"
    spec = machine.spec(main_text, isolation="jail", layer="layer1")

    async def main() -> None:
        async with serve(spec) as (invoker, _, link):
            reply = await link.get()
            _, zygotes = await invoker.survey()

            assert reply.body == b"1"
            assert [zygote["layer"] for zygote in zygotes] == [""]

    asyncio.run(main())


def test_where_no_jail_can_be_a_deployment_is_refused_with_the_reason(machine: Any) -> None:
    launcher = machine.home / "python"
    launcher.write_text(f"#!{sys.executable}\n{WITHOUT_NAMESPACES}")
    launcher.chmod(0o700)
    machine.python = str(launcher)
    machine.restart()

    async def main() -> None:
        invoker = await machine.connect()
        with pytest.raises(RefusedByInvokerError) as caught:
            await invoker.acquire(machine.spec(APP, isolation="jail"))
        handed = await invoker.acquire(machine.spec(APP))
        await invoker.close()

        assert caught.value.args == (
            "isolation_unavailable",
            "isolation 'jail': unshare: Operation not permitted",
        )
        assert handed.tier == "zygote"

    asyncio.run(main())


BOMB = """
    import os

    def app(request):
        if request.path == "/count":
            return str(sum(name.isdigit() for name in os.listdir("/proc")))
        for number in range(1000):
            try:
                child = os.fork()
            except OSError as error:
                return type(error).__name__
            if child == 0:
                os.execvp("sleep", ["sleep", "3600"])
        return "no limit"
"""


def test_a_fork_bomb_in_a_jail_meets_a_limit_and_ends_with_the_instance() -> None:
    with open_machine("one user") as machine:
        spec = machine.spec(BOMB, isolation="jail")

        async def main() -> None:
            async with linked(machine, spec) as (invoker, handed, link):
                seen = (await link.get("/")).body
                count = int((await link.get("/count")).body)
                warden = await invoker.pid_of(handed.instance)
                watched = [os.pidfd_open(pid) for pid in descendants(warden)]
                os.kill(warden, signal.SIGKILL)
                for fd in watched:
                    await end_of(fd)

                # Where nobody else can execute the interpreter, the machine is root's.
                is_root = os.geteuid() == 0 and reachable_python() is None
                assert seen == (b"no limit" if is_root else b"BlockingIOError")
                assert (count > 500) is is_root

        asyncio.run(main())
