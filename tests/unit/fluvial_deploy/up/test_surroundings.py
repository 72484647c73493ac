"""What the supervisor prepares before it starts anything: home, addresses, environments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_deploy.up import programs
from fluvial_deploy.up.home import AlreadyRunningError, Home, HomeError
from fluvial_deploy.up.listeners import ListenError, listen_tcp, listen_unix, url_of
from fluvial_deploy.up.programs import Sockets
from fluvial_deploy.up.settings import (
    Address,
    UpSettings,
    check_kms_command,
    check_public_url,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    prepared = Home(tmp_path / "home")
    prepared.prepare()
    return prepared


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[Sockets]:
    made = Sockets(
        listen_tcp(Address("--http", "127.0.0.1", 0)),
        listen_tcp(Address("--control", "127.0.0.1", 0)),
        listen_unix(tmp_path / "i"),
        listen_unix(tmp_path / "b"),
    )
    yield made
    made.close()


def test_the_token_is_made_once_and_for_the_owner_alone(home: Home) -> None:
    token = home.token_file.read_text()
    home.prepare()

    assert home.token_file.read_text() == token
    assert home.token_file.stat().st_mode & 0o777 == 0o600
    assert len(token.strip()) >= 43  # 256 bits


def test_an_open_home_is_closed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o777)
    (tmp_path / "home").chmod(0o777)
    Home(tmp_path / "home").prepare()

    # Root's lets the users that apps run as pass to their bundles; nobody can list or write.
    passed = 0o711 if os.geteuid() == 0 else 0o700
    assert (tmp_path / "home").stat().st_mode & 0o777 == passed
    for name in ("bundles", "layers", "runtime"):
        assert (tmp_path / "home" / name).stat().st_mode & 0o777 == passed
    for name in ("keyring", "store", "blobs", "logs"):
        assert (tmp_path / "home" / name).stat().st_mode & 0o777 == 0o700


def test_a_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    home = Home(tmp_path / "home")
    home.run_dir.parent.mkdir(exist_ok=True)
    home.run_dir.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(HomeError, match="must be a directory that belongs to you"):
            home.prepare()
    finally:
        home.run_dir.unlink()


def test_the_lock_is_held_until_it_is_closed(home: Home) -> None:
    lock = home.lock()
    home.write_state({"pid": 7, "http": "http://h", "control": "http://c"})
    with pytest.raises(AlreadyRunningError, match=r"pid 7, apps at http://h.*--data"):
        home.lock()
    os.close(lock)

    os.close(home.lock())


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_broken_state_file_says_nothing(home: Home, text: str) -> None:
    home.state_file.write_text(text)

    assert home.state() == {}


def test_the_run_directory_leaves_room_for_sockets(tmp_path: Path) -> None:
    assert Home(Path("/srv/fluvial")).run_dir == Path("/srv/fluvial/run")
    long = Home(tmp_path / ("x" * 60)).run_dir

    assert long != Home(tmp_path / ("y" * 60)).run_dir
    assert len(str(long / "i" / ("ins_" + "0" * 24 + ".sock"))) <= 107


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:80", "[::1]:80"),
        ("host.name:0", "host.name:0"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(Address.parse("--http", text)) == shown


@pytest.mark.parametrize("text", ["", "8080", ":8080", "h:", "h:p", "h:65536", "::1:80", "a b:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="--http must be HOST:PORT"):
        Address.parse("--http", text)


def test_an_address_that_cannot_be_used_is_named(sockets: Sockets) -> None:
    port = sockets.http.getsockname()[1]
    with pytest.raises(ListenError, match=rf"--http 127\.0\.0\.1:{port}: port {port} is in use"):
        listen_tcp(Address("--http", "127.0.0.1", port))
    with pytest.raises(ListenError, match=r"--control 192\.0\.2\.1:1: .*--control HOST:PORT"):
        listen_tcp(Address("--control", "192.0.2.1", 1))


def test_an_address_for_everybody_is_shown_as_this_machine() -> None:
    with listen_tcp(Address("--http", "0.0.0.0", 0)) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_programs_get_what_they_need_and_no_secrets(
    home: Home, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLUVIAL_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("UV_INDEX", "https://index.example")
    settings = UpSettings(home=home.path, store=None, idle_seconds=3.0)
    store = "redis://:password@host"
    gateway = programs.gateway(settings, home, sockets, store)
    invoker = programs.invoker(settings, home, sockets)
    builder = programs.builder(settings, home, sockets)

    for program in (gateway, invoker, builder):
        assert "canary" not in json.dumps(dict(program.environment))
    assert gateway.environment["FLUVIAL_STORE"] == store
    assert "password" not in json.dumps([dict(invoker.environment), dict(builder.environment)])
    assert builder.environment["UV_INDEX"] == "https://index.example"
    assert builder.environment["FLUVIAL_DEFAULT_IDLE"] == "3"
    assert "UV_INDEX" not in invoker.environment


def test_the_kms_command_is_told_to_the_invoker_alone(home: Home, sockets: Sockets) -> None:
    settings = UpSettings(home=home.path, store=None, kms_command="/opt/kms --wrap")
    started = {
        "gateway": programs.gateway(settings, home, sockets, "redis://store"),
        "invoker": programs.invoker(settings, home, sockets),
        "builder": programs.builder(settings, home, sockets),
    }
    told = [name for name, program in started.items() if "/opt/kms" in str(program.environment)]

    assert told == ["invoker"]
    plain = programs.invoker(UpSettings(home=home.path, store=None), home, sockets)
    assert "FLUVIAL_KMS_COMMAND" not in plain.environment


@pytest.mark.parametrize(
    ("text", "reason"),
    [("kms 'x", "must be a program"), ("", "must be a program"), ("/no/kms x", "there is no")],
)
def test_a_kms_command_that_cannot_run_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"--kms-command.* {reason}"):
        check_kms_command(text)
    assert check_kms_command("sh -c 'exit 1'") == "sh -c 'exit 1'"


def test_the_gateway_is_told_how_the_world_reaches_it(home: Home, sockets: Sockets) -> None:
    url, domain = check_public_url("https://Example.com:8443/", None)
    settings = UpSettings(home=home.path, store=None, domain=domain, public_url=url)
    told = programs.gateway(settings, home, sockets, "redis://store").environment

    assert (told["FLUVIAL_PUBLIC_URL"], told["FLUVIAL_DOMAIN"]) == (url, "example.com")
    plain = programs.gateway(
        UpSettings(home=home.path, store=None), home, sockets, "redis://store"
    ).environment
    assert "FLUVIAL_PUBLIC_URL" not in plain


@pytest.mark.parametrize(
    ("text", "domain", "reason"),
    [
        ("example.com", None, "must be a scheme"),
        ("ftp://example.com", None, "must be a scheme"),
        ("https://example.com/path", None, "must be a scheme"),
        ("https://user@example.com", None, "must be a scheme"),
        ("https://example.com", "other.com", "name one"),
    ],
)
def test_a_public_url_that_is_none_is_refused(text: str, domain: str | None, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"--public-url.*{reason}"):
        check_public_url(text, domain)
    assert check_public_url("http://a.test", "A.test") == ("http://a.test", "a.test")
