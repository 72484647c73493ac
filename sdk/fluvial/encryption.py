"""An app's keys, inside its instances: seal and open what leaves and enters them.

Root keys (32 random bytes, named by a key id) come from the invoker. From a root derive, by
HKDF-SHA256 with different `info`:

    run key        AES-256-GCM, one per run: what an instance seals itself
    HPKE key       X25519: what others seal to the app (input posted as JSON, hook payloads)
    run secret     the seed of a run's random numbers and hook tokens
    fingerprint    HMAC key with which two starts are compared

Old roots stay usable for opening; the current one seals. Key objects are cached, per run in an LRU.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fluvial.errors import DecryptionError, InvalidRequestError
from fluvial.sealing import (
    SUITE,
    UNDER_RUN_KEY,
    Binding,
    Kind,
    binding_place,
    binding_prefix,
    envelope_head,
    read_head,
)
from fluvial.unguarded import random_bytes

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_CACHED_RUNS: Final = 4096  # about 1 KiB each


class RunKeys:
    """Seals and opens the values of one run; what `AppKeys` caches."""

    __slots__ = ("_aad", "_ciphers", "_head", "_owner", "_prefix", "_run_id")

    def __init__(self, owner: AppKeys, run_id: str) -> None:
        self._owner = owner
        self._run_id = run_id
        self._prefix = binding_prefix(owner.app, run_id)
        self._ciphers: dict[str, AESGCM] = {}
        self._head = envelope_head(UNDER_RUN_KEY, owner.current)
        self._aad = self._head + self._prefix

    def of(self, run_id: str) -> RunKeys:
        """Return the keys of another run of the same app."""
        return self._owner.for_run(run_id)

    def seal(
        self, plaintext: bytes, kind: Kind, correlation: int | str = 0, index: int = 0
    ) -> bytes:
        """Return the envelope of `plaintext`, bound to its place in this run."""
        nonce = random_bytes(_NONCE_BYTES)
        aad = self._aad + binding_place(kind, correlation, index)
        cipher = self._ciphers.get(self._owner.current) or self._cipher(self._owner.current)
        return self._head + nonce + cipher.encrypt(nonce, plaintext, aad)

    def open(
        self, envelope: bytes, kind: Kind, correlation: int | str = 0, index: int = 0
    ) -> bytes:
        """Return the plaintext of an envelope that was sealed for this place.

        Raises:
            DecryptionError: it was altered, was sealed for another place, or its key is not here.
        """
        place = binding_place(kind, correlation, index)
        head = self._head
        if envelope.startswith(head):  # the common case: sealed here, with the current key
            return self._open_own(envelope, len(head), self._owner.current, self._aad + place)
        form, key_id, start = read_head(envelope)
        bound = envelope[:start] + self._prefix + place
        if form == UNDER_RUN_KEY:
            return self._open_own(envelope, start, key_id, bound)
        try:
            return SUITE.decrypt(envelope[start:], self._owner.private_key(key_id), info=bound)
        except (InvalidTag, ValueError) as error:
            raise _refused(kind, correlation) from error

    def _open_own(self, envelope: bytes, start: int, key_id: str, aad: bytes) -> bytes:
        cipher = self._ciphers.get(key_id) or self._cipher(key_id)
        end = start + _NONCE_BYTES
        try:
            return cipher.decrypt(envelope[start:end], envelope[end:], aad)
        except (InvalidTag, ValueError) as error:
            raise DecryptionError(
                f"a sealed value of run {self._run_id} was altered or belongs elsewhere"
            ) from error

    def _cipher(self, key_id: str) -> AESGCM:
        key = self._owner.derive(key_id, "run", self._run_id)
        cipher = self._ciphers[key_id] = AESGCM(key)
        return cipher


class AppKeys:
    """All keys of one app. `roots` maps key ids to root keys, oldest first."""

    def __init__(self, app: str, roots: Mapping[str, bytes], current: str) -> None:
        if current not in roots:
            raise InvalidRequestError(f"the current key {current!r} is not among the root keys")
        for key_id, root in roots.items():
            if len(root) != KEY_BYTES:
                raise InvalidRequestError(f"root key {key_id!r} must have {KEY_BYTES} bytes")
        self.app = app
        self.current = current
        self._roots = dict(roots)
        self._runs = functools.lru_cache(maxsize=_CACHED_RUNS)(functools.partial(RunKeys, self))
        self._private_keys: dict[str, X25519PrivateKey] = {}

    def __repr__(self) -> str:
        return f"AppKeys({self.app!r}, keys={list(self._roots)}, current={self.current!r})"

    def public_key(self) -> tuple[str, bytes]:
        """Return (key id, public key) for those who seal to this app (`fluvial.sealing`)."""
        return self.current, self.private_key(self.current).public_key().public_bytes_raw()

    def for_run(self, run_id: str) -> RunKeys:
        """Return the keys of one run."""
        return self._runs(run_id)

    def seal(self, binding: Binding, plaintext: bytes) -> bytes:
        """Return the envelope of `plaintext`, bound to `binding`."""
        self._check_app(binding)
        return self._runs(binding.run_id).seal(plaintext, binding.kind, binding.id, binding.index)

    def open(self, binding: Binding, envelope: bytes) -> bytes:
        """Return the plaintext of an envelope that was sealed for `binding`.

        Raises:
            DecryptionError: it was altered, was sealed for another place, or its key is not here.
        """
        self._check_app(binding)
        return self._runs(binding.run_id).open(envelope, binding.kind, binding.id, binding.index)

    def run_secret(self, run_id: str, envelope: bytes) -> bytes:
        """Return 32 secret bytes of a run, under the key that sealed `envelope` (its input).

        Tied to the input's key so that a rotation in the middle of a run changes nothing.
        """
        _, key_id, _ = read_head(envelope)
        return self.derive(key_id, "secret", run_id)

    def fingerprint(self, workflow: str, plaintext: bytes) -> bytes:
        """Return what identifies a start's input; only equal inputs have equal fingerprints.

        Made with the oldest root, so that a rotation between two equal starts is no conflict.
        """
        key = self.derive(next(iter(self._roots)), "fingerprint", workflow)
        return hmac.digest(key, plaintext, hashlib.sha256)

    def derive(self, key_id: str, purpose: str, subject: str) -> bytes:
        """Return 32 bytes that only the holder of the root `key_id` can compute.

        Raises:
            DecryptionError: that root is not here.
        """
        root = self._roots.get(key_id)
        if root is None:
            raise DecryptionError(f"the key {key_id!r} of app {self.app} is not here (destroyed?)")
        info = purpose.encode() + b"\0" + binding_prefix(self.app, subject)
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(root)

    def private_key(self, key_id: str) -> X25519PrivateKey:
        """Return the key that opens what was sealed to the app's public key of that id."""
        key = self._private_keys.get(key_id)
        if key is None:
            key = X25519PrivateKey.from_private_bytes(self.derive(key_id, "hpke", ""))
            self._private_keys[key_id] = key
        return key

    def _check_app(self, binding: Binding) -> None:
        if binding.app != self.app:
            raise DecryptionError(f"a value of app {binding.app!r} is not for app {self.app!r}")


def _refused(kind: str, correlation: int | str) -> DecryptionError:
    return DecryptionError(f"a sealed {kind} ({correlation}) was altered or belongs elsewhere")
