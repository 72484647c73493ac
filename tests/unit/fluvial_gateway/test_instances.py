"""Choosing an instance."""

from __future__ import annotations

from fluvial_gateway.instances import Instance, choose


class NoOwner:
    def instance_ready(self, instance: Instance) -> None: ...
    def instance_health_changed(self, instance: Instance) -> None: ...
    def instance_draining(self, instance: Instance) -> None: ...
    def instance_lost(self, instance: Instance, reason: str) -> None: ...


def _instance(name: str, in_flight: int, limit: int = 10) -> Instance:
    instance = Instance(NoOwner(), name, tier="zygote", limit=limit, started_at=0.0)
    instance.in_flight = in_flight
    return instance


def test_the_one_with_the_most_room_is_chosen() -> None:
    chosen = choose([_instance("a", 9), _instance("b", 2), _instance("c", 5)], None)

    assert chosen is not None
    assert chosen.id == "b"


def test_of_equal_ones_the_first_is_chosen() -> None:
    chosen = choose([_instance("a", 1), _instance("b", 1)], None)

    assert chosen is not None
    assert chosen.id == "a"


def test_the_preferred_one_is_chosen_only_with_room() -> None:
    instances = [_instance("a", 0), _instance("b", 9), _instance("c", 10)]

    assert getattr(choose(instances, "b"), "id", None) == "b"
    assert getattr(choose(instances, "c"), "id", None) == "a"


def test_paused_draining_and_full_ones_have_no_room() -> None:
    paused, draining, full = _instance("a", 0), _instance("b", 0), _instance("c", 10)
    paused.paused = True
    draining.draining = True

    assert choose([paused, draining, full], None) is None
