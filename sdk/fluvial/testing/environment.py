"""`Environment`: a platform in the test's own process, in virtual time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TypeVar, cast, get_args

from fluvial.context import activate
from fluvial.durations import Duration, to_seconds
from fluvial.encryption import AppKeys
from fluvial.errors import HookNotFoundError, InvalidRequestError, RunFailedError
from fluvial.events import EventType
from fluvial.options import DEFAULT_OPTIONS, StartOptions
from fluvial.payloads import PayloadReader
from fluvial.registry import registry
from fluvial.runs import Run, get_run, open_event, resume_hook
from fluvial.starting import start
from fluvial.steps import Step
from fluvial.stream_entries import DEFAULT_STREAM
from fluvial.stream_reading import StreamChunk
from fluvial.testing.doubles import UNSET, Call, Doubles, behaviour
from fluvial.testing.engines import (
    Engine,
    EngineFactory,
    EngineSettings,
    Mode,
    PlannedFault,
    Point,
    find_engine,
)
from fluvial.testing.errors import StuckError
from fluvial.testing.goals import Goal
from fluvial.testing.logs import Log
from fluvial.testing.webhook_posts import Post, WebhookPosts
from fluvial.threads import StepThreads
from fluvial.webhook_answers import WebhookAnswer
from fluvial.workflows import Workflow

R = TypeVar("R")

APP: Final = "test"
MODE_VARIABLE: Final = "FLUVIAL_TESTING_MODE"
START: Final = datetime(2030, 1, 1, tzinfo=UTC)  # of virtual time; any fixed moment would do
_KEY_ID: Final = "kit"
_ROOT_KEY: Final = bytes(32)  # nothing is secret in a test, and chance is the same each time


class RunUnderTest(Run[R]):
    """A run in an environment: a `Run` whose log can be looked at."""

    def __init__(
        self, run_id: str, environment: Environment, workflow: Workflow[..., R] | None
    ) -> None:
        super().__init__(run_id, environment.engine.platform, workflow)
        self._environment = environment

    @property
    def log(self) -> Log:
        """The event log so far."""
        return self._environment.log(self.id)

    @property
    def open_hooks(self) -> list[str]:
        """The tokens of the hooks that are open now."""
        return self._environment.engine.open_hooks(self.id)

    @property
    def webhooks(self) -> list[str]:
        """The URLs of the webhooks that are open now; `Environment.post` sends requests there."""
        return self._environment.webhooks.urls(self.id)

    async def written(self, name: str = DEFAULT_STREAM) -> list[Any]:
        """Return what steps have written into a stream so far; `stream` waits for more."""
        lengths = {info.name: info.length for info in await self.streams()}
        values: list[Any] = []
        if lengths.get(name):
            async for entry in self.stream(name).entries():
                values += [entry.value] if isinstance(entry, StreamChunk) else []
                if entry.position + 1 >= lengths[name]:
                    break
        return values

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - of the base
        """Let the run come to its end and return what it returned; see `Run.result`.

        Raises:
            StuckError: it waits for something that will not happen.
        """
        with self._environment.explaining():
            return await super().result(timeout)


class Environment:
    """Runs workflows in this process: no server, real steps unless they are mocked, virtual time.

        async with Environment() as env:
            env.mock(charge, returns="ch_1")
            run = await env.start(fulfil, "o-1", 4200)
            await env.until(run, hook="order:o-1")
            await env.resume("order:o-1", Approval(approved=True, by="x"))
            assert await run.result() == "shipped"

    While it is open, `fluvial.start`, `get_run` and `resume_hook` work in the test itself too.

    Args:
        mode: how turns continue (see `Mode`); default: `FLUVIAL_TESTING_MODE`, else `live`.
        seed: makes everything happen in some other order that could happen as well; the same seed
            makes the same order. None: things happen in the order in which they were asked for.
        auto_advance: whether time moves by itself when everything waits for it.
        now: where virtual time begins.
        engine: what runs the workflows; default: the one that is installed.
        fault: breaks something on the way (see `enumerate_crashes`).
    """

    def __init__(
        self,
        *,
        mode: Mode | None = None,
        seed: int | None = None,
        auto_advance: bool = True,
        now: datetime = START,
        engine: EngineFactory | None = None,
        fault: PlannedFault | None = None,
    ) -> None:
        if now.tzinfo is None:
            raise InvalidRequestError(f"now must have a time zone, got {now!r}")
        self._keys = AppKeys(APP, {_KEY_ID: _ROOT_KEY}, _KEY_ID)
        self._doubles = Doubles(registry, self._pause)
        self._threads = StepThreads()
        self.engine: Engine = (engine or find_engine())(
            EngineSettings(
                keys=self._keys,
                registry=self._doubles,
                threads=self._threads,
                mode=mode or _mode_of_environment(),
                seed=seed,
                start_ms=round(now.timestamp() * 1000),
                is_automatic=auto_advance,
                fault=fault,
            )
        )
        self.webhooks = WebhookPosts(self.engine, self._keys)
        activate(None, self.engine.platform)

    async def __aenter__(self) -> Environment:
        activate(None, self.engine.platform)  # perhaps in another context than it was made in
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the steps that still run."""
        self.release()
        await self.engine.close()

    def release(self) -> None:
        """Let go of what needs no event loop."""
        activate(None, None)
        self._threads.close()

    # ---- runs ----

    async def start(
        self,
        workflow: Workflow[..., R],
        *args: Any,
        key: str | None = None,
        options: StartOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> RunUnderTest[R]:
        """Start a run, as `fluvial.start` does. It goes on when the test waits for something."""
        run = await start(workflow, *args, key=key, options=options, **kwargs)
        return RunUnderTest(run.id, self, workflow)

    async def get_run(
        self,
        run_id: str | None = None,
        *,
        key: str | None = None,
        workflow: Workflow[..., R] | None = None,
    ) -> RunUnderTest[R]:
        """Return a run, as `fluvial.get_run` does."""
        found = await get_run(run_id, key=key, workflow=workflow)
        return await self._under_test(found.id, workflow)

    async def _under_test(self, run_id: str, workflow: Workflow[..., R] | None) -> RunUnderTest[R]:
        run = RunUnderTest(run_id, self, workflow)
        await run.refresh()
        return run

    async def runs(self) -> list[RunUnderTest[Any]]:
        """Return all runs, also those that steps have started, oldest first."""
        return [await self._under_test(run_id, None) for run_id in self.engine.run_ids()]

    async def resume(self, token: str, value: Any = None, *, resume_id: str | None = None) -> bool:
        """Hand a payload to a hook, once everything has happened that can happen now.

        Returns whether it was new.

        Raises:
            HookNotFoundError: no open hook has the token.
        """
        with self.explaining():
            await self.engine.settle()
            return await resume_hook(token, value, resume_id=resume_id)

    async def post(
        self,
        url: str,
        value: Any = UNSET,
        *,
        body: bytes = b"",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
    ) -> WebhookAnswer:
        """Send a request to a webhook (see `RunUnderTest.webhooks`) and return the answer, once
        everything has happened that can happen now.

        Args:
            url: the webhook's; with a path or a query behind it, if you like.
            value: what the body shall be as JSON; default: `body`.
            body: the body as it is.
            method: the request's.
            headers: the request's.
            secret: sign it with this secret, as of now.

        Raises:
            StuckError: the workflow was to answer, and does not.
        """
        if value is not UNSET:
            body = json.dumps(value).encode()
            headers = {"content-type": "application/json", **(headers or {})}
        sent = Post(url=url, method=method, headers=headers or {}, body=body, secret=secret)
        with self.explaining():
            await self.engine.settle()
            return await self.webhooks.send(sent)

    async def send(
        self, run: Run[Any], name: str, value: Any = None, *, resume_id: str | None = None
    ) -> bool:
        """Hand a value to the run's hook of that name, as `Run.send` does.

        The run comes to the hook first; `StuckError` where it does not.
        """
        with self.explaining():
            return await run.send(name, value, resume_id=resume_id)

    async def ask(
        self,
        run: Run[Any],
        name: str,
        value: Any = None,
        *,
        wanted: Any = None,
        resume_id: str | None = None,
    ) -> Any:
        """Hand a value to the run's hook of that name and return the answer, as `Run.ask` does.

        The run comes to the hook first, and then to its answer; `StuckError` where it does not.
        """
        with self.explaining():
            return await run.ask(name, value, wanted=wanted, resume_id=resume_id)

    async def state(self, run: Run[Any], wanted: Any = None) -> Any:
        """Return what the run has published last, once everything has happened that can now."""
        with self.explaining():
            await self.engine.settle()
            return await run.state(wanted)

    # ---- letting things happen ----

    async def settle(self) -> None:
        """Let everything happen that can happen now; time stands still."""
        with self.explaining():
            await self.engine.settle()

    async def until(
        self,
        run: Run[Any],
        *,
        hook: str | None = None,
        step: Step[..., Any] | None = None,
        event: EventType | None = None,
        status: str | None = None,
        condition: Callable[[], bool] | None = None,
    ) -> None:
        """Let the run come to a place, and settle: all that is asked for must be so at once.

        Args:
            run: the run.
            hook: a hook with this token is open.
            step: this step was asked for.
            event: an event of this type is in the log.
            status: the run has this status.
            condition: any other condition.

        Raises:
            StuckError: the run does not come to that.
        """
        goal = Goal(hook=hook, step=step, event=event, status=status, condition=condition)
        with self.explaining():
            await self.engine.reach(
                lambda: goal.is_reached(self.engine, run.id), f"that {run.id} has {goal}"
            )
            await self.engine.settle()

    async def advance(self, duration: Duration) -> None:
        """Let time pass (`"2 d"`, seconds, a timedelta), and all happen that becomes due."""
        with self.explaining():
            await self.engine.advance(round(to_seconds(duration, "advance") * 1000))

    async def crash(self) -> None:
        """Lose everything in memory, now: the runs go on from what is stored."""
        await self.engine.crash()

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return datetime.fromtimestamp(self.engine.now_ms / 1000, UTC)

    # ---- steps ----

    def mock(
        self,
        function: Step[..., Any] | Workflow[..., Any],
        *,
        returns: Any = UNSET,
        raises: BaseException | type[BaseException] | None = None,
        does: Callable[..., Any] | None = None,
        each: Sequence[Any] | None = None,
        takes: Duration = 0,
        hangs: bool = False,
    ) -> None:
        """Have something else done than the body of a step, or of a workflow that others start;
        without more, it returns None.

        Args:
            function: the step or the workflow.
            returns: a value to return.
            raises: an error to raise; the step is retried as ever.
            does: a function (sync or async) to call with the step's arguments.
            each: what each call returns, or raises where it is an error, one after the other.
            takes: how much virtual time a call takes.
            hangs: it never ends, but by its timeout.

        Raises:
            InvalidRequestError: it shall do two things at once.
        """
        chosen = behaviour(
            returns=returns, raises=raises, does=does, each=each, takes=takes, hangs=hangs
        )
        self._doubles.mock(function, chosen)

    def restore(self, function: Step[..., Any] | Workflow[..., Any]) -> None:
        """Have its own body run again."""
        self._doubles.restore(function)

    def calls(self, function: Step[..., Any] | Workflow[..., Any]) -> list[Call]:
        """Return the executions of a step, mocked or not, in the order in which they began; or the
        runs of a workflow that have begun."""
        if isinstance(function, Step):
            return self._doubles.calls(function)
        begun = [log[0] for log in map(self.log, self.engine.run_ids()) if log]
        return [
            Call(tuple(event.value[0]), event.value[1])
            for event in begun
            if event.meta.get("workflow") == function.name
        ]

    async def _pause(self, milliseconds: int | None) -> None:
        await self.engine.pause(milliseconds)

    # ---- looking ----

    @property
    def points(self) -> Sequence[Point]:
        """The durable points so far."""
        return self.engine.points

    @property
    def history(self) -> Sequence[str]:
        """What has happened so far behind the scenes, a line each."""
        return self.engine.history

    def log(self, run: Run[Any] | str) -> Log:
        """Return the event log of a run."""
        run_id = run if isinstance(run, str) else run.id
        reader = PayloadReader(self._keys.for_run(run_id))
        return Log(open_event(reader, event) for event in self.engine.events(run_id))

    def report(self) -> str:
        """Return the logs of all runs, for people."""
        runs = [f"{r}: {self.engine.status(r)}\n{self.log(r)}" for r in self.engine.run_ids()]
        return "\n\n".join(runs) or "no runs"

    @contextmanager
    def explaining(self) -> Generator[None, None, None]:
        """Add the runs' logs to the kit's and the runs' errors."""
        try:
            yield
        except (StuckError, RunFailedError, HookNotFoundError) as error:
            error.add_note(self.report())
            raise


def _mode_of_environment() -> Mode:
    chosen = os.environ.get(MODE_VARIABLE, "live")
    if chosen not in get_args(Mode):
        allowed = ", ".join(get_args(Mode))
        raise InvalidRequestError(f"{MODE_VARIABLE} must be one of {allowed}, got {chosen!r}")
    return cast("Mode", chosen)
