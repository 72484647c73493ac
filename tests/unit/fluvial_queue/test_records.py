"""Typed records survive the store's encoding."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import pytest

from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial_queue import (
    AppRecord,
    DeploymentFunctions,
    DeploymentRecord,
    HostRecord,
    TokenRecord,
)

SPEC = DeploymentSpec(
    deployment="dpl_1",
    app="shop",
    bundle="b" * 64,
    layer="",
    entrypoint="main:app",
    workflows=("main",),
    instance=InstanceSettings(max_concurrency=3),
    environment={"A": "1"},
)
RECORDS: list[Any] = [
    AppRecord(
        app="shop",
        production="dpl_2",
        previous="dpl_1",
        key_id="k",
        public_key=b"\x00\xff",
        created_ms=5,
    ),
    AppRecord(app="new"),
    DeploymentRecord(
        spec=SPEC,
        created_ms=5,
        functions=DeploymentFunctions(
            entrypoint="main:app", interface="asgi", workflows=("fulfil",), steps=("a", "b")
        ),
        source_digest="d",
    ),
    DeploymentRecord(spec=SPEC, created_ms=5),
    TokenRecord(name="ci", scopes=("deploy", "runs:read"), created_ms=5),
    HostRecord(app="shop"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_survives_the_store(record: Any) -> None:
    kind = cast(Any, type(record))
    stored = msgpack.unpackb(msgpack.packb(record.to_dict()))

    assert kind.from_dict(stored) == record
    assert kind.from_dict({**stored, "from_the_future": 1}) == record
