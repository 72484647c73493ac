"""What an invoker and a zygote say to each other: one msgpack array per packet (SOCK_SEQPACKET)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

MAX_MESSAGE_BYTES: Final = 4096
MAX_WHY_CHARACTERS: Final = 1000  # four bytes each at most


class ZygoteMessage(IntEnum):
    """The comment lists what follows the type in the array; v invoker, z zygote."""

    FORK = 1  # v→z number:int, with the descriptors listener, log, control
    READY = 2  # z→v pid:int, imported frameworks:[str]
    FORKED = 3  # z→v number:int, pid:int
    UNFIT = 4  # z→v number:int, why:str; start this one, and all further ones, otherwise
    DIED = 5  # z→v pid:int, exit code:int (negative: the signal)
    NOT_READY = 6  # z→v stage:str (import, hooks, checks, warm-up), why:str; instead of READY
