"""Steps that another process would not find are refused where they are called, or defined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.errors import UnresolvableStepError
from fluvial.registry import registry
from fluvial.steps import Step, step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


@pytest.fixture
def deployed() -> Iterator[None]:
    """Whatever is registered so far is what the deployment's modules register."""
    registry.complete()
    yield
    registry.is_complete = False


def adding(amount: int, name: str | None = None) -> Step[[int], int]:
    @step(name=name)
    async def add(number: int) -> int:
        return number + amount

    return add


def failure_of(play: Play, call: Any) -> str:
    """Return with what text a workflow fails that makes this call."""

    @workflow(name="main")
    async def main() -> None:
        await call()

    error = play(main).error
    assert isinstance(error, UnresolvableStepError)
    return str(error)


def test_a_step_with_captured_values_works_where_one_process_does_everything(play: Play) -> None:
    add = adding(5)

    @workflow
    async def main() -> int:
        return await add(1)

    assert play(main).result == 6


def test_a_step_that_a_factory_made_at_import_works_when_deployed(play: Play) -> None:
    add = adding(5)

    @workflow
    async def main() -> int:
        return await add(1)

    registry.complete()
    try:
        assert play(main).result == 6
    finally:
        registry.is_complete = False


@pytest.mark.usefixtures("deployed")
def test_a_step_that_a_function_defines_later_is_refused_when_deployed(play: Play) -> None:
    add = adding(5)

    text = failure_of(play, lambda: add(1))

    assert text.startswith(f"step 'adding.<locals>.add' ({__file__}:")
    assert "no other instance has it" in text
    assert text.endswith(
        "define it at module level and pass what it captures (amount) as arguments"
    )


@pytest.mark.usefixtures("deployed")
def test_a_step_of_a_module_that_was_imported_later_is_refused_when_deployed(play: Play) -> None:
    module: dict[str, Any] = {"__name__": "late.module"}
    exec("from fluvial import step\n@step\nasync def fetch() -> None: ...", module)

    text = failure_of(play, module["fetch"])

    assert "step 'fetch'" in text
    assert "import late.module at the top of a module that the deployment loads" in text


@pytest.mark.usefixtures("deployed")
def test_a_late_step_is_a_plain_call_outside_a_workflow() -> None:
    @step
    def plain() -> str:
        return "called"

    called: Any = plain()

    assert called == "called"


def test_a_step_whose_name_another_definition_has_taken_is_refused(play: Play) -> None:
    first, second = adding(1), adding(2)

    assert "defined again" in failure_of(play, lambda: first(1))

    @workflow
    async def main() -> int:
        return await second(1)

    assert play(main).result == 3


def test_two_steps_of_one_factory_with_names_of_their_own_are_two_steps(play: Play) -> None:
    first, second = adding(1, "one"), adding(2, "two")

    @workflow
    async def main() -> list[int]:
        return [await first(1), await second(1)]

    assert play(main).result == [2, 3]


def test_a_step_that_workflow_code_defines_is_refused_at_its_definition(play: Play) -> None:
    reached: list[str] = []

    async def body() -> None:
        secret = "of this run"

        @step
        async def inner() -> str:
            return secret

        reached.append("called")
        await inner()

    text = failure_of(play, body)

    assert "every run and every replay makes another one" in text
    assert "(secret)" in text
    assert not reached
