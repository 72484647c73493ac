from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fluvial_gateway.problems import ProblemError
from fluvial_gateway.uploads import Uploads


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _uploads(folder: Path, limit_bytes: int = 1000) -> Uploads:
    uploads = Uploads(folder, limit_bytes=limit_bytes)
    uploads.prepare()
    return uploads


def test_archive_gets_its_name_when_it_is_kept(tmp_path: Path) -> None:
    uploads, digest = _uploads(tmp_path), _digest(b"abcdef")
    upload = asyncio.run(uploads.receive(_chunks(b"abc", b"", b"def"), digest))
    assert upload.path.name != digest

    kept = uploads.keep(upload)
    uploads.discard(upload)
    assert kept == tmp_path / digest
    assert kept.read_bytes() == b"abcdef"
    assert [path.name for path in tmp_path.iterdir()] == [digest]


def test_same_archive_twice_at_once_does_not_meet(tmp_path: Path) -> None:
    uploads, digest = _uploads(tmp_path), _digest(b"abc")
    first = asyncio.run(uploads.receive(_chunks(b"abc"), digest))
    second = asyncio.run(uploads.receive(_chunks(b"abc"), digest))
    uploads.discard(first)

    assert uploads.keep(second).read_bytes() == b"abc"
    assert uploads.keep(second).read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("content", "digest", "code"),
    [
        (b"x" * 1001, _digest(b"x" * 1001), "too_large"),
        (b"abc", _digest(b"abd"), "digest_mismatch"),
        (b"", _digest(b"abd"), "digest_mismatch"),
    ],
)
def test_refused_upload_leaves_no_file(
    tmp_path: Path, content: bytes, digest: str, code: str
) -> None:
    with pytest.raises(ProblemError) as refusal:
        asyncio.run(_uploads(tmp_path).receive(_chunks(content), digest))

    assert refusal.value.problem_code == code
    assert list(tmp_path.iterdir()) == []


def test_client_that_goes_away_leaves_no_file(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(_uploads(tmp_path).receive(broken(), _digest(b"abc")))
    assert list(tmp_path.iterdir()) == []


def test_start_removes_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / ".upload-x").write_bytes(b"half")
    (tmp_path / _digest(b"whole")).write_bytes(b"whole")
    _uploads(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [_digest(b"whole")]
