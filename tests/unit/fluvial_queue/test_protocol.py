"""The pipelined connection, against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fluvial_queue.contract import (
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from fluvial_queue.redis import link as link_module
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.protocol import Call, Wire
from fluvial_queue.redis.replies import NoScriptError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PONG = b"+PONG\r\n"


def run(folder: Path, serve: Serve, main: Callable[[Link], Awaitable[None]]) -> None:
    """Run `main` with a link to a server that does what `serve` does behind the greeting."""

    async def bounded() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"PING\r\n")
            writer.write(PONG)
            await serve(reader, writer)
            writer.close()

        server = await asyncio.start_unix_server(accept, folder / "s")
        link = Link(Address(path=str(folder / "s")))
        async with asyncio.timeout(10):
            await link.open()
            try:
                await main(link)
            finally:
                await link.close()
                server.close()

    asyncio.run(bounded())


async def commands(reader: asyncio.StreamReader, count: int) -> None:
    """Read commands of one word."""
    for _ in range(count):
        await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")


def test_replies_cut_anywhere_reach_their_callers(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 3)
        for byte in b"+one\r\n$3\r\ntwo\r\n*2\r\n:1\r\n$-1\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        await reader.read()

    async def main(link: Link) -> None:
        replies = await link.calls([("A",), ("B",), ("C",)], writes=False)

        assert replies == [b"one", b"two", [1, None]]

    run(tmp_path, serve, main)


def test_commands_of_one_turn_leave_in_one_write(tmp_path: Path) -> None:
    chunks: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunks.append(await reader.read(65536))
        writer.write(b":1\r\n" * 100)
        await reader.read()

    async def main(link: Link) -> None:
        await link.calls([("X",)] * 100, writes=False)

        assert chunks == [b"*1\r\n$1\r\nX\r\n" * 100]

    run(tmp_path, serve, main)


def test_reply_of_a_cancelled_call_is_dropped(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 3)
        writer.write(b":1\r\n:2\r\n:3\r\n")
        await reader.read()

    async def main(link: Link) -> None:
        first, second, third = [link.call((c,), writes=False) for c in "ABC"]
        second.cancel()

        assert [await first, await third] == [1, 3]

    run(tmp_path, serve, main)


def test_lost_connection_is_unknown_for_writes_and_unavailable_for_reads(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 3)
        writer.write(b":1\r\n")

    async def main(link: Link) -> None:
        answered = link.call(("A",), writes=True)
        written = link.call(("B",), writes=True)
        read = link.call(("C",), writes=False)

        assert await answered == 1
        with pytest.raises(OutcomeUnknownError):
            await written
        with pytest.raises(StoreUnavailableError):
            await read

    run(tmp_path, serve, main)


def test_call_that_was_never_written_is_kept_for_the_next_connection() -> None:
    async def main() -> None:
        lost: list[Wire] = []
        wire = Wire(reply_seconds=1, on_lost=lost.append)
        wire.connection_made(asyncio.Transport())
        call = Call(b"packed", True, asyncio.get_running_loop().create_future())
        wire.send(call)
        wire.connection_lost(None)

        assert lost == [wire]
        assert wire.lost_calls == [call]
        assert not call.future.done()

    asyncio.run(main())


@pytest.mark.parametrize("garbage", [b"!\r\n", b":1\r\n:2\r\n", b"$-5\r\n", b"*1\r\n?"])
def test_garbage_ends_the_connection(tmp_path: Path, garbage: bytes) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (second if first.is_set() else first).set()
        await commands(reader, 1)
        writer.write(b":7\r\n" if second.is_set() else garbage)
        await reader.read()

    async def main(link: Link) -> None:
        await asyncio.gather(link.call(("A",), writes=False), return_exceptions=True)
        await second.wait()

        assert await link.call(("A",), writes=False) == 7

    run(tmp_path, serve, main)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("OOM command not allowed", StoreFullError),
        ("MISCONF Errors: No space left on device", StoreFullError),
        ("READONLY You can't write", StoreUnavailableError),
        ("LOADING it is", StoreUnavailableError),
        ("CLUSTERDOWN", StoreUnavailableError),
        ("TRYAGAIN later", StoreUnavailableError),
        ("BUSY a script", StoreUnavailableError),
        ("MISCONF disk", StoreUnavailableError),
        ("NOSCRIPT No matching script", NoScriptError),
        ("WRONGTYPE Operation", StoreError),
        ("ERR unknown", StoreError),
    ],
)
def test_error_replies_are_told_apart(tmp_path: Path, reply: str, error: type[StoreError]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 2)
        writer.write(f"-{reply}\r\n:1\r\n".encode())
        await reader.read()

    async def main(link: Link) -> None:
        failed, fine = link.call(("A",), writes=True), link.call(("B",), writes=True)
        with pytest.raises(StoreError) as raised:
            await failed

        assert type(raised.value) is error
        assert await fine == 1

    run(tmp_path, serve, main)


def test_calls_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_CALLS", 10)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 10)
        writer.write(b":1\r\n" * 10)
        await reader.read()

    async def main(link: Link) -> None:
        futures = [link.call(("A",), writes=False) for _ in range(10)]
        with pytest.raises(StoreUnavailableError, match="under way"):
            link.call(("A",), writes=False)

        assert await asyncio.gather(*futures) == [1] * 10

    run(tmp_path, serve, main)


def test_closed_link_refuses_calls(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main(link: Link) -> None:
        await link.close()
        with pytest.raises(StoreUnavailableError, match="not open"):
            link.call(("A",), writes=False)

    run(tmp_path, serve, main)


def test_closing_waits_for_what_is_under_way(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await commands(reader, 2)  # the call, and the PING that close puts behind it
        writer.write(b":1\r\n" + PONG)
        await reader.read()

    async def main(link: Link) -> None:
        future = link.call(("A",), writes=True)
        await link.close()

        assert await future == 1

    run(tmp_path, serve, main)
