"""Packing is deterministic and refuses what cannot be deployed."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from fluvial.bundle import Limits, file_digest, pack, unpack
from fluvial.errors import BundleError, BundleTooLargeError

SEED = 20_260_401


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def content(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    return directory


def packed_names(source: Path, tmp_path: Path) -> set[str]:
    target = tmp_path / "out"
    unpack(pack(source, tmp_path / "a.tar.zst").archive, target)
    return set(content(target))


def test_what_goes_in_comes_out(source: Path, tmp_path: Path) -> None:
    files = {"main.py": b"app = 1", "a/b/c.txt": b"x" * 100_000, "é/ü.txt": b"", "n" * 200: b"1"}
    packed = pack(write(source, files), tmp_path / "a.tar.zst")
    unpacked = unpack(packed.archive, tmp_path / "out")

    assert content(tmp_path / "out") == files
    assert (packed.files, packed.bytes) == (unpacked.files, unpacked.bytes) == (4, 100_008)
    assert packed.digest == file_digest(packed.archive)


def test_the_digest_depends_on_content_alone(tmp_path: Path) -> None:
    files = {"main.py": b"app = 1", "z/a.py": b"2", "a/z.py": b"3"}
    one = write(tmp_path / "one", files)
    two = write(tmp_path / "two", dict(reversed(files.items())))
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)

    first = pack(one, tmp_path / "1.tar.zst")
    assert first.digest == pack(two, tmp_path / "2.tar.zst").digest

    (two / "main.py").write_bytes(b"app = 2")
    assert first.digest != pack(two, tmp_path / "3.tar.zst").digest


def test_modes_are_normalised(source: Path, tmp_path: Path) -> None:
    write(source, {"run.sh": b"", "plain": b""})
    (source / "run.sh").chmod(0o4711)
    (source / "plain").chmod(0o666)
    old = os.umask(0o077)
    try:
        unpack(pack(source, tmp_path / "a").archive, tmp_path / "out")
    finally:
        os.umask(old)

    modes = {name: (tmp_path / "out" / name).stat().st_mode & 0o7777 for name in os.listdir(source)}
    assert modes == {"run.sh": 0o755, "plain": 0o644}


def test_empty_directories_are_kept(source: Path, tmp_path: Path) -> None:
    write(source, {"main.py": b""})
    (source / "static" / "css").mkdir(parents=True)
    unpack(pack(source, tmp_path / "a").archive, tmp_path / "out")

    assert (tmp_path / "out/static/css").is_dir()


def test_secrets_and_clutter_stay_behind(source: Path, tmp_path: Path) -> None:
    clutter = [".git/config", ".env", ".env.local", "a/__pycache__/x.pyc", "b.pyc", "venv/x"]
    clutter += ["node_modules/x/y.js", "my-environment/pyvenv.cfg", "my-environment/lib/x.py"]
    write(source, dict.fromkeys(["main.py", "a/env.py", *clutter], b""))

    assert packed_names(source, tmp_path) == {"main.py", "a/env.py"}


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ("*.log", {"main.py", "data/a.csv", "data/deep/b.csv", "docs/data/c.csv"}),
        ("data/", {"main.py", "x.log"}),
        ("/data", {"main.py", "x.log", "docs/data/c.csv"}),
        ("data/*.csv", {"main.py", "x.log", "data/deep/b.csv", "docs/data/c.csv"}),
        ("data/**/*.csv", {"main.py", "x.log", "docs/data/c.csv"}),
        ("**/deep", {"main.py", "x.log", "data/a.csv", "docs/data/c.csv"}),
        ("data/**", {"main.py", "x.log", "docs/data/c.csv"}),
        ("*\n!main.py", {"main.py"}),
        ("*.csv\n!a.csv", {"main.py", "x.log", "data/a.csv"}),
        ("[!m]*.py\n?.log", {"main.py", "data/a.csv", "data/deep/b.csv", "docs/data/c.csv"}),
        ("# *.log\n\n", {"main.py", "x.log", "data/a.csv", "data/deep/b.csv", "docs/data/c.csv"}),
        ("main.py/", {"main.py", "x.log", "data/a.csv", "data/deep/b.csv", "docs/data/c.csv"}),
    ],
)
def test_the_ignore_file(source: Path, tmp_path: Path, patterns: str, kept: set[str]) -> None:
    names = ["main.py", "x.log", "data/a.csv", "data/deep/b.csv", "docs/data/c.csv"]
    write(source, {**dict.fromkeys(names, b""), ".fluvialignore": patterns.encode()})

    assert packed_names(source, tmp_path) == kept


def test_the_ignore_file_can_bring_a_default_back(source: Path, tmp_path: Path) -> None:
    write(source, {".env.example": b"", ".fluvialignore": b"!.env.example"})

    assert packed_names(source, tmp_path) == {".env.example"}


def test_many_stars_are_matched_in_time(source: Path, tmp_path: Path) -> None:
    write(source, {"a" * 200: b"", ".fluvialignore": b"*a" * 60 + b"b\n" + b"**/" * 200 + b"x"})

    assert packed_names(source, tmp_path) == {"a" * 200}


@pytest.mark.parametrize(
    "pattern", ["[z-a]x", "a/**/b/**/c/**/d/**/e/**/f", "x" * 1001, "\n" * 1001]
)
def test_an_unusable_ignore_file_is_refused(source: Path, tmp_path: Path, pattern: str) -> None:
    write(source, {"main.py": b"", ".fluvialignore": pattern.encode()})

    with pytest.raises(BundleError, match=r"\.fluvialignore"):
        pack(source, tmp_path / "a")


def test_links_inside_the_bundle_become_files(source: Path, tmp_path: Path) -> None:
    write(source, {"real/a.py": b"1"})
    (source / "linked").symlink_to("real")
    (source / "b.py").symlink_to("real/a.py")

    assert packed_names(source, tmp_path) == {"real/a.py", "linked/a.py", "b.py"}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/passwd", "outside the bundle"),
        ("../outside", "outside the bundle"),
        ("missing", "leads nowhere"),
        ("loop", "leads nowhere"),
        (".", "a folder that it is in"),
    ],
)
def test_links_that_lead_astray_are_refused(
    source: Path, tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "outside").write_text("secret")
    write(source, {"main.py": b""})
    (source / "loop").symlink_to(target)

    with pytest.raises(BundleError, match=f"loop: is a symbolic link .*{reason}"):
        pack(source, tmp_path / "a")


def test_sockets_and_pipes_are_refused(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(BundleError, match="pipe: is neither a regular file nor a directory"):
        pack(source, tmp_path / "a")

    (source / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "sock"))
        with pytest.raises(BundleError, match="sock: is neither"):
            pack(source, tmp_path / "a")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a\\b"], "backslashes"),
        (["a\nb"], "control characters"),
        (["README", "readme"], "only in case"),
        (["é", "e\u0301"], "only in case or encoding"),
        (["d/" * 40 + "x"], "levels deep"),
        (["C:x"], "drive letters"),
    ],
)
def test_names_that_the_unpacker_would_refuse(
    source: Path, tmp_path: Path, names: list[str], reason: str
) -> None:
    write(source, dict.fromkeys(names, b""))

    with pytest.raises(BundleError, match=reason):
        pack(source, tmp_path / "a")


def test_limits_name_themselves(source: Path, tmp_path: Path) -> None:
    write(source, {"a": b"12345", "b": b"67890"})

    with pytest.raises(BundleTooLargeError, match="more than 1 files"):
        pack(source, tmp_path / "a", Limits(files=1))
    with pytest.raises(BundleTooLargeError, match=r"largest file is b: .*fluvialignore"):
        pack(source, tmp_path / "a", Limits(total_bytes=9))


def test_nothing_to_pack_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no files"):
        pack(source, tmp_path / "a")
    with pytest.raises(BundleError, match="is not a directory"):
        pack(tmp_path / "missing", tmp_path / "a")


def test_random_trees_survive_the_round_trip(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    for trial in range(30):
        folder = tmp_path / f"{trial}"
        files: dict[str, bytes] = {}
        for number in range(rng.randrange(1, 12)):
            depth = rng.randrange(0, 4)
            parts = [f"d{rng.randrange(3)}" for _ in range(depth)]
            name = "/".join([*parts, f"f{number}" + "ß" * rng.randrange(0, 80)])
            files[name] = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000]))
        packed = pack(write(folder / "in", files), folder / "a")
        unpack(packed.archive, folder / "out")

        assert content(folder / "out") == files, f"seed {SEED}, trial {trial}"
