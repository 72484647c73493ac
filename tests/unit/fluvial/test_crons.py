"""Declaring crons: what a `Cron` refuses, and how a bundle's timetable is made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.codec import encode_json
from fluvial.crons import MAX_CRONS, Cron, CronSpec, Tick, specified
from fluvial.errors import CronError
from fluvial.signatures import encode_call
from fluvial.timetable import timetable
from fluvial.workflows import Workflow

PLAIN = Cron("0 3 * * *")


async def nightly(day: str = "today", keep: int = 3) -> None: ...


async def told(day: date, *, tick: Tick | None = None) -> None: ...


async def needy(order: str) -> None: ...


def made(function: Any, cron: Any = (), name: str | None = None) -> Workflow[..., Any]:
    return Workflow(function, name, cron)


def table(*workflows: Workflow[..., Any], manifest: Any = ()) -> list[CronSpec]:
    return timetable({workflow.name: workflow for workflow in workflows}, manifest)


@pytest.mark.parametrize(
    ("arguments", "where", "expected"),
    [
        ({"schedule": "0 3 * *"}, "schedule", "has 4 fields"),
        ({"timezone": "Mars/Olympus"}, "timezone", "'Mars/Olympus' is not a time zone"),
        ({"timezone": 3}, "timezone", "3 is not a time zone"),
        ({"overlap": "drop"}, "overlap", "must be one of skip, allow, queue, replace, got 'drop'"),
        ({"catch_up": "last"}, "catch_up", "must be one of skip, one, all, got 'last'"),
        ({"catch_up": "all"}, "catch_up", "choose overlap = 'allow' (at once) or 'queue'"),
        ({"catch_up_limit": 0}, "catch_up_limit", "must be 1 to 500, got 0"),
        ({"catch_up_limit": True}, "catch_up_limit", "must be 1 to 500, got True"),
        ({"catch_up_window": "60d"}, "catch_up_window", "must be at most 2.6784e+06 s"),
        ({"jitter": "2h"}, "jitter", "must be at most 3600 s, got '2h'"),
        ({"jitter": -1}, "jitter", "must be a duration, got -1"),
        ({"jitter": True}, "jitter", "must be a duration, got True"),
        ({"jitter": None}, "jitter", "must be a duration, got None"),
        ({"schedule": "@every 10s", "jitter": 10}, "jitter", "below the interval of 10 s, got 10"),
        ({"name": "a/b"}, "name", "must be 1 to 100 letters"),
        ({"name": ""}, "name", "must be 1 to 100 letters"),
        ({"name": "x" * 101}, "name", "must be 1 to 100 letters"),
        ({"args": "text"}, "args", "must be a list, got 'text'"),
        ({"kwargs": [1]}, "kwargs", "must be a dict of names to values, got [1]"),
        ({"args": [{1: 2}]}, "args[0]", "has the key 1, which is not text"),
        ({"args": [1, [date(2026, 1, 1)]]}, "args[1][0]", "is datetime.date(2026, 1, 1)"),
        ({"kwargs": {"a": {"b": float("nan")}}}, "kwargs['a']['b']", "is nan"),
        ({"args": [2**63]}, "args[0]", "values that JSON has (64 bits)"),
        ({"args": ["\ud800"]}, "args[0]", "values that JSON has"),
        ({"args": ["x" * 5000]}, "args", "as JSON, above 4096"),
    ],
)
def test_a_wrong_cron_names_the_field_and_what_it_may_be(
    arguments: dict[str, Any], where: str, expected: str
) -> None:
    with pytest.raises(CronError, match=re.escape(expected)) as caught:
        Cron(**dict[str, Any]({"schedule": "0 3 * * *"}, **arguments))

    assert caught.value.where == where


def test_arguments_that_are_nested_without_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(CronError, match="nested more than 20 deep"):
        Cron("0 3 * * *", args=[endless])


def test_a_workflow_takes_texts_and_crons() -> None:
    assert made(nightly, "0 3 * * *").crons == (PLAIN,)
    assert made(nightly, PLAIN).crons == (PLAIN,)
    assert made(nightly, ["0 3 * * *", Cron("@hourly", name="often")]).crons == (
        PLAIN,
        Cron("@hourly", name="often"),
    )
    assert made(nightly).crons == ()


def test_several_crons_of_a_workflow_need_names() -> None:
    with pytest.raises(CronError, match="'nightly' is that of 2 crons of workflow 'nightly'"):
        made(nightly, ["0 3 * * *", "0 4 * * *"])


def test_a_wrong_cron_fails_where_it_is_written() -> None:
    with pytest.raises(CronError, match="minute '99' is not possible"):
        made(nightly, "99 3 * * *")


def test_the_timetable_is_complete_and_by_name() -> None:
    zoned = Cron("0  4 * * *", name="b", timezone="Europe/Berlin", kwargs={"keep": 5}, jitter="1m")
    specs = table(made(nightly, zoned), made(told, Cron("@daily", args=["2026-01-31"], name="a")))

    assert [(spec.name, spec.workflow, spec.tick) for spec in specs] == [
        ("a", "told", "tick"),
        ("b", "nightly", None),
    ]
    assert (specs[1].schedule, specs[1].kwargs, specs[1].jitter_seconds) == (
        "0 4 * * *",
        {"keep": 5},
        60.0,
    )


def test_the_manifest_names_a_workflow_by_its_name_or_its_place() -> None:
    workflow = made(nightly, name="clean up")
    manifest = [("clean up", Cron("@daily", name="one")), (f"{__name__}:nightly", Cron("@hourly"))]

    with pytest.raises(CronError, match="letters, digits") as caught:
        table(workflow, manifest=manifest)
    assert caught.value.where == "name"

    manifest[1] = (f"{__name__}:nightly", Cron("@hourly", name="two"))
    assert {spec.workflow for spec in table(workflow, manifest=manifest)} == {"clean up"}


@pytest.mark.parametrize(
    ("workflow", "cron", "where", "expected"),
    [
        (needy, PLAIN, "args", "of 'needy': do not fit needy(order: 'str')"),
        (needy, Cron("@daily", args=[3]), "args[0]", "is not a valid str"),
        (nightly, Cron("@daily", kwargs={"keep": "many"}), "kwargs['keep']", "is not a valid int"),
        (nightly, Cron("@daily", kwargs={"kep": 1}), "args", "unexpected keyword argument 'kep'"),
        (told, Cron("@daily", args=["soon"]), "args[0]", "is not a valid date"),
        (
            told,
            Cron("@daily", args=["2026-01-31"], kwargs={"tick": None}),
            "kwargs",
            "give 'tick', which 'told' gets the tick by",
        ),
    ],
)
def test_arguments_that_would_fail_in_the_night_fail_at_deploy(
    workflow: Any, cron: Cron, where: str, expected: str
) -> None:
    with pytest.raises(CronError, match=re.escape(expected)) as caught:
        table(made(workflow, cron))

    assert caught.value.where == where


def test_the_tick_is_given_to_one_parameter_by_name() -> None:
    async def twice(one: Tick, two: Tick) -> None: ...
    async def by_place(tick: Tick, /) -> None: ...

    with pytest.raises(CronError, match="is wanted by 2 parameters"):
        table(made(twice, Cron("@daily", name="x")))
    with pytest.raises(CronError, match="cannot be given by name to 'tick'"):
        table(made(by_place, Cron("@daily", name="x")))


def test_a_tick_is_the_same_from_the_scheduler_and_from_a_caller() -> None:
    signature = made(told).signature
    tick = Tick(cron="told", at=datetime(2026, 1, 31, 7, tzinfo=timezone(timedelta(hours=5.75))))
    from_json = {"cron": "told", "at": "2026-01-31T07:00:00+05:45"}
    scheduled = encode_json({"args": ["2026-01-31"], "kwargs": {"tick": from_json}})
    called = encode_call((date(2026, 1, 31),), {"tick": tick})

    for plaintext in (scheduled, called):
        assert signature.decode_call(plaintext) == ([date(2026, 1, 31)], {"tick": tick})


def test_two_crons_of_one_name_are_refused_wherever_they_stand() -> None:
    with pytest.raises(CronError, match="'nightly' is that of two crons"):
        table(made(nightly, PLAIN), manifest=[("nightly", Cron("0 5 * * *"))])


def test_a_workflow_that_is_not_there_is_named_with_those_that_are() -> None:
    expected = f"'nonesuch' is not registered by this bundle; known: nightly, {__name__}:nightly"
    with pytest.raises(CronError, match=re.escape(expected)):
        table(made(nightly), manifest=[("nonesuch", PLAIN)])


def test_the_number_and_the_size_of_crons_are_bounded() -> None:
    many = [Cron("@daily", name=f"n{number}") for number in range(MAX_CRONS + 1)]
    with pytest.raises(CronError, match=f"is {MAX_CRONS + 1} in this bundle, above {MAX_CRONS}"):
        table(made(nightly, many))

    large = [Cron("@daily", name=f"n{n}", kwargs={"day": "x" * 4000}) for n in range(30)]
    with pytest.raises(CronError, match="args of all crons have"):
        table(made(nightly, large))


def test_a_spec_survives_the_wire() -> None:
    spec = specified(
        Cron("0 3 * * *", overlap="queue", catch_up="all", catch_up_window=timedelta(hours=1)),
        "nightly",
    )
    plain = msgpack.unpackb(msgpack.packb(spec.to_dict()))

    assert CronSpec.parse(plain) == spec
    assert CronSpec.from_dict({**plain, "from_the_future": 1}) == spec


def test_the_identity_is_that_of_the_ticks() -> None:
    spec = specified(PLAIN, "nightly")
    same = specified(Cron("0 3 * * *", overlap="allow", args=[1], jitter=3), "nightly")
    others = [
        specified(Cron("0 4 * * *"), "nightly"),
        specified(Cron("0 3 * * *", timezone="Europe/Berlin"), "nightly"),
        specified(Cron("0 3 * * *", name="nightly"), "weekly"),
    ]

    assert same.identity == spec.identity
    assert spec.identity not in {other.identity for other in others}


_PLAIN: Mapping[str, Any] = specified(PLAIN, "nightly").to_dict()
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(_PLAIN)), value=_VALUES, whole=_VALUES, is_whole=st.booleans())
def test_what_a_stranger_reports_is_a_spec_or_a_clear_error(
    name: str, value: Any, whole: Any, is_whole: bool
) -> None:
    given = whole if is_whole else {**_PLAIN, name: value}
    try:
        spec = CronSpec.parse(given)
    except CronError:
        return
    msgpack.packb(spec.to_dict())
    assert CronSpec.parse(spec.to_dict()) == spec
