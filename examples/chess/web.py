"""The match's web routes: start one, look at it, follow it live, take the PGN home."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import chess
import chess.pgn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from fluvial import Run, RunEvent, Workflow, get_run, now, start
from fluvial.errors import RunFailedError, RunNotFoundError
from fluvial.events import EventType
from rules import MAX_PLIES, to_pgn

PAGE: Final = Path(__file__).with_name("page.html")
MAX_SEED: Final = 2**31 - 1
MAX_PAUSE_SECONDS: Final = 60
MAX_BODY_BYTES: Final = 4096


def make_app(match: Workflow[..., str], players: Sequence[str]) -> Starlette:
    """Return the ASGI app that starts runs of the workflow `match` and shows them."""

    async def start_match(request: Request) -> Response:
        wishes = await _wishes(request, players)
        run = await start(match, **wishes)
        links = {
            "state": f"/matches/{run.id}",
            "live": f"/matches/{run.id}/live",
            "pgn": f"/matches/{run.id}/pgn",
        }
        headers = {"location": links["state"]}
        return JSONResponse({"id": run.id, **wishes, "links": links}, 202, headers)

    return Starlette(
        routes=[
            Route("/", _page),
            Route("/matches", start_match, methods=["POST"]),
            Route("/matches/{id}", _state),
            Route("/matches/{id}/live", _live),
            Route("/matches/{id}/pgn", _pgn),
        ]
    )


class Score:
    """The score sheet of a match, written from the run's events."""

    def __init__(self) -> None:
        self.board = chess.Board()
        self.moves: list[dict[str, Any]] = []
        self.began: datetime | None = None
        self._players: dict[int, str] = {}  # who was asked, by the id of the step

    def add(self, event: RunEvent) -> dict[str, Any] | None:
        """Write down the move that `event` records; return None if it records none."""
        self.began = self.began or event.at
        if event.type is EventType.STEP_SCHEDULED:
            self._players[event.id] = str(event.meta["name"])
        if event.type is not EventType.STEP_COMPLETED:
            return None
        move = self.board.parse_uci(str(event.value))
        san = self.board.san(move)
        self.board.push(move)
        entry = {
            "ply": self.board.ply(),
            "player": self._players.get(event.id, "?"),
            "uci": move.uci(),
            "san": san,
            "placement": self.board.board_fen(),
            "at": event.at.isoformat(),
        }
        self.moves.append(entry)
        return entry

    def player(self, colour: chess.Color) -> str:
        """Return who plays `colour`, or a question mark before that side's first move."""
        index = 0 if colour else 1
        return str(self.moves[index]["player"]) if index < len(self.moves) else "?"


async def _page(_: Request) -> Response:
    return FileResponse(PAGE, media_type="text/html")


async def _state(request: Request) -> Response:
    """Answer with the game so far; ask again, or follow `/live` to see it go on."""
    run = await _find(request)
    score = await _score(run)
    return JSONResponse(
        {
            "id": run.id,
            "status": run.status,
            "turn": "white" if score.board.turn else "black",
            "placement": score.board.board_fen(),
            "moves": score.moves,
        }
    )


async def _live(request: Request) -> Response:
    """Answer with Server-Sent Events: a `move` for each move from the first on, then an `end`.

    The id of an event is its ply, so a browser that reconnects goes on where it was.
    """
    run = await _find(request)
    seen = request.headers.get("last-event-id", "")
    after = int(seen) if seen.isascii() and seen.isdigit() else 0
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_follow(run, after), media_type="text/event-stream", headers=headers)


async def _pgn(request: Request) -> Response:
    """Answer with the finished game, or with the moves so far and the result `*`."""
    run = await _find(request)
    if run.status == "completed":
        pgn = cast("str", await run.result())
    else:
        score = await _score(run)
        pgn = to_pgn(
            score.board,
            white=score.player(chess.WHITE),
            black=score.player(chess.BLACK),
            played=(score.began or now()).date(),
            max_plies=MAX_PLIES,
        )
    return PlainTextResponse(pgn + "\n", media_type="application/vnd.chess-pgn")


async def _follow(run: Run[Any], after: int) -> AsyncIterator[str]:
    score = Score()
    async for event in run.follow():
        entry = score.add(event)
        if entry is not None and entry["ply"] > after:
            yield _sse("move", entry["ply"], entry)
    yield _sse("end", len(score.moves), await _ending(run))


async def _ending(run: Run[Any]) -> dict[str, str]:
    try:
        pgn = cast("str", await run.result())
    except RunFailedError as error:
        return {"result": "*", "reason": str(error), "pgn": ""}
    headers = chess.pgn.read_headers(io.StringIO(pgn)) or chess.pgn.Headers()
    return {"result": headers["Result"], "reason": headers.get("Termination", ""), "pgn": pgn}


def _sse(kind: str, number: int, data: dict[str, Any]) -> str:
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n"


async def _score(run: Run[Any]) -> Score:
    score = Score()
    for event in await run.events():
        score.add(event)
    return score


async def _find(request: Request) -> Run[Any]:
    try:
        return await get_run(request.path_params["id"])
    except (RunNotFoundError, ValueError) as error:
        raise HTTPException(404, f"no such match: {request.path_params['id']}") from error


async def _wishes(request: Request, players: Sequence[str]) -> dict[str, Any]:
    """Return what the body of `POST /matches` asks for, with the rest filled in."""
    body = await request.body()
    try:
        asked: Any = json.loads(body) if body else {}
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict) or len(body) > MAX_BODY_BYTES:
        raise HTTPException(400, "the body must be a small JSON object")
    wishes: dict[str, Any] = {
        "white": players[-1],
        "black": players[0],
        "seed": secrets.randbelow(MAX_SEED),
        "max_plies": MAX_PLIES,
        "pause": 0.0,
    } | cast("dict[str, Any]", asked)
    _check(wishes, players)
    return wishes


def _check(wishes: dict[str, Any], players: Sequence[str]) -> None:
    """Refuse wishes that the workflow could not play.

    Raises:
        HTTPException: 422, with the field and what it may be.
    """
    allowed: dict[str, tuple[Callable[[Any], bool], str]] = {
        "white": (players.__contains__, f"one of {', '.join(players)}"),
        "black": (players.__contains__, f"one of {', '.join(players)}"),
        "seed": (_is_integer_up_to(MAX_SEED), f"an integer from 0 to {MAX_SEED}"),
        "max_plies": (_is_integer_up_to(MAX_PLIES), f"an integer from 0 to {MAX_PLIES}"),
        "pause": (_is_pause, f"seconds from 0 to {MAX_PAUSE_SECONDS}"),
    }
    for name, value in wishes.items():
        if name not in allowed:
            raise HTTPException(422, f"{name}: unknown; known are {', '.join(allowed)}")
        fits, description = allowed[name]
        if not fits(value):
            raise HTTPException(422, f"{name}: {description}, not {value!r}")


def _is_integer_up_to(limit: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= limit


def _is_pause(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_PAUSE_SECONDS
