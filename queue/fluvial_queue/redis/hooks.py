"""Open hooks in Redis: a run's hash of tokens, and what stands at each."""

from __future__ import annotations

from fluvial_queue.hook_contract import CLOSED, FoundHook, OpenHook
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.link import Link


class Hooks:
    """Reads the hooks of runs; commits write them."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def all_of(self, run_id: str) -> dict[str, OpenHook]:
        """Return a run's open hooks by their tokens."""
        reply = await self._link.call(("HGETALL", self._keys.hooks(run_id)), writes=False)
        hooks = zip(reply[::2], reply[1::2], strict=True)
        return {token.decode(): _read(hook) for token, hook in hooks if hook}

    async def find(self, run_id: str, token: str) -> FoundHook:
        """Return how a run's hook stands."""
        hook = await self._link.call(("HGET", self._keys.hooks(run_id), token), writes=False)
        if hook is None:
            return None
        return _read(hook) if hook else CLOSED

    async def has_resumed(self, run_id: str, token: str, resume_id: str) -> bool:
        """Return whether a payload with this id was accepted."""
        command = ("SISMEMBER", self._keys.resumes(run_id), f"{token}\0{resume_id}")
        return bool(await self._link.call(command, writes=False))


def written(hook: OpenHook) -> str:
    """Return what stands at an open hook's token."""
    return f"{hook.id} {hook.position}"


def _read(value: bytes) -> OpenHook:
    number, _, position = value.partition(b" ")
    return OpenHook(int(number), int(position))
