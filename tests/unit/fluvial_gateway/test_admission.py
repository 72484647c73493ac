"""Which of a deployment's jobs go to instances, and in which order."""

from __future__ import annotations

from fluvial_gateway.admission import Admission
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.jobs import Job, turn_job
from fluvial_queue.views import RunView


class Started:
    """Takes jobs on, as the router does, and remembers their runs."""

    def __init__(self, limit: int) -> None:
        self.runs: list[str] = []
        self.admission = Admission(limit=limit)

    def submit(self, run: str, priority: int = 0, deployment: str = "dpl") -> Job:
        job = job_of(run, priority, deployment)
        self.admission.submit(job, self.start)
        return job

    def start(self, job: Job) -> bool:
        self.runs.append(job.view.run_id)
        return True


def job_of(run: str, priority: int, deployment: str) -> Job:
    record = RunRecord(
        run_id=run,
        app="app",
        workflow="w",
        deployment=deployment,
        status=RunStatus.PENDING,
        created_ms=1,
        finished_ms=None,
        key="",
        fingerprint=b"",
        input=b"x",
        turn=b"",
        events=0,
        meta={"priority": priority} if priority else {},
    )
    return turn_job(RunView(record), "1-0")


def test_what_waits_for_a_place_goes_by_priority_and_then_in_order() -> None:
    started = Started(limit=1)
    for run, priority in [("first", 0), ("low", -5), ("a", 0), ("high", 7), ("b", 0)]:
        started.submit(run, priority)
    for _ in range(4):
        started.admission.finished("dpl")

    assert started.runs == ["first", "high", "a", "b", "low"]


def test_a_deployment_at_its_limit_does_not_hold_up_another_one() -> None:
    started = Started(limit=2)
    for run in ("a", "b", "c"):
        started.submit(run)
    started.submit("other", deployment="dpl2")

    assert started.runs == ["a", "b", "other"]


def test_a_job_that_nobody_waits_for_any_more_is_passed_over() -> None:
    started = Started(limit=1)
    started.submit("first")
    given_up = started.submit("given up", 5)
    started.submit("next")
    given_up.over = True
    started.admission.finished("dpl")

    assert started.runs == ["first", "next"]


def test_a_job_that_was_not_started_takes_no_place() -> None:
    started = Started(limit=1)
    started.admission.submit(job_of("refused", 0, "dpl"), lambda _job: False)
    started.submit("taken")

    assert started.runs == ["taken"]
