"""Variables and secrets from the command line into an app, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import App, Platform, platform
from tests.e2e.processes import descendants
from tests.e2e.test_it_is_what_it_says import CANARY, forms_in

MAIN = """
import os

TOKEN = os.environ["TOKEN"]

async def app(request):
    return 200, {"token": len(TOKEN), "colour": os.environ.get("COLOUR"),
                 "url": os.environ["FLUVIAL_APP_URL"], "mode": os.environ["MODE"]}
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "lamp"
    folder.mkdir()
    (folder / "main.py").write_text(MAIN)
    (folder / "fluvial.toml").write_text('[env]\nMODE = "slow"\n')
    return folder


def says(app: App) -> dict[str, Any]:
    with app.client() as client:
        found: dict[str, Any] = client.get("/").raise_for_status().json()
    return found


def listed(running: Platform) -> list[tuple[str, bool, bool]]:
    rows = json.loads(running.command("env", "ls", "lamp", "--json").stdout)
    return [(row["name"], row["secret"], row["in_production"]) for row in rows]


def test_a_deployment_has_what_was_set_before_it(
    running: Platform, bundle: Path, tmp_path: Path
) -> None:
    refused = running.command("deploy", str(bundle))
    assert refused.returncode == 1
    assert "the variable TOKEN is not set: `fluvial secret set lamp TOKEN`" in refused.stderr

    assert running.command("secret", "set", "lamp", "TOKEN", typed="x" * 7).returncode == 0
    assert running.command("env", "set", "lamp", "COLOUR=red").returncode == 0
    app = running.deploy(bundle)
    assert says(app) == {"token": 7, "colour": "red", "url": app.url, "mode": "slow"}

    file = tmp_path / "more.env"
    file.write_text("COLOUR='blue'\nMODE=fast\n")
    assert running.command("env", "import", "lamp", str(file)).returncode == 0
    assert listed(running) == [
        ("COLOUR", False, False),
        ("MODE", False, False),
        ("TOKEN", True, True),
    ]
    assert says(app)["colour"] == "red"
    assert running.command("redeploy", "lamp").stdout == f"{app.url}\n"
    assert says(app) == {"token": 7, "colour": "blue", "url": app.url, "mode": "fast"}
    assert "nothing has changed" in running.command("redeploy", "lamp").stderr

    assert running.command("rollback", "lamp").returncode == 0
    assert says(app) == {"token": 7, "colour": "red", "url": app.url, "mode": "slow"}


def test_a_person_who_makes_a_mistake_is_told(running: Platform, tmp_path: Path) -> None:
    file = tmp_path / "bad.env"
    file.write_text("A=1\nB\n")
    secret = ("secret", "set", "dark")
    mistakes = {
        ("env", "set", "dark", "LD_PRELOAD=x"): (2, "LD_PRELOAD is a reserved name"),
        ("env", "set", "dark", "COLOUR"): (2, "variable 'COLOUR': write it as NAME=VALUE"),
        ("env", "import", "dark", str(file)): (2, "line 2: B has no value"),
        ("env", "rm", "dark", "COLOUR"): (3, "`fluvial env ls` shows"),
        ("env", "ls", "nothing"): (3, "no app 'nothing' was ever deployed"),
        ("redeploy", "nothing"): (3, "no app 'nothing' was ever deployed"),
        (*secret, "TOKEN", "value"): (2, "unexpected extra argument"),
    }
    running.command(*secret, "TOKEN", typed="1")
    mistakes[("env", "set", "dark", "TOKEN=1")] = (1, "is set as a secret")

    for arguments, (status, said) in mistakes.items():
        done = running.command(*arguments)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr


@pytest.fixture
def alone(short_home: Path) -> Iterator[Platform]:
    """A platform of its own, whose files nobody else writes."""
    with platform(short_home) as started:
        yield started


def test_values_are_nowhere_in_clear(alone: Platform, bundle: Path) -> None:
    done = [
        alone.command("secret", "set", "lamp", "TOKEN", "--json", typed=f"{CANARY}\n"),
        alone.command("env", "import", "lamp", "/dev/stdin", "--secret", typed=f"OTHER={CANARY}"),
    ]
    app = alone.deploy(bundle)
    assert says(app)["token"] == len(CANARY)
    done += [
        alone.command("env", "ls", "lamp", "--json"),
        alone.command("deployments", "show", app.deployment, "--json"),
        alone.command("logs", "lamp"),
        alone.command("doctor", "--json"),
    ]
    with alone.api() as api:
        paths = ("/metrics", "/v1/instances", "/v1/apps/lamp", "/v1/deployments", "/v1/usage")
        answers = [api.get(path).raise_for_status().content for path in paths]

    for text in (*(each.stdout + each.stderr for each in done), *map(bytes.decode, answers)):
        assert not forms_in(text.encode())
    for pid in descendants(alone.process.pid):
        for kind in ("environ", "cmdline"):
            assert not forms_in(Path(f"/proc/{pid}/{kind}").read_bytes())
    for path in alone.home.rglob("*"):
        if path.is_file():
            assert not forms_in(path.read_bytes()), path
