"""How an object of a bundle is called: the one place that decides it.

The builder asks at deploy, the instance when it loads the app, and both get the same answer. What
the manifest names is taken at its word where the object can be called so at all; otherwise it is
read from what the object is, and from its required positional parameters.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, cast, get_args

from fluvial.errors import NoEntrypointError

Interface = Literal[
    "asgi",  # (scope, receive, send)
    "wsgi",  # (environ, start_response)
    "handler",  # (request: fluvial.http.Request)
    "http.server",  # a subclass of http.server.BaseHTTPRequestHandler
    "functions-framework",  # (request: flask.Request)
    "cloudevent",  # (event: CloudEvent)
    "lambda",  # (event, context)
]
INTERFACES: Final[tuple[Interface, ...]] = get_args(Interface)

_PARAMETERS: Final[dict[str, int]] = {
    "asgi": 3,
    "wsgi": 2,
    "handler": 1,
    "functions-framework": 1,
    "cloudevent": 1,
    "lambda": 2,
}
_BY_PARAMETERS: Final[dict[int, Interface]] = {1: "handler", 2: "wsgi", 3: "asgi"}
_MAY_BE_ASYNC: Final = ("asgi", "handler", "lambda")
_LAMBDA_NAMES: Final = ["event", "context"]
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
# Where functions-framework notes what its decorators have seen: function name → signature.
_REGISTRY: Final = "functions_framework._function_registry"
_SIGNATURES: Final[dict[str, Interface]] = {
    "http": "functions-framework",
    "cloudevent": "cloudevent",
}
# What a bundle must bring along to be called like that.
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "functions-framework": ("flask",),
    "cloudevent": ("flask", "cloudevents"),
}
_EXPECTED: Final = (
    "expected an ASGI application (scope, receive, send), a WSGI application (environ, "
    "start_response), a handler (request), a Lambda handler (event, context) or a subclass of "
    "BaseHTTPRequestHandler"
)


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An HTTP app and its calling convention."""

    call: Callable[..., Any]
    interface: Interface
    is_async: bool = True  # False: a call blocks its thread


def load_app(target: str, declared: Interface | None = None) -> LoadedApp:
    """Import "module:attribute" and return how it is called.

    Raises:
        NoEntrypointError: it is not there, or cannot be called like that.
        BaseException: whatever the module raises when it is imported.
    """
    module_name, _, attributes = target.partition(":")
    found: Any = import_module(module_name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise NoEntrypointError(target, f"{module_name} has no {attributes!r}")
        found = getattr(found, attribute)
    return detect(found, target, declared)


def detect(app: Any, target: str, declared: Interface | None = None) -> LoadedApp:
    """Return how `app` is called; `target` is its name in messages.

    Raises:
        NoEntrypointError: it fits no interface, or not the declared one.
    """
    if declared is not None:
        return _as_declared(app, target, declared)
    if inspect.isclass(app):
        found = _class(app)
        if found is None:
            raise _misfit(target, app)
        return found
    interface = (_decorated(app, target) or _shape(app)) if callable(app) else None
    # Of an app that is one itself, `.asgi` may be an inner one: a middleware's, say.
    inner = getattr(app, "asgi", None)
    if interface is None and callable(inner):
        return LoadedApp(inner, "asgi")
    if interface is None:
        raise _misfit(target, app)
    return _loaded(app, target, interface)


def _as_declared(app: Any, target: str, declared: Interface) -> LoadedApp:
    if declared == "http.server" or inspect.isclass(app):
        found = _class(app)
        if found is not None and found.interface == declared:
            return found
    elif callable(app) and _takes(app, _PARAMETERS[declared]):
        return _loaded(app, target, declared)
    elif declared == "asgi" and callable(inner := getattr(app, "asgi", None)):
        return LoadedApp(inner, "asgi")
    raise NoEntrypointError(
        target, f"is a {type(app).__name__}, which cannot be called as {declared!r}: {_EXPECTED}"
    )


def _takes(app: Any, count: int) -> bool:
    names = _positionals(app)
    return names is None or names == ["*"] or len(names) == count


def _class(app: Any) -> LoadedApp | None:
    if _is_request_handler(app):
        return LoadedApp(app, "http.server", is_async=False)
    # The older ASGI: a class takes the scope, its instances are awaited with (receive, send).
    method: Any = getattr(app, "__call__", None)  # noqa: B004 - the method itself is asked
    is_async = inspect.isclass(app) and inspect.iscoroutinefunction(method)
    if is_async and len(_positionals(method) or ()) == _PARAMETERS["asgi"]:  # with self
        return LoadedApp(_double_callable(app), "asgi")
    return None


def _is_request_handler(app: Any) -> bool:
    # Not imported here: every instance would, and a subclass has imported it already.
    module = sys.modules.get("http.server")
    return (
        module is not None
        and inspect.isclass(app)
        and issubclass(app, module.BaseHTTPRequestHandler)
    )


def _double_callable(app: Callable[..., Any]) -> Callable[..., Any]:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return call


def _decorated(app: Any, target: str) -> Interface | None:
    """Return what a decorator of functions-framework says about `app`, if one was used."""
    registry: Any = sys.modules.get(_REGISTRY)
    if registry is None or not hasattr(app, "__wrapped__"):
        return None
    name = str(getattr(app, "__name__", ""))
    signature = cast("Mapping[str, str]", registry.REGISTRY_MAP).get(name)
    if signature is None:
        return None
    is_async = name in getattr(registry, "ASGI_FUNCTIONS", ())
    if signature not in _SIGNATURES or is_async:
        kind = f"functions_framework{'.aio' if is_async else ''}.{signature}"
        raise NoEntrypointError(target, f"{kind} is not supported: http and cloud_event are")
    return _SIGNATURES[signature]


def _shape(app: Any) -> Interface | None:
    names = _positionals(app)
    if names is None:
        return None
    if names == ["*"]:
        return "asgi" if _is_async(app) else "wsgi"
    if [name.lstrip("_") for name in names] == _LAMBDA_NAMES:
        return "lambda"
    return _BY_PARAMETERS.get(len(names))


def _loaded(app: Any, target: str, interface: Interface) -> LoadedApp:
    is_async = _is_async(app)
    if is_async and interface not in _MAY_BE_ASYNC:
        raise NoEntrypointError(target, f"is async, and nothing awaits a {interface!r}")
    for package in _NEEDS.get(interface, ()):
        if find_spec(package) is None:
            raise NoEntrypointError(
                target,
                f"is called as {interface!r}, which needs {package}: add it to the bundle's "
                "dependencies",
            )
    # An ASGI app may also be a plain function that returns an awaitable.
    return LoadedApp(app, interface, is_async or interface == "asgi")


def _is_async(app: Any) -> bool:
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - the method itself is asked
    )


def _positionals(app: Any) -> list[str] | None:
    """Return the names of the parameters that must be given, ["*"] where any number may be."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [
        item.name
        for item in parameters
        if item.kind in _POSITIONAL and item.default is inspect.Parameter.empty
    ]
    takes_any = any(item.kind is inspect.Parameter.VAR_POSITIONAL for item in parameters)
    return ["*"] if takes_any and not needed else needed


def _misfit(target: str, app: Any) -> NoEntrypointError:
    kind = "class" if inspect.isclass(app) else type(app).__name__
    names = _positionals(app) if callable(app) and not inspect.isclass(app) else None
    takes = f" with {len(names)} positional parameters" if names is not None else ""
    return NoEntrypointError(target, f"is a {kind}{takes}: {_EXPECTED}")
