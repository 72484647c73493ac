"""Bad input is a 4xx problem that says what is wrong, where, and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial_gateway.control.starting import MAX_INPUT_BYTES
from tests.integration.control.world import World

Control = Callable[..., None]
RUN = "run_0006h1kv6z0wt3bdqwdsmjzd44"  # nobody has it
ELSEWHERE = f"run_zz{RUN[6:]}"  # a partition that this store does not have
START = "/v1/apps/shop/workflows/fulfil/runs"
DIGEST = {"x-fluvial-bundle-digest": "0" * 64}
JSON = {"content-type": "application/json"}

CASES: list[tuple[str, str, dict[str, Any], int, str]] = [
    # paths
    ("GET", "/v1", {}, 404, "/openapi.json"),
    ("GET", "/v1/runs/", {}, 404, "/openapi.json"),
    ("DELETE", "/v1/runs", {}, 405, "DELETE"),
    ("PUT", "/v1/tokens", {}, 405, "PUT"),
    ("GET", "/v1/runs/run_1", {}, 400, "not a run id"),
    ("GET", f"/v1/runs/{RUN}", {}, 404, RUN),
    ("GET", f"/v1/runs/{ELSEWHERE}", {}, 404, ELSEWHERE),
    ("POST", f"/v1/runs/{ELSEWHERE}/cancel", {}, 404, ELSEWHERE),
    ("GET", f"/v1/runs/{'x' * 65}", {}, 400, "65 characters"),
    ("GET", "/v1/apps/Shop", {}, 400, "app: 'Shop' does not match"),
    ("GET", "/v1/apps/none", {}, 404, "none"),
    ("GET", "/v1/apps/%00", {}, 400, "app"),
    ("GET", "/v1/deployments/dpl_1", {}, 400, "id"),
    ("GET", f"/v1/deployments/dpl_{'0' * 24}", {}, 404, "dpl_"),
    ("POST", "/v1/hooks/shop/", {"json": 1}, 400, "token: has 0 characters"),
    ("POST", f"/v1/hooks/shop/{'t' * 513}", {"json": 1}, 400, "token: has 513 characters"),
    ("POST", "/v1/hooks/none/t", {"json": 1}, 404, "none"),
    ("POST", f"/v1/apps/shop/workflows/{'w' * 513}/runs", {}, 400, "workflow: has 513"),
    ("POST", "/v1/apps/none/workflows/w/runs", {}, 404, "none"),
    # query
    ("GET", "/v1/runs?limit=0", {}, 400, "limit: is 0, expected 1 to 500"),
    ("GET", "/v1/runs?limit=501", {}, 400, "expected 1 to 500"),
    ("GET", "/v1/runs?limit=ten", {}, 400, "'ten' is not an integer"),
    ("GET", "/v1/runs?limit=1&limit=2", {}, 400, "given 2 times"),
    ("GET", f"/v1/runs?limit={'9' * 40}", {}, 400, "is not an integer"),
    ("GET", "/v1/runs?colour=x", {}, 400, "known: app, workflow"),
    ("GET", "/v1/runs?status=done", {}, 400, "known: pending, running"),
    ("GET", "/v1/runs?since=yesterday", {}, 400, "2026-01-31T12:00:00Z"),
    ("GET", "/v1/runs?since=10000-01-01T00:00:00Z", {}, 400, "since"),
    ("GET", "/v1/runs?cursor=nonsense", {}, 400, "not a cursor"),
    ("GET", "/v1/runs?cursor=", {}, 400, "cursor: has 0 characters"),
    ("GET", f"/v1/runs/{RUN}?data=yes", {}, 400, "neither true nor false"),
    ("GET", f"/v1/runs/{RUN}/events?start=-1", {}, 400, "start: is -1"),
    ("GET", f"/v1/runs/{RUN}/result?wait=301", {}, 400, "0 to 300"),
    ("GET", f"/v1/runs/{RUN}/result?wait=1.5", {}, 400, "is not an integer"),
    ("GET", "/v1/apps?x", {}, 400, "known: none"),
    # headers
    ("GET", f"/v1/runs/{RUN}/events", {"headers": {"last-event-id": "x"}}, 400, "last-event-id"),
    ("POST", START, {"headers": {"idempotency-key": ""}}, 400, "idempotency-key"),
    ("POST", START, {"headers": {"idempotency-key": "k" * 513}}, 400, "1 to 512"),
    ("POST", "/v1/deployments", {}, 400, "x-fluvial-bundle-digest is missing"),
    ("POST", "/v1/deployments", {"headers": {"x-fluvial-bundle-digest": "A" * 64}}, 400, "match"),
    ("POST", "/v1/deployments?promote=1", {"headers": DIGEST}, 400, "promote"),
    ("POST", "/v1/deployments?name=Big", {"headers": DIGEST}, 400, "name"),
    (
        "POST",
        "/v1/deployments",
        {"headers": {**DIGEST, "content-type": "text/html"}},
        415,
        "application/zstd",
    ),
    # bodies
    ("POST", START, {"content": b"{", "headers": JSON}, 400, "not JSON"),
    ("POST", START, {"content": b"[NaN]", "headers": JSON}, 400, "NaN"),
    ("POST", START, {"content": b"[1e999]", "headers": JSON}, 400, "not JSON"),
    ("POST", START, {"content": b'["\\ud800"]', "headers": JSON}, 400, "not JSON"),
    ("POST", START, {"content": b"\xff", "headers": JSON}, 400, "not JSON"),
    ("POST", START, {"content": b"[" * 200_000, "headers": JSON}, 400, ""),
    ("POST", START, {"content": b"[" + b"9" * 5000 + b"]", "headers": JSON}, 400, "not JSON"),
    ("POST", START, {"content": b"[]", "headers": {"content-type": "text/plain"}}, 415, "json"),
    ("POST", START, {"json": "text"}, 400, "body: expected array, got string"),
    ("POST", START, {"json": {"arg": []}}, 400, "unknown member 'arg'; known: args, kwargs, key"),
    ("POST", START, {"json": {"args": {}}}, 400, "body.args: expected array, got object"),
    ("POST", START, {"json": {"kwargs": []}}, 400, "body.kwargs: expected object, got array"),
    ("POST", START, {"json": {"key": 1}}, 400, "body.key: expected string, got integer"),
    ("POST", START, {"json": {"key": ""}}, 400, "body.key"),
    ("POST", START, {"json": {"key": "a"}, "headers": {"idempotency-key": "b"}}, 400, "different"),
    ("POST", START, {"json": ["x" * MAX_INPUT_BYTES]}, 413, str(MAX_INPUT_BYTES)),
    ("POST", f"/v1/runs/{RUN}/cancel", {"json": {"why": ""}}, 400, "known: reason"),
    ("POST", f"/v1/runs/{RUN}/cancel", {"json": {"reason": "r" * 501}}, 400, "0 to 500"),
    ("POST", f"/v1/runs/{RUN}/cancel", {"json": []}, 400, "expected object"),
    ("POST", "/v1/apps/shop/promote", {}, 400, "not JSON"),
    ("POST", "/v1/apps/shop/promote", {"json": {}}, 400, "'deployment' is missing"),
    ("POST", "/v1/apps/shop/promote", {"json": {"deployment": "x"}}, 400, "body.deployment"),
    ("POST", "/v1/tokens", {"json": {"name": "n"}}, 400, "'scopes' is missing"),
    ("POST", "/v1/tokens", {"json": {"name": "n", "scopes": []}}, 400, "body.scopes: has 0 items"),
    ("POST", "/v1/tokens", {"json": {"name": "n", "scopes": ["root"]}}, 400, "body.scopes[0]"),
    ("POST", "/v1/tokens", {"json": {"name": "", "scopes": ["admin"]}}, 400, "body.name"),
    ("POST", "/v1/tokens", {"json": {"name": True, "scopes": ["admin"]}}, 400, "got boolean"),
    ("POST", "/v1/hooks/shop/t", {}, 400, "not JSON"),
]


@pytest.mark.parametrize(("method", "path", "options", "status", "says"), CASES)
def test_bad_request_is_a_problem_that_says_what_is_wrong(
    control: Control, method: str, path: str, options: dict[str, Any], status: int, says: str
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        response = await world.client.request(method, path, **options)

        problem = response.json()
        assert (response.status_code, problem["status"]) == (status, status), problem
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["type"] == f"urn:fluvial:problem:{problem['code']}"
        assert problem["title"]
        assert says in problem["detail"]
        assert (await world.get("/v1/runs")).json()["runs"] == []

    control(scenario)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.text(max_size=20), name=st.text(max_size=20), value=st.text(max_size=20), body=_JSON)
def test_no_input_gives_a_server_error(
    control: Control, path: str, name: str, value: str, body: object
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        for operation in world.operations:
            target = operation.path
            for place in operation.placed("path"):
                raw = path.encode("utf-8", "replace").hex("%")
                text = f"%{raw}" if raw else "x"
                target = target.replace(f"{{{place.name}}}", text)
                target = target.replace(f"{{{place.name}:path}}", text)
            parameters = {p.name: value for p in operation.placed("query")} | {name: value}
            response = await world.client.request(
                operation.method,
                target,
                params=_encodable(parameters),
                json=_encodable(body) if operation.method == "POST" else None,
            )
            assert response.status_code < 500, (operation.name, response.text)

    control(scenario)


def _encodable(value: Any) -> Any:
    """Only what a client can send: no lone surrogates, no numbers that JSON has not."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return 0.5
    if isinstance(value, list):
        return [_encodable(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {_encodable(key): _encodable(item) for key, item in items}
    return value
