"""The command line against a real platform: data on stdout, talk on stderr, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"")
    status = 500 if scope["path"] == "/fail" else 200
    text = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} ".encode() + body
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", dict(scope["headers"]).get(b"content-type", b"-"))]})
    await send({"type": "http.response.body", "body": text + MARK})
"""


FLOWS = """
from fluvial import Hook, step, workflow

@step
async def add(a: int, b: int) -> int:
    return a + b

@workflow
async def total(a: int, *, b: int = 1) -> int:
    return await add(a, b)

@workflow
async def broken() -> None:
    raise ValueError("on purpose \\x1b[31m")

@step
async def slip(text: str) -> str:
    return text

@step(retries=0)
async def stumble(number: int) -> int:
    if number < 1:
        raise ValueError(number)
    return number

@workflow
async def journey(number: int) -> list[object]:
    return [await slip("went"), await stumble(number)]

@workflow
async def approval(name: str) -> object:
    async with Hook(token=f"approve:{name}") as hook:
        return await hook

@workflow
async def game() -> list[int]:
    taken = []
    async with Hook(int, name="move", metadata={"board": "7x6"}) as moves:
        async for request in moves.requests():
            if request.value in taken:
                request.refuse(f"{request.value} is taken")
                continue
            taken.append(request.value)
            request.answer(taken)
            if len(taken) == 2:
                break
    return taken
"""


def folder(tmp_path: Path, **files: str) -> str:
    directory = tmp_path / "echo"
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return str(directory)


