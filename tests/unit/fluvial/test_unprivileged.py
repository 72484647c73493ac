"""Which user ids strangers' code gets, and when it gets none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.unprivileged import (
    VARIABLE,
    AppIdentities,
    Identities,
    choose_identities,
    closed_at,
)


def test_apps_have_different_ids_that_a_restart_keeps() -> None:
    identities = Identities(first=100, last=199)
    apps = [f"app-{number}" for number in range(99)]
    ids = AppIdentities(identities)
    given = [ids.of(app) for app in apps]

    assert len(set(given)) == 99
    assert min(filter(None, given)) > 100  # the inspection's own
    assert max(filter(None, given)) == 199
    assert [ids.of(app) for app in apps] == given
    assert AppIdentities(identities).of(apps[0]) == given[0]
    with pytest.raises(InvalidRequestError, match="no user id left for app-99"):
        ids.of("app-99")


def test_without_ids_everything_stays_the_platform_s() -> None:
    identities = Identities(reason="not root")

    assert AppIdentities(identities).of("app") is None
    assert identities.for_inspection is None


@pytest.mark.parametrize("setting", ["0-100", "5", "100-90", "100-101", "a-b", "1-9999999999"])
def test_a_malformed_range_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(InvalidRequestError, match=VARIABLE):
        choose_identities({VARIABLE: setting}, tmp_path)


def test_what_is_closed_to_others_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "file").touch(mode=0o644)

    assert closed_at(Path("/")) is None
    assert closed_at(tmp_path / "file") is not None
    assert closed_at(Path("/nowhere/at/all")) == Path("/nowhere")


def test_a_closed_home_is_a_reason_and_never_a_half_measure(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for name in ("bundles", "layers", "runtime"):
        (tmp_path / name).mkdir()
    identities = choose_identities({}, tmp_path)

    assert not identities.are_used
    if os.geteuid() == 0:
        assert "is closed to other users" in identities.reason
        assert choose_identities({VARIABLE: "off"}, tmp_path).reason == f"{VARIABLE} is off"
    else:
        assert "not run as root" in identities.reason
