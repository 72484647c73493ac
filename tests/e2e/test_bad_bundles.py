"""Bundles and archives that cannot be deployed: each is refused clearly, and leaves nothing."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard

from tests.e2e.installation import App, Platform
from tests.e2e.standing import unharmed

APPS: Final = Path(__file__).parent / "apps"
ASGI: Final = "async def app(scope, receive, send): ...\n"
MIB: Final = 2**20
LIMIT_BYTES: Final = 250 * MIB  # of a bundle, packed and unpacked


@pytest.fixture(scope="module")
def mistakes(running: Platform) -> App:
    return running.deploy(APPS / "mistakes")


FOLDERS: Final[list[tuple[dict[str, str], str]]] = [
    ({}, "no HTTP app and no workflows"),
    ({"readme.txt": "hello"}, "no HTTP app and no workflows"),
    ({"main.py": "app = 3"}, "main:app: is a int: expected an ASGI application"),
    ({"main.py": ASGI, "fluvial.toml": "nmae = 'x'"}, "did you mean 'name'?"),
    (
        {"main.py": ASGI, "fluvial.toml": "[instance]\nmemory = 'much'"},
        "fluvial.toml instance memory",
    ),
    ({"main.py": ASGI, "fluvial.toml": "name = "}, "fluvial.toml: is not TOML"),
    ({"main.py": ASGI, "fluvial.toml": "app = 'main:server'"}, "main has no 'server'"),
    ({"main.py": "def app("}, "main.py: is not valid Python"),
    ({"main.py": ASGI, "requirements.txt": "fluvial-none-such==1"}, "fluvial-none-such"),
    (
        {"main.py": ASGI, "requirements.txt": "chess>1,<1"},
        "chess<1 and chess>1, which are incompatible",
    ),
    ({"main.py": ASGI, "requirements.txt": "-r ../other.txt"}, "other.txt"),
]


@pytest.mark.parametrize(("files", "says"), FOLDERS)
def test_a_folder_is_refused(
    running: Platform, mistakes: App, tmp_path: Path, files: dict[str, str], says: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with unharmed(running, mistakes):
        done = running.command("deploy", str(tmp_path), "--name", "refused")

    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("1 / 0", "    1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import nonesuch", "    import nonesuch\n", "No module named 'nonesuch'"),
        ("from fluvial import nonesuch", "nonesuch\n", "cannot import name 'nonesuch'"),
        ("def (:", "    def (:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_an_import_error_shows_the_users_line_and_none_of_ours(
    running: Platform, mistakes: App, tmp_path: Path, text: str, line: str, error: str
) -> None:
    (tmp_path / "main.py").write_text("from inner import app")
    (tmp_path / "inner.py").write_text(f"{ASGI}\n{text}\n")
    with unharmed(running, mistakes):
        done = running.command("deploy", str(tmp_path), "--name", "refused")

    assert (done.returncode, done.stdout) == (1, "")
    for part in ("error: The bundle could not be imported", 'File "inner.py", line 3', line, error):
        assert part in done.stderr, done.stderr
    assert 'File "/' not in done.stderr


def test_a_mistake_in_an_update_leaves_the_app_as_it_was(
    running: Platform, mistakes: App, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("import nonesuch\n" + ASGI)
    with unharmed(running, mistakes):
        done = running.command("deploy", str(tmp_path), "--name", mistakes.name)

    assert done.returncode == 1


def test_a_folder_above_the_limit_is_refused_before_it_is_sent(
    running: Platform, mistakes: App, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(ASGI)
    with (tmp_path / "data.bin").open("wb") as data:
        data.truncate(LIMIT_BYTES)
    with unharmed(running, mistakes):
        done = running.command("deploy", str(tmp_path), "--name", "refused")

    assert (done.returncode, done.stdout) == (1, "")
    assert "larger than 250 MiB; its largest file is data.bin" in done.stderr
    assert ".fluvialignore" in done.stderr


Fill = Callable[[tarfile.TarFile], None]


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Fill:
    """Add one entry without content."""

    def fill(tar: tarfile.TarFile) -> None:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, link
        tar.addfile(header)

    return fill


def bomb(tar: tarfile.TarFile) -> None:
    """Zeros above the limit: a few KiB on the wire."""
    for number in range(LIMIT_BYTES // (25 * MIB) + 1):
        header = tarfile.TarInfo(f"zeros-{number}")
        header.size = 25 * MIB
        tar.addfile(header, io.BytesIO(bytes(header.size)))


def through_a_link(tar: tarfile.TarFile) -> None:
    entry("folder", tarfile.SYMTYPE, "/tmp")(tar)
    entry("folder/escaped")(tar)


def twice(tar: tarfile.TarFile) -> None:
    entry("main.py")(tar)
    entry("Main.py")(tar)


HOSTILE: Final[dict[str, tuple[Fill, str, str]]] = {
    "traversal": (entry("../../escaped"), "bundle_invalid", "../../escaped"),
    "absolute path": (entry("/tmp/escaped"), "bundle_invalid", "/tmp/escaped"),
    "symbolic link": (
        entry("escaped", tarfile.SYMTYPE, "/etc/passwd"),
        "bundle_invalid",
        "a symbolic link",
    ),
    "file through a link": (through_a_link, "bundle_invalid", "a symbolic link"),
    "hard link": (
        entry("escaped", tarfile.LNKTYPE, "../../token"),
        "bundle_invalid",
        "a hard link",
    ),
    "device": (entry("escaped", tarfile.CHRTYPE), "bundle_invalid", "a device"),
    "same name twice": (twice, "bundle_invalid", "Main.py"),
    "bomb": (bomb, "too_large", "262144000"),
    "empty": (lambda tar: None, "bundle_invalid", "empty"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(running: Platform, mistakes: App, name: str) -> None:
    fill, code, says = HOSTILE[name]
    with unharmed(running, mistakes):
        problem = _upload(running, _archive(fill))

    assert (problem["code"], says in problem["detail"]) == (code, True), problem
    escaped = [path for path in running.home.rglob("escaped*") if path.exists()]
    assert escaped == []
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage", bytes(1000), zstandard.compress(b"not a tar"), os.urandom(100_000)],
    ids=["nothing", "text", "zeros", "no tar", "noise"],
)
def test_garbage_is_refused(running: Platform, mistakes: App, data: bytes) -> None:
    with unharmed(running, mistakes):
        problem = _upload(running, data)

    assert (problem["status"], problem["code"]) == (422, "bundle_invalid"), problem


def test_half_an_archive_is_refused(running: Platform, mistakes: App) -> None:
    whole = _archive(entry("main.py"))
    with unharmed(running, mistakes):
        problem = _upload(running, whole[: len(whole) // 2])

    assert problem["code"] == "bundle_invalid", problem


def test_an_upload_with_another_digest_is_refused(running: Platform, mistakes: App) -> None:
    with unharmed(running, mistakes), running.api() as api:
        headers = {"x-fluvial-bundle-digest": "0" * 64}
        answer = api.post("/v1/deployments", content=b"garbage", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (400, "digest_mismatch")


def test_an_upload_above_the_limit_is_refused_by_its_length(
    running: Platform, mistakes: App
) -> None:
    with unharmed(running, mistakes), running.api() as api:
        connection = http.client.HTTPConnection(running.control.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", "/v1/deployments")
        connection.putheader("authorization", api.headers["authorization"])
        connection.putheader("x-fluvial-bundle-digest", "0" * 64)
        connection.putheader("content-length", str(LIMIT_BYTES + 1))
        connection.endheaders()  # the answer comes before the first byte of the body
        answer = connection.getresponse()
        problem = json.load(answer)
        connection.close()

    assert (answer.status, problem["code"]) == (413, "too_large")
    assert str(LIMIT_BYTES) in problem["detail"]


def _archive(fill: Fill) -> bytes:
    """Return an archive as somebody would make it who does not use our packer."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    return zstandard.compress(plain.getvalue())


def _upload(running: Platform, data: bytes) -> dict[str, Any]:
    """Return the problem that a deploy of `data` ends with."""
    headers = {"x-fluvial-bundle-digest": hashlib.sha256(data).hexdigest()}
    with running.api() as api:
        answer = api.post("/v1/deployments", content=data, headers=headers).raise_for_status()
    last = json.loads(answer.text.strip().splitlines()[-1])
    problem: dict[str, Any] = last["problem"]
    return problem
