"""The tour that `make run` shows: the whole platform at work, from nothing and back to nothing.

It starts a platform of its own in a temporary folder, deploys the chess example, lets the engines
play, kills the process in which they think, and shows what the event log and the metrics say of it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from stage.installation import Installation, TourError, installation, wait_until
from stage.screen import Game, Screen
from stage.talking import Site

CHESS: Final = Path(__file__).parent / "chess"
WHITE: Final = "tactician"
BLACK: Final = "positional"
SEED: Final = 2
PAUSE_SECONDS: Final = 0.06  # between moves, so that one can watch; durable like every sleep
KILL_AT_PLY: Final = 16
ZERO_SECONDS: Final = 60.0
PAGE: Final = 1000
SHOWN_METRICS: Final = re.compile(
    r"fluvial_(?:cold_starts|steps|step_attempts|runs|commits|replays)_total\{.*\} [1-9].*"
)


def main() -> int:
    """Give the tour; return the exit status."""
    screen = Screen()
    signal.signal(signal.SIGTERM, _interrupt)
    screen.title("Fluvial", "self-hosted serverless functions and durable workflows for Python")
    try:
        _tour(screen)
    except TourError as error:
        screen.trouble(str(error))
        return 1
    except KeyboardInterrupt:
        screen.trouble("interrupted; everything that was started has been stopped")
        return 130
    _next_steps(screen)
    return 0


def _tour(screen: Screen) -> None:
    with ExitStack() as stack:
        here = _start(screen, stack)
        app = _deploy(screen, here)
        control = Site(here.control, here.token)
        run = _play(screen, app, control)
        _account(screen, control, run)
        _back_to_zero(screen, control)
    screen.fact("everything has stopped, and the temporary folder is gone")


def _start(screen: Screen, stack: ExitStack) -> Installation:
    screen.chapter(1, "Start the platform")
    began = time.monotonic()
    with screen.working("fluvial up"):
        here = stack.enter_context(installation())
    screen.fact(f"gateway and store are up after {_since(began)}; runs are durable to disk")
    screen.aside(f"apps at {here.http}, control plane at {here.control}; no instance exists")
    return here


def _deploy(screen: Screen, here: Installation) -> Site:
    screen.chapter(2, "Deploy two chess engines")
    began = time.monotonic()
    with screen.working("fluvial deploy examples/chess"):
        url = here.command("deploy", str(CHESS), say=screen.aside)
    screen.fact(f"{url} is live after {_since(began)}; still no instance")
    return Site(url)


def _play(screen: Screen, app: Site, control: Site) -> str:
    """Play a match, kill its process on the way, and return the run's id."""
    screen.chapter(3, f"Play: {WHITE} against {BLACK}, every move a durable step")
    began = time.monotonic()
    pause = PAUSE_SECONDS if screen.is_live else 0
    wishes = {"white": WHITE, "black": BLACK, "seed": SEED, "pause": pause}
    match = app.post("/matches", wishes)
    screen.fact(f"the first request, from zero, was answered after {_since(began)}")
    screen.aside(f"the match is {match['id']}")
    with screen.game(WHITE, BLACK) as game:
        end = _follow(game, app, control, match["links"]["live"])
    screen.fact(f"{end['result']} ({end['reason']}) after {len(game.moves)} moves, {_since(began)}")
    headers = [line for line in end["pgn"].splitlines() if line.startswith("[")]
    screen.block("\n".join(headers))
    return str(match["id"])


def _follow(game: Game, app: Site, control: Site, path: str) -> dict[str, Any]:
    killed: datetime | None = None
    for kind, data in app.events(path):
        if kind == "end":
            return dict(data)
        game.add(data)
        played = datetime.fromisoformat(data["at"])
        if killed and played > killed:
            waited = (played - killed).total_seconds() * 1000
            game.say(f"another process goes on: the next move came {waited:.0f} ms after the kill")
            killed = None
        if data["ply"] == KILL_AT_PLY:
            killed = _kill(game, control)
    raise TourError("the match has no end")


def _kill(game: Game, control: Site) -> datetime:
    """Kill the instance that plays; return when."""
    pids = [found["pid"] for found in control.get("/v1/instances")["instances"]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    game.say(f"kill -9 {' '.join(map(str, pids))}: the process that plays is gone")
    return datetime.now(UTC)


def _account(screen: Screen, control: Site, run: str) -> None:
    screen.chapter(4, "What the event log says")
    events = _events(control, run)
    kinds = Counter(str(event["type"]) for event in events)
    screen.rows((str(count), kind.replace("_", " ")) for kind, count in kinds.most_common())
    cpu = sum(event["meta"].get("cpu_us", 0) for event in events) / 1e6
    screen.fact(f"{cpu:.2f} s of active CPU were used by the steps; waiting was free")
    lost = kinds["attempt_lost"] + kinds["turn_lost"]
    screen.fact(f"{lost} attempt(s) were lost with the killed process, and made again")
    results = [event["id"] for event in events if event["type"] == "step_completed"]
    if len(set(results)) != kinds["step_scheduled"] or len(results) != kinds["step_scheduled"]:
        raise TourError("a step has no result, or two")
    screen.fact(f"each of the {len(results)} steps has exactly one result")
    _measure(screen, control)


def _measure(screen: Screen, control: Site) -> None:
    screen.chapter(5, "What the metrics say")
    lines = str(control.get("/metrics")).splitlines()
    shown = [line.rpartition(" ") for line in lines if SHOWN_METRICS.fullmatch(line)]
    screen.rows((f"{float(value):g}", name) for name, _, value in shown)


def _events(control: Site, run: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        page = control.get(f"/v1/runs/{run}/events?start={len(events)}&limit={PAGE}")
        events += page["events"]
        if len(page["events"]) < PAGE:
            return events


def _back_to_zero(screen: Screen, control: Site) -> None:
    screen.chapter(6, "Back to zero")
    with screen.working("waiting until the instance has been idle for 5 s"):
        wait_until(lambda: not control.get("/v1/instances")["instances"], ZERO_SECONDS, "zero")
    screen.fact("no instance exists; the run, its log and its result are in the store")


def _next_steps(screen: Screen) -> None:
    screen.title("Next", "start it for good, and look at the board in a browser:")
    screen.block(
        ". .venv/bin/activate\n"
        "fluvial up                       # in one terminal\n"
        "fluvial deploy examples/chess    # in another; open the URL that it prints"
    )


def _since(began: float) -> str:
    seconds = time.monotonic() - began
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
