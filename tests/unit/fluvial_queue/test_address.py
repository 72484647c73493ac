"""Store URLs are parsed strictly, and passwords stay out of what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_queue import MemoryStore, open_store
from fluvial_queue.redis.address import Address, parse_address
from fluvial_queue.redis.store import RedisStore


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address(host="localhost")),
        ("redis://10.0.0.1:7000/3", Address(host="10.0.0.1", port=7000, database=3)),
        ("redis://[::1]:7000", Address(host="::1", port=7000)),
        ("redis://u:p%40@h", Address(host="h", username="u", password="p@")),
        ("redis://:p@h", Address(host="h", password="p")),
        ("rediss://h?ca=/ca.pem", Address(host="h", is_tls=True, ca_file="/ca.pem")),
        ("unix:///run/a%20b.sock?db=2", Address(path="/run/a b.sock", database=2)),
        ("unix:///s?folder=/a%20b", Address(path="/s", folder=Path("/a b"))),
        (
            "unix:///s?prefix=x&partitions=8&retention=60&stream_bytes=9&durability=disk",
            Address(
                path="/s",
                prefix="x",
                partitions=8,
                retention_ms=60_000,
                stream_bytes=9,
                durability="disk",
            ),
        ),
    ],
)
def test_url_is_parsed(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://h", "scheme"),
        ("redis://", "host"),
        ("redis://h:port", "port"),
        ("redis://h:99999", "port"),
        ("redis://h/x", "db"),
        ("redis://h/1/2", "db"),
        ("unix://relative/path", "absolute"),
        ("unix://", "absolute"),
        ("redis://h?prefix=a{b}", "prefix"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?partitions=0", "partitions"),
        ("redis://h?partitions=1025", "partitions"),
        ("redis://h?partitions=-1", "partitions"),
        ("redis://h?retention=", "retention"),
        ("redis://h?stream_bytes=0", "stream_bytes"),
        ("redis://h?durability=always", "durability"),
        ("redis://h?durability=replicated", "replicated"),
        ("unix:///s?folder=a", "folder in the store URL must be an absolute path"),
        ("redis://h?timeout=1", "unknown option 'timeout'"),
    ],
)
def test_wrong_url_is_refused_by_name(url: str, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        parse_address(url)


def test_shown_address_has_no_password() -> None:
    assert str(parse_address("redis://u:secret@h:1")) == "redis://h:1"


def test_open_store_chooses_by_scheme() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    for url in ("redis://h", "rediss://h", "unix:///s"):
        assert isinstance(open_store(url), RedisStore)


@pytest.mark.parametrize("url", ["", "localhost:6379", "postgresql://h/db", "file:///x"])
def test_unknown_store_is_refused_with_the_known_ones(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="memory://"):
        open_store(url)
