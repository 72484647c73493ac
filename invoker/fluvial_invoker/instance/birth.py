"""From a fresh process to an instance: the same steps for a fork and for a spawned interpreter."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from typing import NoReturn

from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instance.confinement import (
    CONTROL_FD,
    LISTENER_FD,
    LOG_FD,
    become,
    confine,
    die_with_parent,
    reseed,
    take_descriptors,
)
from fluvial_invoker.instance.control import Control
from fluvial_invoker.instance.jail.entering import jail_of, lock, move_in
from fluvial_invoker.instance.jail.mounts import PRIVATE
from fluvial_invoker.instance.loading import DeploymentError
from fluvial_invoker.instance.log_capture import capture_output
from fluvial_invoker.instance.main import (
    EXIT_CRASHED,
    EXIT_NOT_LOADED,
    run_instance,
    tell_not_loaded,
)
from fluvial_invoker.instance.snapshot import run_snapshot
from fluvial_invoker.instance.variables import (
    open_variables,
    open_variables_apart,
    set_environment,
)


def be_born(listener_fd: int, log_fd: int, control_fd: int, *, parent_pid: int) -> NoReturn:
    """Become an instance; ends the process."""
    status = EXIT_CRASHED
    try:
        die_with_parent(parent_pid)
        take_descriptors(listener_fd, log_fd, control_fd)
        status = _live(parent_pid)
    except BaseException:  # noqa: BLE001 - the process's last word; it must not unwind into the zygote
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    # No interpreter shutdown: a fork would tear down, and copy, all that the zygote has loaded.
    os._exit(status)


def _live(parent_pid: int) -> int:
    control = Control(socket.socket(fileno=CONTROL_FD))
    listener = socket.socket(fileno=LISTENER_FD)
    certificate = control.wait_for_certificate()
    become(certificate.uid)
    jail = jail_of(certificate)
    if jail is None:
        die_with_parent(parent_pid)
        confine(certificate.deployment)
    else:
        move_in(jail, parent_pid=parent_pid)  # from here on it is another process
        confine(certificate.deployment)
        lock(jail)
    reseed()
    os.chdir(certificate.bundle_path)
    _set_import_path(certificate)
    capture_output(LOG_FD)
    try:
        _set_environment(certificate, control)
    except DeploymentError as error:
        tell_not_loaded(control, error)
        return EXIT_NOT_LOADED
    if certificate.is_snapshot:
        # Where an instance has its listening socket, a snapshot has its channel to the invoker.
        return run_snapshot(certificate, control, listener)
    return run_instance(certificate, control, listener)


def _set_environment(certificate: BirthCertificate, control: Control) -> None:
    spec = certificate.deployment
    opened: dict[str, str] = {}
    if spec.sealed_environment and certificate.is_snapshot:
        opened = open_variables_apart(spec, lambda: control.ask_for_keys(spec.app))
    elif spec.sealed_environment:  # most have none: then the keys are not asked for yet
        opened = open_variables(spec, control.keys_at_birth(spec.app))
    home = certificate.user_folder
    if not home and spec.instance.isolation == "jail":
        home = PRIVATE[0]  # the platform's own is out of sight
    set_environment(spec, opened, user_folder=home)


def _set_import_path(certificate: BirthCertificate) -> None:
    """The standard library, then the user's own, then what the platform lends."""
    own = [certificate.bundle_path, certificate.layer_path, certificate.runtime_path]
    standard = [entry for entry in sys.path if entry not in own]
    sys.path[:] = standard + [entry for entry in own if entry]
    sys.argv = [certificate.deployment.entrypoint or ""]
