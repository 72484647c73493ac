"""Key files on disk, and changes of them that survive a kill at any point.

    <home>/keyring/<app>.key    0600, in a folder with mode 0700

A file is replaced, never changed: the new one is written beside it, synced, and renamed over it.
Once that is on disk, what it replaces is overwritten (where the file system writes in place). All
of that, and the read before it, happens under `<home>/keyring/.lock`, so that two invokers lose
nothing of each other's. Under the lock, what a killed change has left beside the file is
overwritten and removed too.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

from fluvial.errors import FluvialError
from fluvial_invoker.key_file_format import KeyFileContent, UnknownVersionError, head_of, parse
from fluvial_invoker.root_keys import wipe

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_LOCK_SECONDS: Final = 10.0  # others hold it for one write and its sync
_LOCK_RETRY_SECONDS: Final = 0.01

Identity = tuple[int, int, int]
"""What differs between two versions of a file: inode, time of the last write, size."""


class KeyringError(FluvialError):
    """A key file cannot be used; the message names the file, never its content."""

    code = "keyring_unusable"


class KeyFile:
    """The key file of one app."""

    def __init__(self, folder: Path, app: str) -> None:
        self.path = folder / f"{app}.key"
        self._folder = folder
        self._app = app

    def identity(self) -> Identity | None:
        """Return what tells this version of the file from others; None: there is no file."""
        try:
            return _identity(self.path.stat())
        except FileNotFoundError:
            return None

    def read(self) -> tuple[KeyFileContent, Identity]:
        """Return what the file says now.

        Raises:
            KeyringError: it is damaged.
            FileNotFoundError: there is none.
        """
        while True:
            data, status = self._read_once()
            try:
                # Once it was replaced it is overwritten, perhaps while it was read.
                if status.st_nlink:
                    return self._parsed(data, status), _identity(status)
            finally:
                wipe(data)

    def change(
        self, change: Callable[[KeyFileContent | None], KeyFileContent]
    ) -> tuple[KeyFileContent, Identity]:
        """Replace the file by what `change` makes of it (None: there is none), and return that.

        What `change` raises is raised, and nothing has changed.

        Raises:
            KeyringError: it is damaged, or somebody holds the lock for too long.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self._folder / ".lock"):
            self._remove_leftovers()
            try:
                before, identity = self.read()
            except FileNotFoundError:
                first = change(None)
                return first, self._replace(first)
            after: KeyFileContent | None = None
            try:
                after = change(before)
                return after, identity if after is before else self._replace(after)
            finally:
                _wipe_lost(before, after)

    def _read_once(self) -> tuple[bytearray, os.stat_result]:
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size > MAX_FILE_BYTES:
                raise KeyringError(f"{self.path} has {size} bytes, above {MAX_FILE_BYTES}")
            data = bytearray(size)
            os.readv(fd, [data])
            return data, os.fstat(fd)
        finally:
            os.close(fd)

    def _parsed(self, data: bytearray, status: os.stat_result) -> KeyFileContent:
        try:
            return parse(data, self._app, status.st_mtime_ns // 1_000_000)
        except UnknownVersionError as error:
            raise KeyringError(f"{self.path} has {error}") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise KeyringError(f"{self.path} is damaged: {type(error).__name__}") from None

    def _replace(self, content: KeyFileContent) -> Identity:
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            _write_all(fd, [head_of(content), *(key.blob for key in content.keys)])
            os.fsync(fd)
            with _overwritten_afterwards(self.path):
                os.replace(temporary, self.path)
                # On disk before the old one is destroyed: a power cut must not bring that back.
                _sync_folder(self._folder)
            return _identity(os.fstat(fd))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    def _remove_leftovers(self) -> None:
        """Nobody else writes while the lock is held: these are of changes that were killed."""
        for path in self._folder.glob(f".{self.path.name}.*"):
            with _overwritten_afterwards(path):
                path.unlink()


def _wipe_lost(before: KeyFileContent, after: KeyFileContent | None) -> None:
    kept = {id(key.blob) for key in after.keys} if after is not None else set[int]()
    for key in before.keys:
        if id(key.blob) not in kept:
            wipe(key.blob)


def _write_all(fd: int, parts: Sequence[bytes | bytearray]) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _overwritten_afterwards(path: Path) -> Generator[None]:
    """The block unlinks or replaces a file: overwrite what it held, once that has gone well."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    try:
        yield
        _write_all(fd, [bytes(os.fstat(fd).st_size)])
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise KeyringError(f"{path} is held by another process for {_LOCK_SECONDS:g} s")
            time.sleep(_LOCK_RETRY_SECONDS)  # the kernel offers no wait that has a deadline
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns, status.st_size
