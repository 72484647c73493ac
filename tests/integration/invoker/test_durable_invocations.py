"""Turns, steps, reveals and calls to the platform, in real instances."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import msgpack

from fluvial.codec import encode
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.ids import new_run_id
from fluvial.invocations import Answer, RevealRequest, StepHistory, StepRequest, TurnRequest
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.wire import FrameType
from fluvial_invoker.key_files import KeyFile
from tests.integration.invoker.conftest import APP_URL

ORDERS = """
    import asyncio, threading, time
    import fluvial
    from fluvial import start, step, workflow

    @step
    async def double(number: int) -> int:
        print("doubling", number)
        return number * 2

    @step
    def burn(seconds: float) -> str:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return f"{fluvial.context().kind} {fluvial.metadata().attempt}"

    @step
    async def wait() -> None:
        await asyncio.sleep(3600)

    @workflow
    async def order(number: int) -> int:
        print("ordering", number)
        return await double(number)

    async def app(request):
        try:
            run = await start(order, 21, key="k")
        except fluvial.FluvialError as error:
            return 409, {"code": error.code, "text": str(error)}
        here = fluvial.context()
        return {"run": run.id, "me": here.id, "url": here.app_url}
"""


class Platform:
    """What the test knows of one deployment: its keys, and a run of it."""

    def __init__(self, machine: Any) -> None:
        content, _ = KeyFile(machine.home / "keyring", "demo").read()
        roots = {key.id: bytes(key.blob) for key in content.keys if key.blob}
        self.keys = AppKeys("demo", roots, content.current)
        self.run_id = new_run_id(64)

    def seal(self, kind: Any, plaintext: bytes, correlation: int = 0, index: int = 0) -> bytes:
        return self.keys.seal(Binding("demo", self.run_id, kind, correlation, index), plaintext)

    def open(self, kind: Any, envelope: bytes, correlation: int = 0) -> bytes:
        return self.keys.open(Binding("demo", self.run_id, kind, correlation), envelope)

    def first_turn(self, workflow: str, *args: Any) -> TurnRequest:
        sealed = self.seal("input", encode_call(args, {}))
        started = Event(EventType.RUN_STARTED, 1000, 0, sealed, {"workflow": workflow})
        return TurnRequest(
            run_id=self.run_id,
            app="demo",
            workflow=workflow,
            turn_id=None,
            consumed=0,
            now_ms=1000,
            events=[started.encode()],
        )

    def step(self, name: str, sealed: bytes, carry: bytes | None = None) -> StepRequest:
        return StepRequest(
            run_id=self.run_id,
            app="demo",
            workflow="order",
            step=name,
            id=1,
            attempt=1,
            invocation="inv_step",
            timeout_ms=0,
            now_ms=2000,
            carry=carry,
            input=sealed,
        )


async def invoke(link: Any, number: int, request: Any) -> tuple[Answer, int]:
    kind, meta, body = request.to_frame_fields()
    link.send(FrameType.INVOKE, number, kind, meta, body=body)
    frame = await link.next(number)
    assert frame.header[0] == FrameType.ANSWER
    return Answer.from_frame(frame.header[2], frame.header[3], frame.body), frame.header[4]


def test_run_from_start_to_end(machine: Any, serve: Any) -> None:
    async def main() -> None:
        spec = machine.spec(ORDERS, entrypoint=None, workflows=("main",))
        async with serve(spec) as (invoker, handed, link):
            await link.next(kind=FrameType.WELCOME)
            platform = Platform(machine)
            asked, cpu_us = await invoke(link, 1, platform.first_turn("order", 21))
            scheduled = decode_event(asked.events[0])

            assert (asked.outcome, scheduled.type) == ("ok", EventType.STEP_SCHEDULED)
            assert 0 < cpu_us < 1_000_000
            request = platform.step("double", scheduled.payload, asked.turn_id)
            done, _ = await invoke(link, 2, request)
            result, end = (decode_event(event) for event in done.events)
            assert (result.type, end.type) == (
                EventType.STEP_COMPLETED,
                EventType.RUN_COMPLETED,
            )
            assert platform.open("result", end.payload) == encode(42, "result")

            reveal = RevealRequest(
                run_id=platform.run_id, app="demo", workflow="order", events=done.events
            )
            kind, meta, body = reveal.to_frame_fields()
            link.send(FrameType.INVOKE, 3, kind, meta, body=body)
            assert msgpack.unpackb((await link.next(3)).body) == ["42", "42"]

            stale, _ = await invoke(link, 4, request)
            assert len(stale.events) == 1  # the run is over, so nothing is carried over
            invoker.send(FrameType.KILL, 0, handed.instance, 5000)
            await invoker.death_of(handed.instance)
        lines = [json.loads(line) for line in machine.app_log().splitlines()]
        said = [line for line in lines if line["stream"] == "stdout"]
        members = ("message", "run", "invocation", "kind", "function", "step", "attempt")
        assert [tuple(line.get(member) for member in members) for line in said[:2]] == [
            ("ordering 21", platform.run_id, None, "turn", "order", None, None),
            ("doubling 21", platform.run_id, "inv_step", "step", "double", 1, 1),
        ]

    asyncio.run(main())


def test_sync_step_runs_in_a_metered_thread(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(ORDERS)) as (_, _, link):
            await link.next(kind=FrameType.WELCOME)
            platform = Platform(machine)
            sealed = platform.seal("step_input", encode_call((0.1,), {}), 1)
            answer, cpu_us = await invoke(link, 1, platform.step("burn", sealed))
            event = decode_event(answer.events[0])

            assert platform.open("step_result", event.payload, 1) == encode("step 1", "result")
            assert 100_000 <= cpu_us < 200_000

    asyncio.run(main())


def test_cancelled_step_says_so_and_is_drained(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(ORDERS, max_concurrency=1)) as (_, _, link):
            await link.next(kind=FrameType.WELCOME)
            platform = Platform(machine)
            sealed = platform.seal("step_input", encode_call((), {}), 1)
            kind, meta, body = platform.step("wait", sealed).to_frame_fields()
            link.send(FrameType.INVOKE, 1, kind, meta, body=body)
            nack = await link.next(link.request())
            link.send(FrameType.CANCEL, 1, "run_cancelled")
            frame = await link.next(1)
            if frame.header[0] == FrameType.NACK:
                frame = await link.next(1)

            assert nack.header[2] == "concurrency"
            assert frame.header[0] == FrameType.ANSWER
            assert frame.header[2] == "cancelled"

    asyncio.run(main())


def test_handler_calls_the_platform(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(ORDERS)) as (_, _, link):
            await link.next(kind=FrameType.WELCOME)
            number = 100
            link._last = number - 1
            assert link.request() == number
            call = await link.next(kind=FrameType.CALL)
            _, call_id, invocation, operation, arguments = call.header
            run_id = arguments["run_id"]
            platform = Platform(machine)
            binding = Binding("demo", run_id, "input")
            link.send(FrameType.REPLY, call_id, "ok", {"run_id": run_id, "outcome": "accepted"})
            reply = await link.reply(number)

            assert (invocation, operation, arguments["workflow"]) == (number, "start", "order")
            assert platform.keys.open(binding, call.body) == encode_call((21,), {})
            assert json.loads(reply.body) == {
                "run": run_id,
                "me": f"inv_{number:024d}",
                "url": APP_URL,
            }

            number = link.request()
            call = await link.next(kind=FrameType.CALL)
            details = {"run_id": run_id, "message": "another input"}
            link.send(FrameType.REPLY, call.header[1], "start_conflict", details)
            refused = json.loads((await link.reply(number)).body)
            assert refused["code"] == "start_conflict"
            assert run_id in refused["text"]

    asyncio.run(main())


LATE = """
    from dataclasses import dataclass
    from fluvial import step, workflow

    @dataclass
    class Till:
        currency: str

        @step
        async def charge(self, cents: int) -> str:
            return f"{cents} {self.currency}"

    steps = {}

    def adding(amount):
        @step(name=f"add {amount}")
        async def add(number: int) -> int:
            return number + amount
        return add

    steps["early"] = adding(1)

    async def app(request):
        steps["late"] = adding(2)
        return "defined"

    @workflow
    async def main(which: str):
        if which == "method":
            return await Till("EUR").charge(5)
        return await steps[which](1)
