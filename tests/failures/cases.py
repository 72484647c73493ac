"""All cases of the failure table, in its order."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.failures.case import Case, Seen

_LOST: Final = "502 instance_died"
_LATE: Final = "504 function_timeout"
_BY_INSTANCE: Final = "by instance"

# Nobody but its caller notices, and the log names the invocation.
_FAILED: Final = Seen(
    caller="500",
    safe_neighbour="200",
    unsafe_neighbour="200",
    instance="goes on",
    log="by invocation",
    afterwards="200",
)
_HARMLESS: Final = replace(_FAILED, caller="200")
# The process is gone, and with it all that it executed.
_DIED: Final = Seen(
    caller=_LOST,
    safe_neighbour="200, made again",
    unsafe_neighbour=_LOST,
    instance="",
    log=_BY_INSTANCE,
    afterwards="200",
)
# Nothing in the process moves any more; its neighbours meet their own deadlines.
_BLOCKED: Final = Seen(
    caller=_LATE,
    safe_neighbour=_LATE,
    unsafe_neighbour=_LATE,
    instance="killed",
    log=_BY_INSTANCE,
    afterwards="200",
)
_ENDLESS_THREAD: Final = replace(_FAILED, caller=_LATE, instance="stuck")

_LOOP: Final = "while True:\n    pass"
_DEADLOCK: Final = """
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""
_MEMORY: Final = """
blocks = []
while True:
    blocks.append(bytearray(1 << 24))
"""

