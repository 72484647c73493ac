"""Which jobs go to instances now: bounded per deployment, fair between deployments.

A deployment with ten thousand steps outstanding must not fill the router's queues: at most
`MAX_IN_FLIGHT` of its jobs are with the router; the others wait here, those of runs with a greater
priority first, then in order.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from fluvial_queue.jobs import Job

MAX_IN_FLIGHT = 800  # jobs of one deployment: 8 instances of 100 invocations, the default limits

Start = Callable[[Job], bool]  # false: the job was not started, and takes no place


class Admission:
    """Hands jobs on, a bounded number of each deployment at a time."""

    def __init__(self, *, limit: int = MAX_IN_FLIGHT) -> None:
        self._limit = limit
        self._in_flight: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, int, Job, Start]]] = {}  # heaps
        self._numbers = count()

    def submit(self, job: Job, start: Start) -> None:
        """Call `start` with a job now, or once an earlier one of its deployment has finished."""
        deployment = job.deployment
        under_way = self._in_flight.get(deployment, 0)
        if under_way >= self._limit:
            waiting = self._waiting.setdefault(deployment, [])
            heappush(waiting, (-job.view.priority, next(self._numbers), job, start))
            return
        self._in_flight[deployment] = under_way + 1
        if not start(job):
            self.finished(deployment)

    def finished(self, deployment: str) -> None:
        """A job of this deployment that was started is over: start the next one."""
        queue = self._waiting.get(deployment)
        while queue:
            _, _, job, start = heappop(queue)
            if not job.over and start(job):
                return
        self._waiting.pop(deployment, None)
        left = self._in_flight[deployment] - 1
        if left:
            self._in_flight[deployment] = left
        else:
            del self._in_flight[deployment]
