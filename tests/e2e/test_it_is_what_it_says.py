"""Claims that can be looked up from outside: commits, counters, zero, durability, secrecy."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import redis

from tests.e2e.histories import (
    of_type,
    read_events,
    start_run,
    wait_for_events,
    wait_for_result,
)
from tests.e2e.installation import Platform, platform, wait_until
from tests.e2e.processes import child, command_of, descendants

APPS = Path(__file__).parent / "apps"
REPO = Path(__file__).parents[2]
CANARY = "Xq7ZcanaryPhrase0451vK"


@pytest.fixture
def quiet(short_home: Path) -> Iterator[Platform]:
    """A platform of its own, whose instances and invoker leave quickly."""
    with platform(short_home, "--idle", "0.5", "--invoker-idle", "2") as running:
        yield running


def test_a_hand_off_costs_one_commit(quiet: Platform, tmp_path: Path) -> None:
    quiet.deploy(APPS / "ledger")
    store = redis.Redis(unix_socket_path=str(_store_socket(quiet)))

    def appends(steps: int) -> int:
        before = _appends(store)
        run_id = start_run(quiet, "ledger", "line", str(tmp_path / f"{steps}"), steps)
        assert wait_for_result(quiet, run_id)["status"] == "completed"
        return _appends(store) - before

    with store:
        wait_for_result(quiet, start_run(quiet, "ledger", "line", str(tmp_path / "warm"), 1))
        ten = appends(10)

    assert ten == 12  # the start, the first turn, and one for each step


def test_each_step_is_an_invocation_of_its_own(quiet: Platform, tmp_path: Path) -> None:
    quiet.deploy(APPS / "ledger")
    run_id = start_run(quiet, "ledger", "line", str(tmp_path / "ledger"), 10)
    wait_for_result(quiet, run_id)
    done = of_type(read_events(quiet, run_id), "step_completed")

    assert len({event["meta"]["invocation"] for event in done}) == 10
    assert all(event["meta"]["attempt"] == 1 for event in done)
    assert all(event["meta"]["cpu_us"] > 0 for event in done)


def test_nothing_is_left_running_at_zero(quiet: Platform, tmp_path: Path) -> None:
    app = quiet.deploy(APPS / "ledger")
    run_id = start_run(quiet, "ledger", "line", str(tmp_path / "ledger"), 1)
    wait_for_result(quiet, run_id)
    quiet.wait_for_zero(app)

    def is_left(program: str) -> bool:
        return any(program in part for part in _all_arguments(quiet))

    # Zygotes and instances are `bootstrap.py`; then the invoker itself leaves.
    wait_until(lambda: not is_left("bootstrap.py"), 20, "no zygote and no instance")
    wait_until(lambda: not is_left("fluvial_invoker"), 20, "no invoker")
    assert is_left("fluvial_gateway")


def test_counters_agree_with_a_ledger(quiet: Platform, tmp_path: Path) -> None:
    app = quiet.deploy(APPS / "canary")
    quiet.deploy(APPS / "ledger")
    ledger = tmp_path / "ledger"
    before = _counters(quiet)
    run_id = start_run(quiet, "ledger", "braid", str(ledger), 3, 7, 0.0)
    wait_for_result(quiet, run_id)
    with app.client() as client:
        answers = [client.post("/", content=b"not json").status_code for _ in range(9)]
    wait_until(lambda: _counters(quiet) != before, 5, "counted")
    after = _counters(quiet)

    def grown(name: str, **labels: str) -> float:
        pattern = re.compile(name + r"\{([^}]*)\} (\S+)")
        totals = [
            sum(
                float(value)
                for found, value in pattern.findall(text)
                if all(f'{key}="{label}"' in found for key, label in labels.items())
            )
            for text in (before, after)
        ]
        return totals[1] - totals[0]

    assert answers == [500] * 9
    assert grown("fluvial_steps_total", app="ledger", outcome="completed") == 21
    assert ledger.read_text().count("end ") == 21
    assert grown("fluvial_invocations_total", app="ledger", kind="step") == 21
    assert grown("fluvial_runs_total", app="ledger", outcome="completed") == 1
    assert grown("fluvial_invocations_total", app="canary", kind="http") == 9


def test_an_acknowledgement_comes_after_the_sync(quiet: Platform, tmp_path: Path) -> None:
    quiet.deploy(APPS / "ledger")
    with _traced(child(quiet, "valkey-server")) as calls:
        run_id = start_run(quiet, "ledger", "line", str(tmp_path / "ledger"), 3)
        wait_for_result(quiet, run_id)
    appended = False  # since the last sync
    appends = 0
    for name, target in calls:
        if name == "fdatasync":
            appended = False
        elif name == "write" and target.endswith(".aof"):
            appended = True
            appends += 1
        elif name == "write" and target.startswith("socket:"):
            assert not appended, "an answer was written between an append and its sync"

    assert appends >= 5


def test_what_users_store_is_nowhere_in_clear(quiet: Platform) -> None:
    app = quiet.deploy(APPS / "canary")
    with _monitored(_store_socket(quiet)) as traffic:
        with app.client() as client:
            reply = client.post("/", json={"text": CANARY, "token": "first"})
            runs = [reply.raise_for_status().text]
        runs.append(start_run(quiet, "canary", "keep", CANARY, "second"))
        for run_id, token in zip(runs, ("first", "second"), strict=True):
            wait_for_events(quiet, run_id, 8)
            _resume(quiet, f"/v1/hooks/canary/{token}", CANARY)
            assert wait_for_result(quiet, run_id)["status"] == "completed", quiet.logs()
        shown = quiet.command("runs", "show", runs[0], "--data").stdout
        metrics = _counters(quiet)

    assert CANARY in shown
    assert not forms_in(bytes(traffic))
    assert not forms_in(metrics.encode())
    for path in quiet.home.rglob("*"):
        if path.is_file() and "bundles" not in path.parts:
            assert not forms_in(path.read_bytes()), path


def test_the_gateway_works_without_reading_the_keyring(short_home: Path) -> None:
    """The gateway runs under an audit hook that forbids it every file of the keyring."""
    launcher = [sys.executable, str(Path(__file__).parent / "barred_gateway.py")]
    with platform(short_home, command=launcher) as running:
        running.deploy(APPS / "canary")
        run_id = start_run(running, "canary", "keep", CANARY, "third")
        wait_for_events(running, run_id, 8)
        _resume(running, "/v1/hooks/canary/third", CANARY)
        result = wait_for_result(running, run_id)
        gateway = command_of(child(running, "barred"))

    assert result["status"] == "completed"
    assert result["result"] == CANARY * 2
    assert "barred" in " ".join(gateway)


def _resume(running: Platform, path: str, payload: str) -> None:
    """Send a payload, again while the hook is not open yet."""
    with running.api() as api:
        wait_until(lambda: api.post(path, json=payload).status_code == 202, 10, "the hook is open")


def _appends(store: redis.Redis) -> int:
    """Return how often the store has appended to a log: once for each commit with events."""
    reply = cast("dict[str, dict[str, int]]", store.execute_command("INFO", "commandstats"))  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves it untyped
    return reply["cmdstat_rpush"]["calls"]


def _store_socket(running: Platform) -> Path:
    return running.home / "run" / "valkey.sock"


def _all_arguments(running: Platform) -> list[str]:
    return [part for pid in descendants(running.process.pid) for part in command_of(pid)]


def _counters(running: Platform) -> str:
    with running.api() as api:
        return api.get("/metrics").raise_for_status().text


def forms_in(data: bytes) -> list[bytes]:
    """Return which encodings of the canary occur: plain, hexadecimal, base64 at any offset."""
    plain = CANARY.encode()
    forms = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain)
        forms.append(encoded[4 if offset else 0 : -4])
    return [form for form in forms if form in data]


@contextmanager
def _monitored(path: Path) -> Generator[bytearray]:
    """Collect every command that the store executes, with its arguments."""
    seen = bytearray()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.sendall(b"*1\r\n$7\r\nMONITOR\r\n")
    assert connection.recv(5) == b"+OK\r\n"

    def collect() -> None:
        while data := connection.recv(65536):
            seen.extend(data)

    reader = threading.Thread(target=collect)
    reader.start()
    try:
        yield seen
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        reader.join()
        connection.close()
    assert b"EVALSHA" in seen.upper()


@contextmanager
def _traced(pid: int) -> Generator[list[tuple[str, str]]]:
    """Collect the system calls of a process, in order, with the files that they are about."""
    calls: list[tuple[str, str]] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.tracing", str(pid)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tracer:
        assert tracer.stdin is not None
        assert tracer.stdout is not None
        output = tracer.stdout
        assert output.readline() == "attached\n"

        def collect() -> None:
            for line in output:
                name, *_, target = line.rstrip("\n").split(" ")
                calls.append((name, target))

        reader = threading.Thread(target=collect)
        reader.start()
        try:
            yield calls
        finally:
            tracer.stdin.close()
            reader.join(30)
