"""Real workflows under random schedules with faults keep the promises; and the check can fail.

`FLUVIAL_SCHEDULES` sets how many are played here; `make campaign` plays many more.
"""

from __future__ import annotations

import os

import pytest

from tests.campaign.plans import STEERING, draw
from tests.campaign.planted import PLANTED, Planted
from tests.campaign.playing import play, play_seeds, shrink
from tests.campaign.world import FAULTS, OUTSIDERS

SCHEDULES = int(os.environ.get("FLUVIAL_SCHEDULES", "2000"))
SEEDS_TO_CATCH = 400  # how many schedules a planted bug may survive


def test_random_schedules_with_faults_keep_the_promises() -> None:
    tally = play_seeds(range(SCHEDULES))

    assert tally.failed is None, shrink(tally.failed)
    assert tally.schedules == SCHEDULES
    assert tally.hit_rate >= 0.95
    assert tally.hits.keys() >= {*FAULTS, *STEERING, *OUTSIDERS}


def test_random_schedules_without_faults_keep_the_promises() -> None:
    tally = play_seeds(range(100), faults=False)

    assert tally.failed is None, shrink(tally.failed)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_bug_is_caught(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.plant(monkeypatch)

    assert play_seeds(range(SEEDS_TO_CATCH)).failed is not None


def test_a_failing_schedule_is_made_small_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    next(planted for planted in PLANTED if "without a record" in planted.name).plant(monkeypatch)
    failed = play_seeds(range(SEEDS_TO_CATCH)).failed
    assert failed is not None

    small = shrink(failed)

    assert len(small.plan.programs) == 1
    assert len(small.decisions) < len(failed.decisions) / 3
    assert f"seed {failed.plan.seed}: campaign." in str(small)
    assert "commits STEP_SCHEDULED" in str(small)
    assert str(small).endswith("AssertionError: a step starts again without a record")


def test_a_seed_plays_the_same_schedule_each_time() -> None:
    for seed in range(10):
        first, second = play(draw(seed)), play(draw(seed))

        assert first.world.core.history.lines() == second.world.core.history.lines()
        assert first.decisions == second.decisions
