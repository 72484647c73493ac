"""Records: small documents with a version, one hash per kind."""

from __future__ import annotations

from typing import Any

import msgpack

from fluvial_queue.checks import check_values
from fluvial_queue.contract import Record, RecordKind
from fluvial_queue.redis import lua
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Scripts


class Documents:
    """Puts, gets, lists and deletes records."""

    def __init__(self, link: Link, scripts: Scripts, keys: Keys) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys

    async def put(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], expect: int | None
    ) -> int | None:
        """Write a record, if its version is `expect`; return the new version."""
        packed: bytes = msgpack.packb(value)
        check_values((packed,))
        arguments: list[lua.Argument] = [record_id, "" if expect is None else expect, packed]
        version: int | None = await self._scripts.run(
            lua.PUT_RECORD, [self._keys.records(kind)], arguments
        )
        return version

    async def get(self, kind: RecordKind, record_id: str) -> Record | None:
        """Return a record."""
        command = ("HGET", self._keys.records(kind), record_id)
        stored = await self._link.call(command, writes=False)
        return None if stored is None else _record(record_id, stored)

    async def list(self, kind: RecordKind) -> list[Record]:
        """Return all records of a kind, by id."""
        reply = await self._link.call(("HGETALL", self._keys.records(kind)), writes=False)
        found = dict(zip(reply[::2], reply[1::2], strict=True))
        return [_record(record_id.decode(), found[record_id]) for record_id in sorted(found)]

    async def delete(self, kind: RecordKind, record_id: str) -> bool:
        """Delete a record; False: there was none."""
        command = ("HDEL", self._keys.records(kind), record_id)
        return bool(await self._link.call(command, writes=True))


def _record(record_id: str, stored: bytes) -> Record:
    version, _, packed = stored.partition(b":")
    return Record(record_id, int(version), msgpack.unpackb(packed))
