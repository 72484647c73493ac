"""An app whose only work is to wait: for H4."""

from __future__ import annotations

import asyncio
from typing import Any

SECONDS = 0.05


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer after a while."""
    if scope["type"] == "lifespan":
        return
    await asyncio.sleep(SECONDS)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})
