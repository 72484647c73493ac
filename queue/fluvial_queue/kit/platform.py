"""The platform in the kit: what `fluvial.start` and the like ask for, from tests and from steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import Store
from fluvial_queue.kit.flights import current_flight
from fluvial_queue.kit.hook_operations import HookOperations
from fluvial_queue.kit.operations import Drive, Operation
from fluvial_queue.kit.run_operations import RunOperations
from fluvial_queue.kit.stream_operations import StreamOperations

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.registry import Registry


class KitPlatform:
    """`fluvial.ports.Platform` over a store, for the one app of a test."""

    def __init__(self, keys: AppKeys, registry: Registry, store: Store, drive: Drive) -> None:
        self.keys = keys
        self.app = keys.app
        self.partitions = store.partitions
        self._drive = drive
        self._started = 0
        runs = RunOperations(self.app, registry, store, drive)
        self._operations: dict[str, Operation] = {
            **runs.operations(),
            **HookOperations(self.app, store, drive).operations(),
            **StreamOperations(store, drive).operations(),
        }

    def new_run_id(self) -> str:
        """Return the id of the next run: the same in every playing of a test."""
        self._started += 1
        partition = self._started % self.partitions
        return f"run_{partition:02}{self._started:024}"

    def now_seconds(self) -> float:
        """The virtual time, as Unix seconds."""
        return self._drive.now_ms / 1000

    def open_pulse(self) -> Callable[[bytes], None]:
        """Return what takes the progress of the step that is running here."""
        flight = current_flight()

        def report(progress: bytes) -> None:
            if flight is not None and progress:
                flight.progress = progress

        return report

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        """Carry out an operation.

        Raises:
            FluvialError: it is refused.
        """
        handler = self._operations.get(operation)
        if handler is None:
            raise InvalidRequestError(f"the test kit knows no operation {operation!r}")
        return await handler(arguments, body)
