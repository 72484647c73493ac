"""The invoker's client against a scripted invoker on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from fluvial import wire
from fluvial.errors import UnavailableError, WireError
from fluvial.wire import FrameType
from fluvial_gateway.invoker_client import InvokerClient, RefusedError
from tests.integration.gateway.gateway_peers import PATIENCE_SECONDS, run, spec

Reaction = Callable[["ScriptedInvoker", list[Any]], None]


class ScriptedInvoker(asyncio.Protocol):
    """One connection of an invoker whose answers a test writes."""

    def __init__(self, reaction: Reaction) -> None:
        self._reaction = reaction
        self._reader = wire.FrameReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for header, _ in self._reader.feed(data):
            self._reaction(self, header)

    def send(self, kind: int, question: int, *fields: object) -> None:
        self.transport.write(wire.pack(kind, question, *fields))


@contextlib.asynccontextmanager
async def _client(reaction: Reaction) -> AsyncGenerator[InvokerClient]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        path = str(Path(folder) / "invoker.sock")
        server = await loop.create_unix_server(lambda: ScriptedInvoker(reaction), path)
        client = InvokerClient(path)
        try:
            yield client
        finally:
            client.close()
            server.close()
            await asyncio.sleep(0)


def _acquired(invoker: ScriptedInvoker, header: list[Any]) -> None:
    invoker.send(
        FrameType.ACQUIRED, header[1], "ins_1", "/run/i/1.sock", b"secret", "zygote", {"fork": 3.1}
    )


def _keyring(*, public_key: bytes) -> dict[str, Any]:
    key = {
        "key": "k1",
        "state": "current",
        "created_ms": 1,
        "public_key": public_key,
        "is_wrapped": False,
        "destroyed_ms": None,
    }
    return {"current": "k1", "frozen_ms": None, "keys": [key]}


def test_acquire_sends_the_spec_and_returns_the_instance() -> None:
    async def main() -> None:
        asked: list[list[Any]] = []

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            asked.append(header)
            _acquired(invoker, header)

        async with _client(react) as client:
            acquired = await client.acquire(spec(), ["ins_0"])

            assert (acquired.instance, acquired.address) == ("ins_1", "/run/i/1.sock")
            assert (acquired.credential, acquired.tier) == (b"secret", "zygote")
            assert acquired.phases_ms == {"fork": 3.1}
            assert asked[0][2:] == [spec().to_dict(), ["ins_0"], False]

    run(main())


def test_questions_are_told_apart() -> None:
    async def main() -> None:
        held: list[list[Any]] = []

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            held.append(header)
            if len(held) == 2:
                for kept in reversed(held):
                    state = _keyring(public_key=kept[2].encode())
                    invoker.send(FrameType.KEYRING_STATE, kept[1], state, 0)

        async with _client(react) as client:
            one, two = await asyncio.gather(client.keyring("one"), client.keyring("two"))

            assert (one.app, one.current.public_key) == ("one", b"one")
            assert (two.app, two.current.public_key) == ("two", b"two")

    run(main())


def test_a_refusal_carries_its_code() -> None:
    async def main() -> None:
        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            invoker.send(FrameType.REFUSED, header[1], "capacity", "8 of 8 run")

        async with _client(react) as client:
            with pytest.raises(RefusedError, match="capacity: 8 of 8 run") as caught:
                await client.acquire(spec(), [])

            assert caught.value.reason == "capacity"

    run(main())


def test_no_answer_is_unavailable_at_the_deadline() -> None:
    async def main() -> None:
        async with _client(lambda invoker, header: None) as client:
            with pytest.raises(UnavailableError, match=r"within 0\.02 s"):
                await client.keyring("app", deadline_seconds=0.02)

    run(main())


def test_an_invoker_that_idles_out_is_dialled_again() -> None:
    async def main() -> None:
        dialled = 0

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            nonlocal dialled
            dialled += 1
            if dialled == 1:
                invoker.transport.abort()  # the question met the end of the invoker
            else:
                _acquired(invoker, header)

        async with _client(react) as client:
            acquired = await client.acquire(spec(), [])

            assert acquired.instance == "ins_1"
            assert dialled == 2

    run(main())


def test_an_invoker_that_always_hangs_up_is_unavailable() -> None:
    async def main() -> None:
        async with _client(lambda invoker, header: invoker.transport.abort()) as client:
            with pytest.raises(UnavailableError):
                await client.keyring("app")

    run(main())


def test_no_socket_is_unavailable() -> None:
    async def main() -> None:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await InvokerClient("/nonexistent/invoker.sock").keyring("app")

    run(main())


def test_an_answer_of_another_kind_is_refused() -> None:
    async def main() -> None:
        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            invoker.send(FrameType.SURVEYED, header[1], [], [])

        async with _client(react) as client:
            with pytest.raises(WireError):
                await client.keyring("app")

    run(main())


def test_an_answer_that_is_no_keyring_is_refused() -> None:
    async def main() -> None:
        broken: list[Any] = [{}, {"keys": [], "current": "k", "frozen_ms": None}, [], None]

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            invoker.send(FrameType.KEYRING_STATE, header[1], broken.pop(), 0)

        async with _client(react) as client:
            while broken:
                with pytest.raises(WireError, match="keyring"):
                    await client.keyring("app")

    run(main())


def test_deaths_are_told() -> None:
    async def main() -> None:
        told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            invoker.send(FrameType.DEAD, 0, "ins_0", "signal:9")
            _acquired(invoker, header)

        async with _client(react) as client:
            client.subscribe(lambda instance, reason: told.put_nowait((instance, reason)))
            await client.acquire(spec(), [])

            assert told.get_nowait() == ("ins_0", "signal:9")

    run(main())


def test_a_survey_starts_no_invoker_and_a_kill_needs_none() -> None:
    async def main() -> None:
        asked: asyncio.Queue[list[Any]] = asyncio.Queue()

        def react(invoker: ScriptedInvoker, header: list[Any]) -> None:
            asked.put_nowait(header)
            if header[0] == FrameType.SURVEY:
                invoker.send(FrameType.SURVEYED, header[1], [{"instance": "ins_1"}], [], [])
            elif header[0] == FrameType.ACQUIRE:
                _acquired(invoker, header)

        async with _client(react) as client:
            assert (await client.survey()).instances == []
            client.kill("ins_1", 100)
            await client.acquire(spec(), [])
            assert (await client.survey()).instances == [{"instance": "ins_1"}]
            client.kill("ins_1", 100)
            async with asyncio.timeout(PATIENCE_SECONDS):
                frames = [await asked.get() for _ in range(3)]

            assert [FrameType(frame[0]) for frame in frames] == [
                FrameType.ACQUIRE,
                FrameType.SURVEY,
                FrameType.KILL,
            ]
            assert frames[2][2:] == ["ins_1", 100]

    run(main())