@pytest.fixture(scope="module")
def echo(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = folder(tmp_path_factory.mktemp("source"), main__py=f"MARK = b''\n{ECHO}")
    done = platform.run("deploy", source)
    assert done.returncode == 0, done.stderr
    return platform


@pytest.fixture(scope="module")
def flows(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = folder(tmp_path_factory.mktemp("flows"), main__py=FLOWS)
    done = platform.run("deploy", source, "--name", "flows")
    assert done.returncode == 0, done.stderr
    return platform


def test_a_run_is_started_followed_and_read(flows: Any) -> None:
    run_id = flows.run("start", "flows", "total", "2", "--kwargs", '{"b": 3}').stdout.strip()
    followed = flows.run("runs", "events", run_id, "--follow", "--data", "--json").stdout
    events = [json.loads(line) for line in followed.splitlines()]

    assert [event["position"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("run_started", "run_completed")
    assert events[-1]["data"] == 5
    assert flows.run("runs", "result", run_id).stdout == "5\n"
    assert "status       completed" in flows.run("runs", "show", run_id).stdout
    assert f"{run_id}\tflows\ttotal\tcompleted" in flows.run("runs", "ls", "--app", "flows").stdout


def test_a_failed_run_fails_the_command_without_speaking_to_the_terminal(flows: Any) -> None:
    run_id = flows.run("start", "flows", "broken").stdout.strip()
    done = flows.run("runs", "result", run_id)

    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: on purpose" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_waiting_run_times_out_is_resumed_and_started_once(flows: Any) -> None:
    start = ("start", "flows", "approval", '"x"', "--key", "k")
    run_id = flows.run(*start).stdout.strip()

    assert flows.run(*start).stdout.strip() == run_id
    assert flows.run("runs", "result", run_id, "--wait", "1").returncode == 6
    resumed = flows.run("hooks", "resume", "approve:x", '{"ok": true}', "--app", "flows")
    assert resumed.stdout.strip() == run_id
    assert json.loads(flows.run("runs", "result", run_id).stdout) == {"ok": True}


def test_a_run_is_asked_and_told(flows: Any) -> None:
    run_id = flows.run("start", "flows", "game").stdout.strip()
    assert flows.run("runs", "ask", run_id, "move", "3").stdout == "[3]\n"
    refused = flows.run("runs", "ask", run_id, "move", "3")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "3 is taken" in refused.stderr
    misfit = flows.run("runs", "send", run_id, "move", '"three"')
    assert (misfit.returncode, misfit.stdout) == (1, "")
    assert "payload: must be integer, got string" in misfit.stderr

    listed = flows.run("hooks", "ls", "--run", run_id, "--data").stdout.split("\t")
    assert (listed[0], listed[2], listed[-1]) == (run_id, "move", '{"board": "7x6"}\n')
    assert f"{run_id}\t1\tmove" in flows.run("hooks", "ls", "--app", "flows").stdout
    assert '1  move  {"board": "7x6"}' in flows.run("runs", "show", run_id, "--data").stdout
    resumed = flows.run("hooks", "resume", "--run", run_id, "--hook", "1", "5")
    assert resumed.stdout.strip() == run_id
    assert flows.run("runs", "result", run_id).stdout == "[3, 5]\n"
    assert flows.run("hooks", "ls", "--run", run_id).stdout == ""


@pytest.mark.parametrize(("how", "status"), [("cancel", "cancelled"), ("terminate", "terminated")])
def test_a_run_is_ended(flows: Any, how: str, status: str) -> None:
    run_id = flows.run("start", "flows", "approval", f'"{how}"').stdout.strip()
    assert flows.run("runs", how, run_id, "--reason", "enough").returncode == 0
    done = flows.run("runs", "result", run_id, "--json")

    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, status)


def test_a_run_is_paused_tagged_resumed_and_deleted(flows: Any) -> None:
    run = ("start", "flows", "approval", '"steered"', "--tag", "a=1", "--tag", "b=2")
    run_id = flows.run(*run).stdout.strip()
    asked = [
        flows.run("runs", "pause", run_id, "--reason", "a look at it"),
        flows.run("runs", "tag", run_id, "c=3", "a=", "--remove", "b"),
        flows.run("runs", "wake", run_id),
        flows.run("runs", "retry", run_id, "--json"),
    ]
    events = [json.loads(line) for line in _events(flows, run_id)]
    shown = json.loads(flows.run("runs", "show", run_id, "--json").stdout)

    assert [done.returncode for done in asked] == [0, 0, 0, 0]
    assert json.loads(asked[3].stdout) == {"run_id": run_id, "asked": "retrying"}
    paused = next(event for event in events if event["type"] == "run_paused")
    assert paused["meta"] == {"reason": "a look at it", "by": "first admin"}
    assert (shown["status"], shown["tags"]) == ("paused", {"a": "", "c": "3"})
    assert flows.run("runs", "delete", run_id).returncode == 1
    flows.run("runs", "terminate", run_id)
    assert flows.run("runs", "result", run_id).returncode == 1
    assert flows.run("runs", "delete", run_id).stderr == f"deleted {run_id}\n"
    assert flows.run("runs", "show", run_id).returncode == 3


def test_runs_are_found_by_status_time_and_tags(flows: Any) -> None:
    tags = ("--tag", "colour=red", "--tag", "found=yes")
    red = flows.run("start", "flows", "total", "2", *tags).stdout.strip()
    blue = flows.run("start", "flows", "approval", '"found"', "--tag", "found=yes").stdout.strip()
    assert flows.run("runs", "result", red).returncode == 0

    def found(*filters: str) -> set[str]:
        listed = flows.run("runs", "ls", "--tag", "found=yes", "--json", *filters)
        return {run["run_id"] for run in json.loads(listed.stdout)["runs"]}

    assert found() == {red, blue}
    assert found("--tag", "colour=red") == {red}
    assert found("--status", "pending,running", "--status", "paused") == {blue}
    assert found("--since", "1h") == {red, blue}
    assert found("--until", "1h") == found("--older-than", "1h") == set()
    assert found("--root", red) == {red}
    assert found("--parent", red) == set()
    listed = flows.run("runs", "ls", "--tag", "found=yes", "--limit", "1")
    assert listed.stdout.rstrip("\n").endswith("\tfound=yes")
    (more,) = [line for line in listed.stderr.splitlines() if line.startswith("more: ")]
    assert found("--cursor", more.split()[-1]) == {red}
    assert flows.run("runs", "ls", "--since", "yesterday").returncode == 1


def test_a_run_whose_start_is_delayed_is_woken(flows: Any) -> None:
    run_id = flows.run("start", "flows", "total", "2", "--delay", "1d").stdout.strip()
    flows.run("runs", "wake", run_id)

    assert flows.run("runs", "result", run_id).stdout == "3\n"


def test_a_run_is_repeated_as_a_whole_and_in_part(flows: Any) -> None:
    run_id = flows.run("start", "flows", "journey", "0", "--tag", "a=1").stdout.strip()
    assert flows.run("runs", "result", run_id).returncode == 1
    retried = flows.run("runs", "retry-failed", run_id, "--key", "k")
    again = flows.run("runs", "retry-failed", run_id, "--key", "k")
    rerun = flows.run("runs", "rerun", run_id, "--input", "[7]")
    fork = flows.run("runs", "fork", rerun.stdout.strip(), "--from", "stumble", "--json")
    results = [
        flows.run("runs", "result", done)
        for done in (rerun.stdout.strip(), json.loads(fork.stdout)["run_id"])
    ]

    assert retried.stdout == again.stdout != f"{run_id}\n"
    assert "key 'k' was used before: this is that run" in again.stderr
    assert flows.run("runs", "result", retried.stdout.strip()).returncode == 1
    shown = json.loads(flows.run("runs", "show", retried.stdout.strip(), "--json").stdout)
    assert (shown["origin"], shown["tags"]) == (run_id, {"a": "1"})
    assert [done.stdout for done in results] == ['["went", 7]\n'] * 2
    nonesuch = flows.run("runs", "fork", run_id, "--from", "nonesuch")
    assert (nonesuch.returncode, "its steps: 1 " in nonesuch.stderr) == (3, True)
    assert flows.run("runs", "rerun", run_id, "--input", "7").returncode == 2


def test_many_runs_are_steered_at_once(flows: Any) -> None:
    start = ("start", "flows", "total", "2", "--delay", "1d", "--tag", "group=many")
    runs = {flows.run(*start).stdout.strip() for _ in range(3)}
    chosen = ("--app", "flows", "--tag", "group=many", "--status", "pending,running")
    looked = flows.run("runs", "cancel", *chosen, "--dry-run")
    refused = flows.run("runs", "cancel", *chosen)
    statuses = [json.loads(flows.run("runs", "show", run, "--json").stdout) for run in runs]
    assert looked.returncode == 0, looked.stderr

    assert {line.split("\t")[0] for line in looked.stdout.splitlines()} == runs
    assert "\tflows\ttotal\tpending\twould\t-\n" in looked.stdout
    assert looked.stderr == "cancel: 3 of 3 runs\n"
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert {shown["status"] for shown in statuses} == {"pending"}

    no = flows.run_at_terminal("n\n", "runs", "cancel", *chosen)
    yes = flows.run_at_terminal("y\n", "runs", "wake", *chosen, "--limit", "1", "--dry-run")
    assert (no.returncode, no.stdout) == (1, "")
    assert "cancel 3 runs? [y/N] " in no.stderr
    assert "nothing was done" in no.stderr
    assert (yes.returncode, "would" in yes.stdout, "?" in yes.stderr) == (0, True, False)

    tagged = flows.run("runs", "tag", "moved=1", *chosen, "--yes", "--limit", "2")
    asked = flows.run_at_terminal("y\n", "runs", "cancel", *chosen, "--since", "1h", "--json")
    lines = [json.loads(line) for line in asked.stdout.splitlines()]
    assert "tag: 2 of 2 runs; more: --cursor " in tagged.stderr
    assert {line["run"]["run_id"] for line in lines[:-1]} == runs
    assert lines[-1]["summary"]["done"] == 3
    assert [flows.run("runs", "result", run).returncode for run in runs] == [1, 1, 1]
    deleted = flows.run("runs", "delete", "--tag", "group=many", "--app", "flows", "-y")
    assert deleted.stderr == "delete: 3 of 3 runs\n"
    assert flows.run("runs", "cancel", *chosen, "-y").stderr == "cancel: 0 of 0 runs\n"


@pytest.mark.parametrize(
    "options",
    [(), ("run_1", "--app", "flows"), ("run_1", "--dry-run"), ("--tag", "x", "--dry-run")],
)
def test_nobody_knows_which_runs_are_meant(flows: Any, options: tuple[str, ...]) -> None:
    assert flows.run("runs", "terminate", *options).returncode == 2


def _events(flows: Any, run_id: str) -> list[str]:
    """Return the run's events once its tags were changed."""
    found = ""
    for _ in range(100):
        found = flows.run("runs", "events", run_id, "--json").stdout
        if '"tags_changed"' in found:
            return list(found.splitlines())
    raise AssertionError(found)


def test_a_run_is_started_as_its_options_say(flows: Any) -> None:
    options = ("--delay", "1h", "--tag", "customer=acme", "--tag", "n=1", "--priority", "-5")
    run_id = flows.run("start", "flows", "total", "2", *options, "--singleton", "s").stdout.strip()
    shown = json.loads(flows.run("runs", "show", run_id, "--json").stdout)
    again = flows.run("start", "flows", "total", "2", "--singleton", "s")
    joined = flows.run(
        "start", "flows", "total", "2", "--singleton", "s", "--on-conflict", "existing"
    )

    assert (shown["status"], shown["priority"]) == ("pending", -5)
    assert shown["tags"] == {"customer": "acme", "n": "1"}
    assert shown["starts_at"] > shown["created_at"]
    assert (again.returncode, run_id in again.stderr) == (1, True)
    assert joined.stdout.strip() == run_id
    assert "priority    -5\n" in flows.run("runs", "show", run_id).stdout


def test_an_unknown_workflow_is_told_with_the_known_ones(flows: Any) -> None:
    done = flows.run("start", "flows", "nonesuch")

    assert done.returncode == 3
    assert "approval, broken, game, journey, total" in done.stderr


def test_deploy_prints_the_url_alone(platform: Any, tmp_path: Path) -> None:
    source = folder(tmp_path, main__py=f"MARK = b'1'\n{ECHO}")
    first = platform.run("deploy", source, "--name", "one")
    second = platform.run("deploy", source, "--name", "one")
    port = platform.ready["http"].rpartition(":")[2]

    assert first.stdout == second.stdout == f"http://one.localhost:{port}\n"
    assert "found main:app (asgi)" in first.stderr
    assert "nothing has changed" not in first.stderr
    assert "nothing has changed" in second.stderr


def test_deploy_as_json(platform: Any, tmp_path: Path) -> None:
    source = folder(tmp_path, main__py=f"MARK = b'2'\n{ECHO}")
    done = platform.run("deploy", source, "--name", "two", "--json")
    answer = json.loads(done.stdout)

    assert (answer["created"], answer["deployment"]["interface"]) == (True, "asgi")
    shown = platform.run("deployments", "show", answer["deployment"]["deployment"], "--json")
    assert json.loads(shown.stdout)["app"] == "two"


def test_promote_and_rollback_move_production(platform: Any, tmp_path: Path) -> None:
    ids: list[str] = []
    for mark in ("a", "b"):
        source = folder(tmp_path, main__py=f"MARK = b' {mark}'\n{ECHO}")
        option = ["--no-promote"] if mark == "b" else []
        done = platform.run("deploy", source, "--name", "three", "--json", *option)
        ids.append(json.loads(done.stdout)["deployment"]["deployment"])

    assert platform.run("invoke", "three", "/").stdout == "GET /?  a"
    assert platform.run("invoke", ids[1], "/").stdout == "GET /?  b"
    assert platform.run("promote", "three", ids[1]).stdout.strip() == ids[1]
    assert platform.run("invoke", "three", "/").stdout == "GET /?  b"
    assert platform.run("rollback", "three").stdout.strip() == ids[0]
    assert platform.run("invoke", "three", "/").stdout == "GET /?  a"


def test_invoke_sends_what_it_is_told(echo: Any, tmp_path: Path) -> None:
    (tmp_path / "body").write_text('{"from": "file"}')
    run = echo.run

    assert run("invoke", "echo", "/a?b=c").stdout == "GET /a?b=c "
    assert run("invoke", "echo", "/", "-d", '{"x": 1}').stdout == 'POST /? {"x": 1}'
    assert run("invoke", "echo", "/", "-X", "PUT", "-d", "text").stdout == "PUT /? text"
    assert run("invoke", "echo", "/", "-d", f"@{tmp_path / 'body'}").stdout.endswith('"file"}')


def test_invoke_includes_the_head_when_asked(echo: Any) -> None:
    head, _, body = echo.run("invoke", "echo", "/", "-i", "-d", "1").stdout.partition("\n\n")

    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "content-type: application/json" in head
    assert body == "POST /? 1"


def test_invoke_fails_when_the_app_does(echo: Any) -> None:
    done = echo.run("invoke", "echo", "/fail")

    assert (done.returncode, done.stdout) == (1, "GET /fail? ")
    assert "500 Internal Server Error" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["deployments", "show", "dpl_" + "0" * 24], 3, "fluvial deployments ls"),
        (["apps", "show", "nonesuch"], 3, "fluvial apps ls"),
        (["runs", "show", "run_" + "0" * 26], 3, "fluvial runs ls"),
        (["runs", "result", "run_" + "0" * 26, "--wait", "1"], 3, "no run"),
        (["runs", "events", "run_" + "0" * 26, "--follow"], 3, "no run"),
        (["start", "nonesuch", "flow"], 3, "fluvial apps ls"),
        (["promote", "nonesuch", "dpl_" + "0" * 24], 3, ""),
        (["hooks", "resume", "token", "1", "--app", "nonesuch"], 3, ""),
        (["hooks", "resume"], 2, "say which hook"),
        (["hooks", "resume", "1", "--run", "run_" + "0" * 26], 2, "go together"),
        (["hooks", "resume", "t", "1", "--run", "r", "--hook", "1"], 2, "no token is given"),
        (["hooks", "ls", "--data"], 2, "--run RUN"),
        (["runs", "ask", "run_" + "0" * 26, "move", "nope"], 2, "must be JSON"),
        (["runs", "send", "run_" + "0" * 26, "move", "--wait", "0"], 3, "no run"),
        (["start", "echo", "flow", "nope"], 2, "must be JSON"),
        (["start", "echo", "flow", "--kwargs", "[1]"], 2, "must be a JSON object"),
        (["start", "echo", "flow", "--at", "2030-01-01"], 2, "--at: '2030-01-01' has no offset"),
        (["start", "echo", "flow", "--delay", "soon"], 2, "delay: 'soon' is not a duration"),
        (["start", "echo", "flow", "--tag", "x"], 2, "NAME=VALUE"),
        (["start", "echo", "flow", "--priority", "101"], 2, "priority must be -100 to 100"),
        (["start", "echo", "flow", "--on-conflict", "wait"], 2, "on-conflict"),
        (["runs", "tag", "run_" + "0" * 26], 2, "say which tags"),
        (["runs", "tag", "run_" + "0" * 26, "x"], 2, "a tag 'x': write it as NAME=VALUE"),
        (["runs", "delete", "run_" + "0" * 26], 3, "no run"),
        (["runs", "wake", "run_" + "0" * 26, "--timer", "0"], 2, "--timer"),
        (["runs", "result", "run_x", "--wait", "soon"], 2, "--wait"),
        (["runs", "ls", "--limit", "0"], 2, ""),
        (["nonesuch"], 2, ""),
        (["invoke", "echo", "/", "-H", "nocolon"], 2, "Name: value"),
        (["invoke", "echo", "/", "-d", "@/nonexistent"], 1, "/nonexistent"),
        (["deploy", "/nonexistent"], 1, "is not a directory"),
        (["replay", "/nonexistent"], 2, "--check"),
        (["replay", "--check"], 2, "either a folder or --deployment"),
        (["replay", "--check", "/x", "--deployment", "dpl_x"], 2, "either a folder or"),
        (["replay", "--check", "--deployment", "dpl_" + "0" * 24], 3, "fluvial deployments ls"),
        (["runs", "resume", "run_" + "0" * 26, "--deployment", "latest"], 3, "no run"),
        (["usage", "--by", "week"], 1, "by"),
        (["usage", "--since", "soon"], 1, "since"),
        (["usage", "../x"], 1, "app"),
        (["up", "--price-cpu-hour", "-1"], 2, "--price-cpu-hour"),
        (["up", "--log-retention", "0"], 2, "--log-retention"),
        (["up", "--log-size", "much"], 2, "--log-size"),
        (["logs", "../../token"], 1, "app"),
        (["logs", "nonesuch"], 3, "no app 'nonesuch'"),
        (["logs", "echo", "--level", "loud"], 1, "level"),
        (["logs", "echo", "--since", "yesterday"], 1, "since"),
        (["logs", "echo", "-f", "--until", "1h"], 1, "has no end"),
        (["token", "create", "--scope", "everything"], 1, ""),
    ],
)
def test_a_mistake_has_one_message_and_its_code(
    echo: Any, arguments: list[str], code: int, expected: str
) -> None:
    done = echo.run(*arguments)

    assert (done.returncode, expected in done.stderr) == (code, True), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_usage_has_a_total_beside_what_always_on_costs(echo: Any) -> None:
    assert echo.run("invoke", "echo", "/").returncode == 0
    found = json.loads(echo.run("usage", "echo", "--json").stdout)
    lines = echo.run("usage", "--by", "function").stdout.splitlines()
    total = echo.run("usage", "echo").stdout.splitlines()[-1].split("\t")

    (row,) = found["rows"]
    assert row["invocations"] >= 1
    assert 0 < row["active_cpu_seconds"] < 60
    assert row["memory_gb_seconds"] > 0
    assert row["always_on"]["total"] > 0
    assert any(line.startswith("echo\thttp\thttp\t") for line in lines)
    assert (total[0], len(total)) == ("total", 7)


