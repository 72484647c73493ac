"""What an instance finds in its environment: of the platform, the manifest and the app."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fluvial.manifest import DeploymentSpec
from fluvial.sealing import seal, variable_binding
from tests.integration.invoker.conftest import InvokerLink, Machine
from tests.integration.invoker.test_isolation import spawned
from tests.integration.invoker.test_keys import environment_of
from tests.process_memory import holds

CANARY = "s3cret-canary-0451"
MAIN = """
    import json, os, time

    at_import = dict(os.environ)

    async def app(request):
        seen = {"environment": at_import, "now": dict(os.environ) == at_import}
        return 200, {**seen, "zone": time.tzname[0]}
"""


async def sealed(invoker: InvokerLink, **variables: str) -> dict[str, bytes]:
    """Seal variables as the gateway does, which has the public key alone."""
    state, _ = await invoker.keyring("demo", "list")
    key = next(key for key in state["keys"] if key["key"] == state["current"])
    return {
        name: seal(key["public_key"], key["key"], value.encode(), variable_binding("demo", name))
        for name, value in variables.items()
    }


async def with_variables(
    machine: Machine, spec: DeploymentSpec, **variables: str
) -> DeploymentSpec:
    invoker = await machine.connect()
    own = await sealed(invoker, **variables)
    await invoker.close()
    return replace(spec, sealed_environment=own)


async def end(invoker: InvokerLink, spec: DeploymentSpec) -> str:
    """Have an instance started that cannot load; return the reason."""
    handed = await invoker.acquire(spec)
    return await invoker.death_of(handed.instance)


@pytest.mark.parametrize("tier", ["zygote", "spawn"])
def test_variables_are_there_when_the_app_is_imported(
    machine: Machine, serve: Any, tier: str
) -> None:
    plain = {"COLOUR": "green", "LANGUAGE": "en", "FLUVIAL_APP_URL": "http://demo"}
    if tier == "zygote":
        spec = machine.spec(MAIN, environment=plain)
    else:
        spec = spawned(machine, MAIN, environment=plain)

    async def main() -> None:
        own = {"COLOUR": "red", "TOKEN": CANARY, "TZ": "Asia/Tokyo", "EMPTY": ""}
        deployed = await with_variables(machine, spec, **own)
        async with serve(deployed) as (_, handed, link):
            seen = json.loads((await link.get()).body)

        assert handed.tier == tier
        assert seen["environment"].items() >= {**own, "LANGUAGE": "en"}.items()
        assert {k: v for k, v in seen["environment"].items() if k.startswith("FLUVIAL")} == {
            "FLUVIAL": "1",
            "FLUVIAL_APP": "demo",
            "FLUVIAL_DEPLOYMENT": deployed.deployment,
            "FLUVIAL_APP_URL": "http://demo",
        }
        assert seen["now"]
        assert seen["zone"] == "JST"

    asyncio.run(main())


def test_no_other_process_knows_a_variable(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        spec = await with_variables(machine, machine.spec(MAIN), TOKEN=CANARY)
        async with serve(spec) as (invoker, handed, link):
            assert CANARY.encode() in (await link.get()).body
            pid = await invoker.pid_of(handed.instance)
            zygotes = [zygote["pid"] for zygote in (await invoker.survey())[1]]
            assert machine.process is not None
            for other in (machine.process.pid, *zygotes):
                assert holds(other, [CANARY.encode()]) == []
            # What the kernel shows of a process is how it began.
            assert CANARY.encode() not in environment_of(pid)
        assert CANARY not in machine.invoker_log + machine.app_log()

    asyncio.run(main())


def test_an_older_key_opens_and_a_destroyed_one_is_named(machine: Machine, serve: Any) -> None:
    async def main() -> None:
        spec = await with_variables(machine, machine.spec(MAIN), TOKEN=CANARY)
        invoker = await machine.connect()
        state, _ = await invoker.keyring("demo", "rotate", "00000001")
        async with serve(spec) as (_, _, link):
            assert CANARY.encode() in (await link.get()).body
        first = str(state["keys"][0]["key"])
        await invoker.keyring("demo", "destroy", first)
        reason = await end(invoker, replace(spec, deployment=f"dpl_{'x' * 24}"))
        await invoker.close()

        assert reason.startswith("import_failed: the environment of app demo cannot be opened")
        assert f"TOKEN: the key {first!r} of app demo was destroyed" in reason
        assert "fluvial redeploy demo" in reason
        assert reason.removeprefix("import_failed: ") in machine.app_log()

    asyncio.run(main())


def test_a_value_that_was_moved_to_another_name_does_not_open(machine: Machine) -> None:
    async def main() -> None:
        spec = await with_variables(machine, machine.spec(MAIN), TOKEN=CANARY, COLOUR="red")
        swapped = {"COLOUR": spec.sealed_environment["TOKEN"]}
        invoker = await machine.connect()
        reason = await end(invoker, replace(spec, sealed_environment=swapped))
        await invoker.close()

        assert "COLOUR: a sealed variable was altered or belongs elsewhere" in reason

    asyncio.run(main())
