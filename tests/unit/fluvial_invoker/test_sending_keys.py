"""Root keys on their way into an instance: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Any

from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.wire import FrameReader
from fluvial_invoker.app_logs import AppLogs
from fluvial_invoker.births import Birth
from fluvial_invoker.instance.certificate import BirthCertificate
from fluvial_invoker.instances import Instance, write_keys
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


CERTIFICATE = BirthCertificate(
    instance="ins_1",
    deployment=SPEC,
    bundle_path="/b",
    layer_path="",
    runtime_path="/r",
    grace_seconds=1.0,
)
MORE_THAN_A_SOCKET_HOLDS = 20_000


class Recorder(asyncio.WriteTransport):
    """A control connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.buffers: list[Any] = []

    def write(self, data: Any) -> None:
        self.sent += bytes(data)
        self.buffers.append(data)

    def get_write_buffer_size(self) -> int:
        return 0


def test_keys_are_overwritten_once_they_are_sent(tmp_path: Path) -> None:
    async def main() -> None:
        keyring, control = Keyring(tmp_path / "keyring"), Recorder()
        await keyring.rotate("demo", "00000001")
        keys = keyring.loaded("demo")
        assert write_keys(control, keys)
        ((header, body),) = FrameReader().feed(control.sent)

        assert header[2:4] == ["00000001", list(keys.roots)]
        assert body == b"".join(bytes(root.material) for root in keys.roots.values())
        assert any(body)
        assert not any(control.buffers[-1])  # the one that held them

    asyncio.run(main())


def test_an_instance_that_does_not_read_its_keys_is_killed(tmp_path: Path) -> None:
    async def main(process: subprocess.Popen[bytes]) -> None:
        keyring = Keyring(tmp_path / "keyring")
        await keyring.load("demo")
        birth = Birth.prepare(tmp_path / "ins_1.sock")
        logs = AppLogs(tmp_path)
        instance = Instance("ins_1", SPEC, birth, logs, on_wanted=print, on_ready=print)
        await instance.open(CERTIFICATE, lambda: keyring.loaded("demo"))
        instance.started(process.pid, "zygote", {})
        for _ in range(MORE_THAN_A_SOCKET_HOLDS):
            instance.send_keys(keyring.loaded("demo"))
        birth.close_theirs()
        await instance.ended(None)

    with subprocess.Popen(["sleep", "60"]) as process:
        asyncio.run(main(process))

        assert process.wait(10) == -signal.SIGKILL
