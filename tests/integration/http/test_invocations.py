"""What code knows of the invocation that it runs in, and what goes on after the response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fluvial.trace_context import child_traceparent
from tests.integration.http.served import PATIENCE_SECONDS, Served, served
from tests.integration.invoker.conftest import Machine

ASGI = """
    import asyncio, json
    import fluvial

    seen = []
    gate = asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        path = scope["path"][1:]
        if path == "seen":
            return await answer(send, seen)
        if path == "open":
            gate.set()
            return await answer(send, [])
        await globals()[path](scope, receive, send)

    async def answer(send, value, headers=()):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    async def context(scope, receive, send):
        here = fluvial.context()
        sent = {name.decode(): value.decode() for name, value in scope["headers"]}
        await answer(send, {
            "id": here.id, "kind": here.kind, "request_id": here.request_id,
            "x-request-id": sent["x-request-id"],
            "traceparent": here.traceparent, "tracestate": here.tracestate,
            "remaining": here.remaining_seconds, "is_cancelled": here.is_cancelled,
        })

    async def own_id(scope, receive, send):
        await answer(send, {}, [(b"x-request-id", b"mine")])

    async def later(scope, receive, send):
        async def second():
            seen.append(["second", fluvial.context().id])

        async def first():
            await gate.wait()
            fluvial.wait_until(second())
            seen.append(["first", fluvial.context().id])

        fluvial.wait_until(first())
        fluvial.wait_until(lambda: seen.append(["thread", fluvial.context().id]))
        await answer(send, {"id": fluvial.context().id})

    async def raises(scope, receive, send):
        async def work():
            await gate.wait()
            seen.append(["did it all the same"])
            raise ValueError("of the work")

        fluvial.wait_until(work())
        raise ValueError("of the app")

    async def endless(scope, receive, send):
        async def work():
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(["ended"])

        fluvial.wait_until(work())
        await answer(send, {})

    async def left(scope, receive, send):
        async def work():
            await gate.wait()
            seen.append(["work"])

        fluvial.wait_until(work())
        here = fluvial.context()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(["handler", here.is_cancelled])

    async def told(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        seen.append([(await receive())["type"], fluvial.context().is_cancelled])
        await gate.wait()
        try:
            await send({"type": "http.response.body", "body": b"y"})
        except OSError as error:
            seen.append(["send failed"])
            raise
"""


@asynccontextmanager
async def app(machine: Machine, main: str = ASGI, **settings: Any) -> AsyncGenerator[Served]:
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        served(machine, machine.spec(main, **settings)) as found,
    ):
        yield found


async def seen(found: Served, *expected: list[Any]) -> None:
    """Wait until the app has seen this, and no more."""
    while json.loads(await found.get("/seen")) != list(expected):
        pass


async def leave(found: Served, path: str) -> None:
    """Ask for something, and go away once the answer has begun."""
    client = await found.client()
    client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    await client.head()
    await client.end()


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_context_says_what_the_request_said(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            client = await found.client()
            client.send(
                b"GET /context HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: abc-1\r\n"
                b"tracestate: a=1\r\ntraceparent: %b\r\n\r\n" % TRACE.encode()
            )
            response = await client.response()
            here = json.loads(response.body)

            assert here["kind"] == "http"
            assert here["id"] == response.headers["x-fluvial-invocation-id"]
            assert here["request_id"] == here["x-request-id"] == "abc-1"
            assert response.headers["x-request-id"] == "abc-1"
            assert here["traceparent"] == child_traceparent(TRACE, here["id"])
            assert here["tracestate"] == "a=1"
            assert 0 < here["remaining"] <= 300
            assert here["is_cancelled"] is False
            await client.end()

    asyncio.run(main())


def test_a_request_without_an_id_gets_its_invocations(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            client = await found.client()
            client.send(b"GET /context HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: <b>\r\n\r\n")
            response = await client.response()
            here = json.loads(response.body)

            assert here["request_id"] == here["x-request-id"] == here["id"]
            assert response.headers["x-request-id"] == here["id"]
            client.send(b"GET /own_id HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.response()).headers["x-request-id"] == "mine"
            await client.end()

    asyncio.run(main())


def test_work_goes_on_after_the_response_until_none_is_left(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            identity = json.loads(await found.get("/later"))["id"]
            await seen(found, ["thread", identity])
            # the invocation keeps its place, and its instance
            assert found.router.occupied()["demo"].in_flight >= 1
            await found.get("/open")
            await seen(found, ["thread", identity], ["first", identity], ["second", identity])

    asyncio.run(main())


def test_a_failure_before_or_in_the_work_stops_neither(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            body = await found.get("/raises")
            await found.get("/open")
            await seen(found, ["did it all the same"])

            assert body == b"Internal Server Error"
            await shared_machine.logged("of the work")
            await shared_machine.logged("of the app")

    asyncio.run(main())


def test_work_ends_at_the_maximum_duration(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, max_duration_seconds=0.5) as found:
            await found.get("/endless")
            await seen(found, ["ended"])

            while (await found.recorder.next_http())[1] != "ok":
                pass
            await shared_machine.logged("was cancelled: its invocation has to end")

    asyncio.run(main())


def test_a_client_that_leaves_ends_its_handler_and_not_the_work(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            await leave(found, "/left")
            await seen(found, ["handler", True])
            await found.get("/open")
            await seen(found, ["handler", True], ["work"])

    asyncio.run(main())


def test_an_app_may_be_told_instead_of_cancelled(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, on_disconnect="notify") as found:
            await leave(found, "/told")
            await seen(found, ["http.disconnect", True])
            await found.get("/open")
            await seen(found, ["http.disconnect", True], ["send failed"])

    asyncio.run(main())


WSGI = """
    import json, threading
    import fluvial

    seen = []
    gate = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        match environ["PATH_INFO"]:
            case "/seen":
                yield json.dumps(seen).encode()
            case "/open":
                gate.set()
            case "/later":
                async def work():
                    seen.append(["async", fluvial.context().id])
                def blocking():
                    gate.wait()
                    seen.append(["thread", fluvial.context().id])
                fluvial.wait_until(work())
                fluvial.wait_until(blocking)
                yield fluvial.context().id.encode()
            case "/left":
                seen.append(["began"])
                here = fluvial.context()
                while not here.is_cancelled:
                    gate.wait(0.01)
                seen.append(["cancelled"])
"""
HANDLER = """
    import json
    import fluvial

    seen = []

    def app(request):
        if request.path == "/seen":
            return seen
        async def work():
            seen.append(["async", fluvial.context().id])
        fluvial.wait_until(work())
        return fluvial.context().id
"""


def test_a_wsgi_app_leaves_work_of_both_kinds(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, WSGI) as found:
            identity = (await found.get("/later")).decode()
            await seen(found, ["async", identity])
            await found.get("/open")
            await seen(found, ["async", identity], ["thread", identity])

    asyncio.run(main())


def test_a_handler_leaves_work(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, HANDLER) as found:
            identity = (await found.get("/")).decode()
            await seen(found, ["async", identity])

    asyncio.run(main())


def test_a_thread_sees_that_its_client_has_left(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, WSGI) as found:
            client = await found.client()
            client.send(b"GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await seen(found, ["began"])
            await client.end()
            await seen(found, ["began"], ["cancelled"])

    asyncio.run(main())


def test_work_belongs_to_a_request(shared_machine: Machine) -> None:
    main_module = """
        import fluvial
        from fluvial import NotInInvocationError

        async def work(): ...

        def attempt():
            coroutine = work()
            try:
                fluvial.wait_until(coroutine)
            except NotInInvocationError as error:
                return str(error)
            finally:
                coroutine.close()

        at_import = attempt()

        async def app(request):
            try:
                fluvial.wait_until(1)
            except TypeError as error:
                return [at_import, str(error)]
    """

    async def main() -> None:
        async with app(shared_machine, main_module) as found:
            at_import, wrong = json.loads(await found.get("/"))

            assert "belongs to an HTTP request" in at_import
            assert "takes an awaitable or a function, not 1" in wrong

    asyncio.run(main())
