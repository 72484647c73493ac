"""The environment of an instance: what the platform lends, the bundle's, the app's, who it is.

The app's variables and secrets come sealed and are opened here, in the process that needs them and
with the keys that it has anyway: no other process ever holds them in clear. They must be there
before the app is imported, since modules read them then; so what has imported an app knows them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

import msgpack

from fluvial.encryption import AppKeys
from fluvial.errors import DecryptionError
from fluvial.manifest import DeploymentSpec
from fluvial.sealing import variable_binding
from fluvial_invoker.instance.confinement import inherited_environment
from fluvial_invoker.instance.loading import DeploymentError


def open_variables(spec: DeploymentSpec, keys: AppKeys) -> dict[str, str]:
    """Return the values of the app's variables and secrets.

    Raises:
        DeploymentError: a key is gone; the message names the variables, and what to do.
    """
    opened: dict[str, str] = {}
    failed: dict[str, list[str]] = {}
    for name, sealed in spec.sealed_environment.items():
        try:
            opened[name] = keys.open(variable_binding(spec.app, name), sealed).decode()
        except (DecryptionError, UnicodeDecodeError) as error:
            failed.setdefault(str(error), []).append(name)
    if failed:
        raise DeploymentError(_explain(spec.app, failed))
    return opened


def open_variables_apart(spec: DeploymentSpec, keys: Callable[[], AppKeys]) -> dict[str, str]:
    """Return the same from a process that ends with it: this one never holds the keys.

    Raises:
        DeploymentError: a key is gone, or the process has failed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(writer, spec, keys)
    os.close(writer)
    with open(reader, "rb") as answers:
        data = answers.read()
    os.waitpid(pid, 0)
    if not data:
        raise DeploymentError(f"the environment of app {spec.app} was not opened")
    opened, failure = msgpack.unpackb(data)
    if failure is not None:
        raise DeploymentError(failure)
    return dict(opened)


def _answer(writer: int, spec: DeploymentSpec, keys: Callable[[], AppKeys]) -> NoReturn:
    try:
        with open(writer, "wb") as answer:
            try:
                answer.write(msgpack.packb((open_variables(spec, keys()), None)))
            except DeploymentError as error:
                answer.write(msgpack.packb((None, str(error))))
    finally:
        os._exit(0)


def set_environment(
    spec: DeploymentSpec, opened: Mapping[str, str], *, user_folder: str = ""
) -> None:
    """Replace the process's environment; the later of these wins: what is inherited, the
    manifest's, the app's own, and what the platform says."""
    environment = inherited_environment(os.environ)
    zone = environment.get("TZ")
    if user_folder:
        environment["HOME"] = user_folder
    environment.update(spec.environment)
    environment.update(opened)
    environment.update(FLUVIAL="1", FLUVIAL_APP=spec.app, FLUVIAL_DEPLOYMENT=spec.deployment)
    os.environ.clear()
    os.environ.update(environment)
    if environment.get("TZ") != zone:
        time.tzset()  # the interpreter has looked at the zone when it started


def _explain(app: str, failed: Mapping[str, list[str]]) -> str:
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in failed.items())
    return (
        f"the environment of app {app} cannot be opened: {reasons}. Set them anew (`fluvial env"
        f" set`, `fluvial secret set`), then `fluvial redeploy {app}`"
    )
