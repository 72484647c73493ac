"""Instances for isolated steps: each takes one invocation, and then ends.

They are fresh forks of their own that nobody else is handed. As many of them may run at a time as
`max_instances` says, beside the deployment's other instances and without taking their room: an
isolated step can neither be kept out by a busy app nor keep its requests out.
"""

from __future__ import annotations

from dataclasses import replace

from fluvial.manifest import DeploymentSpec
from fluvial_gateway.instance_watches import InstanceWatch
from fluvial_gateway.instances import Instance
from fluvial_gateway.invoker_client import Acquired
from fluvial_gateway.pools import InstancePool


class IsolatedPool(InstancePool):
    """Places each invocation on an instance of its own."""

    def end(self, instance: Instance) -> None:
        """Have an instance end: soon, whatever its code does."""
        self._context.invoker.kill(instance.id, self._context.limits.kill_grace_ms)

    async def _ask_for_one(self, spec: DeploymentSpec) -> Acquired:
        alone = replace(spec, instance=replace(spec.instance, max_concurrency=1))
        return await self._context.invoker.acquire(
            alone,
            [*self._instances, *self._dialling],
            deadline_seconds=self._context.limits.start_seconds,
            alone=True,
        )

    def _room_of_one(self) -> int:
        return 1

    def _new_watch(self, instance: Instance) -> InstanceWatch | None:
        return None  # a single invocation leaves nobody waiting beside it

    def _count_living(self) -> int:
        return len(self._instances)  # also those that have their invocation

    def _placed(self, instance: Instance) -> None:
        self.instance_draining(instance)

    def _hang_up_if_done(self, instance: Instance) -> None:
        if instance.draining and not instance.in_flight:
            super()._hang_up_if_done(instance)
            self.end(instance)
