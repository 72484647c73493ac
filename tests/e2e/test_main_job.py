"""The main job: deploy, call over HTTP, follow a durable run to its end, and go back to zero."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import chess.pgn
import httpx

from tests.e2e.installation import Platform, platform, wait_until

CHESS: Final = Path(__file__).parents[2] / "examples" / "chess"
WISHES: Final = {"white": "positional", "black": "tactician", "seed": 11, "max_plies": 60}
END_SECONDS: Final = 60.0


def test_chess_match_from_zero_to_zero(running: Platform) -> None:
    app = running.deploy(CHESS)
    assert running.instances(app) == []

    with app.client() as client:
        match = client.post("/matches", content=json.dumps(WISHES)).raise_for_status().json()
        moves, end = _watch(client, match["links"]["live"])
        state = client.get(match["links"]["state"]).json()
        pgn = client.get(match["links"]["pgn"]).text

    game = chess.pgn.read_game(io.StringIO(pgn))
    assert game is not None
    assert not game.errors
    assert [move.uci() for move in game.mainline_moves()] == [move["uci"] for move in moves]
    assert game.headers["Result"] == end["result"]
    assert (game.headers["White"], game.headers["Black"]) == ("positional", "tactician")
    assert (state["status"], state["moves"]) == ("completed", moves)
    _check_log(running, match["id"], len(moves))
    running.wait_for_zero(app)


def test_watcher_goes_on_where_it_was(running: Platform) -> None:
    app = running.deploy(CHESS)
    with app.client() as client:
        match = client.post("/matches", content=json.dumps(WISHES)).raise_for_status().json()
        everything, _ = _watch(client, match["links"]["live"])
        rest, _ = _watch(client, match["links"]["live"], seen=everything[9]["ply"])

    assert rest == everything[10:]


def test_second_deploy_of_the_same_is_a_no_op(running: Platform) -> None:
    first, second = running.deploy(CHESS), running.deploy(CHESS)

    assert first.deployment == second.deployment


def test_runs_outlive_the_platform(short_home: Path) -> None:
    with platform(short_home) as before:
        app = before.deploy(CHESS)
        with app.client() as client:
            match = client.post("/matches", content=b'{"seed": 5, "pause": 0.05}').json()
            wait_until(
                lambda: len(client.get(match["links"]["state"]).json()["moves"]) >= 4,
                END_SECONDS,
                "four moves are played",
            )

    with platform(short_home) as after, after.api() as api:
        found = api.get(f"/v1/runs/{match['id']}/result", params={"wait": int(END_SECONDS)}).json()
        events = api.get(f"/v1/runs/{match['id']}/events", params={"limit": 1000}).json()["events"]

    assert found["status"] == "completed", found
    kinds = Counter(event["type"] for event in events)
    assert kinds["step_completed"] == kinds["step_scheduled"]
    assert kinds["run_completed"] == 1


def _watch(
    client: httpx.Client, path: str, seen: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Follow a match to its end; return its moves and how it ended."""
    moves: list[dict[str, Any]] = []
    with client.stream("GET", path, headers={"last-event-id": str(seen)}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for kind, data in _server_sent(response.iter_lines()):
            if kind == "end":
                return moves, data
            moves.append(data)
    raise AssertionError(f"the stream ended after {len(moves)} moves without an end")


def _server_sent(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        else:
            yield fields["event"], json.loads(fields["data"])
            fields = {}


def _check_log(running: Platform, run_id: str, plies: int) -> None:
    """Each move is one step with one result."""
    with running.api() as api:
        answer = api.get(f"/v1/runs/{run_id}/events", params={"limit": 1000})
    events = answer.raise_for_status().json()["events"]
    scheduled = [event["id"] for event in events if event["type"] == "step_scheduled"]
    completed = [event["id"] for event in events if event["type"] == "step_completed"]
    assert scheduled == completed
    assert len(scheduled) == plies
    assert all(event["meta"]["cpu_us"] > 0 for event in events if event["type"] == "step_completed")
