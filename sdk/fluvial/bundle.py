"""Bundles: a folder becomes one archive whose digest depends on its content alone.

The archive is a POSIX tar of regular files (and of directories that are empty) in order of their
paths, without times, owners or names of owners, compressed with fixed parameters. Equal folders
give equal bytes, so a second deploy of the same code is recognised by its digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, cast

import zstandard

from fluvial.bundle_paths import DEFAULT_LIMITS, Limits, Paths
from fluvial.errors import BundleError, BundleTooLargeError
from fluvial.ignoring import IgnoreRules
from fluvial.unpacking import Unpacked, unpack

__all__ = [
    "DEFAULT_LIMITS",
    "MEDIA_TYPE",
    "Limits",
    "Packed",
    "Unpacked",
    "file_digest",
    "pack",
    "unpack",
]

MEDIA_TYPE: Final = "application/zstd"
_LEVEL: Final = 9  # measured on source trees: higher levels save under 2 % and cost several times
_WINDOW_LOG: Final = 22  # 4 MiB; the unpacker accepts no larger window
_EXECUTABLE: Final = 0o755
_PLAIN: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An archive on disk."""

    archive: Path
    digest: str  # SHA-256 of the archive, in hexadecimal
    files: int
    bytes: int  # of the files, unpacked


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    source: Path
    status: os.stat_result | None  # None: an empty directory


def pack(directory: Path, archive: Path, limits: Limits = DEFAULT_LIMITS) -> Packed:
    """Write the bundle of `directory` to `archive`.

    Raises:
        BundleError: a file cannot go into a bundle; the message names it.
        BundleTooLargeError: there are too many files or bytes.
    """
    root = directory.resolve()
    if not root.is_dir():
        raise BundleError(f"{directory} is not a directory")
    entries = sorted(_entries(root, limits), key=lambda entry: entry.path)
    if not entries:
        raise BundleError(f"{directory} has no files to deploy (after the ignore list)")
    with archive.open("wb") as out:
        sink = _HashingWriter(out)
        _write(entries, sink)
    total = sum(entry.status.st_size for entry in entries if entry.status)
    return Packed(archive=archive, digest=sink.digest(), files=len(entries), bytes=total)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _HashingWriter:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._out.write(data)

    def digest(self) -> str:
        return self._hash.hexdigest()


def _entries(root: Path, limits: Limits) -> Iterator[_Entry]:
    """Yield what goes into the bundle of `root`; stops with an error at the first limit."""
    rules, paths = IgnoreRules.of(root), Paths(limits)
    total_bytes, largest = 0, (0, "")
    for entry in _walk(root, "", rules, (root,)):
        paths.add(entry.path, is_directory=entry.status is None)
        size = entry.status.st_size if entry.status else 0
        total_bytes += size
        largest = max(largest, (size, entry.path))
        if total_bytes > limits.total_bytes:
            raise BundleTooLargeError(
                f"the bundle is larger than {limits.total_bytes >> 20} MiB; its largest file is "
                f"{largest[1]}: leave files out with .fluvialignore"
            )
        yield entry


def _walk(
    folder: Path, prefix: str, rules: IgnoreRules, ancestors: tuple[Path, ...]
) -> Iterator[_Entry]:
    is_empty = True
    for name in sorted(os.listdir(folder)):
        path, source = f"{prefix}{name}", folder / name
        resolved = _resolve(path, source, ancestors[0])
        status = resolved.stat()
        is_directory = stat.S_ISDIR(status.st_mode)
        if rules.ignores(path, is_directory=is_directory) or _is_environment(resolved):
            continue
        is_empty = False
        if is_directory:
            if resolved in ancestors:
                raise BundleError(f"{path}: is a symbolic link to a folder that it is in")
            yield from _walk(source, f"{path}/", rules, (*ancestors, resolved))
        elif stat.S_ISREG(status.st_mode):
            yield _Entry(path, resolved, status)
        else:
            raise BundleError(f"{path}: is neither a regular file nor a directory")
    if is_empty and prefix:
        yield _Entry(prefix.rstrip("/"), folder, None)


def _resolve(path: str, source: Path, root: Path) -> Path:
    """Return what `source` is in the end; a link may point anywhere inside the bundle."""
    if not source.is_symlink():
        return source
    try:
        resolved = source.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{path}: is a symbolic link that leads nowhere") from error
    if not resolved.is_relative_to(root):
        raise BundleError(f"{path}: is a symbolic link that leads outside the bundle")
    return resolved


def _is_environment(path: Path) -> bool:
    return (path / "pyvenv.cfg").is_file()


def _write(entries: list[_Entry], sink: _HashingWriter) -> None:
    parameters = zstandard.ZstdCompressionParameters(
        compression_level=_LEVEL, window_log=_WINDOW_LOG, write_checksum=True
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    with (
        compressor.stream_writer(cast("BinaryIO", sink), closefd=False) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in entries:
            _add(tar, entry)


def _add(tar: tarfile.TarFile, entry: _Entry) -> None:
    header = tarfile.TarInfo(entry.path)
    header.mtime = header.uid = header.gid = 0
    header.uname = header.gname = ""
    if entry.status is None:
        header.type, header.mode = tarfile.DIRTYPE, _EXECUTABLE
        tar.addfile(header)
        return
    header.size = entry.status.st_size
    header.mode = _EXECUTABLE if entry.status.st_mode & stat.S_IXUSR else _PLAIN
    with entry.source.open("rb") as file:
        try:
            tar.addfile(header, file)
        except OSError as error:
            # tarfile says so when a file is shorter than its header
            raise BundleError(f"{entry.path}: cannot be read: {error}") from error
