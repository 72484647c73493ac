"""Reading and following logs over the control API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fluvial.ids import new_id
from fluvial.log_files import segment_path, segments, time_text
from fluvial_gateway.auth import Scope
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
NOW_MS = 1_700_000_000_000
SECONDS = 20.0


class Log:
    """Writes one app's log as the invoker does, and tells of it."""

    def __init__(self, world: World, app: str = "shop") -> None:
        self.app = app
        self.folder = world.logs / app
        self.folder.mkdir(parents=True, exist_ok=True)
        self._world = world
        self._written = 0

    def write(self, *messages: str, tell: bool = True, **members: Any) -> None:
        path = self._path()
        with path.open("a") as file:
            for message in messages:
                self._written += 1
                record = {
                    "time": time_text(NOW_MS + self._written),
                    "level": "info",
                    "app": self.app,
                    **members,
                    "message": message,
                }
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
        if tell:
            self._world.log_watches.logged(self.app)

    def begin(self) -> None:
        """Begin another segment."""
        segment_path(self.folder, NOW_MS + self._written + 1).touch()

    def _path(self) -> Path:
        found = segments(self.folder)
        return found[-1].path if found else segment_path(self.folder, NOW_MS)


def messages(page: dict[str, Any]) -> list[str]:
    return [record["message"] for record in page["records"]]


