"""HTTP framing has one meaning: raw requests, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fluvial.wire import FrameType
from fluvial_gateway.http_limits import HttpLimits
from tests.integration.gateway.gateway_peers import Client, PeerLink, World, open_world, run

LIMITS = HttpLimits(
    target_bytes=256,
    header_bytes=1024,
    headers=8,
    body_bytes=1000,
    chunk_line_bytes=64,
    chunk_extension_bytes=128,
    trailer_bytes=128,
    resolution_seconds=0.01,
)
HOST = b"Host: app.localhost\r\n"
END = b"\r\n"
WEBSOCKET = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int, str]] = {
    # request line
    "http_0_9": (b"GET /\r\n\r\n", 400, "invalid_request_line"),
    "http_2_preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_not_supported"),
    "http_1_2": (b"GET / HTTP/1.2\r\n" + HOST + END, 505, "version_not_supported"),
    "http_3": (b"GET / HTTP/3\r\n" + HOST + END, 505, "version_not_supported"),
    "lower_case_version": (b"GET / http/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "two_digit_version": (b"GET / HTTP/1.10\r\n" + HOST + END, 400, "invalid_request_line"),
    "no_target": (b"GET HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "two_spaces": (b"GET  / HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "tab_for_space": (b"GET\t/ HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "space_in_target": (b"GET /a b HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "trailing_space": (b"GET / HTTP/1.1 \r\n" + HOST + END, 400, "invalid_request_line"),
    "leading_space": (b" GET / HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "lower_case_method": (b"get / HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "long_method": (b"A" * 33 + b" / HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "method_with_colon": (b"GE:T / HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "tls_hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_request_line"),
    "two_empty_lines_first": (b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST, 400, "invalid_request_line"),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + END, 405, "method_not_allowed"),
    "trace": (b"TRACE / HTTP/1.1\r\n" + HOST + END, 405, "method_not_allowed"),
    # target
    "long_target": (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n" + HOST + END, 414, "target_too_long"),
    "long_target_begun": (b"GET /" + b"a" * 400, 414, "target_too_long"),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + END, 400, "invalid_target"),
    "no_slash": (b"GET a HTTP/1.1\r\n" + HOST + END, 400, "invalid_target"),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 400, "invalid_target"),
    "other_scheme": (b"GET ftp://app.localhost/ HTTP/1.1\r\n" + HOST + END, 400, "invalid_target"),
    "absolute_other_host": (b"GET http://evil/ HTTP/1.1\r\n" + HOST + END, 400, "invalid_target"),
    "absolute_userinfo": (
        b"GET http://u@app.localhost/ HTTP/1.1\r\n" + HOST + END,
        400,
        "invalid_target",
    ),
    "eight_bit_target": (b"GET /\xff HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    "nul_in_target": (b"GET /\0 HTTP/1.1\r\n" + HOST + END, 400, "invalid_request_line"),
    # hosts
    "no_host": (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_host"),
    "two_hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + END, 400, "invalid_host"),
    "two_hosts_1_0": (b"GET / HTTP/1.0\r\n" + HOST + HOST + END, 400, "invalid_host"),
    "empty_host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "invalid_host"),
    "host_with_path": (b"GET / HTTP/1.1\r\nHost: app.localhost/x\r\n\r\n", 400, "invalid_host"),
    "host_with_user": (b"GET / HTTP/1.1\r\nHost: a@app.localhost\r\n\r\n", 400, "invalid_host"),
    "host_list": (b"GET / HTTP/1.1\r\nHost: a, app.localhost\r\n\r\n", 400, "invalid_host"),
    "host_bad_port": (b"GET / HTTP/1.1\r\nHost: app.localhost:8x\r\n\r\n", 400, "invalid_host"),
    # header lines
    "obs_fold": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", 400, "invalid_header"),
    "fold_first": (b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + END, 400, "invalid_header"),
    "space_before_colon": (b"GET / HTTP/1.1\r\nA : b\r\n" + HOST + END, 400, "invalid_header"),
    "no_colon": (b"GET / HTTP/1.1\r\nAbc\r\n" + HOST + END, 400, "invalid_header"),
    "no_name": (b"GET / HTTP/1.1\r\n: b\r\n" + HOST + END, 400, "invalid_header"),
    "bare_lf": (b"GET / HTTP/1.1\nHost: app.localhost\n\n", 400, "invalid_header"),
    "bare_lf_in_value": (b"GET / HTTP/1.1\r\nA: b\nX: y\r\n" + HOST + END, 400, "invalid_header"),
    "bare_cr_in_value": (b"GET / HTTP/1.1\r\nA: b\rX: y\r\n" + HOST + END, 400, "invalid_header"),
    "nul_in_value": (b"GET / HTTP/1.1\r\nA: b\0\r\n" + HOST + END, 400, "invalid_header"),
    "nul_early": (b"GET / HTTP/1.1\r\nA: b\0", 400, "invalid_header"),
    "delete_in_value": (b"GET / HTTP/1.1\r\nA: \x7f\r\n" + HOST + END, 400, "invalid_header"),
    "eight_bit_name": (b"GET / HTTP/1.1\r\n\xc3: b\r\n" + HOST + END, 400, "invalid_header"),
    "quoted_name": (b'GET / HTTP/1.1\r\n"A": b\r\n' + HOST + END, 400, "invalid_header"),
    "many_headers": (
        b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 8 + END,
        431,
        "headers_too_large",
    ),
    "large_header": (
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 1024 + b"\r\n\r\n",
        431,
        "headers_too_large",
    ),
    "large_header_begun": (
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 1100,
        431,
        "headers_too_large",
    ),
    "connection_names_host": (
        b"GET / HTTP/1.1\r\nConnection: host\r\n" + HOST + END,
        400,
        "invalid_header",
    ),
    "connection_names_length": (
        b"POST / HTTP/1.1\r\nConnection: Content-Length\r\nContent-Length: 0\r\n" + HOST + END,
        400,
        "invalid_header",
    ),
    # framing of the body
    "length_and_chunked": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "two_lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "equal_lengths": (
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_list": (
        b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_plus": (
        b"POST / HTTP/1.1\r\nContent-Length: +5\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_minus": (
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_hex": (
        b"POST / HTTP/1.1\r\nContent-Length: 0x5\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_empty": (
        b"POST / HTTP/1.1\r\nContent-Length:\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_huge": (
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + END + HOST + END,
        400,
        "invalid_framing",
    ),
    "length_above_limit": (
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n" + HOST + END,
        413,
        "body_too_large",
    ),
    "encoding_gzip": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "encoding_list": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "encoding_twice": (
        b"POST / HTTP/1.1\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + HOST + END,
        400,
        "invalid_framing",
    ),
    "encoding_identity": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "encoding_vertical_tab": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding:\x0bchunked\r\n" + HOST + END,
        400,
        "invalid_header",
    ),
    "encoding_quoted": (
        b'POST / HTTP/1.1\r\nTransfer-Encoding: "chunked"\r\n' + HOST + END,
        400,
        "invalid_framing",
    ),
    "encoding_1_0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + HOST + END,
        400,
        "invalid_framing",
    ),
    "chunk_size_minus": (CHUNKED + b"-1\r\n", 400, "invalid_framing"),
    "chunk_size_0x": (CHUNKED + b"0x5\r\nhello\r\n", 400, "invalid_framing"),
    "chunk_size_underscore": (CHUNKED + b"1_0\r\n", 400, "invalid_framing"),
    "chunk_size_space": (CHUNKED + b" 5\r\nhello\r\n", 400, "invalid_framing"),
    "chunk_size_empty": (CHUNKED + b"\r\nhello\r\n", 400, "invalid_framing"),
    "chunk_size_huge": (CHUNKED + b"fffffffff\r\n", 400, "invalid_framing"),
    "chunk_bare_lf": (CHUNKED + b"5\nhello\r\n", 400, "invalid_framing"),
    "chunk_too_long": (CHUNKED + b"5\r\nhello!\r\n", 400, "invalid_framing"),
    "chunk_end_lf": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400, "invalid_framing"),
    "chunk_long_line": (CHUNKED + b"5;" + b"a" * 70, 400, "invalid_framing"),
    "chunk_long_extension": (CHUNKED + b"5;" + b"a" * 70 + b"\r\nhello", 400, "invalid_framing"),
    "chunk_many_extensions": (
        CHUNKED + b"1;abcdefghijklmnopqrstuvwxyz\r\nx\r\n" * 9,
        400,
        "invalid_framing",
    ),
    "chunks_above_limit": (CHUNKED + b"3e9\r\n", 413, "body_too_large"),
    "trailer_without_colon": (CHUNKED + b"0\r\nabc\r\n\r\n", 400, "invalid_framing"),
    "trailer_fold": (CHUNKED + b"0\r\na: b\r\n c\r\n\r\n", 400, "invalid_framing"),
    "trailers_too_long": (CHUNKED + b"0\r\n" + b"abcdef: b\r\n" * 20, 400, "invalid_framing"),
    # not served
    "websocket_without_key": (
        WEBSOCKET + b"Sec-WebSocket-Version: 13\r\n\r\n",
        400,
        "invalid_handshake",
    ),
    "websocket_with_two_keys": (WEBSOCKET + KEY + KEY + VERSION + END, 400, "invalid_handshake"),
    "websocket_with_a_short_key": (
        WEBSOCKET + b"Sec-WebSocket-Key: AAAA\r\n" + VERSION + END,
        400,
        "invalid_handshake",
    ),
    "websocket_without_version": (WEBSOCKET + KEY + END, 400, "websocket_version"),
    "websocket_version_8": (
        WEBSOCKET + KEY + b"Sec-WebSocket-Version: 8\r\n\r\n",
        400,
        "websocket_version",
    ),
    "websocket_by_post": (
        WEBSOCKET.replace(b"GET", b"POST") + KEY + VERSION + END,
        400,
        "invalid_handshake",
    ),
    "websocket_with_a_body": (
        WEBSOCKET + KEY + VERSION + b"Content-Length: 1\r\n\r\n",
        400,
        "invalid_handshake",
    ),
    "other_expectation": (
        b"POST / HTTP/1.1\r\nExpect: tea\r\nContent-Length: 1\r\n" + HOST + END,
        417,
        "expectation_failed",
    ),
}

# What follows a refused request on its connection must not be taken for a request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n"

ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    # other protocols are not spoken, and asking for them is no mistake (RFC 9110 7.8)
    "upgrade_to_h2c": (
        b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAAA\r\n" + HOST + END,
        b"",
    ),
    "upgrade_that_connection_does_not_name": (
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n" + HOST + END,
        b"",
    ),
    "upgrade_in_1_0": (
        b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST + END,
        b"",
    ),  # request and the body that the instance gets
    "plain": (b"GET / HTTP/1.1\r\n" + HOST + END, b""),
    "http_1_0": (b"GET / HTTP/1.0\r\n\r\n", b""),
    "empty_line_first": (b"\r\nGET / HTTP/1.1\r\n" + HOST + END, b""),
    "absolute": (b"GET http://APP.localhost/a?b HTTP/1.1\r\n" + HOST + END, b""),
    "absolute_without_path": (b"GET http://app.localhost HTTP/1.1\r\n" + HOST + END, b""),
    "host_with_port": (b"GET / HTTP/1.1\r\nHost: App.LocalHost:8080\r\n\r\n", b""),
    "host_with_dot": (b"GET / HTTP/1.1\r\nHost: app.localhost.\r\n\r\n", b""),
    "deployment_host": (b"GET / HTTP/1.1\r\nHost: dpl-one.localhost\r\n\r\n", b""),
    "custom_host": (b"GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", b""),
    "loopback_6": (b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", b""),
    "eight_bit_value": (b"GET / HTTP/1.1\r\nA: \xff\r\n" + HOST + END, b""),
    "empty_value": (b"GET / HTTP/1.1\r\nA:\r\n" + HOST + END, b""),
    "unknown_method": (b"PROPFIND / HTTP/1.1\r\n" + HOST + END, b""),
    "length": (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n" + HOST + b"\r\nhello", b"hello"),
    "length_zero": (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n" + HOST + END, b""),
    "length_leading_zeros": (
        b"POST / HTTP/1.1\r\nContent-Length: 005\r\n" + HOST + b"\r\nhello",
        b"hello",
    ),
    "chunked": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunked_upper_case": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n" + HOST + b"\r\nA\r\n0123456789\r\n"
        b"0\r\n\r\n",
        b"0123456789",
    ),
    "chunked_extension": (CHUNKED + b'5;a="b"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    "chunked_trailer": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n000\r\nA: b\r\n\r\n", b"hello"),
}


async def _collect(world: World) -> tuple[list[bytes], asyncio.Queue[bytes]]:
    """Let instances answer every request at its end; return targets seen and whole bodies."""
    targets: list[bytes] = []
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    def answer(link: PeerLink, header: list[Any], body: bytes) -> None:
        targets.append(header[4])
        if not header[10]:
            bodies.put_nowait(body)
            link.respond(header[1])

    world.invoker.prepare.append(lambda peer: setattr(peer, "answering", answer))
    return targets, bodies


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    payload, status, code = REFUSED[name]

    async def main() -> None:
        async with open_world(limits=LIMITS) as world:
            targets, _ = await _collect(world)
            client = await world.client()
            client.send(payload + (SMUGGLED if payload.endswith(b"\r\n") else b""))
            response = await client.response()

            assert (response.status, json.loads(response.body)["code"]) == (status, code)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["connection"] == "close"
            client.writer.write_eof()
            assert await client.rest() == b""
            assert b"/smuggled" not in targets

    run(main())


async def _drip(client: Client, payload: bytes) -> None:
    for index in range(len(payload)):
        client.send(payload[index : index + 1])
        await client.writer.drain()


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, pieces: str) -> None:
    payload, expected = ACCEPTED[name]

    async def main() -> None:
        async with open_world(limits=LIMITS) as world:
            client = await world.client()
            if pieces == "whole":
                client.send(payload)
            else:
                await _drip(client, payload)
            instance = await world.invoker.next_instance()
            header, body = await instance.next(FrameType.REQUEST)
            more = header[10]
            while more:
                part, chunk = await instance.next(FrameType.REQUEST_BODY)
                body, more = body + chunk, part[2]
            instance.link.respond(header[1])
            response = await client.response()

            assert body == expected
            assert response.status == 200

    run(main())


@pytest.mark.parametrize("name", [name for name, case in REFUSED.items() if case[1] == 400])
def test_refused_when_it_comes_byte_by_byte(name: str) -> None:
    payload, _, code = REFUSED[name]

    async def main() -> None:
        async with open_world(limits=LIMITS) as world:
            await _collect(world)
            client = await world.client()
            await _drip(client, payload)
            response = await client.response()

            assert response.status == 400
            # which rule is broken first depends on how much has been seen
            assert json.loads(response.body)["code"] in {
                code,
                "invalid_header",
                "invalid_request_line",
            }

    run(main())


@pytest.mark.parametrize(
    "host", [b"other.localhost", b"evil.example", b"gone.localhost.evil", b"localhostx", b"app"]
)
def test_unknown_host_is_nobodys(host: bytes) -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            for _ in range(2):  # and the connection stays usable
                client.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
                response = await client.response()

                assert response.status == 404
                assert json.loads(response.body)["code"] == "host_not_found"
            assert not world.invoker.asked.is_set()

    run(main())


def test_two_requests_in_one_segment_are_two() -> None:
    async def main() -> None:
        async with open_world() as world:
            targets, bodies = await _collect(world)
            client = await world.client()
            client.send(
                b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n" + HOST + b"\r\nGET /"
                b"GET /b HTTP/1.1\r\n" + HOST + END
            )
            await client.response()
            await client.response()

            assert targets == [b"/a", b"/b"]
            assert bodies.get_nowait() == b"GET /"

    run(main())
