"""A deployment's snapshot: a process that has imported the app, and that instances are forked from.

It is born like an instance: the app's user, limits, environment and folder, in the app's name. Then

1. it imports the deployment's modules and runs the hooks that are registered for this moment;
2. if nothing speaks against forking it (`hazards`), it answers one request, on an event loop that
   is closed afterwards, and looks again. Lifespan start-up is not run: each instance runs its own;
3. it collects garbage once and freezes the rest, so that a child's collector does not touch, and
   thereby copy, inherited objects; and serves fork requests.

It holds no keys of the app: a child of its own opens the environment, where that is sealed. What
it writes at its own descriptors 1, 2 and 5 is the app's log.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
import traceback
from typing import Final, NoReturn

import msgpack

from fluvial.snapshots import run_after_restore, run_before_snapshot
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.confinement import (
    CONTROL_FD,
    LISTENER_FD,
    LOG_FD,
    die_with_parent,
    own_pipes,
    reseed,
    take_descriptors,
)
from fluvial_invoker.instance.control import Control
from fluvial_invoker.instance.durable import install_guards
from fluvial_invoker.instance.fork_server import ForkServer
from fluvial_invoker.instance.hazards import find_hazards
from fluvial_invoker.instance.loading import LoadedApp, load, load_target
from fluvial_invoker.instance.main import (
    EXIT_CRASHED,
    EXIT_NOT_LOADED,
    EXIT_OK,
    describe,
    run_loaded,
    tell_not_loaded,
)
from fluvial_invoker.instance.metering import instance_meter
from fluvial_invoker.instance.output import end_output, report
from fluvial_invoker.instance.thread_metering import meter_anyio_threads, meter_threads
from fluvial_invoker.instance.warm_up import warm_up_app
from fluvial_invoker.instance.zygote_messages import MAX_WHY_CHARACTERS, ZygoteMessage

_OWN_FDS: Final = frozenset({0, 1, 2, LISTENER_FD, CONTROL_FD, LOG_FD})


class _NotReadyError(Exception):
    """There will be no snapshot: (stage, why)."""


def run_snapshot(certificate: BirthCertificate, control: Control, channel: socket.socket) -> int:
    """Become a snapshot and be forked until the invoker closes the channel; return the status."""
    control.close()
    os.dup2(0, CONTROL_FD, inheritable=False)  # the number must not fall to a file of the app
    channel.set_inheritable(False)
    own_fds = _OWN_FDS | own_pipes()
    try:
        app, kept = _prepare(certificate, own_fds)
    except _NotReadyError as error:
        stage, why = error.args
        report(f"no snapshot ({stage}): {why}", instance_meter, level="info")
        channel.send(msgpack.packb((int(ZygoteMessage.NOT_READY), stage, why)))
        return EXIT_NOT_LOADED
    end_output(instance_meter)
    gc.collect()
    gc.freeze()
    ForkServer(channel, functools.partial(_be_restored, app, kept)).serve([])
    return EXIT_OK


def _prepare(
    certificate: BirthCertificate, own_fds: frozenset[int]
) -> tuple[LoadedApp | None, frozenset[int]]:
    """Import, call hooks, warm up; return the app, and the descriptors that children may keep."""
    install_guards()
    meter_threads()
    gc.disable()
    app = _load(certificate)
    try:
        run_before_snapshot()
    except BaseException as error:  # user code at a process boundary
        raise _NotReadyError("hooks", _last_line(error)) from error
    _prime_files(certificate)
    kept = _check("checks", own_fds)
    if app is not None:
        try:
            warm_up_app(app, certificate.warm_up)
        except BaseException as error:  # user code at a process boundary
            raise _NotReadyError("warm-up", _last_line(error)) from error
        gc.collect()  # closes what nobody refers to any more
        kept = _check("warm-up", own_fds)
    return app, kept


def _load(certificate: BirthCertificate) -> LoadedApp | None:
    try:
        app, _ = load(certificate.deployment)
        meter_anyio_threads()
    except BaseException as error:  # user code at a process boundary
        raise _NotReadyError("import", _last_line(error)) from error
    return app


def _prime_files(certificate: BirthCertificate) -> None:
    """Import functions that have files of their own. One that fails is its requests' affair."""
    for target in certificate.deployment.files:
        with contextlib.suppress(BaseException):  # user code: it may also want to exit
            load_target(target, certificate.deployment.interface)


def _check(stage: str, own_fds: frozenset[int]) -> frozenset[int]:
    why, kept = find_hazards(own_fds)
    if why is not None:
        raise _NotReadyError(stage, why)
    return kept


def _last_line(error: BaseException) -> str:
    return describe(error).strip().rpartition("\n")[2][:MAX_WHY_CHARACTERS]


def _be_restored(
    app: LoadedApp | None,
    kept: frozenset[int],
    listener_fd: int,
    log_fd: int,
    control_fd: int,
    *,
    parent_pid: int,
) -> NoReturn:
    """Become an instance, in a fork of the snapshot; ends the process."""
    status = EXIT_CRASHED
    try:
        die_with_parent(parent_pid)
        take_descriptors(listener_fd, log_fd, control_fd, keep=kept)
        status = _live(app)
    except BaseException:  # noqa: BLE001 - the process's last word; it must not unwind further
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    os._exit(status)


def _live(app: LoadedApp | None) -> int:
    control = Control(socket.socket(fileno=CONTROL_FD))
    listener = socket.socket(fileno=LISTENER_FD)
    certificate = control.wait_for_certificate()
    reseed()
    try:
        run_after_restore()
    except BaseException as error:  # noqa: BLE001 - user code at a process boundary
        tell_not_loaded(control, error)
        return EXIT_NOT_LOADED
    return run_loaded(certificate, control, listener, app, import_ms=0.0)
