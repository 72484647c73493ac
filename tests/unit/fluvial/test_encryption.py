"""Sealed values open only where they belong, unaltered, with their key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.encryption import AppKeys
from fluvial.errors import DecryptionError, InvalidRequestError
from fluvial.sealing import Binding, seal

ROOT, OTHER = b"r" * 32, b"o" * 32
KEYS = AppKeys("orders", {"k1": ROOT}, "k1")
PLACE = Binding("orders", "run_a", "step_result", 7, 0)
ELSEWHERE: list[dict[str, Any]] = [
    {"run_id": "run_b"},
    {"kind": "step_input"},
    {"kind": "hook"},
    {"id": 8},
    {"id": "7"},
    {"id": 70},
    {"index": 1},
    {"id": 0, "index": 7},
]


def sealed_to_public_key(plaintext: bytes, binding: Binding) -> bytes:
    key_id, public_key = KEYS.public_key()
    return seal(public_key, key_id, plaintext, binding)


ENVELOPES = {"run key": KEYS.seal(PLACE, b"m\xc0"), "hpke": sealed_to_public_key(b"m\xc0", PLACE)}


@given(st.binary(max_size=5000))
@settings(max_examples=50, deadline=None)
def test_what_is_sealed_opens(plaintext: bytes) -> None:
    assert KEYS.open(PLACE, KEYS.seal(PLACE, plaintext)) == plaintext
    assert KEYS.open(PLACE, sealed_to_public_key(plaintext, PLACE)) == plaintext


@pytest.mark.parametrize("form", ENVELOPES)
def test_every_flipped_bit_is_noticed(form: str) -> None:
    envelope = ENVELOPES[form]
    for position in range(len(envelope)):
        for bit in range(8):
            altered = bytearray(envelope)
            altered[position] ^= 1 << bit
            with pytest.raises(DecryptionError):
                KEYS.open(PLACE, bytes(altered))


@pytest.mark.parametrize("form", ENVELOPES)
def test_every_truncation_and_extension_is_noticed(form: str) -> None:
    envelope = ENVELOPES[form]
    for length in range(len(envelope)):
        with pytest.raises(DecryptionError):
            KEYS.open(PLACE, envelope[:length])
    with pytest.raises(DecryptionError):
        KEYS.open(PLACE, envelope + b"\0")


@pytest.mark.parametrize("form", ENVELOPES)
@pytest.mark.parametrize("change", ELSEWHERE, ids=str)
def test_a_value_that_was_moved_is_refused(form: str, change: dict[str, Any]) -> None:
    with pytest.raises(DecryptionError):
        KEYS.open(dataclasses.replace(PLACE, **change), ENVELOPES[form])


def test_another_app_cannot_open_even_with_the_same_root() -> None:
    thief = AppKeys("thief", {"k1": ROOT}, "k1")
    for envelope in ENVELOPES.values():
        with pytest.raises(DecryptionError):
            thief.open(dataclasses.replace(PLACE, app="thief"), envelope)
        with pytest.raises(DecryptionError):
            thief.open(PLACE, envelope)


@given(st.binary(max_size=120))
@settings(max_examples=200, deadline=None)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(DecryptionError):
        KEYS.open(PLACE, data)


def test_rotation_keeps_old_values_readable() -> None:
    rotated = AppKeys("orders", {"k1": ROOT, "k2": OTHER}, "k2")

    for envelope in ENVELOPES.values():
        assert rotated.open(PLACE, envelope) == b"m\xc0"
    with pytest.raises(DecryptionError, match="k2"):
        KEYS.open(PLACE, rotated.seal(PLACE, b"new"))


def test_a_rotation_changes_no_fingerprint_and_no_run_secret() -> None:
    rotated = AppKeys("orders", {"k1": ROOT, "k2": OTHER}, "k2")
    envelope = ENVELOPES["run key"]

    assert rotated.fingerprint("flow", b"x") == KEYS.fingerprint("flow", b"x")
    assert rotated.run_secret("run_a", envelope) == KEYS.run_secret("run_a", envelope)
    assert KEYS.run_secret("run_a", envelope) != KEYS.run_secret("run_b", envelope)
    assert KEYS.fingerprint("flow", b"x") != KEYS.fingerprint("other", b"x")


def test_two_sealings_differ() -> None:
    assert KEYS.seal(PLACE, b"same") != KEYS.seal(PLACE, b"same")


@given(
    st.tuples(st.text(max_size=5), st.text(max_size=5), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.text(max_size=5), st.text(max_size=5), st.integers(0, 99), st.integers(0, 99)),
)
@settings(max_examples=200, deadline=None)
def test_different_bindings_have_different_encodings(one: Any, other: Any) -> None:
    first = Binding(one[0], one[1], "hook", one[2], one[3])
    second = Binding(other[0], other[1], "hook", other[2], other[3])

    assert (first.encode() == second.encode()) == (first == second)


def test_keys_never_show_their_roots() -> None:
    assert ROOT.decode() not in repr(KEYS)


def test_wrong_keys_are_refused() -> None:
    with pytest.raises(InvalidRequestError):
        AppKeys("orders", {"k1": b"short"}, "k1")
    with pytest.raises(InvalidRequestError):
        AppKeys("orders", {"k1": ROOT}, "k2")
    with pytest.raises(InvalidRequestError):
        seal(b"short", "k1", b"", PLACE)
    with pytest.raises(InvalidRequestError):
        seal(KEYS.public_key()[1], "", b"", PLACE)
