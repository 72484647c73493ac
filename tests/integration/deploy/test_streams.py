"""Streams on a real platform: from a step through an app's own HTTP response, and by the CLI."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

# A chat: the response to POST /ask carries the tokens while the step that writes them still runs.
CHAT = """
import asyncio
import fluvial
from fluvial import blocking_stream, start, step, stream, workflow

told = asyncio.Event()

@step
async def answer(question: str) -> int:
    out = stream("tokens")
    for token in question.split():
        await out.write(token + " ")
        if token == "pause":
            await told.wait()
    return len(question)

@workflow
async def chat(question: str) -> int:
    return await answer(question)

@step
def write_all() -> None:
    out = blocking_stream("mixed")
    for chunk in ("Gr\\u00fc\\u00dfe ", b"\\x00\\xff", {"n": [1, 2]}, {1}):
        out.write(chunk)

@workflow
async def mixed() -> None:
    await write_all()

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"").decode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/go-on":
        told.set()
    else:
        run = await start(chat, body)
        async for token in run.stream("tokens", type=str):
            await send({"type": "http.response.body", "body": token.encode(), "more_body": True})
        body = str(await run.result())
    await send({"type": "http.response.body", "body": body.encode()})
"""
SETTINGS = """
name = "chat"
[instance]
max_instances = 1
"""


@contextmanager
def sent(url: str, method: str, path: str, body: str = "", **headers: str) -> Generator[Any]:
    """The response to a request, whose body may still be on its way."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(method, path, body, headers)
    try:
        yield connection.getresponse()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def chat(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = tmp_path_factory.mktemp("chat")
    (source / "main.py").write_text(CHAT)
    (source / "fluvial.toml").write_text(SETTINGS)
    done = platform.run("deploy", str(source))
    assert done.returncode == 0, done.stderr
    return platform


def _mixed_run(platform: Any) -> str:
    run_id: str = platform.run("start", "chat", "mixed").stdout.strip()
    assert platform.run("runs", "result", run_id).returncode == 0
    return run_id


def test_tokens_reach_the_client_while_the_step_still_writes(chat: Any) -> None:
    url, host = chat.ready["http"], "chat.localhost"
    with sent(url, "POST", "/ask", "one two pause three", host=host) as response:
        assert response.read(len("one two pause ")) == b"one two pause "  # the step waits now
        with sent(url, "POST", "/go-on", host=host) as told:
            assert told.status == 200
        assert response.read() == b"three 19"


def test_streams_are_listed_and_shown(chat: Any) -> None:
    run_id = _mixed_run(chat)

    assert chat.run("runs", "streams", run_id).stdout.split("\t")[:2] == ["mixed", "4"]
    lines = chat.run("runs", "stream", run_id, "mixed").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        '"Grüße "',
        '{"bytes": "AP8="}',
        '{"n": [1, 2]}',
        '{"repr": "{1}"}',
    ]
    entry = json.loads(chat.run("runs", "stream", run_id, "mixed", "--json").stdout.split("\n")[0])
    assert (entry["position"], entry["type"], entry["value"]) == (0, "chunk", "Grüße ")
    last = chat.run("runs", "stream", run_id, "mixed", "--start", "-1").stdout
    assert last == '    3  {"repr": "{1}"}\n'


def test_a_stream_is_followed_until_it_is_closed(chat: Any) -> None:
    run_id = chat.run("start", "chat", "chat", '"one two"').stdout.strip()
    followed = chat.run("runs", "stream", run_id, "tokens", "--follow", "--raw")

    assert (followed.returncode, followed.stdout) == (0, "one two ")


def test_raw_chunks_over_http(chat: Any) -> None:
    run_id = _mixed_run(chat)
    token = (chat.home / "token").read_text().strip()
    path = f"/v1/runs/{run_id}/streams/mixed"
    accept = "application/octet-stream"
    with sent(
        chat.ready["control"], "GET", path, authorization=f"Bearer {token}", accept=accept
    ) as response:
        assert response.read() == "Grüße ".encode() + b'\x00\xff{"n":[1,2]}\n{1}'


def test_a_run_that_is_not_there_has_no_streams(chat: Any) -> None:
    unknown = "run_00" + "0" * 24
    assert chat.run("runs", "streams", unknown).returncode == 3
    assert chat.run("runs", "stream", unknown).returncode == 3
    assert chat.run("runs", "stream", unknown, "--raw", "--json").returncode == 2
