"""What the builder takes from its environment."""

from __future__ import annotations

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_deploy.builder.config import Config, install_environment


def test_settings_for_pip_reach_uv() -> None:
    given = {
        "PIP_INDEX_URL": "https://a",
        "PIP_EXTRA_INDEX_URL": "https://b https://c",
        "PIP_FIND_LINKS": "/one /two",
        "PIP_CERT": "/ca.pem",
    }

    assert install_environment(given) == {
        "UV_DEFAULT_INDEX": "https://a",
        "UV_INDEX": "https://b https://c",
        "UV_FIND_LINKS": "/one,/two",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_what_uv_was_told_itself_wins() -> None:
    given = {"PIP_INDEX_URL": "https://a", "UV_DEFAULT_INDEX": "https://u", "PIP_CERT": "/p"}
    given["SSL_CERT_FILE"] = "/s"

    assert install_environment(given) == {"UV_DEFAULT_INDEX": "https://u", "SSL_CERT_FILE": "/s"}


def test_secrets_stay_outside_and_proxies_come_in() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "x", "FLUVIAL_TOKEN": "x", "https_proxy": "p", "PATH": "/bin"}

    assert install_environment(given) == {"https_proxy": "p", "PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLUVIAL_HOME", "relative"),
        ("FLUVIAL_HOME", ""),
        ("FLUVIAL_BUILDER_FD", "x"),
        ("FLUVIAL_BUILDER_IDLE", "soon"),
        ("FLUVIAL_BUILDER_IDLE", "nan"),
        ("FLUVIAL_DEFAULT_IDLE", "-1"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    environment = {"FLUVIAL_HOME": "/h", "FLUVIAL_BUILDER_FD": "3", name: value}

    with pytest.raises(InvalidRequestError, match=name):
        Config.of(environment)
