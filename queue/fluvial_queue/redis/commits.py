"""Commit groups as arguments of the commit script, and its replies as answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgpack

from fluvial_queue.contract import CommitAnswer, CommitEntry, CommitOutcome
from fluvial_queue.redis.hooks import written
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.lua import Argument

# A script holds up the whole server: about 25 µs an entry, so a call takes some 6 ms at most.
MAX_ENTRIES: Final = 256
MAX_BYTES: Final = 4 * 1024 * 1024  # but for a single entry that is larger

_OUTCOMES: Final = {1: CommitOutcome.EPOCH, 2: CommitOutcome.GONE, 3: CommitOutcome.SEQUENCE}
_REFUSALS: Final = {number: CommitAnswer(outcome) for number, outcome in _OUTCOMES.items()}
_NO_CHANGES: Final = (None, None, None, None)
_NOTHING_NEW: Final = CommitAnswer(CommitOutcome.OK)


def split_group(entries: Sequence[CommitEntry]) -> Iterator[list[CommitEntry]]:
    """Cut a group into parts that one call of the script may hold, in order."""
    part: list[CommitEntry] = []
    part_bytes = 0
    for entry in entries:
        entry_bytes = _bytes_of(entry)
        if part and (len(part) >= MAX_ENTRIES or part_bytes + entry_bytes > MAX_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(entry)
        part_bytes += entry_bytes
    if part:
        yield part


def commit_arguments(
    keys: Keys, entries: Sequence[CommitEntry], names: list[str], arguments: list[Argument]
) -> None:
    """Append the entries' keys to `names` and the entries to `arguments`."""
    for entry in entries:
        run_id = entry.run_id
        is_wide = _is_wide(entry)
        names += (keys.run(run_id), keys.log(run_id))
        if is_wide:
            names += (keys.input(run_id), keys.hooks(run_id), keys.resumes(run_id))
            names.append(keys.streams(run_id))
        arguments.append(_pack(entry, is_wide))


def commit_answers(replies: Sequence[Any]) -> list[CommitAnswer]:
    """Return the answers that the script's replies mean."""
    return [
        _REFUSALS[reply]
        if isinstance(reply, int)
        else CommitAnswer(CommitOutcome.OK, tuple([id_.decode() for id_ in reply]))
        if reply
        else _NOTHING_NEW
        for reply in replies
    ]


def _is_wide(entry: CommitEntry) -> bool:
    """Whether the entry touches more of the run than its record and its log."""
    return bool(
        (entry.base == 0 and entry.events)
        or entry.open_hooks
        or entry.close_hooks
        or (entry.status is not None and entry.status.is_terminal)
        or entry.only_deletes  # perhaps the last effect of a run that has ended
    )


def _pack(entry: CommitEntry, is_wide: bool) -> bytes:
    return msgpack.packb(
        (
            entry.run_id,
            is_wide,
            entry.handled,
            entry.base,
            entry.events,
            entry.messages,
            [part for timer in entry.timers for part in timer] if entry.timers else (),
            entry.drop_timers,
            entry.close_hooks,
            _open_hooks(entry) if entry.open_hooks else (),
            "" if entry.status is None else entry.status.value,
            False if entry.turn is None else entry.turn,
            entry.effects,
            _record_fields(entry) if _changes_record(entry) else (),
        ),
        use_bin_type=False,  # the server's unpacker does not know the later spec's bin type
    )


def _open_hooks(entry: CommitEntry) -> list[str]:
    """Return the hooks to open, as token and value in turn."""
    return [part for token, hook in entry.open_hooks for part in (token, written(hook))]


def _changes_record(entry: CommitEntry) -> bool:
    changes = (entry.tags, entry.reason, entry.deployment, entry.state_at)
    return changes != _NO_CHANGES


def _record_fields(entry: CommitEntry) -> list[str | bytes]:
    """Return what the entry changes on the run's record, as field and value in turn."""
    fields: list[str | bytes] = []
    if entry.tags is not None:
        fields += ["tags", msgpack.packb(dict(entry.tags))]
    if entry.reason is not None:
        fields += ["reason", entry.reason]
    if entry.state_at is not None:
        fields += ["state", str(entry.state_at)]
    if entry.deployment:
        fields += ["deployment", entry.deployment]
    return fields


def _bytes_of(entry: CommitEntry) -> int:
    bodies = (*entry.messages, *entry.effects) if entry.effects else entry.messages
    return sum(map(len, entry.events)) + sum(map(len, bodies))
