"""Blocks its event loop for as long as a FIFO says, and tells which process answered."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import parse_qs


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["path"] == "/block":
        path = parse_qs(scope["query_string"].decode())["gate"][0]
        with open(path, "rb") as gate:  # noqa: ASYNC230 it blocks the loop on purpose
            gate.read()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(os.getpid()).encode()})
