"""The client against a stand-in of the control API on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fluvial import control_api
from fluvial.client import (
    BulkProgress,
    BulkRun,
    Client,
    Deployed,
    ProblemError,
    RunFilter,
)
from fluvial.errors import InvalidRequestError, UnavailableError
from fluvial.options import StartOptions
from fluvial.replay_reports import ReplayReport, RunCheck
from fluvial.run_client import Started

Answer = tuple[int, str, bytes]
JSON = "application/json"
CALLS: list[tuple[Callable[[Client], Any], str, str, Any]] = [
    (lambda c: c.app("a"), "GET", "/v1/apps/a", None),
    (lambda c: c.deployments("a"), "GET", "/v1/deployments?app=a", None),
    (lambda c: c.deployments(), "GET", "/v1/deployments", None),
    (lambda c: c.deployment("dpl_1"), "GET", "/v1/deployments/dpl_1", None),
    (lambda c: c.promote("a", "dpl_1"), "POST", "/v1/apps/a/promote", {"deployment": "dpl_1"}),
    (lambda c: c.rollback("a"), "POST", "/v1/apps/a/rollback", {}),
    (lambda c: c.runs(app="a", limit=3), "GET", "/v1/runs?app=a&limit=3", None),
    (lambda c: c.run("run_1", data=True), "GET", "/v1/runs/run_1?data=true", None),
    (lambda c: c.cancel("run_1", "late"), "POST", "/v1/runs/run_1/cancel", {"reason": "late"}),
    (lambda c: c.terminate("run_1"), "POST", "/v1/runs/run_1/terminate", {}),
    (lambda c: c.pause("run_1", "look"), "POST", "/v1/runs/run_1/pause", {"reason": "look"}),
    (lambda c: c.wake("run_1"), "POST", "/v1/runs/run_1/wake", {}),
    (lambda c: c.wake("run_1", timer=7), "POST", "/v1/runs/run_1/wake", {"timer": 7}),
    (lambda c: c.retry("run_1"), "POST", "/v1/runs/run_1/retry", {}),
    (
        lambda c: c.tag("run_1", {"a": "b", "c": None}),
        "POST",
        "/v1/runs/run_1/tag",
        {"tags": {"a": "b", "c": None}},
    ),
    (lambda c: c.delete_run("../run_1"), "DELETE", "/v1/runs/..%2Frun_1", None),
    (lambda c: c.resume("run_1"), "POST", "/v1/runs/run_1/resume", {}),
    (
        lambda c: c.resume("run_1", deployment="latest"),
        "POST",
        "/v1/runs/run_1/resume",
        {"deployment": "latest"},
    ),
    (lambda c: c.resume_hook("a", "t/../x", None), "POST", "/v1/hooks/a/t%2F..%2Fx", None),
    (lambda c: list(c.hooks("run_1")), "GET", "/v1/runs/run_1/hooks?start=0", None),
    (lambda c: list(c.open_hooks("a")), "GET", "/v1/hooks?app=a", None),
    (
        lambda c: c.send("run_1", "move", {"a": 1}, wait_seconds=0.5),
        "POST",
        "/v1/runs/run_1/hooks/move?wait=1",
        {"a": 1},
    ),
    (
        lambda c: c.ask("run_1", "7", 1, timeout_seconds=2),
        "POST",
        "/v1/runs/run_1/hooks/7/ask?wait=10&timeout=2",
        1,
    ),
    (lambda c: c.crons("a"), "GET", "/v1/crons?app=a", None),
    (lambda c: c.cron("a", "c"), "GET", "/v1/apps/a/crons/c", None),
    (lambda c: c.pause_cron("a", "c"), "POST", "/v1/apps/a/crons/c/pause", {}),
    (lambda c: c.resume_cron("a", "../c"), "POST", "/v1/apps/a/crons/..%2Fc/resume", {}),
    (lambda c: c.streams("run_1"), "GET", "/v1/runs/run_1/streams", None),
    (lambda c: c.info(), "GET", "/v1/info", None),
]

REPETITIONS: list[tuple[Callable[[Client], Started], str, Any]] = [
    (lambda c: c.fork("run_1", "ship", key="k"), "fork", {"from": "ship"}),
    (
        lambda c: c.fork("run_1", 3, deployment="latest", key="k"),
        "fork",
        {"from": 3, "deployment": "latest"},
    ),
    (lambda c: c.retry_failed("run_1", key="k"), "retry-failed", {}),
    (lambda c: c.rerun("run_1", key="k"), "rerun", {}),
    (lambda c: c.rerun("run_1", [], key="k"), "rerun", {"args": [], "kwargs": {}}),
    (
        lambda c: c.rerun("run_1", keywords={"a": 1}, key="k"),
        "rerun",
        {"args": [], "kwargs": {"a": 1}},
    ),
]


class StandIn:
    """Answers each request with the next prepared answer and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self._body()
                headers = {name.lower(): value for name, value in self.headers.items()}
                stand_in.asked.append((self.command, self.path, headers, body))
                status, media_type, data = stand_in.answers.pop(0)
                self.send_response(status)
                self.send_header("content-type", media_type)
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(data)

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("content-length", 0)))

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def will(self, status: int, value: Any) -> None:
        self.answers.append((status, JSON, json.dumps(value).encode()))

    def will_stream(self, *events: tuple[int, str], status: int = 200) -> None:
        lines = (
            f'id: {position}\ndata: {{"position": {position}, "type": "{kind}"}}\n\n: tick\n\n'
            for position, kind in events
        )
        self.answers.append((status, "text/event-stream", "".join(lines).encode()))


