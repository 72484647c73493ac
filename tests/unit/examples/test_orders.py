"""The order's steps are plain functions that write to the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fluvial import FatalError

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


def test_giving_back_undoes_only_what_was_done(
    load_bundle: Load, ledger: Callable[[], list[dict[str, Any]]]
) -> None:
    orders = load_bundle("orders")

    asyncio.run(orders.give_back("7", "charge-7", FatalError("out of stock")))

    assert [entry["effect"] for entry in ledger()] == ["refund"]
