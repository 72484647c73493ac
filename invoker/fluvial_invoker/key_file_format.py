"""The format of a key file.

One line of JSON that holds no secret, then the keys' bytes, one after the other:

    {"version": 2, "current": key id, "frozen_ms": when or null, "keys": [oldest first:
        {"id", "created_ms", "public_key": hex, "form", "bytes", "destroyed_ms": when or null}]}

    form plain      the root key, 32 bytes
         wrapped    what the KMS command has made of the root key
         destroyed  nothing: a tombstone

So the secret parts can be read and written without ever being a `str` or `bytes`, which nobody can
erase. Version 1 was JSON alone, with the roots in base 64; it is read, and never written.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, cast

from fluvial.encryption import KEY_BYTES, public_key_of

FORMAT_VERSION: Final = 2


class KeyForm(StrEnum):
    """How a key stands in the file."""

    PLAIN = "plain"
    WRAPPED = "wrapped"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One key, as the file has it."""

    id: str
    created_ms: int
    public_key: bytes
    form: KeyForm
    blob: bytearray = field(repr=False)
    destroyed_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFileContent:
    """All that a key file says. Its changes return a new value."""

    keys: tuple[StoredKey, ...]  # oldest first
    current: str
    frozen_ms: int | None = None

    def find(self, key_id: str) -> StoredKey | None:
        return next((key for key in self.keys if key.id == key_id), None)

    def with_current(self, key: StoredKey) -> KeyFileContent:
        """Return it with a new key, which is the current one."""
        return replace(self, keys=(*self.keys, key), current=key.id)

    def with_key(self, key: StoredKey) -> KeyFileContent:
        """Return it with another form of a key that it has."""
        return replace(self, keys=tuple(key if old.id == key.id else old for old in self.keys))

    def frozen_at(self, frozen_ms: int | None) -> KeyFileContent:
        """Return it frozen since then, or thawed; itself where that is so already."""
        if (self.frozen_ms is None) == (frozen_ms is None):
            return self
        return replace(self, frozen_ms=frozen_ms)


def parse(data: bytearray, app: str, written_ms: int) -> KeyFileContent:
    """Return what a key file says; its blobs are copies that belong to the caller.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is damaged.
    """
    end = data.find(b"\n")
    head: dict[str, Any] = json.loads(bytes(data if end < 0 else data[:end]))
    match head["version"]:
        case 1:
            content = _first_version(head, app, written_ms)
        case 2:
            content = _second_version(head, data, end + 1)
        case other:
            raise UnknownVersionError(f"format version {other}, known are 1 and {FORMAT_VERSION}")
    _check(content)
    return content


class UnknownVersionError(ValueError):
    """The file was written by a newer version of the platform."""


def head_of(content: KeyFileContent) -> bytes:
    """Return the line that stands before the keys' bytes."""
    keys = [
        {
            "id": key.id,
            "created_ms": key.created_ms,
            "public_key": key.public_key.hex(),
            "form": key.form.value,
            "bytes": len(key.blob),
            "destroyed_ms": key.destroyed_ms,
        }
        for key in content.keys
    ]
    head = {
        "version": FORMAT_VERSION,
        "current": content.current,
        "frozen_ms": content.frozen_ms,
        "keys": keys,
    }
    return json.dumps(head).encode() + b"\n"


def _first_version(head: Mapping[str, Any], app: str, written_ms: int) -> KeyFileContent:
    keys: list[StoredKey] = []
    for key_id, encoded in cast("dict[str, str]", head["roots"]).items():
        root = bytearray(base64.b64decode(encoded, validate=True))
        key = StoredKey(
            id=key_id,
            created_ms=written_ms,  # such a file was written once, when its key was made
            public_key=public_key_of(root, app),
            form=KeyForm.PLAIN,
            blob=root,
        )
        keys.append(key)
    return KeyFileContent(keys=tuple(keys), current=str(head["current"]))


def _second_version(head: Mapping[str, Any], data: bytearray, position: int) -> KeyFileContent:
    keys: list[StoredKey] = []
    for plain in head["keys"]:
        end = position + int(plain["bytes"])
        if not position <= end <= len(data):
            raise ValueError("bytes are missing")
        key = StoredKey(
            id=str(plain["id"]),
            created_ms=int(plain["created_ms"]),
            public_key=bytes.fromhex(plain["public_key"]),
            form=KeyForm(plain["form"]),
            blob=data[position:end],
            destroyed_ms=_time(plain["destroyed_ms"]),
        )
        keys.append(key)
        position = end
    if position != len(data):
        raise ValueError("bytes are left over")
    return KeyFileContent(
        keys=tuple(keys), current=str(head["current"]), frozen_ms=_time(head["frozen_ms"])
    )


def _check(content: KeyFileContent) -> None:
    current = content.find(content.current)
    if current is None or current.form is KeyForm.DESTROYED:
        raise ValueError("no current key")
    if len({key.id for key in content.keys}) != len(content.keys):
        raise ValueError("a key id stands there twice")
    for key in content.keys:
        is_destroyed = key.form is KeyForm.DESTROYED
        if key.form is KeyForm.PLAIN and len(key.blob) != KEY_BYTES:
            raise ValueError("a key of another length")
        if is_destroyed != (key.destroyed_ms is not None) or is_destroyed != (not key.blob):
            raise ValueError("a key that is neither there nor destroyed")


def _time(value: Any) -> int | None:
    return None if value is None else int(value)