@pytest.fixture
def api() -> Iterator[StandIn]:
    stand_in = StandIn()
    thread = threading.Thread(target=stand_in.server.serve_forever, args=(0.01,))
    thread.start()
    yield stand_in
    stand_in.server.shutdown()
    thread.join()
    stand_in.server.server_close()


@pytest.fixture
def client(api: StandIn) -> Iterator[Client]:
    with Client(api.url, "secret-token") as made:
        yield made


@pytest.mark.parametrize(("call", "method", "path", "body"), CALLS)
def test_requests(
    api: StandIn, client: Client, call: Callable[[Client], Any], method: str, path: str, body: Any
) -> None:
    api.will(200, {})
    call(client)

    asked = api.asked[0]
    assert asked[:2] == (method, path)
    assert asked[2]["authorization"] == "Bearer secret-token"
    assert (json.loads(asked[3]) if asked[3] else None) == body


def test_null_is_a_payload(api: StandIn, client: Client) -> None:
    api.will(202, {})
    client.resume_hook("a", "token", None)

    assert api.asked[0][3] == b"null"


def test_a_start_carries_its_key(api: StandIn, client: Client) -> None:
    api.will(202, {"run_id": "run_1", "outcome": "duplicate"})
    started = client.start("a", "flow.<locals>.x", [1, "ä"], {"k": None}, key="k-1")

    assert (started.run_id, started.outcome) == ("run_1", "duplicate")
    _, path, headers, body = api.asked[0]
    assert path == "/v1/apps/a/workflows/flow.%3Clocals%3E.x/runs"
    assert headers["idempotency-key"] == "k-1"
    assert json.loads(body) == {"args": [1, "ä"], "kwargs": {"k": None}}


def test_a_start_carries_its_options(api: StandIn, client: Client) -> None:
    api.will(202, {"run_id": "run_1", "outcome": "accepted"})
    options = StartOptions(
        at=datetime(2030, 1, 31, 12, tzinfo=UTC),
        deadline="1h 30m",
        tags={"customer": "acme"},
        priority=-5,
        retention=timedelta(days=1),
        singleton="nightly",
        on_conflict="existing",
    )
    client.start("a", "flow", options=options, deployment="dpl_1")
    api.will(202, {"run_id": "run_2"})
    client.start("a", "flow", options=StartOptions(delay=0.5, deployment="latest"))

    assert json.loads(api.asked[0][3]) == {
        "args": [],
        "kwargs": {},
        "at": "2030-01-31T12:00:00+00:00",
        "deadline": 5400.0,
        "tags": {"customer": "acme"},
        "priority": -5,
        "retention": 86_400.0,
        "singleton": "nightly",
        "on_conflict": "existing",
        "deployment": "dpl_1",
    }
    assert json.loads(api.asked[1][3]) == {
        "args": [],
        "kwargs": {},
        "delay": 0.5,
        "deployment": "latest",
    }


