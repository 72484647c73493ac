"""The phases of a cold start add up, whatever the instance claims."""

from __future__ import annotations

import pytest

from fluvial_gateway.cold_starts import ColdStart


@pytest.mark.parametrize("claimed", [-5.0, 0.0, 0.1, 100.0])
@pytest.mark.parametrize("created", [-1.0, 1.5, 9.0])
def test_phases_add_up_to_the_time_that_passed(created: float, claimed: float) -> None:
    cold = ColdStart.measured("zygote", 1.0, created, 2.0, claimed)

    phases = (cold.fork_seconds, cold.import_seconds, cold.ready_seconds)
    assert sum(phases) == pytest.approx(1.0)
    assert min(phases) >= 0


def test_a_start_without_imports_does_not_name_them() -> None:
    snapshot = ColdStart.measured("snapshot", 0.0, 0.002, 0.005, 0.0)
    zygote = ColdStart.measured("zygote", 0.0, 0.002, 0.045, 0.04)

    assert snapshot.timings() == "fork;dur=2.0, ready;dur=3.0"
    assert zygote.timings() == "fork;dur=2.0, import;dur=40.0, ready;dur=3.0"


def test_only_known_tiers_reach_a_header() -> None:
    assert ColdStart.measured("spawn", 0, 0, 1, 0).header() == "x-fluvial-cold-start: spawn\r\n"
    assert ColdStart.measured("a\r\n", 0, 0, 1, 0).header() == "x-fluvial-cold-start: other\r\n"
