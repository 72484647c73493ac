"""Imports a deployment's modules and finds out how to call its HTTP app."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal, cast

from fluvial.manifest import DeploymentSpec

Interface = Literal["asgi", "wsgi", "handler"]
_ASGI_PARAMETERS: Final = 3  # scope, receive, send
_INTERFACES: Final[dict[int, Interface]] = {1: "handler", 2: "wsgi", 3: "asgi"}


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The deployment's HTTP app and its calling convention."""

    call: Callable[..., Any]
    interface: Interface
    is_async: bool = True  # False: a call blocks its thread


class DeploymentError(Exception):
    """The deployment's code cannot be used; the message is for the person who deployed it."""


def load(spec: DeploymentSpec) -> tuple[LoadedApp | None, float]:
    """Import everything that the deployment names.

    Returns:
        The HTTP app if there is one, and how many milliseconds the imports took.

    Raises:
        DeploymentError: the entrypoint is not there or cannot be called.
        BaseException: whatever the modules raise when they are imported.
    """
    started = time.monotonic()
    app = _entrypoint(spec.entrypoint) if spec.entrypoint else None
    for module in spec.workflows:
        import_module(module)
    return app, (time.monotonic() - started) * 1000


def _entrypoint(target: str) -> LoadedApp:
    module_name, _, attributes = target.partition(":")
    found: Any = import_module(module_name)
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise DeploymentError(f"{target}: {module_name} has no {attribute!r}") from None
    if not callable(found):
        raise DeploymentError(f"{target} is a {type(found).__name__}, which cannot be called")
    return detect(cast("Callable[..., Any]", found), target)


def detect(app: Callable[..., Any], target: str = "app") -> LoadedApp:
    """Return how `app` wants to be called, judged by what it is and its positional parameters.

    Raises:
        DeploymentError: it fits none of the three interfaces.
    """
    if inspect.isclass(app):
        return _detect_class(app, target)
    count = _positionals(app)
    if count is None:
        raise DeploymentError(f"{target}: its parameters cannot be read")
    is_async = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - the method itself is wanted
    )
    interface = _INTERFACES.get(count)
    if interface == "asgi":
        is_async = True  # also when it is a plain function that returns an awaitable
    if interface is None or (interface == "wsgi" and is_async):
        raise DeploymentError(
            f"{target} takes {count} positional parameters; an ASGI app takes 3 (scope, receive, "
            "send), a WSGI app 2 (environ, start_response), a handler 1 (request)"
        )
    return LoadedApp(app, interface, is_async)


def _detect_class(app: Callable[..., Any], target: str) -> LoadedApp:
    """An ASGI class takes the scope, its instances are awaited with (receive, send)."""
    method = getattr(app, "__call__", None)  # noqa: B004 - the method itself is wanted
    if inspect.iscoroutinefunction(method) and _positionals(method) == _ASGI_PARAMETERS:

        async def call(scope: Any, receive: Any, send: Any) -> None:
            await app(scope)(receive, send)

        return LoadedApp(call, "asgi")
    raise DeploymentError(f"{target} is a class, but its instances are not ASGI apps")


def _positionals(app: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        item
        for item in parameters
        if item.kind in positional and item.default is inspect.Parameter.empty
    ]
    if any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters) and not needed:
        return _ASGI_PARAMETERS
    return len(needed)
