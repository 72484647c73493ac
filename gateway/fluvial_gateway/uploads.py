"""Uploads: an archive from a request's body to a file, checked on the way.

An archive is received under a name of its own, so that uploads of the same bytes at once do not
meet, and gets its content-addressed name only when it was built. Nothing appears under that name
that is not complete and has this digest, and a refused upload leaves no file. The disk is written
in threads: a slow disk must not stop the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from fluvial_gateway.problems import ProblemError

MAX_ARCHIVE_BYTES: Final = 250 * 1024 * 1024
_CHUNK_SECONDS: Final = 30.0  # without a byte
_TOTAL_SECONDS: Final = 1800.0  # 250 MiB over 1.2 Mbit/s
_WRITE_BYTES: Final = 1024 * 1024
_PREFIX: Final = ".upload-"


@dataclass(frozen=True, slots=True)
class Upload:
    """An archive that has arrived; whoever has it must `discard` it in the end."""

    path: Path
    digest: str


class Uploads:
    """Receives archives into one folder."""

    def __init__(self, directory: Path, *, limit_bytes: int = MAX_ARCHIVE_BYTES) -> None:
        self._directory = directory
        self.limit_bytes = limit_bytes

    def prepare(self) -> None:
        """Make the folder, and remove what a former process left half received."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._directory.glob(f"{_PREFIX}*"):
            left.unlink(missing_ok=True)

    async def receive(self, chunks: AsyncIterator[bytes], digest: str) -> Upload:
        """Store the bytes of `chunks`, whose SHA-256 must be `digest` in hex.

        Raises:
            ProblemError: too large, too slow, another digest, or the disk is full.
        """
        with _told_when_full():
            return await self._store(chunks, digest)

    async def _store(self, chunks: AsyncIterator[bytes], digest: str) -> Upload:
        file = await asyncio.to_thread(self._open)
        upload = Upload(Path(file.name), digest)
        try:
            with file:
                received = await self._receive(chunks, file)
            if received != digest:
                raise ProblemError(
                    "digest_mismatch",
                    f"the body's SHA-256 is {received}, x-fluvial-bundle-digest says {digest}",
                )
        except BaseException:
            self.discard(upload)
            raise
        return upload

    def keep(self, upload: Upload) -> Path:
        """Give an archive its content-addressed name; return that."""
        path = self._directory / upload.digest
        with (
            _told_when_full(),
            contextlib.suppress(FileExistsError),  # an earlier upload brought the same bytes
        ):
            os.link(upload.path, path)
        return path

    def discard(self, upload: Upload) -> None:
        """Remove the file under its own name; in place, so that a cancel cannot skip it."""
        upload.path.unlink(missing_ok=True)

    async def _receive(self, chunks: AsyncIterator[bytes], file: IO[bytes]) -> str:
        try:
            async with asyncio.timeout(_TOTAL_SECONDS):
                return await self._write(chunks, file)
        except TimeoutError as error:
            raise ProblemError(
                "request_timeout",
                f"no byte came for {_CHUNK_SECONDS:.0f} s, or not all in {_TOTAL_SECONDS:.0f} s",
            ) from error

    async def _write(self, chunks: AsyncIterator[bytes], file: IO[bytes]) -> str:
        digest, total, pending = hashlib.sha256(), 0, bytearray()
        while True:
            async with asyncio.timeout(_CHUNK_SECONDS):
                chunk = await anext(chunks, None)
            if chunk is None:
                await asyncio.to_thread(_append, file, digest, bytes(pending), last=True)
                return digest.hexdigest()
            total += len(chunk)
            if total > self.limit_bytes:
                raise ProblemError(
                    "too_large",
                    f"the archive is above {self.limit_bytes} bytes",
                    extra={"limit_bytes": self.limit_bytes},
                )
            pending += chunk
            if len(pending) >= _WRITE_BYTES:
                await asyncio.to_thread(_append, file, digest, bytes(pending), last=False)
                pending.clear()

    def _open(self) -> IO[bytes]:
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=_PREFIX)
        os.close(descriptor)
        return open(name, "wb")


@contextlib.contextmanager
def _told_when_full() -> Generator[None]:
    """Turn the error of a full disk into a problem."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ProblemError(
            "disk_full", "no space is left for the archive: make room on the platform"
        ) from error


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


def _append(file: IO[bytes], digest: _Digest, data: bytes, *, last: bool) -> None:
    digest.update(data)
    file.write(data)
    if last:
        file.flush()
        os.fsync(file.fileno())
