"""Streams in one process: steps and readers reach the real gateway parts, by calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fluvial.errors import FluvialError, UnavailableError
from fluvial.ids import new_run_id
from fluvial.runs import Run
from fluvial.testing import Mode
from fluvial_gateway.calls import Calls
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.hook_answers import HookAnswers
from fluvial_gateway.hook_calls import HookCalls
from fluvial_gateway.hooks import Hooks
from fluvial_gateway.invocations import Subject
from fluvial_gateway.link_calls import LinkContext
from fluvial_gateway.runs import Runs
from fluvial_gateway.stream_calls import StreamCalls
from fluvial_gateway.streams import Streams
from fluvial_gateway.talking import Talking
from fluvial_invoker.instance.platform import error_for
from fluvial_queue.contract import Store
from tests.integration.in_process import APP, Application


@dataclass
class Appended:
    """An observer that keeps what it is told."""

    outcomes: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def stream_appended(self, app: str, outcome: str, chunks: int, size: int) -> None:
        self.outcomes.append((outcome, chunks))


class CallingPlatform:
    """`fluvial.ports.Platform`: calls go to the gateway's operations, errors come by their code."""

    def __init__(self, app: Streaming, subject: Subject | None) -> None:
        self.app = APP
        self.keys = app.keys
        self.partitions = app.store.partitions
        self._calls = app.calls
        self._context = LinkContext(instance="ins0", deployment="dpl", app=APP, subject=subject)

    def new_run_id(self) -> str:
        return new_run_id(self.partitions)

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        try:
            code, result, payload = await self._calls.handle(
                self._context, operation, arguments, body
            )
        except UnavailableError as error:  # an instance knows no kinds of it
            raise UnavailableError(str(error)) from None
        except FluvialError as error:
            raise error_for(error.code, {"message": str(error)}, arguments) from None
        if code != "ok":
            raise error_for(code, result, arguments)
        return result, payload


class Streaming(Application):
    """An application whose steps and handlers can call the platform."""

    def __init__(self, store: Store, *, mode: Mode = "live") -> None:
        self.appended = Appended()
        self.streams = Streams(store, self.appended, partitions=store.partitions)
        super().__init__(store, mode=mode, on_bell=self.streams.heard)
        catalogue = Catalogue(store)
        runs = Runs(store, catalogue, self, Fingerprints(b"k" * 32))
        hooks = Hooks(store, catalogue, runs)
        self.calls = Calls(
            runs,
            StreamCalls(self.streams, runs).operations(),
            HookCalls(runs, hooks, Talking(runs, hooks), HookAnswers(runs)).operations(),
        )
        self.instances.platform = self.platform

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> None:
        await self.dispatcher.wait_for_events(run_id, position, seconds)

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        await self.dispatcher.wait_for_end(run_id, seconds)

    async def wait_for_start(self, run_id: str, seconds: float) -> None:
        await self.dispatcher.wait_for_start(run_id, seconds)

    def platform(self, subject: Subject | None = None) -> CallingPlatform:
        """What code of the app may ask; without `subject`, as an HTTP handler."""
        return CallingPlatform(self, subject)

    def run(self, run_id: str) -> Run[Any]:
        """The run as an HTTP handler has it."""
        return Run(run_id, self.platform(), None)
