"""Fingerprints of JSON inputs: "was this key started with the same input?", without the input.

A fingerprint is a keyed hash, so whoever reads the store cannot test guesses at an input. It
begins with the id of its key: two fingerprints can be compared only if they were made with the
same key. One that an instance made (with its app's key) says nothing about one made here, nor does
one made by a gateway with another key file; such a pair counts as equal.

    b"gw1"  5 bytes of SHA-256(key)  16 bytes of HMAC-SHA-256(key, app 0 workflow 0 canonical JSON)
    b"ak1"  5 bytes of SHA-256(key id)  16 bytes of an HMAC with a key of the app, by an instance
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from fluvial.errors import InvalidRequestError

_PREFIX: Final = b"gw1"
_PREFIX_OF_INSTANCES: Final = b"ak1"  # see `fluvial.encryption`
_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 5
_MAC_BYTES: Final = 16
_SCHEME_BYTES: Final = len(_PREFIX) + _KEY_ID_BYTES


class Fingerprints:
    """Makes fingerprints with one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise InvalidRequestError(f"a fingerprint key has {_KEY_BYTES} bytes, got {len(key)}")
        self._key = key
        self._scheme = _PREFIX + hashlib.sha256(key).digest()[:_KEY_ID_BYTES]

    def of(self, app: str, workflow: str, arguments: Any) -> bytes:
        """Return the fingerprint of JSON arguments; the order of members does not matter."""
        canonical = json.dumps(arguments, sort_keys=True, separators=(",", ":")).encode()
        message = b"\0".join((app.encode(), workflow.encode(), canonical))
        return self._scheme + hmac.digest(self._key, message, "sha256")[:_MAC_BYTES]


def are_comparable(one: bytes, other: bytes) -> bool:
    """Tell whether a difference between two fingerprints means that the inputs differ."""
    return _scheme(one) == _scheme(other)


def load_key(file: Path) -> bytes:
    """Return the key in `file`, which is made with a random key if it does not exist."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        _create(file)
        return file.read_bytes()


def _create(file: Path) -> None:
    # A hard link appears complete or not at all, and never replaces the key of another gateway
    # that starts at the same time.
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".fingerprint-")
    try:
        with os.fdopen(descriptor, "wb") as temporary:
            temporary.write(os.urandom(_KEY_BYTES))
            temporary.flush()
            os.fsync(temporary.fileno())
        try:
            os.link(name, file)
        except FileExistsError:
            return  # theirs was first; it is the key
    finally:
        os.unlink(name)


def _scheme(fingerprint: bytes) -> bytes:
    is_whole = len(fingerprint) == _SCHEME_BYTES + _MAC_BYTES
    is_known = fingerprint.startswith((_PREFIX, _PREFIX_OF_INSTANCES))
    return fingerprint[:_SCHEME_BYTES] if is_whole and is_known else b""
