"""Many runs at once, many apps at rest: nothing is lost, and rest costs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from fluvial.bundle import Packed, pack
from tests.e2e.histories import of_type, read_events
from tests.e2e.installation import App, Platform, platform, wait_until
from tests.e2e.processes import command_of, cpu_seconds, descendants

APPS: Final = Path(__file__).parent / "apps"
RUNS: Final = 200
STEPS: Final = 10
IN_FLIGHT: Final = 32
EVENTS: Final = 2 + 2 * STEPS  # the start, the end, and two for each step
IDLE_APPS: Final = 50
REST_SECONDS: Final = 20.0
TARGET: Final = 0.3  # CPU seconds a minute, of all processes together
BUSY: Final = 3 * TARGET  # timings are no test; but nothing may spin
RESIDENT: Final = {"fluvial_deploy", "fluvial_gateway", "valkey-server"}


def test_many_runs_at_once_all_end_with_their_results(running: Platform) -> None:
    app = running.deploy(APPS / "counting")
    with running.api() as api, ThreadPoolExecutor(IN_FLIGHT) as threads:
        began = time.perf_counter()
        results = list(threads.map(partial(_result, api), range(RUNS)))
        seconds = time.perf_counter() - began
        runs = _runs(api, app)
    print(f"\n{RUNS} runs of {STEPS} steps, {IN_FLIGHT} in flight: {seconds:.1f} s")  # noqa: T201 - a figure

    assert results == [_expected(seed) for seed in range(RUNS)]
    assert [(run["status"], run["events"]) for run in runs] == [("completed", EVENTS)] * RUNS
    for run in runs[::20]:
        events = read_events(running, run["run_id"])
        done = of_type(events, "step_completed")
        assert [event["meta"]["attempt"] for event in done] == [1] * STEPS


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, list[App]]]:
    """A platform with many apps, started again after their deploys: nobody has asked for one."""
    home = tmp_path_factory.mktemp("home")
    bundles = {
        f"idle-{n}": _bundle(tmp_path_factory.mktemp(f"app-{n}"), n) for n in range(IDLE_APPS)
    }
    with platform(home, "--idle", "0.3") as first, first.api() as api:
        with ThreadPoolExecutor(4) as threads:
            deploys = [threads.submit(_deploy, api, *item) for item in bundles.items()]
        for deploy in deploys:
            deploy.result()
    with platform(home, "--invoker-idle", "1") as again:
        port = again.http.rpartition(":")[2]
        apps = [
            App(name=name, deployment="", layer="", url=f"http://{name}.localhost:{port}")
            for name in bundles
        ]
        yield again, apps


def test_many_idle_apps_have_no_process_and_answer(crowded: tuple[Platform, list[App]]) -> None:
    running, apps = crowded
    wait_until(lambda: _programs(running) == RESIDENT, 20, "only the residents run")
    for app in [*apps[::10], apps[-1]]:
        with app.client() as client:
            assert client.get("/").text == app.name

    wait_until(lambda: _programs(running) == RESIDENT, 30, "all are at zero again")
    with running.api() as api:
        assert len(api.get("/v1/apps").json()["apps"]) == IDLE_APPS


def test_rest_costs_next_to_nothing(crowded: tuple[Platform, list[App]]) -> None:
    running, _ = crowded
    wait_until(lambda: _programs(running) == RESIDENT, 30, "only the residents run")
    pids = [running.process.pid, *descendants(running.process.pid)]
    before = {pid: cpu_seconds(pid) for pid in pids}
    time.sleep(REST_SECONDS)  # the measurement itself
    spent = {pid: cpu_seconds(pid) - before[pid] for pid in pids}
    minute = 60 / REST_SECONDS
    total = sum(spent.values()) * minute
    parts = ", ".join(f"{_program(pid)} {spent[pid] * minute:.3f}" for pid in pids)
    print(f"\nat rest: {total:.3f} CPU s a minute ({parts}); the target is {TARGET}")  # noqa: T201 - a figure

    assert _programs(running) == RESIDENT
    assert total < BUSY


def _result(api: httpx.Client, seed: int) -> int:
    body = {"args": [seed, STEPS]}
    started = api.post("/v1/apps/counting/workflows/climb/runs", json=body).raise_for_status()
    run_id = started.json()["run_id"]
    found = api.get(f"/v1/runs/{run_id}/result", params={"wait": 60}).raise_for_status().json()
    assert found["status"] == "completed", found
    return int(found["result"])


def _expected(seed: int) -> int:
    for number in range(STEPS):
        seed = (seed * 48_271 + number) % (2**31 - 1)
    return seed


def _runs(api: httpx.Client, app: App) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = api.get("/v1/runs", params={"app": app.name, "limit": 500}).json()[
        "runs"
    ]
    return runs


def _bundle(folder: Path, number: int) -> Packed:
    source = folder / "source"
    source.mkdir()
    text = f"def handler(request):\n    return 'idle-{number}'\n"
    (source / "main.py").write_text(text)
    return pack(source, folder / "archive")


def _deploy(api: httpx.Client, name: str, bundle: Packed) -> None:
    answer = api.post(
        "/v1/deployments",
        params={"name": name},
        content=bundle.archive.read_bytes(),
        headers={"x-fluvial-bundle-digest": bundle.digest},
    )
    assert '"created":true' in answer.raise_for_status().text, answer.text


def _programs(running: Platform) -> set[str]:
    """Return which programs run; an instance or a zygote is a program of its own."""
    pids = [running.process.pid, *descendants(running.process.pid)]
    return {_program(pid) for pid in pids}


def _program(pid: int) -> str:
    parts = command_of(pid)[:3]
    named = [name for name in RESIDENT for part in parts if name in part]
    return named[0] if named else " ".join(parts)
