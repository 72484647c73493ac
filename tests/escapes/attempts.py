"""Everything that an app may try in order to reach what is not its own.

An attempt is a program that knows `facts`; it has reached its aim when it raises nothing. Outside
of a jail some are left to the machine: to settings of its kernel, or to who has installed the
platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way to try it."""

    name: str
    program: str
    undecided: Literal["never", "one user", "always"] = "never"  # outside of a jail


# What the programs share; it is executed before each of them.
PRELUDE: Final = """
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result

def syscall(*arguments):
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return called(libc.syscall(*words))

def read(path):
    with open(path, "rb") as file:
        return file.read(8)

def write(path):
    with open(path, "r+b"):
        pass  # where it is allowed, nothing must change: it is the platform's own code

def dial(family, address):
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)

NUMBERS = {
    "x86_64": dict(bpf=321, perf_event_open=298, userfaultfd=323, io_uring_setup=425,
                   add_key=248, process_vm_readv=310, name_to_handle_at=303, open_by_handle_at=304,
                   syslog=103),
    "aarch64": dict(bpf=280, perf_event_open=241, userfaultfd=282, io_uring_setup=425,
                    add_key=217, process_vm_readv=270, name_to_handle_at=264, open_by_handle_at=265,
                    syslog=116),
}[os.uname().machine]
"""

ATTEMPTS: Final = (
    Attempt(name="read the platform's keys", program='os.listdir(facts["home"] + "/keyring")'),
    Attempt(name="read the administrator's token", program='read(facts["home"] + "/token")'),
    Attempt(name="read another app's code", program='read(facts["other_bundle"] + "/main.py")'),
    Attempt(name="write to its own code", program='write(os.getcwd() + "/main.py")'),
    Attempt(
        name="write to the platform's packages",
        undecided="one user",
        program="import fluvial\nwrite(fluvial.__file__)",
    ),
    Attempt(name="read the machine's /tmp", program='read(facts["shared_file"])'),
    Attempt(name="write to the machine's /tmp", program='write(facts["shared_file"])'),
    Attempt(
        name="leave its root through /proc",
        program="""
ways = ["/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../../../.."]
ways += [f"/proc/self/fd/{fd}/../../../../../../.." for fd in os.listdir("/proc/self/fd")]
for way in ways:
    try:
        read(way + facts["shared_file"])
        break
    except OSError as error:
        refused = error
else:
    raise refused
""",
    ),
    Attempt(
        name="follow a link to the platform's keys",
        program="""
import tempfile
with tempfile.TemporaryDirectory() as folder:
    os.symlink(facts["home"] + "/keyring", folder + "/link")
    os.listdir(folder + "/link")
""",
    ),
    Attempt(
        name="dial the invoker",
        program='dial(socket.AF_UNIX, facts["home"] + "/run/invoker.sock")',
    ),
    Attempt(name="dial another instance", program='dial(socket.AF_UNIX, facts["other_address"])'),
    Attempt(
        name="dial an abstract socket of the machine",
        program='dial(socket.AF_UNIX, chr(0) + facts["abstract"])',
    ),
    Attempt(
        name="dial a TCP port of the machine",
        program='dial(socket.AF_INET, ("127.0.0.1", facts["port"]))',
    ),
    Attempt(
        name="open a raw socket",
        undecided="always",
        program="socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()",
    ),
    Attempt(
        name="open a socket of the kernel's cryptography",
        undecided="always",
        program="socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()",
    ),
    Attempt(
        name="see which processes run",
        program="read(f\"/proc/{facts['other_pid']}/cmdline\")",
    ),
    Attempt(name="signal the invoker", program='os.kill(facts["invoker_pid"], 0)'),
    Attempt(name="signal another instance", program='os.kill(facts["other_pid"], 0)'),
    Attempt(
        name="trace another instance",
        program='called(libc.ptrace(0x4206, facts["other_pid"], None, None))',
    ),
    Attempt(
        name="read another instance's memory",
        program="""
target = ctypes.create_string_buffer(16)
parts = (ctypes.c_size_t * 2)(ctypes.addressof(target), 8)
syscall(NUMBERS["process_vm_readv"], facts["other_pid"], parts, 1, parts, 1, 0)
""",
    ),
    Attempt(
        name="read another instance's environment",
        program="read(f\"/proc/{facts['other_pid']}/environ\")",
    ),
    Attempt(
        name="list another instance's descriptors",
        program="os.listdir(f\"/proc/{facts['other_pid']}/fd\")",
    ),
    Attempt(
        name="attach shared memory of the machine (System V)",
        program="""
shmget = libc.shmget
called(shmget(facts["shm_key"], 1, 0))
""",
    ),
    Attempt(name="open shared memory of the machine (POSIX)", program='read(facts["shm_file"])'),
    Attempt(
        name="keep a key in the kernel",
        undecided="always",
        program='syscall(NUMBERS["add_key"], b"user", b"fluvial", b"x", 1, -3)',
    ),
    Attempt(name="become root", program="os.setuid(0)\nif os.getuid(): raise PermissionError"),
    Attempt(
        name="move into new namespaces",
        undecided="always",
        program="""
child = os.fork()
if child == 0:
    os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
if os.waitpid(child, 0)[1]:
    raise PermissionError
""",
    ),
    Attempt(
        name="start a process in new namespaces",
        undecided="always",
        program="""
import signal
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
child = syscall(number, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
""",
    ),
    Attempt(
        name="mount something",
        program='called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))',
    ),
    Attempt(name="change its root", program='os.chroot("/tmp")'),
    Attempt(
        name="change the host name",
        program="name = socket.gethostname().encode()\ncalled(libc.sethostname(name, len(name)))",
    ),
    Attempt(
        name="open files by handle",
        program="""
handle = ctypes.create_string_buffer((128).to_bytes(4, "little"), 136)
mount = ctypes.c_int()
here = os.open(os.getcwd(), os.O_RDONLY)
syscall(NUMBERS["name_to_handle_at"], here, b"main.py", handle, ctypes.byref(mount), 0)
os.close(syscall(NUMBERS["open_by_handle_at"], here, handle, 0))
""",
    ),
    Attempt(
        name="read the kernel's log",
        undecided="always",
        program='syscall(NUMBERS["syslog"], 10, None, 0)',
    ),
    Attempt(
        name="load a program into the kernel (bpf)",
        undecided="always",
        program='syscall(NUMBERS["bpf"], 0, struct.pack("5I", 2, 4, 8, 1, 0), 20)',
    ),
    Attempt(
        name="count events of the processor (perf)",
        undecided="always",
        program="""
events = ctypes.create_string_buffer((1).to_bytes(4, "little") + (112).to_bytes(4, "little"), 112)
os.close(syscall(NUMBERS["perf_event_open"], events, 0, -1, -1, 0))
""",
    ),
    Attempt(
        name="handle page faults (userfaultfd)",
        undecided="always",
        program='os.close(syscall(NUMBERS["userfaultfd"], 1))',
    ),
    Attempt(
        name="make an io_uring",
        undecided="always",
        program='os.close(syscall(NUMBERS["io_uring_setup"], 4, ctypes.create_string_buffer(120)))',
    ),
)
