"""Deployments that are to be deleted, in memory."""

from __future__ import annotations

from collections.abc import Collection

from fluvial_queue.contract import RunRecord
from fluvial_queue.memory.state import Backend
from fluvial_queue.retirement_contract import (
    CLOSED_COUNT,
    MAX_LISTED_RUNS,
    Counts,
    DeploymentUse,
)


def retire(backend: Backend, deployment: str) -> Counts:
    """Mark a deployment in every partition."""
    partitions = map(backend.partition, range(backend.partition_count))
    return tuple(partition.retired.setdefault(deployment, 0) for partition in partitions)


def reinstate(backend: Backend, deployment: str) -> None:
    """Remove the marks of a deployment."""
    for number in range(backend.partition_count):
        backend.partition(number).retired.pop(deployment, None)


def close(backend: Backend, deployment: str, counts: Counts) -> bool:
    """Close a deployment in every partition, if `counts` still hold."""
    has_closed = True
    for number, count in enumerate(counts):
        retired = backend.partition(number).retired
        if retired.get(deployment) in (count, CLOSED_COUNT):
            retired[deployment] = CLOSED_COUNT
        else:
            has_closed = False
    return has_closed


def lets_in(backend: Backend, partition: int, deployment: str, *, is_carried: bool) -> bool:
    """Return whether a run may start on a deployment, and count it where it is retired."""
    retired = backend.partition(partition).retired
    count = retired.get(deployment)
    if count is None:
        return True
    if not is_carried or count == CLOSED_COUNT:
        return False
    retired[deployment] = count + 1
    return True


def uses(backend: Backend, deployments: Collection[str]) -> dict[str, DeploymentUse]:
    """Look at every run."""
    live: dict[str, list[str]] = {deployment: [] for deployment in deployments}
    ended = dict.fromkeys(deployments, 0)
    for run in [run for run in map(backend.run, list(backend.runs)) if run is not None]:
        record: RunRecord = run.record()
        if record.deployment not in live:
            continue
        if record.status.is_terminal and not run.effects:
            ended[record.deployment] += 1
        else:
            live[record.deployment].append(record.run_id)
    return {
        deployment: DeploymentUse(
            live=tuple(sorted(live[deployment]))[:MAX_LISTED_RUNS],
            live_count=len(live[deployment]),
            ended_count=ended[deployment],
        )
        for deployment in deployments
    }
