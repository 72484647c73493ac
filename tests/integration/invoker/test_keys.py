"""An app's keys change while a real invoker and real instances use them."""

from __future__ import annotations

import asyncio
import base64
import shlex
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

from fluvial.codec import encode
from fluvial.encryption import AppKeys, public_key_of
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import Answer, RevealRequest, TurnRequest, Unreadable, unpack_revealed
from fluvial.sealing import Binding, read_head, seal
from fluvial.signatures import encode_call
from fluvial.wire import FrameType
from fluvial_invoker.key_files import KeyFile
from fluvial_invoker.keyring import Keyring
from tests.e2e.processes import is_alive
from tests.integration.invoker.conftest import (
    InstanceLink,
    InvokerLink,
    Machine,
    RefusedByInvokerError,
)
from tests.process_memory import holds

RUN = "run_0000000000000000000000000a"
GREETING = """
    from fluvial import step, workflow

    @step
    async def hello(name: str) -> str:
        return f"hello {name}"

    @workflow
    async def greet(name: str) -> str:
        return await hello(name)
"""
KMS = """
import os, sys
assert "SECRET_OF_THE_PLATFORM" in os.environ
verb, app, key_id = sys.argv[1:]
if os.path.exists(__file__ + ".broken"):
    print("the key service is away", file=sys.stderr)
    sys.exit(3)
name = f"{app}/{key_id}:".encode()
given = sys.stdin.buffer.read()
turned = bytes(255 - byte for byte in given[0 if verb == "wrap" else len(name):])
sys.stdout.buffer.write(name + turned if verb == "wrap" else turned)
"""


async def change(invoker: InvokerLink, operation: str, key_id: str = "") -> dict[str, Any]:
    """Ask for an operation on the keyring; return the state after it."""
    state, _ = await invoker.keyring("demo", operation, key_id)
    return state


def app_keys(machine: Machine) -> AppKeys:
    """The app's keys as the file has them, if it has them plain."""
    content, _ = KeyFile(machine.home / "keyring", "demo").read()
    roots = {key.id: bytes(key.blob) for key in content.keys if key.blob}
    return AppKeys("demo", roots, content.current)


def root_of(machine: Machine) -> bytes:
    """The current root key."""
    content, _ = KeyFile(machine.home / "keyring", "demo").read()
    current = content.find(content.current)
    assert current is not None
    return bytes(current.blob)


def sealed_outside(state: dict[str, Any], plaintext: bytes) -> bytes:
    """Seal a run's input as the gateway does, which has the public key alone."""
    current = next(key for key in state["keys"] if key["key"] == state["current"])
    binding = Binding("demo", RUN, "input")
    return seal(current["public_key"], current["key"], plaintext, binding)


def first_event(sealed: bytes) -> Event:
    return Event(EventType.RUN_STARTED, 1000, 0, sealed, {"workflow": "greet"})


async def first_turn(link: InstanceLink, number: int, sealed: bytes) -> Answer:
    request = TurnRequest(
        run_id=RUN,
        app="demo",
        workflow="greet",
        turn_id=None,
        consumed=0,
        now_ms=1000,
        events=[first_event(sealed).encode()],
    )
    kind, meta, body = request.to_frame_fields()
    link.send(FrameType.INVOKE, number, kind, meta, body=body)
    frame = await link.next(number)
    assert frame.type == FrameType.ANSWER
    return Answer.from_frame(frame.header[2], frame.header[3], frame.body)


def key_of(answer: Answer) -> str:
    """Return the key that sealed the first output."""
    assert answer.outcome == "ok", answer.reason
    return read_head(decode_event(answer.events[0]).payload)[1]


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def spec_of(machine: Machine) -> Any:
    return machine.spec(GREETING, entrypoint=None, workflows=("main",))


