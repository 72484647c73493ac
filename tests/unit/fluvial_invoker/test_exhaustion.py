"""What counts as a failure for want of something, and when a process is short of it."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator

import pytest

from fluvial_invoker.instance.exhaustion import find_shortage, is_want


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * used + 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (OSError(errno.EMFILE, "too many"), True),
        (OSError(errno.ENOMEM, "no memory"), True),
        (OSError(errno.ENOENT, "no file"), False),
        (ValueError(), False),
    ],
)
def test_a_want_is_told_from_other_failures(error: BaseException, is_one: bool) -> None:
    assert is_want(error) is is_one


@pytest.mark.usefixtures("few_descriptors")
def test_a_process_is_short_of_descriptors_while_it_keeps_them() -> None:
    before = find_shortage()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    kept = [os.dup(0) for _ in range(int(0.9 * limit) - len(os.listdir("/proc/self/fd")))]
    while_kept = find_shortage()
    for fd in kept:
        os.close(fd)

    assert (before, while_kept, find_shortage()) == (None, "descriptors", None)
