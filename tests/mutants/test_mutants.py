"""The list of mutants cannot rot, and the runner tells what became of each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import __main__ as program
from tests.mutants import proof
from tests.mutants.listing import MUTANTS
from tests.mutants.mutant import REPOSITORY, DoesNotApplyError, Mutant
from tests.mutants.trials import Copy

DURATIONS = "tests/unit/fluvial/test_durations.py"
HEARTBEATS = "tests/unit/fluvial/test_heartbeats.py"
WRONG_MINUTES = Mutant(
    "minutes have 61 seconds",
    "sdk/fluvial/spans.py",
    '"m": 60',
    '"m": 61',
    "A minute is a minute.",
    (DURATIONS,),
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the sources."""
    return Copy(tmp_path_factory.mktemp("copy"))


def test_every_mutant_has_a_name_and_a_reason_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.path, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.breaks.endswith(".") and mutant.tests for mutant in MUTANTS)


@pytest.mark.parametrize("named", sorted({test for mutant in MUTANTS for test in mutant.tests}))
def test_the_tests_that_must_kill_mutants_exist(named: str) -> None:
    path, _, test = named.partition("::")

    assert f"def {test}" in (REPOSITORY / path).read_text("utf-8")


def test_a_mutant_whose_text_is_gone_is_told() -> None:
    gone = Mutant("gone", "sdk/fluvial/spans.py", "no such text", "", "Nothing.", (DURATIONS,))

    with pytest.raises(DoesNotApplyError, match="'gone' stands 0 times in sdk/fluvial/spans"):
        gone.apply_to("some text")


def test_a_mutant_is_killed_by_a_test_that_fails(copy: Copy) -> None:
    trial = copy.try_out(WRONG_MINUTES, 1)

    assert (trial.verdict, trial.detail.split("::")[0]) == ("killed", DURATIONS)
    assert WRONG_MINUTES.old in Path(REPOSITORY, WRONG_MINUTES.path).read_text("utf-8")


def test_a_mutant_survives_tests_that_do_not_notice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unnoticed = replace(WRONG_MINUTES, name="unnoticed", tests=(HEARTBEATS,))
    monkeypatch.setattr(program, "MUTANTS", (unnoticed,))

    assert program.main(["--json", "--jobs", "1"]) == 1
    told = capsys.readouterr()
    (trial,) = json.loads(told.out)
    assert (trial["name"], trial["verdict"]) == ("unnoticed", "survived")
    assert "1 mutants: 1 survived" in told.err


def test_tests_that_import_other_sources_are_found_out(copy: Copy) -> None:
    run = copy.run([DURATIONS], 60, modules=("json",))

    assert run.code == proof.IS_FOREIGN
    assert "json comes from" in run.output


def test_a_name_that_no_mutant_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--only", "no such mutant"]) == 2
    assert "no mutant is named like no such mutant" in capsys.readouterr().err
