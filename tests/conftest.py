"""A real store for all tests: one embedded Valkey per session, a fresh prefix per test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluvial_queue.redis.embedded import EmbeddedValkey

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A running server."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    server = EmbeddedValkey(folder, durability="process", socket_path=folder / "s")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def valkey_url(valkey: EmbeddedValkey) -> str:
    """The URL of a store that nobody has used, with 4 partitions."""
    return f"{valkey.url}&partitions=4&prefix=test{next(_numbers)}"
