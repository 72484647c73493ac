"""Imports a deployment's modules and finds out how to call its HTTP app."""

from __future__ import annotations

import time
from importlib import import_module

from fluvial.errors import NoEntrypointError
from fluvial.interfaces import Interface, LoadedApp, load_app
from fluvial.manifest import DeploymentSpec

__all__ = ["DeploymentError", "Interface", "LoadedApp", "load", "load_target"]


class DeploymentError(Exception):
    """The deployment's code cannot be used; the message is for the person who deployed it."""


def load(spec: DeploymentSpec) -> tuple[LoadedApp | None, float]:
    """Import everything that the deployment names.

    Functions in files of their own (`spec.files`) are left for their first request.

    Returns:
        The HTTP app if there is one, and how many milliseconds the imports took.

    Raises:
        DeploymentError: the entrypoint is not there or cannot be called.
        BaseException: whatever the modules raise when they are imported.
    """
    started = time.monotonic()
    app = load_target(spec.entrypoint, spec.interface) if spec.entrypoint else None
    for module in spec.workflows:
        import_module(module)
    return app, (time.monotonic() - started) * 1000


def load_target(target: str, declared: Interface | None) -> LoadedApp:
    """Import "module:attribute" and return how to call it.

    Raises:
        DeploymentError: it is not there or cannot be called.
        BaseException: whatever the module raises when it is imported.
    """
    try:
        return load_app(target, declared)
    except NoEntrypointError as error:
        raise DeploymentError(str(error)) from None
