"""How an object is called is read from what it is; what a manifest says is taken at its word."""

from __future__ import annotations

import functools
import sys
import types
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from fluvial.errors import NoEntrypointError
from fluvial.interfaces import Interface, detect, load_app


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def handler(request: Any) -> str:
    return ""


async def async_handler(request: Any, *, option: int = 1) -> str:
    return ""


def handler_with_default(request: Any, context: Any = None) -> str:
    return ""


async def asgi_with_any_arguments(*arguments: Any) -> None: ...


def nothing() -> None: ...


def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class AsgiClass:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class AsgiMethod:
    async def asgi(self, scope: Any, receive: Any, send: Any) -> None: ...


class Middleware:
    """An app around another one."""

    def __init__(self) -> None:
        self.asgi = asgi

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_with_any_arguments(*arguments: Any) -> None: ...


def wsgi_with_option(environ: Any, start_response: Any, option: int = 1) -> None: ...


def function_url(event: Any, context: Any) -> None: ...


async def function_url_without_use_for_one(event: Any, _context: Any) -> None: ...


APPS: list[tuple[Any, Interface, bool]] = [
    (asgi, "asgi", True),
    (AsgiObject(), "asgi", True),
    (AsgiClass, "asgi", True),
    (AsgiMethod(), "asgi", True),
    (FastAPI(), "asgi", True),
    (Starlette(), "asgi", True),
    (functools.partial(asgi), "asgi", True),
    (asgi_with_any_arguments, "asgi", True),
    (wsgi, "wsgi", False),
    (WsgiObject(), "wsgi", False),
    (wsgi_with_any_arguments, "wsgi", False),
    (wsgi_with_option, "wsgi", False),
    (handler, "handler", False),
    (handler_with_default, "handler", False),
    (async_handler, "handler", True),
    (BaseHTTPRequestHandler, "http.server", False),
    (SimpleHTTPRequestHandler, "http.server", False),
    (function_url, "lambda", False),
    (function_url_without_use_for_one, "lambda", True),
]


@pytest.mark.parametrize(("app", "interface", "is_async"), APPS)
def test_interface_is_read_from_the_object(app: Any, interface: Interface, is_async: bool) -> None:
    loaded = detect(app, "main:app")

    assert (loaded.interface, loaded.is_async) == (interface, is_async)


async def async_pair(environ: Any, start_response: Any) -> None: ...


MISFITS: list[Any] = [nothing, four, async_pair, int, WsgiObject, 3, object()]


@pytest.mark.parametrize("app", MISFITS)
def test_anything_else_is_refused_by_its_name(app: Any) -> None:
    with pytest.raises(NoEntrypointError, match=r"^main:app: is "):
        detect(app, "main:app")


@pytest.mark.parametrize("declared", [None, "asgi"])
def test_an_app_that_has_another_inside_is_called_itself(declared: Interface | None) -> None:
    app = Middleware()

    assert detect(app, "main:app", declared).call is app


@pytest.mark.parametrize(
    ("app", "declared"),
    [
        (wsgi, "lambda"),
        (function_url, "wsgi"),
        (handler, "handler"),
        (AsgiObject(), "asgi"),
        (AsgiClass, "asgi"),
        (AsgiMethod(), "asgi"),
        (functools.partial(wsgi, None), "handler"),
        (wsgi_with_any_arguments, "asgi"),
        (BaseHTTPRequestHandler, "http.server"),
    ],
)
def test_what_the_manifest_says_wins(app: Any, declared: Interface) -> None:
    assert detect(app, "main:app", declared).interface == declared


@pytest.mark.parametrize(
    ("app", "declared"),
    [
        (handler, "lambda"),
        (asgi, "wsgi"),
        (wsgi, "http.server"),
        (int, "handler"),
        (async_pair, "wsgi"),
        (3, "asgi"),
        (BaseHTTPRequestHandler, "asgi"),
    ],
)
def test_an_object_that_cannot_be_called_as_declared_is_refused(
    app: Any, declared: Interface
) -> None:
    with pytest.raises(NoEntrypointError, match=f"main:app: .*{declared}"):
        detect(app, "main:app", declared)


def registry(monkeypatch: pytest.MonkeyPatch, signature: str, asgi: tuple[str, ...] = ()) -> Any:
    """Stand for functions-framework: its registry, and a function that its decorator has seen."""
    module: Any = types.ModuleType("functions_framework._function_registry")
    module.REGISTRY_MAP, module.ASGI_FUNCTIONS = {"handler": signature}, set(asgi)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @functools.wraps(handler)
    def decorated(*arguments: Any) -> Any:
        return handler(*arguments)

    return decorated


def test_decorators_of_functions_framework_say_what_a_function_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("flask", "cloudevents"):
        package = types.ModuleType(name)
        package.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, package)

    assert detect(registry(monkeypatch, "http"), "m:f").interface == "functions-framework"
    assert detect(registry(monkeypatch, "cloudevent"), "m:f").interface == "cloudevent"
    assert detect(handler, "m:f").interface == "handler"  # of that name, but not decorated


def test_what_functions_framework_has_besides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoEntrypointError, match=r"functions_framework\.typed is not supported"):
        detect(registry(monkeypatch, "typed"), "m:f")
    with pytest.raises(NoEntrypointError, match=r"functions_framework\.aio\.http is not supported"):
        detect(registry(monkeypatch, "http", ("handler",)), "m:f")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)

    with pytest.raises(NoEntrypointError, match=r"needs flask: add it to the bundle"):
        detect(handler, "main:app", "functions-framework")


def test_an_attribute_that_is_not_there_is_named() -> None:
    with pytest.raises(NoEntrypointError, match=r"json:nothing\.here: json has no 'nothing\.here'"):
        load_app("json:nothing.here")
    assert load_app("json:dumps").interface == "handler"