def test_an_instance_goes_on_across_rotations(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        spec = spec_of(machine)
        async with serve(spec) as (invoker, handed, link):
            old = await change(invoker, "list")
            new = await change(invoker, "rotate", "00000001")
            with_old = await first_turn(link, 1, sealed_outside(old, encode_call(("old",), {})))
            with_new = await first_turn(link, 2, sealed_outside(new, encode_call(("new",), {})))
            again = await invoker.acquire(spec)

            assert key_of(with_old) == key_of(with_new) == "00000001"
            assert again.instance == handed.instance
            assert [key["state"] for key in new["keys"]] == ["decrypt_only", "current"]
            assert new["keys"][1]["public_key"] == app_keys(machine).public_key()[1]

    asyncio.run(main())


def test_a_rotation_is_known_to_instances_before_it_is_answered(
    machine: Machine, serve: Any
) -> None:
    async def main() -> None:
        async with serve(spec_of(machine)) as (invoker, _, link):
            for number in range(1, 20):
                state = await change(invoker, "rotate", f"{number:08x}")
                sealed = sealed_outside(state, encode_call((number,), {}))
                assert key_of(await first_turn(link, number, sealed)) == f"{number:08x}"

    asyncio.run(main())


def test_keys_that_somebody_else_has_made_are_asked_for(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        async with serve(spec_of(machine)) as (_, _, link):
            sealed = app_keys(machine).seal(Binding("demo", RUN, "input"), encode_call(("a",), {}))
            await first_turn(link, 1, sealed)
            await Keyring(machine.home / "keyring").rotate("demo", "0000000e")
            sealed = app_keys(machine).seal(Binding("demo", RUN, "input"), encode_call(("b",), {}))
            answer = await first_turn(link, 2, sealed)

            assert read_head(sealed)[1] == key_of(answer) == "0000000e"

    asyncio.run(main())


def test_a_key_that_nobody_has_blocks_the_run_and_comes_back_with_its_file(
    machine: Machine, serve: Any
) -> None:
    async def main() -> None:
        file = machine.home / "keyring" / "demo.key"
        invoker = await machine.connect()
        sealed = sealed_outside(
            await change(invoker, "rotate", "00000001"), encode_call(("x",), {})
        )
        await invoker.close()
        copy = file.read_bytes()
        file.unlink()
        machine.restart()  # a new one is made
        async with serve(spec_of(machine)) as (_, _, link):
            blocked = await first_turn(link, 1, sealed)
        file.write_bytes(copy)
        async with serve(spec_of(machine)) as (_, _, link):
            again = await first_turn(link, 1, sealed)

        assert blocked.outcome == "blocked"
        assert blocked.reason.startswith("key_missing: the keyring of app demo has no key")
        assert again.outcome == "ok"

    asyncio.run(main())


def test_destroying_a_key_ends_its_holders_and_leaves_it_nowhere(
    machine: Machine, serve: Any
) -> None:
    async def main() -> None:
        assert machine.process is not None
        spec = spec_of(machine)
        async with serve(spec) as (invoker, handed, link):
            await link.next(kind=FrameType.WELCOME)
            old = await change(invoker, "list")
            sealed = sealed_outside(old, encode_call(("x",), {}))
            key_of(await first_turn(link, 1, sealed))
            keys = app_keys(machine)
            root = root_of(machine)
            private = keys.private_key(keys.current).private_bytes_raw()
            secrets = [root, private, base64.b64encode(root), root.hex().encode()]
            await change(invoker, "rotate", "00000001")
            instance, invokers = await invoker.pid_of(handed.instance), machine.process.pid
            assert root in holds(instance, secrets)
            assert holds(invokers, secrets) == [root]

            state, ended = await invoker.keyring("demo", "destroy", old["current"])

            assert (state["keys"][0]["state"], ended) == ("destroyed", 1)
            assert not is_alive(instance)
            assert await invoker.death_of(handed.instance) == "keys_changed"
        async with serve(spec) as (invoker, handed, link):
            answer = await first_turn(link, 1, sealed)
            request = RevealRequest(
                run_id=RUN, app="demo", workflow="greet", events=[first_event(sealed).encode()]
            )
            kind, meta, body = request.to_frame_fields()
            link.send(FrameType.INVOKE, 2, kind, meta, body=body)
            (shown,) = unpack_revealed((await link.next(2)).body)
            _, zygotes = await invoker.survey()
            fresh = await invoker.pid_of(handed.instance)

            assert answer.outcome == "blocked"
            assert answer.reason.startswith("key_destroyed: ")
            assert isinstance(shown, Unreadable)
            assert shown.code == "key_destroyed"
            for pid in (invokers, fresh, *(zygote["pid"] for zygote in zygotes)):
                assert holds(pid, secrets) == []
            for path in (machine.home / "keyring").iterdir():
                assert not any(secret in path.read_bytes() for secret in secrets)

    asyncio.run(main())


def test_frozen_instances_are_new_ones_and_a_thaw_reaches_them(
    machine: Machine, serve: Any
) -> None:
    async def main() -> None:
        spec = spec_of(machine)
        async with serve(spec) as (invoker, before, link):
            await link.next(kind=FrameType.WELCOME)
            sealed = sealed_outside(await change(invoker, "list"), encode_call(("x",), {}))
            state, ended = await invoker.keyring("demo", "freeze")
            assert (state["frozen_ms"] is not None, ended) == (True, 1)
            await invoker.death_of(before.instance)
        async with serve(spec) as (invoker, handed, link):
            frozen = await first_turn(link, 1, sealed)
            await change(invoker, "thaw")
            thawed = await first_turn(link, 2, sealed)

            assert (frozen.outcome, frozen.reason[:12]) == ("blocked", "keys_frozen:")
            assert thawed.outcome == "ok"
            assert (await invoker.acquire(spec)).instance == handed.instance

    asyncio.run(main())


def test_code_of_a_frozen_app_cannot_start_runs(machine: Machine, serve: Any) -> None:
    starting = (
        GREETING
        + """
    import fluvial

    async def app(request):
        try:
            await fluvial.start(greet, "x")
        except fluvial.KeysFrozenError as error:
            return 409, {"code": error.code}
        return 200, {}
"""
    )

    async def main() -> None:
        invoker = await machine.connect()
        await change(invoker, "freeze")
        async with serve(machine.spec(starting)) as (_, _, link):
            reply = await link.get()
        await invoker.close()

        assert (reply.status, reply.body) == (409, b'{"code":"keys_frozen"}')

    asyncio.run(main())


def test_what_cannot_be_done_to_a_keyring_is_refused(machine: Machine) -> None:
    async def refusal(invoker: InvokerLink, operation: str, key_id: str = "") -> str:
        try:
            await change(invoker, operation, key_id)
        except RefusedByInvokerError as error:
            return str(error.args[0])
        return "done"

    async def main() -> None:
        invoker = await machine.connect()
        current = (await change(invoker, "list"))["current"]
        assert await refusal(invoker, "destroy", current) == "key_is_current"
        assert await refusal(invoker, "destroy", "00000009") == "key_not_found"
        assert await refusal(invoker, "rotate", "../../x") == "invalid_request"
        assert await refusal(invoker, "rewrap") == "kms_not_configured"
        assert await refusal(invoker, "melt") == "invalid_request"
        (machine.home / "keyring" / "demo.key").write_bytes(b"{")
        assert await refusal(invoker, "list") == "keyring_unusable"
        assert await refusal(invoker, "rotate", "00000001") == "keyring_unusable"
        await invoker.close()

    asyncio.run(main())


def test_a_kms_command_keeps_keys_wrapped_on_disk(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        script = machine.home / "kms.py"
        script.write_text(KMS)
        file = machine.home / "keyring" / "demo.key"
        machine.restart(FLUVIAL_KMS_COMMAND=shlex.join([sys.executable, str(script)]))
        spec = spec_of(machine)
        async with serve(spec) as (invoker, handed, link):
            state = await change(invoker, "rotate", "00000001")
            sealed = sealed_outside(state, encode_call(("x",), {}))
            scheduled = decode_event((await first_turn(link, 1, sealed)).events[0])
            environment = environment_of(await invoker.pid_of(handed.instance))
            assert all(key["is_wrapped"] for key in state["keys"])
            assert b"KMS" not in environment
        wrapped = file.read_bytes().partition(b"\n")[2]
        roots = [bytes(255 - byte for byte in part[-32:]) for part in (wrapped[:46], wrapped[46:])]
        keys = AppKeys("demo", {"00000001": roots[1]}, "00000001")

        assert wrapped.startswith(b"demo/")
        assert public_key_of(roots[1], "demo") == state["keys"][1]["public_key"]
        arguments = keys.for_run(RUN).open(scheduled.payload, "step_input", 1)
        assert arguments == encode_call(("x",), {})

        # It is unwrapped again by an invoker that starts, and not once it is in memory.
        machine.restart(FLUVIAL_KMS_COMMAND=shlex.join([sys.executable, str(script)]))
        async with serve(spec) as (invoker, _, link):
            assert key_of(await first_turn(link, 1, sealed)) == "00000001"
            (machine.home / "kms.py.broken").touch()
            other = machine.spec(GREETING, entrypoint=None, workflows=("main",), app="other")
            async with serve(spec_of(machine)) as (_, _, more):
                assert key_of(await first_turn(more, 1, sealed)) == "00000001"
            with pytest.raises(RefusedByInvokerError) as refused:
                await invoker.acquire(other)
        code, message = refused.value.args
        assert code == "kms_failed"
        assert "exit status 3" in message
        assert "the key service is away" in machine.invoker_log
        for root in roots:
            for form in (root.hex(), base64.b64encode(root).decode(), repr(root)[2:-1]):
                assert form not in machine.invoker_log
                assert form not in message

    asyncio.run(main())


@pytest.mark.parametrize("compression", [True, False])
def test_an_app_chooses_whether_its_values_are_compressed(
    machine: Machine, serve: Any, compression: bool
) -> None:
    async def main() -> None:
        spec = machine.spec(GREETING, entrypoint=None, workflows=("main",), compression=compression)
        name = "again and again " * 1000
        async with serve(spec) as (invoker, _, link):
            state = await change(invoker, "list")
            answer = await first_turn(link, 1, sealed_outside(state, encode_call((name,), {})))
            size = len(decode_event(answer.events[0]).payload)

        assert (size < 1000) is compression

    asyncio.run(main())


def test_a_reveal_shows_what_it_did_before_a_rotation(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        async with serve(spec_of(machine)) as (invoker, _, link):
            sealed = sealed_outside(await change(invoker, "list"), b'j["x"]')
            await change(invoker, "rotate", "00000001")
            result = app_keys(machine).seal(Binding("demo", RUN, "result"), encode(1))
            events = [first_event(sealed), Event(EventType.RUN_COMPLETED, 2, 0, result)]
            request = RevealRequest(
                run_id=RUN, app="demo", workflow="greet", events=[e.encode() for e in events]
            )
            kind, meta, body = request.to_frame_fields()
            link.send(FrameType.INVOKE, 1, kind, meta, body=body)

            assert msgpack.unpackb((await link.next(1)).body) == ['["x"]', "1"]

    asyncio.run(main())
