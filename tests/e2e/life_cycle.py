"""The life of instances and of deployments under load: no request fails, and no run moves.

    python -m tests.e2e.life_cycle --cycles 1000 --deploys 100 --seed 1

is the full size of what `test_life_cycle.py` plays in small. It starts a platform of its own, tells
the seed and what it has done, and ends with status 1 if a request has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tests.e2e.histories import start_run, wait_for_result
from tests.e2e.installation import App, Platform, platform, wait_until

IDLE_SECONDS: Final = 0.2  # of the app's instances: the shorter, the more ends meet an arrival
CLIENTS: Final = 6
REQUEST_SECONDS: Final = 60.0
_MANIFEST: Final = f"""
name = "versioned"
[instance]
idle = "{IDLE_SECONDS}s"
"""
_CODE: Final = """
from fluvial import sleep, step, workflow

VERSION = {version}


@step
async def tell() -> int:
    return VERSION


@workflow
async def remember() -> list[int]:
    first = await tell()
    await sleep("500ms")
    return [first, await tell()]


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": str(VERSION).encode()}})
"""


@dataclass
class Report:
    """What was done, and what went wrong."""

    answers: int = 0
    cold: int = 0
    failures: list[str] = field(default_factory=list[str])
    versions: dict[str, set[str]] = field(default_factory=dict[str, set[str]])  # by deployment
    runs: Counter[str] = field(default_factory=Counter[str])

    def __str__(self) -> str:
        return (
            f"{self.answers} answers, {self.cold} of them from zero; deployments that served: "
            f"{len(self.versions)}; runs: {dict(self.runs)}; failures: {len(self.failures)}"
        )


def write_version(folder: Path, version: int) -> Path:
    """Write the app in one version; its answers say which."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(_CODE.format(version=version))
    (folder / "fluvial.toml").write_text(_MANIFEST)
    return folder


async def play_cycles(app: App, cycles: int, seed: int) -> Report:
    """Let requests arrive at random, most of them about when the last instance goes, until so many
    have begun at zero."""
    chance, report = random.Random(seed), Report()
    async with _client(app) as client:
        while report.cold < cycles and not report.failures:
            burst = chance.choice((1, 1, 1, 2, 5))
            await asyncio.gather(*(_ask(client, report) for _ in range(burst)))
            await asyncio.sleep(chance.uniform(0.5, 2.0) * IDLE_SECONDS)
    return report


async def play_deploys(running: Platform, folder: Path, deploys: int, seed: int) -> Report:
    """Deploy, roll back, promote and delete while clients ask without a pause."""
    chance, report = random.Random(seed), Report()
    app = await asyncio.to_thread(running.deploy, write_version(folder, 0))
    stop = asyncio.Event()
    async with _client(app) as client:
        load = [asyncio.ensure_future(_ask_until(stop, client, report)) for _ in range(CLIENTS)]
        started: dict[str, int] = {}
        for version in range(1, deploys + 1):
            run_id = await asyncio.to_thread(start_run, running, app.name, "remember")
            started[run_id] = version - 1
            await asyncio.to_thread(running.deploy, write_version(folder, version))
            await asyncio.to_thread(_move, running, app.name, chance)
        stop.set()
        await asyncio.gather(*load)
    for run_id, version in started.items():
        found = await asyncio.to_thread(wait_for_result, running, run_id)
        report.runs[found["status"]] += 1
        if found["result"] != [version, version]:
            report.failures.append(f"{run_id} of version {version}: {found}")
    mixed = [each for each in report.versions.items() if len(each[1]) != 1]
    report.failures += [f"{deployment} said to be {said}" for deployment, said in mixed]
    return report


def _move(running: Platform, app: str, chance: random.Random) -> None:
    """Roll back and forth, and delete an old deployment when its runs are over."""
    with running.api() as api:
        path = f"/v1/apps/{app}"
        newest = api.get(path).raise_for_status().json()["production"]
        api.post(f"{path}/rollback").raise_for_status()
        api.post(f"{path}/promote", json={"deployment": newest}).raise_for_status()
        listed = api.get("/v1/deployments", params={"app": app}).raise_for_status().json()
        old = [each["deployment"] for each in listed["deployments"] if not each["aliases"]]
        if len(old) > 2:
            target = f"/v1/deployments/{chance.choice(old[2:])}"
            api.delete(target, params={"when_unused": True, "force": True}).raise_for_status()


@asynccontextmanager
async def _client(app: App) -> AsyncGenerator[httpx.AsyncClient]:
    address = f"http://127.0.0.1:{urlsplit(app.url).port}"
    async with httpx.AsyncClient(base_url=address, timeout=REQUEST_SECONDS) as client:
        client.headers["host"] = app.host
        yield client


async def _ask_until(stop: asyncio.Event, client: httpx.AsyncClient, report: Report) -> None:
    while not stop.is_set():
        await _ask(client, report)


async def _ask(client: httpx.AsyncClient, report: Report) -> None:
    try:
        response = await client.post("/", content=b"x")  # not repeated by anybody, unlike a GET
    except httpx.HTTPError as error:
        report.failures.append(f"{type(error).__name__}: {error}")
        return
    report.answers += 1
    if response.status_code != 200:
        report.failures.append(f"{response.status_code}: {response.text}")
        return
    report.cold += "x-fluvial-cold-start" in response.headers
    deployment = response.headers["x-fluvial-deployment"]
    report.versions.setdefault(deployment, set()).add(response.text)


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--deploys", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser.parse_args()


def main() -> int:
    """Play both at the size that was asked for."""
    asked = _arguments()
    _tell(f"seed {asked.seed}")
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="fv-") as name:
        home = Path(name)
        with platform(home / "home") as running:
            app = running.deploy(write_version(home / "app", 0))
            wait_until(lambda: not running.instances(app), 30.0, "the app is at zero")
            cycles = asyncio.run(play_cycles(app, asked.cycles, asked.seed))
            _tell(f"cycles: {cycles}")
            deploys = asyncio.run(play_deploys(running, home / "app", asked.deploys, asked.seed))
            _tell(f"deploys: {deploys}")
            failures = [*cycles.failures, *deploys.failures]
            if failures:
                _tell("\n".join([*failures[:20], running.logs()]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
