"""An app's keys, inside its instances: seal and open what leaves and enters them.

Root keys (32 random bytes, named by a key id) come from the invoker. From a root derive, by
HKDF-SHA256 with different `info`:

    run key        AES-256-GCM, one per run: what an instance seals itself
    HPKE key       X25519: what others seal to the app (input posted as JSON, hook payloads)
    run secret     the seed of a run's random numbers and hook tokens
    fingerprint    HMAC key with which two starts are compared

The current root seals; the others only open. Roots can be replaced while they are in use, as the
app's keyring changes: what is sealed from then on is sealed with the new current one, also in runs
that are live. Key objects are cached, per run in an LRU.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fluvial.errors import (
    DecryptionError,
    InvalidRequestError,
    KeyDestroyedError,
    KeyMissingError,
    KeysFrozenError,
)
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
_FINGERPRINT: Final = b"ak1"  # a fingerprint: this, a tag of its key, and a MAC
_FINGERPRINT_TAG_BYTES: Final = 5
_FINGERPRINT_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class KeySet:
    """What an instance is given of its app's keyring."""

    roots: Mapping[str, bytes] = field(repr=False)  # by key id, oldest first
    current: str  # the key that seals
    destroyed: Mapping[str, int] = field(default_factory=dict[str, int])  # id → when, Unix ms
    is_frozen: bool = False  # nothing is sealed

    def check(self) -> None:
        """Raises:
        InvalidRequestError: the parts do not fit together.
        """
        if self.current not in self.roots:
            raise InvalidRequestError(f"the current key {self.current!r} is not among the roots")
        for key_id, root in self.roots.items():
            if len(root) != KEY_BYTES:
                raise InvalidRequestError(f"root key {key_id!r} must have {KEY_BYTES} bytes")


class RunKeys:
    """Seals and opens the values of one run; what `AppKeys` caches."""

    # `_used` is what this run seals with: the key's id, the head of envelopes, and where their
    # associated data begins. One attribute, because threads may seal while the keyring changes.
    __slots__ = ("_ciphers", "_owner", "_prefix", "_run_id", "_used")

    def __init__(self, owner: AppKeys, run_id: str) -> None:
        self._owner = owner
        self._run_id = run_id
        self._prefix = binding_prefix(owner.app, run_id)
        self._ciphers: dict[str, AESGCM] = {}
        self._used = self._with_key(owner.current)

    def of(self, run_id: str) -> RunKeys:
        """Return the keys of another run of the same app."""
        return self._owner.for_run(run_id)

    def seal(
        self, plaintext: bytes, kind: Kind, correlation: int | str = 0, index: int = 0
    ) -> bytes:
        """Return the envelope of `plaintext`, bound to its place in this run.

        Raises:
            KeysFrozenError: nothing is sealed now.
        """
        key_id, head, aad = self._used
        if key_id is not self._owner.sealing:  # the keyring has changed
            key_id, head, aad = self._used = self._with_key(self._owner.sealing_key())
        nonce = random_bytes(_NONCE_BYTES)
        cipher = self._ciphers.get(key_id) or self._cipher(key_id)
        bound = aad + binding_place(kind, correlation, index)
        return head + nonce + cipher.encrypt(nonce, plaintext, bound)

    def open(
        self, envelope: bytes, kind: Kind, correlation: int | str = 0, index: int = 0
    ) -> bytes:
        """Return the plaintext of an envelope that was sealed for this place.

        Raises:
            DecryptionError: it was altered, was sealed for another place, or its key is not here.
        """
        place = binding_place(kind, correlation, index)
        key_id, head, aad = self._used
        if envelope.startswith(head):  # the common case: sealed here, with the current key
            form, start, bound = UNDER_RUN_KEY, len(head), aad + place
        else:
            form, key_id, start = read_head(envelope)
            bound = envelope[:start] + self._prefix + place
        try:
            if form == UNDER_RUN_KEY:
                cipher = self._ciphers.get(key_id) or self._cipher(key_id)
                end = start + _NONCE_BYTES
                return cipher.decrypt(envelope[start:end], envelope[end:], bound)
            return SUITE.decrypt(envelope[start:], self._owner.private_key(key_id), info=bound)
        except (InvalidTag, ValueError) as error:
            what = f"{kind} {correlation}" if isinstance(correlation, int) else kind  # no token
            whose = f" of run {self._run_id}" if self._run_id else ""  # a variable is of no run
            raise DecryptionError(
                f"a sealed {what}{whose} was altered or belongs elsewhere"
            ) from error

    def _with_key(self, key_id: str) -> tuple[str, bytes, bytes]:
        head = envelope_head(UNDER_RUN_KEY, key_id)
        return key_id, head, head + self._prefix

    def _cipher(self, key_id: str) -> AESGCM:
        key = self._owner.derive(key_id, "run", self._run_id)
        cipher = self._ciphers[key_id] = AESGCM(key)
        return cipher


