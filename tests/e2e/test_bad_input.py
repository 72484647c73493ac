"""Mistakes of callers: each has its clear answer at the front door, and nothing is half done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import socket
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.histories import start_run, wait_for_result
from tests.e2e.installation import App, Platform
from tests.e2e.standing import unharmed

APPS: Final = Path(__file__).parent / "apps"
HOST: Final = b"Host: mistakes.localhost\r\n"
POST: Final = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MIB: Final = b"100000\r\n" + bytes(2**20) + b"\r\n"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
ANSWER_SECONDS: Final = 30.0


@pytest.fixture(scope="module")
def mistakes(running: Platform) -> App:
    return running.deploy(APPS / "mistakes")


# ---- the data plane ----

REQUESTS: Final[dict[str, tuple[bytes, int, str]]] = {
    "unknown host": (b"GET / HTTP/1.1\r\nHost: none.localhost\r\n\r\n", 404, "host_not_found"),
    "unknown deployment": (
        b"GET / HTTP/1.1\r\nHost: dpl-" + b"0" * 24 + b".localhost\r\n\r\n",
        404,
        "host_not_found",
    ),
    "somebody's host": (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 404, "host_not_found"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_host"),
    "two hosts": (b"GET / HTTP/1.1\r\n" + 2 * HOST + b"\r\n", 400, "invalid_host"),
    "long target": (
        b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        414,
        "target_too_long",
    ),
    "long header": (POST + b"A: " + b"a" * 16384 + b"\r\n\r\n", 431, "headers_too_large"),
    "many headers": (POST + b"A: a\r\n" * 64 + b"\r\n", 431, "headers_too_large"),
    "large body": (POST + b"Content-Length: 104857601\r\n\r\n", 413, "body_too_large"),
    "large chunked body": (CHUNKED + 100 * MIB + b"1\r\na\r\n", 413, "body_too_large"),
    "length and chunked": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "invalid_framing",
    ),
    "two lengths": (
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        400,
        "invalid_framing",
    ),
    "folded header": (POST + b"A: b\r\n c\r\n\r\n", 400, "invalid_header"),
    "bare line feed": (
        b"GET / HTTP/1.1\nHost: mistakes.localhost\n\n",
        400,
        "invalid_request_line",
    ),
    "wrong chunk size": (CHUNKED + b"5x\r\nhello\r\n0\r\n\r\n", 400, "invalid_framing"),
    "wrong chunk end": (CHUNKED + b"5\r\nhello!!0\r\n\r\n", 400, "invalid_framing"),
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_request_line"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_refused(running: Platform, mistakes: App, name: str) -> None:
    data, status, code = REQUESTS[name]
    with unharmed(running, mistakes):
        answer = _exchange(
            running, data + (b"" if status == 404 else SMUGGLED), closes=status != 404
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        problem = json.loads(body)

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in head.lower()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]


def test_a_body_at_the_limit_is_taken(running: Platform, mistakes: App) -> None:
    data = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + 100 * MIB
    answer = _exchange(running, data + b"0\r\n\r\n", closes=True)

    assert answer.endswith(b"104857600 bytes")


# ---- the control plane ----

RUN: Final = "run_" + "0" * 26
START: Final = "/v1/apps/mistakes/workflows/total/runs"
JSON: Final = {"content-type": "application/json"}

CALLS: Final[list[tuple[str, str, dict[str, Any], int, str, str]]] = [
    ("GET", "/v1/apps/none", {}, 404, "app_not_found", "none"),
    ("POST", "/v1/apps/none/workflows/total/runs", {}, 404, "app_not_found", "none"),
    (
        "POST",
        "/v1/apps/mistakes/workflows/totals/runs",
        {},
        404,
        "workflow_not_found",
        "failing, passed_to_step, returned_by_step, returned_by_workflow, slow, total, waiting",
    ),
    ("POST", START, {"content": b"[1", "headers": JSON}, 400, "invalid_json", "not JSON"),
    ("POST", START, {"content": b"[NaN]", "headers": JSON}, 400, "invalid_json", "NaN"),
    ("POST", START, {"json": "text"}, 400, "invalid_request", "expected array, got string"),
    (
        "POST",
        START,
        {"content": b"[1]", "headers": {"content-type": "text/plain"}},
        415,
        "unsupported_media_type",
        "application/json",
    ),
    ("POST", START, {"json": ["x" * 2**22]}, 413, "too_large", "4194304"),
    ("GET", f"/v1/runs/{RUN}", {}, 404, "run_not_found", RUN),
    ("GET", f"/v1/runs/{RUN}/result", {}, 404, "run_not_found", RUN),
    ("POST", f"/v1/runs/{RUN}/cancel", {}, 404, "run_not_found", RUN),
    ("GET", "/v1/runs/run_1", {}, 400, "invalid_request", "not a run id"),
    ("POST", "/v1/hooks/mistakes/none", {"json": 1}, 404, "hook_not_found", "none"),
    ("POST", f"/v1/hooks/mistakes/hook_{RUN[4:]}_x", {"json": 1}, 404, "hook_not_found", "hook_"),
    ("POST", "/v1/hooks/none/token", {"json": 1}, 404, "app_not_found", "none"),
    ("GET", "/v1/nothing", {}, 404, "not_found", "/openapi.json"),
    ("DELETE", "/v1/runs", {}, 405, "method_not_allowed", "DELETE"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "code", "says"), CALLS)
def test_a_call_is_refused(
    running: Platform,
    mistakes: App,
    method: str,
    path: str,
    options: dict[str, Any],
    status: int,
    code: str,
    says: str,
) -> None:
    with unharmed(running, mistakes), running.api() as api:
        response = api.request(method, path, **options)

        problem = response.json()
        assert (response.status_code, problem["code"]) == (status, code), problem
        assert response.headers["content-type"] == "application/problem+json"
        assert says in problem["detail"]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer " + "x" * 43, "Basic eDp5"])
def test_a_wrong_token_opens_nothing(
    running: Platform, mistakes: App, authorization: str | None
) -> None:
    with unharmed(running, mistakes), running.api() as api:
        del api.headers["authorization"]
        headers = {} if authorization is None else {"authorization": authorization}
        answers = [
            api.get("/v1/apps", headers=headers),
            api.post(START, json=[1], headers=headers),
            api.post("/v1/deployments", content=b"x", headers=headers),
            api.get("/v1/usage", headers=headers),
        ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["code"] for answer in answers} == {"unauthenticated"}
    assert all("bearer" in answer.headers["www-authenticate"].lower() for answer in answers)


def test_a_token_opens_only_what_its_scope_says(running: Platform, mistakes: App) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    with running.api() as api:
        made = api.post("/v1/tokens", json={"name": "reader", "scopes": ["runs:read"]})
        run_id = start_run(running, "mistakes", "total", 1)
        wait_for_result(running, run_id)
        with unharmed(running, mistakes):
            api.headers["authorization"] = f"Bearer {made.raise_for_status().json()['token']}"
            answers = [
                api.post(START, json=[1]),
                api.post(
                    "/v1/deployments", content=b"x", headers={"x-fluvial-bundle-digest": digest}
                ),
                api.post("/v1/apps/mistakes/rollback"),
                api.post("/v1/tokens", json={"name": "n", "scopes": ["admin"]}),
                api.get(f"/v1/runs/{run_id}", params={"data": "true"}),
            ]
            allowed = api.get(f"/v1/runs/{run_id}")

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (403, "access_denied")
    }
    assert allowed.status_code == 200


# ---- the command line ----

COMMANDS: Final[list[tuple[list[str], int, str]]] = [
    ([], 2, "Usage"),
    (["nonesuch"], 2, "No such command 'nonesuch'"),
    (["deploy"], 2, "Missing argument 'DIR'"),
    (["deploy", ".", "--nonesuch"], 2, "No such option: --nonesuch"),
    (["start", "mistakes", "total", "one"], 2, "must be JSON, got 'one'"),
    (["runs", "ls", "--limit", "0"], 2, "--limit"),
    (["runs", "result", RUN, "--wait", "soon"], 2, "--wait"),
    (["up", "--http", "8080"], 2, "--http must be HOST:PORT"),
    (["up", "--store", "mysql://h"], 2, "--store must begin with one of redis://"),
    (["deploy", "/nonexistent"], 1, "/nonexistent is not a directory"),
    (["deploy", ".", "--name", "No"], 1, "the name of the app"),
    (["token", "create", "--scope", "everything"], 1, "everything"),
    (["apps", "show", "none"], 3, "`fluvial apps ls`"),
    (["start", "none", "total"], 3, "`fluvial apps ls`"),
    (["start", "mistakes", "totals"], 3, "its workflows: failing"),
    (["promote", "mistakes", "dpl_" + "0" * 24], 3, "`fluvial deployments ls`"),
    (["runs", "show", RUN], 3, "`fluvial runs ls`"),
    (["hooks", "resume", "none", "1", "--app", "mistakes"], 3, "it may open later"),
    (["invoke", "none", "/"], 1, "404 Not Found"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), COMMANDS)
def test_a_command_is_refused(
    running: Platform, mistakes: App, arguments: list[str], code: int, says: str
) -> None:
    with unharmed(running, mistakes):
        done = running.command(*arguments)

    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == "" or arguments[0] == "invoke"
    if code != 2:
        assert len(re.findall("^error: ", done.stderr, re.MULTILINE)) <= 1


def test_a_command_tells_that_a_run_failed(running: Platform, mistakes: App) -> None:
    started = running.command("start", "mistakes", "failing")
    done = running.command("runs", "result", started.stdout.strip())

    assert started.returncode == 0
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {started.stdout.strip()} failed: ValueError: on purpose")


def test_a_command_tells_that_no_platform_is_there(running: Platform, tmp_path: Path) -> None:
    nobody = dataclasses.replace(running, control="http://127.0.0.1:1")
    done = nobody.command("apps", "ls")

    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: http://127.0.0.1:1 cannot be reached")
    assert "is `fluvial up` running there?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_command_with_a_wrong_token_is_told_so(running: Platform, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 43)
    done = dataclasses.replace(running, home=tmp_path).command("apps", "ls")

    assert (done.returncode, done.stdout) == (4, "")
    assert "set FLUVIAL_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


def _exchange(running: Platform, data: bytes, *, closes: bool) -> bytes:
    """Send bytes and return the one answer; `closes`: nothing follows it but the end."""
    port = int(running.http.rpartition(":")[2])
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(data)
        while not (closes is False and _is_whole(answer)) and (part := connection.recv(65536)):
            answer += part
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3}", answer)) == 1, answer
    return bytes(answer)


def _is_whole(answer: bytearray) -> bool:
    head, separator, body = bytes(answer).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: ([0-9]+)", head)
    return bool(separator) and length is not None and len(body) >= int(length.group(1))
