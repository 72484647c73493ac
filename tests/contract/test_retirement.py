"""Deployments that are to be deleted: who may still start on them, and who needs them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.ids import new_run_id, partition_of
from fluvial_queue import Store
from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.contract import RunQuery, RunStatus, StartOutcome
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.records import AppRecord
from fluvial_queue.retirement_contract import DeploymentUse

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


def _run_id_in(partition: int, partitions: int) -> str:
    return next(
        run_id
        for run_id in iter(lambda: new_run_id(partitions), "")
        if partition_of(run_id) == partition
    )


def test_a_retired_deployment_takes_no_start_in_any_partition(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert await store.retire_deployment("dpl_1") == (0,) * store.partitions
        for partition in range(store.partitions):
            run_id = _run_id_in(partition, store.partitions)
            run = backend.start_run(run_id)
            assert await store.start(run) is StartOutcome.RETIRED
            assert await store.read_run(run_id) is None
            other = backend.start_run(run_id, deployment="dpl_2")
            assert await store.start(other) is StartOutcome.ACCEPTED

        await store.reinstate_deployment("dpl_1")
        assert await store.start(backend.start_run()) is StartOutcome.ACCEPTED

    backend.run(main)


def test_a_start_that_was_accepted_before_is_a_duplicate_still(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = backend.start_run()
        await store.start(run)
        await store.retire_deployment("dpl_1")

        assert await store.start(run) is StartOutcome.DUPLICATE

    backend.run(main)


def test_what_a_run_asks_for_is_let_in_and_keeps_the_deployment_open(backend: Backend) -> None:
    async def main(store: Store) -> None:
        counts = await store.retire_deployment("dpl_1")
        carried = backend.start_run(is_carried=True)
        assert await store.start(carried) is StartOutcome.ACCEPTED

        assert not await store.close_deployment("dpl_1", counts)
        assert 1 in await store.retire_deployment("dpl_1")

    backend.run(main)


def test_a_closed_deployment_takes_nothing_at_all(backend: Backend) -> None:
    async def main(store: Store) -> None:
        counts = await store.retire_deployment("dpl_1")
        assert await store.close_deployment("dpl_1", counts)

        assert await store.start(backend.start_run(is_carried=True)) is StartOutcome.RETIRED
        assert await store.close_deployment("dpl_1", counts)  # done twice is done once

    backend.run(main)


def test_live_runs_and_those_that_still_ask_something_need_their_deployment(
    backend: Backend,
) -> None:
    async def main(store: Store) -> None:
        live = await backend.owned_run(store)
        asking = await backend.owned_run(store)
        await asking.commit(events=(b"e",), effects=(b"x",), status=RunStatus.CONTINUED)
        for changes in ({}, {"deployment": "dpl_2"}):
            ended = await backend.owned_run(store, **changes)
            await ended.commit(events=(b"e",), status=RunStatus.COMPLETED)

        needed = tuple(sorted((live.run_id, asking.run_id)))
        assert await store.deployment_uses(["dpl_1", "dpl_2", "dpl_3"]) == {
            "dpl_1": DeploymentUse(needed, 2, 1),
            "dpl_2": DeploymentUse((), 0, 1),
            "dpl_3": DeploymentUse(),
        }

    backend.run(main)


def test_a_run_needs_the_deployment_that_it_was_moved_to(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(events=(b"e",), deployment="dpl_2")

        uses = await store.deployment_uses(["dpl_1", "dpl_2"])
        assert (uses["dpl_1"].live, uses["dpl_2"].live) == ((), (run.run_id,))

    backend.run(main)


def test_a_run_whose_retention_is_over_needs_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(events=(b"e",), status=RunStatus.COMPLETED)
        await backend.reach(store, await store.now_ms() + 2_100)

        assert await store.deployment_uses(["dpl_1"]) == {"dpl_1": DeploymentUse()}

    backend.run(main)


def test_runs_are_listed_by_deployment(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = backend.start_run(deployment="dpl_2")
        await store.start(backend.start_run())
        await store.start(run)

        page = await store.query_runs(RunQuery(deployment="dpl_2"))
        assert [record.run_id for record in page.runs] == [run.run_id]

    backend.run(main)


@pytest.mark.parametrize("named", ["dpl_1", "latest"])
def test_a_carried_start_that_meets_a_closed_deployment_is_tried_again_until_that_is_gone(
    backend: Backend, named: str
) -> None:
    async def main(store: Store) -> None:
        app = AppRecord(app="shop", production="dpl_1")
        await store.put_record("app", "shop", app.to_dict())
        await store.put_record("deployment", "dpl_1", {})
        await store.close_deployment("dpl_1", await store.retire_deployment("dpl_1"))
        meta = {"do": "start", "run": new_run_id(store.partitions), "workflow": "w", "key": ""}
        about: dict[str, Any] = {**meta, "deployment": named, "meta": {}, "options": {}}
        effect = Message(MessageKind.EFFECT, "run_1", 0, 0, about, b"in")

        with pytest.raises(TooEarlyError):
            await carry_out(store, "shop", effect, 0)
        await store.delete_record("deployment", "dpl_1")
        await store.put_record("app", "shop", replace(app, production="dpl_2").to_dict())
        problem = await carry_out(store, "shop", effect, 0)
        assert problem == ("" if named == "latest" else "the deployment dpl_1 was deleted")

    backend.run(main)
