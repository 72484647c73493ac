"""Signatures of webhooks, as the Standard Webhooks specification (1.0) has them.

Three headers go with a body: `webhook-id`, `webhook-timestamp` and `webhook-signature`, a list of
signatures of `id.timestamp.body`, so that a sender can change its key. Two kinds are understood:

    v1    HMAC-SHA256     with a secret  whsec_<base64, 24 to 64 bytes>
    v1a   Ed25519         with a key     whpk_<base64, 32 bytes>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Final

from fluvial.errors import InvalidRequestError

ID: Final = b"webhook-id"
TIMESTAMP: Final = b"webhook-timestamp"
SIGNATURE: Final = b"webhook-signature"
TOLERANCE_SECONDS: Final = 300
MAX_SECRETS: Final = 16
_SECRET: Final = "whsec_"
_PUBLIC_KEY: Final = "whpk_"
_MIN_SECRET_BYTES: Final = 24
_MAX_SECRET_BYTES: Final = 64
_PUBLIC_KEY_BYTES: Final = 32
_MAX_SIGNATURES: Final = 32  # of one request
# Without a full stop, which would let one signed text be read as that of another id and time.
_MESSAGE_ID: Final = re.compile(rb"[!-\-/-~]{1,256}")
_SECONDS: Final = re.compile(rb"[0-9]{1,12}")

Headers = Iterable[Sequence[bytes]]
"""Pairs of a name in lower case and a value."""


def check_secrets(secrets: Sequence[str]) -> None:
    """Raises:
    InvalidRequestError: one of them is none, or there are too many; no secret is repeated.
    """
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise InvalidRequestError(f"a webhook has 1 to {MAX_SECRETS} secrets, got {len(secrets)}")
    for number, secret in enumerate(secrets, 1):
        _key_of(secret, number)


def message_id(headers: Headers) -> str | None:
    """Return the id that a sender gives to what it sends, and keeps when it sends it again."""
    found = _only(headers, ID)
    return found.decode() if found is not None and _MESSAGE_ID.fullmatch(found) else None


def signature(secret: str, message: str, seconds: int, body: bytes) -> str:
    """Return what a sender with a secret puts into `webhook-signature`.

    Raises:
        InvalidRequestError: it is no secret; with a public key nobody can sign.
    """
    version, key = _key_of(secret)
    if version != b"v1":
        raise InvalidRequestError("with a public key nobody can sign; a secret begins with whsec_")
    signed = b"%b.%d.%b" % (message.encode(), seconds, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def wrong_signature(
    secrets: Sequence[str], headers: Headers, body: bytes, now_seconds: float
) -> str | None:
    """Return why a request is not from who has one of the `secrets`; None: it is.

    Raises:
        InvalidRequestError: one of the secrets is none.
    """
    pairs = list(headers)
    message, sent, signatures = (_only(pairs, name) for name in (ID, TIMESTAMP, SIGNATURE))
    if message is None or sent is None or signatures is None:
        return "webhook-id, webhook-timestamp and webhook-signature are needed, each once"
    if _MESSAGE_ID.fullmatch(message) is None:
        return "the webhook-id is not 1 to 256 visible characters without a full stop"
    if _SECONDS.fullmatch(sent) is None:
        return "the webhook-timestamp is not a whole number of seconds since 1970"
    if abs(now_seconds - int(sent)) > TOLERANCE_SECONDS:
        return f"the webhook-timestamp is more than {TOLERANCE_SECONDS} seconds away from now"
    signed = b"%b.%b.%b" % (message, sent, body)
    given = signatures.split()[:_MAX_SIGNATURES]
    matches = any(_matches(secret, signed, given) for secret in secrets)
    return None if matches else "no signature is right"


def _matches(secret: str, signed: bytes, given: Sequence[bytes]) -> bool:
    version, key = _key_of(secret)
    candidates = [found for one in given if (found := _signature(one, version)) is not None]
    if version == b"v1":
        expected = hmac.digest(key, signed, hashlib.sha256)
        return any(hmac.compare_digest(expected, candidate) for candidate in candidates)
    return any(_is_signed(key, signed, candidate) for candidate in candidates)


def _is_signed(key: bytes, signed: bytes, candidate: bytes) -> bool:
    # Here, so that importing the package loads no cryptography.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(candidate, signed)
    except InvalidSignature:
        return False
    return True


def _signature(given: bytes, version: bytes) -> bytes | None:
    kind, separator, text = given.partition(b",")
    return _base64(text) if separator and kind == version else None


def _key_of(secret: str, number: int = 1) -> tuple[bytes, bytes]:
    """Return the version of its signatures, and the key.

    Raises:
        InvalidRequestError: the secret is none.
    """
    if secret.startswith(_SECRET):
        key = _base64(secret.removeprefix(_SECRET).encode())
        if key is not None and _MIN_SECRET_BYTES <= len(key) <= _MAX_SECRET_BYTES:
            return b"v1", key
    elif secret.startswith(_PUBLIC_KEY):
        key = _base64(secret.removeprefix(_PUBLIC_KEY).encode())
        if key is not None and len(key) == _PUBLIC_KEY_BYTES:
            return b"v1a", key
    raise InvalidRequestError(
        f"secret {number} of the webhook is none: expected whsec_ and the base64 of"
        f" {_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes, or whpk_ and that of a public key"
    )


def _base64(text: bytes) -> bytes | None:
    """Decode strictly; the padding may be left out, as some senders do."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def _only(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a header that is there once."""
    values = [value for found, value in headers if found == name]
    return values[0] if len(values) == 1 else None
