"""Ids of invocations: unique, of the documented form, in the order of their seconds."""

from __future__ import annotations

import re

from fluvial_gateway.invocation_ids import InvocationIds


def test_ids_are_unique_and_well_formed() -> None:
    ids = InvocationIds()

    made = [ids.new(1000.0 + number / 1500) for number in range(5000)]

    assert len(set(made)) == 5000
    assert all(re.fullmatch(r"inv_[0-9a-hjkmnp-tv-z]{24}", made_id) for made_id in made)


def test_two_makers_do_not_meet() -> None:
    one, other = InvocationIds(), InvocationIds()

    assert not {one.new(0.0) for _ in range(1000)} & {other.new(0.0) for _ in range(1000)}
