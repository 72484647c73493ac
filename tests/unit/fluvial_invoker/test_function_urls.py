"""Requests become events of payload format 2.0, results become responses."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from fluvial.context import Invocation
from fluvial_invoker.instance.function_urls import (
    FunctionUrlError,
    LambdaContext,
    make_event,
    make_response,
)

INVOCATION = Invocation(id="inv_1", kind="http", app="shop", deployment="dpl_1", instance="ins_1")


def event(body: bytes = b"", query: bytes = b"", **headers: str) -> dict[str, Any]:
    pairs = [(b"host", b"shop.example.com:8080"), (b"x-a", b"1"), (b"X-A", b"2")]
    pairs += [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {
        "method": "POST",
        "raw_path": b"/a%20b",
        "query_string": query,
        "headers": pairs,
        "http_version": "1.1",
        "client": ("192.0.2.1", 5),
    }
    return make_event(scope, body, INVOCATION)


def test_an_event_says_what_was_asked() -> None:
    made = event(query=b"a=1&a=2&b=%20", cookie="c=1; d=2", user_agent="tests")

    assert made["version"] == "2.0"
    assert (made["rawPath"], made["rawQueryString"]) == ("/a%20b", "a=1&a=2&b=%20")
    assert made["headers"]["x-a"] == "1,2"
    assert "cookie" not in made["headers"]
    assert made["cookies"] == ["c=1", "d=2"]
    assert made["queryStringParameters"] == {"a": "1,2", "b": " "}
    about = made["requestContext"]
    assert (about["domainName"], about["domainPrefix"]) == ("shop.example.com", "shop")
    assert (about["requestId"], about["http"]["method"]) == ("inv_1", "POST")
    assert (about["http"]["sourceIp"], about["http"]["userAgent"]) == ("192.0.2.1", "tests")
    assert "body" not in made


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"a": 1}', "application/json", ('{"a": 1}', False)),
        ("grüß".encode(), "text/plain; charset=utf-8", ("grüß", False)),
        (b"<a/>", "image/svg+xml", ("<a/>", False)),
        (b"\xff", "text/plain", (base64.b64encode(b"\xff").decode(), True)),
        (b"a=1", "application/x-www-form-urlencoded", ("YT0x", True)),
        (b"abc", "application/octet-stream", ("YWJj", True)),
    ],
)
def test_a_body_is_text_or_base64(body: bytes, kind: str, expected: tuple[str, bool]) -> None:
    made = event(body, content_type=kind)

    assert (made["body"], made["isBase64Encoded"]) == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"message": "hi"}, (200, [(b"content-type", b"application/json")], b'{"message": "hi"}')),
        ("hi", (200, [(b"content-type", b"application/json")], b'"hi"')),
        (None, (200, [(b"content-type", b"application/json")], b"null")),
        ({"statusCode": 204}, (204, [(b"content-type", b"application/json")], b"")),
        (
            {
                "statusCode": "201",
                "headers": {"Content-Type": "text/plain", "X-N": 5, "X-T": True},
                "body": "ü",
            },
            (
                201,
                [(b"content-type", b"text/plain"), (b"x-n", b"5"), (b"x-t", b"true")],
                "ü".encode(),
            ),
        ),
        (
            {
                "statusCode": 200,
                "headers": {"content-type": "a/b", "x": "hidden"},
                "multiValueHeaders": {"X": ["1", "2"]},
                "cookies": ["a=1", "b=2"],
                "body": "/w==",
                "isBase64Encoded": True,
            },
            (
                200,
                [
                    (b"content-type", b"a/b"),
                    (b"x", b"1"),
                    (b"x", b"2"),
                    (b"set-cookie", b"a=1"),
                    (b"set-cookie", b"b=2"),
                ],
                b"\xff",
            ),
        ),
        (
            {"statusCode": 200, "body": {"a": 1}},
            (200, [(b"content-type", b"application/json")], b'{"a": 1}'),
        ),
    ],
)
def test_a_result_is_a_response_or_a_json_body(result: Any, expected: Any) -> None:
    assert make_response(result) == expected


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": "many"},
        {"statusCode": None},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
        {"statusCode": 200, "body": 3, "isBase64Encoded": True},
    ],
)
def test_what_looks_like_a_response_and_is_none_is_refused(result: Any) -> None:
    with pytest.raises(FunctionUrlError):
        make_response(result)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError):
        make_response({"a": object()})


def test_a_context_knows_how_long_it_may_take() -> None:
    names = ("function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb")
    texts: dict[str, Any] = dict.fromkeys((*names, "aws_request_id", "log_group_name"), "")
    soon = LambdaContext(**texts, log_stream_name="", deadline_seconds=time.monotonic() + 60)
    past = LambdaContext(**texts, log_stream_name="", deadline_seconds=0.0)
    never = LambdaContext(**texts, log_stream_name="", deadline_seconds=None)

    assert 0 < soon.get_remaining_time_in_millis() <= 60_000
    assert past.get_remaining_time_in_millis() == 0
    assert never.get_remaining_time_in_millis() == 900_000
