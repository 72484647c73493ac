"""Metrics: what the gateway counts while it works (what it looks up when asked: `scrape.py`).

Every label value names something that is deployed, or is one of a few constants; ids of runs,
invocations and hooks never are. Because names of steps and workflows still come from user code, a
family has at most `MAX_SERIES` series: what would be more is counted under `other`.

The methods are called for every request, so the library's child objects are looked up once per
series and kept.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from fluvial_gateway.pool_contract import InstanceState
from fluvial_gateway.usage_ledger import UsageLedger

MAX_SERIES: Final = 2000
_OTHER: Final = "other"
_PREFIX: Final = "fluvial_"
_MICROSECONDS: Final = 1e-6
# A warm turn takes a millisecond, a request may last minutes.
_INVOCATION_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 10, 60, 300),
)
# From a fork of a warm zygote to a spawn with heavy imports.
_COLD_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# From an in-memory store to a disk that syncs slowly.
_COMMIT_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)
# From a timer that fires to a run that catches up after a night.
_LATENESS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15, 60, 600, 3600, 36_000)

_ATTEMPT_REASONS: Final = frozenset(
    {"first", "exception", "timeout", "retryable", "cancelled", "link_lost", "owner_changed"}
)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _Family(Generic[_Metric]):
    """A metric whose number of series is bounded."""

    def __init__(self, metric: _Metric, labels: tuple[str, ...]) -> None:
        self._metric: _Metric = metric
        self._labels = labels
        # Without labels the metric is its own, only child.
        self._children: dict[tuple[str, ...], _Metric] = {} if labels else {(): metric}

    def of(self, *labels: str) -> _Metric:
        child = self._children.get(labels)
        if child is None:
            if len(self._children) >= MAX_SERIES:
                return self._metric.labels(*(_OTHER for _ in self._labels))
            child = self._children[labels] = self._metric.labels(*labels)
        return child


class _WithoutCreated(Collector):
    """A registry without the time of creation of every series, which doubles an exposition."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family


