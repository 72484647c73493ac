"""The safe unpacker: an archive from a stranger becomes a folder, or nothing at all.

Invariants:
- Only regular files and directories are ever created, only below a fresh private folder, each
  relative to a descriptor of its parent and never through a symbolic link.
- A path is accepted only if it means the same everywhere (see `bundle_paths`).
- Limits are checked against what a header announces before a byte of it is written, and against
  what really comes out of the decompressor, so neither lies nor bombs get through.
- The result appears under its name in one rename after it is on disk. On any error the private
  folder is removed.

`tarfile` only parses single header blocks here: its extraction filters have been bypassed before.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

import zstandard

from fluvial.bundle_paths import DEFAULT_LIMITS, Limits, Paths, shown
from fluvial.errors import BundleError, BundleTooLargeError

_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK_BYTES: Final = 256 * 1024
_MAX_WINDOW_BYTES: Final = 2**22  # what the packer uses; it bounds the decompressor's memory
_MAX_EXTENDED_HEADER_BYTES: Final = 16 * 1024  # the longest path fits many times
_MAX_PADDING_BYTES: Final = 64 * tarfile.RECORDSIZE
_RECORD: Final = re.compile(rb"([1-9][0-9]{0,7}) ([A-Za-z]+)=")
# What an extended header may say besides `path`: read by nobody.
_HARMLESS: Final = frozenset({b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"})
_NEWLINE: Final = ord("\n")
_KINDS: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What an archive contained."""

    files: int
    bytes: int


