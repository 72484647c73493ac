"""The part of `fluvial.client.Client` that asks the same of many runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from fluvial.errors import UnavailableError
from fluvial.run_client import RunClient

_LINE_SECONDS: Final = 120.0  # between two runs: a slow store, not a slow run

Moment = str | datetime
"""A time, or how long ago, such as "2h"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Chooses runs that have all of this; at least one thing must be said."""

    app: str | None = None
    workflow: str | None = None
    status: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    since: Moment | None = None  # made then or later
    until: Moment | None = None  # made before
    parent: str | None = None

    def to_request(self) -> dict[str, Any]:
        """Return it as a request has it."""
        plain = {
            "app": self.app,
            "workflow": self.workflow,
            "status": list(self.status),
            "tags": dict(self.tags),
            "since": _text(self.since),
            "until": _text(self.until),
            "parent": self.parent,
        }
        return {name: value for name, value in plain.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRun:
    """What became of one run, or would."""

    run_id: str
    app: str
    workflow: str
    status: str  # as it was before
    outcome: str  # done, would, or skipped
    reason: str | None  # a code: why it was skipped
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkProgress:
    """How many runs were found, and what became of them."""

    matched: int
    done: int  # of a dry run: how many it would be
    skipped: Mapping[str, int]  # by the reason's code
    cursor: str | None  # where to go on; None: there are no more
    is_last: bool  # it is over: all was done, or as many as the limit


class BulkClient(RunClient):
    """Many runs, through one control API."""

    def bulk(
        self,
        action: str,
        chosen: RunFilter,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        cursor: str | None = None,
        key: str | None = None,
        **more: Any,
    ) -> Iterator[BulkRun | BulkProgress]:
        """Ask the same of all runs that are chosen; yield what becomes of each, newest first, and
        now and then how far it is. Closing the iterator stops it.

        Args:
            action: cancel, terminate, pause, resume, wake, retry, tag or delete.
            chosen: which runs; without a status, those for which the action makes sense.
            dry_run: ask nothing, and yield what would become of them.
            limit: how many runs at most.
            cursor: of an earlier progress: go on from there.
            key: with the same key nothing is asked of a run twice.
            more: `reason` of a cancel, terminate or pause; `deployment` of a resume; `tags`.

        Raises:
            ProblemError: it was refused, or stopped.
            UnavailableError: the platform cannot be reached, or went away half way.
        """
        options = {"dry_run": dry_run or None, "limit": limit, "cursor": cursor, **more}
        given = {name: value for name, value in options.items() if value is not None}
        lines = self._api.lines(
            "/v1/runs/bulk",
            {"action": action, "filter": chosen.to_request(), **given},
            {"idempotency-key": key} if key else {},
            timeout_seconds=_LINE_SECONDS,
        )
        for line in lines:
            if "run" in line:
                yield BulkRun(**line["run"])
            elif "progress" in line:
                yield _progress(line["progress"], is_last=False)
            elif "summary" in line:
                yield _progress(line["summary"], is_last=True)
                return
        raise UnavailableError("the platform went away half way: go on from the last cursor")


def _progress(counts: Mapping[str, Any], *, is_last: bool) -> BulkProgress:
    return BulkProgress(
        matched=int(counts["matched"]),
        done=int(counts["done"]),
        skipped=cast("dict[str, int]", counts["skipped"]),
        cursor=counts.get("cursor"),
        is_last=is_last,
    )


def _text(moment: Moment | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment
