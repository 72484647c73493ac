"""Which runs use a key, told from the heads of their inputs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from fluvial.sealing import TO_PUBLIC_KEY, envelope_head
from fluvial_gateway.key_users import MAX_EXAMINED, KeyUser, KeyUsers, users_of
from fluvial_gateway.keyrings import Key, KeyringState
from fluvial_queue.contract import RunPage, RunQuery, RunRecord, RunStatus


def key(key_id: str) -> Key:
    return Key(
        id=key_id,
        state="decrypt_only",
        created_ms=1,
        public_key=b"",
        is_wrapped=False,
        destroyed_ms=None,
    )


KEYRING = KeyringState(
    app="shop", current=key("k3"), keys=(key("k1"), key("k2"), key("k3")), frozen_ms=None
)


@dataclass(frozen=True)
class Runs:
    """A store with so many runs of a kind, whose inputs are under given keys in turn."""

    live: int = 0
    finished: int = 0
    keys: tuple[str, ...] = ("k1", "k2", "k3", "lost")

    async def query_runs(self, query: RunQuery) -> RunPage:
        is_live = RunStatus.PENDING in (query.statuses or ())
        count = self.live if is_live else self.finished
        start = int(query.cursor or 0)
        end = min(count, start + query.limit)
        records = tuple(self._record(number, is_live=is_live) for number in range(start, end))
        return RunPage(records, None if end == count else str(end))

    async def read_events(self, run_id: str, *, start: int = 0, limit: int = 1000) -> list[bytes]:
        raise AssertionError("these runs have not begun")

    def _record(self, number: int, *, is_live: bool) -> RunRecord:
        key_id = self.keys[number % len(self.keys)]
        return RunRecord(
            run_id=f"run_{number}",
            app="shop",
            workflow="w",
            deployment="dpl_1",
            status=RunStatus.PENDING if is_live else RunStatus.COMPLETED,
            created_ms=1,
            finished_ms=None,
            key="",
            fingerprint=b"",
            input=envelope_head(TO_PUBLIC_KEY, key_id) + b"sealed",
            turn=b"",
            events=0,
            meta={},
        )


def users(runs: Runs, key_id: str) -> KeyUsers:
    return asyncio.run(users_of(runs, KEYRING, key_id))


def test_the_key_of_the_input_tells_whether_a_run_needs_a_key() -> None:
    found = users(Runs(live=4, finished=4), "k2")

    assert found.live == (
        KeyUser("run_0", is_certain=False),  # under an older key: it lived while k2 sealed
        KeyUser("run_1", is_certain=True),
        KeyUser("run_3", is_certain=False),  # under a key that nobody knows
    )
    assert found.finished == 3


@pytest.mark.parametrize(
    ("runs", "has_all_live", "has_all_finished"),
    [
        (Runs(live=MAX_EXAMINED - 1, finished=MAX_EXAMINED - 1, keys=("k3",)), True, True),
        (Runs(live=MAX_EXAMINED + 1, keys=("k3",)), False, True),
        (Runs(finished=MAX_EXAMINED + 1, keys=("k3",)), True, False),
    ],
)
def test_it_is_said_where_there_are_too_many_runs_to_look_at(
    runs: Runs, has_all_live: bool, has_all_finished: bool
) -> None:
    found = users(runs, "k1")

    assert (found.live, found.finished) == ((), 0)
    assert (found.has_all_live, found.has_all_finished) == (has_all_live, has_all_finished)
