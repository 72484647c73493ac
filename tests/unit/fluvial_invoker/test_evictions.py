"""What is given up first: what is cheap to make again, large, and seldom or no longer used."""

from __future__ import annotations

from fluvial_invoker.evictions import Values

MIB = 1024 * 1024


def test_cheap_large_and_seldom_used_things_go_first() -> None:
    values = Values()
    values.use("dear", cost_ms=900, size_bytes=10 * MIB)
    values.use("cheap", cost_ms=90, size_bytes=10 * MIB)
    values.use("large", cost_ms=90, size_bytes=90 * MIB)
    for _ in range(20):
        values.use("popular", cost_ms=90, size_bytes=10 * MIB)

    order: list[str] = []
    left = {"dear", "cheap", "large", "popular"}
    while (least := values.least(left)) is not None:
        values.give_up(least)
        left.remove(least)
        order.append(least)
    assert order == ["large", "cheap", "dear", "popular"]


def test_what_is_not_used_any_more_falls_behind() -> None:
    values = Values()
    for _ in range(5):
        values.use("old favourite", cost_ms=100, size_bytes=MIB)
    rounds = 0
    while True:
        rounds += 1
        values.use(f"new {rounds}", cost_ms=100, size_bytes=MIB)
        least = values.least(["old favourite", f"new {rounds}"])
        assert least is not None
        values.give_up(least)
        if least == "old favourite":
            break

    assert rounds == 6  # each that was given up has raised the floor by its own value


def test_nothing_is_least_of_nothing_and_the_unknown_goes_first() -> None:
    values = Values()
    values.use("known", cost_ms=1, size_bytes=MIB)

    assert values.least([]) is None
    assert values.least(["known", "unknown"]) == "unknown"