async def page(world: World, **parameters: Any) -> dict[str, Any]:
    response = await world.get("/v1/logs", params={"app": "shop", **parameters})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_page_begins_where_it_is_told_to(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        log.write(*(f"m{number}" for number in range(10)))
        first = await page(world, limit=4)
        second = await page(world, limit=4, cursor=first["next"])
        last = await page(world, tail=3)
        since = await page(world, since=time_text(NOW_MS + 9))
        none = await page(world, since="1s")

        assert messages(first) == ["m0", "m1", "m2", "m3"]
        assert messages(second) == ["m4", "m5", "m6", "m7"]
        assert messages(last) == ["m7", "m8", "m9"]
        assert messages(since) == ["m8", "m9"]
        assert (none["records"], none["done"]) == ([], True)
        assert (first["done"], last["done"], first["missed"]) == (False, True, False)

    control(scenario)


def test_records_are_narrowed_by_all_filters_together(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        invocation = new_id("inv")
        log.write("a", deployment="dpl_1", kind="http", function="http", invocation=invocation)
        log.write("b", deployment="dpl_1", kind="step", function="charge", level="warning")
        log.write("c", deployment="dpl_2", kind="step", function="charge", level="error")
        log.write("d", instance="ins_1", kind="instance", level="critical")

        assert messages(await page(world, deployment="dpl_1")) == ["a", "b"]
        assert messages(await page(world, kind="step", level="error")) == ["c"]
        assert messages(await page(world, function="charge", text="b")) == ["b"]
        assert messages(await page(world, instance="ins_1")) == ["d"]
        assert messages(await page(world, level="warning")) == ["b", "c", "d"]
        assert messages(await page(world, tail=1, level="error", kind="step")) == ["c"]

    control(scenario)


def test_a_run_is_looked_for_only_while_it_lived(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run = await world.start()
        created = await world.store.read_run(run)
        assert created is not None
        other = Log(world)
        hour_ms = 3_600_000
        for hours, text in ((-1, "before"), (0, "during"), (1, "after")):
            at = created.created_ms + hours * hour_ms
            record = {"time": time_text(at), "level": "info", "run": run, "message": text}
            segment_path(other.folder, at).write_text(
                json.dumps(record, separators=(",", ":")) + "\n"
            )
        assert messages(await page(world, run=run)) == ["during", "after"]
        await world.finish(run)

        assert messages(await page(world, run=run)) == ["during"]
        assert messages(await page(world, run=run, tail=5)) == ["during"]

    control(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "app=../../token",
        "app=shop&cursor=1",
        "app=shop&cursor=1.-2",
        "app=shop&level=loud",
        "app=shop&since=yesterday",
        "app=shop&run=run_1",
        "app=shop&tail=1001",
        "app=shop&colour=red",
    ],
)
def test_a_wrong_parameter_is_refused(control: Control, query: str) -> None:
    async def scenario(world: World) -> None:
        response = await world.get(f"/v1/logs?{query}")

        assert response.status_code == 400
        assert response.json()["code"] == "invalid_request"

    control(scenario)


def test_logs_need_a_scope_of_their_own_and_reading_them_is_audited(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        Log(world).write("a secret")
        others = [scope for scope in Scope if scope not in (Scope.ADMIN, Scope.LOGS_READ)]
        async with client_of(world, await world.tokens.create("others", others)) as client:
            assert (await client.get("/v1/logs?app=shop")).status_code == 403
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        caplog.clear()
        async with client_of(world, await world.tokens.create("eyes", [Scope.LOGS_READ])) as client:
            assert (await client.get("/v1/logs?app=shop&text=secret")).status_code == 200

        (line,) = [record for record in caplog.records if record.message == "logs read"]
        assert (line.__dict__["token_name"], line.__dict__["app"]) == ("eyes", "shop")
        assert "secret" not in str(line.__dict__["filters"])

    control(scenario)


# Following


class Follower:
    """A client that follows a log, and takes no more than it asks for."""

    def __init__(self, world: World, query: str, last_event_id: str) -> None:
        headers = [
            (b"host", b"control"),
            (b"accept", b"text/event-stream"),
            (b"authorization", f"Bearer {world.token}".encode()),
        ]
        if last_event_id:
            headers.append((b"last-event-id", last_event_id.encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/v1/logs",
            "raw_path": b"/v1/logs",
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("control", 80),
        }
        self.status = 0
        self._text = ""
        self._wanted = asyncio.Semaphore(0)
        self._taken: asyncio.Queue[bytes] = asyncio.Queue()
        self._task = asyncio.create_task(world.app(scope, self._receive, self._send))

    async def next(self) -> dict[str, str]:
        """Return the members of the next event; of a comment, the text under ""."""
        async with asyncio.timeout(SECONDS):
            while "\n\n" not in self._text:
                self._wanted.release()
                self._text += (await self._taken.get()).decode()
        event, _, self._text = self._text.partition("\n\n")
        pairs = (line.partition(": ") for line in event.split("\n"))
        return {name: value for name, _, value in pairs}

    async def record(self) -> tuple[str, dict[str, Any]]:
        """Return the id and the data of the next event; comments are passed over."""
        while True:
            event = await self.next()
            if "data" in event:
                return event.get("id", ""), json.loads(event["data"])

    async def end(self) -> None:
        """Take all that comes until the answer ends."""
        async with asyncio.timeout(SECONDS):
            while not self._task.done():
                self._wanted.release()
                await asyncio.wait([self._task], timeout=0.01)
            await self._task

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("nothing more comes")

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        await self._wanted.acquire()
        self._taken.put_nowait(message["body"])


@asynccontextmanager
async def following(
    world: World, query: str = "app=shop", last_event_id: str = ""
) -> AsyncGenerator[Follower, None]:
    follower = Follower(world, query, last_event_id)
    try:
        yield follower
    finally:
        await follower.close()


def test_a_follower_sees_what_is_written_after_what_there_is(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        log.write("old", "new")
        async with following(world, "app=shop&tail=1") as follower:
            seen = [(await follower.record())[1]["message"]]
            log.write("newer")
            log.begin()
            log.write("newest")
            seen += [(await follower.record())[1]["message"] for _ in range(2)]

        assert seen == ["new", "newer", "newest"]
        assert world.log_notices.watched == [["shop"], []]

    control(scenario)


def test_a_follower_resumes_behind_what_it_has_seen(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        log.write("one", "two", "other app's way", "three", run=None)
        async with following(world, "app=shop&text=t") as follower:
            position, _ = await follower.record()
        log.write("tardy")
        async with following(world, "app=shop&text=t", position) as follower:
            seen = [(await follower.record())[1]["message"] for _ in range(3)]

        assert seen == ["other app's way", "three", "tardy"]

    control(scenario)


def test_an_app_that_there_is_not_has_no_log(control: Control) -> None:
    async def scenario(world: World) -> None:
        unknown = await world.get("/v1/logs?app=shop")
        await world.deploy()

        assert (unknown.status_code, unknown.json()["code"]) == (404, "app_not_found")
        assert (await page(world))["records"] == []

    control(scenario)


def test_a_quiet_log_tells_that_the_follower_is_still_connected(control: Control) -> None:
    async def scenario(world: World) -> None:
        Log(world)
        async with following(world, "app=shop&level=error") as follower:
            beats = [await follower.next() for _ in range(2)]

        assert beats == [{"": "still here"}] * 2

    control(scenario)


def test_what_no_notice_told_of_is_seen_with_the_next_heartbeat(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        async with following(world) as follower:
            await follower.next()
            log.write("unheard", tell=False)
            _, record = await follower.record()

        assert record["message"] == "unheard"

    control(scenario)


def test_a_follower_hears_that_it_has_missed_something(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        log.write("gone")
        async with following(world) as follower:
            position, _ = await follower.record()
        log.begin()
        segments(log.folder)[0].path.unlink()
        log.write("left")
        async with following(world, last_event_id=position) as follower:
            event = await follower.next()
            _, record = await follower.record()

        assert event["event"] == "missed"
        assert record["message"] == "left"

    control(scenario)


def test_a_slow_follower_holds_one_page_and_misses_nothing(control: Control) -> None:
    async def scenario(world: World) -> None:
        log = Log(world)
        async with following(world) as follower:
            await follower.next()
            for number in range(300):
                log.write(str(number))
            seen = [(await follower.record())[1]["message"] for _ in range(300)]

        assert seen == [str(number) for number in range(300)]

    control(scenario)


def test_followers_are_bounded_and_give_their_place_back(control: Control) -> None:
    async def scenario(world: World) -> None:
        Log(world)
        headers = {"accept": "text/event-stream"}
        async with following(world) as first, following(world) as second:
            await first.next()
            await second.next()
            refused = await world.get("/v1/logs?app=shop", headers=headers)
            page = await world.get("/v1/logs?app=shop")
        async with following(world) as third:
            await third.next()

        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_waits")
        assert page.status_code == 200
        assert third.status == 200

    control(scenario)


def test_a_log_that_is_followed_has_no_end(control: Control) -> None:
    async def scenario(world: World) -> None:
        headers = {"accept": "text/event-stream"}
        response = await world.get("/v1/logs?app=shop&until=1h", headers=headers)

        assert response.status_code == 400

    control(scenario)


def test_followers_end_when_the_gateway_stops(control: Control) -> None:
    async def scenario(world: World) -> None:
        Log(world)
        follower = Follower(world, "app=shop", "")
        await follower.next()
        world.waits.close()
        await follower.end()

        assert world.log_notices.watched == [["shop"], []]

    control(scenario)
