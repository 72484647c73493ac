from __future__ import annotations

from pathlib import Path

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import InvalidRequestError
from fluvial_gateway.fingerprints import Fingerprints, are_comparable, load_key

OURS = Fingerprints(b"k" * 32)


def test_equal_inputs_have_equal_fingerprints_whatever_their_order() -> None:
    one = OURS.of("shop", "fulfil", [[], {"a": 1, "b": 2}])
    other = OURS.of("shop", "fulfil", [[], {"b": 2, "a": 1}])

    assert one == other


@pytest.mark.parametrize(
    ("app", "workflow", "arguments"),
    [("shop2", "fulfil", [1]), ("shop", "other", [1]), ("shop", "fulfil", [2])],
)
def test_other_inputs_have_other_fingerprints(
    app: str, workflow: str, arguments: list[int]
) -> None:
    assert OURS.of(app, workflow, arguments) != OURS.of("shop", "fulfil", [1])


def test_fingerprints_are_comparable_under_one_key_only() -> None:
    ours, again = OURS.of("a", "w", [1]), OURS.of("a", "w", [2])
    theirs = Fingerprints(b"x" * 32).of("a", "w", [1])
    made_by_an_instance = b"i" * 32

    assert are_comparable(ours, again)
    assert not are_comparable(ours, theirs)
    assert not are_comparable(ours, made_by_an_instance)
    assert are_comparable(made_by_an_instance, b"j" * 32)


def test_fingerprints_under_a_destroyed_key_are_not_comparable_with_newer_ones() -> None:
    one, two = b"1" * 32, b"2" * 32
    before = AppKeys("a", {"k1": one, "k2": two}, "k2")
    after = AppKeys("a", {"k2": two}, "k2", destroyed={"k1": 1})
    old, new = before.fingerprint("w", b"x"), after.fingerprint("w", b"x")

    assert are_comparable(old, AppKeys("a", {"k1": one}, "k1").fingerprint("w", b"y"))
    assert not are_comparable(old, new)
    assert are_comparable(new, after.fingerprint("w", b"y"))


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "fingerprint.key"

    assert load_key(file) == load_key(file)
    assert len(load_key(file)) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["fingerprint.key"]


def test_short_key_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="32 bytes"):
        Fingerprints(b"short")
