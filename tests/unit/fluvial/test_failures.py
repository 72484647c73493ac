"""Exceptions as data: they come back as themselves, without running anybody's constructor."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.codec import decode, encode
from fluvial.error_payloads import decode_error, describe_error, encode_error
from fluvial.errors import (
    FatalError,
    HookConflictError,
    RemoteError,
    RetryableError,
    SerializationError,
    StepFailedError,
)
from fluvial.failures import MAX_CHAIN, MAX_EXCEPTIONS
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


class PaymentDeclined(Exception):  # noqa: N818 - as users name theirs
    """Its constructor takes other things than it hands on, and may run once only."""

    made = 0

    def __init__(self, account: str, cents: int) -> None:
        type(self).made += 1
        super().__init__(f"{account} lacks {cents} cents")
        self.account = account
        self.cents = cents


class CardDeclined(PaymentDeclined):
    pass


class Slotted(Exception):  # noqa: N818 - as above
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Moody(OSError):  # noqa: N818 - as above
    def __init__(self, host: str) -> None:
        super().__init__(111, "refused", host)
        self.host = host


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818 - as above
    code: int


class Wrapping(Exception):  # noqa: N818 - as above
    def __init__(self, original: Exception) -> None:
        super().__init__(original)
        self.original = original


class Holding(Exception):  # noqa: N818 - as above
    def __init__(self, client: object) -> None:
        super().__init__("no answer", client)
        self.client = client
        self.status = 502


class Talking(Holding):
    def __str__(self) -> str:
        return f"the client {self.client} said nothing"


class Client:
    def __repr__(self) -> str:
        return "c1"


class Mute(Exception):  # noqa: N818 - as above
    def __str__(self) -> str:
        raise ValueError("no")


class Failures(ExceptionGroup[Exception]):
    def __new__(cls, errors: list[Exception], code: int) -> Failures:
        made = super().__new__(cls, "several failed", errors)
        made.code = code
        return made

    code: int

    def __init__(self, errors: list[Exception], code: int) -> None:
        super().__init__("several failed", errors)


BUILT_IN = (
    *("errno", "filename", "filename2", "characters_written", "name", "path", "value", "lineno"),
    *("offset", "text", "end_lineno", "start", "object", "reason"),
)


def crossed(error: BaseException) -> Any:
    return decode(encode(error))


def raised(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it raises
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OSError(2, "gone"),
        OSError(2, "gone", "/a", None, "/b"),
        BlockingIOError(11, "busy", 3),
        ImportError("no", name="a", path="/b"),
        StopIteration(5),
        NameError("who", name="x"),
        SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        UnicodeTranslateError("é", 0, 1, "bad"),
        raised(lambda: json.loads("{")),
        raised(lambda: 1 / 0),
        FatalError("no"),
        RetryableError("later", retry_after=9),
        SerializationError("a.b", "bad"),
        HookConflictError("t"),
        StepFailedError("s", 2, "bad"),
        RemoteError("x.Y", "z"),
        FrozenInstanceError("f"),
        PaymentDeclined("ada", 5),
        CardDeclined("ada", 5),
        Slotted("why"),
        Moody("h"),
        Frozen(3),
        asyncio.QueueEmpty(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_themselves(error: Exception) -> None:
    made = PaymentDeclined.made
    back = crossed(error)

    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert {k: v for k, v in vars(back).items() if k != "__notes__"} == vars(error)
    assert PaymentDeclined.made == made
    for name in BUILT_IN:
        assert getattr(back, name, None) == getattr(error, name, None)


def test_traceback_and_notes_survive_many_crossings() -> None:
    def fail() -> None:
        raise PaymentDeclined("ada", 5)

    error = raised(fail)
    error.add_note("a note")
    notes = crossed(crossed(error)).__notes__

    assert notes[0] == "a note"
    assert notes[1].startswith("remote traceback")
    assert "in fail" in notes[1]
    assert len(notes) == 2


def test_causes_and_contexts_are_linked_again() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            try:
                raise PaymentDeclined("ada", 5) from error
            except PaymentDeclined:
                raise CardDeclined("bob", 6)  # noqa: B904 - its context is the point

    back = crossed(raised(fail))

    assert type(back) is CardDeclined
    assert back.__cause__ is None
    assert not back.__suppress_context__
    assert type(back.__context__) is PaymentDeclined
    assert back.__context__.__suppress_context__
    assert repr(back.__context__.__cause__) == "KeyError('inner')"
    assert back.__context__.__context__ is back.__context__.__cause__


def test_raising_from_none_stays_so() -> None:
    def fail() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    back = crossed(raised(fail))

    assert back.__suppress_context__
    assert back.__cause__ is None


def test_an_error_that_holds_its_cause_holds_the_same_one_again() -> None:
    def fail() -> None:
        try:
            raise PaymentDeclined("ada", 5)
        except PaymentDeclined as error:
            raise Wrapping(error) from error

    back = crossed(raised(fail))

    assert back.original is back.__cause__ is back.args[0]
    assert back.original.account == "ada"


def test_wrapping_again_and_again_costs_no_more_each_time() -> None:
    error: Exception = ValueError("first")
    for _ in range(40):
        outer = Wrapping(error)
        outer.__cause__ = error
        error = outer

    assert len(encode(error)) < 5000
    depth = 0
    found: Any = crossed(error)
    while isinstance(found, Wrapping):
        found, depth = found.original, depth + 1
    assert depth == 40


def test_a_chain_that_turns_back_is_cut() -> None:
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one
    three = ValueError(3)
    three.__context__ = one
    selfish = Wrapping(three)
    selfish.original = selfish

    assert crossed(one).__cause__.__cause__ is None
    assert crossed(three).__context__.__cause__.__cause__ is None
    back = crossed(selfish)
    assert back.original is back


def test_a_long_chain_ends_somewhere() -> None:
    error = ValueError(0)
    for number in range(100):
        outer = ValueError(number)
        outer.__cause__ = error
        error = outer
    found: Any = crossed(error)
    depth = 0
    while found.__cause__ is not None:
        found, depth = found.__cause__, depth + 1

    assert depth == MAX_CHAIN


def test_groups_keep_their_members_and_theirs() -> None:
    inner = ExceptionGroup("inner", [PaymentDeclined("ada", 5), KeyError(1)])
    inner.exceptions[0].__cause__ = ValueError("why")
    back = crossed(ExceptionGroup("outer", [inner, TimeoutError()]))

    assert back.message == "outer"
    assert back.exceptions[0].message == "inner"
    assert back.exceptions[0].exceptions[0].cents == 5
    assert repr(back.exceptions[0].exceptions[0].__cause__) == "ValueError('why')"
    declined, rest = back.split(PaymentDeclined)
    assert declined is not None
    assert rest is not None


def test_a_group_class_with_a_constructor_of_its_own_comes_back() -> None:
    back = crossed(Failures([ValueError(1)], 7))

    assert type(back) is Failures
    assert back.code == 7
    assert str(back) == "several failed (1 sub-exception)"


def test_groups_in_groups_cost_no_more_each_time() -> None:
    group = ExceptionGroup[Exception]("g", [ValueError(1)])
    for _ in range(300):
        outer = ExceptionGroup[Exception]("g", [group])
        outer.__context__ = group
        group = outer
    back = crossed(group)

    assert isinstance(back.exceptions[0].exceptions[0], ExceptionGroup)


def test_a_group_without_end_keeps_what_fits() -> None:
    back = crossed(ExceptionGroup("many", [ValueError(n) for n in range(2 * MAX_EXCEPTIONS)]))

    assert len(back.exceptions) == MAX_EXCEPTIONS - 1
    assert back.__notes__ == [f"left behind: {MAX_EXCEPTIONS + 1} more exceptions of the group"]


def test_what_ends_processes_or_tasks_comes_back_as_a_stand_in() -> None:
    back = crossed(BaseExceptionGroup("all", [KeyboardInterrupt(), asyncio.CancelledError("x")]))

    assert type(back) is ExceptionGroup
    assert [type(each) for each in back.exceptions] == [RemoteError, RemoteError]
    assert str(back.exceptions[1]) == "asyncio.exceptions.CancelledError: x"
    assert type(crossed(SystemExit(3))) is RemoteError


def test_what_cannot_be_stored_is_left_behind_with_a_note() -> None:
    back = crossed(Holding(object()))

    assert type(back) is Holding
    assert back.args == ("no answer", "<object>")
    assert vars(back).keys() == {"status", "__notes__"}
    assert back.__notes__ == ["left behind, as it cannot be stored: client (object)"]


def test_an_error_that_cannot_speak_without_what_it_lost_keeps_its_text() -> None:
    error = Talking(Client())
    group = ExceptionGroup("g", [Wrapping(error), ValueError()])
    back = crossed(group).exceptions[0].original

    assert type(back) is RemoteError
    assert back.text == "the client c1 said nothing"


def test_an_error_that_never_speaks_crosses_anyway() -> None:
    back = crossed(Mute())

    assert type(back) is RemoteError
    assert describe_error(Mute()) == "Mute: <its __str__ raised ValueError>"


def test_text_without_a_utf8_form_crosses() -> None:
    error = ValueError("caf\udce9")
    error.add_note("\ud800")

    back = decode_error(encode_error(error))

    assert type(back) is ValueError
    assert back.__notes__ == ["\\ud800"]


def test_a_class_that_is_not_imported_gives_a_stand_in() -> None:
    class OrderError(Exception):
        pass

    back = crossed(OrderError("no order"))

    assert type(back) is RemoteError
    assert back.type_name.endswith("OrderError")
    assert back.text == "no order"


def test_a_name_in_the_data_gives_nothing_but_exceptions() -> None:
    for name in (b"builtins:list", b"builtins:SystemExit", b"builtins:BaseException"):
        padded = name.decode().ljust(len("builtins:ZeroDivisionError"), "_")
        forged = encode(ZeroDivisionError("x")).replace(
            b"builtins:ZeroDivisionError", padded.encode()
        )
        assert type(decode(forged)) is RemoteError


def test_forged_positions_do_not_crash_the_process() -> None:
    data = encode(UnicodeDecodeError("utf-8", b"x", 0, 1, "r"))
    start = data.index(b"start") + len(b"start")
    forged = data[:start] + b"\xe0" + data[start + 1 :]  # -32: read before the object's beginning

    assert str(decode(forged)) == ""


def test_an_error_too_large_to_store_is_cut_to_its_text() -> None:
    error = ValueError("x" * 30_000_000)

    back = decode_error(encode_error(error))

    assert type(back) is RemoteError
    assert len(str(back)) < 2000


def test_an_error_that_cannot_be_read_is_an_error_too() -> None:
    back = decode_error(b"mnonsense")

    assert type(back) is SerializationError


MODULE = """
class Declined(Exception):
    def __init__(self, account, cents):
        super().__init__(f"{account} lacks {cents}")
        self.account, self.cents = account, cents
