"""A real builder process on a socket, and packages to install without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import subprocess
import sys
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

    def build(self, source: Path, *, name: str | None = "app") -> Answer:
        """Pack and build a folder."""
        blobs = self.home / "blobs"
        blobs.mkdir(exist_ok=True)
        packed = pack(source, blobs / "new")
        return self.build_archive(packed.archive.rename(blobs / packed.digest), name=name)

    def build_archive(self, archive: Path, *, name: str | None = "app") -> Answer:
        request = {"archive": str(archive), "digest": file_digest(archive), "name": name}
        return self.ask(pack_frame(FrameType.BUILD, 7, request))

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
