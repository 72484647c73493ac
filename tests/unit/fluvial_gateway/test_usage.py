"""What is counted, kept over gateways and restarts, and reported."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_gateway.occupancy import Occupied
from fluvial_gateway.prices import GIGABYTE, Prices, read_prices
from fluvial_gateway.usage_amounts import HOUR_MS, MAX_FUNCTIONS, Amount, Used, total
from fluvial_gateway.usage_keeping import HOURS_KEPT, UsageKeeping
from fluvial_gateway.usage_ledger import UsageLedger
from fluvial_gateway.usage_reports import Span, report
from fluvial_queue.contract import Record, RecordKind, StoreUnavailableError
from fluvial_queue.memory import MemoryStore

START_HOUR = 24 * 20_000  # the first hour of a day
HTTP = ("shop", "http", "http")
CHARGE = ("shop", "step", "main.charge")


class Store(MemoryStore):
    """A store that counts writes, and can fail."""

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.written: list[str] = []
        self.is_down = False
        self.wrote = asyncio.Event()

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        if self.is_down:
            raise StoreUnavailableError("down")
        self.written.append(record_id)
        self.wrote.set()
        return await super().put_record(kind, record_id, value, expect=expect)

    async def records(self) -> list[Record]:
        return await self.list_records("usage")


class Gateway:
    """A ledger and its keeping, on a clock and occupancy that tests move."""

    def __init__(self, store: Store, writer: str = "a.1", flush_seconds: float = 0.0) -> None:
        self.now_ms = START_HOUR * HOUR_MS
        self.seen: dict[str, Occupied] = {}
        self.ledger = UsageLedger(now_ms=lambda: self.now_ms)
        self.keeping = UsageKeeping(
            self.ledger, self, store, writer=writer, flush_seconds=flush_seconds
        )

    def occupied(self) -> dict[str, Occupied]:
        return self.seen

    def to_hour(self, hour: int) -> None:
        self.now_ms = hour * HOUR_MS

    def invoke(self, function: tuple[str, str, str] = HTTP, count: int = 1) -> None:
        for _ in range(count):
            self.ledger.add(function, "ok", 0.5, 2000)

    async def sum(self) -> Used:
        return total((await self.keeping.read()).values())


def test_refused_invocations_and_negative_times_are_not_used() -> None:
    async def main() -> None:
        gateway = Gateway(Store())
        gateway.ledger.add(HTTP, "refused", 3.0, 0)
        gateway.ledger.add(HTTP, "lost", 1.0, -50)

        assert (await gateway.sum()).functions == {HTTP: Amount(1, 0, 1000)}

    asyncio.run(main())


def test_functions_are_bounded_and_nothing_is_lost() -> None:
    async def main() -> None:
        gateway = Gateway(Store())
        for number in range(2 * MAX_FUNCTIONS):
            gateway.invoke(("shop", "step", f"step{number}"))
        for number in range(2 * MAX_FUNCTIONS):
            gateway.invoke((f"app{number}", "http", "http"))
        used = await gateway.sum()

        assert len(used.functions) <= 2 * MAX_FUNCTIONS + 1
        assert sum(amount.invocations for amount in used.functions.values()) == 4 * MAX_FUNCTIONS
        assert used.functions["shop", "step", "other"].invocations == MAX_FUNCTIONS

    asyncio.run(main())


def test_gateways_and_their_restarts_add_up() -> None:
    async def main() -> None:
        store = Store()
        first, second = Gateway(store, "a.1"), Gateway(store, "b.1")
        first.invoke(count=3)
        second.invoke(count=4)
        await first.keeping.flush()
        await first.keeping.flush()
        await second.keeping.flush()
        restarted = Gateway(store, "a.2")
        restarted.invoke(CHARGE, count=5)
        used = await restarted.sum()

        assert used.functions == {HTTP: Amount(7, 14_000, 3500), CHARGE: Amount(5, 10_000, 2500)}

    asyncio.run(main())


def test_a_crash_loses_what_was_not_written_and_nothing_else() -> None:
    async def main() -> None:
        store = Store()
        crashed = Gateway(store, "a.1")
        crashed.invoke(count=3)
        await crashed.keeping.flush()
        crashed.invoke(count=100)

        assert (await Gateway(store, "a.2").sum()).functions[HTTP].invocations == 3

    asyncio.run(main())


def test_what_the_store_does_not_take_is_written_later() -> None:
    async def main() -> None:
        store = Store()
        gateway = Gateway(store)
        store.is_down = True
        gateway.invoke(count=2)
        await gateway.keeping.flush()
        gateway.to_hour(START_HOUR + 1)
        gateway.invoke(count=3)
        await gateway.keeping.flush()
        store.is_down = False
        hours = await gateway.keeping.read()

        assert {hour: used.functions[HTTP].invocations for hour, used in hours.items()} == {
            START_HOUR: 2,
            START_HOUR + 1: 3,
        }

    asyncio.run(main())


def test_nothing_is_written_while_nothing_is_used() -> None:
    async def main() -> None:
        store, stop = Store(), asyncio.Event()
        gateway = Gateway(store)
        running = asyncio.create_task(gateway.keeping.run(stop))
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.written == []
        gateway.invoke()
        await store.wrote.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        stop.set()
        await running

        assert store.written == [f"h{START_HOUR}.a.1"]

    asyncio.run(main())


def test_a_stop_does_not_wait_for_the_next_flush() -> None:
    async def main() -> None:
        stop = asyncio.Event()
        gateway = Gateway(Store(), flush_seconds=3600.0)
        running = asyncio.create_task(gateway.keeping.run(stop))
        gateway.invoke()
        await asyncio.sleep(0)
        stop.set()
        await running

        assert (await gateway.sum()).functions[HTTP].invocations == 1

    asyncio.run(main())


def test_memory_is_counted_while_something_is_in_flight_also_without_an_end() -> None:
    async def main() -> None:
        gateway = Gateway(Store())
        gateway.now_ms += 200
        gateway.seen = {"shop": Occupied(1, 100.0, 500)}
        await gateway.keeping.flush()
        gateway.to_hour(START_HOUR + 1)
        gateway.seen = {"shop": Occupied(1, 160.0, 500)}
        await gateway.keeping.flush()
        gateway.seen = {"shop": Occupied(0, 160.0, 500)}
        hours = await gateway.keeping.read()

        assert [hours[hour].memory["shop"].byte_seconds for hour in sorted(hours)] == [100.0, 60.0]
        assert hours[START_HOUR].memory["shop"].first_ms == START_HOUR * HOUR_MS

    asyncio.run(main())


def test_hours_become_days_and_count_the_same() -> None:
    async def main() -> None:
        store = Store()
        gateway, other = Gateway(store, "a.1"), Gateway(store, "b.1")
        for hour in range(START_HOUR, START_HOUR + 3 * 24, 5):
            for each in (gateway, other):
                each.to_hour(hour)
                each.invoke()
                await each.keeping.flush()
        before = await gateway.sum()
        later = Gateway(store, "a.2")
        later.to_hour(START_HOUR + 3 * 24 + HOURS_KEPT)
        await later.keeping.flush()
        ids = sorted(record.id for record in await store.records())

        assert (await later.sum()).functions == before.functions
        assert ids == ["d20000", "d20001", "d20002"]

    asyncio.run(main())


def test_a_crash_between_a_day_and_its_hours_counts_nothing_twice() -> None:
    async def main() -> None:
        store = Store()
        gateway = Gateway(store)
        gateway.invoke(count=4)
        await gateway.keeping.flush()
        summed = await gateway.sum()
        await store.put_record("usage", "d20000", summed.to_dict())
        later = Gateway(store, "a.2")
        later.to_hour(START_HOUR + 24)
        assert (await later.sum()).functions[HTTP].invocations == 4
        latest = Gateway(store, "a.3")
        latest.to_hour(START_HOUR + 10 * 24)

        assert (await latest.sum()).functions[HTTP].invocations == 4
        assert [record.id for record in await store.records()] == ["d20000"]

    asyncio.run(main())


def test_days_are_not_kept_for_ever() -> None:
    async def main() -> None:
        store = Store()
        await store.put_record("usage", "d19000", Used().to_dict())
        gateway = Gateway(store)
        await gateway.keeping.flush()

        assert await store.records() == []

    asyncio.run(main())


# Reports

PRICES = Prices(cpu_hour=3.6, gigabyte_hour=36.0, million_invocations=1e6)


def used(**invocations: int) -> Used:
    """So many invocations by name, each with 10 ms of CPU; half a GB for 40 s."""
    found = Used()
    for name, count in invocations.items():
        found.functions["shop", "step", name] = Amount(count, 10_000 * count, 1000 * count)
    found.memory_of("shop").byte_seconds = GIGABYTE * 20.0
    found.memory_of("shop").memory_bytes = GIGABYTE // 2
    found.memory_of("shop").first_ms = START_HOUR * HOUR_MS
    return found


def span(hours: int) -> Span:
    return Span(since_ms=START_HOUR * HOUR_MS, until_ms=(START_HOUR + hours) * HOUR_MS)


def test_costs_are_amounts_times_prices_beside_what_always_on_costs() -> None:
    found = report({START_HOUR: used(a=3, b=1)}, span(2), "app", PRICES)

    (row,) = found["rows"]
    assert (row["app"], row["invocations"]) == ("shop", 4)
    assert row["active_cpu_seconds"] == pytest.approx(0.04)
    assert row["memory_gb_seconds"] == pytest.approx(20.0)
    assert row["cost"] == pytest.approx(
        {"cpu": 0.04 / 1000, "memory": 0.2, "invocations": 4.0, "total": 4.20004}
    )
    # Two hours of one CPU, and of half a gigabyte.
    assert row["always_on"] == pytest.approx(
        {"cpu": 7.2, "memory": 36.0, "invocations": 0.0, "total": 43.2}
    )
    assert row["saved"] == pytest.approx(1 - 4.20004 / 43.2)
    assert {key: row[key] for key in found["total"]} == found["total"]


def test_functions_share_the_memory_that_they_had_together() -> None:
    rows = report({START_HOUR: used(a=3, b=1)}, span(1), "function", PRICES)["rows"]

    assert [(row["kind"], row["function"]) for row in rows] == [("step", "a"), ("step", "b")]
    assert [row["memory_gb_seconds"] for row in rows] == pytest.approx([15.0, 5.0])


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("day", ["2024-10-04", "2024-10-05"]),
        ("hour", ["2024-10-04T00:00:00Z", "2024-10-04T01:00:00Z", "2024-10-05T00:00:00Z"]),
    ],
)
def test_rows_go_by_time(by: Any, names: list[str]) -> None:
    hours = {START_HOUR + hour: used(a=1) for hour in (24, 0, 1)}
    found = report(hours, span(48), by, PRICES)

    assert [row[by] for row in found["rows"]] == names
    assert found["total"]["invocations"] == 3
    assert found["total"]["memory_gb_seconds"] == pytest.approx(60.0)


def test_only_what_was_asked_for_is_reported() -> None:
    other = Used({("blog", "http", "http"): Amount(9, 9, 9)})
    other.memory_of("blog").byte_seconds = 1.0
    both = total([used(a=1), other])
    hours = {START_HOUR - 1: both, START_HOUR: both, START_HOUR + 1: both}
    found = report(hours, span(1), "app", PRICES, app="shop")

    assert [(row["app"], row["invocations"]) for row in found["rows"]] == [("shop", 1)]


def test_what_was_never_used_costs_nothing() -> None:
    found = report({}, span(1), "app", PRICES)

    assert found["rows"] == []
    assert found["total"]["cost"]["total"] == 0
    assert (found["total"]["always_on"], found["total"]["saved"]) == (None, None)


def test_prices_come_from_the_environment_and_a_wrong_one_is_named() -> None:
    assert read_prices({"FLUVIAL_PRICE_GB_HOUR": "0"}).gigabyte_hour == 0
    assert read_prices({}) == Prices()
    for text in ("-1", "inf", "free"):
        with pytest.raises(InvalidRequestError, match="FLUVIAL_PRICE_CPU_HOUR"):
            read_prices({"FLUVIAL_PRICE_CPU_HOUR": text})
