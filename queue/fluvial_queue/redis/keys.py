"""Every key that the store has in Redis, its type and its lifetime.

`{fv:p017}` is the hash tag of partition 17 (`fv` is the prefix, set by `?prefix=`): all of a run's
keys are in one slot, so each script touches exactly one.

    {fv:p017}:lease             hash    epoch, nonce, owner, until (ms), rested; it never ends
    {fv:p017}:messages          stream  e = epoch, b = body; each lives until a commit deletes it
    {fv:p017}:timers            zset    member: the body of the message to come; score: due (ms)
    {fv:p017}:open              hash    app NUL status → how many open runs
    {fv:p017}:index             zset    member: run id; score: created (ms); swept once expired
    {fv:p017}:claims            hash    app NUL token → run id, random suffix; swept once void
    {fv:p017}:singletons        hash    app NUL key → run id, time, random suffix; swept once void
    {fv:p017}:retired           hash    deployment → how many starts were let in since it was
                                        retired, or "x", time (ms) once closed; swept a day later
    {fv:p017}:run:<run id>      hash    see below; expires `retention` after the run has ended
    {fv:p017}:log:<run id>      list    events, its length is the fence; expires with the run
    {fv:p017}:input:<run id>    string  the sealed input; until RUN_STARTED is in the log
    {fv:p017}:hooks:<run id>    hash    token → id and log position of the open hook, "" once that
                                        is closed; until the run ends
    {fv:p017}:resumes:<run id>  set     token NUL resume id that was accepted; until the run ends
    {fv:p017}:streams:<run id>  hash    see below; expires with the run
    {fv:meta}                   hash    format, partitions; for ever
    {fv:records}:<kind>         hash    record id → version ":" msgpack; until deleted
    fv:bell                     channel "m<partition>", "f<run id>" and "s<run id>"

A run's hash holds `app workflow deployment status created finished key fingerprint turn meta`,
where they are needed `tags retention reason state`, and beside them what the run owns elsewhere, so
that ending it can remove everything without a search: a field `#<message id>` per outstanding
message, `!<message id>` per outstanding effect, and `@<body>` per timer (values are empty).
"""

from __future__ import annotations

import hashlib

from fluvial.ids import partition_of

DEFAULT_PREFIX = "fv"


class Keys:
    """The names of the keys under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.bell = f"{prefix}:bell"
        self.meta = f"{{{prefix}:meta}}"
        self._records = f"{{{prefix}:records}}:"
        self._slot = f"{{{prefix}:p"
        self._slots: dict[int, str] = {}

    def slot(self, partition: int) -> str:
        """Return the hash tag of a partition, with the colon behind it."""
        slot = self._slots.get(partition)
        if slot is None:
            slot = self._slots[partition] = f"{self._slot}{partition:03d}}}:"
        return slot

    def lease(self, partition: int) -> str:
        return self.slot(partition) + "lease"

    def messages(self, partition: int) -> str:
        return self.slot(partition) + "messages"

    def timers(self, partition: int) -> str:
        return self.slot(partition) + "timers"

    def open(self, partition: int) -> str:
        return self.slot(partition) + "open"

    def index(self, partition: int) -> str:
        return self.slot(partition) + "index"

    def claims(self, partition: int) -> str:
        return self.slot(partition) + "claims"

    def singletons(self, partition: int) -> str:
        return self.slot(partition) + "singletons"

    def retired(self, partition: int) -> str:
        return self.slot(partition) + "retired"

    def run(self, run_id: str) -> str:
        return self._of_run("run:", run_id)

    def log(self, run_id: str) -> str:
        return self._of_run("log:", run_id)

    def input(self, run_id: str) -> str:
        return self._of_run("input:", run_id)

    def hooks(self, run_id: str) -> str:
        return self._of_run("hooks:", run_id)

    def resumes(self, run_id: str) -> str:
        return self._of_run("resumes:", run_id)

    def streams(self, run_id: str) -> str:
        return self._of_run("streams:", run_id)

    def records(self, kind: str) -> str:
        return self._records + kind

    def _of_run(self, what: str, run_id: str) -> str:
        return f"{self.slot(partition_of(run_id))}{what}{run_id}"


def claim_field(app: str, token: str) -> str:
    """Return the field that a user-chosen token has among the claims."""
    return f"{app}\0{token}"


def claim_partition(app: str, token: str, partitions: int) -> int:
    """Return the partition that keeps the claim of a token."""
    digest = hashlib.sha256(claim_field(app, token).encode()).digest()
    return int.from_bytes(digest[:4], "big") % partitions
