"""Frames, packed and read."""

from __future__ import annotations

import pytest

from fluvial.errors import WireError
from fluvial.wire import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    FrameReader,
    FrameType,
    pack,
    pack_head,
    pack_plain,
)

FIELDS = ("inv_1", b"/", [(b"host", b"a")], None, 300_000, 1.5, True)


def test_all_ways_to_pack_make_the_same_frame() -> None:
    frame = pack(FrameType.REQUEST, 7, *FIELDS, body=b"body")

    assert pack_plain(FrameType.REQUEST, 7, *FIELDS, body=b"body") == frame
    assert pack_head(FrameType.REQUEST, 7, *FIELDS, body_bytes=4) + b"body" == frame


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_are_read_from_pieces_of_any_size(size: int) -> None:
    data = b"".join(pack_plain(FrameType.CREDIT, number, body=bytes(number)) for number in range(9))
    reader = FrameReader()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    found = [frame for piece in pieces for frame in reader.feed(piece)]

    assert found == [([FrameType.CREDIT, number], bytes(number)) for number in range(9)]


def test_a_frame_above_a_limit_is_not_packed() -> None:
    for packer in (pack, pack_plain):
        with pytest.raises(WireError, match="header"):
            packer(FrameType.REQUEST, 1, bytes(MAX_HEADER_BYTES))
        with pytest.raises(WireError, match="body"):
            packer(FrameType.REQUEST, 1, body=bytes(MAX_BODY_BYTES + 1))


def test_a_field_that_cannot_be_packed_harms_no_later_frame() -> None:
    with pytest.raises(TypeError):
        pack_plain(FrameType.REQUEST, 1, "before", object())

    assert pack_plain(FrameType.REQUEST, 1, "a") == pack(FrameType.REQUEST, 1, "a")
