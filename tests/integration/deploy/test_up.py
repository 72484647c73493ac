"""`fluvial up`: one command starts everything, keeps it running, and stops it in order."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Up = Callable[..., Any]
PROGRAMS = {"fluvial_gateway", "valkey-server"}


def wait_for_end(pid: int, seconds: float = 30.0) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], seconds)[0], f"{pid} still runs"
    finally:
        os.close(pidfd)


def test_it_says_where_it_is_and_keeps_its_home_private(up: Up) -> None:
    platform = up()

    assert platform.ready["pid"] == platform.process.pid
    assert platform.ready["durability"] == "disk"
    # Root's may be passed by the users that apps run as, on the way to their bundles.
    passed = 0o711 if os.geteuid() == 0 else 0o700
    assert platform.home.stat().st_mode & 0o777 == passed
    assert (platform.home / "run").stat().st_mode & 0o777 == 0o700
    assert (platform.home / "token").stat().st_mode & 0o777 == 0o600
    assert platform.run("apps", "ls", "--json").stdout == "[]\n"


def test_stopping_leaves_no_process_and_nothing_to_stumble_over(up: Up) -> None:
    platform = up()
    children = platform.children()
    token = (platform.home / "token").read_text()

    assert set(children) == PROGRAMS  # nobody has asked for the invoker or the builder
    assert platform.stop() == 0
    for pid in children.values():
        wait_for_end(pid)
    assert not (platform.home / "run" / "up.json").exists()
    assert up().run("apps", "ls").returncode == 0
    assert (platform.home / "token").read_text() == token


def test_a_second_one_on_the_same_home_is_refused(up: Up) -> None:
    platform = up()
    second = platform.run("up", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0")

    assert second.returncode == 1
    assert f"pid {platform.process.pid}" in second.stderr
    assert platform.ready["http"] in second.stderr
    assert platform.run("apps", "ls").returncode == 0


@pytest.mark.parametrize("option", ["--http", "--control"])
def test_a_port_in_use_is_named_with_its_option(up: Up, option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError, match=rf"up ended with 1.*{option} {address}.*in use"):
            up(**{option.removeprefix("--"): address})


@pytest.mark.parametrize("name", ["fluvial_gateway", "valkey-server"])
def test_a_program_that_dies_is_started_again(up: Up, name: str) -> None:
    platform = up()
    pid = platform.children()[name]
    created = platform.run("token", "create", "--scope", "deploy")
    assert created.returncode == 0, created.stderr
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)

    # The supervisor holds the socket, so nobody is refused while there is no gateway; while there
    # is no store, the gateway says so (5) and the caller tries again.
    codes: list[int] = []
    while not codes or (codes[-1] == 5 and len(codes) < 50):
        codes.append(platform.run("apps", "ls", FLUVIAL_TOKEN=created.stdout.strip()).returncode)
    assert codes[-1] == 0
    assert codes == [0] or name == "valkey-server"
    assert platform.children()[name] != pid


def test_programs_die_with_a_killed_supervisor_and_the_next_one_takes_over(up: Up) -> None:
    platform = up()
    children = platform.children()
    addresses = {key: platform.ready[key].removeprefix("http://") for key in ("http", "control")}
    platform.process.kill()
    platform.process.wait(10)
    successor = up(**addresses)

    assert successor.ready["http"] == platform.ready["http"]
    for pid in children.values():
        wait_for_end(pid)


def test_an_interrupt_stops_it_and_children_do_not_see_the_terminals(up: Up) -> None:
    platform = up()
    groups = {os.getpgid(pid) for pid in platform.children().values()}

    assert os.getpgid(platform.process.pid) not in groups
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(40) == 0


def test_a_second_interrupt_does_not_wait(up: Up, short_path: Path) -> None:
    platform = up()
    gateway = platform.children()["fluvial_gateway"]
    os.kill(gateway, signal.SIGSTOP)  # it will not hear SIGTERM
    platform.process.send_signal(signal.SIGINT)
    errors = short_path / "home.err"
    while "interrupt again" not in errors.read_text():
        assert platform.process.poll() is None
        select.select([], [], [], 0.02)
    platform.process.send_signal(signal.SIGINT)

    assert platform.process.wait(15) == 0
    wait_for_end(gateway)


def test_a_long_home_gets_its_sockets_elsewhere(up: Up, tmp_path: Path) -> None:
    (tmp_path / ("long" * 20)).mkdir()
    platform = up(tmp_path / ("long" * 20) / "home")

    assert not (platform.home / "run").exists()
    assert platform.run("apps", "ls").returncode == 0


def test_a_home_of_somebody_else_or_no_folder_is_refused(tmp_path: Path, up: Up) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(AssertionError, match=r"up ended with 1.*choose a home with --data"):
        up(tmp_path / "file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--http", "8080"], "--http must be HOST:PORT"),
        (["--control", "127.0.0.1:99999"], "--control must be HOST:PORT"),
        (["--durability", "maybe"], "--durability must be one of disk, process, memory"),
        (["--store", "mysql://secret@host"], "--store must begin with one of redis://"),
        (["--store", "postgresql://x"], "not supported yet"),
        (["--idle", "soon"], "--idle"),
        (["--invoker-idle", "-1"], "--invoker-idle"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    tmp_path: Path, options: list[str], expected: str, platform: Any
) -> None:
    done = platform.run("up", "--data", str(tmp_path / "other"), *options)

    assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "other").exists()


def test_an_unreachable_store_is_told_with_the_gateways_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fluvial_deploy", "up", "--data", str(tmp_path / "home")),
            *("--http", "127.0.0.1:0", "--control", "127.0.0.1:0"),
            *("--store", "redis://127.0.0.1:1"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 1
    assert "gateway ended" in done.stderr
    assert "gateway.log" in done.stderr
