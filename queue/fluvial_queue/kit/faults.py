"""Faults: what breaks, as things that happen between any two others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.kit.history import job_name
from fluvial_queue.kit.instances import instance_name
from fluvial_queue.kit.work import Answering, Carrying, Committing

if TYPE_CHECKING:
    from fluvial_queue.kit.engine import Engine
    from fluvial_queue.kit.owner import Owner


class Faults:
    """Breaks things in an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def crash(self) -> None:
        """Lose everything in memory: all owners and all instances."""
        self._note("everything in memory is lost")
        engine = self._engine
        for owner in [*engine.owners.values(), *engine.stale]:
            self._end(owner)
        for number in range(engine.instances.count):
            engine.instances.crash(number)

    def crash_owner(self, owner: Owner) -> None:
        """Lose an owner. Instances cancel what came over its link; their coroutines live on."""
        self._note(f"{owner} crashes")
        self._end(owner)

    def crash_instance(self, number: int) -> None:
        """Lose an instance: its coroutines, and what it executes or has just answered."""
        name = instance_name(number)
        self._note(f"{name} crashes")
        engine = self._engine
        engine.instances.crash(number)
        lost = engine.flights.stop(lambda flight: flight.instance == number)
        for flight in lost:
            flight.owner.sequencer.lost(flight.job, "instance_died", flight.progress)
        for owner in [*engine.owners.values(), *engine.stale]:
            arriving = [w for w in owner.work if isinstance(w, Answering) and w.instance == number]
            for work in arriving:
                owner.work.remove(work)
                owner.sequencer.lost(work.job, "instance_died")

    async def steal(self, partition: int) -> None:
        """Give a partition to another owner; the old one does not know."""
        engine = self._engine
        old = engine.owners.pop(partition)
        self._note(f"{old} loses its lease, and does not know")
        engine.stale.append(old)
        await engine.acquire(partition)

    async def lose_reply(self, owner: Owner, work: Committing) -> None:
        """Apply a commit whose reply is lost: its owner will commit it again."""
        answer = await owner.apply(work.entry)
        work.was_applied = True
        self._engine.history.committed(owner, work.entry, answer)
        self._note(f"{owner}: the reply is lost")

    def lose_answer(self, owner: Owner, work: Answering) -> None:
        """An invocation was executed, and its answer is lost."""
        self._note(f"{owner}: the answer of {job_name(work.job)} is lost")
        owner.sequencer.lost(work.job, "link_lost")

    async def repeat_effect(self, owner: Owner, work: Carrying) -> bool:
        """Do what an effect asks for; its owner does not know, and does it again. Returns whether
        something was done."""
        engine = self._engine
        try:
            await carry_out(engine.store, work.view.app, work.effect, engine.now_ms())
        except TooEarlyError:
            return False
        self._note(f"{owner}: does not know that it has carried out an effect")
        return True

    def _end(self, owner: Owner) -> None:
        engine = self._engine
        owner.work.clear()
        if owner in engine.stale:
            engine.stale.remove(owner)
        else:
            del engine.owners[owner.lease.partition]
        engine.flights.stop(lambda flight: flight.owner is owner)

    def _note(self, text: str) -> None:
        self._engine.history.add(text)
