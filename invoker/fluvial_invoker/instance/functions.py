"""What this instance can execute: its HTTP app, and turns, steps, reveals and checks of workflows.

A turn is CPU only, so it runs where its frame arrives: no task, no admission slot held. A step is
an invocation like an HTTP request, with a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, ClassVar, Final, Protocol

from fluvial.checks import CHECK, CheckReport, CheckRequest
from fluvial.context import InvocationKind, activate
from fluvial.encryption import AppKeys
from fluvial.errors import WireError
from fluvial.events import EventType, decode_event
from fluvial.invocations import (
    Answer,
    Revealed,
    RevealRequest,
    StepRequest,
    TurnRequest,
    pack_revealed,
)
from fluvial.resealing import RESEAL, ResealRequest
from fluvial.webhook_checks import VERIFY, VerifyRequest
from fluvial.wire import FrameType, pack
from fluvial_invoker.instance.asgi import AsgiApp, HttpInvocation
from fluvial_invoker.instance.file_functions import FileFunctions
from fluvial_invoker.instance.interfaces import WEBSOCKETS, websocket_invocation
from fluvial_invoker.instance.invocations import (
    OUTCOME_CANCELLED,
    OUTCOME_ERROR,
    OUTCOME_OK,
    Invocation,
    Link,
)
from fluvial_invoker.instance.loading import Interface
from fluvial_invoker.instance.metering import Meter, Subject, TurnMeter, current
from fluvial_invoker.instance.output import end_output, report_exception
from fluvial_invoker.instance.platform import FrameWriter, LinkPlatform

_ANSWER: Final = int(FrameType.ANSWER)


class Runs(Protocol):
    """The durable side of the SDK (`fluvial.turns.LiveRuns`)."""

    def turn(self, request: TurnRequest, /) -> Answer: ...
    async def step(self, request: StepRequest, /) -> Answer: ...
    def reveal(self, request: RevealRequest, /) -> Sequence[Revealed]: ...
    def verify(self, request: VerifyRequest, /) -> str | None: ...
    def check(self, request: CheckRequest, /) -> CheckReport: ...
    def reseal(self, request: ResealRequest, /) -> Answer: ...
    def forget(self, run_ids: Sequence[str], /) -> None: ...


class Functions:
    """The deployment, loaded."""

    def __init__(
        self,
        *,
        app: AsgiApp,
        http_class: type[HttpInvocation],
        interface: Interface | None,
        files: FileFunctions | None = None,
        state: dict[str, Any] | None,
        runs: Runs,
        keys: AppKeys,
        deployment: str,
        instance: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._app = app
        self._http_class = http_class
        self._interface: Interface | None = interface
        self._files = files
        self._state = state
        self._runs = runs
        self._keys = keys
        self._deployment = deployment
        self._instance = instance
        self._loop = loop

    def http(self, header: list[Any], body: bytes, link: Link) -> HttpInvocation:
        """Return the invocation that a REQUEST frame asks for."""
        if self._files is not None:
            return self._files.invocation(header, body, link, self._loop)
        if header[7] in WEBSOCKETS:
            return websocket_invocation(
                header,
                link,
                app=self._app,
                interface=self._interface,
                state=self._state,
                loop=self._loop,
            )
        return self._http_class(
            header, body, link, app=self._app, state=self._state, loop=self._loop
        )

    def invoke(self, header: list[Any], body: bytes, link: Link) -> Invocation | None:
        """Do what an INVOKE frame asks for; return the invocation if it goes on.

        Raises:
            WireError: the kind is unknown.
        """
        _, conversation, kind, meta, *_ = header
        match kind:
            case "step":
                return StepInvocation(
                    conversation, link, StepRequest.from_frame(meta, body), self._runs
                )
            case "turn":
                self._turn(conversation, TurnRequest.from_frame(meta, body), link)
            case "reveal":
                self._reveal(conversation, RevealRequest.from_frame(meta, body), link)
            case _ if kind == CHECK:
                self._check(conversation, CheckRequest.from_frame(meta, body), link)
            case value if value == VERIFY:
                self._verify(conversation, VerifyRequest.from_frame(meta, body), link)
            case value if value == RESEAL:
                self._reseal(conversation, ResealRequest.from_frame(meta, body), link)
            case _:
                raise WireError(f"unknown kind of invocation {kind!r}")
        return None

    def platform(self, link: FrameWriter, partitions: int, app_url: str) -> LinkPlatform:
        """Return the way to the platform over a new link."""
        return LinkPlatform(
            link,
            keys=self._keys,
            deployment=self._deployment,
            instance=self._instance,
            partitions=partitions,
            app_url=app_url,
        )

    def forget(self, run_ids: Sequence[str]) -> None:
        """Drop live runs that will not be asked for again."""
        self._runs.forget(run_ids)

    def _turn(self, conversation: int, request: TurnRequest, link: Link) -> None:
        meter = TurnMeter(request.run_id, request.workflow)
        # A context of its own: what the workflow's code sets must not stay behind on the loop.
        answer = Context().run(self._advance, meter, request, link)
        write_answer(link, conversation, answer, meter)

    def _advance(self, meter: Meter, request: TurnRequest, link: Link) -> Answer:
        current.set(meter)
        activate(link.platform.describe("", "turn", 1, 0.0), link.platform)
        try:
            return self._runs.turn(request)
        except Exception as error:  # noqa: BLE001 - one run's failure is not its neighbours'
            report_exception(error, meter, "a turn failed inside the runtime")
            return Answer(outcome="diverged", reason=f"runtime error: {type(error).__name__}")
        finally:
            end_output(meter)
            meter.settle()

    def _check(self, conversation: int, request: CheckRequest, link: Link) -> None:
        meter = Meter(None, request.run_id)
        outcome, body = "diverged", b""
        try:
            body = Context().run(self._replay, meter, request, link).to_body()
            outcome = "ok"
        except Exception as error:  # noqa: BLE001 - reported to the person who asked
            report_exception(error, meter, "a check failed inside the runtime")
        link.write(pack(_ANSWER, conversation, outcome, {}, meter.cpu_us, body=body))

    def _replay(self, meter: Meter, request: CheckRequest, link: Link) -> CheckReport:
        current.set(meter)
        activate(link.platform.describe("", "turn", 1, 0.0), link.platform)
        try:
            return self._runs.check(request)
        finally:
            end_output(meter)
            meter.settle()

    def _reseal(self, conversation: int, request: ResealRequest, link: Link) -> None:
        meter = Meter(None, request.run_id)
        try:
            answer = self._runs.reseal(request)
        except Exception as error:  # noqa: BLE001 - reported to the person who asked
            report_exception(error, meter, "a reseal failed")
            answer = Answer(outcome="diverged", reason=f"{type(error).__name__}: {error}"[:1000])
        meter.settle()
        write_answer(link, conversation, answer, meter)

    def _reveal(self, conversation: int, request: RevealRequest, link: Link) -> None:
        meter = Meter(None, request.run_id)
        self._tell(conversation, lambda: self._runs.reveal(request), meter, link, "a reveal")

    def _verify(self, conversation: int, request: VerifyRequest, link: Link) -> None:
        meter = Meter(None, request.run_id)
        self._tell(
            conversation, lambda: [self._runs.verify(request)], meter, link, "a verification"
        )

    @staticmethod
    def _tell(
        conversation: int,
        texts: Callable[[], Sequence[Revealed]],
        meter: Meter,
        link: Link,
        what: str,
    ) -> None:
        """Answer with texts."""
        try:
            outcome, body = "ok", pack_revealed(texts())
        except Exception as error:  # noqa: BLE001 - reported to whoever asked
            report_exception(error, meter, f"{what} failed")
            outcome, body = "diverged", b""
        meter.settle()
        link.write(pack(_ANSWER, conversation, outcome, {}, meter.cpu_us, body=body))


class StepInvocation(Invocation):
    """One attempt of a step."""

    __slots__ = ("_proposal", "_request", "_runs")
    kind: ClassVar[InvocationKind] = "step"

    def __init__(self, conversation: int, link: Link, request: StepRequest, runs: Runs) -> None:
        super().__init__(conversation, link, id=request.invocation, run=request.run_id)
        self._request = request
        self._runs = runs
        self._proposal: Answer | None = None
        self.attempt = request.attempt

    def subject(self) -> Subject:
        return "step", self._request.step, self._request.id, self.attempt

    def ending(self) -> tuple[str, dict[str, Any]]:
        if self._proposal is None:
            return self.stopped or OUTCOME_ERROR, {}
        events = self._proposal.events
        is_done = bool(events) and decode_event(events[0]).type == EventType.STEP_COMPLETED
        return OUTCOME_OK if is_done else OUTCOME_ERROR, {}

    async def run_body(self) -> None:
        self._proposal = await self._runs.step(self._request)

    def answer(self, error: BaseException | None) -> None:
        if self._proposal is not None:
            answer = self._proposal
        elif self.stopped == OUTCOME_CANCELLED:
            answer = Answer(outcome="cancelled")
        else:
            # The runtime turns what a body raises into events; this is its own failure.
            if error is not None:
                report_exception(error, self, "a step failed inside the runtime")
            answer = Answer(outcome="diverged", reason=f"runtime error: {type(error).__name__}")
        write_answer(self.link, self.conversation, answer, self)


def write_answer(link: Link, conversation: int, answer: Answer, meter: Meter) -> None:
    """Write the ANSWER frame of a turn or a step."""
    outcome, meta, body = answer.to_frame_fields()
    link.write(pack(_ANSWER, conversation, outcome, meta, meter.cpu_us, body=body))
