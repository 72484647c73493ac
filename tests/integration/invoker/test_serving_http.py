"""HTTP invocations in real instances."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fluvial.wire import CHUNK_BYTES, INITIAL_CREDIT, FrameType

HELLO = """
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"hello " + scope["path"].encode()})
"""

STREAMS = """
    import asyncio, resource

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        path = scope["path"]
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if path == "/count":
            seen = 0
            more = True
            while more:
                message = await receive()
                seen += len(message["body"])
                more = message["more_body"]
                if scope["query_string"] == b"slow":
                    await asyncio.sleep(0.001)
            body = b"%d" % seen
            await send(start)
            await send({"type": "http.response.body", "body": body})
        elif path == "/big":
            await send(start)
            await send({"type": "http.response.body", "body": b"x" * 1_000_000})
        elif path == "/endless":
            await send(start)
            sent = 0
            while sent < 64_000_000:
                await send({"type": "http.response.body", "body": b"y" * 100_000,
                            "more_body": True})
                sent += 100_000
            await send({"type": "http.response.body", "body": b""})
        elif path == "/head-first":
            await send(start)
            message = await receive()
            message = await receive()
        elif path == "/peak":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await send(start)
            await send({"type": "http.response.body", "body": b"%d" % peak})
"""


def test_plain_asgi_app_answers_in_one_frame(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(HELLO)) as (_, handed, link):
            welcome = await link.next(kind=FrameType.WELCOME)
            reply = await link.get("/a%20b?x=1")

            assert welcome.header[2:5] == [1, handed.instance, 100]
            assert welcome.header[5] >= 0  # ms of imports
            assert (reply.status, reply.body, reply.outcome) == (200, b"hello /a b", "ok")
            assert reply.head == (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n"
            )
            assert handed.tier == "zygote"

    asyncio.run(main())


def test_scope_is_complete(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import json
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                scope["state"]["opened"] = True
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
                return
            body = json.dumps(scope, default=lambda value: value.decode()).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            reply = await link.get("/%C3%A9?q=%20", headers={"x-a": "1"})
            scope = json.loads(reply.body)

            assert scope == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/é",
                "raw_path": "/%C3%A9",
                "query_string": "q=%20",
                "root_path": "",
                "headers": [
                    ["host", "app.localhost"],
                    ["x-a", "1"],
                    ["x-request-id", "inv_000000000000000000000001"],
                ],
                "client": ["127.0.0.1", 4711],
                "server": None,
                "state": {"opened": True},
            }

    asyncio.run(main())


def test_many_invocations_at_once_in_one_instance(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        waiting = 0
        everybody = asyncio.Event()
        async def app(scope, receive, send):
            global waiting
            assert scope["type"] == "http"
            waiting += 1
            if waiting == 100:
                everybody.set()
            await everybody.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["raw_path"]})
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            numbers = [link.request(f"/{n}") for n in range(100)]
            replies = await asyncio.gather(*(link.reply(number) for number in numbers))

            assert [reply.body for reply in replies] == [b"/%d" % n for n in range(100)]

    asyncio.run(main())


def test_request_body_above_the_window_is_granted_as_it_is_read(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(STREAMS)) as (_, _, link):
            chunk = b"z" * CHUNK_BYTES
            number = link.request("/count?slow", method="POST", body=chunk, more=True)
            credit = INITIAL_CREDIT - CHUNK_BYTES
            left = 40
            while left:
                while credit < CHUNK_BYTES:
                    frame = await link.next(number, FrameType.CREDIT)
                    credit += frame.header[2]
                left -= 1
                credit -= CHUNK_BYTES
                link.send(FrameType.REQUEST_BODY, number, left > 0, body=chunk)
            reply = await link.reply(number)

            assert reply.body == b"%d" % (41 * CHUNK_BYTES)

    asyncio.run(main())


def test_gateway_that_ignores_credit_is_disconnected(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(STREAMS, idle_seconds=3600)) as (_, _, link):
            number = link.request("/endless", method="POST", body=b"a", more=True)
            for _ in range(INITIAL_CREDIT // CHUNK_BYTES):
                link.send(FrameType.REQUEST_BODY, number, True, body=b"z" * CHUNK_BYTES)
            await link.wait_closed()

    asyncio.run(main())


def test_large_body_is_cut_into_frames_and_has_a_length(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(STREAMS)) as (_, _, link):
            reply = await link.get("/big")

            assert reply.headers["content-length"] == "1000000"
            assert reply.body == b"x" * 1_000_000
            assert reply.outcome == "ok"

    asyncio.run(main())


def test_slow_reader_bounds_memory_and_stops_nobody_else(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(STREAMS)) as (_, _, link):
            before = int((await link.get("/peak")).body)
            slow = [link.request("/endless") for _ in range(20)]
            received = dict.fromkeys(slow, 0)
            for number in slow:
                while received[number] < INITIAL_CREDIT - 1000:
                    received[number] += len((await link.next(number)).body)
            others = await asyncio.gather(*(link.get("/big") for _ in range(5)))
            after = int((await link.get("/peak")).body)
            surplus = [frame for frame in link.waiting if frame.header[1] in received]

            assert all(reply.outcome == "ok" for reply in others)
            assert not surplus  # nothing above the credit was sent
            assert after - before < 64 * 1024  # KiB; without limits it would be 1.3 GB
            for number in slow:
                link.send(FrameType.CANCEL, number, "client_gone")
            outcomes = [(await link.next(n, FrameType.FINISHED)).header[3] for n in slow]
            assert outcomes == ["cancelled"] * 20

    asyncio.run(main())


def test_head_leaves_before_the_app_waits(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(STREAMS)) as (_, _, link):
            number = link.request("/head-first")
            frame = await link.next(number)

            assert frame.header[0] == FrameType.RESPONSE
            assert frame.header[4:] == [1, True]  # streamed, more follows
            link.send(FrameType.CANCEL, number, "client_gone")
            assert (await link.next(number, FrameType.FINISHED)).header[3] == "cancelled"

    asyncio.run(main())


def test_app_that_listens_for_the_disconnect_may_clean_up(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await receive()
            assert (await receive())["type"] == "http.disconnect"
            await asyncio.sleep(0)
            print("cleaned up")
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            number = link.request()
            await link.next(kind=FrameType.WELCOME)
            # The second request answers only once the first waits for its disconnect.
            link.send(FrameType.CANCEL, link.request(), "warm")
            link.send(FrameType.CANCEL, number, "client_gone")
            finished = await link.next(number, FrameType.FINISHED)
            invoker.send(FrameType.KILL, 0, handed.instance, 5000)
            await invoker.death_of(handed.instance)

            assert finished.header[3] == "cancelled"
        assert "cleaned up" in machine.app_log()

    asyncio.run(main())


def test_cancelled_handler_sees_cancellation(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("was cancelled")
                raise
    """)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            number = link.request()
            await link.next(kind=FrameType.WELCOME)
            link.send(FrameType.CANCEL, number, "client_gone")
            finished = await link.next(number)
            invoker.send(FrameType.KILL, 0, handed.instance, 5000)
            await invoker.death_of(handed.instance)

            assert finished.header[0] == FrameType.FINISHED
            assert finished.header[3] == "cancelled"

    asyncio.run(main())


