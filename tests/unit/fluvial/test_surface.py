"""What a user writes (the order example of the documentation), played end to end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from fluvial import FatalError, Hook, RetryableError, sleep, step, workflow
from fluvial.events import EventType

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


class Approval(BaseModel):
    approved: bool
    by: str


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ({"approved": True, "by": "ada"}, "shipped o-1 for charge-o-1-500 with 3"),
        ({"approved": False, "by": "bob"}, "refused"),
        (None, "expired"),
    ],
)
def test_an_order_is_fulfilled_refused_or_expires(
    play: Play, answer: dict[str, object] | None, result: str
) -> None:
    calls: list[str] = []

    @step(retries=5, timeout="30s")
    async def charge(order_id: str, cents: int) -> str:
        calls.append("charge")
        if calls.count("charge") == 1:
            raise RetryableError("busy", retry_after=1)
        return f"charge-{order_id}-{cents}"

    @step
    def reserve(order_id: str) -> int:
        return 3

    @step
    async def refund(charge_id: str) -> None:
        if not charge_id:
            raise FatalError("nothing to refund")
        calls.append("refund")

    @step
    def ship(order_id: str, charge_id: str, stock: int) -> str:
        return f"shipped {order_id} for {charge_id} with {stock}"

    @workflow
    async def fulfil(order_id: str, cents: int) -> str:
        charge_id, stock = await asyncio.gather(charge(order_id, cents), reserve(order_id))
        async with Hook(Approval, token=f"order:{order_id}") as approval:
            try:
                async with asyncio.timeout(timedelta(days=2).total_seconds()):
                    answer = await approval
            except TimeoutError:
                await refund(charge_id)
                return "expired"
        await sleep("1h")
        return await ship(order_id, charge_id, stock) if answer.approved else "refused"

    actions = [] if answer is None else [play.resume(60_000, answer, as_json=True)]
    outcome = play(fulfil, "o-1", 500, actions=actions, before=calls.clear)

    assert outcome.result == result
    assert outcome.count(EventType.STEP_RETRYING) == 1
    assert calls.count("refund") == (1 if answer is None else 0)
