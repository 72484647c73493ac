"""An environment runs workflows as a platform does, in virtual time and without a server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import fluvial
from fluvial.errors import HookNotFoundError, InvalidRequestError, RunCancelledError, RunFailedError
from fluvial.events import EventType
from fluvial.testing import Environment, Mode, StuckError, SyncEnvironment, call
from fluvial_queue.kit import open_engine
from tests.unit.fluvial_testing.shop import (
    Approval,
    approving,
    charge,
    delegating,
    fulfil,
    lucky,
    patient,
    refund,
    reserve,
    ship,
)


def test_a_run_goes_on_until_it_waits_for_a_hook(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 4200)

    env.until(run, hook="order:o-1")

    assert env.calls(charge) == [call("o-1", 4200)]
    assert env.calls(reserve) == [call("o-1")]
    assert run.open_hooks == ["order:o-1"]
    assert run.status == "running"


def test_a_payload_lets_a_run_come_to_its_end(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 4200)

    assert env.resume("order:o-1", Approval(True), resume_id="once")
    assert not env.resume("order:o-1", Approval(True), resume_id="once")

    assert run.result() == "shipped o-1"
    assert env.now - run.log[0].at == timedelta(hours=1)


def test_time_moves_when_everything_waits_for_it(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 4200)

    assert run.result() == "expired"

    assert env.calls(refund) == [call("ch_o-1")]
    assert env.now - run.log[0].at == timedelta(days=2)


def test_virtual_time_begins_where_a_test_says_so(mode: Mode) -> None:
    with SyncEnvironment(
        now=datetime(2027, 3, 1, tzinfo=UTC), mode=mode, engine=open_engine
    ) as env:
        assert env.start(patient).result() == "2028-02-29"


def test_time_stands_still_where_a_test_says_so(mode: Mode) -> None:
    with SyncEnvironment(auto_advance=False, mode=mode, engine=open_engine) as env:
        run = env.start(patient)

        with pytest.raises(StuckError, match="time stands still"):
            run.result()
        env.advance("364 d")
        assert run.status == "running"
        env.advance("1 d")
        assert run.status == "completed"


def test_a_failed_step_is_retried_in_virtual_time(env: SyncEnvironment) -> None:
    env.mock(charge, each=[ValueError("no"), ConnectionError, "ch_3"])
    run = env.start(fulfil, "o-1", 1)

    env.until(run, hook="order:o-1")

    assert [made.attempt for made in env.calls(charge)] == [1, 2, 3]
    assert len({made.key for made in env.calls(charge)}) == 1
    assert env.now - run.log[0].at > timedelta(seconds=10)


def test_steps_use_the_platform(env: SyncEnvironment) -> None:
    delegated = env.start(delegating, "o-1")
    approved = env.start(approving, "o-1")

    assert delegated.result() == "shipped o-1"
    assert approved.result() is True
    assert [run.run.workflow for run in env.runs()] == [
        "shop.delegating",
        "shop.approving",
        "shop.fulfil",
    ]


def test_a_test_uses_the_platform_as_deployed_code_does() -> None:
    async def test() -> None:
        async with Environment(engine=open_engine) as env:
            run = await fluvial.start(fulfil, "o-1", 1, key="k")
            same = await env.start(fulfil, "o-1", 1, key="k")
            assert (run.id, await run.result()) == (same.id, "expired")
            with pytest.raises(fluvial.StartConflictError):
                await fluvial.start(fulfil, "o-2", 1, key="k")
        with pytest.raises(fluvial.NotInInvocationError):
            await fluvial.start(fulfil, "o-1", 1)

    asyncio.run(test())


def test_several_tasks_of_a_test_wait_at_once(mode: Mode) -> None:
    async def test() -> tuple[str, ...]:
        async with Environment(mode=mode, engine=open_engine) as env:
            first = await env.start(fulfil, "o-1", 1)
            second = await env.start(fulfil, "o-2", 1)
            return await asyncio.gather(first.result(), second.result(), _approve(env, "order:o-2"))

    assert list(asyncio.run(test())) == ["expired", "shipped o-2", ""]


async def _approve(env: Environment, token: str) -> str:
    await env.resume(token, Approval(True))
    return ""


def test_a_cancelled_run_cleans_up(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 1)
    env.until(run, hook="order:o-1")

    run.cancel("too late")

    with pytest.raises(RunCancelledError):
        run.result()
    assert run.log.of(EventType.CANCEL_REQUESTED)[0].meta["reason"] == "too late"


def test_what_never_happens_is_said_with_the_log(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 1)

    with pytest.raises(StuckError, match="has an open hook 'other'") as caught:
        env.until(run, hook="other")

    (note,) = caught.value.__notes__
    assert "shop.fulfil('o-1', 1)" in note
    assert "STEP_COMPLETED      1  'ch_o-1'" in note


def test_a_failed_run_is_told_with_the_log(env: SyncEnvironment) -> None:
    env.mock(charge, raises=fluvial.FatalError("declined"))

    with pytest.raises(RunFailedError) as caught:
        env.start(fulfil, "o-1", 1).result()

    assert "FatalError: declined" in caught.value.__notes__[0]


def test_a_payload_for_no_hook_is_refused(env: SyncEnvironment) -> None:
    env.start(fulfil, "o-1", 1)

    with pytest.raises(HookNotFoundError):
        env.resume("order:o-2", Approval(True))


def test_a_workflow_that_is_not_repeatable_is_found_out() -> None:
    answers = iter("abcdef")

    @fluvial.workflow(name="shop.unrepeatable")
    async def unrepeatable() -> str:
        return await ship(next(answers)) if next(answers) == "b" else await reserve("x")

    with (
        SyncEnvironment(mode="replay", engine=open_engine) as env,
        pytest.raises(StuckError, match="is paused"),
    ):
        env.start(unrepeatable).result()


def test_everything_that_a_run_draws_is_the_same_each_time(mode: Mode) -> None:
    drawn: set[float] = set()
    for _ in range(3):
        with SyncEnvironment(mode=mode, engine=open_engine) as env:
            drawn.add(env.start(lucky).result())

    assert len(drawn) == 1


def test_a_seed_chooses_another_order_and_the_same_one_each_time(mode: Mode) -> None:
    def play(seed: int | None) -> list[str]:
        with SyncEnvironment(seed=seed, mode=mode, engine=open_engine) as env:
            runs = [env.start(fulfil, f"o-{number}", 1) for number in range(2)]
            env.until(runs[0], hook="order:o-0")
            env.resume("order:o-0", Approval(True), resume_id="r")
            assert [run.result() for run in runs] == ["shipped o-0", "expired"]
            return list(env.history)

    assert len({tuple(play(seed)) for seed in range(10)}) > 5
    assert play(3) == play(3)


def test_a_run_survives_a_crash(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 1)
    env.until(run, hook="order:o-1")

    env.crash()

    env.resume("order:o-1", Approval(True))
    assert run.result() == "shipped o-1"


@pytest.mark.parametrize("chosen", ["live", "replay", "evict"])
def test_the_environment_chooses_the_mode(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_TESTING_MODE", chosen)
    with SyncEnvironment(engine=open_engine) as env:
        run = env.start(patient)
        run.result()
        asks = any("asks for the log" in line for line in env.history)

    assert asks == (chosen == "evict")


def test_a_wrong_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUVIAL_TESTING_MODE", "alive")

    with pytest.raises(InvalidRequestError, match="live, replay, evict"):
        Environment(engine=open_engine)
