"""The monitor's web routes, and four endpoints of its own to watch."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import asdict
from typing import Any, Final, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fluvial import Run, Workflow, get_run, start
from fluvial.errors import RunNotFoundError
from fluvial.events import EventType
from probing import Check, Endpoint, summarise

MAX_URLS: Final = 50
MAX_ROUNDS: Final = 1000
MIN_INTERVAL_SECONDS: Final = 0.1
OWN_PATHS: Final = ("/ok", "/slow", "/flaky", "/down")
_turns = itertools.count()


def make_app(watch: Workflow[[list[str], int, float], list[Endpoint]]) -> Starlette:
    """Return the ASGI app that starts runs of `watch` and reports on them."""

    async def start_watch(request: Request) -> Response:
        urls, rounds, interval = _wishes(await request.body(), str(request.base_url))
        run = await start(watch, urls, rounds, interval)
        report = f"/watches/{run.id}"
        return JSONResponse({"id": run.id, "urls": urls, "report": report}, 202)

    return Starlette(
        routes=[
            Route("/watches", start_watch, methods=["POST"]),
            Route("/watches/{id}", _report),
            Route("/ok", _ok),
            Route("/slow", _slow),
            Route("/flaky", _flaky),
            Route("/down", _down),
        ]
    )


async def _report(request: Request) -> Response:
    """Answer with what is known so far; the run may still be going on."""
    try:
        run: Run[Any] = await get_run(request.path_params["id"])
    except (RunNotFoundError, ValueError) as error:
        raise HTTPException(404, f"no such watch: {request.path_params['id']}") from error
    events = await run.events()
    found = [event.value for event in events if event.type is EventType.STEP_COMPLETED]
    endpoints = summarise(check for check in found if isinstance(check, Check))
    retries = sum(event.type is EventType.STEP_RETRYING for event in events)
    rows = [asdict(endpoint) | {"uptime": endpoint.uptime} for endpoint in endpoints]
    return JSONResponse({"id": run.id, "status": run.status, "retries": retries, "endpoints": rows})


async def _ok(_: Request) -> Response:
    return PlainTextResponse("fine\n")


async def _slow(_: Request) -> Response:
    await asyncio.sleep(0.4)
    return PlainTextResponse("fine, at last\n")


async def _flaky(_: Request) -> Response:
    """Fail two times of three."""
    if next(_turns) % 3 != 2:
        return PlainTextResponse("not now\n", 503)
    return PlainTextResponse("fine this time\n")


async def _down(_: Request) -> Response:
    return PlainTextResponse("broken\n", 500)


def _wishes(body: bytes, base_url: str) -> tuple[list[str], int, float]:
    """Return (urls, rounds, interval) that the body of `POST /watches` asks for.

    Raises:
        HTTPException: 400 or 422; the text names the field and what it may be.
    """
    try:
        asked: Any = json.loads(body) if body else {}
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise HTTPException(400, "the body must be a JSON object")
    wishes = cast("dict[str, Any]", asked)
    urls = wishes.get("urls", [base_url.rstrip("/") + path for path in OWN_PATHS])
    rounds, interval = wishes.get("rounds", 3), wishes.get("interval", 2.0)
    if not _are_urls(urls):
        raise HTTPException(422, f"urls: 1 to {MAX_URLS} http:// or https:// URLs")
    if type(rounds) is not int or not 1 <= rounds <= MAX_ROUNDS:
        raise HTTPException(422, f"rounds: an integer from 1 to {MAX_ROUNDS}, not {rounds!r}")
    if type(interval) not in (int, float) or not interval >= MIN_INTERVAL_SECONDS:
        raise HTTPException(422, f"interval: seconds, at least {MIN_INTERVAL_SECONDS}")
    return urls, rounds, float(interval)


def _are_urls(urls: object) -> bool:
    if not isinstance(urls, list):
        return False
    items = cast("list[object]", urls)
    return 1 <= len(items) <= MAX_URLS and all(
        isinstance(url, str) and url.startswith(("http://", "https://")) for url in items
    )