def test_errors_are_json_for_programs(echo: Any) -> None:
    done = echo.run("apps", "show", "nonesuch", "--json")

    assert json.loads(done.stderr)["error"]["code"] == "app_not_found"
    assert done.stdout == ""


def test_a_debugger_gets_the_traceback(echo: Any) -> None:
    assert "Traceback" in echo.run("--debug", "apps", "show", "nonesuch").stderr


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"FLUVIAL_TOKEN": "wrong" * 10}, 4),
        ({"FLUVIAL_URL": "http://127.0.0.1:1"}, 5),
        ({"FLUVIAL_URL": "nonsense"}, 5),
    ],
)
def test_who_may_not_or_cannot_is_told(echo: Any, environment: dict[str, str], code: int) -> None:
    done = echo.run("apps", "ls", **environment)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_token_may_do_what_its_scopes_say(echo: Any) -> None:
    created = echo.run("token", "create", "--scope", "runs:read", "--name", "reader")
    token = created.stdout.strip()

    assert "keep it" in created.stderr
    assert echo.run("runs", "ls", FLUVIAL_TOKEN=token).returncode == 0
    assert echo.run("rollback", "echo", FLUVIAL_TOKEN=token).returncode == 4


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"main.py": "app = 3"}, "expected an ASGI application"),
        ({"main.py": "import nonesuch; app = 1"}, "No module named 'nonesuch'"),
        ({"main.py": "def ("}, "is not valid Python"),
        ({"readme.txt": ""}, "no HTTP app and no workflows"),
        ({"main.py": "app = 1", "fluvial.toml": "nmae = 1"}, "did you mean 'name'"),
    ],
)
def test_a_refused_deploy_leaves_nothing(
    platform: Any, tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = [sorted((platform.home / kind).iterdir()) for kind in ("blobs", "bundles")]
    done = platform.run("deploy", str(tmp_path), "--name", "refused")

    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert [sorted((platform.home / kind).iterdir()) for kind in ("blobs", "bundles")] == before
    assert platform.run("apps", "show", "refused").returncode == 3


def test_doctor_is_content(echo: Any) -> None:
    done = echo.run("doctor", "--json")

    assert done.returncode == 0, done.stdout
    assert all(finding["ok"] for finding in json.loads(done.stdout))


def test_version_and_help_need_no_platform(echo: Any) -> None:
    assert echo.run("version", FLUVIAL_URL="http://127.0.0.1:1").stdout.count(".") == 2
    assert "Usage" in echo.run("--help").stdout


def test_a_domain_leads_to_an_app_until_it_is_removed(echo: Any) -> None:
    host = {"host": "shop.example.com"}
    added = echo.run("domains", "add", "echo", "shop.example.com")

    assert added.stdout.startswith("http://shop.example.com")
    assert httpx.get(f"{echo.ready['http']}/a", headers=host).text == "GET /a? "
    assert json.loads(echo.run("domains", "ls", "echo", "--json").stdout)[0]["host"] == host["host"]
    assert "does not lead to echo" in echo.run("domains", "rm", "echo", "shop.example.com").stderr
    assert httpx.get(f"{echo.ready['http']}/a", headers=host).status_code == 404
    assert echo.run("domains", "rm", "echo", "shop.example.com").returncode == 3
