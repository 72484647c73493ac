"""The operation that says what apps have used and what that costs."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import APP
from fluvial_gateway.control.schemas import Schema, array, nullable, obj, text
from fluvial_gateway.control.times import MOMENT_OR_AGE, moment_or_age_ms
from fluvial_gateway.control.views import time_text
from fluvial_gateway.prices import Prices
from fluvial_gateway.usage_keeping import UsageKeeping
from fluvial_gateway.usage_reports import BY, Span, report

DEFAULT_AGE: Final = "30d"
_NUMBER: Final[Schema] = {"type": "number"}
_COST: Final = obj(dict.fromkeys(("cpu", "memory", "invocations", "total"), _NUMBER))
_AMOUNTS: Final[dict[str, Schema]] = {
    "invocations": {"type": "integer"},
    "active_cpu_seconds": _NUMBER,
    "memory_gb_seconds": _NUMBER,
    "cost": _COST,
}
_COMPARED: Final[dict[str, Schema]] = {
    "always_on": nullable(_COST),
    "saved": nullable(_NUMBER),
}
_NAMES: Final[dict[str, Schema]] = {
    name: text() for name in ("app", "kind", "function", "day", "hour")
}


class UsageOperations:
    """Handler over what was used."""

    def __init__(self, usage: UsageKeeping, prices: Prices) -> None:
        self._usage = usage
        self._prices = prices

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/usage",
                name="getUsage",
                summary="Return what apps have used, and what it costs",
                description=(
                    "Active CPU is the CPU time of invocations; memory is what the manifest asks "
                    "for, while something is in flight in an instance, once for all of it. By app, "
                    "and in the total, stands beside it what one process would have cost that "
                    "always runs, since the app was used first. Usage is kept by the hour for two "
                    "days, then by the day."
                ),
                handler=self.usage,
                scopes=(Scope.METRICS_READ,),
                parameters=(
                    APP,
                    Parameter(
                        "since",
                        "query",
                        {**MOMENT_OR_AGE, "default": DEFAULT_AGE},
                        "From this time on, or from so long ago; the hour that holds it is whole.",
                    ),
                    Parameter("until", "query", MOMENT_OR_AGE, "Until this time, or so long ago."),
                    Parameter("by", "query", text(enum=list(BY), default="app"), "A row for each."),
                ),
                replies={
                    200: Reply(
                        "Rows and their total.",
                        obj(
                            {
                                "since": text(),
                                "until": text(),
                                "rows": array(obj({**_NAMES, **_AMOUNTS, **_COMPARED})),
                                "total": obj({**_AMOUNTS, **_COMPARED}),
                                "prices": obj(
                                    {
                                        "cpu_hour": _NUMBER,
                                        "gb_hour": _NUMBER,
                                        "million_invocations": _NUMBER,
                                    }
                                ),
                            }
                        ),
                    )
                },
            )
        ]

    async def usage(self, call: Call) -> Response:
        hours = await self._usage.read()
        span = _span(call.query["since"], call.query["until"])  # until now: behind what was read
        found = report(hours, span, call.query["by"], self._prices, app=call.query["app"])
        view: dict[str, Any] = {
            "since": time_text(span.since_ms),
            "until": time_text(span.until_ms),
            **found,
        }
        return JSONResponse(view)


def _span(since: str, until: str | None) -> Span:
    now_ms = round(time.time() * 1000)
    since_ms = moment_or_age_ms(since, now_ms, "query parameter since")
    until_ms = now_ms
    if until is not None:
        until_ms = min(now_ms, moment_or_age_ms(until, now_ms, "query parameter until"))
    if until_ms < since_ms:
        raise InvalidRequestError("query parameter until is before since: swap them")
    return Span(since_ms=since_ms, until_ms=until_ms)
