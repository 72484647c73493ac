"""Key files: the format, and changes that are killed half way or happen twice at once."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.encryption import public_key_of
from fluvial_invoker.key_file_format import KeyFileContent, KeyForm, StoredKey
from fluvial_invoker.key_files import KeyFile, KeyringError

APP = "demo"
REPOSITORY = Path(__file__).parents[3]


def key(key_id: str, fill: int = 1) -> StoredKey:
    root = bytearray([fill]) * 32
    return StoredKey(
        id=key_id,
        created_ms=fill,
        public_key=public_key_of(root, APP),
        form=KeyForm.PLAIN,
        blob=root,
    )


def first(_: KeyFileContent | None) -> KeyFileContent:
    return KeyFileContent(keys=(key("aaaaaaaa"),), current="aaaaaaaa")


def existing(content: KeyFileContent | None) -> KeyFileContent:
    assert content is not None
    return content


def rotate(content: KeyFileContent | None) -> KeyFileContent:
    return existing(content).with_current(key("bbbbbbbb", 2))


def destroy(content: KeyFileContent | None) -> KeyFileContent:
    old = existing(content).find("aaaaaaaa")
    assert old is not None
    gone = replace(old, form=KeyForm.DESTROYED, blob=bytearray(), destroyed_ms=9)
    return existing(content).with_key(gone)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keyring", APP)
    wrapped = replace(key("bbbbbbbb", 2), form=KeyForm.WRAPPED, blob=bytearray(b"\n{}\0" * 40))
    file.change(first)
    written, identity = file.change(
        lambda content: existing(content).with_current(wrapped).frozen_at(77)
    )

    assert file.read() == (written, identity)
    assert file.identity() == identity
    assert written.frozen_ms == 77
    assert [found.id for found in written.keys] == ["aaaaaaaa", "bbbbbbbb"]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_a_line_of_json_stands_first_and_names_no_secret(tmp_path: Path) -> None:
    file = KeyFile(tmp_path, APP)
    file.change(first)
    head, _, rest = file.path.read_bytes().partition(b"\n")

    assert json.loads(head)["version"] == 2
    assert json.loads(head)["current"] == "aaaaaaaa"
    assert rest == b"\1" * 32


def test_a_file_of_the_first_version_is_read_and_written_as_the_second(tmp_path: Path) -> None:
    root = bytes(range(32))
    old = {"version": 1, "current": "k1", "roots": {"k1": base64.b64encode(root).decode()}}
    file = KeyFile(tmp_path, APP)
    file.path.write_text(json.dumps(old))
    os.utime(file.path, (1000, 1000))

    content, _ = file.read()
    file.change(rotate)
    again, _ = file.read()

    assert (content.current, bytes(content.keys[0].blob)) == ("k1", root)
    assert content.keys[0].public_key == public_key_of(root, APP)
    assert content.keys[0].created_ms == 1_000_000
    assert again.keys[0] == content.keys[0]
    assert json.loads(file.path.read_bytes().partition(b"\n")[0])["version"] == 2


def test_a_destroyed_key_leaves_a_tombstone_and_no_bytes(tmp_path: Path) -> None:
    file = KeyFile(tmp_path, APP)
    file.change(first)
    file.change(rotate)
    file.change(destroy)
    content, _ = file.read()

    assert content.keys[0].destroyed_ms == 9
    assert content.keys[0].form is KeyForm.DESTROYED
    assert b"\1" * 32 not in file.path.read_bytes()


def test_what_a_change_replaces_is_overwritten(tmp_path: Path) -> None:
    file = KeyFile(tmp_path, APP)
    file.change(first)
    file.change(rotate)
    with file.path.open("rb") as before:
        file.change(destroy)
        left = before.read()

    assert left
    assert not any(left)


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = KeyFile(tmp_path, APP)
    file.change(first)
    read, reads = os.readv, 0

    def read_late(fd: int, buffers: list[bytearray]) -> int:
        nonlocal reads
        reads += 1
        if reads == 1:
            file.change(rotate)  # and what was opened is overwritten
        return read(fd, buffers)

    monkeypatch.setattr(os, "readv", read_late)
    content, _ = file.read()

    assert content.current == "bbbbbbbb"


def test_a_change_that_raises_changes_nothing(tmp_path: Path) -> None:
    file = KeyFile(tmp_path, APP)
    before = file.change(first)

    def refuse(content: KeyFileContent | None) -> KeyFileContent:
        raise LookupError("no such key")

    with pytest.raises(LookupError, match="no such key"):
        file.change(refuse)
    assert file.read() == before


HEAD = {
    "version": 2,
    "current": "a",
    "frozen_ms": None,
    "keys": [
        {
            "id": "a",
            "created_ms": 1,
            "public_key": "00" * 32,
            "form": "plain",
            "bytes": 32,
            "destroyed_ms": None,
        }
    ],
}


def damaged() -> Iterator[bytes]:
    whole = json.dumps(HEAD).encode() + b"\n" + b"s" * 32
    yield whole[:-1]
    yield whole + b"x"
    yield whole.replace(b'"bytes": 32', b'"bytes": -1')
    yield whole.replace(b'"bytes": 32', b'"bytes": 31')
    yield whole.replace(b'"plain"', b'"unheard"')
    yield whole.replace(b'"plain"', b'"destroyed"')
    yield whole.replace(b'"current": "a"', b'"current": "b"')
    yield whole.replace(b'"version": 2', b'"version": 3')
    yield whole.replace(b"\n", b"")
    yield b""
    yield b"[]"
    yield b"{"
    yield b'{"version": 1}'
    yield b'{"version": 1, "current": "b", "roots": {"a": "' + b"A" * 43 + b'="}}'
    yield b'{"version": 1, "current": "a", "roots": {"a": "QUJD"}}'
    yield b'{"version": 1, "current": "a", "roots": "c2VjcmV0"}'


@pytest.mark.parametrize("content", list(damaged()), ids=range(16))
def test_damaged_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    file = KeyFile(tmp_path, APP)
    file.path.write_bytes(content)

    for operation in (file.read, lambda: file.change(rotate)):
        with pytest.raises(KeyringError, match=r"demo\.key") as caught:
            operation()
        assert "ssss" not in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value)
    assert file.path.read_bytes() == content


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    file = KeyFile(tmp_path, APP)
    with file.path.open("wb") as out:
        out.truncate(1 << 40)

    with pytest.raises(KeyringError, match="above"):
        file.read()


CRASHING = """
import os, signal, sys
from pathlib import Path
from tests.unit.fluvial_invoker import test_key_files as t
from fluvial_invoker.key_files import KeyFile

