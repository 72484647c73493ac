import pytest

from fluvial_invoker.instance.response_heads import (
    MAX_HEAD_BYTES,
    InvalidResponseError,
    has_no_body,
    serialise_head,
)


def test_head_has_a_status_line_and_lower_case_names() -> None:
    head, length = serialise_head(404, [(b"X-A", b" 1 "), (b"Content-Length", b"7")])

    assert head == b"HTTP/1.1 404 Not Found\r\nx-a: 1\r\ncontent-length: 7\r\n"
    assert length == 7


def test_repeated_headers_are_kept_in_order() -> None:
    head, _ = serialise_head(200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])

    assert head.endswith(b"set-cookie: a=1\r\nset-cookie: b=2\r\n")


def test_unknown_final_status_has_an_empty_reason() -> None:
    assert serialise_head(299, [])[0] == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0, -1, "200", None])
def test_status_that_is_not_final_is_refused(status: object) -> None:
    with pytest.raises(InvalidResponseError, match="status"):
        serialise_head(status, [])  # type: ignore[arg-type]  # user code is not typed


@pytest.mark.parametrize(
    "pair",
    [
        (b"", b"1"),
        (b"a b", b"1"),
        (b"a:", b"1"),
        (b"a\r\nb", b"1"),
        (b"a\n", b"1"),
        (b"\xe9", b"1"),
        (b"a", b"1\r\nb: 2"),
        (b"a", b"1\n"),
        (b"a", b"\x00"),
        (b"content-length", b"-1"),
        (b"content-length", b"1, 1"),
        (b"content-length", b""),
        (b"content-length", b"\xb2"),
        ("a", b"1"),
        (b"a", "1"),
        (b"a", None),
    ],
)
def test_header_that_could_break_the_framing_is_refused(pair: tuple[bytes, bytes]) -> None:
    for _ in range(2):  # also not from the cache
        with pytest.raises(InvalidResponseError):
            serialise_head(200, [pair])


def test_two_lengths_must_agree() -> None:
    same = [(b"content-length", b"2"), (b"content-length", b"2")]

    assert serialise_head(200, same)[0].count(b"content-length") == 1
    with pytest.raises(InvalidResponseError, match="twice"):
        serialise_head(200, [(b"content-length", b"2"), (b"content-length", b"3")])


def test_hop_by_hop_headers_are_dropped() -> None:
    names = (b"Transfer-Encoding", b"Keep-Alive", b"Upgrade", b"TE", b"Trailer", b"Date")
    head, _ = serialise_head(200, [(name, b"x") for name in names])

    assert head == b"HTTP/1.1 200 OK\r\n"


def test_headers_named_by_connection_are_dropped_but_never_the_length() -> None:
    headers = [
        (b"connection", b"X-Hop, Content-Length"),
        (b"x-hop", b"1"),
        (b"content-length", b"3"),
        (b"x-end", b"2"),
    ]

    head, length = serialise_head(200, headers)

    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-end: 2\r\n"
    assert length == 3


def test_head_is_bounded() -> None:
    with pytest.raises(InvalidResponseError, match="above"):
        serialise_head(200, [(b"a", b"x" * MAX_HEAD_BYTES)])


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [(200, "HEAD", True), (204, "GET", True), (304, "GET", True), (200, "GET", False)],
)
def test_responses_without_body(status: int, method: str, expected: bool) -> None:
    assert has_no_body(status, method) is expected
