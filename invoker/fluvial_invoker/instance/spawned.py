"""An instance in an interpreter of its own: for layers that a zygote cannot serve.

Its import path has the user's versions of packages before the platform's, except for `fluvial`
itself: two copies of that could not speak to each other.
"""

from __future__ import annotations

from fluvial_invoker.instance.birth import be_born


def main(arguments: list[str]) -> None:
    """Become an instance: [listener, log, control descriptors, pid of the invoker]."""
    listener_fd, log_fd, control_fd, parent_pid = (int(argument) for argument in arguments)
    be_born(listener_fd, log_fd, control_fd, parent_pid=parent_pid)