CASES: Final = (
    Case(
        name="exception before the response",
        program="1 / 0",
        logged="ZeroDivisionError",
        expected=_FAILED,
    ),
    Case(
        name="exception in a thread",
        app="threads",
        program="1 / 0",
        logged="ZeroDivisionError",
        expected=_FAILED,
    ),
    Case(
        name="exception after the response has begun",
        program="""
await send({"type": "http.response.start", "status": 200, "headers": []})
await send({"type": "http.response.body", "body": b"a", "more_body": True})
1 / 0
""",
        logged="ZeroDivisionError",
        expected=replace(_FAILED, caller="broken off"),
    ),
    Case(
        name="exception of a task that nobody asks",
        program="""
import asyncio
async def fails():
    raise LookupError("nobody asks")
asyncio.create_task(fails())
await asyncio.sleep(0.01)
""",
        logged="LookupError: nobody asks",
        expected=_HARMLESS,
    ),
    Case(
        name="`sys.exit()`",
        program="import sys\nsys.exit(3)",
        logged="SystemExit",
        expected=_FAILED,
    ),
    Case(
        name="`sys.exit()` in a thread",
        app="threads",
        program="import sys\nsys.exit(3)",
        logged="SystemExit",
        expected=_FAILED,
    ),
    Case(
        name="`sys.exit()` in a callback of the event loop",
        program="""
import asyncio, sys
asyncio.get_running_loop().call_soon(sys.exit, 3)
await asyncio.sleep(0.01)
""",
        logged="SystemExit",
        expected=replace(_HARMLESS, log=_BY_INSTANCE),
    ),
    Case(
        name="`loop.stop()`",
        program="""
import asyncio
asyncio.get_running_loop().stop()
await asyncio.sleep(0.01)
""",
        logged="stopped the event loop",
        expected=replace(_HARMLESS, log=_BY_INSTANCE),
    ),
    Case(
        name="`loop.close()`",
        program="import asyncio\nasyncio.get_running_loop().close()",
        logged="Cannot close a running event loop",
        expected=_FAILED,
    ),
    Case(
        name="`asyncio.run()` in async code",
        program="""
import asyncio
async def nothing():
    pass
asyncio.run(nothing())
""",
        logged="asyncio.run() cannot be called",
        expected=_FAILED,
    ),
    Case(
        name="functions of `asyncio` replaced",
        program="import asyncio\nasyncio.sleep = asyncio.create_task = asyncio.gather = None",
        leaves_traces=True,
        expected=replace(_HARMLESS, log="nothing"),
    ),
    Case(
        name="`os._exit()`",
        program="import os\nos._exit(3)",
        logged="exit status 3",
        expected=replace(_DIED, instance="exit:3"),
    ),
    Case(
        name="`os._exit()` in a thread",
        app="threads",
        program="import os\nos._exit(3)",
        logged="exit status 3",
        expected=replace(_DIED, instance="exit:3"),
    ),
    Case(
        name="segmentation fault",
        program="import ctypes\nctypes.string_at(0)",
        logged="SIGSEGV",
        expected=replace(_DIED, instance="signal:11"),
    ),
    Case(
        name="`abort()` in C",
        program="import os\nos.abort()",
        logged="SIGABRT",
        expected=replace(_DIED, instance="signal:6"),
    ),
    Case(
        name="SIGKILL to itself",
        program="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        logged="SIGKILL",
        expected=replace(_DIED, instance="signal:9"),
    ),
    Case(
        name="SIGSTOP to itself",
        is_slow=True,
        program="import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        logged="was killed",
        expected=_BLOCKED,
    ),
    Case(
        name="signal handlers replaced, and an alarm",
        program="""
import asyncio, signal
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, 0.01)
await asyncio.sleep(60)
""",
        logged="SIGALRM",
        expected=replace(_DIED, instance="signal:14"),
    ),
    Case(
        name="recursion without end",
        program="def call():\n    return call()\ncall()",
        logged="RecursionError",
        expected=_FAILED,
    ),
    Case(
        name="stack overflow in C",
        program="import faulthandler\nfaulthandler._stack_overflow()",
        logged="SIGSEGV",
        expected=replace(_DIED, instance="signal:11"),
    ),
    Case(
        name="memory without end",
        program=_MEMORY,
        logged="MemoryError",
        expected=_FAILED,
    ),
    Case(
        name="memory without end, in a thread",
        app="threads",
        program=_MEMORY,
        logged="MemoryError",
        expected=_FAILED,
    ),
    Case(
        name="memory without end, and kept",
        program=f"import sys\n{_MEMORY}".replace("blocks = ", "blocks = sys.blocks = "),
        logged="short of memory",
        expected=replace(_FAILED, log=_BY_INSTANCE, instance="short of memory"),
    ),
    Case(
        name="descriptors without end, and kept",
        program="import os\nwhile True:\n    os.dup(0)",
        logged="short of descriptors",
        expected=replace(_FAILED, log=_BY_INSTANCE, instance="short of descriptors"),
    ),
    Case(
        name="all descriptors closed",
        program="import asyncio, os\nos.closerange(3, 1024)\nawait asyncio.sleep(60)",
        logged="SIGABRT",
        expected=replace(_DIED, instance="signal:6"),
    ),
    Case(
        name="thread left behind",
        program="import threading\nthreading.Thread(target=threading.Event().wait).start()",
        leaves_traces=True,
        expected=replace(_HARMLESS, log="nothing"),
    ),
    Case(
        name="child processes left behind",
        program="""
import subprocess
for _ in range(3):
    subprocess.Popen(["sleep", "3600"], start_new_session=True)
""",
        leaves_traces=True,
        expected=replace(_HARMLESS, log="nothing"),
    ),
    Case(
        name="output flood",
        program="for _ in range(1000):\n    print('x' * 100_000)",
        logged="bytes dropped",
        leaves_traces=True,
        expected=replace(_HARMLESS, log=_BY_INSTANCE),
    ),
    Case(
        name="loop without end",
        is_slow=True,
        program=_LOOP,
        logged="was killed",
        expected=_BLOCKED,
    ),
    Case(
        name="loop without end in a thread",
        app="threads",
        is_slow=True,
        ends_later=True,
        program=_LOOP,
        logged="max_duration",
        expected=_ENDLESS_THREAD,
    ),
    Case(
        name="deadlock",
        is_slow=True,
        program=_DEADLOCK,
        logged="was killed",
        expected=_BLOCKED,
    ),
    Case(
        name="deadlock in a thread",
        app="threads",
        is_slow=True,
        ends_later=True,
        program=_DEADLOCK,
        logged="max_duration",
        expected=_ENDLESS_THREAD,
    ),
    Case(
        name="wait without end",
        is_slow=True,
        program="import asyncio\nawait asyncio.Event().wait()",
        logged="max_duration",
        expected=replace(_FAILED, caller=_LATE),
    ),
)
