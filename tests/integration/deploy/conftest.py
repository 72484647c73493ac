"""Real processes: a builder on a socket, a whole platform; packages to install without network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fluvial.bundle import file_digest, pack
from fluvial.wire import FrameReader, FrameType
from fluvial.wire import pack as pack_frame

ANSWER_SECONDS = 60.0


@dataclass
class Answer:
    """What the builder said to one request."""

    log: list[str] = field(default_factory=list[str])
    report: dict[str, Any] = field(default_factory=dict[str, Any])
    code: str = ""
    message: str = ""


@dataclass
class Builder:
    """Speaks to a builder as the gateway does."""

    home: Path
    socket_path: Path
    process: subprocess.Popen[bytes]

    def build(
        self, source: Path, *, name: str | None = "app", variables: tuple[str, ...] = ()
    ) -> Answer:
        """Pack and build a folder."""
        blobs = self.home / "blobs"
        blobs.mkdir(exist_ok=True)
        packed = pack(source, blobs / "new")
        archive = packed.archive.rename(blobs / packed.digest)
        return self.build_archive(archive, name=name, variables=variables)

    def build_archive(
        self, archive: Path, *, name: str | None = "app", variables: tuple[str, ...] = ()
    ) -> Answer:
        request = {"archive": str(archive), "digest": file_digest(archive), "name": name}
        named = {**request, "variables": list(variables)}
        return self.ask(pack_frame(FrameType.BUILD, 7, named))

    def ask(self, request: bytes) -> Answer:
        answer, frames = Answer(), FrameReader()
        with self.dial() as connection:
            connection.sendall(request)
            while data := connection.recv(65536):
                for header, _body in frames.feed(data):
                    assert header[1] == 7
                    if header[0] == FrameType.BUILD_LOG:
                        answer.log.append(header[2])
                    elif header[0] == FrameType.BUILT:
                        answer.report = header[2]
                        return answer
                    else:
                        assert header[0] == FrameType.REFUSED
                        answer.code, answer.message = header[2:4]
                        return answer
        raise AssertionError("the builder hung up")

    def dial(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(self.socket_path))
        return connection


def start_builder(home: Path, **environment: str) -> Builder:
    """Start a builder that listens on `<home>/builder.sock`."""
    path = home / "builder.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "fluvial_deploy.builder"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "FLUVIAL_HOME": str(home),
                "FLUVIAL_BUILDER_FD": str(listener.fileno()),
                **environment,
            },
            pass_fds=(listener.fileno(),),
        )
    return Builder(home, path, process)


@pytest.fixture
def starter() -> Iterator[Callable[..., Builder]]:
    """Starts builders in a home; ends those that a test leaves running."""
    started: list[Builder] = []

    def start(home: Path, **environment: str) -> Builder:
        started.append(start_builder(home, **environment))
        return started[-1]

    yield start
    for builder in started:
        builder.process.terminate()
        builder.process.wait(10)


@pytest.fixture
def builder(tmp_path: Path, wheels: Path) -> Iterator[Builder]:
    """A builder that installs from the folder `wheels` and from nowhere else."""
    home = tmp_path / "home"
    home.mkdir()
    started = start_builder(home, PIP_FIND_LINKS=str(wheels), UV_NO_INDEX="1", UV_OFFLINE="1")
    yield started
    started.process.terminate()
    assert started.process.wait(10) == 0


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the wheels greet 1.0 (of one module) and shout 1.0 (which needs greet)."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    make_wheel(folder, "greet", "def hello():\n    return 'hello'\n")
    make_wheel(folder, "shout", "from greet import hello\nTEXT = hello().upper()\n", "greet")
    return folder


def make_wheel(folder: Path, name: str, source: str, *requires: str) -> None:
    """Write a wheel of one module."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},{_record_hash(text)}\n" for path, text in files.items())
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)


def _record_hash(text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
    return f"sha256={digest.decode()},{len(text.encode())}"


@dataclass
class Platform:
    """A running `fluvial up`."""

    home: Path
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line against it."""
        return run_fluvial(self.home, *arguments, **environment)

    def run_at_terminal(self, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command for a person who types; `stderr` is what the person saw."""
        person, terminal = pty.openpty()
        try:
            os.write(person, typed.encode())
            command = [sys.executable, "-m", "fluvial_deploy", *arguments]
            done = subprocess.run(
                command,
                env=_environment(self.home),
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=terminal,
                text=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
            return subprocess.CompletedProcess(
                command, done.returncode, done.stdout, os.read(person, 65536).decode()
            )
        finally:
            os.close(person)
            os.close(terminal)

    def state(self) -> dict[str, Any]:
        """Return what it says about itself now."""
        found: dict[str, Any] = json.loads((self.home / "run" / "up.json").read_text())
        return found

    def children(self) -> dict[str, int]:
        """Return the programs that it has started, by name."""
        found: dict[str, int] = {}
        task = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        for pid in map(int, Path(task).read_text().split()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            found[Path(command[0]).name if "-m" not in command else command[2]] = pid
        return found

    def stop(self) -> int:
        """Ask it to end and return its exit status."""
        self.process.terminate()
        return self.process.wait(40)


def run_fluvial(
    home: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line with a clean environment."""
    return subprocess.run(
        [sys.executable, "-m", "fluvial_deploy", *arguments],
        env={**_environment(home), **environment},
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
        check=False,
    )


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "FLUVIAL_HOME": str(home)}


def start_platform(
    home: Path, *options: str, http: str = "127.0.0.1:0", control: str = "127.0.0.1:0"
) -> Platform:
    """Start `fluvial up` on free ports and wait until it is ready."""
    command = ["up", "--json", "--data", str(home), "--http", http, "--control", control]
    errors = (home.parent / f"{home.name}.err").open("w")
    with errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluvial_deploy", *command, *options],
            env={"PATH": os.environ["PATH"], "HOME": str(home.parent)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    if process.stdout is None:
        raise AssertionError("no pipe")
    with process.stdout as out:
        line = out.readline()
    if not line:
        raise AssertionError(f"up ended with {process.wait(10)}: {Path(errors.name).read_text()}")
    return Platform(home, process, json.loads(line))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        yield Path(folder)


@pytest.fixture
def up(short_path: Path) -> Iterator[Callable[..., Platform]]:
    """Starts platforms; ends those that a test leaves running."""
    started: list[Platform] = []

    def start(home: Path = short_path / "home", *options: str, **addresses: str) -> Platform:
        started.append(start_platform(home, *options, **addresses))
        return started[-1]

    yield start
    for platform in started:
        if platform.process.poll() is None:
            platform.stop()


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """One platform for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        started = start_platform(Path(folder) / "home")
        yield started
        started.stop()
