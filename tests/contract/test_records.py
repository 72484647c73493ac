"""Records: versioned documents with compare-and-set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fluvial_queue import Store
from fluvial_queue.contract import Record

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


def test_record_counts_its_writes(backend: Backend) -> None:
    async def main(store: Store) -> None:
        value: dict[str, Any] = {"app": "shop", "key": b"\x00\xff", "n": None, "list": [1, "a"]}
        assert await store.put_record("app", "shop", {"first": True}) == 1
        assert await store.put_record("app", "shop", value) == 2

        assert await store.get_record("app", "shop") == Record("shop", 2, value)
        assert await (await backend.view()).get_record("app", "shop") is not None

    backend.run(main)


def test_write_with_another_expected_version_is_refused(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert await store.put_record("app", "a", {"v": 1}, expect=1) is None
        assert await store.put_record("app", "a", {"v": 1}, expect=0) == 1
        assert await store.put_record("app", "a", {"v": 2}, expect=0) is None
        assert await store.put_record("app", "a", {"v": 2}, expect=1) == 2

        assert await store.get_record("app", "a") == Record("a", 2, {"v": 2})

    backend.run(main)


def test_racing_writers_with_one_expectation_have_one_winner(backend: Backend) -> None:
    async def main(store: Store) -> None:
        await store.put_record("setting", "default_app", {})
        other = await backend.view()
        answers = await asyncio.gather(
            *[
                view.put_record("setting", "default_app", {"i": i}, expect=1)
                for i, view in enumerate((store, other) * 5)
            ]
        )

        assert sorted(answers, key=str) == [2, *[None] * 9]

    backend.run(main)


def test_kinds_are_listed_apart_by_id(backend: Backend) -> None:
    async def main(store: Store) -> None:
        for name in ("b", "a", "c"):
            await store.put_record("app", name, {"app": name})
        await store.put_record("host", "a", {"app": "b"})

        assert [record.id for record in await store.list_records("app")] == ["a", "b", "c"]
        assert await store.list_records("host") == [Record("a", 1, {"app": "b"})]
        assert await store.list_records("token") == []

    backend.run(main)


def test_deleted_record_is_gone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        await store.put_record("token", "t", {})

        assert await store.delete_record("token", "t")
        assert not await store.delete_record("token", "t")
        assert await store.get_record("token", "t") is None
        assert await store.put_record("token", "t", {}, expect=0) == 1

    backend.run(main)


def test_stored_value_does_not_change_with_the_callers(backend: Backend) -> None:
    async def main(store: Store) -> None:
        value: dict[str, Any] = {"list": [1]}
        await store.put_record("app", "a", value)
        value["list"].append(2)
        read = await store.get_record("app", "a")
        assert read is not None
        read.value["list"].append(3)

        assert await store.get_record("app", "a") == Record("a", 1, {"list": [1]})

    backend.run(main)
