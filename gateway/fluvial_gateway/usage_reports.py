"""What was used in some time, in rows: by app, function, day or hour, with a price on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from fluvial_gateway.prices import GIGABYTE, Cost, Prices
from fluvial_gateway.usage_amounts import DAY_HOURS, HOUR_MS, Amount, Function, Memory, Used

By = Literal["app", "function", "day", "hour"]
BY: Final[tuple[By, ...]] = ("app", "function", "day", "hour")
_MICROSECONDS: Final = 1e6
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when until when."""

    since_ms: int
    until_ms: int


@dataclass(slots=True)
class _Row:
    """One row while it is added up."""

    amount: Amount = field(default_factory=Amount)
    gigabyte_seconds: float = 0.0


def report(
    hours: Mapping[int, Used], span: Span, by: By, prices: Prices, *, app: str | None = None
) -> dict[str, Any]:
    """Return rows and their total, for the hours that lie in a span at least in part."""
    rows: dict[_Key, _Row] = {}
    apps: dict[str, Memory] = {}
    for hour, used in sorted(hours.items()):
        if (hour + 1) * HOUR_MS <= span.since_ms or hour * HOUR_MS >= span.until_ms:
            continue
        _add(rows, hour, used, by, app)
        for name, memory in used.memory.items():
            if app in (None, name):
                apps.setdefault(name, Memory()).add(memory)
    always = {name: _always_on(memory, span, prices) for name, memory in apps.items()}
    views = [_view(_named(key, by), row, prices) for key, row in sorted(rows.items())]
    if by == "app":
        for view in views:
            _compare(view, always.get(view["app"]))
    total = _Row()
    for row in rows.values():
        total.amount.add(row.amount)
        total.gigabyte_seconds += row.gigabyte_seconds
    summed = _view({}, total, prices)
    _compare(summed, _sum(always.values()) if always else None)
    return {"rows": views, "total": summed, "prices": prices.to_dict()}


def _add(rows: dict[_Key, _Row], hour: int, used: Used, by: By, app: str | None) -> None:
    shares = _memory_by_function(used)
    for function, amount in used.functions.items():
        if app in (None, function[0]):
            row = rows.setdefault(_key(function, hour, by), _Row())
            row.amount.add(amount)
            row.gigabyte_seconds += shares.pop(function, 0.0) / GIGABYTE
    for function, byte_seconds in shares.items():  # of invocations that have not ended yet
        if app in (None, function[0]):
            row = rows.setdefault(_key(function, hour, by), _Row())
            row.gigabyte_seconds += byte_seconds / GIGABYTE


def _memory_by_function(used: Used) -> dict[Function, float]:
    """Return each function's share of its app's memory, by the time that its invocations took:
    those that were in flight in one instance had it together."""
    shares: dict[Function, float] = {}
    for app, memory in used.memory.items():
        own = {each: amount for each, amount in used.functions.items() if each[0] == app}
        busy_ms = sum(amount.busy_ms for amount in own.values())
        if not busy_ms:
            first = next(iter(own), (app, "http", "http"))
            shares[first] = memory.byte_seconds
            continue
        for function, amount in own.items():
            shares[function] = memory.byte_seconds * amount.busy_ms / busy_ms
    return shares


def _key(function: Function, hour: int, by: By) -> _Key:
    match by:
        case "app":
            return (function[0],)
        case "function":
            return function
        case "day":
            return (_date(hour // DAY_HOURS * DAY_HOURS).date().isoformat(),)
        case "hour":
            return (_date(hour).isoformat().replace("+00:00", "Z"),)


def _named(key: _Key, by: By) -> dict[str, Any]:
    names = ("app", "kind", "function") if by == "function" else (by,)
    return dict(zip(names, key, strict=True))


def _date(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC)


def _view(names: dict[str, Any], row: _Row, prices: Prices) -> dict[str, Any]:
    cpu_seconds = row.amount.cpu_us / _MICROSECONDS
    cost = prices.cost(
        cpu_seconds=cpu_seconds,
        gigabyte_seconds=row.gigabyte_seconds,
        invocations=row.amount.invocations,
    )
    return {
        **names,
        "invocations": row.amount.invocations,
        "active_cpu_seconds": cpu_seconds,
        "memory_gb_seconds": row.gigabyte_seconds,
        "cost": cost.to_dict(),
    }


def _always_on(memory: Memory, span: Span, prices: Prices) -> Cost:
    """Return what the app would have cost as one process, since it was used first."""
    begin_ms = max(span.since_ms, memory.first_ms)
    seconds = max(0, span.until_ms - begin_ms) / 1000
    return prices.always_on(seconds=seconds, memory_bytes=memory.memory_bytes)


def _compare(view: dict[str, Any], always_on: Cost | None) -> None:
    """Set the cost beside that of a process which always runs; `saved` is a share of the latter."""
    if always_on is None or not always_on.total:
        view["always_on"], view["saved"] = None, None
        return
    view["always_on"] = always_on.to_dict()
    view["saved"] = 1 - view["cost"]["total"] / always_on.total


def _sum(costs: Iterable[Cost]) -> Cost:
    summed = Cost()
    for cost in costs:
        summed = summed.plus(cost)
    return summed
