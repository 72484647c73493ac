"""The generic zygote of a layer: a warmed-up interpreter that instances are forked from.

It has imported the instance's own code, the platform's packages, and the common frameworks that the
layer has; it has served a request in-process, so that nothing lazy is left; it is frozen
(`gc.freeze`), so that a child's collector does not touch, and thereby copy, inherited objects.

It never sees user code, keys or environments: a child reads those from its control descriptor.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import socket
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any, Final

from fluvial_invoker.instance.birth import be_born
from fluvial_invoker.instance.confinement import die_with_parent, reserve_places
from fluvial_invoker.instance.durable import install_guards
from fluvial_invoker.instance.fork_server import ForkServer
from fluvial_invoker.instance.warm_up import warm_up

FRAMEWORKS: Final = (
    "pydantic",
    "anyio._backends._asyncio",  # which anyio imports at the first use
    "starlette.applications",
    "fastapi",
    "flask",
)
# What handlers commonly import, and what the frameworks import only at their first request.
_STANDARD_MODULES: Final = ("decimal", "email.message", "http.cookies", "json", "ssl", "uuid")


def main(arguments: list[str]) -> None:
    """Run a zygote: [channel descriptor, pid of the invoker, layer folder or ""]."""
    channel_fd, parent_pid, layer = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with_parent(parent_pid)
    reserve_places()
    install_guards()  # before a framework takes `time.time` and its like by name
    imported = _preload(layer)
    warm_up(_application_classes())
    gc.collect()
    gc.freeze()
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    ForkServer(channel, be_born).serve(imported)


def _preload(layer: str) -> list[str]:
    if layer:
        sys.path.append(layer)
    for name in _STANDARD_MODULES:
        importlib.import_module(name)
    return list(_preload_frameworks(layer)) if layer else []


def _application_classes() -> list[Any]:
    """Return the classes of ASGI frameworks that were imported: they build much at first use."""
    modules = [sys.modules.get(name) for name in ("starlette.applications", "fastapi")]
    names = ("Starlette", "FastAPI")
    found = [getattr(module, name, None) for module, name in zip(modules, names, strict=True)]
    return [each for each in found if each is not None]


def _preload_frameworks(layer: str) -> Iterator[str]:
    for name in FRAMEWORKS:
        if PathFinder.find_spec(name.partition(".")[0], [layer]) is None:
            continue
        # A framework that does not import is the deployment's problem, not the zygote's.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
            yield name