"""
PROGRAM = """
import sys
import shop
from fluvial.codec import encode
try:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise shop.Declined("ada", 5) from inner
except shop.Declined as error:
    sys.stdout.buffer.write(encode(error))
"""


def test_an_error_of_another_process_is_itself_here(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    data = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, check=True, timeout=60
    ).stdout
    assert type(decode(data)) is RemoteError  # not imported here yet
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    shop: Any = importlib.import_module("shop")

    back = decode(data)
    monkeypatch.delitem(sys.modules, "shop")

    assert isinstance(back, shop.Declined)
    assert (back.account, back.cents) == ("ada", 5)
    assert repr(back.__cause__) == "KeyError('inner')"
    assert "line 9, in <module>" in back.__notes__[0]


@step(retries=0, name="failures.pay")
async def pay(account: str) -> None:
    raise PaymentDeclined(account, 5)


@workflow(name="failures.shop")
async def shop_for(account: str) -> str:
    try:
        await pay(account)
    except StepFailedError as error:
        cause = error.__cause__
        assert isinstance(cause, PaymentDeclined)
        if cause.account == "ada":
            return f"declined for {cause.cents}"
        raise
    return "paid"


@pytest.fixture
def shop_functions() -> None:
    registry.steps[pay.name] = pay
    registry.workflows[shop_for.name] = shop_for


@pytest.mark.usefixtures("shop_functions")
def test_a_workflow_tells_errors_of_its_steps_apart(play: Play) -> None:
    assert play(shop_for, "ada").result == "declined for 5"


@pytest.mark.usefixtures("shop_functions")
def test_an_uncaught_error_reaches_the_caller_with_its_causes(play: Play) -> None:
    error = play(shop_for, "bob").error

    assert type(error) is StepFailedError
    assert isinstance(error.__cause__, PaymentDeclined)
    assert error.__cause__.account == "bob"
