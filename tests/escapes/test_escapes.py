"""What code in an instance reaches, tier by tier, is what the documentation says."""

from __future__ import annotations

import pytest

from tests.escapes.attempts import ATTEMPTS
from tests.escapes.observing import TIERS, Tier, observe
from tests.escapes.table import PAGE, REACHED, cell, written_column

POSSIBLE = [tier for tier in TIERS if tier.is_possible]
# An app needs the network; `network` in the manifest takes it away: see test_jails.py.
REACHED_FROM_A_JAIL = {"dial a TCP port of the machine"}


@pytest.mark.parametrize("tier", POSSIBLE, ids=str)
def test_the_documentation_claims_of_a_tier_what_its_escape_attempts_show(tier: Tier) -> None:
    errors = observe(tier)
    seen = {attempt.name: cell(attempt, tier, errors[attempt.name]) for attempt in ATTEMPTS}

    assert seen == written_column(PAGE.read_text("utf-8"), tier)


@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier.isolation == "jail"], ids=str)
def test_a_jail_is_said_to_stop_everything_but_the_network(tier: Tier) -> None:
    column = written_column(PAGE.read_text("utf-8"), tier)

    assert {name for name, said in column.items() if said == REACHED} == REACHED_FROM_A_JAIL
