import functools
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from fluvial_invoker.instance.loading import DeploymentError, Interface, detect


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


APPS: list[tuple[Any, Interface, bool]] = [
    (asgi, "asgi", True),
    (AsgiObject(), "asgi", True),
    (AsgiClass, "asgi", True),
    (FastAPI(), "asgi", True),
    (Starlette(), "asgi", True),
    (functools.partial(asgi), "asgi", True),
    (asgi_with_any_arguments, "asgi", True),
    (wsgi, "wsgi", False),
    (WsgiObject(), "wsgi", False),
    (handler, "handler", False),
    (handler_with_default, "handler", False),
    (async_handler, "handler", True),
]


@pytest.mark.parametrize(("app", "interface", "is_async"), APPS)
def test_interface_is_read_from_the_callable(
    app: Any, interface: Interface, is_async: bool
) -> None:
    loaded = detect(app)

    assert (loaded.interface, loaded.is_async) == (interface, is_async)


async def async_pair(environ: Any, start_response: Any) -> None: ...


MISFITS: list[Any] = [nothing, four, async_pair, int, WsgiObject]


@pytest.mark.parametrize("app", MISFITS)
def test_anything_else_is_refused_with_what_would_fit(app: Any) -> None:
    with pytest.raises(DeploymentError, match=r"ASGI"):
        detect(app, "main:app")
