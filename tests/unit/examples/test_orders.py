"""The order's steps are plain functions that write to the ledger."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fluvial import FatalError, RunCancelledError
from fluvial.testing import SyncEnvironment

Load = Callable[[str], ModuleType]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads the ledger's entries."""
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("ORDERS_LEDGER", str(path))

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


def test_each_effect_is_a_line_of_the_ledger(
    load_bundle: Load, ledger: Callable[[], list[dict[str, Any]]]
) -> None:
    orders = load_bundle("orders")

    charge = asyncio.run(orders.charge("7", 4900))
    reservation = orders.reserve("7", "lamp")
    asyncio.run(orders.refund(charge, "7"))
    asyncio.run(orders.release(reservation, "7"))
    asyncio.run(orders.ship("7", "ann"))

    effects = [entry["effect"] for entry in ledger()]
    assert effects == ["charge", "reserve", "refund", "release", "ship"]


def test_declined_card_leaves_no_effect(
    load_bundle: Load, ledger: Callable[[], list[dict[str, Any]]]
) -> None:
    orders = load_bundle("orders")

    with pytest.raises(FatalError, match="declined"):
        asyncio.run(orders.charge("7", orders.CARD_LIMIT_CENTS + 1))

    assert ledger() == []


@pytest.mark.parametrize(
    ("item", "cents", "effects"),
    [
        ("unobtainium", 4900, ["charge", "refund"]),
        ("lamp", 200_000, ["reserve", "release"]),
        ("unobtainium", 200_000, []),
    ],
)
def test_a_failed_order_undoes_only_what_was_done(
    load_bundle: Load,
    ledger: Callable[[], list[dict[str, Any]]],
    item: str,
    cents: int,
    effects: list[str],
) -> None:
    orders = load_bundle("orders")

    with SyncEnvironment() as env:
        receipt = env.start(orders.fulfil, "7", orders.Order(item=item, cents=cents)).result()

    assert receipt.outcome == "failed"
    assert [entry["effect"] for entry in ledger()] == effects


@pytest.mark.parametrize("is_approved", [False, None])
def test_an_order_that_is_not_shipped_is_undone(
    load_bundle: Load, ledger: Callable[[], list[dict[str, Any]]], is_approved: bool | None
) -> None:
    orders = load_bundle("orders")

    with SyncEnvironment() as env:
        run = env.start(orders.fulfil, "7", orders.Order(item="lamp", cents=4900))
        if is_approved is not None:
            env.until(run, hook="order:7")
            env.resume("order:7", orders.Approval(approved=is_approved, by="ann"))
        receipt = run.result()

    assert receipt.outcome == ("expired" if is_approved is None else "refused")
    effects = [entry["effect"] for entry in ledger()]
    assert sorted(effects) == ["charge", "refund", "release", "reserve"]


def test_an_order_called_off_amid_a_charge_is_undone(
    load_bundle: Load, ledger: Callable[[], list[dict[str, Any]]]
) -> None:
    orders = load_bundle("orders")

    with SyncEnvironment() as env:
        run = env.start(orders.fulfil, "7", orders.Order(item="lamp", cents=4900))
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.result()

    effects = Counter(entry["effect"] for entry in ledger())
    assert effects["charge"] == effects["refund"]
    assert effects["reserve"] == effects["release"]
