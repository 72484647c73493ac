"""Passes a text through every kind of value that the platform stores."""

from __future__ import annotations

import json
from typing import Any

from fluvial import Hook, StepFailedError, start, step, workflow


@step
async def echo(text: str) -> str:
    return text


@step(retries=0)
async def fail(text: str) -> None:
    raise ValueError(text)


@workflow
async def keep(text: str, token: str) -> str:
    """Through an argument, a result, an error, and a hook's payload."""
    kept = await echo(text)
    try:
        await fail(text)
    except StepFailedError:  # the text is in its message
        kept = await echo(kept)
    async with Hook(str, token=token) as hook:
        return kept + await hook


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """POST / {text, token} starts a run and answers with its id."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    values = json.loads(body)
    run = await start(keep, values["text"], values["token"])
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": run.id.encode()})
