"""What apps have used, over the control API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.control.world import World

Control = Callable[..., None]


def test_usage_is_what_was_counted_with_its_price(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.metrics.http_finished("shop", "ok", 0.1, 500_000)
        world.metrics.http_finished("shop", "refused", 0.1, 0)
        world.metrics.invocation_finished(
            "shop", "step", "ok", 0.3, 1_000_000, function="main.charge"
        )
        by_app = (await world.get("/v1/usage?app=shop")).json()
        rows = (await world.get("/v1/usage?by=function&since=1h")).json()["rows"]

        (shop,) = by_app["rows"]
        assert (shop["invocations"], shop["active_cpu_seconds"]) == (2, 1.5)
        assert shop["cost"]["cpu"] == pytest.approx(1.5 / 3600 * 0.128)
        assert by_app["prices"] == {
            "cpu_hour": 0.128,
            "gb_hour": 0.0106,
            "million_invocations": 0.6,
        }
        assert [(row["kind"], row["function"], row["invocations"]) for row in rows] == [
            ("http", "http", 1),
            ("step", "main.charge", 1),
        ]
        (record,) = await world.store.list_records("usage")
        assert record.id.endswith(".gateway.1")

    control(scenario)


@pytest.mark.parametrize(
    "query", ["by=week", "since=soon", "app=../x", "since=1h&until=2h", "colour=red"]
)
def test_a_wrong_parameter_is_refused(control: Control, query: str) -> None:
    async def scenario(world: World) -> None:
        response = await world.get(f"/v1/usage?{query}")

        assert response.status_code == 400
        assert response.json()["code"] == "invalid_request"

    control(scenario)
