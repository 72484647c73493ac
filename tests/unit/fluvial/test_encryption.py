"""Sealed values open only where they belong, unaltered, with their key."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.codec import decode, encode
from fluvial.encryption import AppKeys, KeySet, public_key_of
from fluvial.errors import (
    DecryptionError,
    InvalidRequestError,
    KeyDestroyedError,
    KeyMissingError,
    KeysFrozenError,
)
from fluvial.sealing import Binding, Kind, read_head, seal

ROOT, OTHER = b"r" * 32, b"o" * 32
KEYS = AppKeys("orders", {"k1": ROOT}, "k1")
KEYS_OF_NEWER = KeySet({"k1": ROOT, "k2": OTHER}, "k2")
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


def test_live_run_keys_seal_with_the_new_key_from_the_rotation_on() -> None:
    keys = AppKeys("orders", {"k1": ROOT}, "k1")
    run = keys.for_run("run_a")
    before = run.seal(b"old", "result")
    keys.update(KeySet({"k1": ROOT, "k2": OTHER}, "k2"))
    after = run.seal(b"new", "result")

    assert (read_head(before)[1], read_head(after)[1]) == ("k1", "k2")
    assert keys.for_run("run_a").open(before, "result") == run.open(before, "result") == b"old"
    assert keys.for_run("run_a").open(after, "result") == run.open(after, "result") == b"new"


def test_what_outsiders_sealed_before_a_rotation_opens_after_it() -> None:
    keys = AppKeys("orders", {"k1": ROOT}, "k1")
    key_id, public_key = keys.public_key()
    envelope = seal(public_key, key_id, b"from outside", PLACE)
    keys.update(KeySet({"k1": ROOT, "k2": OTHER}, "k2"))

    assert keys.public_key() == ("k2", public_key_of(OTHER, "orders"))
    assert keys.open(PLACE, envelope) == b"from outside"
    assert public_key == public_key_of(bytearray(ROOT), "orders")


def test_frozen_keys_open_and_seal_nothing() -> None:
    keys = AppKeys("orders", {"k1": ROOT}, "k1")
    run = keys.for_run("run_a")
    envelope = run.seal(b"x", "result")
    keys.update(KeySet({"k1": ROOT}, "k1", is_frozen=True))

    assert keys.is_frozen
    assert run.open(envelope, "result") == b"x"
    for sealing in (run, keys.for_run("run_b")):
        with pytest.raises(KeysFrozenError, match="fluvial keys thaw orders"):
            sealing.seal(b"x", "result")
    keys.update(KeySet({"k1": ROOT}, "k1"))
    assert run.open(run.seal(b"y", "result"), "result") == b"y"


def test_a_key_that_is_not_here_is_asked_for_once() -> None:
    asked: list[str] = []
    keys = AppKeys("orders", {"k1": ROOT}, "k1", renew=lambda: asked.append("asked"))
    newer = AppKeys("orders", {"k1": ROOT, "k2": OTHER}, "k2")
    key_id, public_key = newer.public_key()
    for envelope in (newer.seal(PLACE, b"new"), seal(public_key, key_id, b"new", PLACE)):
        with pytest.raises(KeyMissingError, match="has no key 'k2'"):
            keys.open(PLACE, envelope)
    assert asked == ["asked"] * 2

    keys = AppKeys("orders", {"k1": ROOT}, "k1", renew=lambda: keys.update(KEYS_OF_NEWER))
    assert keys.open(PLACE, newer.seal(PLACE, b"new")) == b"new"
    assert read_head(keys.seal(PLACE, b"x"))[1] == "k2"


def test_a_destroyed_key_says_when_and_is_not_asked_for() -> None:
    def never() -> None:
        raise AssertionError("asked for a key that is known to be gone")

    keys = AppKeys("orders", {"k2": OTHER}, "k2", destroyed={"k1": 1_700_000_000_000}, renew=never)
    for envelope in ENVELOPES.values():
        with pytest.raises(KeyDestroyedError, match="at 2023-11-14T22:13:20Z") as caught:
            keys.open(PLACE, envelope)
        assert caught.value.destroyed_ms == 1_700_000_000_000
    with pytest.raises(KeyDestroyedError):
        keys.run_secret("run_a", ENVELOPES["run key"])


KINDS: tuple[Kind, ...] = get_args(Kind)
PLACES = st.builds(
    Binding,
    app=st.just("orders"),
    run_id=st.sampled_from(["run_a", "run_b", "run_", "run_aa"]),
    kind=st.sampled_from(KINDS),
    id=st.one_of(st.integers(0, 12), st.sampled_from(["", "0", "1", "a", "a#1", "$1:a"])),
    index=st.integers(0, 12),
)
TWO_KEYS = AppKeys("orders", {"k1": ROOT, "k2": OTHER}, "k1")


@given(place=PLACES, other=PLACES, outside=st.booleans(), plaintext=st.binary(max_size=64))
@settings(max_examples=400, deadline=None)
def test_an_envelope_opens_in_its_own_place_and_in_no_other(
    place: Binding, other: Binding, outside: bool, plaintext: bytes
) -> None:
    key_id, public_key = TWO_KEYS.public_key()
    envelope = (
        seal(public_key, key_id, plaintext, place) if outside else TWO_KEYS.seal(place, plaintext)
    )

    assert TWO_KEYS.open(place, envelope) == plaintext
    if other != place:
        with pytest.raises(DecryptionError):
            TWO_KEYS.open(other, envelope)


@given(
    data=st.data(),
    place=PLACES,
    outside=st.booleans(),
    plaintext=st.binary(min_size=1, max_size=80),
)
@settings(max_examples=300, deadline=None)
def test_an_altered_envelope_is_refused(
    data: st.DataObject, place: Binding, outside: bool, plaintext: bytes
) -> None:
    key_id, public_key = TWO_KEYS.public_key()
    envelope = (
        seal(public_key, key_id, plaintext, place) if outside else TWO_KEYS.seal(place, plaintext)
    )
    start = data.draw(st.integers(0, len(envelope)))
    end = data.draw(st.integers(start, len(envelope)))
    altered = envelope[:start] + data.draw(st.binary(max_size=8)) + envelope[end:]

    if altered != envelope:
        with pytest.raises(DecryptionError):
            TWO_KEYS.open(place, altered)


@pytest.mark.parametrize("form", ENVELOPES)
def test_an_envelope_under_the_name_of_another_key_is_refused(form: str) -> None:
    renamed = ENVELOPES[form].replace(b"k1", b"k2", 1)

    with pytest.raises(DecryptionError, match="altered or belongs elsewhere"):
        TWO_KEYS.open(PLACE, renamed)


def test_parts_of_two_envelopes_make_none() -> None:
    one, two = KEYS.seal(PLACE, b"first value"), KEYS.seal(PLACE, b"other value")
    for cut in range(5, len(one)):  # behind the head, which is the same
        if one[:cut] + two[cut:] not in (one, two):
            with pytest.raises(DecryptionError):
                KEYS.open(PLACE, one[:cut] + two[cut:])


def test_values_are_compressed_before_they_are_sealed_where_that_saves() -> None:
    repetitive, random = "all work and no play " * 1000, os.urandom(20_000)
    small = KEYS.seal(PLACE, encode(repetitive))
    large = KEYS.seal(PLACE, encode(random))
    short = KEYS.seal(PLACE, encode("ab" * 100))

    assert len(small) < len(repetitive) / 20
    assert len(random) < len(large) < len(random) + 100
    assert 200 < len(short) < 300  # too short for it to be worth trying
    assert decode(KEYS.open(PLACE, small)) == repetitive
    assert decode(KEYS.open(PLACE, large)) == random


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


def test_no_two_places_have_one_encoding() -> None:
    ids: list[int | str] = [*range(130), "", "1", "1#1", "$1:1", "12", "a", "1$1:a"]
    places = [
        Binding(app, run, kind, place, index)
        for app, run in (("a", "run_a"), ("a1", "run_a"), ("a", "1run_a"))
        for kind in KINDS
        for place in ids
        for index in range(25)
    ]

    assert len({place.encode() for place in places}) == len(places)


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
