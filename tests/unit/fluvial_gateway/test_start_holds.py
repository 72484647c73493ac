"""Failed starts are not repeated at once."""

from __future__ import annotations

from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.start_holds import FIRST_SECONDS, LONGEST_SECONDS, StartHold

FAILED = Unavailable("import_failed", "no module", False)


def test_each_failure_in_a_row_waits_longer_up_to_a_limit() -> None:
    hold = StartHold()

    waits = [hold.failed(0.0, FAILED) for _ in range(20)]

    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LONGEST_SECONDS


def test_meanwhile_the_failure_is_told() -> None:
    hold = StartHold()
    seconds = hold.failed(100.0, FAILED)

    assert hold.refusal(100.0 + seconds / 2) is FAILED
    assert hold.is_active(100.0 + seconds / 2)
    assert hold.refusal(100.0 + seconds) is None
    assert not hold.is_active(100.0 + seconds)


def test_a_ready_instance_clears_it() -> None:
    hold = StartHold()
    for _ in range(5):
        hold.failed(0.0, FAILED)

    hold.clear()

    assert not hold.is_active(0.0)
    assert hold.failed(0.0, None) == FIRST_SECONDS
    assert hold.refusal(0.0) is None