class Metrics:
    """Counts for one gateway, in a registry of its own; listens to all observer protocols."""

    def __init__(self, *, version: str, usage: UsageLedger | None = None) -> None:
        self.registry = CollectorRegistry()
        self._usage = usage or UsageLedger()
        ProcessCollector(registry=self.registry)
        about = "Constant 1; the labels say what is running."
        info = self._gauge("build_info", about, "version", "python")
        info.of(version, platform.python_version()).set(1)
        self._invocations = self._counter(
            "invocations", "Invocations that ended.", "app", "kind", "outcome"
        )
        self._durations = self._histogram(
            "invocation_duration_seconds",
            "Time of an invocation, from its arrival or dispatch to its end.",
            _INVOCATION_BUCKETS,
            "app",
            "kind",
        )
        self._cpu = self._counter(
            "invocation_active_cpu_seconds",
            "CPU time that invocations have used, without the time they waited.",
            "app",
            "kind",
        )
        self._cold_starts = self._counter(
            "cold_starts", "Instances that became ready and were not warm.", "app", "tier"
        )
        self._cold_start_seconds = self._histogram(
            "cold_start_duration_seconds",
            "Time from the wish for an instance until it was ready.",
            _COLD_BUCKETS,
            "tier",
        )
        self._instances = self._gauge(
            "instances", "Instances that this gateway is connected to.", "app", "state"
        )
        self._nacks = self._counter(
            "nacks", "Invocations that an instance sent back before starting them.", "app", "reason"
        )
        self._waiting = self._gauge(
            "requests_waiting", "Invocations that wait for an instance.", "app"
        )
        self._runs = self._counter("runs", "Runs that ended.", "app", "workflow", "outcome")
        self._pauses = self._counter(
            "run_pauses", "Pauses of runs, by the trouble they are in.", "app", "code"
        )
        self._steps = self._counter(
            "steps", "Steps that have their recorded outcome.", "app", "step", "outcome"
        )
        self._attempts = self._counter(
            "step_attempts", "Starts of steps: the first ones, and why again.", "app", "reason"
        )
        self._handoffs = self._histogram(
            "handoff_duration_seconds",
            "Time from a commit to the start of what it asked for.",
            _COMMIT_BUCKETS,
        )
        self._commits = self._counter("commits", "Answers of the store to commits.", "answer")
        self._commit_seconds = self._histogram(
            "commit_duration_seconds", "Time that a commit took in the store.", _COMMIT_BUCKETS
        )
        self._cron_ticks = self._counter(
            "cron_ticks", "Ticks of crons, by what became of them.", "app", "workflow", "outcome"
        )
        self._cron_lateness = self._histogram(
            "cron_lateness_seconds",
            "Time from when a tick was due until its run was started.",
            _LATENESS_BUCKETS,
        )
        self._replays = self._counter("replays", "Turns replayed from the log.", "reason")
        self._replayed = self._counter("replayed_events", "Events fed to replays.")
        self._appends = self._counter(
            "stream_appends", "Answers of the store to what steps write.", "app", "outcome"
        )
        self._chunks = self._counter("stream_chunks", "Chunks that steps have written.", "app")
        self._chunk_bytes = self._counter(
            "stream_bytes", "Bytes of the chunks that steps have written, sealed.", "app"
        )
        self._store_errors = self._counter(
            "store_errors", "Operations of the store that failed.", "kind"
        )

    # ---- the data plane: HttpObserver, PoolObserver ----

    def http_finished(self, app: str, outcome: str, seconds: float, cpu_us: int) -> None:
        self.invocation_finished(app, "http", outcome, seconds, cpu_us)

    def cold_start(self, app: str, tier: str, seconds: float) -> None:
        self._cold_starts.of(app, tier).inc()
        self._cold_start_seconds.of(tier).observe(seconds)

    def instances_changed(self, app: str, state: InstanceState, change: int) -> None:
        self._instances.of(app, state).inc(change)

    def nacked(self, app: str, reason: str) -> None:
        self._nacks.of(app, reason).inc()

    def waiting_changed(self, app: str, change: int) -> None:
        self._waiting.of(app).inc(change)

    # ---- the dispatcher: DispatchObserver ----

    def invocation_finished(
        self,
        app: str,
        kind: str,
        outcome: str,
        seconds: float,
        cpu_us: int,
        *,
        function: str = "",
    ) -> None:
        self._usage.add((app, kind, function or kind), outcome, seconds, cpu_us)
        self._invocations.of(app, kind, outcome).inc()
        self._durations.of(app, kind).observe(seconds)
        # What an instance reports may be anything; a counter refuses to go back.
        self._cpu.of(app, kind).inc(max(cpu_us, 0) * _MICROSECONDS)

    def step_finished(self, app: str, step: str, outcome: str) -> None:
        self._steps.of(app, step, outcome).inc()

    def step_attempt(self, app: str, reason: str) -> None:
        # A reason may come from an instance or an error's text: labels must stay few.
        known = reason.partition(":")[0].replace(" ", "_")
        self._attempts.of(app, known if known in _ATTEMPT_REASONS else "other").inc()

    def run_finished(self, app: str, workflow: str, outcome: str) -> None:
        self._runs.of(app, workflow, outcome).inc()

    def run_paused(self, app: str, code: str) -> None:
        self._pauses.of(app, code or "requested").inc()

    def commit(self, answer: str, seconds: float) -> None:
        self._commits.of(answer).inc()
        self._commit_seconds.of().observe(seconds)

    def handoff(self, seconds: float) -> None:
        self._handoffs.of().observe(seconds)

    def replay(self, reason: str, events: int) -> None:
        self._replays.of(reason).inc()
        self._replayed.of().inc(events)

    # ---- streams: StreamObserver ----

    def stream_appended(self, app: str, outcome: str, chunks: int, size: int) -> None:
        self._appends.of(app, outcome).inc()
        if outcome == "accepted":
            self._chunks.of(app).inc(chunks)
            self._chunk_bytes.of(app).inc(size)

    # ---- crons ----

    def cron_ticks(self, app: str, workflow: str, outcome: str, count: int) -> None:
        self._cron_ticks.of(app, workflow, outcome).inc(count)

    def cron_started(self, late_seconds: float) -> None:
        self._cron_lateness.of().observe(late_seconds)

    # ---- the control plane ----

    def store_error(self, kind: str) -> None:
        self._store_errors.of(kind).inc()

    def exposition(self) -> bytes:
        """Return everything in the registry as Prometheus reads it."""
        return generate_latest(_WithoutCreated(self.registry))

    def _counter(self, name: str, text: str, *labels: str) -> _Family[Counter]:
        return _Family(Counter(_PREFIX + name, text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, *labels: str) -> _Family[Gauge]:
        return _Family(Gauge(_PREFIX + name, text, labels, registry=self.registry), labels)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> _Family[Histogram]:
        metric = Histogram(_PREFIX + name, text, labels, registry=self.registry, buckets=buckets)
        return _Family(metric, labels)