"""


def test_a_step_that_only_this_instance_has_is_refused(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(LATE)) as (_, _, link):
            await link.next(kind=FrameType.WELCOME)
            assert (await link.get("/")).body == b"defined"
            platform = Platform(machine)
            early, _ = await invoke(link, 101, platform.first_turn("main", "early"))
            late, _ = await invoke(link, 102, platform.first_turn("main", "late"))
            method, _ = await invoke(link, 103, platform.first_turn("main", "method"))

            assert decode_event(early.events[0]).meta["name"] == "add 1"
            failed = decode_event(late.events[0])
            assert failed.type is EventType.RUN_FAILED
            assert failed.meta["reason"] == "step_unresolvable"
            scheduled = decode_event(method.events[0])
            request = platform.step("Till.charge", scheduled.payload)
            done = decode_event((await invoke(link, 104, request))[0].events[0])
            assert platform.open("step_result", done.payload, 1) == encode("5 EUR", "result")

    asyncio.run(main())


BEATING = """
    import asyncio, time
    import fluvial
    from fluvial import heartbeat, step

    @step(heartbeat="1s")
    async def copy():
        heartbeat({"rows": 7})
        await asyncio.sleep(3600)

    @step(heartbeat="10s")
    def work():
        heartbeat("in a thread")
        return fluvial.metadata().progress
"""


def _only_event(frame: Any) -> Event:
    (event,) = Answer.from_frame(frame.header[2], frame.header[3], frame.body).events
    return decode_event(event)


def test_heartbeats_are_reported_and_their_lack_ends_an_attempt(machine: Any, serve: Any) -> None:
    async def main() -> None:
        spec = machine.spec(BEATING, entrypoint=None, workflows=("main",))
        async with serve(spec) as (_, _, link):
            await link.next(kind=FrameType.WELCOME)
            platform = Platform(machine)
            sealed = platform.seal("step_input", encode_call((), {}), 1)
            kind, meta, body = platform.step("copy", sealed).to_frame_fields()
            link.send(FrameType.INVOKE, 1, kind, meta, body=body)
            beat = await link.next(1, FrameType.HEARTBEAT)
            answer = await link.next(1, FrameType.ANSWER)
            retrying = _only_event(answer)

            assert platform.open("progress", beat.body, 1) == encode({"rows": 7}, "progress")
            assert (retrying.type, retrying.meta["reason"]) == (
                EventType.STEP_RETRYING,
                "heartbeat",
            )
            left = retrying.meta["progress"]
            assert platform.open("progress", left, 1) == encode({"rows": 7}, "progress")

            request = replace(platform.step("work", sealed), history=StepHistory(progress=left))
            kind, meta, body = request.to_frame_fields()
            link.send(FrameType.INVOKE, 2, kind, meta, body=body)
            beat = await link.next(2, FrameType.HEARTBEAT)
            answer = await link.next(2, FrameType.ANSWER)
            done = _only_event(answer)

            assert platform.open("progress", beat.body, 1) == encode("in a thread", "progress")
            assert platform.open("step_result", done.payload, 1) == encode({"rows": 7}, "result")

    asyncio.run(main())
