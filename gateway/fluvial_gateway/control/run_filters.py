"""Filters over runs: the parameters by which lists of runs are narrowed, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fluvial.errors import InvalidRequestError
from fluvial_gateway.control.operations import Parameter
from fluvial_gateway.control.parameters import APP, MAX_NAME_CHARACTERS
from fluvial_gateway.control.schemas import array, text
from fluvial_gateway.control.times import MOMENT_OR_AGE, moment_or_age_ms
from fluvial_queue.contract import RunQuery, RunStatus
from fluvial_queue.proposals import MAX_TAG_CHARACTERS, MAX_TAGS

_RUN: Final = text(maxLength=64)
_TAG: Final = text(minLength=2, maxLength=2 * MAX_TAG_CHARACTERS + 1)

FILTERS: Final = (
    APP,
    Parameter(
        "workflow",
        "query",
        text(minLength=1, maxLength=MAX_NAME_CHARACTERS),
        "Only runs of this workflow.",
    ),
    Parameter(
        "status",
        "query",
        text(maxLength=200),
        f"Only runs in one of these: {', '.join(RunStatus)} (comma-separated).",
    ),
    Parameter(
        "since",
        "query",
        MOMENT_OR_AGE,
        "Only runs created at or after this time, or at most so long ago.",
    ),
    Parameter(
        "until", "query", MOMENT_OR_AGE, "Only runs created before this time, or longer ago."
    ),
    Parameter(
        "tag",
        "query",
        array(_TAG, maxItems=MAX_TAGS),
        "Only runs with this tag, `name=value`; several times for several tags, all of them.",
    ),
    Parameter(
        "deployment",
        "query",
        text(maxLength=64),
        "Only runs that are on this deployment, or were when they ended.",
    ),
    Parameter("parent", "query", _RUN, "Only runs that this run has started as its children."),
    Parameter(
        "root", "query", _RUN, "Only this run and what it has started, children of children too."
    ),
)


def query_of(values: Mapping[str, Any], now_ms: int, *, where: str = "query parameter") -> RunQuery:
    """Return the query that filters say; `values` may lack any of them.

    Raises:
        InvalidRequestError: one of them is not understood; the message names it.
    """
    return RunQuery(
        app=values.get("app"),
        workflow=values.get("workflow"),
        statuses=_statuses(values.get("status"), f"{where} status"),
        since_ms=_moment(values.get("since"), now_ms, f"{where} since"),
        until_ms=_moment(values.get("until"), now_ms, f"{where} until"),
        tags=dict(_tag(tag, f"{where} tag") for tag in values.get("tag") or ()),
        deployment=values.get("deployment"),
        parent=values.get("parent"),
        root=values.get("root"),
    )


def _statuses(names: str | None, where: str) -> frozenset[RunStatus] | None:
    if names is None:
        return None
    try:
        return frozenset(RunStatus(name) for name in names.split(","))
    except ValueError as error:
        known = ", ".join(RunStatus)
        raise InvalidRequestError(f"{where}: {error}; known: {known}") from error


def _moment(value: str | None, now_ms: int, where: str) -> int | None:
    return None if value is None else moment_or_age_ms(value, now_ms, where)


def _tag(written: str, where: str) -> tuple[str, str]:
    name, separator, value = written.partition("=")
    if not name or not separator:
        raise InvalidRequestError(f"{where}: {written!r} is not `name=value`")
    return name, value
