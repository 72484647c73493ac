"""The filter of system calls says for each call what it should, on both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from fluvial_invoker.instance.jail.seccomp import PROGRAMS

ALLOWED = "allowed"
KILLED = "killed"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEW_USERS = 0x10000000
THREAD = 0x3D0F00  # what the C library passes for a thread
AF_INET = 2
AF_PACKET = 17


def judge(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> object:
    """Execute the filter as the kernel would; return ALLOWED, KILLED or the error."""
    architecture = ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("=IIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    program = list(struct.iter_unpack("=HBBI", PROGRAMS[machine]))
    place = accumulator = 0
    while True:
        code, yes, no, value = program[place]
        place += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x06:
                return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(value, value & 0xFFFF)
            case _:
                holds = {
                    0x15: accumulator == value,
                    0x35: accumulator >= value,
                    0x45: bool(accumulator & value),
                }[code]
                place += yes if holds else no


CASES = {
    "read": (0, 63, 0, ALLOWED),
    "execve": (59, 221, 0, ALLOWED),
    "mount": (165, 40, 0, errno.EPERM),
    "ptrace": (101, 117, 0, errno.EPERM),
    "vmsplice": (278, 75, 0, errno.EPERM),
    "clone3": (435, 435, 0, errno.ENOSYS),
    "io_uring_setup": (425, 425, 0, errno.ENOSYS),
    "clone of a thread": (56, 220, THREAD, ALLOWED),
    "clone of a process": (56, 220, 17, ALLOWED),
    "clone with namespaces": (56, 220, 17 | NEW_USERS, errno.EPERM),
    "a TCP socket": (41, 198, AF_INET, ALLOWED),
    "a packet socket": (41, 198, AF_PACKET, errno.EPERM),
    "a call unknown today": (999, 999, 0, ALLOWED),
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", CASES)
def test_the_filter_judges_a_call(machine: str, name: str) -> None:
    *numbers, argument, expected = CASES[name]
    number = numbers[list(ARCHITECTURES).index(machine)]

    assert judge(machine, int(number), int(argument)) == expected


def test_calls_of_a_foreign_architecture_end_the_process() -> None:
    i386 = 0x40000003

    assert judge("x86_64", 3, architecture=i386) == KILLED
    assert judge("x86_64", 0x40000000 | 165) == KILLED
