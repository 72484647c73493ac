"""Opening a store by its URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import Store
from fluvial_queue.memory import MemoryStore
from fluvial_queue.redis.address import parse_address
from fluvial_queue.redis.store import RedisStore


def open_store(url: str) -> Store:
    """Return the store that a URL names; `await store.open()` connects it.

    memory:// keeps everything in this process; redis://, rediss:// and unix:// speak the Redis
    protocol (see `fluvial_queue.redis.address` for their options).

    Raises:
        InvalidRequestError: the URL is not one of these.
    """
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryStore()
    if scheme in ("redis", "rediss", "unix"):
        return RedisStore(parse_address(url))
    raise InvalidRequestError(
        f"unknown store {scheme or url!r}: use redis://host:port/0, rediss://…, "
        "unix:///path/of/socket or memory://"
    )
