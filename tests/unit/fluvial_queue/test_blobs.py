"""Blobs are whole or absent, and their names are digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_queue import LocalBlobs


def test_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "new" / "blobs")
    digest = blobs.put(b"content")

    assert digest == hashlib.sha256(b"content").hexdigest()
    assert blobs.get(digest) == b"content"
    assert blobs.exists(digest)
    assert blobs.path(digest).read_bytes() == b"content"


def test_putting_twice_leaves_one_file_and_nothing_beside_it(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"content")
    inode = blobs.path(digest).stat().st_ino
    blobs.put(b"content")

    assert blobs.path(digest).stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == [digest]


def test_missing_blob(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)

    assert blobs.get("0" * 64) is None
    assert not blobs.exists("0" * 64)
    assert not blobs.delete("0" * 64)


def test_deleted_blob_is_gone(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"content")

    assert blobs.delete(digest)
    assert not blobs.exists(digest)


def test_damaged_blob_counts_as_missing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"content")
    blobs.path(digest).write_bytes(b"contend")

    assert blobs.get(digest) is None


@pytest.mark.parametrize("digest", ["", "..", "../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InvalidRequestError, match="digest"):
        LocalBlobs(tmp_path).path(digest)


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    digest = hashlib.sha256(b"content").hexdigest()
    (tmp_path / digest / "in the way").mkdir(parents=True)
    (tmp_path / digest).rename(tmp_path / "moved")
    target = tmp_path / digest
    target.symlink_to(tmp_path / "nowhere" / "x")  # does not exist, so it is written again

    assert blobs.put(b"content") == digest
    assert not target.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {digest, "moved"}
