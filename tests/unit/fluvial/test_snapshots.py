"""Hooks around a snapshot."""

from __future__ import annotations

import sys
import types

import pytest

from fluvial import register_after_restore, register_before_snapshot, snapshots


@pytest.fixture(autouse=True)
def empty_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_before", [])
    monkeypatch.setattr(snapshots, "_after", [])


def test_hooks_are_returned_and_called_with_their_arguments() -> None:
    calls: list[tuple[int, str]] = []

    def note(number: int, *, name: str = "default") -> None:
        calls.append((number, name))

    assert register_before_snapshot(note, 1, name="a") is note
    assert register_after_restore(note, 2) is note
    snapshots.run_before_snapshot()
    snapshots.run_after_restore()

    assert calls == [(1, "a"), (2, "default")]


def test_those_of_the_compatible_package_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def hook(name: str) -> tuple[object, tuple[str], dict[str, object]]:
        return order.append, (name,), {}

    theirs = types.ModuleType("snapshot_restore_py")
    vars(theirs)["get_before_snapshot"] = lambda: [hook("their before")]
    vars(theirs)["get_after_restore"] = lambda: [hook("their after")]
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", theirs)
    register_before_snapshot(order.append, "our before")
    register_after_restore(order.append, "our after")
    snapshots.run_before_snapshot()
    snapshots.run_after_restore()

    assert order == ["our before", "their before", "their after", "our after"]
