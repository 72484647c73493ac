"""The chess app's routes, as far as they work without the platform."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import httpx
import pytest

from fluvial import RunEvent
from fluvial.events import EventType

Load = Callable[[str], ModuleType]


def test_page_is_self_contained(load_bundle: Load) -> None:
    response = _request(load_bundle("chess"), "GET", "/")

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "http://" not in response.text
    assert "https://" not in response.text


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"white": "stockfish"}', 422, "white"),
        (b'{"seed": -1}', 422, "seed"),
        (b'{"seed": true}', 422, "seed"),
        (b'{"max_plies": 161}', 422, "max_plies"),
        (b'{"pause": 61}', 422, "pause"),
        (b'{"colour": "red"}', 422, "colour"),
    ],
)
def test_wrong_wishes_are_refused(load_bundle: Load, body: bytes, status: int, named: str) -> None:
    response = _request(load_bundle("chess"), "POST", "/matches", content=body)

    assert response.status_code == status
    assert named in response.text


def test_engine_steps_are_plain_functions_outside_a_workflow(load_bundle: Load) -> None:
    chess_app = load_bundle("chess")

    for player in ("tactician", "positional"):
        assert chess_app.PLAYERS[player](["f2f3", "e7e5", "g2g4"], 0) == "d8h4"


def test_score_sheet_names_who_played(load_bundle: Load) -> None:
    load_bundle("chess")
    from web import Score

    score = Score()
    score.add(_event(EventType.STEP_SCHEDULED, 1, name="tactician"))
    first = score.add(_event(EventType.STEP_COMPLETED, 1, "e2e4"))
    score.add(_event(EventType.STEP_SCHEDULED, 2, name="positional"))
    second = score.add(_event(EventType.STEP_COMPLETED, 2, "e7e5"))

    assert first is not None
    assert second is not None
    assert (first["ply"], first["player"], first["san"]) == (1, "tactician", "e4")
    assert (second["ply"], second["player"], second["san"]) == (2, "positional", "e5")
    assert (score.player(True), score.player(False)) == ("tactician", "positional")


def _event(kind: EventType, step: int, value: Any = None, **meta: Any) -> RunEvent:
    at = datetime(2025, 3, 1, tzinfo=UTC)
    return RunEvent(type=kind, at=at, id=step, meta=meta, value=value)


def _request(bundle: ModuleType, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(bundle.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())
