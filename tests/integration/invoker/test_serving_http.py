"""HTTP invocations in real instances."""

from __future__ import annotations

import asyncio
from typing import Any

HELLO = """
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})
"""


def test_plain_asgi_app_answers_in_one_frame(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(HELLO)) as (_, handed, link):
            reply = await link.get("/a%20b?x=1")

            assert (reply.status, reply.body, reply.outcome) == (200, b"hello /a b", "ok")
            assert reply.head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n")
            assert reply.headers["content-length"] == "10"
            assert handed.tier == "fork"
            print(machine.invoker_log, handed)

    asyncio.run(main())
