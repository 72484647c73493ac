"""What is billed as provisioned memory."""

from __future__ import annotations

from fluvial_gateway.instances import Instance
from fluvial_gateway.occupancy import Occupancy, Occupied


class Owner:
    def instance_ready(self, instance: Instance) -> None: ...
    def instance_health_changed(self, instance: Instance) -> None: ...
    def instance_draining(self, instance: Instance) -> None: ...
    def instance_lost(self, instance: Instance, reason: str) -> None: ...


def made() -> tuple[Occupancy, Instance]:
    return Occupancy(), Instance(Owner(), "ins_1", tier="zygote", limit=9, started_at=0.0)


def test_invocations_that_overlap_are_counted_once() -> None:
    occupancy, instance = made()
    occupancy.enter(instance, 10.0)
    occupancy.enter(instance, 11.0)
    occupancy.leave("app", 100, instance, 12.0)
    occupancy.leave("app", 100, instance, 14.0)

    assert occupancy.read([("app", 100, instance)], 20.0) == {"app": Occupied(0, 400.0, 100)}


def test_an_idle_instance_costs_nothing() -> None:
    occupancy, instance = made()

    assert occupancy.read([("app", 100, instance)], 99.0) == {"app": Occupied(0, 0.0, 100)}


def test_what_is_under_way_counts_until_now_and_never_goes_back() -> None:
    occupancy, instance = made()
    occupancy.enter(instance, 10.0)
    under_way = occupancy.read([("app", 100, instance)], 13.0)
    occupancy.leave("app", 100, instance, 13.5)

    assert under_way == {"app": Occupied(1, 300.0, 100)}
    assert occupancy.read([], 20.0) == {"app": Occupied(0, 350.0, 100)}


def test_it_is_told_when_an_instance_gets_something_to_do() -> None:
    occupancy, instance = made()
    told: list[float] = []
    now = 0.0
    occupancy.on_busy = lambda: told.append(now)
    for now in (1.0, 2.0):
        occupancy.enter(instance, now)
    for now in (3.0, 4.0):
        occupancy.leave("app", 100, instance, now)
    now = 5.0
    occupancy.enter(instance, now)

    assert told == [1.0, 5.0]