class AppKeys:
    """All keys of one app.

    `renew` is called when a value names a key that is not here: it may bring newer keys through
    `update` before it returns, and need not.
    """

    def __init__(
        self,
        app: str,
        roots: Mapping[str, bytes],
        current: str,
        *,
        destroyed: Mapping[str, int] | None = None,
        is_frozen: bool = False,
        renew: Callable[[], None] | None = None,
    ) -> None:
        self.app = app
        self._renew = renew
        self._runs = functools.lru_cache(maxsize=_CACHED_RUNS)(functools.partial(RunKeys, self))
        self._private_keys: dict[str, X25519PrivateKey] = {}
        self._roots: dict[str, bytes] = {}
        self.update(KeySet(roots, current, destroyed or {}, is_frozen))

    def __repr__(self) -> str:
        return f"AppKeys({self.app!r}, keys={list(self._roots)}, current={self.current!r})"

    def update(self, keys: KeySet) -> None:
        """Go on with these keys.

        Where one is gone, `RunKeys` that somebody holds may still open with what they derived from
        it: a process that must not, must end.

        Raises:
            InvalidRequestError: they do not fit together; nothing has changed.
        """
        keys.check()
        gone = self._roots.keys() - keys.roots.keys()
        if gone:
            self._runs.cache_clear()
        for key_id in gone & self._private_keys.keys():
            del self._private_keys[key_id]
        self._roots = dict(keys.roots)
        self._destroyed = dict(keys.destroyed)
        self.current = keys.current
        self.sealing: str | None = None if keys.is_frozen else keys.current

    @property
    def is_frozen(self) -> bool:
        """Whether nothing is sealed now."""
        return self.sealing is None

    def sealing_key(self) -> str:
        """Return the id of the key that seals.

        Raises:
            KeysFrozenError: none does now.
        """
        if self.sealing is None:
            raise KeysFrozenError(self.app)
        return self.sealing

    def public_key(self) -> tuple[str, bytes]:
        """Return (key id, public key) for those who seal to this app (`fluvial.sealing`)."""
        return self.current, self.private_key(self.current).public_key().public_bytes_raw()

    def for_run(self, run_id: str) -> RunKeys:
        """Return the keys of one run."""
        return self._runs(run_id)

    def seal(self, binding: Binding, plaintext: bytes) -> bytes:
        """Return the envelope of `plaintext`, bound to `binding`.

        Raises:
            KeysFrozenError: nothing is sealed now.
        """
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
        """Return what identifies a start's input; two of the same key are equal for equal inputs.

        Made with the oldest root, so that a rotation between two equal starts is no conflict. Once
        that is destroyed, newer fingerprints begin otherwise: the two cannot be compared.
        """
        oldest = next(iter(self._roots))
        key = self.derive(oldest, "fingerprint", workflow)
        tag = hashlib.sha256(oldest.encode()).digest()[:_FINGERPRINT_TAG_BYTES]
        mac = hmac.digest(key, plaintext, hashlib.sha256)[:_FINGERPRINT_MAC_BYTES]
        return _FINGERPRINT + tag + mac

    def derive(self, key_id: str, purpose: str, subject: str) -> bytes:
        """Return 32 bytes that only the holder of the root `key_id` can compute.

        Raises:
            KeyDestroyedError, KeyMissingError: that root is not here.
        """
        root = self._roots.get(key_id)
        if root is None:
            root = self._renewed_root(key_id)
        info = _info(purpose, self.app, subject)
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(root)

    def private_key(self, key_id: str) -> X25519PrivateKey:
        """Return the key that opens what was sealed to the app's public key of that id."""
        key = self._private_keys.get(key_id)
        if key is None:
            key = X25519PrivateKey.from_private_bytes(self.derive(key_id, "hpke", ""))
            self._private_keys[key_id] = key
        return key

    def _renewed_root(self, key_id: str) -> bytes:
        if key_id not in self._destroyed and self._renew is not None:
            self._renew()
        root = self._roots.get(key_id)
        if root is not None:
            return root
        if key_id in self._destroyed:
            raise KeyDestroyedError(self.app, key_id, self._destroyed[key_id])
        raise KeyMissingError(self.app, key_id)

    def _check_app(self, binding: Binding) -> None:
        if binding.app != self.app:
            raise DecryptionError(f"a value of app {binding.app!r} is not for app {self.app!r}")


def public_key_of(root: bytes | bytearray | memoryview, app: str) -> bytes:
    """Return the public key that belongs to a root key; leaves no copy of anything secret."""
    private_key = bytearray(KEY_BYTES)
    HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_info("hpke", app, "")).derive_into(
        root, private_key
    )
    try:
        return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    finally:
        private_key[:] = bytes(KEY_BYTES)


def _info(purpose: str, app: str, subject: str) -> bytes:
    return purpose.encode() + b"\0" + binding_prefix(app, subject)
