"""Subclasses of `http.server.BaseHTTPRequestHandler`, one object for each request.

The class is used as it is, with a connection that exists in memory only: it reads the request as
HTTP/1.1 text, and what it writes is parsed strictly and passed on as it comes. So everything that a
subclass may override works, and a method that it lacks is answered with its own 501.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
from collections.abc import Callable, MutableMapping
from concurrent.futures import Executor
from types import SimpleNamespace
from typing import Any, Final

from fluvial_invoker.instance.asgi import AsgiApp, Message, Receive, Send
from fluvial_invoker.instance.blocking import BlockingExchange
from fluvial_invoker.instance.credit import ClientGoneError
from fluvial_invoker.instance.handlers import whole_body
from fluvial_invoker.instance.response_parser import ResponseParser
from fluvial_invoker.instance.threads import run_in_thread

# Said about the connection, which ends here; and what the body's framing has become.
_NOT_PASSED_ON: Final = frozenset(
    {b"connection", b"keep-alive", b"expect", b"transfer-encoding", b"te", b"trailer", b"upgrade"}
)


def asgi_from_request_handler(handler: Callable[..., Any], executor: Executor) -> AsgiApp:
    """Return an ASGI app that gives each request to an object of the class `handler`."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = list(scope["headers"])
        if not any(name.lower() == b"content-length" for name, _ in headers):
            # It came in chunks. A handler reads as many bytes as are announced, so they must be.
            body = await whole_body(receive)
            if body:
                headers.append((b"Content-Length", b"%d" % len(body)))
            receive = _receive_once(body)
        exchange = BlockingExchange(asyncio.get_running_loop(), receive, send)
        connection = _Connection(_head(scope, headers), exchange, scope["method"])
        server = _server(scope, headers)
        context = contextvars.copy_context()
        client = tuple(scope.get("client") or ("", 0))

        def serve() -> None:
            try:
                handler(connection, client, server)
                connection.finish()
            except ClientGoneError:
                return  # seen by the code, which went on or did not

        await run_in_thread(executor, lambda: context.run(serve))

    return call


def _head(scope: MutableMapping[str, Any], headers: list[tuple[bytes, bytes]]) -> bytes:
    path, query = scope["raw_path"], scope["query_string"]
    target = path + b"?" + query if query else path
    version = b"HTTP/1.0" if scope["http_version"] == "1.0" else b"HTTP/1.1"
    lines = [b" ".join((scope["method"].encode("ascii"), target, version))]
    lines += [
        b"%b: %b" % (name, value) for name, value in headers if name.lower() not in _NOT_PASSED_ON
    ]
    return b"\r\n".join((*lines, b"", b""))


def _server(scope: MutableMapping[str, Any], headers: list[tuple[bytes, bytes]]) -> Any:
    """Return what stands for the server that a handler may ask for its name."""
    host = next((value for name, value in headers if name.lower() == b"host"), b"localhost")
    name, _, port = host.decode("latin-1").rpartition(":")
    address = (name, int(port)) if name and port.isdecimal() else (host.decode("latin-1"), 80)
    return SimpleNamespace(
        server_name=address[0], server_port=address[1], server_address=address, timeout=None
    )


def _receive_once(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


class _Connection:
    """What the handler takes for its socket."""

    def __init__(self, head: bytes, exchange: BlockingExchange, method: str) -> None:
        self._request = _Request(head, exchange)
        self._parser = ResponseParser(method)
        self._exchange = exchange

    def makefile(self, mode: str, buffering: int = -1) -> Any:
        if "r" in mode:
            return io.BufferedReader(self._request)
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        return io.BufferedWriter(_Response(self), size)

    def sendall(self, data: Any) -> None:
        self._exchange.write(self._parser.feed(bytes(data)))

    def finish(self) -> None:
        self._exchange.write(self._parser.finish())

    def settimeout(self, seconds: float | None) -> None: ...

    def setsockopt(self, *option: Any) -> None: ...

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


class _Request(io.RawIOBase):
    def __init__(self, head: bytes, exchange: BlockingExchange) -> None:
        self._left = memoryview(head)
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._left:
            self._left = memoryview(self._exchange.read())
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


class _Response(io.RawIOBase):
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._connection.sendall(data)
        return len(data)
