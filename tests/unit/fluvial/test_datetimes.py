"""`datetime.now` speaks for the run in workflows, and `datetime` stays the very type that it is."""

from __future__ import annotations

import copy
import datetime as module
import gc
import inspect
import pickle
import sys
import time
import warnings
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import AwareDatetime, BaseModel, Field

from fluvial import datetimes, guards
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

guards.install()
START = datetime.fromtimestamp(1_700_000_000, UTC)
LOCAL = datetime.fromtimestamp(1_700_000_000)
WEST = timezone(timedelta(hours=-7))


class Moment(datetime):
    """A class derived before anybody asks for its methods."""


class Odd(datetime):
    """Its constructor does more than the type's."""

    made = 0

    def __new__(cls, *args: Any, **kwargs: Any) -> Odd:
        cls.made += 1
        return super().__new__(cls, *args, **kwargs)


class Reading(BaseModel):
    at: datetime = Field(default_factory=datetime.now)
    aware: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


@step(name="datetimes.echo")
async def echo(moment: datetime) -> datetime:
    return moment


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    registry.add_step(echo)


def utcnow(cls: type[datetime] = datetime) -> datetime:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls.utcnow()  # pyright: ignore[reportDeprecated] - what is tested


def test_now_is_the_time_of_the_last_event(play: Play) -> None:
    @workflow
    async def main() -> list[datetime | date]:
        before = [datetime.now(), datetime.now(UTC), datetime.now(tz=WEST), utcnow()]
        days = [datetime.today(), date.today()]
        return [*before, *days, await echo(datetime.now(UTC)), datetime.now(UTC)]

    local, aware, west, utc, today, day, echoed, after = play(main).result

    assert local == today == LOCAL
    assert aware == west == echoed == START
    assert west.utcoffset() == timedelta(hours=-7)
    assert utc == START.replace(tzinfo=None)
    assert day == LOCAL.date()
    assert after == START + timedelta(milliseconds=1)


def test_derived_classes_get_their_own_type(play: Play) -> None:
    @workflow
    async def main() -> list[bool]:
        return [type(cls.now(UTC)) is cls and type(utcnow(cls)) is cls for cls in (Moment, Odd)]

    assert play(main).result == [True, True]
    assert type(Moment.now()) is type(utcnow(Moment)) is Moment
    made = Odd.made
    assert type(utcnow(Odd)) is Odd
    assert Odd.made == made + 1


def test_models_take_their_defaults_from_the_run(play: Play) -> None:
    @workflow
    async def main() -> list[datetime]:
        reading = Reading()
        return [reading.at, reading.aware]

    assert play(main).result == [LOCAL, START]


def test_wrong_arguments_are_refused_as_ever(play: Play) -> None:
    @workflow
    async def main() -> None:
        datetime.now("UTC")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the mistake

    assert "tzinfo" in str(play(main).error)
    with pytest.raises(TypeError, match="tzinfo"):
        datetime.now("UTC")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the mistake


# Outside workflows


def test_the_type_is_the_one_that_it_was() -> None:
    now = datetime.now(UTC)

    assert datetime is module.datetime is type(now) is type(datetime.fromtimestamp(0, UTC))
    assert isinstance(now, datetime)
    assert type(pickle.loads(pickle.dumps(now))) is datetime
    assert pickle.loads(pickle.dumps(datetime.now)).__self__ is datetime
    assert copy.deepcopy([datetime.now])[0]().year >= 2024
    assert Reading(at=now).at is now
    assert type(Reading.model_validate_json('{"at": "2024-01-01T00:00:00"}').at) is datetime
    with pytest.raises(TypeError, match="immutable"):
        datetime.now = None  # type: ignore[assignment, method-assign] # pyright: ignore[reportAttributeAccessIssue]


def test_answers_are_real_outside_workflows() -> None:
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 5
    assert abs(datetime.now().timestamp() - time.time()) < 5
    assert abs(datetime.today().timestamp() - time.time()) < 5
    assert abs(utcnow().replace(tzinfo=UTC).timestamp() - time.time()) < 5
    assert datetime.now(WEST).utcoffset() == timedelta(hours=-7)
    assert Moment.now(WEST).utcoffset() == timedelta(hours=-7)
    assert datetime.now().tzinfo is utcnow().tzinfo is None


def test_names_signatures_and_documentation_are_the_originals() -> None:
    assert datetime.now.__name__ == "now"
    assert datetime.now.__qualname__ == "datetime.now"
    assert "tz" in str(datetime.now.__doc__)
    assert datetime.now.__module__ == "datetime"
    assert str(inspect.signature(datetime.now)).startswith("(tz")
    assert datetime.now.__self__ is datetime  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]


def test_a_deprecation_names_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        datetime.utcnow()  # pyright: ignore[reportDeprecated] - what is tested

    assert len(caught) == (1 if sys.version_info >= (3, 12) else 0)
    assert all(each.filename == __file__ and "utcnow" in str(each.message) for each in caught)


def test_an_interpreter_that_hides_the_dictionary_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = dict(vars(datetime))

    def nothing(_: object) -> list[Any]:
        return []

    monkeypatch.setattr(gc, "get_referents", nothing)

    assert not datetimes.install()
    assert dict(vars(datetime)) == before


def test_a_replacement_that_is_not_seen_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(vars(datetime))

    def unseen(_: object) -> bool:
        return False

    monkeypatch.setattr(datetimes, "_is_seen", unseen)

    assert not datetimes.install()
    assert dict(vars(datetime)) == before
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 5
