"""Sealing to an app's public key: whoever has it can lock a value in, and cannot open it.

An envelope is one byte that says how it is sealed, the length and the text of the key id, and:

    1  nonce (12 bytes), ciphertext: AES-256-GCM under the run's key; the binding is the
       associated data (made by `fluvial.encryption`)
    2  HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM): encapsulated key and ciphertext; the
       binding is the `info` (made here, opened by `fluvial.encryption`)

The *binding* says where the value belongs. A ciphertext that is moved anywhere else, to another
run, step, field or attempt, does not open.

This module knows public keys only: the gateway imports it and nothing else of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fluvial.errors import DecryptionError, InvalidRequestError

Kind = Literal[
    "input",
    "step_input",
    "step_result",
    "step_error",
    "result",
    "error",
    "hook",
    "hook_metadata",
    "hook_answer",
    "state",
    "chunk",
    "progress",
    "variable",
]

UNDER_RUN_KEY: Final = 1
TO_PUBLIC_KEY: Final = 2
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
MAX_KEY_ID_BYTES: Final = 64
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a sealed value belongs.

    `id` is the step's id, a hook's token, a chunk's place (`fluvial.stream_entries`), which payload
    of a hook is answered (`fluvial.hook_operations`), or a variable's name (`variable_binding`);
    `index` is a step error's attempt, or which of its attempt's chunks a chunk is.
    """

    app: str
    run_id: str
    kind: Kind
    id: int | str = 0
    index: int = 0

    def encode(self) -> bytes:
        """Return bytes that no other binding has: every part with its length before it."""
        return binding_prefix(self.app, self.run_id) + binding_place(self.kind, self.id, self.index)


def variable_binding(app: str, name: str) -> Binding:
    """Return where the value of an app's environment variable belongs: to no run."""
    return Binding(app, "", "variable", name)


def binding_prefix(app: str, run_id: str) -> bytes:
    """The part of a binding's encoding that all values of a run share."""
    app_bytes, run_bytes = app.encode(), run_id.encode()
    return b"fluvial%d,%d:%b%d:%b" % (
        _VERSION,
        len(app_bytes),
        app_bytes,
        len(run_bytes),
        run_bytes,
    )


def binding_place(kind: str, correlation: int | str, index: int) -> bytes:
    """The part of a binding's encoding that tells the values of a run apart."""
    if type(correlation) is int:
        return f"{kind}#{correlation}#{index}".encode()  # hot: faster than formatting bytes
    text = str(correlation).encode()
    return b"%b$%d:%b#%d" % (kind.encode(), len(text), text, index)


def seal(public_key: bytes, key_id: str, plaintext: bytes, binding: Binding) -> bytes:
    """Seal `plaintext` so that only the app's instances can open it.

    Raises:
        InvalidRequestError: `public_key` is not 32 bytes of an X25519 key.
    """
    try:
        key = X25519PublicKey.from_public_bytes(public_key)
    except ValueError as error:
        raise InvalidRequestError("the app's public key is not an X25519 key") from error
    head = envelope_head(TO_PUBLIC_KEY, key_id)
    return head + SUITE.encrypt(plaintext, key, info=head + binding.encode())


def envelope_head(form: int, key_id: str) -> bytes:
    """The bytes of an envelope before the ciphertext; they are authenticated with the binding."""
    text = key_id.encode()
    if not 1 <= len(text) <= MAX_KEY_ID_BYTES:
        raise InvalidRequestError(f"a key id must have 1 to {MAX_KEY_ID_BYTES} bytes")
    return bytes((form, len(text))) + text


def read_head(envelope: bytes) -> tuple[int, str, int]:
    """Return (form, key id, where the rest begins).

    Raises:
        DecryptionError: it is not an envelope.
    """
    if len(envelope) < 3:
        raise DecryptionError("a sealed value is cut short")
    end = 2 + envelope[1]
    try:
        key_id = envelope[2:end].decode()
    except UnicodeDecodeError:
        raise DecryptionError("a sealed value has a damaged key id") from None
    if len(envelope) < end or envelope[0] not in {UNDER_RUN_KEY, TO_PUBLIC_KEY}:
        raise DecryptionError("a sealed value is cut short or of an unknown form")
    return envelope[0], key_id, end
