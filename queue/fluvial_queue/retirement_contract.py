"""What a store promises about deployments that are to be deleted: who needs them, and who may not.

Invariants:

1. A deployment is retired in every partition, each in its own slot; `start` looks there in its
   script. From then on a start on it is refused, but for those that carry on what runs on it asked
   for (`StartRun.is_carried`): those are let in, and counted by the partition.
2. `deployment_uses` sees every run that needs the deployment, if it was there when the look began
   and is there when it ends: a live one, or one that has ended and still asks something of others.
3. `close_deployment` closes a partition only if no start was let in since the count was taken. So
   if the count was taken, then nobody was seen, and then every partition closed, nobody needs the
   deployment and nobody ever will: whoever would have brought a new run in would have been seen.
4. What is closed lets nothing in at all. Its record is deleted only then, so as long as it exists
   a carried start that is refused is tried again. The mark stays for a day, until nobody remembers
   the deployment.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

MAX_LISTED_RUNS: Final = 20  # of those that need a deployment
CLOSED_MS: Final = 24 * 3600 * 1000  # how long a mark of a closed deployment stays
CLOSED_COUNT: Final = -1

Counts = tuple[int, ...]
"""How many starts each partition has let in since it was told; CLOSED_COUNT: it is closed."""


@dataclass(frozen=True, slots=True)
class DeploymentUse:
    """The runs that a deployment has."""

    live: tuple[str, ...] = ()  # up to MAX_LISTED_RUNS of those that cannot do without it
    live_count: int = 0
    ended_count: int = 0  # those that have ended, and that their retention still keeps


class RetirementStore(Protocol):
    """The part of the store that knows which deployments are to be deleted."""

    async def retire_deployment(self, deployment: str) -> Counts:
        """Refuse starts on a deployment in every partition; return what was let in so far."""
        ...

    async def reinstate_deployment(self, deployment: str) -> None:
        """Let runs start on a deployment again."""
        ...

    async def deployment_uses(self, deployments: Collection[str]) -> dict[str, DeploymentUse]:
        """Return which runs each of these deployments has. Looks at every run there is."""
        ...

    async def close_deployment(self, deployment: str, counts: Counts) -> bool:
        """Let nothing in any more; False: some partition has let something in since `counts`, so
        look again. Then nothing is closed that was not before, but for partitions that were
        reached first: `reinstate_deployment` opens them."""
        ...
