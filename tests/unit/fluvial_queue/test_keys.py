"""Every script touches one slot, and only keys that it was given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fluvial_queue.redis
from fluvial.ids import new_run_id, partition_of
from fluvial_queue.redis import lua
from fluvial_queue.redis.keys import Keys, claim_partition

SCRIPTS = sorted((Path(fluvial_queue.redis.__file__).parent / "scripts").glob("*.lua"))
RUNNABLE = [path for path in SCRIPTS if path.stem != "prelude"]
PUBLISH = "PUBLISH"  # its channel is no key


def tag(key: str) -> str:
    """The hash tag that decides the slot."""
    match = re.search(r"\{([^}]+)\}", key)
    assert match is not None, key
    return match.group(1)


def test_all_keys_of_a_partition_and_its_runs_share_a_slot() -> None:
    keys = Keys("my.prefix")
    run_id = new_run_id(64)
    partition = partition_of(run_id)
    of_partition = [keys.lease, keys.messages, keys.timers, keys.open, keys.index, keys.claims]
    of_run = [keys.run, keys.log, keys.input, keys.hooks, keys.resumes, keys.streams]
    names = [*(key(partition) for key in of_partition), *(key(run_id) for key in of_run)]

    assert {tag(name) for name in names} == {f"my.prefix:p{partition:03d}"}
    assert len(set(names)) == len(names)


def test_partitions_and_prefixes_have_keys_of_their_own() -> None:
    assert len({tag(Keys().lease(partition)) for partition in range(1024)}) == 1024
    assert Keys("a").meta != Keys("b").meta
    assert Keys("a").records("app") != Keys("a").records("host")


def test_claims_spread_over_partitions() -> None:
    used = {claim_partition("app", f"order:{i}", 64) for i in range(2000)}

    assert used == set(range(64))


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_script_says_whether_it_needs_memory(path: Path) -> None:
    first_line = path.read_text().partition("\n")[0]
    adds = {"start", "send", "append", "put_record"}  # refused when the store is full

    assert first_line.startswith("#!lua")
    assert ("allow-oom" in first_line) == (path.stem not in adds)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_never_makes_up_a_key(path: Path) -> None:
    text = re.sub(r"--.*", "", path.read_text())
    named = {
        "lease",
        "run",
        "log",
        "input",
        "hooks",
        "resumes",
        "streams",
        "MESSAGES",
        "TIMERS",
        "OPEN",
    }
    called = re.findall(r"call\('([A-Z]+)', (?:'STREAM', )?([A-Za-z]+)", text)
    assert {key for command, key in called if command != PUBLISH} <= named | {"KEYS"}

    for names, value in re.findall(r"local ([\w, ]+) = ([^\n]+)", text):
        if named & set(names.split(", ")):
            assert "KEYS" in value


def test_every_script_is_loaded() -> None:
    loaded = {command[2] for command in lua.LOAD_ALL}

    urgent = 1  # `send` is loaded twice: once as new work, once as what makes room
    assert len(loaded) == len(RUNNABLE) + urgent
