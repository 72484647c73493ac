from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from fluvial.errors import AccessDeniedError, InvalidRequestError
from fluvial_gateway.auth import Principal, Scope, Tokens, read_admin_token
from fluvial_gateway.problems import ProblemError
from fluvial_queue.memory import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def test_created_token_is_recognised() -> None:
    async def main() -> None:
        tokens = Tokens(MemoryStore())
        token = await tokens.create("ci", [Scope.DEPLOY])
        principal = await tokens.authenticate(_bearer(token))

        assert principal.name == "ci"
        assert principal.scopes == {Scope.DEPLOY}

    asyncio.run(main())


def test_tokens_are_long_and_stored_as_their_digest() -> None:
    async def main() -> None:
        store = MemoryStore()
        token = await Tokens(store).create("ci", [Scope.DEPLOY])
        (record,) = await store.list_records("token")

        assert len(token.removeprefix("flv_")) >= 43  # 256 bits in base 64
        assert record.id == hashlib.sha256(token.encode()).hexdigest()

    asyncio.run(main())


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic x", f"Bearer {'x' * 21}", f"Bearer {'x' * 257}",
     f"Bearer {'x' * 30} y", f"Bearer {'ü' * 30}", f"Bearer {'x' * 30}"],
)  # fmt: skip
def test_everything_else_is_unauthenticated(authorization: str | None) -> None:
    with pytest.raises(ProblemError) as refusal:
        asyncio.run(Tokens(MemoryStore()).authenticate(authorization))
    assert refusal.value.problem_code == "unauthenticated"


def test_deleted_token_is_forgotten_soon() -> None:
    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        tokens = Tokens(store, clock=clock)
        token = await tokens.create("ci", [Scope.DEPLOY])
        await tokens.authenticate(_bearer(token))
        await store.delete_record("token", hashlib.sha256(token.encode()).hexdigest())
        clock.now += 10.1

        with pytest.raises(ProblemError):
            await tokens.authenticate(_bearer(token))

    asyncio.run(main())


def test_new_token_is_recognised_though_it_was_unknown_before() -> None:
    async def main() -> None:
        tokens, token = Tokens(MemoryStore()), "t" * 40
        with pytest.raises(ProblemError):
            await tokens.authenticate(_bearer(token))
        await tokens.adopt_admin(token)

        assert (await tokens.authenticate(_bearer(token))).may(Scope.DATA_READ)

    asyncio.run(main())


def test_admin_is_adopted_once() -> None:
    async def main() -> None:
        tokens = Tokens(MemoryStore())

        assert await tokens.adopt_admin("t" * 40) is True
        assert await tokens.adopt_admin("t" * 40) is False

    asyncio.run(main())


def test_scope_of_another_version_is_ignored() -> None:
    async def main() -> None:
        store, token = MemoryStore(), "t" * 40
        digest = hashlib.sha256(token.encode()).hexdigest()
        value = {"name": "n", "scopes": ["runs:read", "future"], "created_ms": 0}
        await store.put_record("token", digest, value)

        principal = await Tokens(store).authenticate(_bearer(token))
        assert principal.scopes == {Scope.RUNS_READ}

    asyncio.run(main())


def test_principal_without_the_scope_is_denied() -> None:
    principal = Principal("id", "ci", frozenset({Scope.DEPLOY}))

    principal.require(Scope.RUNS_READ, Scope.DEPLOY)
    with pytest.raises(AccessDeniedError, match="needs the scope runs:write"):
        principal.require(Scope.RUNS_WRITE)


def test_admin_token_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    assert read_admin_token(file) is None
    file.write_text("t" * 40 + "\n")
    file.chmod(0o644)

    assert read_admin_token(file) == "t" * 40
    assert "readable by others" in caplog.text


@pytest.mark.parametrize("content", [b"", b"short", b"two words " * 5, b"\xff" * 40])
def test_admin_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)

    with pytest.raises(InvalidRequestError, match="holds no token"):
        read_admin_token(file)
