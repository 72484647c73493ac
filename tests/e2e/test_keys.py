"""An app's keys are rotated, destroyed, frozen and wrapped on a real platform with live runs."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from fluvial_invoker.key_files import KeyFile
from tests.e2e.histories import start_run, wait_for_events, wait_for_result
from tests.e2e.installation import Platform, platform, wait_until
from tests.e2e.processes import descendants
from tests.process_memory import holds

APPS = Path(__file__).parent / "apps"
CANARY = "Xq7ZcanaryPhrase0451vK"
OPEN = 8  # events of a run of `keep` until its hook is open
KMS = """
import sys
verb, app, key_id = sys.argv[1:]
name = f"{app}/{key_id}:".encode()
given = sys.stdin.buffer.read()
turned = bytes(255 - byte for byte in given[0 if verb == "wrap" else len(name):])
sys.stdout.buffer.write(name + turned if verb == "wrap" else turned)
"""


def waiting_run(running: Platform, token: str) -> str:
    """Start a run that waits for a hook; return its id."""
    run_id = start_run(running, "canary", "keep", CANARY, token)
    wait_for_events(running, run_id, OPEN)
    return run_id


def finished_run(running: Platform, token: str) -> str:
    """Start a run and let it end; return its id."""
    run_id = waiting_run(running, token)
    resume(running, token)
    assert wait_for_result(running, run_id)["result"] == CANARY * 2
    return run_id


def resume(running: Platform, token: str) -> None:
    with running.api() as api:
        api.post(f"/v1/hooks/canary/{token}", json=CANARY).raise_for_status()


def keys(running: Platform, *arguments: str) -> Any:
    """Run `fluvial keys … --json`; return what it prints."""
    done = running.command("keys", *arguments, "--json")
    assert done.returncode == 0, f"{done.stderr}\n{running.logs()}"
    return json.loads(done.stdout)


def root_of(running: Platform, key_id: str) -> bytes:
    content, _ = KeyFile(running.home / "keyring", "canary").read()
    key = content.find(key_id)
    assert key is not None
    return bytes(key.blob)


def forms_of(root: bytes) -> list[bytes]:
    return [root, root.hex().encode(), base64.b64encode(root)]


def holders(running: Platform, secrets: list[bytes]) -> list[int]:
    """Return the processes of the platform in whose memory one of the secrets stands."""
    pids = [running.process.pid, *descendants(running.process.pid)]
    return [pid for pid in pids if holds(pid, secrets)]


def test_keys_are_rotated_under_a_live_run_and_destroyed_for_ever(short_home: Path) -> None:
    with platform(short_home) as running:
        running.deploy(APPS / "canary")
        first = keys(running, "ls", "canary")["current"]
        before = finished_run(running, "before")
        across = waiting_run(running, "across")
        second = keys(running, "rotate", "canary")["current"]
        after = waiting_run(running, "after")

        refused = running.command("keys", "destroy", "canary", first, "--yes")
        assert refused.returncode == 1
        assert across in refused.stderr
        assert after not in refused.stderr
        for run_id, token in ((across, "across"), (after, "after")):
            resume(running, token)
            assert wait_for_result(running, run_id)["result"] == CANARY * 2

        root = root_of(running, first)
        planned = running.command("keys", "destroy", "canary", first)
        assert "at least in part: 2\n" in planned.stdout
        assert "nothing was done" in planned.stderr
        assert holders(running, forms_of(root))  # it is found while it is there
        keys(running, "destroy", "canary", first, "--yes")

        states = {key["key"]: key["state"] for key in keys(running, "ls", "canary")["keys"]}
        assert states == {first: "destroyed", second: "current"}
        check_unreadable(running, before, f"the key '{first}' of app canary was destroyed at 20")
        check_readable_since_the_rotation(running, across)
        assert json.loads(running.command("runs", "result", after).stdout) == CANARY * 2
        assert "unreadable" not in running.command("runs", "events", after, "--data").stdout

        assert holders(running, forms_of(root)) == []
        for path in short_home.rglob("*"):
            if path.is_file():
                assert not any(form in path.read_bytes() for form in forms_of(root)), path


def check_unreadable(running: Platform, run_id: str, why: str) -> None:
    """Nothing that the run stored can be had, and each command says why."""
    shown = running.command("runs", "show", run_id, "--data", "--json")
    events = running.command("runs", "events", run_id, "--data")
    result = running.command("runs", "result", run_id)

    assert CANARY not in shown.stdout + events.stdout + result.stdout
    unreadable = json.loads(shown.stdout)["unreadable"]
    assert {name: why["code"] for name, why in unreadable.items()} == {
        "input": "key_destroyed",
        "result": "key_destroyed",
    }
    assert why in events.stdout
    assert why in result.stderr
    assert (result.returncode, result.stdout) == (1, "")


def check_readable_since_the_rotation(running: Platform, run_id: str) -> None:
    """What the run sealed before the rotation is gone, what it sealed later is there."""
    shown = json.loads(running.command("runs", "show", run_id, "--data", "--json").stdout)

    assert list(shown["unreadable"]) == ["input"]
    assert shown["result"] == CANARY * 2


def test_a_key_that_a_live_run_needs_is_destroyed_by_force_alone(short_home: Path) -> None:
    with platform(short_home) as running:
        running.deploy(APPS / "canary")
        needed = keys(running, "ls", "canary")["current"]
        run_id = waiting_run(running, "needs-it")
        keys(running, "rotate", "canary")
        planned = running.command("keys", "destroy", "canary", needed)
        done = keys(running, "destroy", "canary", needed, "--force", "--yes")

        assert f"{run_id}  needs it" in planned.stdout
        assert done["terminated_runs"] == 1
        end = wait_for_result(running, run_id)
        assert (end["status"], end["error"]) == ("terminated", "key_destroyed")


def test_a_frozen_app_can_be_read_and_goes_on_after_the_thaw(short_home: Path) -> None:
    with platform(short_home) as running:
        running.deploy(APPS / "canary")
        over = finished_run(running, "over")
        live = waiting_run(running, "live")
        keys(running, "freeze", "canary")

        started = running.command("start", "canary", "keep", '"x"', '"y"')
        resumed = running.command("hooks", "resume", "live", '"x"')
        for refused in (started, resumed):
            assert refused.returncode == 1
            assert "the keys of app canary are frozen" in refused.stderr
        assert json.loads(running.command("runs", "result", over).stdout) == CANARY * 2

        with running.api() as api:  # a cancel wakes the run, which cannot clean up now
            api.post(f"/v1/runs/{live}/cancel").raise_for_status()
            wait_until(
                lambda: api.get(f"/v1/runs/{live}").json()["status"] == "paused", 20, "it is paused"
            )
        thawed = keys(running, "thaw", "canary")

        assert thawed["resumed_runs"] == 1
        assert wait_for_result(running, live)["status"] == "cancelled"


def test_with_a_kms_command_no_root_key_is_on_disk(short_home: Path) -> None:
    script = short_home / "kms.py"
    short_home.mkdir(exist_ok=True)
    script.write_text(KMS)
    command = shlex.join([sys.executable, str(script)])
    with platform(short_home) as running:
        running.deploy(APPS / "canary")
        plain = keys(running, "ls", "canary")["current"]
        run_id = waiting_run(running, "wrapped")
        root = root_of(running, plain)
    with platform(short_home, "--kms-command", command) as running:
        rotated = keys(running, "rotate", "canary")
        mixed = [key["is_wrapped"] for key in rotated["keys"]]
        keys(running, "rewrap", "canary")
        wrapped = [key["is_wrapped"] for key in keys(running, "ls", "canary")["keys"]]
        resume(running, "wrapped")
        result = wait_for_result(running, run_id)
    missing = running.command("keys", "ls", "canary")

    assert (mixed, wrapped) == ([False, True], [True, True])
    assert result["result"] == CANARY * 2
    for path in (short_home / "keyring").iterdir():
        assert not any(form in path.read_bytes() for form in forms_of(root))
    assert missing.returncode == 5  # the platform is down
