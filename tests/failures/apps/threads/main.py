"""A sync app that executes what it is sent, beside requests that wait."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

NEIGHBOURS = 2
waiting: set[str] = set()
all_wait = threading.Event()
released = threading.Event()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    name, _, pid = environ["PATH_INFO"].strip("/").partition("/")
    text = str(os.getpid())
    if name == "run":
        sys.stdout.write(f"{pid} begins\n")
        names: dict[str, Any] = {}
        code = environ["wsgi.input"].read().decode()
        exec("def program():\n" + textwrap.indent(code, "    "), names)
        names["program"]()
        text = "went on"
    elif name == "wait" and environ["REQUEST_METHOD"] == "GET":
        text = "made again"
        if os.getpid() == int(pid):
            released.clear()
            arrive("GET")
            released.wait()
            text = "waited"
    elif name == "wait":
        environ["wsgi.input"].read(1)
        arrive("POST")
        environ["wsgi.input"].read()
        released.set()
        text = "waited"
    elif name == "arrived":
        all_wait.wait()
        waiting.clear()
        all_wait.clear()
    start_response("200 OK", [("content-type", "text/plain")])
    return [text.encode()]


def arrive(method: str) -> None:
    waiting.add(method)
    if len(waiting) == NEIGHBOURS:
        all_wait.set()