@pytest.mark.parametrize(("repeat", "path", "body"), REPETITIONS)
def test_a_run_is_repeated_once(
    api: StandIn, client: Client, repeat: Callable[[Client], Started], path: str, body: Any
) -> None:
    api.will(202, {"run_id": "run_2", "outcome": "duplicate"})
    started = repeat(client)

    assert started == Started("run_2", "duplicate")
    method, asked, headers, sent = api.asked[0]
    assert (method, asked) == ("POST", f"/v1/runs/run_1/{path}")
    assert (headers["idempotency-key"], json.loads(sent)) == ("k", body)


def will_say(api: StandIn, *lines: Any) -> None:
    text = "\n".join(json.dumps(line) for line in lines) + "\n"
    api.answers.append((200, "application/x-ndjson", text.encode()))


def test_a_bulk_operation_yields_runs_and_how_far_it_is(api: StandIn, client: Client) -> None:
    run = {"run_id": "run_1", "app": "a", "workflow": "w", "status": "paused", "outcome": "done"}
    counts: dict[str, Any] = {"matched": 1, "done": 1, "skipped": {}, "cursor": "c"}
    will_say(
        api,
        {"run": {**run, "reason": None, "detail": None}},
        {"progress": counts},
        {"summary": {**counts, "dry_run": False, "is_complete": False}},
    )
    chosen = RunFilter(
        app="a", status=["paused"], tags={"t": "1"}, since=datetime(2030, 1, 31, tzinfo=UTC)
    )
    found = list(client.bulk("resume", chosen, limit=1, key="k", deployment="latest"))

    assert found == [
        BulkRun(**run, reason=None, detail=None),
        BulkProgress(matched=1, done=1, skipped={}, cursor="c", is_last=False),
        BulkProgress(matched=1, done=1, skipped={}, cursor="c", is_last=True),
    ]
    method, path, headers, body = api.asked[0]
    assert (method, path, headers["idempotency-key"]) == ("POST", "/v1/runs/bulk", "k")
    assert json.loads(body) == {
        "action": "resume",
        "filter": {
            "app": "a",
            "status": ["paused"],
            "tags": {"t": "1"},
            "since": "2030-01-31T00:00:00+00:00",
        },
        "limit": 1,
        "deployment": "latest",
    }


def test_a_bulk_operation_that_is_stopped_on_the_way_says_why(api: StandIn, client: Client) -> None:
    will_say(api, {"problem": {"status": 503, "code": "unavailable", "title": "Not now"}})
    with pytest.raises(ProblemError) as stopped:
        list(client.bulk("wake", RunFilter(app="a"), dry_run=True))
    will_say(api, {"progress": {"matched": 0, "done": 0, "skipped": {}, "cursor": None}})
    with pytest.raises(UnavailableError, match="went away half way"):
        list(client.bulk("wake", RunFilter(app="a")))

    assert stopped.value.problem_code == "unavailable"
    assert [json.loads(asked[3]).get("dry_run") for asked in api.asked] == [True, None]


