"""The janitor: deletes deployments that are kept no longer, and finishes what others have begun.

One gateway is the janitor: the one that owns partition 0, as with crons. That there is only one is
thrift: every step of a removal may be done twice. A round is bounded, and sleeps until the next; it
is woken when somebody has deleted something.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.alarm import Alarm
from fluvial_gateway.keeping import KeepingRule, superfluous
from fluvial_gateway.removals import Removals
from fluvial_queue.records import AppRecord

_LOG = logging.getLogger(__name__)

MAX_REMOVALS: Final = 50  # of old deployments in one round
ROUND_SECONDS: Final = 3600.0  # between two looks at what is kept
RETIRING_SECONDS: Final = 300.0  # while a deployment waits for its last runs: each looks at all
CLEANING_SECONDS: Final = 15.0  # while instances end; their grace is shorter


class Janitor:
    """Works in rounds while `is_owner` says that it is this gateway's turn."""

    def __init__(
        self,
        catalogue: Catalogue,
        removals: Removals,
        *,
        rule: KeepingRule,
        is_owner: Callable[[], bool],
        alarm: Alarm,
    ) -> None:
        self._catalogue = catalogue
        self._removals = removals
        self._rule = rule
        self._is_owner = is_owner
        self._alarm = alarm
        self._is_closed = False

    def wake(self) -> None:
        """Something is to be done."""
        self._alarm.wake()

    def close(self) -> None:
        """Begin no other round. What was begun is completed by whoever comes next."""
        self._is_closed = True
        self._alarm.wake()

    async def run(self) -> None:
        """Work until closed."""
        while not self._is_closed:
            seconds = ROUND_SECONDS
            if self._is_owner():
                try:
                    seconds = await self.round()
                except FluvialError as error:
                    _LOG.warning("deployments not tidied up", extra={"error": str(error)})
                    seconds = RETIRING_SECONDS
                except Exception:  # noqa: BLE001 - the boundary of a round: the gateway goes on
                    _LOG.exception("deployments not tidied up")
            await self._alarm.wait(seconds)

    async def round(self) -> float:
        """Do what is to be done now; return the seconds until something is again.

        Raises:
            FluvialError: the store did not answer; the next round goes on.
        """
        apps = await self._catalogue.apps()
        retiring = await self._removals.go_on(apps)
        await self._thin_out(apps)
        if await self._removals.clean():
            return CLEANING_SECONDS
        return RETIRING_SECONDS if retiring else ROUND_SECONDS

    async def _thin_out(self, apps: Sequence[AppRecord]) -> None:
        now_ms = await self._catalogue.now_ms()
        by_app = await self._catalogue.deployments_by_app()
        found = [
            deployment
            for app in apps
            for deployment in superfluous(app, by_app.get(app.app, ()), self._rule, now_ms)
        ]
        if found:
            removed = await self._removals.remove_unused(found, at_most=MAX_REMOVALS)
            _LOG.info("old deployments deleted", extra={"count": removed, "of": len(found)})
