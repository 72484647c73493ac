"""Checks of arguments that every store makes before it touches anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fluvial.errors import InvalidRequestError, WireError
from fluvial.ids import partition_of
from fluvial_queue.contract import MAX_VALUE_BYTES, CommitEntry, Lease
from fluvial_queue.messages import decode_message


def check_partition(partition: int, partitions: int) -> None:
    """Refuse a partition that the store does not have."""
    if not 0 <= partition < partitions:
        raise InvalidRequestError(f"partition {partition} is not among the store's {partitions}")


def check_run_id(run_id: str, partitions: int) -> int:
    """Return the partition of a run id; refuse one that the store cannot hold."""
    partition = partition_of(run_id)
    check_partition(partition, partitions)
    return partition


def check_values(values: Iterable[bytes]) -> None:
    """Refuse values above the limit."""
    for value in values:
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidRequestError(
                f"a value of {len(value)} bytes is above the store's {MAX_VALUE_BYTES}"
            )


def check_entries(lease: Lease, entries: Sequence[CommitEntry]) -> None:
    """Refuse entries of another partition, too large, or with timers that are not the run's."""
    for entry in entries:
        if partition_of(entry.run_id) != lease.partition:
            raise InvalidRequestError(f"{entry.run_id} is not in partition {lease.partition}")
        check_values(entry.events)
        check_values(entry.messages)
        for delay_ms, body in entry.timers:
            if delay_ms < 0:
                raise InvalidRequestError(f"a timer's delay must not be negative, got {delay_ms}")
            _check_timer(entry.run_id, body)


def _check_timer(run_id: str, body: bytes) -> None:
    """A timer's run is read from its body when it fires, so the body must name it."""
    try:
        owner = decode_message(body).run_id
    except WireError as error:
        raise InvalidRequestError(f"a timer of {run_id} is not a queue message") from error
    if owner != run_id:
        raise InvalidRequestError(f"a timer of {run_id} names another run, {owner}")
