"""Root keys on their way into an instance: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.wire import FrameReader
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.births import Birth
from fluvial_invoker.instances import Instance
from fluvial_invoker.keyring import Keyring

SPEC = DeploymentSpec(
    deployment="dpl_1",
    app="demo",
    bundle="b",
    layer="",
    entrypoint="main:app",
    workflows=(),
    instance=InstanceSettings(),
    environment={},
)


class Recorder(asyncio.Transport):
    """A control connection that keeps what is written, and may be full."""

    def __init__(self, waiting_bytes: int = 0) -> None:
        super().__init__()
        self.sent = b""
        self.buffers: list[Any] = []
        self._waiting_bytes = waiting_bytes

    def write(self, data: Any) -> None:
        self.sent += bytes(data)
        self.buffers.append(data)

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes


@contextlib.contextmanager
def new_instance(folder: Path, control: Recorder) -> Generator[Instance]:
    birth = Birth.prepare(folder / "ins_1.sock")
    instance = Instance("ins_1", SPEC, birth, AppLogs(folder), on_wanted=lambda _: None)
    instance._control = control
    try:
        yield instance
    finally:
        birth.close_theirs()
        birth.control.close()
        os.close(birth.log_reader)
        if instance._pidfd is not None:
            os.close(instance._pidfd)


def test_keys_are_overwritten_once_they_are_sent(tmp_path: Path) -> None:
    async def main() -> None:
        keyring, control = Keyring(tmp_path / "keyring"), Recorder()
        await keyring.rotate("demo", "00000001")
        keys = keyring.loaded("demo")
        with new_instance(tmp_path, control) as instance:
            instance.send_keys(keys)
        ((header, body),) = FrameReader().feed(control.sent)

        assert header[2:4] == ["00000001", list(keys.roots)]
        assert body == b"".join(bytes(root.material) for root in keys.roots.values())
        assert any(body)
        assert not any(control.buffers[-1])  # the one that held them

    asyncio.run(main())


def test_an_instance_that_does_not_read_its_keys_is_killed(tmp_path: Path) -> None:
    async def main(pid: int) -> None:
        keyring = Keyring(tmp_path / "keyring")
        await keyring.load("demo")
        with new_instance(tmp_path, Recorder(waiting_bytes=1)) as instance:
            instance.started(pid, "fork", {})
            instance.send_keys(keyring.loaded("demo"))

    with subprocess.Popen(["sleep", "60"]) as process:
        asyncio.run(main(process.pid))

        assert process.wait(10) == -signal.SIGKILL
