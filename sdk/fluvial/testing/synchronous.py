"""The environment for tests that are not async: the same, on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, TypeVar

from fluvial.durations import Duration
from fluvial.events import EventType
from fluvial.options import DEFAULT_OPTIONS, StartOptions
from fluvial.steps import Step
from fluvial.stream_entries import DEFAULT_STREAM
from fluvial.testing.doubles import UNSET, Call
from fluvial.testing.environment import Environment, RunUnderTest
from fluvial.testing.logs import Log
from fluvial.webhook_answers import WebhookAnswer
from fluvial.workflows import Workflow

R = TypeVar("R")


class SyncRun(Generic[R]):
    """A run in a `SyncEnvironment`."""

    def __init__(self, environment: SyncEnvironment, run: RunUnderTest[R]) -> None:
        self._environment = environment
        self.run = run

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def log(self) -> Log:
        """The event log so far."""
        return self.run.log

    @property
    def status(self) -> str:
        """Where the run stands."""
        return self._environment.env.engine.status(self.run.id)

    @property
    def open_hooks(self) -> list[str]:
        """The tokens of the hooks that are open now."""
        return self.run.open_hooks

    @property
    def webhooks(self) -> list[str]:
        """The URLs of the webhooks that are open now; see `SyncEnvironment.post`."""
        return self.run.webhooks

    def result(self) -> R:
        """Let the run come to its end and return what it returned; see `RunUnderTest.result`."""
        return self._environment.wait(self.run.result())

    def written(self, name: str = DEFAULT_STREAM) -> list[Any]:
        """Return what steps have written into a stream so far."""
        return self._environment.wait(self.run.written(name))

    def state(self, wanted: Any = None) -> Any:
        """Return what the run has published last; see `Run.state`."""
        return self._environment.wait(self.run.state(wanted))

    def cancel(self, reason: str = "") -> None:
        """Ask the workflow to stop."""
        self._environment.wait(self.run.cancel(reason))

    def terminate(self) -> None:
        """End the run at once."""
        self._environment.wait(self.run.terminate())


class SyncEnvironment:
    """An `Environment` whose methods need no `await`; `env` is the async one.

    with SyncEnvironment() as env:
        run = env.start(fulfil, "o-1", 4200)
        assert run.result() == "shipped"
    """

    def __init__(self, **options: Any) -> None:
        """The arguments are those of `Environment`."""
        self.env = Environment(**options)
        self._runner = asyncio.Runner()
        self._context = contextvars.copy_context()

    def __enter__(self) -> SyncEnvironment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the environment's event loop."""
        return self._runner.run(work, context=self._context)

    def close(self) -> None:
        """End the steps that still run, and the event loop."""
        self.wait(self.env.close())
        self.env.release()
        self._runner.close()

    def start(
        self,
        workflow: Workflow[..., R],
        *args: Any,
        key: str | None = None,
        options: StartOptions = DEFAULT_OPTIONS,
        **kwargs: Any,
    ) -> SyncRun[R]:
        """Start a run; see `Environment.start`."""
        started = self.env.start(workflow, *args, key=key, options=options, **kwargs)
        return SyncRun(self, self.wait(started))

    def get_run(
        self,
        run_id: str | None = None,
        *,
        key: str | None = None,
        workflow: Workflow[..., R] | None = None,
    ) -> SyncRun[R]:
        """Return a run; see `Environment.get_run`."""
        return SyncRun(self, self.wait(self.env.get_run(run_id, key=key, workflow=workflow)))

    def runs(self) -> list[SyncRun[Any]]:
        """Return all runs."""
        return [SyncRun(self, run) for run in self.wait(self.env.runs())]

    def resume(self, token: str, value: Any = None, *, resume_id: str | None = None) -> bool:
        """Hand a payload to a hook; see `Environment.resume`."""
        return self.wait(self.env.resume(token, value, resume_id=resume_id))

    def post(
        self,
        url: str,
        value: Any = UNSET,
        *,
        body: bytes = b"",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        secret: str | None = None,
    ) -> WebhookAnswer:
        """Send a request to a webhook; see `Environment.post`."""
        sent = self.env.post(url, value, body=body, method=method, headers=headers, secret=secret)
        return self.wait(sent)

    def send(
        self, run: SyncRun[Any], name: str, value: Any = None, *, resume_id: str | None = None
    ) -> bool:
        """Hand a value to the run's hook of that name; see `Environment.send`."""
        return self.wait(self.env.send(run.run, name, value, resume_id=resume_id))

    def ask(
        self,
        run: SyncRun[Any],
        name: str,
        value: Any = None,
        *,
        wanted: Any = None,
        resume_id: str | None = None,
    ) -> Any:
        """Ask the run's hook of that name; see `Environment.ask`."""
        return self.wait(self.env.ask(run.run, name, value, wanted=wanted, resume_id=resume_id))

    def state(self, run: SyncRun[Any], wanted: Any = None) -> Any:
        """Return what the run has published last; see `Environment.state`."""
        return self.wait(self.env.state(run.run, wanted))

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        self.wait(self.env.settle())

    def until(
        self,
        run: SyncRun[Any],
        *,
        hook: str | None = None,
        step: Step[..., Any] | None = None,
        event: EventType | None = None,
        status: str | None = None,
        condition: Callable[[], bool] | None = None,
    ) -> None:
        """Let the run come to a place; see `Environment.until`."""
        self.wait(
            self.env.until(
                run.run, hook=hook, step=step, event=event, status=status, condition=condition
            )
        )

    def advance(self, duration: Duration) -> None:
        """Let time pass; see `Environment.advance`."""
        self.wait(self.env.advance(duration))

    def crash(self) -> None:
        """Lose everything in memory, now."""
        self.wait(self.env.crash())

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self.env.now

    def mock(self, function: Step[..., Any] | Workflow[..., Any], **options: Any) -> None:
        """Have something else done than a function's body; see `Environment.mock`."""
        self.env.mock(function, **options)

    def restore(self, function: Step[..., Any] | Workflow[..., Any]) -> None:
        """Have its own body run again."""
        self.env.restore(function)

    def calls(self, function: Step[..., Any] | Workflow[..., Any]) -> list[Call]:
        """Return the executions of a step or the runs of a workflow; see `Environment.calls`."""
        return self.env.calls(function)

    @property
    def history(self) -> Sequence[str]:
        """What has happened so far behind the scenes, a line each."""
        return self.env.history

    def report(self) -> str:
        """Return the logs of all runs, for people."""
        return self.env.report()
