"""How it is told what a run waits for: spans, moments, tracebacks, rooms, cures."""

from __future__ import annotations

import pytest

from fluvial.events import Event
from fluvial_gateway.activity import Activity, Room
from fluvial_gateway.awaited import Awaited
from fluvial_gateway.awaited_text import commands, sentence
from fluvial_gateway.explaining import Explanation
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.pausing import PAUSE_CODES

NOW_MS = 1_700_000_000_000
RUN = "run_00" + "x" * 24
_RECORD = RunRecord(
    run_id=RUN,
    app="shop",
    workflow="fulfil",
    deployment="dpl_1",
    status=RunStatus.RUNNING,
    created_ms=0,
    finished_ms=None,
    key="",
    fingerprint=b"",
    input=b"",
    turn=b"",
    events=1,
    meta={},
)


def _told(*awaited: Awaited, room: Room | None = None, cancelled: Event | None = None) -> str:
    explanation = Explanation(
        run=_RECORD,
        now_ms=NOW_MS,
        awaited=awaited,
        owner=None,
        cancelled=cancelled,
        room=room,
        child=None,
    )
    return sentence(explanation, shows_tokens=False)


@pytest.mark.parametrize(
    ("away_ms", "away"),
    [
        (0, "now"),
        (999, "now"),
        (1_000, "in 1 s"),
        (59_999, "in 59 s"),
        (90_000, "in 1 min 30 s"),
        (3_600_000, "in 1 h"),
        (11 * 3_600_000 + 60_000, "in 11 h"),
        (36 * 3_600_000, "in 1 d 12 h"),
        (40 * 86_400_000, "in 40 d"),
        (-5_000, "5 s ago"),
    ],
)
def test_a_moment_is_told_with_how_far_it_is_away(away_ms: int, away: str) -> None:
    said = _told(Awaited(kind="sleep", operation=1, until_ms=NOW_MS + away_ms))

    assert f"Z ({away}) (timer 1); " in said


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (None, "."),
        (
            Room(instances=2, most=2, in_flight=9, waiting=3, starting=0),
            ": 2 of at most 2 run and have no room, with 3 in the queue.",
        ),
        (
            Room(instances=0, most=2, in_flight=0, waiting=1, starting=1),
            ": one is being started.",
        ),
        (
            Room(instances=0, most=2, in_flight=0, waiting=1, starting=0, problem="capacity: full"),
            ": none could be started (capacity: full), which is tried again.",
        ),
        (Room(instances=0, most=0, in_flight=0, waiting=1, starting=0), "."),
    ],
)
def test_a_wait_for_an_instance_says_how_the_instances_stand(room: Room | None, said: str) -> None:
    activity = Activity(kind="turn", state="instance", deployment="dpl_1")
    awaited = Awaited(kind="turn", state="instance", since_ms=NOW_MS - 2000, activity=activity)

    assert _told(awaited, room=room) == (
        "It waits for 2 s (since 2023-11-14T22:13:18Z) for an instance to execute its own code"
        f"{said}"
    )


def test_of_a_traceback_the_last_line_is_told() -> None:
    problem = "import_failed: Traceback (most recent call last):\n  File x\n\nValueError: no\n"
    said = _told(Awaited(kind="pause", since_ms=NOW_MS, problem=problem, code="import_failed"))

    assert "(import_failed: ValueError: no); promote" in said


def test_a_long_reason_is_cut() -> None:
    said = _told(Awaited(kind="pause", since_ms=NOW_MS, problem="x" * 1000, by="ops"))

    assert f"({'x' * 300}…)" in said


@pytest.mark.parametrize("code", ["", *sorted(PAUSE_CODES), "of a later version"])
def test_every_pause_names_the_command_that_helps(code: str) -> None:
    awaited = Awaited(kind="pause", since_ms=NOW_MS, problem="why", code=code)
    (command,) = commands(awaited, _RECORD, shows_tokens=False)

    assert f"`{command}`" in _told(awaited)
    assert command.startswith("fluvial ")
    assert RUN in command or command == "fluvial keys thaw shop"


def test_a_webhook_waits_for_requests_and_takes_no_payload_from_a_command() -> None:
    awaited = Awaited(
        kind="hook", operation=1, since_ms=NOW_MS - 2000, token="paid:1", is_webhook=True
    )

    assert commands(awaited, _RECORD, shows_tokens=False) == []
    assert _told(awaited) == (
        "It waits for a request to its webhook paid:1, open for 2 s (since 2023-11-14T22:13:18Z);"
        " its URL is that of the app, and /.well-known/fluvial/hooks/paid:1."
    )


def test_a_hook_with_a_name_is_sent_to_by_its_name() -> None:
    token = f"hook_{RUN.removeprefix('run_')}_n.approval"
    awaited = Awaited(
        kind="hook", operation=1, since_ms=NOW_MS - 2000, token=token, name="approval"
    )

    assert commands(awaited, _RECORD, shows_tokens=False) == [
        f"fluvial runs send {RUN} approval JSON"
    ]
    assert "waits for a payload for its hook approval, open for 2 s" in _told(awaited)


def test_a_token_that_a_shell_would_understand_is_quoted() -> None:
    awaited = Awaited(kind="hook", operation=1, since_ms=NOW_MS, token="a'; rm -r b")

    assert commands(awaited, _RECORD, shows_tokens=False) == [
        "fluvial hooks resume 'a'\"'\"'; rm -r b' JSON --app shop"
    ]
