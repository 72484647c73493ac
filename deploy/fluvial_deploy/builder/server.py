"""Serves BUILD frames on a Unix socket until nothing was asked for a while.

A connection that ends cancels its builds: nobody would hear of the result.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any, Final, cast

from fluvial.errors import FluvialError, InvalidRequestError, WireError
from fluvial.wire import FrameReader, FrameType, pack
from fluvial_deploy.builder.build import BuildRequest, Builds
from fluvial_deploy.builder.refusals import BusyError

logger = logging.getLogger(__name__)

MAX_BUILDS: Final = 32  # under way and waiting, over all connections
_READ_BYTES: Final = 64 * 1024
_SEND_SECONDS: Final = 30.0  # a gateway that does not read its build log for so long is gone


class BuilderServer:
    """Answers BUILD with BUILD_LOG…, then BUILT or REFUSED."""

    def __init__(self, builds: Builds, *, idle_seconds: float) -> None:
        self._builds = builds
        self._idle_seconds = idle_seconds
        self._active = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve until idle for long enough or `stop` is set."""
        self._rest()
        # Not start_unix_server: from Python 3.13 on that removes the supervisor's socket file.
        server = await asyncio.start_server(self._accept, sock=listener)
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._idle)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Refuse new connections (the supervisor holds the socket), then cancel what is left.
            server.close()
            for task in (*ends, *self._connections):
                task.cancel()
            await asyncio.gather(*ends, *self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        try:
            await _Connection(self, self._builds, writer).run(reader)
        except* (ConnectionError, WireError, TimeoutError):
            logger.warning("a connection broke", exc_info=True)
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def is_full(self) -> bool:
        """Whether a further build must be refused."""
        return self._active > MAX_BUILDS

    def enter(self) -> None:
        """Count one more build."""
        self._active += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    def leave(self) -> None:
        """Count one build less."""
        self._active -= 1
        if self._active == 0:
            self._rest()

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self._idle_seconds, self._idle.set)


class _Connection:
    def __init__(self, server: BuilderServer, builds: Builds, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._builds = builds
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Answer requests until the other side hangs up."""
        frames = FrameReader()
        async with asyncio.TaskGroup() as group:
            try:
                while data := await reader.read(_READ_BYTES):
                    for header, _body in frames.feed(data):
                        self._begin(header, group)
            finally:
                for task in self._tasks:
                    task.cancel()

    def _begin(self, header: list[Any], group: asyncio.TaskGroup) -> None:
        if header[0] != FrameType.BUILD:
            raise WireError(f"a builder does not answer frames of type {header[0]}")
        self._server.enter()
        task = group.create_task(self._answer(header))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._server.leave()

    async def _answer(self, header: list[Any]) -> None:
        conversation: int = header[1]

        async def log(line: str) -> None:
            await self._send(FrameType.BUILD_LOG, conversation, line)

        try:
            if self._server.is_full:
                raise BusyError(MAX_BUILDS)
            report = await self._builds.build(_request(header), log)
        except FluvialError as error:
            logger.info("refused a build", extra={"code": error.code})
            await self._send(FrameType.REFUSED, conversation, error.code, str(error))
        except ConnectionError:
            raise
        except Exception:  # the boundary of one build: the others and the builder go on
            logger.exception("a build failed")
            text = "the builder failed; its log says why"
            await self._send(FrameType.REFUSED, conversation, "internal", text)
        else:
            await self._send(FrameType.BUILT, conversation, report.to_dict())

    async def _send(self, frame: FrameType, conversation: int, *fields: object) -> None:
        self._writer.write(pack(frame, conversation, *fields))
        async with asyncio.timeout(_SEND_SECONDS):
            await self._writer.drain()


def _request(header: list[Any]) -> BuildRequest:
    if len(header) < 3 or not isinstance(header[2], dict):
        raise InvalidRequestError("a BUILD frame must carry a map")
    return BuildRequest.from_dict(cast("dict[str, Any]", header[2]))
