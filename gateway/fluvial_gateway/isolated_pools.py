"""Instances for isolated steps: each takes one invocation, and then ends.

They are fresh forks of their own that nobody else is handed. As many of them may run at a time as
`max_instances` says, beside the deployment's other instances and without taking their room: an
isolated step can neither be kept out by a busy app nor keep its requests out.
"""

from __future__ import annotations

from fluvial_gateway.instance_starts import InstanceStarts
from fluvial_gateway.instances import Instance
from fluvial_gateway.pools import InstancePool


class IsolatedPool(InstancePool):
    """Places each invocation on an instance of its own."""

    def end(self, instance: Instance) -> None:
        """Have an instance end: soon, whatever its code does."""
        self._context.invoker.kill(instance.id, self._context.limits.kill_grace_ms)

    def room_of_one(self) -> int:
        """How many invocations one instance takes."""
        return 1

    def _new_starts(self) -> InstanceStarts:
        # Each invocation is a start: `max_instances` bounds them, no rate.
        return InstanceStarts(self, self._context, budget=None, alone=True)

    def _count_living(self) -> int:
        return len(self._instances)  # also those that have their invocation

    def _placed(self, instance: Instance) -> None:
        self.instance_draining(instance)

    def _hang_up_if_done(self, instance: Instance) -> None:
        if instance.draining and not instance.in_flight:
            super()._hang_up_if_done(instance)
            self.end(instance)
