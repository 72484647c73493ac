"""Request bodies: streamed to the instance within its credit, whatever the client's pace."""

from __future__ import annotations

import asyncio
import json

import pytest

from fluvial.wire import CHUNK_BYTES, INITIAL_CREDIT, FrameType
from fluvial_gateway.http_limits import HttpLimits
from tests.integration.gateway.gateway_peers import GET, open_world, run

POST = b"POST / HTTP/1.1\r\nHost: app.localhost\r\n"
SIZE = 4 * 1024 * 1024


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_keeps_within_the_credit(chunked: bool) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            data = bytes(range(256)) * (SIZE // 256)
            if chunked:
                pieces = b"%x\r\n%b\r\n" % (SIZE, data)
                client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
            else:
                client.send(POST + b"Content-Length: %d\r\n\r\n" % SIZE + data)
            header, body = await instance.next(FrameType.REQUEST)
            slot, more, credit = header[1], header[10], INITIAL_CREDIT - len(body)
            received = [body]
            while more:
                while credit > 0 and more:
                    header, body = await instance.next(FrameType.REQUEST_BODY)
                    received.append(body)
                    credit, more = credit - len(body), header[2]
                    assert credit >= 0
                    assert len(body) <= CHUNK_BYTES
                if more:
                    await world.warm_again(instance)
                    assert instance.no_frame()  # without credit nothing is sent
                    instance.link.send(FrameType.CREDIT, slot, 2 * CHUNK_BYTES)
                    credit += 2 * CHUNK_BYTES
            instance.link.respond(slot)

            assert (await client.response()).status == 200
            assert b"".join(received) == data

    run(main())


def test_an_upload_that_nobody_reads_is_not_read_from_the_client() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(POST + b"Content-Length: %d\r\n\r\n" % (64 * 1024 * 1024))
            client.send(bytes(64 * 1024 * 1024))
            await instance.next(FrameType.REQUEST)
            drained = asyncio.ensure_future(client.writer.drain())
            await world.warm_again(instance)

            assert not drained.done()
            drained.cancel()

    run(main())


def test_a_client_that_leaves_while_it_is_not_read_is_noticed() -> None:
    async def main() -> None:
        limits = HttpLimits(resolution_seconds=0.01, hang_up_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            size = INITIAL_CREDIT + 4 * CHUNK_BYTES  # more than is read, and less than is sent
            client.send(POST + b"Content-Length: %d\r\n\r\n" % (2 * size) + bytes(size))
            await client.writer.drain()
            await instance.next(FrameType.REQUEST)
            client.close()
            while (await instance.next_any())[0][0] != FrameType.CANCEL:
                pass

    run(main())


def test_continue_is_said_once_an_instance_has_the_request() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(POST + b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            assert (await client.head())[0] == 100
            client.send(b"ok")
            _, body = await instance.next(FrameType.REQUEST_BODY)
            instance.link.respond(header[1])

            assert body == b"ok"
            assert (await client.response()).status == 200

    run(main())


def test_a_refused_expectation_closes_since_the_body_may_or_may_not_come() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(
                b"POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 2\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            response = await client.response()

            assert response.status == 404
            assert response.headers["connection"] == "close"

    run(main())


def test_a_response_before_the_end_of_the_body_leaves_the_connection_usable() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(POST + b"Content-Length: 10\r\n\r\n12345")
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"early")
            assert (await client.response()).body == b"early"
            client.send(b"67890" + GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"next")

            assert (await client.response()).body == b"next"

    run(main())


def test_a_body_that_nobody_wants_is_discarded_only_so_far() -> None:
    async def main() -> None:
        limits = HttpLimits(discarded_bytes=1000, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(POST + b"Content-Length: 1000000\r\n\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"early")
            await client.response()
            client.send(bytes(100_000))

            assert await client.rest() == b""

    run(main())


def test_a_malformed_chunk_cancels_the_invocation() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            header, body = await instance.next(FrameType.REQUEST)
            client.send(b"zz\r\n")
            cancel, _ = await instance.next(FrameType.CANCEL)
            instance.link.finish(header[1], "cancelled")
            response = await client.response()

            assert body == b"ok"
            assert cancel[1] == header[1]
            assert (response.status, json.loads(response.body)["code"]) == (400, "invalid_framing")

    run(main())


def test_a_malformed_chunk_after_the_response_began_breaks_it() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            headers = b"content-length: 9\r\n"
            instance.link.respond(header[1], b"begin", headers=headers, more=True)
            await client.head()
            client.send(b"zz\r\n")

            assert await client.was_reset()
            await instance.next(FrameType.CANCEL)

    run(main())


def test_a_refused_request_keeps_its_body_for_the_next_instance() -> None:
    async def main() -> None:
        async with open_world() as world:
            first = await world.warm()
            client = await world.client()
            data = bytes(range(256)) * 600  # more than two frames
            client.send(POST + b"Content-Length: %d\r\n\r\n" % (len(data) + 3) + data)
            header, body = await first.next(FrameType.REQUEST)
            while len(body) < len(data):
                body += (await first.next(FrameType.REQUEST_BODY))[1]
            first.link.send(FrameType.NACK, header[1], "draining")
            second = await world.invoker.next_instance()
            header, again = await second.next(FrameType.REQUEST)
            client.send(b"end")
            more = header[10]
            while more:
                part, chunk = await second.next(FrameType.REQUEST_BODY)
                again, more = again + chunk, part[2]
            second.link.respond(header[1])

            assert (await client.response()).status == 200
            assert again == data + b"end"
            assert world.recorder.nacks == ["draining"]

    run(main())
