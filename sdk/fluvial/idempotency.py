"""Keys by which a server sees that two requests are one: the same in every attempt of a step.

A body may run again after a fault, and then sends its requests again. A server that knows the
header `Idempotency-Key` answers the second one as the first and does nothing twice.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fluvial.attempt_scope import current_attempt
from fluvial.errors import InvalidRequestError, NotInWorkflowError

C = TypeVar("C")

HEADER: Final = "Idempotency-Key"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 §9.2.1: change nothing


def next_idempotency_key() -> str:
    """Return a key for the next request of this attempt.

    Each call gives another key, and the n-th call gives the same one in every attempt of the step.

    Raises:
        NotInWorkflowError: no step that a run executes is running here.
    """
    scope = current_attempt.get()
    if scope is None:
        raise NotInWorkflowError("next_idempotency_key() works in steps that a run executes")
    return scope.next_key()


def idempotent(client: C) -> C:
    """Have an HTTP client send `Idempotency-Key` with what it requests inside steps.

    The client (`httpx.Client`, `httpx.AsyncClient` or `requests.Session`) is changed and returned;
    it may be shared by all steps. Every request that can change something (not GET, HEAD, OPTIONS,
    TRACE) gets a key of its own, unless it has one. Outside a step's attempt nothing is added. Of
    a `requests.Session`, adapters that are mounted later are not covered.

    Raises:
        InvalidRequestError: it is another kind of client.
    """
    made: Any = client
    if hasattr(made, "event_hooks"):
        hooks: list[Any] = made.event_hooks["request"]
        hook = _mark_async if hasattr(made, "aclose") else _mark
        if hook not in hooks:
            hooks.append(hook)
    elif hasattr(made, "adapters") and hasattr(made, "mount"):
        for prefix, adapter in list(made.adapters.items()):
            if not isinstance(adapter, _MarkingAdapter):
                made.mount(prefix, _MarkingAdapter(adapter))
    else:
        raise InvalidRequestError(
            "idempotent() takes an httpx.Client, an httpx.AsyncClient or a requests.Session, got"
            f" {type(made).__qualname__}; for others, send next_idempotency_key() yourself"
        )
    return client


def _mark(request: Any) -> None:
    """Give a request its key; a redirected or repeated one keeps what it has."""
    scope = current_attempt.get()
    if scope is not None and request.method not in _SAFE and HEADER not in request.headers:
        request.headers[HEADER] = scope.next_key()


async def _mark_async(request: Any) -> None:
    _mark(request)


class _MarkingAdapter:
    """A transport adapter of requests before another one; that library is never imported here."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        _mark(request)
        return self._adapter.send(request, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)
