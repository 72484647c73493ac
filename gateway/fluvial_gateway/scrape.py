"""What `/metrics` looks up when it is asked: the store's depth, open runs, memory, partitions.

The library collects synchronously and the store answers asynchronously. So a scrape first refreshes
a snapshot, within a deadline and at most once a second, and then collects from it. What could not
be learned is left out rather than told from an older snapshot: an old number looks like a true one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fluvial.errors import FluvialError
from fluvial_gateway.invoker_client import Survey
from fluvial_gateway.metrics import Metrics
from fluvial_gateway.occupancy import Occupied
from fluvial_queue.contract import RunStatus

_LOG = logging.getLogger(__name__)
_REFRESH_SECONDS: Final = 1.0  # a second scraper within it costs the store nothing
_DEADLINE_SECONDS: Final = 2.0


class StoreNumbers(Protocol):
    """The part of a store that can be counted."""

    async def depth(self, partitions: Sequence[int]) -> tuple[int, int]: ...

    async def oldest_message_ms(self, partitions: Sequence[int]) -> int | None: ...

    async def now_ms(self) -> int: ...

    async def count_runs(self) -> dict[tuple[str, RunStatus], int]: ...


class DispatcherState(Protocol):
    """What is seen of a dispatcher from outside."""

    @property
    def partitions_owned(self) -> list[int]: ...


class Occupier(Protocol):
    """Knows what invocations occupy on the instances."""

    def occupied(self) -> dict[str, Occupied]: ...


class Surveyor(Protocol):
    """Tells which instances run; never starts an invoker to ask it."""

    async def survey(self) -> Survey: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    partitions_owned: int = 0
    depth: tuple[int, int] | None = None
    oldest_seconds: float | None = None  # of the outstanding messages
    runs_open: Mapping[tuple[str, RunStatus], int] | None = None
    memory_bytes: Mapping[str, int] | None = field(default=None)


class Scrape(Collector):
    """Answers scrapes with the counted metrics and a fresh snapshot."""

    def __init__(
        self,
        metrics: Metrics,
        store: StoreNumbers,
        dispatcher: DispatcherState,
        surveyor: Surveyor,
        occupier: Occupier,
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._dispatcher = dispatcher
        self._surveyor = surveyor
        self._occupier = occupier
        self._snapshot = _Snapshot()
        self._fresh_until = 0.0
        self._refreshing = asyncio.Lock()
        metrics.registry.register(self)

    async def exposition(self) -> bytes:
        """Return the text that Prometheus reads."""
        async with self._refreshing:
            if time.monotonic() >= self._fresh_until:
                self._snapshot = await self._look()
                self._fresh_until = time.monotonic() + _REFRESH_SECONDS
        return self._metrics.exposition()

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot
        yield from self._occupied()
        yield _gauge(
            "partitions_owned", "Partitions that this gateway owns.", snapshot.partitions_owned
        )
        if snapshot.depth is not None:
            messages, timers = snapshot.depth
            yield _gauge("queue_messages", "Outstanding messages of owned partitions.", messages)
            yield _gauge("timers", "Timers that are set, of owned partitions.", timers)
        if snapshot.oldest_seconds is not None:
            yield _gauge(
                "queue_oldest_message_age_seconds",
                "Age of the oldest outstanding message of owned partitions; 0 if there is none.",
                snapshot.oldest_seconds,
            )
        if snapshot.runs_open is not None:
            runs = GaugeMetricFamily(
                "fluvial_runs_open", "Runs that have not ended.", labels=["app", "status"]
            )
            for (app, status), count in snapshot.runs_open.items():
                runs.add_metric([app, status.value], count)
            yield runs
        if snapshot.memory_bytes is not None:
            memory = GaugeMetricFamily(
                "fluvial_instance_memory_bytes",
                "Resident memory of instances on this machine.",
                labels=["app"],
            )
            for app, size in snapshot.memory_bytes.items():
                memory.add_metric([app], size)
            yield memory

    def _occupied(self) -> Iterable[Metric]:
        in_flight = GaugeMetricFamily(
            "fluvial_invocations_in_flight", "Invocations with an instance.", labels=["app"]
        )
        memory = CounterMetricFamily(
            "fluvial_instance_memory_byte_seconds",
            "Memory of instances by manifest, while something was in flight in them.",
            labels=["app"],
        )
        for app, occupied in self._occupier.occupied().items():
            in_flight.add_metric([app], occupied.in_flight)
            memory.add_metric([app], occupied.byte_seconds)
        yield in_flight
        yield memory

    async def _look(self) -> _Snapshot:
        owned = self._dispatcher.partitions_owned
        depth: tuple[int, int] | None = None
        oldest_seconds: float | None = None
        runs_open: Mapping[tuple[str, RunStatus], int] | None = None
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                depth = await self._store.depth(owned)
                oldest_ms = await self._store.oldest_message_ms(owned)
                now_ms = await self._store.now_ms()
                oldest_seconds = 0.0 if oldest_ms is None else max(0, now_ms - oldest_ms) / 1000
                runs_open = await self._store.count_runs()
        except (FluvialError, TimeoutError) as error:
            self._metrics.store_error("scrape")
            _LOG.warning("the store did not answer a scrape", extra={"error": str(error)})
        return _Snapshot(
            partitions_owned=len(owned),
            depth=depth,
            oldest_seconds=oldest_seconds,
            runs_open=runs_open,
            memory_bytes=await self._memory(),
        )

    async def _memory(self) -> Mapping[str, int] | None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                survey = await self._surveyor.survey()
        except (FluvialError, TimeoutError) as error:
            _LOG.warning("the invoker did not answer a scrape", extra={"error": str(error)})
            return None
        memory: Tally[str] = Tally()
        for instance in survey.instances:
            memory[_text(instance, "app")] += _integer(instance, "rss_bytes")
        return memory


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fluvial_{name}", text, value=value)


def _text(instance: Mapping[str, Any], name: str) -> str:
    return str(instance.get(name, ""))


def _integer(instance: Mapping[str, Any], name: str) -> int:
    value = instance.get(name, 0)
    return value if isinstance(value, int) else 0
