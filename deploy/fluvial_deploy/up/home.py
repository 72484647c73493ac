"""The home folder of one installation: private, locked by one `up` at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from fluvial.errors import FluvialError

# A Unix socket's address has room for 107 bytes; the longest name below is i/ins_<24>.sock.
_LONGEST_RUN_DIR: Final = 60
_TOKEN_BYTES: Final = 32
_FOLDERS: Final = ("store", "keyring", "blobs", "bundles", "layers", "runtime", "logs", "logs/apps")
_OF_APPS: Final = ("bundles", "layers", "runtime")


class AlreadyRunningError(FluvialError):
    """Another `up` has the home."""

    code = "already_running"

    def __init__(self, home: Path, state: dict[str, Any]) -> None:
        pid, http, control = (state.get(key, "unknown") for key in ("pid", "http", "control"))
        super().__init__(
            f"`fluvial up` already runs on {home}: pid {pid}, apps at {http}, "
            f"control at {control}; stop it, or choose another home with --data"
        )
        self.state = state


class HomeError(FluvialError):
    """The home folder cannot be used."""

    code = "home_unusable"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one home."""

    path: Path

    @property
    def run_dir(self) -> Path:
        """Where sockets live: `<home>/run`, or a short path of its own where that is too long."""
        run = self.path / "run"
        if len(os.fsencode(run)) <= _LONGEST_RUN_DIR:
            return run
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"fluvial-{os.getuid()}-{digest}"

    @property
    def token_file(self) -> Path:
        """The administrator's token, in clear."""
        return self.path / "token"

    @property
    def state_file(self) -> Path:
        """What the running `up` says about itself."""
        return self.run_dir / "up.json"

    def log(self, program: str) -> Path:
        """Where a program's output goes."""
        return self.path / "logs" / f"{program}.log"

    def prepare(self) -> None:
        """Make the folders and, at the first start, the token.

        Raises:
            HomeError: a folder cannot be made, or belongs to somebody else.
        """
        try:
            for folder in (self.path, *(self.path / name for name in _FOLDERS)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.run_dir.mkdir(mode=0o700, exist_ok=True)
            (self.run_dir / "i").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeError(
                f"{error.filename}: {error.strerror}: choose a home with --data"
            ) from error
        for folder in (self.path, self.run_dir):
            _check_private(folder)
        if os.geteuid() == 0:
            # Apps have users of their own, who must get at their code and at nothing beside it.
            for folder in (self.path, *(self.path / name for name in _OF_APPS)):
                folder.chmod(0o711)
        self._create_token()

    def lock(self) -> int:
        """Return a descriptor that holds the home until it is closed.

        Raises:
            AlreadyRunningError: another `up` holds it.
        """
        lock = os.open(self.path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyRunningError(self.path, self.state()) from None
        return lock

    def leave(self, lock: int) -> None:
        """Remove what only a running `up` needs, and let the home go."""
        self.state_file.unlink(missing_ok=True)
        if self.run_dir.parent != self.path:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        os.close(lock)

    def state(self) -> dict[str, Any]:
        """Return what the running (or last) `up` wrote about itself, {} when there is nothing."""
        try:
            state: Any = json.loads(self.state_file.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return cast("dict[str, Any]", state) if isinstance(state, dict) else {}

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace what is said about this `up`."""
        temporary = self.state_file.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(self.state_file)

    def _create_token(self) -> None:
        try:
            file = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with os.fdopen(file, "w") as out:
            out.write(f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n")


def _check_private(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise HomeError(f"{folder} must be a directory that belongs to you")
    if status.st_mode & 0o077:
        folder.chmod(0o700)
