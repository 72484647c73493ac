"""The pytest plugin and the documented examples, in a pytest of their own, as users have it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "testing.md"
BUNDLE = """
import fluvial

@fluvial.step(name="plugin.greet")
async def greet(name: str) -> str:
    return f"hello {name}"

@fluvial.workflow(name="plugin.hello")
async def hello(name: str) -> str:
    await fluvial.sleep("7 d")
    return await greet(name)
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder that knows nothing of this repository's settings."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_async_and_other_tests_get_an_environment(tmp_path: Path) -> None:
    (tmp_path / "bundle.py").write_text(BUNDLE)
    (tmp_path / "conftest.py").write_text("""
import asyncio

def pytest_configure(config):
    config.addinivalue_line("markers", "asyncio: another plugin's")

def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("asyncio"):
        asyncio.run(pyfuncitem.obj(fluvial_env=pyfuncitem.funcargs["fluvial_env"]))
        print("run by another")
        return True
""")
    (tmp_path / "test_it.py").write_text("""
import pytest
from bundle import greet, hello
from fluvial.testing import call

async def test_async(fluvial_env):
    fluvial_env.mock(greet, returns="mocked")
    assert await (await fluvial_env.start(hello, "you")).result() == "mocked"

def test_sync(fluvial_sync_env):
    assert fluvial_sync_env.start(hello, "you").result() == "hello you"
    assert fluvial_sync_env.calls(greet) == [call("you")]

class TestInAClass:
    async def test_async(self, fluvial_env, tmp_path):
        assert await (await fluvial_env.start(hello, "you")).result() == "hello you"

@pytest.mark.asyncio
async def test_left_to_another(fluvial_env):
    assert await (await fluvial_env.start(hello, "you")).result() == "hello you"
""")

    done = run_pytest(tmp_path, "-s")

    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("run by another") == 1


def test_a_failure_is_reported_with_the_logs(tmp_path: Path) -> None:
    (tmp_path / "bundle.py").write_text(BUNDLE)
    (tmp_path / "test_it.py").write_text("""
from bundle import hello

async def test_async(fluvial_env):
    assert await (await fluvial_env.start(hello, "you")).result() == "hello me"

def test_sync(fluvial_sync_env):
    assert fluvial_sync_env.start(hello, "you").result() == "hello me"
""")

    done = run_pytest(tmp_path)

    assert "2 failed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("fluvial runs") == 2
    assert done.stdout.count("plugin.hello('you')") == 2
    assert done.stdout.count("7 d 0.000 s  TIMER_FIRED") == 2


def test_the_documented_examples_work(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    files: dict[str, str] = {}
    for text, name in blocks:
        files[name] = files.get(name, "") + text
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    done = run_pytest(tmp_path, "-s")

    assert len(files) >= 2
    assert re.search(r"\d+ passed", done.stdout), done.stdout + done.stderr
    assert "failed" not in done.stdout, done.stdout
    assert "the same outcome each time" in done.stdout
