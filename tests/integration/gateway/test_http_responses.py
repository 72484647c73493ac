"""Responses: from the instance's frames to the client's bytes."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from fluvial.wire import INITIAL_CREDIT, FrameType, Framing
from fluvial_gateway.http_limits import HttpLimits
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    GET,
    InstancePeer,
    World,
    open_world,
    run,
    spec,
)

CHUNK = b"x" * 65536


async def _request(world: World, instance: InstancePeer, payload: bytes) -> int:
    """Send a request on a new connection; return the id that the instance knows it by."""
    client = await world.client()
    client.send(payload)
    header, _ = await instance.next(FrameType.REQUEST)
    return int(header[1])


def test_a_get_takes_one_frame_each_way() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, body = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"hello")
            response = await client.response()

            assert (response.status, response.body) == (200, b"hello")
            assert header[3:5] == ["GET", b"/"]
            assert (header[10], body) == (False, b"")
            assert instance.no_frame()
            assert await world.recorder.next_http() == ("app", "ok", 7)

    run(main())


def test_the_gateway_adds_its_headers_and_says_cold_only_once() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            seen: list[dict[str, str]] = []
            for _ in range(2):
                header, _ = await instance.next(FrameType.REQUEST)
                instance.link.respond(header[1])
                response = await client.response()
                seen.append(response.headers)
                assert response.headers["x-fluvial-invocation-id"] == header[2]
                client.send(GET)

            cold, warm = seen
            assert cold["x-fluvial-cold-start"] == "zygote"
            assert "x-fluvial-cold-start" not in warm
            number = r"\d+\.\d"
            assert re.fullmatch(
                f"queue;dur={number}, fork;dur={number}, ready;dur={number}, handler;dur={number}",
                cold["server-timing"],
            )
            assert re.fullmatch(f"queue;dur={number}, handler;dur={number}", warm["server-timing"])
            assert warm["date"].endswith(" GMT")
            assert "connection" not in warm
            assert world.recorder.cold_starts == [("app", "zygote")]

    run(main())


@pytest.mark.parametrize(
    ("request_line", "connection", "answered"),
    [
        (b"GET / HTTP/1.1", b"", None),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", "close"),
        (b"GET / HTTP/1.1", b"Connection: a, Close\r\n", "close"),
        (b"GET / HTTP/1.0", b"", "close"),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", "keep-alive"),
    ],
)
def test_connection_persists_as_asked(
    request_line: bytes, connection: bytes, answered: str | None
) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(request_line + b"\r\nHost: app.localhost\r\n" + connection + b"\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            response = await client.response()

            assert response.headers.get("connection") == answered
            if answered == "close":
                assert await client.rest() == b""
            else:
                client.send(GET)
                await instance.next(FrameType.REQUEST)

    run(main())


@pytest.mark.parametrize(
    ("method", "status", "framing"),
    [
        ("HEAD", 200, Framing.LENGTH),
        ("HEAD", 200, Framing.NONE),
        ("HEAD", 200, Framing.STREAM),
        ("GET", 204, Framing.NONE),
        ("GET", 304, Framing.NONE),
        ("GET", 304, Framing.STREAM),
    ],
)
def test_no_body_where_http_has_none(method: str, status: int, framing: Framing) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET.replace(b"GET", method.encode()))
            header, _ = await instance.next(FrameType.REQUEST)
            body = b"body" if framing is not Framing.NONE else b""
            instance.link.respond(header[1], body, status=status, framing=framing)
            await client.response(head_only=True)
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"next")

            assert (await client.response()).body == b"next"

    run(main())


def test_a_stream_is_chunked_for_http_1_1() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            slot = header[1]
            instance.link.respond(slot, b"one", framing=Framing.STREAM, more=True)
            instance.link.continue_response(slot, b"", more=True)
            instance.link.continue_response(slot, b"two", more=True)
            instance.link.continue_response(slot, b"", more=False)
            instance.link.finish(slot)
            response = await client.response()

            assert response.headers["transfer-encoding"] == "chunked"
            assert response.body == b"onetwo"

    run(main())


def test_a_stream_ends_with_the_connection_for_http_1_0() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"one", framing=Framing.STREAM, more=True)
            instance.link.continue_response(header[1], b"two", more=False)
            response = await client.response()

            assert response.headers["connection"] == "close"
            assert "transfer-encoding" not in response.headers
            assert response.body == b"onetwo"

    run(main())


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"connection: close\r\n", b""),
        (b"transfer-encoding: chunked\r\n", b""),
        (b"x-fluvial-invocation-id: forged\r\n", b""),
        (b"a: b\nc: d\r\n", b""),
        (b"a: b\r\n\r\nHTTP/1.1 200 OK\r\n", b""),
        (b"a : b\r\n", b""),
        (b"content-length: 1\r\ncontent-length: 1\r\n", b"x"),
        (b"content-length: -1\r\n", b""),
        (b"content-length: 9\r\n", b"short"),
        (b"content-length: 2\r\n", b"long"),
    ],
)
def test_a_bad_response_is_a_502(head: bytes, body: bytes) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], body, headers=head)
            response = await client.response()

            assert response.status == 502
            assert json.loads(response.body)["code"] == "bad_response"
            assert "forged" not in response.headers.values()

    run(main())


@pytest.mark.parametrize(("body", "more"), [(b"toolong", True), (b"s", False)])
def test_a_body_unlike_its_length_breaks_the_connection(body: bytes, more: bool) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            headers = b"content-length: 5\r\n"
            instance.link.respond(header[1], b"ok", headers=headers, more=True)
            await client.head()
            instance.link.continue_response(header[1], body, more=more)

            assert await client.was_reset()

    run(main())


def test_a_response_that_breaks_after_its_head_never_looks_complete() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"one", framing=Framing.STREAM, more=True)
            await client.head()
            instance.link.send(FrameType.BROKEN, header[1], "handler_failed")
            instance.link.finish(header[1], "error")

            assert await client.was_reset()
            assert await world.recorder.next_http() == ("app", "error", 7)

    run(main())


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        (FrameType.BROKEN, ("handler_failed",), "response_broken"),
        (FrameType.FINISHED, (5, "error"), "no_response"),
    ],
)
def test_no_head_is_a_502(kind: FrameType, fields: tuple[object, ...], code: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.send(kind, header[1], *fields)
            response = await client.response()

            assert response.status == 502
            assert json.loads(response.body)["code"] == code

    run(main())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET.replace(b" / ", b" /1 ") + GET.replace(b" / ", b" /2 "))
            first, _ = await instance.next(FrameType.REQUEST)
            assert instance.no_frame()  # the second waits for the first one's response
            instance.link.respond(first[1], b"first")
            second, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(second[1], b"second")

            assert [first[4], second[4]] == [b"/1", b"/2"]
            assert [(await client.response()).body for _ in range(2)] == [b"first", b"second"]

    run(main())


def test_what_is_pipelined_is_bounded() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            stuffing = GET * (16 * 1024 * 1024 // len(GET))
            client.send(stuffing)
            drained = asyncio.ensure_future(client.writer.drain())
            await world.warm_again(instance)

            assert not drained.done()  # the gateway has stopped reading
            drained.cancel()
            instance.link.respond(header[1])
            await client.response()
            await instance.next(FrameType.REQUEST)  # and goes on with what it holds

    run(main())


def test_a_client_that_leaves_cancels_its_invocation() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            slot = await _request(world, instance, GET)
            world.clients[-1].close()
            cancel, _ = await instance.next(FrameType.CANCEL)
            instance.link.finish(slot, "cancelled")

            assert cancel[1] == slot
            assert await world.recorder.next_http() == ("app", "cancelled", 7)

    run(main())


def test_a_client_that_leaves_after_its_response_cancels_nothing() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], finish=False)
            await client.response()
            client.close()
            await world.warm_again(instance)
            instance.link.finish(header[1], cpu_us=99)

            assert await world.recorder.next_http() == ("app", "ok", 99)
            assert instance.no_frame()

    run(main())


def test_a_slow_client_stalls_its_stream_and_nobody_else() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            slow = await world.client()
            slow.reader._limit = 1024  # type: ignore[attr-defined]  # read no further ahead
            slow.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            slot, link = header[1], instance.link
            link.respond(slot, b"", framing=Framing.STREAM, more=True)
            sent, credit = 0, INITIAL_CREDIT
            while True:  # until the window is closed: by then the socket's buffers are full
                while credit >= len(CHUNK):
                    link.continue_response(slot, CHUNK, more=True)
                    sent, credit = sent + len(CHUNK), credit - len(CHUNK)
                await world.warm_again(instance)  # a neighbour is served meanwhile
                granted = 0
                while not instance.no_frame():
                    frame, _ = await instance.next(FrameType.CREDIT)
                    granted += frame[2]
                if not granted:
                    break
                credit += granted
            link.continue_response(slot, b"", more=False)
            link.finish(slot)
            response = await slow.response()

            assert len(response.body) == sent

    run(main())


def test_what_goes_to_the_instance_is_rebuilt() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(
                b"GET /a?b=c HTTP/1.1\r\nHost: app.localhost:80\r\nX-Keep: 1 \r\n"
                b"Connection: keep-alive, X-Hop\r\nX-Hop: 2\r\nKeep-Alive: 3\r\nTE: gzip\r\n"
                b"Proxy-Authorization: 4\r\nX-Forwarded-For: 6.6.6.6\r\n"
                b"X-Forwarded-Proto: https\r\n"
                b"X-Forwarded-Prefix: /7\r\nForwarded: for=8\r\nX-Fluvial-Invocation-Id: 9\r\n"
                b"X_Forwarded_For: 10\r\nX-Real-IP: 11\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n"
            )
            header, _ = await instance.next(FrameType.REQUEST)

            assert header[4] == b"/a?b=c"
            assert [tuple(pair) for pair in header[5]] == [
                (b"host", b"app.localhost:80"),
                (b"x-keep", b"1"),
                (b"cookie", b"a=b"),
                (b"cookie", b"c=d"),
                (b"x-forwarded-for", b"127.0.0.1"),
                (b"x-forwarded-proto", b"http"),
                (b"x-forwarded-host", b"app.localhost:80"),
            ]
            assert header[6][0] == "127.0.0.1"
            assert header[7:9] == ["http", "1.1"]
            assert 0 < header[9] <= 300_000

    run(main())


def test_a_trusted_proxy_is_believed() -> None:
    async def main() -> None:
        limits = HttpLimits(trusted_peers=("10.0.0.0/8", "127.0.0.0/8"), resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(
                b"GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7\r\n"
                b"X-Forwarded-Proto: HTTPS\r\nX-Forwarded-Host: public.example\r\n\r\n"
            )
            header, _ = await instance.next(FrameType.REQUEST)

            assert [tuple(pair) for pair in header[5]] == [
                (b"host", b"app.localhost"),
                (b"x-forwarded-for", b"6.6.6.6, 7.7.7.7, 127.0.0.1"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-host", b"public.example"),
            ]
            assert header[6:8] == [["7.7.7.7", 0], "https"]

    run(main())


def test_the_client_is_whom_the_outermost_trusted_proxy_saw() -> None:
    async def main() -> None:
        limits = HttpLimits(trusted_peers=("10.0.0.0/8", "127.0.0.0/8"), resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            seen: list[str] = []
            for chain in (
                b"6.6.6.6, 7.7.7.7, 10.0.0.2, 10.1.1.1",
                b"10.0.0.3, 10.0.0.2",
                b"unknown, ::ffff:10.0.0.2",
            ):
                client = await world.client()
                client.send(GET[:-2] + b"X-Forwarded-For: " + chain + b"\r\n\r\n")
                header, _ = await instance.next(FrameType.REQUEST)
                seen.append(header[6][0])

            assert seen == ["7.7.7.7", "10.0.0.3", "unknown"]

    run(main())


def test_repeated_and_changed_headers_are_told_apart() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            tokens: list[bytes] = []
            for token in (b"one", b"one", b"two", b"one"):
                client.send(
                    b"GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Token: " + token + b"\r\n\r\n"
                )
                header, _ = await instance.next(FrameType.REQUEST)
                tokens += [value for name, value in header[5] if name == b"x-token"]
                assert len(header[5]) == 5
                instance.link.respond(header[1])
                await client.response()

            assert tokens == [b"one", b"one", b"two", b"one"]

    run(main())


def test_an_unknown_deployment_is_a_404() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(GET.replace(b"app.", b"gone."))
            response = await client.response()

            assert response.status == 404
            assert json.loads(response.body)["code"] == "deployment_not_found"

    run(main())


def test_max_duration_is_a_504_and_a_cancel() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_duration_seconds=0.05)) as world:
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            response = await client.response()
            cancel, _ = await instance.next(FrameType.CANCEL)
            instance.link.finish(header[1], "cancelled")

            assert response.status == 504
            assert json.loads(response.body)["code"] == "function_timeout"
            assert cancel[1] == header[1]
            assert await world.recorder.next_http() == ("app", "timeout", 7)
            assert DEPLOYMENT not in response.body.decode()

    run(main())


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        pytest.param(b"X-Request-Id: a.b_c~1:/+=@,-\r\n", b"a.b_c~1:/+=@,-", id="well_formed"),
        pytest.param(b"", None, id="none"),
        pytest.param(b"X-Request-Id: \r\n", None, id="empty"),
        pytest.param(b"X-Request-Id: a b\r\n", None, id="space"),
        pytest.param(b"X-Request-Id: <b>\r\n", None, id="markup"),
        pytest.param(b"X-Request-Id: " + b"a" * 129 + b"\r\n", None, id="long"),
        pytest.param(b"X-Request-Id: a\r\nX-Request-Id: b\r\n", None, id="two"),
        pytest.param(
            b"X-Request-Id: a\r\nX-Request-Id: !\r\nX-Request-Id: b\r\n", None, id="three"
        ),
    ],
)
def test_a_request_has_the_clients_id_or_its_invocations(sent: bytes, known: bytes | None) -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(GET[:-2] + sent + b"\r\n")
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            response = await client.response()

            passed = [value for name, value in header[5] if name == b"x-request-id"]
            assert passed == ([] if known is None else [known])
            assert response.headers["x-request-id"] == (known or header[2].encode()).decode()
            client.send(b"GET / HTTP/1.1\r\nHost: unknown\r\n\r\n")
            assert "x-request-id" not in (await client.response()).headers

    run(main())


def test_a_problem_names_the_request_too() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            request = GET.replace(b"GET", b"POST")  # which is not made once more
            client.send(request[:-2] + b"X-Request-Id: mine\r\n\r\n")
            await instance.next(FrameType.REQUEST)
            await instance.die()
            response = await client.response()

            assert response.headers["x-request-id"] == "mine"

    run(main())


def test_the_apps_own_request_id_stands_alone() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], headers=b"X-Request-ID: mine\r\n")
            data = await client.reader.readuntil(b"\r\n\r\n")

            assert data.lower().count(b"x-request-id") == 1

    run(main())
