"""The real clock and real chance, for Fluvial's own use.

While a workflow's loop runs in a thread, `os.urandom`, `time.time` and their like answer from the
run (`fluvial.guards`). Fluvial itself works there too: it seals what the workflow asked for. A
nonce drawn from the run would be the same in every replay, and AES-GCM with a repeated nonce gives
its key away. So Fluvial's own code takes time and chance from here and never from Python's modules;
a test holds it to that.

The functions are taken when this module is imported, which `fluvial.guards` does before it replaces
anything.
"""

from __future__ import annotations

from os import urandom as random_bytes
from time import monotonic, thread_time_ns, time_ns

__all__ = ["monotonic", "random_bytes", "thread_time_ns", "time_ns"]
