"""How many commits a second the embedded store takes: one at a time, and many at once.

    python tests/benchmarks/bench_store.py [--seconds 2] [--durability disk process]

A commit is what one sequential step costs: it handles the run's message, appends two events of 250
bytes, and adds the next message. `group` is one call with N entries of one partition, as the
dispatcher makes it; `parallel` is N calls under way at once over all partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import uvloop

from fluvial.ids import new_run_id, partition_of
from fluvial_queue import Store, open_store
from fluvial_queue.contract import CommitEntry, CommitOutcome, Durability, Lease, StartRun
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.redis.embedded import EmbeddedValkey

PARTITIONS = 16
EVENT = b"e" * 250


class Runner:
    """Runs that each hold one outstanding message, and the leases over their partitions."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.leases: dict[int, Lease] = {}
        self.entries: dict[str, CommitEntry] = {}

    async def prepare(self, runs: int, partitions: int) -> None:
        """Own `partitions` partitions and start `runs` runs in them."""
        self.entries.clear()
        for partition in range(partitions):
            lease = await self.store.acquire(partition, owner="bench", ttl_ms=600_000)
            assert lease is not None
            self.leases[partition] = lease
        while len(self.entries) < runs:
            run_id = new_run_id(PARTITIONS)
            lease = self.leases.get(partition_of(run_id))
            if lease is None or lease.partition >= partitions:
                continue
            await self._start(run_id, lease)

    async def _start(self, run_id: str, lease: Lease) -> None:
        run = StartRun(run_id=run_id, app="a", workflow="w", deployment="dpl_1", input=EVENT)
        await self.store.start(run)
        window = await self.store.window(lease, after="", limit=10_000)
        assert window is not None
        self.entries[run_id] = self._entry(run_id, window[-1].id, 0)

    def _entry(self, run_id: str, message_id: str, base: int) -> CommitEntry:
        body = Message(MessageKind.STEP, run_id, base + 1, 1).encode()
        return CommitEntry(
            run_id=run_id,
            handled=(message_id,),
            base=base,
            events=(EVENT, EVENT),
            messages=(body,),
            turn=b"0123456789abcdef",
        )

    async def commit(self, run_ids: Sequence[str]) -> None:
        """Commit one entry of each run; all are in one partition."""
        entries = [self.entries[run_id] for run_id in run_ids]
        lease = self.leases[partition_of(run_ids[0])]
        reply = await self.store.commit(lease, entries)
        for entry, answer in zip(entries, reply.answers, strict=True):
            assert answer.outcome is CommitOutcome.OK, answer
            (message_id,) = answer.message_ids
            self.entries[entry.run_id] = self._entry(entry.run_id, message_id, entry.base + 2)

    def by_partition(self) -> list[list[str]]:
        """Return the runs of each partition."""
        groups: defaultdict[int, list[str]] = defaultdict(list)
        for run_id in self.entries:
            groups[partition_of(run_id)].append(run_id)
        return list(groups.values())


def server_cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def measure(
    runner: Runner, pid: int, name: str, groups: list[list[str]], seconds: float
) -> None:
    """Commit all groups at once, again and again, and print what it took."""
    latencies: list[float] = []
    commits = 0
    cpu, own = server_cpu_seconds(pid), time.process_time()
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        await asyncio.gather(*[runner.commit(group) for group in groups])
        latencies.append(time.perf_counter() - now)
        commits += sum(map(len, groups))
    took = time.perf_counter() - began
    cpu, own = server_cpu_seconds(pid) - cpu, time.process_time() - own
    quantiles = statistics.quantiles(latencies, n=100)
    sys.stdout.write(
        f"{name:28} {commits / took:9.0f} /s   p50 {quantiles[49] * 1e6:7.0f} µs   "
        f"p99 {quantiles[98] * 1e6:7.0f} µs   server {cpu / commits * 1e6:5.1f} µs/commit   "
        f"client {own / commits * 1e6:5.1f} µs/commit\n"
    )


async def bench(durability: Durability, seconds: float) -> None:
    """Measure one durability level on a fresh server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = EmbeddedValkey(folder, durability=durability, socket_path=folder / "s")
        await server.start()
        store = open_store(f"{server.url}&partitions={PARTITIONS}")
        await store.open()
        runner, pid = Runner(store), server.pid or 0
        for in_flight in (1, 32, 256):
            await runner.prepare(in_flight, 1)
            await measure(
                runner, pid, f"{durability} group of {in_flight}", runner.by_partition(), seconds
            )
        for in_flight in (32, 256):
            await runner.prepare(in_flight, PARTITIONS)
            await measure(
                runner,
                pid,
                f"{durability} parallel {in_flight}",
                [[r] for r in runner.entries],
                seconds,
            )
            await measure(
                runner,
                pid,
                f"{durability} 16 groups of {in_flight // 16}",
                runner.by_partition(),
                seconds,
            )
        await store.close()
        await server.stop()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--durability", nargs="+", default=["disk", "process"])
    arguments = parser.parse_args()
    for durability in arguments.durability:
        uvloop.run(bench(durability, arguments.seconds))


if __name__ == "__main__":
    main()
