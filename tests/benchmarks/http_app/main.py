"""What the HTTP rows ask for: a greeting, an echo, and 100 MB each way."""

from __future__ import annotations

from typing import Any

CHUNK = bytes(64 * 1024)
STREAM_BYTES = 100_000_000


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/down":
        await _stream(send)
        return
    body, count = b"Hello, world", 0
    if scope["method"] == "POST":
        echo = scope["path"] == "/echo"
        body, more = b"", True
        while more:
            event = await receive()
            count += len(event["body"])
            body += event["body"] if echo else b""
            more = event["more_body"]
        body = body if echo else b"%d" % count
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Any) -> None:
    headers = [(b"content-length", b"%d" % STREAM_BYTES)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = STREAM_BYTES
    while left:
        chunk = CHUNK[:left]
        left -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": bool(left)})
