"""The agent's web routes: talk to it, watch it, decide what it may do, stop it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Header, HTTPException
from fastapi.encoders import jsonable_encoder
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from conversation import INBOX, TOKENS, Decision, Message, Question
from fluvial import Run, StreamReset, Workflow, get_run, resume_hook, start
from fluvial.errors import (
    HookNotFoundError,
    RunClosedError,
    RunNotFoundError,
    StartConflictError,
)
from fluvial.events import EventType

PAGE: Final = Path(__file__).with_name("page.html")
MAX_CHARACTERS: Final = 4000

Converse = Workflow[..., list[Message]]
Events = AsyncIterator[str]


class Said(BaseModel):
    """What somebody says. Sent again with the same `id`, it is still said once."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    id: str = Field(default_factory=lambda: uuid.uuid4().hex, min_length=1, max_length=80)


def make_app(converse: Converse) -> FastAPI:
    """Return the app that holds conversations: runs of the workflow `converse`."""
    app = FastAPI(title="Agent")

    async def find(conversation: str) -> Run[list[Message]]:
        try:
            return await get_run(key=conversation, workflow=converse)
        except RunNotFoundError as error:
            raise HTTPException(404, f"no conversation {conversation}") from error

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html")

    @app.post("/conversations", status_code=202)
    async def begin(said: Said) -> dict[str, str]:
        """Begin a conversation; its id is that of what was said first."""
        try:
            await start(converse, [said.text], key=said.id)
        except StartConflictError as error:
            raise HTTPException(409, f"{said.id} began with something else") from error
        return {"conversation": said.id}

    @app.post("/conversations/{conversation}/messages", status_code=202)
    async def tell(conversation: str, said: Said) -> None:
        """Say something more, whatever the agent is doing; it hears it next."""
        run = await find(conversation)
        try:
            await run.send(INBOX, Question(text=said.text), resume_id=said.id)
        except (HookNotFoundError, RunClosedError) as error:
            raise HTTPException(409, f"{conversation} is over") from error

    @app.post("/approvals/{token}", status_code=202)
    async def decide(token: str, decision: Decision) -> None:
        """Approve or refuse what the agent asks for."""
        try:
            await resume_hook(token, decision)
        except HookNotFoundError as error:
            raise HTTPException(409, "this was decided already, or it is too late") from error

    @app.post("/conversations/{conversation}/cancellation", status_code=202)
    async def cancel(conversation: str) -> None:
        """Stop the conversation; it says goodbye before it ends."""
        await (await find(conversation)).cancel()

    @app.get("/conversations/{conversation}/said")
    async def said(
        conversation: str, last_event_id: Annotated[str, Header()] = ""
    ) -> StreamingResponse:
        """Answer with Server-Sent Events: what is said, token by token; see `_said`."""
        run = await find(conversation)
        part, _, position = last_event_id.partition(":")
        return _live(_said(part or run.id, int(position) + 1 if position.isdecimal() else 0))

    @app.get("/conversations/{conversation}/states")
    async def states(conversation: str) -> StreamingResponse:
        """Answer with Server-Sent Events: where the conversation stands, whenever that changes."""
        return _live(_states((await find(conversation)).id))

    return app


async def _said(part: str | None, position: int) -> Events:
    """Yield a `message` for each message that is complete, a `token` for each piece of one that is
    not, a `reset` where a step that was cut off begins anew, and an `end`.

    An event's id says where it stands, so a browser that reconnects goes on behind it. A long
    conversation has several parts: runs, each with a stream of its own.
    """
    while part is not None:
        run: Run[Any] = await get_run(part)
        async for entry in run.stream(TOKENS, start=position).entries():
            what: dict[str, Any] = {"step": f"{part}:{entry.step_id}"}
            if isinstance(entry, StreamReset):
                kind = "reset"
            elif isinstance(entry.value, Message):
                kind, what["message"] = "message", entry.value
            else:
                kind, what["text"] = "token", entry.value
            yield _event(kind, what, f"{part}:{entry.position}")
        part, position = await _next_part(run), 0
    yield _event("end", {})


async def _states(part: str | None) -> Events:
    """Yield a `state` whenever the workflow publishes one, and an `end` with the run's status."""
    status = ""
    while part is not None:
        run: Run[Any] = await get_run(part)
        part = None
        async for event in run.follow():
            if event.type is EventType.STATE_PUBLISHED:
                yield _event("state", event.value)
            elif event.type is EventType.RUN_CONTINUED:
                part = str(event.meta["run"])
        status = run.status
    yield _event("end", {"status": status})


async def _next_part(run: Run[Any]) -> str | None:
    """Return the run that goes on in the place of one that has ended, if any does."""
    async for event in run.follow():
        if event.type is EventType.RUN_CONTINUED:
            return str(event.meta["run"])
    return None


def _event(kind: str, data: object, number: str = "") -> str:
    place = f"id: {number}\n" if number else ""
    return f"event: {kind}\n{place}data: {json.dumps(jsonable_encoder(data))}\n\n"


def _live(events: Events) -> StreamingResponse:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
