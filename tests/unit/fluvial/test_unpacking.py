"""S1: an archive from a stranger cannot write outside its folder or exhaust the host."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from fluvial.bundle import Limits, pack, unpack
from fluvial.errors import BundleError, BundleTooLargeError

SEED = 20_260_402
LIMITS = Limits(files=50, total_bytes=1_000_000, file_bytes=500_000)
LONGEST_REFUSAL_SECONDS = 2.0  # the promise S1 of RELIABILITY.md


@dataclass(frozen=True)
class Entry:
    """One tar entry, as wrong as a test wants it."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    size: int | None = None
    link: str = ""
    mode: int = 0o644
    pax: dict[str, str] = field(default_factory=dict[str, str])


def tar(*entries: Entry, end: bytes = bytes(1024)) -> bytes:
    out = io.BytesIO()
    for entry in entries:
        header = tarfile.TarInfo(entry.name)
        header.type, header.mode, header.linkname = entry.type, entry.mode, entry.link
        header.size = len(entry.data) if entry.size is None else entry.size
        header.pax_headers = entry.pax
        out.write(header.tobuf(tarfile.PAX_FORMAT))
        out.write(entry.data + bytes(-len(entry.data) % 512))
    return out.getvalue() + end


def pax_header(records: bytes, *, size: int | None = None) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(records) if size is None else size
    return header.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def raw_header(**changes: bytes) -> bytes:
    """Return a header with fields overwritten and the checksum put right again."""
    offsets = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "type": (156, 1)}
    block = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
    for key, value in changes.items():
        start, length = offsets[key]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def zst(data: bytes, *, window_log: int = 20) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(compression_level=3, window_log=window_log)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def bomb(kilobytes: int) -> bytes:
    """Return a small frame that unpacks to one enormous file."""
    out = io.BytesIO()
    with zstandard.ZstdCompressor(level=1).stream_writer(out, closefd=False) as stream:
        stream.write(raw_header(name=b"bomb", size=b"%011o" % (kilobytes * 1024)))
        chunk = bytes(1024 * 1024)
        for _ in range(kilobytes // 1024):
            stream.write(chunk)
    return out.getvalue()


def large_window() -> bytes:
    """Return a frame whose decompression needs 128 MiB of memory."""
    parameters = zstandard.ZstdCompressionParameters(compression_level=3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(tar(OK)) + compressor.flush()


OK = Entry("main.py", b"app = 1")
END = bytes(1024)
PATH_RECORD = b"15 path=a/b.py\n"

HOSTILE: dict[str, bytes] = {
    # paths that leave the folder
    "absolute": zst(tar(Entry("/etc/evil"))),
    "double slash": zst(tar(Entry("//etc/evil"))),
    "parent": zst(tar(Entry("../evil"))),
    "parent in the middle": zst(tar(Entry("a/../../evil"))),
    "parent at the end": zst(tar(Entry("a/.."))),
    "parent directory": zst(tar(Entry("..", type=tarfile.DIRTYPE))),
    "parent by pax": zst(pax_header(b"16 path=../evil\n") + tar(OK)),
    "absolute by pax": zst(pax_header(b"18 path=/etc/evil\n") + tar(OK)),
    "dot": zst(tar(Entry("."))),
    "dot directory": zst(tar(Entry("./", type=tarfile.DIRTYPE))),
    "dot inside": zst(tar(Entry("a/./b"))),
    "empty name": zst(raw_header(name=b"") + END),
    "empty name directory": zst(raw_header(name=b"", type=tarfile.DIRTYPE) + END),
    "empty part": zst(tar(Entry("a//b"))),
    "slash at the end of a file": zst(pax_header(b"11 path=a/\n") + tar(OK)),
    "backslash": zst(tar(Entry("..\\evil"))),
    "drive": zst(tar(Entry("C:/evil"))),
    "drive relative": zst(tar(Entry("c:evil"))),
    "drive inside": zst(tar(Entry("a/d:b"))),
    "newline": zst(tar(Entry("a\nb"))),
    "escape": zst(tar(Entry("a\x1b[2Jb"))),
    "delete character": zst(tar(Entry("a\x7f"))),
    "nul by pax": zst(pax_header(b"12 path=a\0b\n") + tar(OK)),
    "not utf-8": zst(raw_header(name=b"\xff\xfe") + END),
    "not utf-8 by pax": zst(pax_header(b"12 path=\xff\xfe\xfd\n") + tar(OK)),
    "overlong utf-8": zst(raw_header(name=b"\xc0\xae\xc0\xae/evil") + END),
    "name too long": zst(tar(Entry("n" * 256))),
    "name too long in bytes": zst(tar(Entry("ü" * 128))),
    "path too long": zst(tar(Entry("/".join(["n" * 200] * 6)))),
    "too deep": zst(tar(Entry("/".join("d" * 33)))),
    "extremely deep": zst(tar(Entry("/".join("d" * 5000)))),
    # collisions
    "duplicate": zst(tar(OK, OK)),
    "duplicate directory": zst(tar(*[Entry("d", type=tarfile.DIRTYPE)] * 2)),
    "case": zst(tar(Entry("README"), Entry("readme"))),
    "case of a directory": zst(tar(Entry("A/x"), Entry("a/y"))),
    "case folding": zst(tar(Entry("straße"), Entry("STRASSE"))),
    "unicode form": zst(tar(Entry("é"), Entry("e\u0301"))),
    "file as directory": zst(tar(Entry("a"), Entry("a/b"))),
    "directory as file": zst(tar(Entry("a/b"), Entry("a"))),
    "declared directory as file": zst(tar(Entry("a", type=tarfile.DIRTYPE), Entry("a"))),
    "file as declared directory": zst(tar(Entry("a"), Entry("a", type=tarfile.DIRTYPE))),
    # kinds
    "symbolic link": zst(tar(Entry("a", type=tarfile.SYMTYPE, link="/etc"))),
    "link and file through it": zst(
        tar(Entry("a", type=tarfile.SYMTYPE, link="/tmp"), Entry("a/evil"))
    ),
    "hard link": zst(tar(OK, Entry("b", type=tarfile.LNKTYPE, link="main.py"))),
    "hard link outside": zst(tar(Entry("b", type=tarfile.LNKTYPE, link="/etc/passwd"))),
    "character device": zst(tar(Entry("null", type=tarfile.CHRTYPE))),
    "block device": zst(tar(Entry("sda", type=tarfile.BLKTYPE))),
    "pipe": zst(tar(Entry("pipe", type=tarfile.FIFOTYPE))),
    "contiguous": zst(tar(Entry("a", type=tarfile.CONTTYPE))),
    "gnu long name": zst(tar(Entry("././@LongLink", b"evil\0", type=tarfile.GNUTYPE_LONGNAME), OK)),
    "gnu long link": zst(tar(Entry("././@LongLink", b"evil\0", type=tarfile.GNUTYPE_LONGLINK), OK)),
    "gnu sparse": zst(tar(Entry("a", type=tarfile.GNUTYPE_SPARSE))),
    "global pax header": zst(tar(Entry("pax", b"15 path=a/b.py\n", type=tarfile.XGLTYPE), OK)),
    "solaris pax header": zst(tar(Entry("pax", PATH_RECORD, type=tarfile.SOLARIS_XHDTYPE), OK)),
    "unknown kind": zst(raw_header(type=b"Z") + END),
    # sizes
    "announced too large": zst(tar(Entry("a", size=600_000))),
    "announced enormous": zst(raw_header(size=b"\x80" + b"\x7f" * 11) + END),
    "negative size": zst(raw_header(size=b"\xff" * 12) + END),
    "negative size minus one": zst(raw_header(size=b"\xff" * 11 + b"\xfe") + END),
    "size is no number": zst(raw_header(size=b"zzzzzzzzzzz") + END),
    "sum too large": zst(tar(*(Entry(f"{i}", bytes(400_000)) for i in range(3)))),
    "too many files": zst(tar(*(Entry(f"{i}") for i in range(60)))),
    "too many directories": zst(tar(*(Entry(f"{i}/b/c/d/e") for i in range(49)))),
    "directory with data": zst(tar(Entry("d", b"data", type=tarfile.DIRTYPE))),
    "bomb": bomb(200 * 1024),
    "bomb of padding": zst(tar(OK) + bytes(50_000_000)),
    "cut inside a file": zst(tar(Entry("a", b"12", size=400_000), end=b"")),
    "cut inside a header": zst(tar(OK, end=bytes(100))),
    "without an end": zst(tar(OK, end=b"")),
    "more after the end": zst(tar(OK) + tar(Entry("evil"))),
    "garbage after the end": zst(tar(OK) + b"x"),
    "second frame": zst(tar(OK)) + zst(tar(Entry("evil"))),
    "garbage after the frame": zst(tar(OK)) + b"garbage",
    # extended headers
    "pax too large": zst(pax_header(b"9" * 20_000) + tar(OK)),
    "pax of enormous size": zst(pax_header(b"", size=2**32) + tar(OK)),
    "pax of negative size": zst(raw_header(type=b"x", size=b"\xff" * 12) + tar(OK)),
    "pax size": zst(pax_header(b"13 size=9999\n") + tar(OK)),
    "pax linkpath": zst(pax_header(b"17 linkpath=/etc\n") + tar(OK)),
    "pax sparse": zst(pax_header(b"22 GNU.sparse.major=1\n") + tar(OK)),
    "pax charset": zst(pax_header(b"21 hdrcharset=BINARY\n") + tar(OK)),
    "pax length too long": zst(pax_header(b"99 path=a\n") + tar(OK)),
    "pax length too short": zst(pax_header(b"3 path=a\n") + tar(OK)),
    "pax length zero": zst(pax_header(b"0 path=a\n") + tar(OK)),
    "pax without newline": zst(pax_header(b"10 path=abc") + tar(OK)),
    "pax without equals": zst(pax_header(b"9 pathaab\n") + tar(OK)),
    "pax without entry": zst(pax_header(PATH_RECORD) + END),
    "pax twice": zst(pax_header(PATH_RECORD) * 2 + tar(OK)),
    "pax empty path": zst(pax_header(b"8 path=\n") + tar(Entry("../evil"))),
    # not an archive
    "empty file": b"",
    "text": b"hello",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(60),
    "zip": b"PK\x03\x04" + bytes(60),
    "plain tar": tar(OK),
    "empty frame": zst(b""),
    "empty archive": zst(END),
    "broken frame": zst(tar(OK))[:20] + b"\xff" * 40,
    "window too large": large_window(),
    "wrong checksum of a header": zst(b"x" + tar(OK)[1:]),
    "noise": zst(random.Random(SEED).randbytes(5000)),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A place for the unpacked folder whose surroundings must stay as they are."""
    (tmp_path / "parent").mkdir()
    return tmp_path / "parent" / "target"


def refuse(archive: bytes, target: Path) -> BundleError:
    path = target.parent.parent / "archive.tar.zst"
    path.write_bytes(archive)
    before = time.monotonic()
    with pytest.raises(BundleError) as caught:
        unpack(path, target, LIMITS)
    assert time.monotonic() - before < LONGEST_REFUSAL_SECONDS
    assert list(target.parent.iterdir()) == []
    assert {entry.name for entry in target.parent.parent.iterdir()} == {"parent", path.name}
    return caught.value


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(name: str, target: Path) -> None:
    error = refuse(HOSTILE[name], target)

    assert str(error).isprintable()
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parent", r"\.\./evil: '\.\.' is not allowed"),
        ("symbolic link", "a: is a symbolic link; only files and directories"),
        ("case", "readme: differs from README only in case"),
        ("file as directory", "a/b: lies below a, which is a file"),
        ("announced too large", "a: 600000 bytes are above 500000"),
        ("bomb", "bomb: 209715200 bytes are above 500000"),
    ],
)
def test_the_message_names_the_entry_and_the_rule(name: str, expected: str, target: Path) -> None:
    assert re.match(expected, str(refuse(HOSTILE[name], target)))


@pytest.mark.parametrize(
    "name",
    ["announced too large", "sum too large", "too many files", "bomb", "too many directories"],
)
def test_limits_have_a_code_of_their_own(name: str, target: Path) -> None:
    assert isinstance(refuse(HOSTILE[name], target), BundleTooLargeError)


def test_harmless_extended_headers_are_accepted(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(zst(pax_header(PATH_RECORD + b"13 mtime=1.5\n") + tar(OK)))
    unpack(archive, target, LIMITS)

    assert (target / "a/b.py").read_bytes() == b"app = 1"


def test_a_directory_may_follow_what_is_in_it(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(zst(tar(Entry("a/b"), Entry("a/", type=tarfile.DIRTYPE))))

    assert unpack(archive, target, LIMITS).files == 2


def test_special_modes_are_dropped(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(zst(tar(Entry("x", mode=0o6777), Entry("y", mode=0o000))))
    unpack(archive, target, LIMITS)

    assert {p.name: p.stat().st_mode & 0o7777 for p in target.iterdir()} == {
        "x": 0o755,
        "y": 0o644,
    }


def test_an_existing_target_is_left_alone(tmp_path: Path, target: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(zst(tar(OK)))
    target.mkdir()

    with pytest.raises(FileExistsError):
        unpack(archive, target, LIMITS)
    assert list(target.iterdir()) == []


def test_descriptors_are_closed_after_refusals(target: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for archive in HOSTILE.values():
        refuse(archive, target)

    assert len(os.listdir("/proc/self/fd")) == before


def mutations(rng: random.Random) -> list[Callable[[bytearray], None]]:
    """Return ways to damage an unpacked tar stream."""

    def flip(data: bytearray) -> None:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)

    def cut(data: bytearray) -> None:
        del data[rng.randrange(len(data)) :]

    def repeat(data: bytearray) -> None:
        start = rng.randrange(len(data) // 512) * 512
        data[start:start] = data[start : start + 512 * rng.randrange(1, 4)]

    def splice(data: bytearray) -> None:
        hostile = [tar(Entry("../evil")), tar(Entry("l", type=b"2", link="/tmp")), bytes(512)]
        start = rng.randrange(len(data) // 512 + 1) * 512
        data[start:start] = rng.choice(hostile)

    def field_of_a_header(data: bytearray) -> None:
        start = rng.randrange(len(data) // 512) * 512
        offset = rng.choice([0, 100, 124, 156, 257, 345])
        noise = rng.choice([b"../", b"/", b"\0", b"\xff" * 12, b"7777777", b"1", b"2", b"5", b"x"])
        data[start + offset : start + offset + len(noise)] = noise
        header = data[start : start + 512]
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)

    return [flip, cut, repeat, splice, field_of_a_header]


def test_500_mutated_archives_stay_inside_and_are_judged_in_time(
    tmp_path: Path, target: Path
) -> None:
    rng = random.Random(SEED)
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    for name, size in {"main.py": 100, "a/x": 600, "a/b/y": 5, "a/" + "n" * 120: 20}.items():
        (source / name).write_bytes(rng.randbytes(size))
    good = pack(source, tmp_path / "good.tar.zst").archive.read_bytes()
    plain = zstandard.ZstdDecompressor().stream_reader(good).read()
    archive, refused = tmp_path / "archive", 0
    outside = {entry.name for entry in tmp_path.iterdir()} | {archive.name}
    for trial in range(500):
        data = bytearray(plain if trial % 5 else good)
        for _ in range(rng.randrange(1, 3)):
            rng.choice(mutations(rng))(data) if len(data) > 512 else data.append(0)
        archive.write_bytes(zst(bytes(data)) if trial % 5 else bytes(data))
        before = time.monotonic()
        try:
            unpack(archive, target, LIMITS)
        except BundleError:
            refused += 1
        else:
            _remove_checked(target)
        where = f"seed {SEED}, trial {trial}"
        assert time.monotonic() - before < LONGEST_REFUSAL_SECONDS, where
        assert list(target.parent.iterdir()) == [], where
        assert {entry.name for entry in tmp_path.iterdir()} == outside, where

    assert 250 < refused < 500  # the campaign really damaged archives, and not all of them


def _remove_checked(folder: Path) -> None:
    """Remove an unpacked folder after a look that it holds only files and directories."""
    for path in folder.rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()
    shutil.rmtree(folder)
