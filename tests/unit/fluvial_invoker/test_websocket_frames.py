"""Frames of a WebSocket, without a connection."""

from __future__ import annotations

import pytest
from websockets.frames import Close, Frame, Opcode

from fluvial_invoker.instance.websocket_frames import (
    Closed,
    Incoming,
    Ping,
    WebSocketFrames,
    may_be_sent,
)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def received(data: bytes, *, piece_bytes: int = 1 << 20, limit: int = 1000) -> list[Incoming]:
    frames = WebSocketFrames(limit)
    pieces = [data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)]
    return [found for piece in pieces for found in frames.receive(piece)]


CONVERSATION = b"".join(
    (
        frame(Opcode.TEXT, "grö".encode(), fin=False),
        frame(Opcode.PING, b"now"),
        frame(Opcode.CONT, "ßer".encode()),
        frame(Opcode.PONG, b""),
        frame(Opcode.BINARY, b"", fin=False),
        frame(Opcode.CONT, b"\0\1"),
        frame(Opcode.TEXT, b""),
        frame(Opcode.CLOSE, Close(4000, "bye").serialize()),
    )
)


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1 << 20])
def test_pieces_of_any_size_are_the_same_messages(piece_bytes: int) -> None:
    assert received(CONVERSATION, piece_bytes=piece_bytes) == [
        Ping(b"now"),
        "größer",
        b"\0\1",
        "",
        Closed(4000, "bye"),
    ]


@pytest.mark.parametrize("count", [1, 10])
def test_a_message_may_have_as_many_bytes_as_the_limit_and_none_more(count: int) -> None:
    def message(size: int) -> bytes:
        pieces = [bytes(size // count)] * count
        opcodes = [Opcode.BINARY, *[Opcode.CONT] * (count - 1)]
        ends = [number == count - 1 for number in range(count)]
        return b"".join(map(lambda o, p, e: frame(o, p, fin=e), opcodes, pieces, ends))

    assert received(message(1000)) == [bytes(1000)]
    (closed,) = received(message(1000 + count))
    assert isinstance(closed, Closed)
    assert closed.code == 1009


def test_the_limit_counts_the_bytes_of_a_text() -> None:
    (closed,) = received(frame(Opcode.TEXT, "ö".encode() * 501))
    assert isinstance(closed, Closed)
    assert closed.code == 1009


def test_after_the_end_nothing_is_read() -> None:
    assert received(frame(Opcode.CLOSE, b"") + frame(Opcode.TEXT, b"more")) == [Closed(1005, "")]
    frames = WebSocketFrames()
    assert len(list(frames.receive(b"\xff\xff"))) == 1
    assert list(frames.receive(frame(Opcode.TEXT, b"more"))) == []


def test_a_close_is_answered_with_its_code_and_once() -> None:
    frames = WebSocketFrames()
    list(frames.receive(frame(Opcode.CLOSE, Close(4000, "bye").serialize())))

    assert frames.close(4000, "bye") == b"\x88\x05\x0f\xa0bye"
    assert frames.close(1000) == b""


def test_a_close_without_a_code_is_answered_without_one() -> None:
    frames = WebSocketFrames()
    list(frames.receive(frame(Opcode.CLOSE, b"")))

    assert frames.close(1005) == b"\x88\x00"


def test_a_long_reason_is_cut_between_characters() -> None:
    data = WebSocketFrames().close(1000, "ö" * 100)

    assert len(data) <= 127
    assert data[4:].decode() == "ö" * ((len(data) - 4) // 2)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000])
def test_codes_that_are_never_sent(code: int) -> None:
    assert not may_be_sent(code)


@pytest.mark.parametrize("code", [1000, 1011, 1012, 3000, 4999])
def test_codes_that_an_app_may_send(code: int) -> None:
    assert may_be_sent(code)