def kill_before(call):
    def counted(name):
        real = getattr(os, name)
        def system_call(*arguments, **options):
            nonlocal call
            call -= 1
            if call == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, system_call)
    for name in ("open", "write", "fsync", "replace", "close", "unlink"):
        counted(name)

for call in range(1, 100):
    file = KeyFile(Path(sys.argv[1]) / str(call), t.APP)
    for earlier in t.BEFORE[sys.argv[2]]:
        file.change(earlier)
    child = os.fork()
    if child == 0:
        kill_before(call)
        file.change(getattr(t, sys.argv[2]))
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""
BEFORE: dict[str, list[Callable[[KeyFileContent | None], KeyFileContent]]] = {
    "first": [],
    "rotate": [first],
    "destroy": [first, rotate],
}


@pytest.mark.parametrize("change", ["first", "rotate", "destroy"])
def test_a_change_that_is_killed_has_happened_or_not(tmp_path: Path, change: str) -> None:
    subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path), change],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
        check=True,
    )
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    found: set[tuple[str, ...]] = set()
    for folder in folders[:-1]:  # in the last one it came to its end
        file = KeyFile(folder, APP)
        if file.path.exists():
            content, _ = file.read()
            found.add(tuple(f"{key.id}:{key.form}" for key in content.keys))
        # Whatever was left beside it is gone after the next change, and that goes well.
        file.change(lambda content: first(content) if content is None else rotate_again(content))
        assert {path.name for path in folder.iterdir()} == {".lock", "demo.key"}

    a, b, gone = "aaaaaaaa:plain", "bbbbbbbb:plain", "aaaaaaaa:destroyed"
    expected = {"first": {(a,)}, "rotate": {(a,), (a, b)}, "destroy": {(a, b), (gone, b)}}
    assert found == expected[change]
    assert len(folders) > 10


def rotate_again(content: KeyFileContent) -> KeyFileContent:
    return content.with_current(key("cccccccc", 3))


def test_two_processes_lose_nothing_of_each_others(tmp_path: Path) -> None:
    rotating = """
import sys
from pathlib import Path
from tests.unit.fluvial_invoker import test_key_files as t
from fluvial_invoker.key_files import KeyFile
for number in range(25):
    key = t.key(f"{sys.argv[2]}{number:07x}")
    KeyFile(Path(sys.argv[1]), t.APP).change(lambda content: t.existing(content).with_current(key))
"""
    KeyFile(tmp_path, APP).change(first)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    rotators = [
        subprocess.Popen([sys.executable, "-c", rotating, str(tmp_path), name], env=environment)
        for name in ("a", "b", "c")
    ]
    assert [rotator.wait(60) for rotator in rotators] == [0, 0, 0]
    content, _ = KeyFile(tmp_path, APP).read()

    assert len({found.id for found in content.keys}) == len(content.keys) == 76


def test_racing_creators_agree(tmp_path: Path) -> None:
    def make(number: int) -> str:
        mine = KeyFileContent(keys=(key(f"{number:08x}"),), current=f"{number:08x}")
        return KeyFile(tmp_path, APP).change(lambda found: found or mine)[0].current

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(make, range(50)))

    assert len(made) == 1
