"""A filter of system calls: everything is allowed, but for what is dangerous and no app needs.

The program is built once, when the module is imported. What is denied fails with EPERM, or with
ENOSYS where callers know what to do without (`clone3`, whose flags no filter can read; io_uring).
A call of a foreign architecture ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import Final

from fluvial_invoker.instance.jail.kernel import MACHINE, call

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_KILL: Final = 0x80000000
_NUMBER_AT: Final = 0  # in struct seccomp_data
_ARCHITECTURE_AT: Final = 4
_FIRST_ARGUMENT_AT: Final = 16  # its lower half, on little-endian machines
_MODE_FILTER: Final = 1
_X32_BIT: Final = 0x40000000

# Of clone and unshare: new namespaces of any kind.
_NAMESPACES: Final = 0x7E020000 | 0x00000080
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (which getaddrinfo asks for the machine's addresses).
_FAMILIES: Final = (1, 2, 10, 16)

_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: its numbers on x86_64 and aarch64; None: there is no such call there
_DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
    "vmsplice": (278, 75),
}
_ABSENT: Final[dict[str, tuple[int, int]]] = {
    "clone3": (435, 435),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
}
_CLONE: Final = (56, 220)
_SOCKET: Final = (41, 198)


def is_supported() -> bool:
    """Tell whether there is a filter for this machine."""
    return MACHINE in _ARCHITECTURES


def install() -> None:
    """Filter the calls of this process and of all that it starts, for ever.

    Needs `no_new_privs`.

    Raises:
        OSError: the kernel refuses.
    """
    program = PROGRAMS[MACHINE]
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(instructions))
    call("seccomp", _MODE_FILTER, 0, header)


def build(machine: str) -> bytes:
    """Return the filter's program for a machine."""
    place = list(_ARCHITECTURES).index(machine)
    rest = [
        *_deny({name: numbers[place] for name, numbers in _DENIED.items()}, errno.EPERM),
        *_deny({name: numbers[place] for name, numbers in _ABSENT.items()}, errno.ENOSYS),
        *_clone(_CLONE[place]),
        *_socket(_SOCKET[place]),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join((*_head(machine), *rest))


def _head(machine: str) -> list[bytes]:
    return [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, _ARCHITECTURES[machine], yes=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_AT_LEAST, _X32_BIT, no=1),  # the calls of x32 have numbers of their own
        _instruction(_RETURN, _KILL),
    ]


def _deny(numbers: dict[str, int | None], error: int) -> list[bytes]:
    instructions: list[bytes] = []
    for number in numbers.values():
        if number is not None:
            instructions.append(_instruction(_EQUAL, number, no=1))
            instructions.append(_instruction(_RETURN, _ERROR | error))
    return instructions


def _clone(number: int) -> list[bytes]:
    return [
        _instruction(_EQUAL, number, no=4),
        _instruction(_LOAD, _FIRST_ARGUMENT_AT),
        _instruction(_ANY_BIT, _NAMESPACES, no=1),
        _instruction(_RETURN, _ERROR | errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]


def _socket(number: int) -> list[bytes]:
    families = [
        _instruction(_EQUAL, family, yes=len(_FAMILIES) - place)
        for place, family in enumerate(_FAMILIES)
    ]
    return [
        _instruction(_EQUAL, number, no=len(families) + 2),
        _instruction(_LOAD, _FIRST_ARGUMENT_AT),
        *families,
        _instruction(_RETURN, _ERROR | errno.EPERM),
    ]


def _instruction(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


PROGRAMS: Final = {machine: build(machine) for machine in _ARCHITECTURES}
