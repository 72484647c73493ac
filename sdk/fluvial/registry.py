"""What a bundle registers when it is imported: its workflows and steps, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fluvial.errors import InvalidRequestError

if TYPE_CHECKING:
    from fluvial.steps import Step
    from fluvial.workflows import Workflow


MAX_NAME_CHARACTERS: Final = 256


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str: ...


N = TypeVar("N", bound=_Named)


class Registry:
    """Workflows and steps by name."""

    def __init__(self) -> None:
        self.workflows: dict[str, Workflow[Any, Any]] = {}
        self.steps: dict[str, Step[Any, Any]] = {}
        self.is_complete = False

    def complete(self) -> None:
        """Say that the deployment is loaded: what comes later is known to this process only."""
        self.is_complete = True

    def find_workflow(self, name: str) -> Workflow[Any, Any] | None:
        """Return the workflow that runs under a name."""
        return self.workflows.get(name)

    def find_step(self, name: str) -> Step[Any, Any] | None:
        """Return the step that is executed under a name."""
        return self.steps.get(name)

    def add_workflow(self, workflow: Workflow[Any, Any]) -> None:
        """Register a workflow.

        Raises:
            InvalidRequestError: another function has the name.
        """
        _add(self.workflows, workflow, "workflow")

    def add_step(self, step: Step[Any, Any]) -> None:
        """Register a step.

        Raises:
            InvalidRequestError: another function has the name.
        """
        _add(self.steps, step, "step")


def _add(known: dict[str, N], new: N, kind: str) -> None:
    if not 1 <= len(new.name) <= MAX_NAME_CHARACTERS:
        raise InvalidRequestError(
            f"a {kind}'s name must have 1 to {MAX_NAME_CHARACTERS} characters"
        )
    old = known.get(new.name)
    # The same function once more (a module that is loaded again) replaces itself.
    if old is not None and old.origin != new.origin:
        raise InvalidRequestError(
            f"two functions are {kind} {new.name!r}: {old.origin} and {new.origin};"
            f' name one of them, @{kind}(name="…")'
        )
    known[new.name] = new


registry = Registry()
"""Where the decorators register."""
