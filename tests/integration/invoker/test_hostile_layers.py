"""A layer is a stranger's code, and a zygote imports it: what the zygote then says is checked."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fluvial.wire import FrameType
from fluvial_invoker.instance.zygote_messages import ZygoteMessage
from tests.integration.invoker.conftest import Machine

HELLO = "def app(request):\n    return 'hello'\n"


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any instance."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def _layer(machine: Machine, name: str, code: str) -> str:
    folder = machine.home / "layers" / name
    folder.mkdir(parents=True)
    (folder / "flask.py").write_text(code)
    return name


def test_a_zygote_cannot_have_others_killed(
    machine: Machine,
    serve: Callable[..., Any],
    bystander: subprocess.Popen[bytes],
) -> None:
    code = f"import os\nos.fork = lambda: {bystander.pid}\n"
    spec = machine.spec(HELLO, layer=_layer(machine, "impostor", code))

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            assert (await link.get()).body == b"hello"
            assert handed.tier == "spawn"
            assert await invoker.pid_of(handed.instance) != bystander.pid
            invoker.send(FrameType.KILL, 0, handed.instance, 0)
            await invoker.death_of(handed.instance)
        assert bystander.poll() is None

    asyncio.run(main())


def test_a_zygote_cannot_report_others_dead(machine: Machine, serve: Callable[..., Any]) -> None:
    victim = machine.spec(HELLO, app="victim")

    async def main() -> None:
        async with serve(victim) as (invoker, handed, link):
            pid = await invoker.pid_of(handed.instance)
            code = (
                "import msgpack, os, sys\n"
                f"message = msgpack.packb(({int(ZygoteMessage.DIED)}, {pid}, 0))\n"
                "os.write(int(sys.argv[4]), message)\n"
            )
            liar = machine.spec(HELLO, layer=_layer(machine, "liar", code))
            async with serve(liar) as (_, _, other):
                assert (await other.get()).body == b"hello"
            assert (await link.get()).body == b"hello"
            alive, _ = await invoker.survey()
            assert {each["instance"]: each["state"] for each in alive}[handed.instance] == "ready"

    asyncio.run(main())


@pytest.mark.parametrize("message", [b"\xc1", b"\x93\x03\x01", b"\x93\x02\xa1x\xa1y", b"\x05"])
def test_a_zygote_that_talks_nonsense_is_ended(
    machine: Machine, serve: Callable[..., Any], message: bytes
) -> None:
    code = f"import os, sys\nos.write(int(sys.argv[4]), {message!r})\n"
    spec = machine.spec(HELLO, layer=_layer(machine, "babbler", code), snapshot="off")

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            assert (await link.get()).body == b"hello"
            assert handed.tier == "spawn"
            assert (await invoker.survey())[1] == []

    asyncio.run(main())