def test_a_cron_is_previewed_and_triggered(api: StandIn, client: Client) -> None:
    api.will(200, {"ticks": ["2026-01-31T02:00:00.000Z"]})
    api.will(202, {"run_id": "run_1", "outcome": "accepted"})

    assert client.cron_ticks("a", "c", limit=1) == ["2026-01-31T02:00:00.000Z"]
    assert client.trigger_cron("a", "c", key="k-1").run_id == "run_1"
    assert api.asked[0][1] == "/v1/apps/a/crons/c/ticks?limit=1"
    _, path, headers, _ = api.asked[1]
    assert (path, headers["idempotency-key"]) == ("/v1/apps/a/crons/c/trigger", "k-1")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_cannot_change_the_path(client: Client, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        client.app(name)


def test_a_problem_is_raised_with_its_code(api: StandIn, client: Client) -> None:
    api.will(404, {"title": "There is no such app", "detail": "no 'x'", "code": "app_not_found"})
    with pytest.raises(ProblemError, match="There is no such app: no 'x'") as caught:
        client.app("x")

    assert (caught.value.status, caught.value.problem_code) == (404, "app_not_found")


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b'{"title": 3}'])
def test_a_refusal_without_a_problem_has_its_status(
    api: StandIn, client: Client, body: bytes
) -> None:
    api.answers.append((502, "text/html", body))

    with pytest.raises(ProblemError) as caught:
        client.info()
    assert caught.value.status == 502


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
def test_an_answer_that_is_no_object_is_unavailable(
    api: StandIn, client: Client, body: bytes
) -> None:
    api.answers.append((200, "text/html", body))

    with pytest.raises(UnavailableError):
        client.info()


def test_nobody_there_is_unavailable() -> None:
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(UnavailableError, match="fluvial up"),
    ):
        client.info()


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "ftp://x", "http://a:b"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    with (
        pytest.raises((InvalidRequestError, UnavailableError)),
        Client(url) as client,
    ):
        client.info()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(b"x" * 200_000)
    return path


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_a_deploy_streams_its_log(api: StandIn, client: Client, archive: Path) -> None:
    end = {"deployment": {"deployment": "dpl_1"}, "url": "http://a", "created": True}
    api.answers.append((200, "application/x-ndjson", lines({"log": "1"}, {"log": "2"}, end)))
    said = list(client.deploy(archive, "d" * 64, name="a", promote=False))

    assert said == ["1", "2", Deployed({"deployment": "dpl_1"}, "http://a", True)]
    _, path, headers, body = api.asked[0]
    assert path == "/v1/deployments?promote=false&name=a"
    assert headers["x-fluvial-bundle-digest"] == "d" * 64
    assert (headers["content-type"], len(body)) == ("application/zstd", 200_000)


def test_a_deploy_that_is_refused_half_way(api: StandIn, client: Client, archive: Path) -> None:
    problem = {"problem": {"status": 422, "title": "no", "code": "import_failed"}}
    api.answers.append((200, "application/x-ndjson", lines({"log": "1"}, problem)))

    with pytest.raises(ProblemError) as caught:
        list(client.deploy(archive, "d" * 64))
    assert (caught.value.status, caught.value.problem_code) == (422, "import_failed")


def test_a_deploy_whose_platform_goes_away(api: StandIn, client: Client, archive: Path) -> None:
    api.answers.append((200, "application/x-ndjson", lines({"log": "1"})))

    with pytest.raises(UnavailableError, match="deploy again"):
        list(client.deploy(archive, "d" * 64))


def test_events_are_read_page_by_page(api: StandIn, client: Client) -> None:
    api.will(200, {"events": [{"position": 0}, {"position": 1}]})
    api.will(200, {"events": [{"position": 2}]})
    api.will(200, {"events": []})

    assert [event["position"] for event in client.events("run_1")] == [0, 1, 2]
    assert [asked[1].rpartition("=")[2] for asked in api.asked] == ["0", "2", "3"]


def test_following_goes_on_after_a_lost_connection_and_ends_with_the_run(
    api: StandIn, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_api, "RECONNECT_SECONDS", 0.0)
    api.will_stream((0, "run_started"), (1, "step_started"))
    api.will_stream()
    api.will_stream((2, "run_completed"))
    api.will_stream(status=204)

    assert [event["position"] for event in client.follow("run_1")] == [0, 1, 2]
    assert [asked[1].rpartition("=")[2] for asked in api.asked] == ["0", "2", "2", "3"]


