"""Reading streams over HTTP: pages, followers, raw bytes, and who may see what."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fluvial.errors import UnavailableError
from fluvial.events import Event, EventType, decode_event
from fluvial_gateway.auth import Scope
from fluvial_gateway.invocations import Unavailable
from fluvial_queue.contract import RunStatus
from fluvial_queue.messages import Message, MessageKind
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
FOLLOW = {"accept": "text/event-stream"}
RAW = {"accept": "application/octet-stream"}


def shown(**content: Any) -> bytes:
    """What an instance says of a chunk; in this world it is what is stored, too."""
    return json.dumps(content).encode()


class Stream:
    """The stream `tokens` of a run with one step under way."""

    def __init__(self, world: World, run_id: str) -> None:
        self.world = world
        self.run_id = run_id
        self.path = f"/v1/runs/{run_id}/streams/tokens"
        self.written = 0

    async def write(self, *payloads: bytes, close: bool = False, attempt: int = 1) -> None:
        subject = await self.world.subject(self.run_id, attempt)
        await self.world.streams.append(
            "shop", subject, name="tokens", first=self.written, chunks=payloads, close=close
        )
        self.written += len(payloads)

    async def end(self) -> None:
        """Let the run end."""
        ended = Event(EventType.RUN_COMPLETED, 2000, 0, b'"done"')
        await self.world.record(self.run_id, ended, status=RunStatus.COMPLETED)

    async def next_execution(self) -> None:
        """Have the step executed once more."""
        await self.world.record(self.run_id, status=RunStatus.RUNNING)
        again = Message(MessageKind.STEP, self.run_id, 1, 2).encode()
        await self.world.store.send(self.run_id, again)
        self.written = 0

    async def read(self, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return await self.world.get(self.path, headers=headers or {}, params=query)


async def stream(world: World) -> Stream:
    await world.deploy()
    return Stream(world, await world.start())


def sent(text: str) -> list[dict[str, str]]:
    """The server-sent events, as fields."""
    return [
        dict(line.split(": ", 1) for line in block.split("\n"))
        for block in text.split("\n\n")
        if block and not block.startswith(":")
    ]


def test_a_page_shows_what_is_in_a_stream(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(
            shown(value="Hello"), shown(value={"n": 1}), shown(bytes="AAE="), shown(repr="{1}")
        )
        page = (await tokens.read()).json()

        contents: list[dict[str, Any]] = [
            {"value": "Hello"},
            {"value": {"n": 1}},
            {"bytes": "AAE="},
            {"repr": "{1}"},
        ]
        for position, (entry, content) in enumerate(zip(page["entries"], contents, strict=True)):
            at = entry.pop("at")
            assert at.endswith("Z")
            assert entry == {
                "position": position,
                "type": "chunk",
                "step": 1,
                "attempt": 1,
                **content,
            }
        assert (page["next"], page["length"], page["closed"]) == (4, 4, False)
        (request,) = world.invocations.requests
        asked = decode_event(request.events[1])
        assert (asked.type, asked.id) == (EventType.STREAM_CHUNK, 1)
        assert asked.meta == {"stream": "tokens", "attempt": 1, "index": 1}

    control(scenario)


def test_pages_go_on_where_the_last_one_ended(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(*[shown(value=number) for number in range(5)], close=True)
        one = (await tokens.read(limit=2)).json()
        rest = (await tokens.read(start=one["next"])).json()
        last = (await tokens.read(start=-1)).json()

        assert [e["value"] for e in one["entries"] + rest["entries"]] == [0, 1, 2, 3, 4]
        assert (one["closed"], rest["closed"]) == (False, True)
        assert [e["value"] for e in last["entries"]] == [4]

    control(scenario)


def test_a_page_may_wait_for_its_first_entry(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        reading = asyncio.create_task(tokens.read(wait=20))
        while not world.streams.waiting:  # noqa: ASYNC110 - no event tells that somebody waits
            await asyncio.sleep(0)
        await tokens.write(shown(value="late"))
        assert [e["value"] for e in (await reading).json()["entries"]] == ["late"]

        await tokens.end()
        ended = (await tokens.read(start=1, wait=20)).json()
        assert (ended["entries"], ended["closed"]) == ([], True)

    control(scenario)


def test_void_chunks_are_not_shown_and_a_reset_says_so(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(shown(value="void"))
        await tokens.next_execution()
        await tokens.write(shown(value="valid"), attempt=2)
        reset, chunk = (await tokens.read()).json()["entries"]

        assert (reset["type"], reset["since"], reset["attempt"]) == ("reset", 0, 2)
        assert (chunk["position"], chunk["value"]) == (2, "valid")

    control(scenario)


def test_a_follower_sees_what_is_written_until_the_stream_is_closed(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        following = asyncio.create_task(tokens.read(FOLLOW))
        while not world.streams.waiting:  # noqa: ASYNC110 - no event tells that somebody waits
            await asyncio.sleep(0)
        await tokens.write(shown(value="a"))
        await tokens.next_execution()
        await tokens.write(shown(value="b"), attempt=2)
        await tokens.end()
        response = await following

        assert response.headers["content-type"].startswith("text/event-stream")
        events = sent(response.text)
        kinds = [(event["id"], event.get("event", "")) for event in events]
        assert kinds[-3:] == [("1", "reset"), ("2", ""), ("2", "end")]
        assert json.loads(events[-2]["data"])["value"] == "b"
        assert json.loads(events[-1]["data"]) == {"next": 3}

    control(scenario)


def test_a_follower_resumes_behind_what_it_has_seen(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(*[shown(value=number) for number in range(3)], close=True)
        resumed = await tokens.read({**FOLLOW, "last-event-id": "1"})
        over = await tokens.read({**FOLLOW, "last-event-id": "2"})

        assert [event["id"] for event in sent(resumed.text)] == ["2", "2"]
        assert over.status_code == 204

    control(scenario)


def test_a_follower_of_a_quiet_stream_hears_that_it_is_still_connected(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        following = asyncio.create_task(tokens.read(FOLLOW))
        await asyncio.wait([following], timeout=0.2)  # four keep-alive intervals of this world
        world.waits.close()

        assert (await following).text.count(": still here") >= 2

    control(scenario)


def test_raw_chunks_follow_each_other_until_the_stream_is_closed(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        following = asyncio.create_task(tokens.read(RAW))
        raw = base64.b64encode(b"\x00\xff").decode()
        await tokens.write(shown(value="Grüße"), shown(bytes=raw))
        await tokens.write(shown(value={"n": [1]}), shown(repr="{1}"), close=True)
        response = await following

        assert response.headers["content-type"] == "application/octet-stream"
        assert response.content == "Grüße".encode() + b'\x00\xff{"n":[1]}\n{1}'

    control(scenario)


@pytest.mark.parametrize("chunk", [b"<cannot be decrypted>", shown(bytes="not base64")])
def test_raw_breaks_where_a_chunk_cannot_be_shown(control: Control, chunk: bytes) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(shown(value="a"), chunk, close=True)
        with pytest.raises(UnavailableError):  # the server breaks the connection
            await tokens.read(RAW)

    control(scenario)


def test_a_chunk_that_cannot_be_shown_says_so(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(b"<altered>", shown(other=1), shown(bytes=7), shown(value=None))
        entries = (await tokens.read()).json()["entries"]

        assert entries[0]["unreadable"] == "<altered>"
        assert all("unreadable" in entry for entry in entries[:3])
        assert entries[3]["value"] is None

    control(scenario)


def test_a_deployment_that_cannot_decrypt_is_a_clear_answer(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(shown(value="a"))
        world.invocations.outcome = Unavailable("import_failed", "a test's", retryable=False)

        assert (await tokens.read()).json()["code"] == "not_revealed"

    control(scenario)


def test_streams_are_listed_without_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(b"12345")
        listed = (await world.get(f"/v1/runs/{tokens.run_id}/streams")).json()

        one = {"name": "tokens", "length": 1, "bytes": 5, "closed": False}
        assert listed == {"streams": [one]}
        assert world.invocations.requests == []

    control(scenario)


def test_reading_needs_the_right_to_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        tokens = await stream(world)
        await tokens.write(shown(value="secret"))
        reader = await world.tokens.create("reader", [Scope.RUNS_READ])
        async with client_of(world, reader) as client:
            for headers in ({}, FOLLOW, RAW):
                assert (await client.get(tokens.path, headers=headers)).status_code == 403
        assert world.invocations.requests == []

    control(scenario)


def test_a_name_may_have_slashes_and_must_be_a_name(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = (await stream(world)).run_id
        base = f"/v1/runs/{run_id}/streams"
        for name in ("log/2026", "log%2F2026"):
            assert (await world.get(f"{base}/{name}")).json()["entries"] == []
        for name in ("a%20b", "-x"):
            refused = await world.get(f"{base}/{name}")
            assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert (await world.get(f"{base}/tokens?start=x")).status_code == 400
        assert (await world.get("/v1/runs/run_00zz/streams/tokens")).status_code in (400, 404)

    control(scenario)