def unpack(archive: Path, target: Path, limits: Limits = DEFAULT_LIMITS) -> Unpacked:
    """Unpack `archive` into the new folder `target`.

    Raises:
        BundleError: an entry breaks a rule; the message names both.
        BundleTooLargeError: the archive is above a limit.
        FileExistsError: `target` exists.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists")
    private = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with archive.open("rb") as source:
            unpacked = _unpack(source, private, limits)
        private.chmod(0o755)
        private.rename(target)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    _sync(target.parent)
    return unpacked


class _Reader(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


def _unpack(source: IO[bytes], folder: Path, limits: Limits) -> Unpacked:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    root = os.open(folder, _FOLDER_FLAGS)
    try:
        with decompressor.stream_reader(source, read_across_frames=True, closefd=False) as stream:
            unpacked = _Unpacking(stream, root, limits).run()
        _sync(folder)
        return unpacked
    except zstandard.ZstdError as error:
        raise BundleError(f"the archive is not valid zstd: {error}") from error
    finally:
        os.close(root)


class _Unpacking:
    """One archive on its way to the disk."""

    def __init__(self, stream: _Reader, root: int, limits: Limits) -> None:
        self._stream = stream
        self._root = root
        self._limits = limits
        self._paths = Paths(limits)
        self._bytes = 0

    def run(self) -> Unpacked:
        while (header := self._next_header()) is not None:
            path, entry = header
            parts = self._paths.add(path, is_directory=entry.isdir())
            if entry.isdir():
                self._check_size(path, entry.size, limit=0)
                os.close(self._open_folder(parts))
            else:
                self._check_size(path, entry.size, limit=self._limits.file_bytes)
                self._write_file(parts, entry)
        if not self._paths.files:
            raise BundleError("the archive is empty")
        return Unpacked(files=self._paths.files, bytes=self._bytes)

    def _next_header(self) -> tuple[str, tarfile.TarInfo] | None:
        """Return (path, header) of the next entry, None at the end of the archive."""
        entry = self._header()
        path: str | None = None
        if entry is not None and entry.type == tarfile.XHDTYPE:
            path = self._extended_path(entry)
            entry = self._header()
            if entry is None:
                raise BundleError("the archive ends after an extended header")
        if entry is None:
            self._expect_only_padding()
            return None
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            kind = _KINDS.get(entry.type, f"of type {entry.type!r}")
            raise BundleError(
                f"{shown(entry.name)}: is {kind}; only files and directories are allowed"
            )
        return path or entry.name, entry

    def _header(self) -> tarfile.TarInfo | None:
        block = self._read_exactly(_BLOCK, "a header")
        if not any(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except UnicodeDecodeError as error:
            raise BundleError("a header's name is not UTF-8") from error
        except (tarfile.HeaderError, ValueError) as error:
            raise BundleError(f"a header is not valid: {error}") from error

    def _extended_path(self, entry: tarfile.TarInfo) -> str | None:
        if not 0 <= entry.size <= _MAX_EXTENDED_HEADER_BYTES:
            raise BundleError(
                f"an extended header of {entry.size} bytes is above {_MAX_EXTENDED_HEADER_BYTES}"
            )
        data = self._read_exactly(entry.size, "an extended header")
        self._read_exactly(-entry.size % _BLOCK, "an extended header's padding")
        return _path_record(data)

    def _check_size(self, path: str, size: int, *, limit: int) -> None:
        if size < 0:
            raise BundleError(f"{shown(path)}: has a negative size")
        if size > limit:
            raise BundleTooLargeError(f"{shown(path)}: {size} bytes are above {limit}")
        self._bytes += size
        if self._bytes > self._limits.total_bytes:
            raise BundleTooLargeError(
                f"{shown(path)}: the bundle is above {self._limits.total_bytes} bytes"
            )

    def _write_file(self, parts: list[str], entry: tarfile.TarInfo) -> None:
        folder = self._open_folder(parts[:-1])
        try:
            mode = 0o755 if entry.mode & 0o100 else 0o644
            file = os.open(parts[-1], _FILE_FLAGS, mode, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            os.fchmod(file, mode)  # whatever the umask is
            self._copy(file, entry.size)
        finally:
            os.close(file)
        self._read_exactly(-entry.size % _BLOCK, "a file's padding")

    def _copy(self, file: int, size: int) -> None:
        left = size
        while left:
            data = self._read_exactly(min(left, _CHUNK_BYTES), "a file")
            left -= len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]

    def _open_folder(self, parts: list[str]) -> int:
        """Return a descriptor of the folder, made where it does not exist yet."""
        folder = os.dup(self._root)
        for part in parts:
            parent = folder
            try:
                try:
                    os.mkdir(part, 0o755, dir_fd=parent)
                except FileExistsError:
                    pass
                else:
                    os.chmod(part, 0o755, dir_fd=parent)
                folder = os.open(part, _FOLDER_FLAGS, dir_fd=parent)
            finally:
                os.close(parent)
        return folder

    def _read_exactly(self, size: int, what: str) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            data = self._stream.read(left)
            if not data:
                raise BundleError(f"the archive is cut off inside {what}")
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _expect_only_padding(self) -> None:
        padding = 0
        while data := self._stream.read(_BLOCK):
            padding += len(data)
            if padding > _MAX_PADDING_BYTES or any(data):
                raise BundleError("there is more data after the end of the archive")


def _path_record(data: bytes) -> str | None:
    """Return the `path` of an extended header: records of the form `length key=value newline`."""
    path: str | None = None
    while data:
        match = _RECORD.match(data)
        length = int(match.group(1)) if match else 0
        if match is None or not match.end() < length <= len(data) or data[length - 1] != _NEWLINE:
            raise BundleError("an extended header is not valid")
        key, value = match.group(2), data[match.end() : length - 1]
        data = data[length:]
        if key == b"path":
            try:
                path = value.decode()
            except UnicodeDecodeError as error:
                raise BundleError("an extended header's path is not UTF-8") from error
        elif key not in _HARMLESS:
            raise BundleError(f"an extended header says {key.decode()!a}: not allowed")
    return path


def _sync(folder: Path) -> None:
    """Bring the file system of `folder` to the disk: one call instead of one per file."""
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