def test_following_gives_up_when_the_platform_stays_away(
    api: StandIn, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_api, "RECONNECT_SECONDS", 0.0)
    api.server.server_close()

    with pytest.raises(UnavailableError):
        list(client.follow("run_1"))


def test_a_result_is_asked_for_until_it_is_there(api: StandIn, client: Client) -> None:
    api.will(200, {"status": "running"})
    api.will(200, {"status": "completed", "result": [1]})
    outcome = client.result("run_1", wait_seconds=30)

    assert (outcome.is_final, outcome.result) == (True, [1])


def test_a_result_that_is_not_there_yet(api: StandIn, client: Client) -> None:
    api.will(200, {"status": "running"})

    assert not client.result("run_1").is_final
    assert api.asked[0][1].endswith("wait=0")


def test_a_replay_check_yields_runs_and_then_the_report(api: StandIn, client: Client) -> None:
    run = {
        "run_id": "run_1",
        "workflow": "w",
        "deployment": "dpl_1",
        "status": "running",
        "finding": "diverged",
        "detail": "- recorded",
        "warnings": ["w1"],
    }
    counts = {"checked": 1, "ok": 0, "diverged": 1, "unchecked": 0, "with_warnings": 1}
    report = {"report": {**counts, "is_complete": False}}
    api.answers.append((200, "application/x-ndjson", lines({"run": run}, report)))
    first, last = client.replay_check("dpl_2", last=5, workflow="w", limit=9, inputs=True)

    assert isinstance(first, RunCheck)
    assert (first.run_id, first.finding, first.warnings) == ("run_1", "diverged", ["w1"])
    assert last == ReplayReport(**counts, is_complete=False)
    assert api.asked[0][1] == "/v1/deployments/dpl_2/replay-check"
    wanted = {"scope": {"last": 5}, "workflow": "w", "limit": 9, "inputs": True}
    assert json.loads(api.asked[0][3]) == wanted


def test_a_replay_check_of_live_runs_is_the_default(api: StandIn, client: Client) -> None:
    problem = {"problem": {"status": 422, "code": "import_failed"}}
    api.answers.append((200, "application/x-ndjson", lines(problem)))
    with pytest.raises(ProblemError) as caught:
        list(client.replay_check("dpl_2"))

    assert caught.value.problem_code == "import_failed"
    assert json.loads(api.asked[0][3]) == {"scope": "live", "inputs": False}


def test_a_replay_check_that_breaks_off_says_so(api: StandIn, client: Client) -> None:
    api.answers.append((200, "application/x-ndjson", lines()))
    with pytest.raises(UnavailableError, match="check again"):
        list(client.replay_check("dpl_2"))


def test_a_stream_is_read_page_by_page(api: StandIn, client: Client) -> None:
    api.will(200, {"entries": [{"position": 5}], "next": 7, "length": 8, "closed": False})
    api.will(200, {"entries": [{"position": 7}], "next": 8, "length": 8, "closed": False})

    entries = list(client.stream("run_1", "log/a", start=-3))
    assert [entry["position"] for entry in entries] == [5, 7]
    path = "/v1/runs/run_1/streams/log%2Fa"
    assert [asked[1] for asked in api.asked] == [f"{path}?start=-3", f"{path}?start=7"]


def test_a_stream_is_followed_to_its_end_across_connections(
    api: StandIn, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_api, "RECONNECT_SECONDS", 0.0)
    api.will_stream((0, "chunk"), (1, "chunk"))
    end = b'id: 2\ndata: {"position": 2, "type": "chunk"}\n\nid: 2\nevent: end\ndata: {}\n\n'
    api.answers.append((200, "text/event-stream", end))

    entries = list(client.follow_stream("run_1"))
    assert [entry["position"] for entry in entries] == [0, 1, 2]
    assert api.asked[1][1] == "/v1/runs/run_1/streams/default?start=2"
