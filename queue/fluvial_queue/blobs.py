"""Blobs in a local directory, named by the SHA-256 of their content.

A blob appears under its name at once and complete: it is written beside it, flushed to the disk,
then renamed. All calls block; async callers use a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Final

from fluvial.errors import InvalidRequestError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class LocalBlobs:
    """A folder of blobs; made when it does not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, content: bytes) -> str:
        """Store a blob durably; return its digest. Storing it again changes nothing."""
        digest = hashlib.sha256(content).hexdigest()
        target = self._directory / digest
        if not target.exists():
            self._write(target, content)
        return digest

    def get(self, digest: str) -> bytes | None:
        """Return a blob, or None. A blob that no longer has its digest counts as missing."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def exists(self, digest: str) -> bool:
        """Return whether there is such a blob."""
        return self.path(digest).is_file()

    def delete(self, digest: str) -> bool:
        """Delete a blob; False: there was none."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be.

        Raises:
            InvalidRequestError: `digest` is not a SHA-256 in lower-case hex.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidRequestError(f"{digest!r} is not a blob's digest (64 hex digits)")
        return self._directory / digest

    def _write(self, target: Path, content: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        self._sync_directory()

    def _sync_directory(self) -> None:
        """Have the rename survive power loss, too."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
