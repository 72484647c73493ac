"""Why instances died: the invoker says it, a little before or after their link ends."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

_KEPT: Final = 256  # notices that nobody has asked for yet; asked for within seconds, or never


class DeathNotices:
    """Brings together a death's notice and whoever wants to know, in either order."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, list[asyncio.Future[str]]] = {}

    def tell(self, instance: str, reason: str) -> None:
        """Note that `instance` died."""
        self._reasons[instance] = reason
        if len(self._reasons) > _KEPT:
            self._reasons.popitem(last=False)
        for asked in self._asked.pop(instance, ()):
            if not asked.done():
                asked.set_result(reason)

    def known(self, instance: str) -> str | None:
        """Return the reason if it has been told."""
        return self._reasons.get(instance)

    async def reason(self, instance: str, seconds: float) -> str | None:
        """Return the reason, waiting for it at most so long; None if it does not come."""
        if instance in self._reasons:
            return self._reasons[instance]
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(instance, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        finally:
            asked = self._asked.get(instance, [])
            if future in asked:
                asked.remove(future)
            if not asked:
                self._asked.pop(instance, None)
