"""What an instance can see of the platform, of its neighbours and of the past."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from fluvial.manifest import DeploymentSpec
from fluvial.wire import FrameType

PROBE = """
    import json, os, random, resource, sys, uuid
    at_import = random.random()

    def lasting_descriptors():
        # Without files of /proc: this function and the platform's watchdog look at them.
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except FileNotFoundError:
                continue
            if not target.startswith("/proc"):
                yield int(fd)

    def app(request):
        if request.path == "/import":
            try:
                __import__(request.query["name"])
            except ImportError:
                return "no"
            return "yes"
        return {
            "environment": dict(os.environ),
            "path": sys.path,
            "cwd": os.getcwd(),
            "descriptors": sorted(lasting_descriptors()),
            "random": [random.random(), str(uuid.uuid4()), at_import],
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "status": open("/proc/self/status").read(),
            "process": [os.getpid(), os.getpgid(0), os.getsid(0)],
            "bytecode": sys.dont_write_bytecode,
            "ppid": os.getppid(),
        }
"""


def layer_with(home: Path, package: str, version: str) -> str:
    """Make a layer that has its own version of a package of the platform."""
    folder = home / "layers" / f"{package}-{version}"
    (folder / f"{package}-{version}.dist-info").mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    (folder / f"{package}-{version}.dist-info" / "METADATA").write_text(metadata)
    (folder / f"{package}.py").write_text(f"version = {version!r}\n")
    (folder / "only_here.py").write_text("")
    return folder.name


def spawned(machine: Any, main: str, **options: Any) -> DeploymentSpec:
    """Return a deployment whose layer keeps it from being forked."""
    layer = layer_with(machine.home, "cffi", "0.0.1")
    spec: DeploymentSpec = machine.spec(main, layer=layer, **options)
    return spec


@pytest.mark.parametrize("tier", ["zygote", "spawn"])
def test_instance_sees_its_own_world_only(machine: Any, serve: Any, tier: str) -> None:
    options: dict[str, Any] = {"environment": {"GREETING": "hi"}, "app": "probe"}
    spec = (
        machine.spec(PROBE, **options) if tier == "zygote" else spawned(machine, PROBE, **options)
    )

    async def main() -> None:
        async with serve(spec) as (_, handed, link):
            seen = json.loads((await link.get()).body)

            assert handed.tier == tier
            assert "SECRET_OF_THE_PLATFORM" not in seen["environment"]
            assert "PYTHONDONTWRITEBYTECODE" not in seen["environment"]
            fluvial = {k: v for k, v in seen["environment"].items() if k.startswith("FLUVIAL")}
            assert fluvial == {
                "FLUVIAL": "1",
                "FLUVIAL_APP": "probe",
                "FLUVIAL_DEPLOYMENT": spec.deployment,
            }
            assert seen["environment"]["GREETING"] == "hi"
            assert not seen["bytecode"]
            assert not any("site-packages" in entry for entry in seen["path"])
            assert seen["cwd"] == str(machine.home / "bundles" / spec.bundle)
            pid = seen["process"][0]
            assert seen["process"] == [pid, pid, pid]
            assert seen["core"] == [0, 0]
            assert seen["files"] == [1024, 1024]
            assert "NoNewPrivs:\t1" in seen["status"]

    asyncio.run(main())


@pytest.mark.parametrize("tier", ["zygote", "spawn"])
def test_platform_packages_cannot_be_imported(machine: Any, serve: Any, tier: str) -> None:
    spec = machine.spec(PROBE) if tier == "zygote" else spawned(machine, PROBE)

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            for name in (
                "redis",
                "starlette",
                "uvicorn",
                "httpx",
                "fluvial_gateway",
                "typer",
                "fluvial_queue",
                "fluvial_deploy",
                "pytest",
            ):
                assert (await link.get(f"/import?name={name}")).body == b"no", name
            for name in ("fluvial", "msgpack", "cryptography", "zstandard", "main"):
                assert (await link.get(f"/import?name={name}")).body == b"yes", name

    asyncio.run(main())


def test_layer_with_another_version_gets_a_process_of_its_own(machine: Any, serve: Any) -> None:
    spec = spawned(
        machine,
        """
        import cffi
        import fluvial, only_here
        def app(request):
            return f"{getattr(cffi, 'version', 'the platform')} {fluvial.__file__}"
    """,
    )
    # A copy of the platform in a layer must not be the one that runs.
    (machine.home / "layers" / spec.layer / "fluvial.py").write_text("raise ImportError\n")

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            reply = await link.get()
            _, zygotes = await invoker.survey()

            assert handed.tier == "spawn"
            assert reply.body.startswith(b"0.0.1 "), reply.body
            assert zygotes == []

    asyncio.run(main())


def test_two_instances_draw_different_numbers(machine: Any, serve: Any) -> None:
    spec = machine.spec(PROBE)

    async def main() -> None:
        async with serve(spec) as (invoker, handed, link):
            _, other = await invoker.open(spec, [handed.instance])
            first = json.loads((await link.get()).body)["random"]
            second = json.loads((await other.get()).body)["random"]
            await other.close()

            assert all(a != b for a, b in zip(first, second, strict=True))

    asyncio.run(main())


def test_descriptors_do_not_leak(machine: Any, serve: Any) -> None:
    """Neither into instances nor, over many lives, in the invoker and the zygote."""
    spec = machine.spec(PROBE, snapshot="off")  # test_snapshots.py has the same for snapshots

    def open_descriptors(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    async def one_life(invoker: Any) -> list[int]:
        handed, link = await invoker.open(spec)
        seen = json.loads((await link.get()).body)["descriptors"]
        invoker.send(FrameType.KILL, 0, handed.instance, 5000)
        await link.next(kind=FrameType.GOAWAY)
        await link.close()
        await invoker.death_of(handed.instance)
        return list(seen)

    async def main() -> None:
        invoker = await machine.connect()
        first = await one_life(invoker)
        _, zygotes = await invoker.survey()
        pids = (machine.process.pid, zygotes[0]["pid"])
        before = [open_descriptors(pid) for pid in pids]
        lives = [await one_life(invoker) for _ in range(10)]
        after = [open_descriptors(pid) for pid in pids]
        await invoker.close()

        assert after == before
        assert {len(life) for life in lives} == {len(first)}
        assert len(first) <= 20  # its own three, the log twice more, the link, and the loop's

    asyncio.run(main())


def test_keys_are_made_once_and_stay_private(machine: Any) -> None:
    async def main() -> None:
        invoker = await machine.connect()
        for number in (1, 2):
            invoker.send(FrameType.KEYRING, number, "demo", "list", "")
        first = await invoker.next(1)
        second = await invoker.next(2)
        invoker.send(FrameType.KEYRING, 3, "../demo", "list", "")
        refused = await invoker.next(3)
        await invoker.close()

        assert first.header[0] == FrameType.KEYRING_STATE
        assert len(first.header[2]["keys"][0]["public_key"]) == 32
        assert first.header[2:] == second.header[2:]
        assert refused.header[0] == FrameType.REFUSED
        key_file = machine.home / "keyring" / "demo.key"
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
        assert {path.name for path in key_file.parent.iterdir()} == {".lock", "demo.key"}

    asyncio.run(main())


def test_what_cannot_be_started_is_refused(machine: Any) -> None:
    async def refusal(invoker: Any, spec: DeploymentSpec) -> str:
        with pytest.raises(Exception, match="is gone") as caught:
            await invoker.acquire(spec)
        return str(caught.value.args[0])

    async def main() -> None:
        invoker = await machine.connect()
        full = machine.spec(PROBE, max_instances=1)
        plain = machine.spec("").to_dict()
        gone = DeploymentSpec.from_dict({**plain, "bundle": "0" * 64})
        no_layer = DeploymentSpec.from_dict({**plain, "layer": "nowhere"})

        assert await refusal(invoker, gone) == "bundle_missing"
        assert await refusal(invoker, no_layer) == "bundle_missing"
        handed = await invoker.acquire(full)
        again = await invoker.acquire(full)
        assert (again.instance, again.tier) == (handed.instance, "warm")
        assert again.credential != handed.credential
        with pytest.raises(Exception, match="capacity"):
            await invoker.acquire(full, [handed.instance])
        await invoker.close()

    asyncio.run(main())


def test_survey_says_what_runs(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(PROBE, app="probe")) as (invoker, handed, link):
            await link.get()
            instances, zygotes = await invoker.survey()

            assert len(instances) == len(zygotes) == 1
            seen = instances[0]
            assert seen["instance"] == handed.instance
            assert (seen["app"], seen["tier"], seen["state"]) == ("probe", "zygote", "ready")
            assert 1_000_000 < seen["rss_bytes"] < 200_000_000
            assert seen["cpu_us"] >= 0
            assert seen["started_ms_ago"] >= 0

    asyncio.run(main())


@pytest.mark.parametrize("isolation", ["process", "jail"])
def test_an_instance_may_start_processes_and_fork(machine: Any, serve: Any, isolation: str) -> None:
    """Both meet what libuv has kept from the zygote."""
    spec = machine.spec(
        """
        import asyncio, os, sys

        async def app(request):
            started = await asyncio.create_subprocess_exec("true")
            status = await started.wait()
            child = os.fork()
            if child == 0:
                print("said in a fork")
                os._exit(7)
            return [status, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
    """,
        isolation=isolation,
    )

    async def main() -> None:
        async with serve(spec) as (_, _, link):
            reply = await link.get()

            assert json.loads(reply.body) == [0, 7]

    asyncio.run(main())
