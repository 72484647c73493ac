"""The record of an app's environment, and deployments from before there was one."""

from __future__ import annotations

from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial_queue.environment_records import EnvironmentRecord, Variable

TOKEN = Variable(sealed=b"\1", size_bytes=9, is_secret=True, set_ms=1, set_by="ci")
COLOUR = Variable(sealed=b"\2", size_bytes=5, is_secret=False, set_ms=2, set_by="ann")
RECORD = EnvironmentRecord(variables={"TOKEN": TOKEN, "COLOUR": COLOUR})


def test_a_record_is_read_back_and_what_is_newer_is_ignored() -> None:
    plain = RECORD.to_dict()
    newer = {"variables": {name: [*each, "new"] for name, each in plain["variables"].items()}}

    assert EnvironmentRecord.from_dict(plain) == RECORD
    assert EnvironmentRecord.from_dict({**newer, "new": 1}) == RECORD


def test_what_a_deployment_takes_along_has_one_order() -> None:
    turned = EnvironmentRecord(variables={"COLOUR": COLOUR, "TOKEN": TOKEN})

    assert list(RECORD.sealed.items()) == list(turned.sealed.items())
    assert RECORD.size_bytes == 14


def test_a_deployment_of_an_older_version_has_no_variables() -> None:
    spec = DeploymentSpec(
        deployment="dpl_1",
        app="shop",
        bundle="b",
        layer="",
        entrypoint=None,
        workflows=(),
        instance=InstanceSettings(),
        sealed_environment=RECORD.sealed,
    )
    plain = spec.to_dict()
    assert DeploymentSpec.from_dict(plain) == spec
    del plain["sealed_environment"]

    assert DeploymentSpec.from_dict(plain).sealed_environment == {}
