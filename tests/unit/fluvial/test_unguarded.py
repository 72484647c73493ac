"""Fluvial's own randomness is the real one, also while a workflow's loop runs."""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fluvial
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import TurnRequest
from fluvial.registry import registry
from fluvial.sealing import Binding, read_head
from fluvial.signatures import encode_call
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import Workflow, workflow

RUN = "run_0000000000000000000000000a"
NONCE_BYTES = 12
# They put the guards up, or ask on behalf of the user's code.
MAY_ASK_PYTHON = {"answers.py", "datetimes.py", "determinism.py", "refusals.py", "unguarded.py"}
GUARDED = {
    "os": {"urandom", "getrandom"},
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"},
    "uuid": {"uuid1", "uuid4"},
    "random": {"random", "randint", "uniform", "choice", "randbytes", "SystemRandom"},
    "secrets": {"token_bytes", "token_hex", "token_urlsafe", "choice", "randbelow"},
}


def nonce_of(event: bytes) -> bytes:
    payload = decode_event(event).payload
    _, _, start = read_head(payload)
    return payload[start : start + NONCE_BYTES]


def replayed(keys: AppKeys, flow: Workflow[..., Any]) -> tuple[bytes, ...]:
    """Return the nonces of what a replay from the run's start seals, and its turn id."""
    payload = keys.seal(Binding("orders", RUN, "input"), encode_call((), {}))
    started = Event(EventType.RUN_STARTED, 1000, 0, payload).encode()
    answer = LiveRuns(registry, keys).turn(
        TurnRequest(
            run_id=RUN, app="orders", workflow=flow.name, turn_id=None, consumed=0, now_ms=1000,
            events=[started],
        )
    )  # fmt: skip
    assert answer.outcome == "ok", answer.reason
    assert answer.turn_id is not None
    return (*map(nonce_of, answer.events), answer.turn_id)


@step(name="unguarded.send")
async def send(number: int) -> int:
    return number


@pytest.fixture(params=["asks for entropy", "does not"])
def flow(request: pytest.FixtureRequest, clean_registry: None) -> Workflow[[], list[int]]:
    registry.add_step(send)
    asks = request.param == "asks for entropy"

    @workflow(name="unguarded.flow")
    async def flow() -> list[int]:
        drawn = [os.urandom(NONCE_BYTES) for _ in range(8)] if asks else []
        return [*await asyncio.gather(send(1), send(2)), len(drawn)]

    return flow


def test_no_two_replays_of_a_run_share_a_nonce(
    keys: AppKeys, flow: Workflow[[], list[int]]
) -> None:
    nonces = [nonce for _ in range(20) for nonce in replayed(keys, flow)]

    assert len(set(nonces)) == len(nonces) >= 60


def test_what_a_workflow_draws_is_never_a_nonce(keys: AppKeys, clean_registry: None) -> None:
    drawn: list[bytes] = []
    registry.add_step(send)

    @workflow(name="drawing")
    async def drawing() -> None:
        for _ in range(4):
            drawn.append(os.urandom(NONCE_BYTES))
            await send(1)

    nonces = replayed(keys, drawing)
    again = replayed(keys, drawing)

    assert drawn[0] == drawn[1]  # the run's own: the same in each replay
    assert not {*nonces, *again} & set(drawn)


def own_questions(path: Path) -> Iterator[str]:
    """Yield where a module asks Python for time or chance."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in GUARDED.get(node.value.id, ()):
                yield f"{path.name}:{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in GUARDED.get(node.module or "", ()):
                    yield f"{path.name}:{node.lineno}: {node.module}.{alias.name}"


def test_no_other_module_asks_python_for_time_or_chance() -> None:
    folder = Path(fluvial.__file__).parent
    modules = [path for path in folder.rglob("*.py") if path.name not in MAY_ASK_PYTHON]

    assert [line for path in modules for line in own_questions(path)] == []
    assert list(own_questions(folder / "unguarded.py"))  # it would be seen
