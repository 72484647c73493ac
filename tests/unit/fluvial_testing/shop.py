"""What the tests of the test kit test: an order that is paid, approved and shipped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import fluvial
from fluvial import Hook, sleep, step, workflow
from fluvial.testing import Ledger

ledger = Ledger()


def open_books() -> Ledger:
    """Begin anew."""
    global ledger
    ledger = Ledger()
    return ledger


@dataclass
class Approval:
    approved: bool


@step(name="shop.charge", retries=3, backoff=10, timeout="30s")
async def charge(order: str, cents: int) -> str:
    key = fluvial.metadata().idempotency_key
    return str(ledger.apply("charge", f"ch_{order}", key=key))


@step(name="shop.charge_twice_perhaps")
async def charge_twice_perhaps(order: str) -> str:
    return str(ledger.apply("charge", f"ch_{order}"))


@step(name="shop.reserve")
def reserve(order: str) -> str:
    return f"stock of {order}"


@step(name="shop.refund")
async def refund(charge_id: str) -> None: ...


@step(name="shop.ship")
async def ship(order: str) -> str:
    return f"shipped {order}"


@workflow(name="shop.fulfil")
async def fulfil(order: str, cents: int) -> str:
    charge_id, _stock = await asyncio.gather(charge(order, cents), reserve(order))
    async with Hook(Approval, token=f"order:{order}") as approval:
        try:
            async with asyncio.timeout(timedelta(days=2).total_seconds()):
                answer = await approval
        except TimeoutError:
            await refund(charge_id)
            return "expired"
    await sleep("1h")
    return await ship(order) if answer.approved else "refused"


@workflow(name="shop.naive")
async def naive(order: str) -> str:
    return await charge_twice_perhaps(order)


@step(name="shop.delegate")
async def delegate(order: str) -> str:
    run = await fluvial.start(fulfil, order, 1, key=order)
    again = await fluvial.get_run(key=order, workflow=fulfil)
    assert run.id == again.id
    return await again.result()


@step(name="shop.approve")
async def approve(order: str) -> bool:
    return await fluvial.resume_hook(f"order:{order}", Approval(True), resume_id="r")


@workflow(name="shop.delegating")
async def delegating(order: str) -> str:
    return await delegate(order)


@workflow(name="shop.approving")
async def approving(order: str) -> bool:
    return await approve(order)


@workflow(name="shop.patient")
async def patient() -> str:
    await sleep(timedelta(days=365))
    return fluvial.now().date().isoformat()


@workflow(name="shop.lucky")
async def lucky() -> float:
    first = fluvial.random()
    await ship("o")
    return first + fluvial.random()


@workflow(name="shop.item")
async def item(number: int) -> int:
    await sleep("1m")
    return 2 * number


@workflow(name="shop.basket")
async def basket(count: int) -> int:
    items = [await fluvial.start(item, number) for number in range(count)]
    return sum(await asyncio.gather(*(each.result() for each in items)))


@workflow(name="shop.again")
async def again(left: int) -> str:
    await sleep("1h")
    if left:
        fluvial.continue_as_new(left - 1)
    return "done"


@step(name="shop.describe", retries=2, backoff=1)
async def describe(order: str) -> int:
    writer, words = fluvial.stream("words"), f"the story of {order}".split()
    for number, word in enumerate(words):
        await writer.write(word)
        if number == 1 and fluvial.metadata().attempt == 1:
            raise ConnectionError("in the middle")
    return len(words)


@workflow(name="shop.storyteller")
async def storyteller(order: str) -> int:
    fluvial.publish({"order": order})
    await fluvial.set_tags({"order": order})
    count = await describe(order)
    await sleep("1h")
    fluvial.publish({"order": order, "words": count})
    return count
