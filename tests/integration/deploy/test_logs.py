"""`fluvial logs` against a real platform, from instances that print at the same time."""

from __future__ import annotations

import functools
import json
import os
import pty
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

APP = """
import asyncio, logging
from fluvial import context, step, workflow
log = logging.getLogger("talk")

async def app(request):
    name = request.path[1:]
    print("hello", name)
    await asyncio.sleep(0.01)
    log.warning("warned %s", name, extra={"who": name})
    return context().id

@step
def shout(text: str) -> str:
    print("shouting", text)
    return text.upper()

@workflow
async def parade(text: str) -> str:
    print("parade begins")
    return await shout(text)
"""
SECONDS = 60.0


@pytest.fixture(scope="module")
def talk(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("talk")
    (folder / "main.py").write_text(APP)
    done = platform.run("deploy", str(folder), "--name", "talk")
    assert done.returncode == 0, done.stderr
    return platform


def get(platform: Any, path: str) -> str:
    request = urllib.request.Request(
        f"{platform.ready['http']}/{path}", headers={"host": "talk.localhost"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        body: bytes = response.read()
        return body.decode()


def records(platform: Any, *options: str) -> list[dict[str, Any]]:
    done = platform.run("logs", "talk", "--json", *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def printed_at_terminal(platform: Any, *arguments: str) -> str:
    """Return what a command prints where its stdout is a terminal."""
    person, terminal = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "fluvial_deploy", *arguments],
            env={**os.environ, "FLUVIAL_HOME": str(platform.home)},
            stdout=terminal,
            timeout=SECONDS,
            check=True,
        )
        return os.read(person, 65536).decode()
    finally:
        os.close(person)
        os.close(terminal)


def test_what_an_app_says_is_found_by_what_said_it(talk: Any) -> None:
    names = [f"n{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as clients:
        ids = list(clients.map(functools.partial(get, talk), names))
    run = talk.run("start", "talk", "parade", '"hey"').stdout.strip()
    talk.run("runs", "result", run, "--wait", "60s")

    for name, invocation in zip(names[:2], ids[:2], strict=True):
        own = records(talk, "--invocation", invocation)
        assert [record["message"] for record in own] == [f"hello {name}", f"warned {name}"]
    warned = records(talk, "--level", "warning", "-n", "1000")
    # A warm-up request of a snapshot says something too.
    assert {record["fields"]["who"] for record in warned} >= set(names)
    begun, shouted = records(talk, "--run", run)
    assert (begun["kind"], begun["message"]) == ("turn", "parade begins")
    assert (shouted["kind"], shouted["step"], shouted["attempt"]) == ("step", 1, 1)
    assert (begun["function"][-6:], shouted["function"][-5:]) == ("parade", "shout")
    assert [r["message"] for r in records(talk, "--text", "shouting", "--since", "1h")] == [
        "shouting hey"
    ]
    assert records(talk, "--kind", "instance")[0]["fields"]["event"] == "ready"
    assert records(talk, "--until", "1h") == []


def test_lines_are_plain_when_piped_and_coloured_on_a_terminal(talk: Any) -> None:
    get(talk, "plain")
    piped = talk.run("logs", "talk", "-n", "1", "--text", "warned plain")
    seen = printed_at_terminal(talk, "logs", "talk", "-n", "1", "--text", "warned plain")

    assert "\x1b" not in piped.stdout
    assert " WARNING  http " in piped.stdout
    assert piped.stdout.endswith("warned plain  who=plain\n")
    assert "\x1b[33mwarned plain" in seen


def test_a_log_is_followed(talk: Any) -> None:
    get(talk, "before")
    follower = subprocess.Popen(
        [sys.executable, "-m", "fluvial_deploy", "logs", "talk", "-f", "-n", "1", "--json"],
        env={**os.environ, "FLUVIAL_HOME": str(talk.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        get(talk, "after")
        then = [json.loads(follower.stdout.readline())["message"] for _ in range(2)]
    finally:
        follower.terminate()
        follower.communicate(timeout=SECONDS)

    assert first["message"] == "warned before"
    assert then == ["hello after", "warned after"]
