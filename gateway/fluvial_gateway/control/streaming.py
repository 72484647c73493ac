"""Responses that are written while they are made."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from starlette.responses import StreamingResponse
from starlette.types import Send

from fluvial.errors import FluvialError, UnavailableError
from fluvial_gateway.control.operations import DONE, INTERRUPTED, Call
from fluvial_gateway.problems import internal_problem, problem_of

_LOG = logging.getLogger(__name__)
LINES: Final = "application/x-ndjson"


class GeneratedResponse(StreamingResponse):
    """Streams a generator and closes it at the end, also when the client goes away: what the
    generator holds (a connection to the builder, a place among the waiting) is given back then,
    and not when the garbage collector finds it."""

    def __init__(self, generator: AsyncGenerator[bytes, None], *, media_type: str) -> None:
        super().__init__(generator, media_type=media_type, headers={"x-accel-buffering": "no"})
        self._generator = generator
        self.at_end: Callable[[], None] = _nothing  # called once the generator has ended

    async def stream_response(self, send: Send) -> None:
        try:
            async with aclosing(self._generator):
                await super().stream_response(send)
        finally:
            self.at_end()


def _nothing() -> None:
    """Nobody wants to know when it has ended."""


def line_response(call: Call, values: AsyncGenerator[Any, None]) -> GeneratedResponse:
    """Return a response of one JSON value a line.

    The status line is gone by the time at which something fails, so a failure is told in the last
    line, as `{"problem": …}`, and in the audit log."""
    call.note(outcome=INTERRUPTED)  # until it has ended
    return GeneratedResponse(_lines(call, values), media_type=LINES)


async def _lines(call: Call, values: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes, None]:
    try:
        async with aclosing(values):
            async for value in values:
                yield json_line(value)
        call.note(outcome=DONE)
        return
    except TimeoutError:
        stopped = UnavailableError("it was stopped: it took too long, or the gateway ends")
        problem = problem_of(stopped)
    except FluvialError as error:
        problem = problem_of(error)
        code = problem.members["code"]
        _LOG.info("refused on the way", extra={"path": call.request.url.path, "code": code})
    except Exception:  # noqa: BLE001 the boundary of a request
        _LOG.exception("failed on the way", extra={"path": call.request.url.path})
        problem = internal_problem()
    call.note(outcome=problem.members["code"])
    yield json_line({"problem": problem.members})


def compact(value: Any) -> str:
    """Return `value` as JSON on one line; what cannot be UTF-8 is replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def json_line(value: Any) -> bytes:
    """Return one line of newline-delimited JSON."""
    return compact(value).encode() + b"\n"


def server_sent(position: int, value: Any, *, event: str = "") -> bytes:
    """Return one server-sent event whose id is a position; `event` is its type, if it has one."""
    kind = f"event: {event}\n" if event else ""
    return f"id: {position}\n{kind}data: {compact(value)}\n\n".encode()
