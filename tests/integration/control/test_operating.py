"""Health, information, metrics and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from fluvial_queue.contract import StoreUnavailableError
from tests.integration.control.world import World, client_of

Control = Callable[..., None]


def test_ready_once_the_dispatcher_owns_its_partitions(control: Control) -> None:
    async def scenario(world: World) -> None:
        assert (await world.get("/readyz")).status_code == 200
        world.dispatcher.is_ready = False
        response = await world.get("/readyz")

        assert response.status_code == 503
        assert "partitions" in response.json()["detail"]
        assert (await world.get("/livez")).status_code == 200

    control(scenario)


def test_not_ready_while_stopping(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.platform.drain()

        assert (await world.get("/readyz")).status_code == 503
        assert (await world.get("/livez")).status_code == 200

    control(scenario)


def test_not_ready_without_a_store(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.store.failure = StoreUnavailableError("connection refused")

        assert (await world.get("/readyz")).status_code == 503
        assert (await world.get("/v1/runs")).status_code == 503
        world.store.failure = None

    control(scenario)


def test_info_has_no_credentials(control: Control) -> None:
    async def scenario(world: World) -> None:
        info = await world.get("/v1/info")

        assert info.json()["store"] == "redis://db:6379/0"
        assert info.json()["durability"] == "memory"
        assert "hunter2" not in info.text

    control(scenario)


def test_instances_show_known_fields_only(control: Control) -> None:
    async def scenario(world: World) -> None:
        answer = (await world.get("/v1/instances")).json()

        assert answer["instances"] == [{"instance": "ins_1", "app": "shop", "rss_bytes": 1000}]

    control(scenario)


def test_metrics_are_valid_and_say_what_the_store_holds(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start()
        async with client_of(world, None) as stranger:
            response = await stranger.get("/metrics")
        families = {f.name: f for f in text_string_to_metric_families(response.text)}

        assert response.headers["content-type"].startswith("text/plain")
        assert families["fluvial_queue_messages"].samples[0].value == 1
        assert families["fluvial_queue_oldest_message_age_seconds"].samples[0].value >= 0
        assert families["fluvial_partitions_owned"].samples[0].value == 4
        open_runs = families["fluvial_runs_open"].samples[0]
        assert (open_runs.labels, open_runs.value) == ({"app": "shop", "status": "pending"}, 1)
        in_flight = families["fluvial_invocations_in_flight"].samples[0]
        assert (in_flight.labels, in_flight.value) == ({"app": "shop"}, 2)
        assert families["fluvial_instance_memory_byte_seconds"].samples[0].value == 4096
        memory = families["fluvial_instance_memory_bytes"].samples[0]
        assert (memory.labels, memory.value) == ({"app": "shop"}, 1000)

    control(scenario)


def test_metrics_leave_out_what_the_store_does_not_say(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.store.failure = StoreUnavailableError("connection refused")
        text = (await world.get("/metrics")).text
        world.store.failure = None

        assert "fluvial_queue_messages" not in text
        assert 'fluvial_store_errors_total{kind="scrape"} 1.0' in text

    control(scenario)


def test_openapi_document_describes_every_operation(control: Control) -> None:
    async def scenario(world: World) -> None:
        described = (await world.get("/openapi.json")).json()
        operations = [one for path in described["paths"].values() for one in path.values()]

        assert described["openapi"] == "3.1.0"
        assert {one["operationId"] for one in operations} == {o.name for o in world.operations}
        for path, methods in described["paths"].items():
            for one in methods.values():
                named = {p["name"] for p in one["parameters"] if p["in"] == "path"}
                assert named == _names(path), path
        assert all("default" in one["responses"] for one in operations)

    control(scenario)


def test_answers_are_what_the_document_says(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()
        run_id = await world.start()
        described = (await world.get("/openapi.json")).json()["paths"]
        deployment = deployed["deployment"]["deployment"]
        for path, actual in (
            ("/v1/apps", "/v1/apps"),
            ("/v1/apps/{app}", "/v1/apps/shop"),
            ("/v1/deployments/{id}", f"/v1/deployments/{deployment}"),
            ("/v1/runs", "/v1/runs"),
            ("/v1/runs/{id}", f"/v1/runs/{run_id}"),
            ("/v1/runs/{id}/events", f"/v1/runs/{run_id}/events"),
            ("/v1/runs/{id}/result", f"/v1/runs/{run_id}/result"),
            ("/v1/info", "/v1/info"),
            ("/v1/usage", "/v1/usage"),
            ("/v1/instances", "/v1/instances"),
        ):
            schema = described[path]["get"]["responses"]["200"]["content"]["application/json"]
            answer = (await world.get(actual)).json()
            assert set(answer) <= set(schema["schema"]["properties"]), path

    control(scenario)


def test_answers_may_not_be_cached_or_sniffed(control: Control) -> None:
    async def scenario(world: World) -> None:
        for path in ("/v1/runs", "/v1/none"):
            headers = (await world.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"

    control(scenario)


def _names(path: str) -> set[Any]:
    return {part[1:-1] for part in path.split("/") if part.startswith("{")}