def test_deadline_cancels_the_handler(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        import asyncio
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            if scope["path"] == "/late":
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.sleep(3600)
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            silent = await link.get("/", deadline_ms=20)
            late = await link.get("/late", deadline_ms=20)

            assert (silent.outcome, silent.status, silent.broken) == ("timeout", 0, None)
            assert (late.outcome, late.status, late.broken) == ("timeout", 200, "timeout")

    asyncio.run(main())


def test_bad_responses_are_refused_before_they_leave(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        HEADERS = {
            "/newline": [(b"x-a", b"1\\r\\nx-b: 2")],
            "/name": [(b"x a", b"1")],
            "/length": [(b"content-length", b"5")],
            "/lengths": [(b"content-length", b"2"), (b"content-length", b"3")],
            "/text": [("x-a", "1")],
        }
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            headers = HEADERS[scope["path"]]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"ok"})
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            for path in ("/newline", "/name", "/length", "/lengths", "/text"):
                reply = await link.get(path)
                assert (reply.status, reply.outcome) == (500, "error"), path
                assert reply.body == b"Internal Server Error"

    asyncio.run(main())


def test_head_and_empty_responses_have_no_body(machine: Any, serve: Any) -> None:
    spec = machine.spec("""
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            status = 204 if scope["path"] == "/empty" else 200
            await send({"type": "http.response.start", "status": status,
                        "headers": [(b"connection", b"close, x-hop"), (b"x-hop", b"1"),
                                    (b"transfer-encoding", b"chunked"), (b"x-end", b"2")]})
            await send({"type": "http.response.body", "body": b"not for the client"})
    """)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            for reply in (await link.get(method="HEAD"), await link.get("/empty")):
                assert (reply.body, reply.framing, reply.outcome) == (b"", 2, "ok")
                assert reply.headers == {"x-end": "2"}

    asyncio.run(main())


def test_deployment_without_http_app_answers_404(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec("x = 1", entrypoint=None)) as (_, _, link):
            assert (await link.get()).status == 404

    asyncio.run(main())
