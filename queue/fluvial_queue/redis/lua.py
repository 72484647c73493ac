"""The store's Lua scripts: one file each in `scripts/`, called by their SHA."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from fluvial_queue.redis.dialing import Command
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.replies import NoScriptError
from fluvial_queue.redis.room import DiskRoom

_FOLDER = files("fluvial_queue.redis") / "scripts"


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, with the prelude behind its first line, and the SHA-1 that names it."""

    text: str
    sha: str
    writes: bool
    is_new_work: bool  # refused where there is no room, so that what is under way has it


def _read(name: str, *, flags: str = "") -> Script:
    """`flags`: instead of those of the file's first line."""
    first_line, _, rest = (_FOLDER / f"{name}.lua").read_text("utf-8").partition("\n")
    first_line = f"#!lua flags={flags}" if flags else first_line
    prelude = (_FOLDER / "prelude.lua").read_text("utf-8")
    text = f"{first_line}\n{prelude}\n{rest}"
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(
        text,
        sha,
        writes="no-writes" not in first_line,
        is_new_work="allow-oom" not in first_line,
    )


ACQUIRE: Final = _read("acquire")
APPEND: Final = _read("append")
CLOSE: Final = _read("close")
CLAIM: Final = _read("claim")
COMMIT: Final = _read("commit")
CREATE: Final = _read("create")
DELETE: Final = _read("delete")
DUE: Final = _read("due")
FIRE: Final = _read("fire")
LIST_STREAMS: Final = _read("list_streams")
PUT_RECORD: Final = _read("put_record")
READ_RUN: Final = _read("read_run")
READ_STREAM: Final = _read("read_stream")
RELEASE: Final = _read("release")
RENEW: Final = _read("renew")
REOPEN: Final = _read("reopen")
SEND: Final = _read("send")
SEND_URGENT: Final = _read("send", flags="allow-oom")
START: Final = _read("start")
UNCLAIM: Final = _read("unclaim")
UNINDEX: Final = _read("unindex")
WINDOW: Final = _read("window")

# Every new connection loads them all, so that NOSCRIPT only follows a SCRIPT FLUSH.
LOAD_ALL: Final[tuple[Command, ...]] = tuple(
    ("SCRIPT", "LOAD", script.text)
    for script in (
        *(ACQUIRE, CLAIM, CLOSE, COMMIT, CREATE, DELETE, DUE, FIRE, PUT_RECORD, READ_RUN),
        *(RELEASE, RENEW, REOPEN, SEND, SEND_URGENT, START, UNCLAIM, UNINDEX, WINDOW),
        *(APPEND, LIST_STREAMS, READ_STREAM),
    )
)

Argument = str | bytes | int


class Scripts:
    """Calls scripts over a link."""

    def __init__(self, link: Link, room: DiskRoom | None = None) -> None:
        """`room`: of a server that writes to a disk of this machine."""
        self._link = link
        self._room = room
        self.repeats = 0  # how many calls were made again, hence later than they seem

    async def run(self, script: Script, keys: list[str], arguments: list[Argument]) -> Any:
        """Run a script and return its reply.

        Raises:
            StoreFullError: it would bring new work, and there is no room for that.
        """
        if script.is_new_work and self._room is not None:
            self._room.check()
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            return await self._link.call(command, writes=script.writes)
        except NoScriptError:
            self.repeats += 1
        # Nothing happened. The text goes along, so that this cannot miss again.
        command = ("EVAL", script.text, len(keys), *keys, *arguments)
        return await self._link.call(command, writes=script.writes)
