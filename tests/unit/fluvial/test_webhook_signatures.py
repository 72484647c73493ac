"""Signatures of webhooks, beside the specification's published vectors and its Python library."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook as Signer

from fluvial.errors import InvalidRequestError
from fluvial.webhook_signatures import (
    ID,
    MAX_SECRETS,
    SIGNATURE,
    TIMESTAMP,
    TOLERANCE_SECONDS,
    check_secrets,
    message_id,
    wrong_signature,
)

# Source of both vectors: github.com/standard-webhooks/standard-webhooks,
# libraries/php/tests/WebhookTest.php and libraries/go/webhook_asymmetric_test.go
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = b"msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = b'{"test": 2432232314}'
SIGNED = b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SEED = base64.b64decode("VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=")
SIGNED_BY_KEY = (
    b"v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
)
OTHER = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def headers(
    message: bytes = MESSAGE, sent: bytes = b"1614265330", signature: bytes = SIGNED
) -> list[tuple[bytes, bytes]]:
    return [(ID, message), (TIMESTAMP, sent), (SIGNATURE, signature)]


def public_key() -> str:
    raw = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    return "whpk_" + base64.b64encode(raw).decode()


def test_the_published_vector_of_a_secret_is_right() -> None:
    assert wrong_signature([SECRET], headers(), BODY, AT) is None


def test_the_published_vector_of_a_key_pair_is_right() -> None:
    assert wrong_signature([public_key()], headers(signature=SIGNED_BY_KEY), BODY, AT) is None


def test_what_the_specifications_library_signs_is_right() -> None:
    at = datetime.fromtimestamp(AT, UTC)
    body = '{"name": "Zo\u00eb"}'
    signed = Signer(OTHER).sign("msg_1", at, body).encode()
    assert wrong_signature([OTHER], headers(b"msg_1", signature=signed), body.encode(), AT) is None
    assert wrong_signature([SECRET], headers(b"msg_1", signature=signed), body.encode(), AT)


@pytest.mark.parametrize(
    "secrets", [[OTHER, SECRET], [SECRET, OTHER], [public_key(), SECRET]], ids=str
)
def test_one_right_secret_of_several_is_enough(secrets: list[str]) -> None:
    assert wrong_signature(secrets, headers(), BODY, AT) is None


def test_one_right_signature_of_several_is_enough() -> None:
    several = b"v2,AAAA v1,AAAA " + SIGNED_BY_KEY + b" v1,not/base64! " + SIGNED + b" v1"
    assert wrong_signature([SECRET], headers(signature=several), BODY, AT) is None


def test_signatures_without_padding_are_understood() -> None:
    assert wrong_signature([SECRET], headers(signature=SIGNED.rstrip(b"=")), BODY, AT) is None


@pytest.mark.parametrize("away", [TOLERANCE_SECONDS, -TOLERANCE_SECONDS])
def test_a_timestamp_may_be_five_minutes_away_and_not_more(away: int) -> None:
    assert wrong_signature([SECRET], headers(), BODY, AT + away) is None
    beyond = AT + away + (1 if away > 0 else -1)
    wrong = wrong_signature([SECRET], headers(), BODY, beyond)
    assert wrong is not None
    assert "webhook-timestamp" in wrong


@pytest.mark.parametrize(
    "changed",
    [
        headers(message=b"msg_another"),
        headers(sent=b"1614265331"),
        headers(signature=b""),
        headers(signature=b"v1,"),
        headers(signature=b"v1," + base64.b64encode(bytes(32))),
        headers(signature=SIGNED.replace(b"v1,", b"v1a,")),
        headers(signature=SIGNED.replace(b"v1,", b"v2,")),
        headers(signature=SIGNED_BY_KEY),
        headers(signature=b" ".join([b"v1,AAAA"] * 40 + [SIGNED])),
        headers()[1:],
        headers()[:2],
        [*headers(), (SIGNATURE, SIGNED)],
        [*headers(), (ID, MESSAGE)],
        headers(sent=b"1614265330.0"),
        headers(sent=b"+1614265330"),
        headers(sent=b"-1"),
        headers(sent=b"9" * 400),
        headers(message=b"msg.p5jXN8AQM9LWM0D4loKWxJek"),
        headers(message=b""),
        headers(message=b"m" * 257),
        headers(message=b"msg\xff"),
    ],
)
def test_what_differs_from_what_was_signed_is_wrong(changed: list[tuple[bytes, bytes]]) -> None:
    assert wrong_signature([SECRET], changed, BODY, AT) is not None


def test_another_body_is_wrong() -> None:
    assert wrong_signature([SECRET, public_key()], headers(), BODY + b" ", AT) is not None
    by_key = headers(signature=SIGNED_BY_KEY)
    assert wrong_signature([public_key()], by_key, BODY + b" ", AT) is not None


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whpk_" + base64.b64encode(bytes(31)).decode(),
        "whsk_" + base64.b64encode(bytes(32)).decode(),
    ],
)
def test_what_is_no_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(InvalidRequestError, match="secret 2 of the webhook") as refused:
        check_secrets([SECRET, secret])
    assert len(secret) < 8 or secret not in str(refused.value)


def test_the_number_of_secrets_is_bounded() -> None:
    check_secrets([SECRET] * MAX_SECRETS)
    for secrets in ([], [SECRET] * (MAX_SECRETS + 1)):
        with pytest.raises(InvalidRequestError, match="1 to 16 secrets"):
            check_secrets(secrets)


def test_a_message_id_is_one_header_of_visible_characters() -> None:
    assert message_id(headers()) == MESSAGE.decode()
    assert message_id([]) is None
    assert message_id([(ID, b"a"), (ID, b"a")]) is None
    assert message_id([(ID, b"two words")]) is None
