"""Runs from the outside: start, get, wait, follow, cancel, resume, over a platform in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fluvial.codec import decode, encode
from fluvial.context import Invocation, activate, context
from fluvial.encryption import AppKeys
from fluvial.error_payloads import encode_error
from fluvial.errors import (
    FluvialError,
    HookNotFoundError,
    InvalidRequestError,
    NotInInvocationError,
    RunCancelledError,
    RunClosedError,
    RunFailedError,
    RunNotFoundError,
    RunTerminatedError,
    SerializationError,
    StartConflictError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.hook_tokens import SECRET_BYTES, secret_token
from fluvial.ids import keyed_run_id, new_run_id, partition_of
from fluvial.invocations import pack_events
from fluvial.runs import Run, get_run, resume_hook
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.starting import start
from fluvial.workflows import workflow

APP, PARTITIONS = "orders", 64


class MemoryPlatform:
    """One app's runs, as the gateway would answer for them."""

    def __init__(self, keys: AppKeys) -> None:
        self.app = APP
        self.partitions = PARTITIONS
        self.keys = keys
        self.logs: dict[str, list[bytes]] = {}
        self.fingerprints: dict[str, bytes] = {}
        self.status: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.resumed: dict[str, bytes] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def new_run_id(self) -> str:
        return new_run_id(self.partitions)

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        self.calls.append((operation, arguments))
        answer: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]
        answer = getattr(self, f"_{operation}")
        return answer(arguments, body)

    def end(self, run_id: str, event_type: EventType, payload: bytes, status: str) -> None:
        self.logs[run_id].append(Event(event_type, 2000, 0, payload).encode())
        self.status[run_id] = status

    def _start(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        run_id, fingerprint = arguments["run_id"], arguments["fingerprint"]
        if run_id in self.logs:
            if self.fingerprints[run_id] != fingerprint:
                raise StartConflictError(arguments["key"], run_id)
            return {"run_id": run_id, "outcome": "duplicate"}, b""
        self.logs[run_id] = [Event(EventType.RUN_STARTED, 1000, 0, body).encode()]
        self.fingerprints[run_id] = fingerprint
        self.status[run_id] = "running"
        return {"run_id": run_id, "outcome": "accepted"}, b""

    def _run(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        run_id = arguments["run_id"]
        if run_id not in self.logs:
            raise RunNotFoundError(run_id)
        return {"status": self.status[run_id], "workflow": "flow"}, b""

    def _result(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        run_id = arguments["run_id"]
        is_over = self.status[run_id] not in {"pending", "running"}
        return {"status": self.status[run_id]}, self.logs[run_id][-1] if is_over else b""

    def _events(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        log = self.logs[arguments["run_id"]]
        found = {"status": self.status[arguments["run_id"]], "next": len(log)}
        return found, pack_events(log[arguments["start"] :])

    def _token(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        token = arguments["token"]
        if token not in self.tokens:
            raise HookNotFoundError(token)
        return {"run_id": self.tokens[token]}, b""

    def _resume(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        if self.status.get(arguments["run_id"]) == "failed":
            raise RunClosedError(arguments["run_id"])
        is_known = arguments["resume_id"] in self.resumed
        self.resumed[arguments["resume_id"]] = body
        return {"outcome": "duplicate" if is_known else "accepted"}, b""

    def _cancel(self, arguments: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        return {}, b""

    _terminate = _cancel


@workflow(name="flow")
async def flow(order: str, cents: int = 0) -> dict[str, int]:
    return {order: cents}


@pytest.fixture
def platform(keys: AppKeys) -> MemoryPlatform:
    return MemoryPlatform(keys)


def inside(platform: MemoryPlatform, body: Coroutine[Any, Any, Any]) -> Any:
    async def main() -> Any:
        activate(None, platform)
        return await body

    return asyncio.run(main())


def sealed_result(keys: AppKeys, run: Run[Any], value: Any) -> bytes:
    return keys.seal(Binding(APP, run.id, "result"), encode(value))


def test_start_seals_the_input_and_gives_a_run(platform: MemoryPlatform, keys: AppKeys) -> None:
    run = inside(platform, start(flow, "o-1", cents=5))

    operation, arguments = platform.calls[0]
    assert operation == "start"
    assert arguments["workflow"] == "flow"
    assert arguments["run_id"] == run.id
    assert partition_of(run.id) < PARTITIONS
    event = platform.logs[run.id][0]
    assert b"o-1" not in event
    payload = decode_event(event).payload
    assert keys.open(Binding(APP, run.id, "input"), payload) == encode_call(("o-1",), {"cents": 5})


def test_the_same_key_is_the_same_run(platform: MemoryPlatform) -> None:
    async def scenario() -> tuple[str, str]:
        first = await start(flow, "o-1", key="k")
        second = await start(flow, "o-1", key="k")
        with pytest.raises(StartConflictError):
            await start(flow, "o-2", key="k")
        found = await get_run(key="k", workflow=flow)
        return first.id, second.id if found.id == first.id else ""

    first, second = inside(platform, scenario())

    assert first == second == keyed_run_id(APP, "flow", "k", PARTITIONS)


def test_a_wrong_call_fails_at_the_start(platform: MemoryPlatform) -> None:
    with pytest.raises(TypeError):
        inside(platform, start(flow))
    with pytest.raises(SerializationError, match=r"args\[0\]"):
        inside(platform, start(flow, object()))
    with pytest.raises(InvalidRequestError, match="key"):
        inside(platform, start(flow, "o", key=""))
    assert platform.calls == []


def test_result_waits_and_decodes(platform: MemoryPlatform, keys: AppKeys) -> None:
    async def scenario() -> Any:
        run = await start(flow, "o-1")
        assert not run.done
        with pytest.raises(TimeoutError):
            await run.result(timeout=0)
        platform.end(
            run.id, EventType.RUN_COMPLETED, sealed_result(keys, run, {"a": 1}), "completed"
        )
        return await run.result(), run.done, run.status

    assert inside(platform, scenario()) == ({"a": 1}, True, "completed")


def test_a_failed_run_raises_with_its_cause(platform: MemoryPlatform, keys: AppKeys) -> None:
    async def scenario() -> None:
        run = await start(flow, "o-1")
        payload = keys.seal(Binding(APP, run.id, "error"), encode_error(ValueError("bad")))
        platform.end(run.id, EventType.RUN_FAILED, payload, "failed")
        with pytest.raises(RunFailedError, match="ValueError: bad") as caught:
            await run.result()
        assert isinstance(caught.value.__cause__, ValueError)

    inside(platform, scenario())


@pytest.mark.parametrize(
    ("event_type", "error"),
    [
        (EventType.RUN_CANCELLED, RunCancelledError),
        (EventType.RUN_TERMINATED, RunTerminatedError),
    ],
)
def test_a_stopped_run_raises(
    platform: MemoryPlatform, event_type: EventType, error: type[FluvialError]
) -> None:
    async def scenario() -> None:
        run = await start(flow, "o-1")
        await run.cancel("enough")
        await run.terminate()
        platform.end(run.id, event_type, b"", event_type.name.removeprefix("RUN_").lower())
        with pytest.raises(error):
            await run.result()

    inside(platform, scenario())


def test_events_and_follow_decode_payloads(platform: MemoryPlatform, keys: AppKeys) -> None:
    async def scenario() -> list[list[Any]]:
        run = await start(flow, "o-1")
        listed = [event.value for event in await run.events()]
        followed: list[Any] = []
        async for event in run.follow():
            followed.append((event.type.name, event.value))
            if event.type is EventType.RUN_STARTED:
                sealed = sealed_result(keys, run, 7)
                platform.end(run.id, EventType.RUN_COMPLETED, sealed, "completed")
        return [listed, followed]

    listed, followed = inside(platform, scenario())

    assert listed == [[["o-1"], {}]]
    assert followed == [("RUN_STARTED", [["o-1"], {}]), ("RUN_COMPLETED", 7)]


def test_a_token_that_names_a_run_that_has_ended_is_its_fork_s(
    platform: MemoryPlatform, keys: AppKeys
) -> None:
    maker, fork = (keyed_run_id(APP, "flow", key, PARTITIONS) for key in "ab")
    made = secret_token(maker, bytes(SECRET_BYTES))
    platform.status[maker] = "failed"

    async def scenario() -> None:
        platform.tokens[made] = maker
        with pytest.raises(RunClosedError):
            await resume_hook(made, 1, resume_id="r")
        platform.tokens[made] = fork
        assert await resume_hook(made, 5, resume_id="r") is True

    inside(platform, scenario())

    assert decode(keys.open(Binding(APP, fork, "hook", made), platform.resumed["r"])) == 5


def test_resume_seals_for_the_run_that_holds_the_token(
    platform: MemoryPlatform, keys: AppKeys
) -> None:
    run_id = keyed_run_id(APP, "flow", "k", PARTITIONS)
    made = f"hook_{run_id.removeprefix('run_')}_{'a' * 24}"
    platform.tokens["order:1"] = run_id

    async def scenario() -> None:
        assert await resume_hook("order:1", {"ok": True}, resume_id="r1") is True
        assert await resume_hook("order:1", {"ok": True}, resume_id="r1") is False
        assert await resume_hook(made, 5, resume_id="r2") is True
        with pytest.raises(HookNotFoundError):
            await resume_hook("unknown", 1)

    inside(platform, scenario())

    opened = keys.open(Binding(APP, run_id, "hook", "order:1"), platform.resumed["r1"])
    assert decode(opened) == {"ok": True}
    opened = keys.open(Binding(APP, run_id, "hook", made), platform.resumed["r2"])
    assert decode(opened) == 5


def test_get_run_says_what_is_missing(platform: MemoryPlatform) -> None:
    with pytest.raises(RunNotFoundError):
        inside(platform, get_run(keyed_run_id(APP, "flow", "none", PARTITIONS)))
    with pytest.raises(InvalidRequestError):
        inside(platform, get_run())
    with pytest.raises(InvalidRequestError):
        inside(platform, get_run(key="k"))


def test_outside_an_invocation_nothing_is_served() -> None:
    with pytest.raises(NotInInvocationError):
        asyncio.run(start(flow, "o"))
    with pytest.raises(NotInInvocationError):
        context()


def test_the_invocation_is_known_where_it_runs(platform: MemoryPlatform) -> None:
    invocation = Invocation(id="inv_1", kind="http", app=APP, deployment="dpl_1", instance="ins_1")

    async def main() -> Invocation:
        activate(invocation, platform)
        return context()

    assert asyncio.run(main()) is invocation
