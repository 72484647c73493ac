"""Everything that a new instance is given: its socket, its log pipe, its control descriptor.

The socket listens before the instance exists, so a gateway may dial at once: what it sends waits in
the backlog until the instance has loaded its deployment.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """The descriptors of one instance, both ends."""

    path: Path  # of the listening socket
    listener: socket.socket
    log_reader: int
    log_writer: int
    control: socket.socket
    control_of_instance: socket.socket

    @classmethod
    def prepare(cls, path: Path) -> Birth:
        """Open everything; `path` must not exist.

        Raises:
            OSError: out of descriptors, the folder is missing, …
        """
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.setblocking(False)
            listener.bind(str(path))
            undo.callback(path.unlink)
            path.chmod(0o600)
            listener.listen(_BACKLOG)
            control, control_of_instance = socket.socketpair()
            undo.callback(control.close)
            undo.callback(control_of_instance.close)
            log_reader, log_writer = os.pipe()
            os.set_blocking(log_reader, False)
            undo.pop_all()
        return cls(
            path=path,
            listener=listener,
            log_reader=log_reader,
            log_writer=log_writer,
            control=control,
            control_of_instance=control_of_instance,
        )

    def give_to(self, uid: int) -> None:
        """Let a user open the pipe again, as `/dev/stdout` does."""
        os.fchown(self.log_writer, uid, uid)

    @property
    def fds(self) -> tuple[int, int, int]:
        """What the instance gets, in the order in which it expects them."""
        return self.listener.fileno(), self.log_writer, self.control_of_instance.fileno()

    def close_theirs(self) -> None:
        """Close the instance's ends here: it has its own copies, or will never need them."""
        self.listener.close()
        os.close(self.log_writer)
        self.control_of_instance.close()
