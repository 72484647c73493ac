from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_gateway.config import read_config


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as http, open(os.devnull) as ready:
        yield {
            "FLUVIAL_HOME": str(tmp_path),
            "FLUVIAL_RUN_DIR": str(tmp_path),
            "FLUVIAL_STORE": "unix:///run/valkey.sock?durability=disk",
            "FLUVIAL_HTTP_FD": str(http.fileno()),
            "FLUVIAL_CONTROL_FD": str(http.fileno()),
            "FLUVIAL_READY_FD": str(ready.fileno()),
            "FLUVIAL_HTTP_URL": "http://127.0.0.1:8080/",
            "FLUVIAL_CONTROL_URL": "http://127.0.0.1:8081",
        }


def test_config_is_read(environment: dict[str, str], tmp_path: Path) -> None:
    config = read_config(environment)

    assert config.domain == "localhost"
    assert config.http_url == config.public_url == "http://127.0.0.1:8080"
    assert config.invoker_socket == tmp_path / "invoker.sock"
    assert config.admin_token_file == tmp_path / "token"


def test_the_world_outside_may_come_another_way(environment: dict[str, str]) -> None:
    config = read_config({**environment, "FLUVIAL_PUBLIC_URL": "https://example.com/"})

    assert config.http_url == "http://127.0.0.1:8080"
    assert config.public_url == "https://example.com"


def test_trusted_proxies_are_networks(environment: dict[str, str]) -> None:
    said = {**environment, "FLUVIAL_TRUSTED_PROXIES": "10.0.0.0/8, ::1"}

    assert read_config(environment).trusted_proxies == ()
    assert read_config(said).trusted_proxies == ("10.0.0.0/8", "::1/128")


def test_domain_and_ready_descriptor_have_defaults(environment: dict[str, str]) -> None:
    del environment["FLUVIAL_READY_FD"]

    assert read_config(environment).ready_fd is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUVIAL_HOME", ""),
        ("FLUVIAL_HOME", "relative"),
        ("FLUVIAL_HOME", "/does/not/exist"),
        ("FLUVIAL_RUN_DIR", "/dev/null"),
        ("FLUVIAL_STORE", ""),
        ("FLUVIAL_STORE", "localhost:6379"),
        ("FLUVIAL_STORE", "mysql://db"),
        ("FLUVIAL_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("FLUVIAL_TRUSTED_PROXIES", "proxy.example.com"),
        ("FLUVIAL_DOMAIN", "-bad.example"),
        ("FLUVIAL_DOMAIN", "two..dots"),
        ("FLUVIAL_DOMAIN", "a b"),
        ("FLUVIAL_HTTP_FD", "x"),
        ("FLUVIAL_HTTP_FD", "-1"),
        ("FLUVIAL_HTTP_FD", "999999"),
        ("FLUVIAL_CONTROL_FD", "9" * 30),
        ("FLUVIAL_HTTP_URL", "ftp://x"),
        ("FLUVIAL_PUBLIC_URL", "example.com"),
        ("FLUVIAL_CONTROL_URL", ""),
    ],
)
def test_wrong_value_names_its_variable(environment: dict[str, str], name: str, value: str) -> None:
    environment[name] = value

    with pytest.raises(InvalidRequestError, match=f"^{name} "):
        read_config(environment)


def test_descriptor_that_does_not_listen_is_refused(environment: dict[str, str]) -> None:
    with socket.socket() as idle:
        environment["FLUVIAL_HTTP_FD"] = str(idle.fileno())

        with pytest.raises(InvalidRequestError, match="a listening socket"):
            read_config(environment)


def test_store_password_is_not_repeated(environment: dict[str, str]) -> None:
    environment["FLUVIAL_STORE"] = "mysql://root:hunter2@db"

    with pytest.raises(InvalidRequestError) as refusal:
        read_config(environment)
    assert "hunter2" not in str(refusal.value)
