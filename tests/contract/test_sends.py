"""Sending messages to runs, hooks, and claims of their tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluvial.ids import new_run_id
from fluvial_queue import Store
from fluvial_queue.contract import RunStatus, SendOutcome
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.hook_sends import Payload, send_payload

if TYPE_CHECKING:
    from tests.contract.conftest import Backend, OwnedRun

ACCEPTED, DUPLICATE = SendOutcome.ACCEPTED, SendOutcome.DUPLICATE
UNKNOWN, CLOSED = SendOutcome.UNKNOWN, SendOutcome.CLOSED


async def hooked_run(backend: Backend, store: Store, token: str, **changes: object) -> OwnedRun:
    """A run with an open hook and one outstanding message."""
    run = await backend.owned_run(store, **changes)
    await run.commit(events=(b"e",), messages=(b"m",), open_hooks=((token, OpenHook(1, 0)),))
    return run


def test_sent_message_is_outstanding(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        assert await store.send(run.run_id, b"cancel") is ACCEPTED

        sent = (await run.messages())[-1]
        assert (sent.epoch, sent.body) == (0, b"cancel")
        await run.commit(handled=(run.handle, sent.id))
        assert await run.messages() == []

    backend.run(main)


def test_unknown_run_is_answered(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run_id = new_run_id(backend.partitions)

        assert await store.send(run_id, b"m") is UNKNOWN
        assert await store.send(run_id, b"m", token="t") is UNKNOWN
        assert await store.depth(range(backend.partitions)) == (0, 0)

    backend.run(main)


def test_payload_is_accepted_only_while_its_hook_is_open(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        assert await store.send(run.run_id, b"early", token="t") is UNKNOWN
        await run.commit(messages=(b"m",), open_hooks=(("t", OpenHook(1, 0)),))
        assert await store.send(run.run_id, b"p", token="t") is ACCEPTED
        assert await store.send(run.run_id, b"p", token="other") is UNKNOWN
        await run.commit(messages=(b"m",), close_hooks=("t",))

        assert await store.send(run.run_id, b"late", token="t") is CLOSED
        assert [m.body for m in await run.messages()] == [b"p", b"m"]
        assert await store.open_hooks(run.run_id) == {}

    backend.run(main)


def test_a_payload_for_one_opening_is_not_for_the_next(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await hooked_run(backend, store, "t")
        first, second = OpenHook(1, 0), OpenHook(2, 5)
        assert await store.send(run.run_id, b"p", token="t", hook=first) is ACCEPTED
        assert await store.send(run.run_id, b"p", token="t", hook=second) is CLOSED
        await run.commit(messages=(b"m",), close_hooks=("t",), open_hooks=(("t", second),))

        assert await store.send(run.run_id, b"p", token="t", hook=first) is CLOSED
        assert await store.send(run.run_id, b"p", token="t", hook=second) is ACCEPTED
        assert await store.send(run.run_id, b"p", token="u", hook=second) is UNKNOWN

    backend.run(main)


def test_resume_id_is_accepted_once_per_token(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await hooked_run(backend, store, "t")
        await run.commit(messages=(b"m",), open_hooks=(("u", OpenHook(2, 0)),))
        send = store.send
        assert await send(run.run_id, b"p", token="t", resume_id="r") is ACCEPTED
        assert await send(run.run_id, b"p", token="t", resume_id="r") is DUPLICATE
        assert await send(run.run_id, b"p", token="t", resume_id="s") is ACCEPTED
        assert await send(run.run_id, b"p", token="u", resume_id="r") is ACCEPTED
        assert await send(run.run_id, b"p", token="t") is ACCEPTED
        assert await send(run.run_id, b"p", token="t") is ACCEPTED

        await run.commit(close_hooks=("t",), messages=(b"m",))
        assert await store.has_resumed(run.run_id, "t", "r")
        assert not await store.has_resumed(run.run_id, "t", "new")
        assert not await store.has_resumed(run.run_id, "u", "s")
        assert await send(run.run_id, b"p", token="t", resume_id="r") is DUPLICATE
        assert await send(run.run_id, b"p", token="t", resume_id="new") is CLOSED

    backend.run(main)


def test_racing_resumes_of_one_id_are_accepted_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await hooked_run(backend, store, "t")
        other = await backend.view()
        outcomes = await asyncio.gather(
            *[view.send(run.run_id, b"p", token="t", resume_id="r") for view in (store, other) * 10]
        )

        assert outcomes.count(ACCEPTED) == 1
        assert len(await run.messages()) == 2

    backend.run(main)


def test_entry_that_closes_and_opens_a_token_leaves_it_open(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await hooked_run(backend, store, "t")
        await run.commit(messages=(b"m",), close_hooks=("t",), open_hooks=(("t", OpenHook(9, 0)),))

        assert await store.open_hooks(run.run_id) == {"t": OpenHook(9, 0)}
        assert await store.send(run.run_id, b"p", token="t") is ACCEPTED

    backend.run(main)


def test_a_payload_for_one_hook_is_not_taken_by_the_next_of_its_token(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await hooked_run(backend, store, "t")

        async def send(resume_id: str, hook_id: int) -> SendOutcome:
            payload = Payload(
                run_id=run.run_id, token="t", resume_id=resume_id, sealed=b"p", hook_id=hook_id
            )
            return await send_payload(store, payload)

        assert await send("a", 1) is ACCEPTED
        await run.commit(messages=(b"m",), close_hooks=("t",), open_hooks=(("t", OpenHook(9, 0)),))
        assert await send("a", 1) is DUPLICATE
        assert await send("b", 1) is CLOSED
        assert await send("b", 9) is ACCEPTED

    backend.run(main)


def test_a_hook_is_found_by_its_token_with_its_place_in_the_log(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(messages=(b"m",), open_hooks=(("t", OpenHook(3, 12)),))

        assert await store.find_hook(run.run_id, "t") == OpenHook(3, 12)
        assert await store.find_hook(run.run_id, "other") is None
        await run.commit(messages=(b"m",), close_hooks=("t",))
        assert await store.find_hook(run.run_id, "t") == "closed"
        await run.commit(status=RunStatus.COMPLETED, events=(b"e",))
        assert await store.find_hook(run.run_id, "t") is None
        assert await store.find_hook(new_run_id(backend.partitions), "t") is None

    backend.run(main)


def test_closing_a_hook_that_never_was_changes_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(close_hooks=("never",))

        assert await store.send(run.run_id, b"p", token="never") is UNKNOWN

    backend.run(main)


# ---- claims ----


def test_token_is_claimed_by_the_first_and_kept(backend: Backend) -> None:
    async def main(store: Store) -> None:
        one = await backend.owned_run(store, run_id="run_00" + "a" * 24)
        two = await backend.owned_run(store, run_id="run_01" + "b" * 24)
        assert await store.token_holder("shop", "order:1") is None
        assert await store.claim_token("shop", "order:1", one.run_id) == one.run_id

        assert await store.claim_token("shop", "order:1", two.run_id) == one.run_id
        assert await store.claim_token("shop", "order:1", one.run_id) == one.run_id
        assert await store.token_holder("shop", "order:1") == one.run_id
        assert await store.claim_token("other app", "order:1", two.run_id) == two.run_id

    backend.run(main)


def test_claim_is_void_once_its_run_has_ended(backend: Backend) -> None:
    async def main(store: Store) -> None:
        one = await backend.owned_run(store, run_id="run_00" + "a" * 24)
        two = await backend.owned_run(store, run_id="run_01" + "b" * 24)
        await store.claim_token("shop", "t", one.run_id)
        await one.commit(status=RunStatus.COMPLETED)

        assert await store.claim_token("shop", "t", two.run_id) == two.run_id
        assert await store.token_holder("shop", "t") == two.run_id

    backend.run(main)


def test_claim_is_void_once_its_hook_is_closed_but_not_before_it_is_open(
    backend: Backend,
) -> None:
    async def main(store: Store) -> None:
        one = await backend.owned_run(store, run_id="run_00" + "a" * 24)
        two = await backend.owned_run(store, run_id="run_01" + "b" * 24)
        claim = store.claim_token
        await claim("shop", "t", one.run_id)
        assert await claim("shop", "t", two.run_id) == one.run_id
        await one.commit(messages=(b"m",), open_hooks=(("t", OpenHook(1, 0)),))
        assert await claim("shop", "t", two.run_id) == one.run_id
        await one.commit(messages=(b"m",), close_hooks=("t",))

        assert await claim("shop", "t", two.run_id) == two.run_id
        assert await claim("shop", "t", one.run_id) == two.run_id

    backend.run(main)


def test_run_that_claims_its_closed_token_again_keeps_it(backend: Backend) -> None:
    async def main(store: Store) -> None:
        one = await hooked_run(backend, store, "t", run_id="run_00" + "a" * 24)
        two = await backend.owned_run(store, run_id="run_01" + "b" * 24)
        await store.claim_token("shop", "t", one.run_id)
        await one.commit(messages=(b"m",), close_hooks=("t",))
        assert await store.claim_token("shop", "t", one.run_id) == one.run_id

        assert await store.claim_token("shop", "t", two.run_id) == one.run_id

    backend.run(main)


def test_claim_of_a_run_that_never_was_is_void(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        missing = new_run_id(backend.partitions)
        await store.claim_token("shop", "t", missing)

        assert await store.claim_token("shop", "t", run.run_id) == run.run_id

    backend.run(main)


def test_racing_claims_of_a_void_token_have_one_winner(backend: Backend) -> None:
    async def main(store: Store) -> None:
        gone = await backend.owned_run(store)
        await store.claim_token("shop", "t", gone.run_id)
        await gone.commit(status=RunStatus.FAILED)
        rivals = [await backend.owned_run(store) for _ in range(6)]
        views = [await backend.view() for _ in rivals]
        winners = await asyncio.gather(
            *[
                view.claim_token("shop", "t", rival.run_id)
                for view, rival in zip(views, rivals, strict=True)
            ]
        )

        assert len(set(winners)) == 1
        assert await store.token_holder("shop", "t") == winners[0]

    backend.run(main)
