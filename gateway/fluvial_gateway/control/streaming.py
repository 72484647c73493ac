"""Responses that are written while they are made."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send


class GeneratedResponse(StreamingResponse):
    """Streams a generator and closes it at the end, also when the client goes away: what the
    generator holds (a connection to the builder, a place among the waiting) is given back then,
    and not when the garbage collector finds it."""

    def __init__(self, generator: AsyncGenerator[bytes, None], *, media_type: str) -> None:
        super().__init__(generator, media_type=media_type, headers={"x-accel-buffering": "no"})
        self._generator = generator

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._generator):
            await super().stream_response(send)


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
