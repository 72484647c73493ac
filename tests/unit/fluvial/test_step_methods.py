"""Steps in class bodies: methods whose object travels along, static methods, no class methods."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict

from fluvial.errors import InvalidRequestError, SerializationError
from fluvial.events import EventType
from fluvial.registry import registry
from fluvial.steps import Step, step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


@dataclass(frozen=True, slots=True)
class Till:
    """A class of the module: found again by its name."""

    currency: str

    @step
    async def charge(self, cents: int, *, note: str = "") -> str:
        return f"{cents} {self.currency}{note}"

    @step
    def count(self) -> int:
        return len(self.currency)

    @staticmethod
    @step
    async def inner_static(number: int) -> int:
        return number + 1

    @step
    @staticmethod
    async def outer_static(number: int) -> int:
        return number + 2


@dataclass(frozen=True, slots=True)
class Branch(Till):
    city: str

    @step
    async def place(self) -> str:
        return self.city


@pytest.fixture(autouse=True)
def registered() -> None:
    """Other tests empty the registry that the classes above were registered in."""
    for made in (Till.charge, Till.count, Till.inner_static, Till.outer_static, Branch.place):
        registry.add_step(made)


def test_the_object_of_a_method_travels_with_the_call(play: Play) -> None:
    @workflow
    async def main(till: Till) -> list[Any]:
        return [await till.charge(5), await till.charge(7, note="!"), await till.count()]

    outcome = play(main, Till("EUR"))

    assert outcome.result == ["5 EUR", "7 EUR!", 3]
    names = [e.meta["name"] for e in outcome.events if e.type is EventType.STEP_SCHEDULED]
    assert names == ["Till.charge", "Till.charge", "Till.count"]


def test_an_inherited_method_gets_the_object_of_the_class_that_it_was_called_on(
    play: Play,
) -> None:
    @workflow
    async def main() -> list[str]:
        branch = Branch("EUR", "Ulm")
        return [await branch.charge(1), await branch.place()]

    assert play(main).result == ["1 EUR", "Ulm"]


def test_a_method_of_a_class_that_only_this_process_knows_gets_such_an_object(play: Play) -> None:
    @dataclass
    class Local:
        number: int

        @step
        async def doubled(self) -> int:
            return self.number * 2

    class Model(BaseModel):
        model_config = ConfigDict(ignored_types=(Step,))
        number: int

        @step
        async def tripled(self) -> int:
            return self.number * 3

    @workflow
    async def main() -> list[int]:
        return [await Local(1).doubled(), await Model(number=1).tripled()]

    assert play(main).result == [2, 3]


@pytest.mark.parametrize("name", ["inner_static", "outer_static"])
def test_a_static_method_is_a_step_in_either_order_of_decorators(play: Play, name: str) -> None:
    @workflow
    async def main() -> list[int]:
        return [await getattr(Till, name)(1), await getattr(Till("EUR"), name)(1)]

    assert play(main).result in ([2, 2], [3, 3])


def test_a_method_outside_a_workflow_is_a_plain_call() -> None:
    till = Till("EUR")

    counted: Any = till.count()

    assert counted == 3
    assert asyncio.run(till.charge(1)) == "1 EUR"
    assert asyncio.run(Till.charge(till, 1)) == "1 EUR"


def test_an_object_that_cannot_travel_is_named(play: Play) -> None:
    class Client:
        @step
        async def fetch(self) -> None: ...

    @workflow
    async def main() -> str:
        try:
            await Client().fetch()
        except SerializationError as error:
            return str(error)
        return ""

    text = play(main).result

    assert text.startswith("self: ")
    assert "a dataclass or a pydantic model can" in text


def test_an_argument_of_a_method_that_cannot_travel_keeps_its_name(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            await Till("EUR").charge(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the test's point
        except SerializationError as error:
            return error.path
        return ""

    assert play(main).result == "args[1]"


def test_a_class_method_is_refused_in_either_order_of_decorators() -> None:
    def make(cls: Any) -> None: ...

    make.__qualname__ = "Registry.make"
    decorated: Any = classmethod(make)

    with pytest.raises(InvalidRequestError, match="staticmethod"):
        step(make)
    with pytest.raises(InvalidRequestError, match="staticmethod"):
        step(decorated)


@pytest.mark.parametrize("thing", [3, object(), dict])
def test_what_is_no_function_is_no_step(thing: Any) -> None:
    with pytest.raises(InvalidRequestError, match="needs a function"):
        step(thing)


def test_a_bound_step_says_what_it_is() -> None:
    assert repr(Till("EUR").count) == "<step Till.count of Till(currency='EUR')>"
    assert repr(Till.count) == "<step Till.count>"
