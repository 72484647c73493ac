"""Orders: charge and reserve in parallel, wait for a person, ship; or give everything back."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from fluvial import FatalError, Hook, Saga, get_run, resume_hook, start, step, workflow
from fluvial.errors import (
    HookNotFoundError,
    RunNotFoundError,
    StartConflictError,
    StepFailedError,
)
from ledger import record

CARD_LIMIT_CENTS: Final = 100_000
DAY_SECONDS: Final = 86_400.0

app = FastAPI(title="Orders")


class Order(BaseModel):
    """What somebody wants."""

    item: str = Field(min_length=1, max_length=80)
    cents: int = Field(gt=0)
    approve_within_seconds: float = Field(default=2 * DAY_SECONDS, gt=0, le=30 * DAY_SECONDS)


class Approval(BaseModel):
    """What a person decided."""

    approved: bool
    by: str = Field(min_length=1, max_length=80)


class Receipt(BaseModel):
    """How an order ended."""

    order_id: str
    outcome: Literal["shipped", "refused", "expired", "failed"]
    detail: str = ""


@step(retries=5, timeout="30s")
async def charge(order_id: str, cents: int) -> str:
    """Take the money; return the id of the charge."""
    if cents > CARD_LIMIT_CENTS:
        raise FatalError(f"card declined: {cents} cents are above {CARD_LIMIT_CENTS}")
    record("charge", order_id, cents=cents)
    return f"charge-{order_id}"


@step(retries=5, timeout="30s")
def reserve(order_id: str, item: str) -> str:
    """Set the item aside; return the id of the reservation. A plain function works as well."""
    if item == "unobtainium":
        raise FatalError("out of stock: unobtainium")
    record("reserve", order_id, item=item)
    return f"reservation-{order_id}"


@step
async def ship(order_id: str, approved_by: str) -> str:
    """Send the parcel; return its tracking number."""
    record("ship", order_id, by=approved_by)
    return f"parcel-{order_id}"


@step(retries=20)
async def refund(charge_id: str, order_id: str) -> None:
    """Give the money back."""
    record("refund", order_id, charge=charge_id)


@step(retries=20)
async def release(reservation_id: str, order_id: str) -> None:
    """Put the item back on the shelf."""
    record("release", order_id, reservation=reservation_id)


@workflow
async def fulfil(order_id: str, order: Order) -> Receipt:
    """See one order through, for days if need be; a cancel undoes what was done before it ends."""
    async with Saga(concurrency=2) as saga:
        taken = await asyncio.gather(
            saga.do(charge(order_id, order.cents), undo=lambda paid: refund(paid, order_id)),
            saga.do(reserve(order_id, order.item), undo=lambda held: release(held, order_id)),
            return_exceptions=True,
        )
        failed = [each for each in taken if isinstance(each, BaseException)]
        if failed:
            receipt = Receipt(order_id=order_id, outcome="failed", detail=_reason(failed))
        else:
            receipt = await _decide(order_id, order)
        if receipt.outcome != "shipped":
            await saga.compensate()
        return receipt


async def _decide(order_id: str, order: Order) -> Receipt:
    """Wait for the approval and ship; nothing runs while the person thinks."""
    async with Hook(Approval, token=approval_token(order_id)) as decision:
        try:
            async with asyncio.timeout(order.approve_within_seconds):
                approval = await decision
        except TimeoutError:
            return Receipt(order_id=order_id, outcome="expired")
    if not approval.approved:
        return Receipt(order_id=order_id, outcome="refused", detail=f"by {approval.by}")
    try:
        parcel = await ship(order_id, approval.by)
    except StepFailedError as error:
        return Receipt(order_id=order_id, outcome="failed", detail=error.reason)
    return Receipt(order_id=order_id, outcome="shipped", detail=parcel)


def approval_token(order_id: str) -> str:
    """Return the token with which the order's approval is given."""
    return f"order:{order_id}"


def _reason(errors: list[BaseException]) -> str:
    return "; ".join(
        error.reason if isinstance(error, StepFailedError) else str(error) for error in errors
    )


@app.post("/orders/{order_id}", status_code=202)
async def place(order_id: str, order: Order) -> dict[str, str]:
    """Start the order; asking again with the same order changes nothing."""
    try:
        run = await start(fulfil, order_id, order, key=order_id)
    except StartConflictError as error:
        raise HTTPException(409, f"order {order_id} was placed with other details") from error
    return {"order": order_id, "run": run.id}


@app.get("/orders/{order_id}")
async def state(order_id: str) -> dict[str, Any]:
    """Say how the order stands, and how it ended if it has."""
    try:
        run = await get_run(key=order_id, workflow=fulfil)
    except RunNotFoundError as error:
        raise HTTPException(404, f"no order {order_id}") from error
    receipt = await run.result() if run.status == "completed" else None
    return {"order": order_id, "run": run.id, "status": run.status, "receipt": receipt}


@app.post("/orders/{order_id}/approval", status_code=202)
async def approve(order_id: str, approval: Approval) -> dict[str, bool]:
    """Hand a person's decision to the order that waits for it."""
    try:
        await resume_hook(approval_token(order_id), approval)
    except HookNotFoundError as error:
        raise HTTPException(404, f"order {order_id} does not wait for an approval") from error
    return {"approved": approval.approved}


@app.post("/orders/{order_id}/cancellation", status_code=202)
async def cancel(order_id: str) -> dict[str, str]:
    """Call the order off; what was done is undone before it ends."""
    try:
        run = await get_run(key=order_id, workflow=fulfil)
    except RunNotFoundError as error:
        raise HTTPException(404, f"no order {order_id}") from error
    await run.cancel()
    return {"order": order_id, "run": run.id}
