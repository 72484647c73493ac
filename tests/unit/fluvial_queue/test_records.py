"""Typed records survive the store's encoding."""

from __future__ import annotations

from typing import Any, cast

import msgpack
import pytest

from fluvial.crons import Cron, specified
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial_queue import (
    AppRecord,
    DeploymentFunctions,
    DeploymentRecord,
    HostRecord,
    TokenRecord,
)
from fluvial_queue.alias_records import AliasHistory, AliasMove, LeftDeployment
from fluvial_queue.cron_records import (
    MAX_REASON_CHARACTERS,
    RECENT,
    CronEvent,
    CronRecord,
    StartingTick,
)
from fluvial_queue.records import ActiveCron
from fluvial_queue.removal_records import RemovedDeployment, RetiringDeployment
from fluvial_queue.rollout_records import RolloutRecord

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
MOVE = AliasMove(alias="staging", before=None, after="dpl_1", at_ms=6, by="ci", reason="set")
ADDED = (
    *("aliases", "last_move", "retiring", "keep_count", "keep_ms"),
    *("left", "pin_ms", "sets_pin_cookie", "rollout"),
)
RECORDS: list[Any] = [
    AppRecord(
        app="shop",
        production="dpl_2",
        previous="dpl_1",
        key_id="k",
        public_key=b"\x00\xff",
        created_ms=5,
        crons=(ActiveCron("nightly", "0123456789abcdef", 7),),
        aliases={"staging": "dpl_1"},
        last_move=MOVE,
        retiring=(RetiringDeployment("dpl_0", 3, spares_ended=True),),
        keep_count=5,
        keep_ms=1000,
        left=(LeftDeployment("dpl_1", 4),),
        pin_ms=0,
        sets_pin_cookie=True,
        rollout=RolloutRecord(
            deployment="dpl_3",
            stages=(5, 50),
            every_ms=None,
            started_ms=8,
            since_ms=9,
            by="ci",
            stage=1,
        ),
    ),
    RemovedDeployment(app="shop", bundle="b", layer="", source_digest="d"),
    AppRecord(app="new"),
    AliasHistory((MOVE,)),
    DeploymentRecord(
        spec=SPEC,
        created_ms=5,
        functions=DeploymentFunctions(
            entrypoint="main:app",
            interface="asgi",
            workflows=("fulfil",),
            steps=("a", "b"),
            crons=(specified(Cron("0 3 * * *", args=["eu"]), "fulfil", "tick"),),
        ),
        source_digest="d",
        retention_ms=86_400_000,
    ),
    DeploymentRecord(spec=SPEC, created_ms=5),
    TokenRecord(name="ci", scopes=("deploy", "runs:read"), created_ms=5),
    HostRecord(app="shop"),
    CronRecord(),
    CronRecord(considered_ms=5, is_paused=True, starting=StartingTick(7, "run_1", 8)).after(
        CronEvent(tick_ms=6, outcome="started", at_ms=7, run_id="run_0", reason="why")
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_survives_the_store(record: Any) -> None:
    kind = cast(Any, type(record))
    stored = msgpack.unpackb(msgpack.packb(record.to_dict()))

    assert kind.from_dict(stored) == record
    assert kind.from_dict({**stored, "from_the_future": 1}) == record


def test_a_record_from_before_aliases_is_read() -> None:
    app = AppRecord(app="shop", production="dpl_1").to_dict()
    for added in ADDED:
        del app[added]

    assert AppRecord.from_dict(app) == AppRecord(app="shop", production="dpl_1")


def test_a_record_from_before_crons_is_read() -> None:
    app = AppRecord(app="shop", production="dpl_1").to_dict()
    functions = DeploymentFunctions(workflows=("fulfil",)).to_dict()
    del app["crons"], functions["crons"]

    assert AppRecord.from_dict(app).crons == ()
    assert DeploymentFunctions.from_dict(functions).crons == ()


def test_what_is_known_of_a_cron_stays_small() -> None:
    record = CronRecord()
    for tick in range(100):
        long = "x" * 10_000
        record = record.after(
            CronEvent(tick_ms=tick, outcome="missed", at_ms=tick, reason=long, count=2)
        )

    assert [event.tick_ms for event in record.recent] == list(range(99, 99 - RECENT, -1))
    assert record.counts == {"missed": 200}
    assert {len(event.reason) for event in record.recent} == {MAX_REASON_CHARACTERS}
