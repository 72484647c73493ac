"""The KMS command: real small scripts, good and bad."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fluvial_invoker.kms import MAX_WRAPPED_BYTES, KmsCommand, KmsError
from fluvial_invoker.root_keys import RootKey

# "Wraps" by turning each byte over, and puts the key's name before it.
TURNING = """
import os, sys
verb, app, key_id = sys.argv[1:]
name = f"{app}/{key_id}:".encode()
given = sys.stdin.buffer.read()
if verb == "wrap":
    out = name + bytes(255 - byte for byte in given)
else:
    assert given.startswith(name)
    out = bytes(255 - byte for byte in given[len(name):])
sys.stdout.buffer.write(out)
"""
ROOT = bytes(range(32))


def command(script: str, *, seconds: float = 10.0) -> KmsCommand:
    return KmsCommand([sys.executable, "-c", script], deadline_seconds=seconds)


def root() -> RootKey:
    return RootKey(bytearray(ROOT))


def failure(script: str, *, seconds: float = 10.0) -> str:
    with pytest.raises(KmsError) as caught:
        asyncio.run(command(script, seconds=seconds).wrap("demo", "k1", root()))
    return str(caught.value)


def test_what_was_wrapped_is_unwrapped() -> None:
    kms = command(TURNING)
    wrapped = asyncio.run(kms.wrap("demo", "k1", root()))
    again = asyncio.run(kms.unwrap("demo", "k1", wrapped))

    assert wrapped.startswith(b"demo/k1:")
    assert ROOT not in wrapped
    assert again.material == ROOT


def test_arguments_are_not_a_shells(tmp_path: Path) -> None:
    kms = KmsCommand([sys.executable, "-c", TURNING + "#;$(touch x) `touch x` > x"])
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        asyncio.run(kms.wrap("demo", "k1", root()))
    finally:
        os.chdir(here)

    assert list(tmp_path.iterdir()) == []


LEAKING = """
import sys
given = sys.stdin.buffer.read()
sys.stdout.buffer.write(given)
sys.stderr.write("the key service says no\\n")
sys.exit(7)
"""


def test_a_failure_tells_the_status_and_nothing_of_the_key() -> None:
    text = failure(LEAKING)

    assert "exit status 7" in text
    assert "wrap demo k1" in text
    for form in (ROOT.decode("latin-1"), ROOT.hex(), repr(ROOT)):
        assert form not in text


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("", "wrote nothing"),
        (f"print('x' * {MAX_WRAPPED_BYTES + 1})", "wrote more than"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "signal 15"),
        ("print('the same for every key')", "did not write 32 bytes"),
        ("print('x' * 31)", "did not return the key that it had wrapped"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(script: str, reason: str) -> None:
    assert reason in failure(script)


@pytest.mark.parametrize(
    "script",
    [
        "import time; time.sleep(60)",
        "import os, time; os.close(1); time.sleep(60)",
        "import subprocess; subprocess.Popen(['sleep', '60'])",  # it holds the pipe
    ],
)
def test_a_command_that_hangs_is_killed_at_the_deadline(script: str) -> None:
    assert "did not end within 1 s" in failure(script, seconds=1.0)


def test_a_command_that_does_not_exist_is_a_failure() -> None:
    with pytest.raises(KmsError, match="could not be started: No such file"):
        asyncio.run(KmsCommand(["/nonexistent/kms"]).wrap("demo", "k1", root()))
