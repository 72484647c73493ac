"""How many invocations an instance takes, as it is measured."""

from __future__ import annotations

from fluvial_invoker.instance.adaptive_limit import AdaptiveLimit


def _calm(limit: AdaptiveLimit, samples: int, *, latency: float = 0.1) -> None:
    for _ in range(samples):
        limit.calm(limit.now, ended=int(limit.now * 0.1 / latency), seconds=0.1)


def test_it_begins_at_what_the_deployment_allows() -> None:
    assert AdaptiveLimit(100).now == 100


def _troubled(most: int, in_flight: int) -> AdaptiveLimit:
    """Return a limit that was halved once."""
    limit = AdaptiveLimit(most)
    limit.trouble(in_flight)
    assert limit.now == most
    limit.trouble(in_flight)
    return limit


def test_trouble_that_comes_once_is_forgiven() -> None:
    limit = AdaptiveLimit(100)
    for _ in range(3):
        limit.trouble(in_flight=20)
        _calm(limit, 10)

    assert limit.now == 100


def test_trouble_that_comes_again_halves_what_was_in_flight() -> None:
    limit = _troubled(100, in_flight=20)
    assert limit.now == 10

    limit.trouble(in_flight=10)
    assert limit.now == 5


def test_it_never_falls_below_one() -> None:
    limit = AdaptiveLimit(3)
    for _ in range(5):
        limit.trouble(in_flight=0)

    assert limit.now == 1


def test_calm_samples_give_it_back_up_to_the_most() -> None:
    limit = _troubled(100, in_flight=100)
    _calm(limit, 1)
    assert limit.now == 76

    _calm(limit, 10)
    assert limit.now == 100


def test_a_limit_that_is_not_reached_says_nothing_about_more() -> None:
    limit = _troubled(100, in_flight=100)
    limit.calm(in_flight=10, ended=10, seconds=0.1)

    assert limit.now == 50


def test_it_does_not_grow_while_invocations_take_longer_for_it() -> None:
    limit = AdaptiveLimit(100)
    _calm(limit, 50)
    limit.trouble(in_flight=100)
    limit.trouble(in_flight=100)
    _calm(limit, 10, latency=0.5)
    slower = limit.now
    _calm(limit, 100, latency=0.5)  # by now that is what is usual

    assert slower < 100
    assert limit.now == 100


def test_without_ends_there_is_no_latency_to_compare() -> None:
    limit = _troubled(10, in_flight=8)
    limit.calm(in_flight=4, ended=0, seconds=0.1)

    assert limit.now == 7
