"""Lists of runs: those of the app, by what is known of them in clear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from fluvial.context import platform
from fluvial.errors import InvalidRequestError
from fluvial.options import check_tags
from fluvial.runs import Run
from fluvial.workflows import Workflow

R = TypeVar("R")

_PAGE: Final = 100
_STATUSES: Final = frozenset(
    {
        "pending",
        "running",
        "paused",
        "completed",
        "failed",
        "cancelled",
        "terminated",
        "continued",
    }
)


@overload
def list_runs(
    *,
    workflow: Workflow[..., R],
    status: str | Iterable[str] | None = ...,
    tags: Mapping[str, str] | None = ...,
    parent: Run[Any] | str | None = ...,
) -> AsyncIterator[Run[R]]: ...
@overload
def list_runs(
    *,
    workflow: None = ...,
    status: str | Iterable[str] | None = ...,
    tags: Mapping[str, str] | None = ...,
    parent: Run[Any] | str | None = ...,
) -> AsyncIterator[Run[Any]]: ...
async def list_runs(
    *,
    workflow: Workflow[..., Any] | None = None,
    status: str | Iterable[str] | None = None,
    tags: Mapping[str, str] | None = None,
    parent: Run[Any] | str | None = None,
) -> AsyncIterator[Run[Any]]:
    """Yield runs of this app, newest first, that have all of what is given.

    Runs that start meanwhile are not among them. Inside an invocation only: a step or a request.

    Args:
        workflow: only its runs.
        status: only runs with this one, or one of these.
        tags: only runs with all of these.
        parent: only the children that this run has started.

    Raises:
        InvalidRequestError: there is no such status, or a tag is none.
    """
    served_by = platform("list_runs")
    if tags is not None:
        check_tags(tags)
    arguments: dict[str, Any] = {
        "workflow": workflow.name if workflow is not None else "",
        "statuses": _checked(status),
        "tags": dict(tags or {}),
        "parent": parent.id if isinstance(parent, Run) else parent or "",
        "limit": _PAGE,
    }
    cursor = ""
    while True:
        page, _ = await served_by.call("runs", {**arguments, "cursor": cursor})
        for found in page["runs"]:
            run: Run[Any] = Run(str(found["run_id"]), served_by, workflow)
            run.status, run.workflow = str(found["status"]), str(found["workflow"])
            run.tags = dict(found["tags"])
            yield run
        cursor = page["cursor"] or ""
        if not cursor:
            return


def _checked(status: str | Iterable[str] | None) -> list[str]:
    wanted = [status] if isinstance(status, str) else list(status or ())
    unknown = set(wanted) - _STATUSES
    if unknown:
        raise InvalidRequestError(
            f"no such status: {', '.join(sorted(unknown))}; known: {', '.join(sorted(_STATUSES))}"
        )
    return wanted
