"""An invocation is started by the loop or revoked by the watchdog: never both, never neither."""

from __future__ import annotations

import threading

from fluvial_invoker.instance.claims import Claims


def test_what_is_claimed_is_not_revoked() -> None:
    claims = Claims()
    assert claims.claim(1)
    assert claims.claim(2)

    assert claims.revoke() == 2
    assert not claims.claim(3)


def test_everything_is_revoked_once() -> None:
    claims = Claims()
    claims.revoke()

    assert claims.revoke() is None


def test_what_was_sent_before_the_gateway_knew_stays_revoked() -> None:
    claims = Claims()
    claims.claim(1)
    claims.revoke()
    claims.resume(3)

    assert [claims.claim(number) for number in (2, 3, 4)] == [False, False, True]


def test_a_resume_that_nobody_waits_for_changes_nothing() -> None:
    claims = Claims()
    claims.resume(10)

    assert claims.claim(1)


def test_what_no_gateway_was_told_of_is_not_revoked() -> None:
    claims = Claims()
    claims.revoke()
    claims.resume(3)
    claims.revoke()
    claims.restore()

    assert claims.is_open
    assert [claims.claim(number) for number in (3, 4)] == [False, True]


def test_with_both_threads_at_it_each_invocation_has_one_fate() -> None:
    for _ in range(50):
        claims = Claims()
        started: list[int] = []
        both = threading.Barrier(2)

        def run_loop(claims: Claims = claims, started: list[int] = started) -> None:
            both.wait()  # noqa: B023 the threads end within the iteration
            started += [number for number in range(1, 200) if claims.claim(number)]

        loop = threading.Thread(target=run_loop)
        loop.start()
        both.wait()
        claimed = claims.revoke()
        loop.join()

        assert started == list(range(1, (claimed or 0) + 1))
