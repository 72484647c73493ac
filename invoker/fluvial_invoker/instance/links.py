"""Connections from gateways, as the instance sees them.

* The first frame of a link is HELLO with a credential that the invoker issued; anything else, or a
  credential that is unknown or used, closes the connection.
* When a link is lost, its invocations are cancelled, and no other link is served before their code
  has stopped: the gateway counts them as dead from then on and may send them elsewhere. The end of
  an old link and the beginning of a new one can become readable in the same turn of the loop, in
  any order, so a new link first looks whether an open one has been hung up.
* Frames of one loop turn leave in one write (the event loop's transport gathers them).
* A gateway may open another connection for the health of the instance: WATCH with a token, which
  its HELLO names. That is the watchdog's from then on: see `watchdog.py` and, for what it may
  revoke, `claims.py`. It is dialled first, since the first invocation may block the loop.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from fluvial.errors import WireError
from fluvial.wire import PROTOCOL_VERSION, FrameReader, FrameType, pack
from fluvial_invoker.instance.claims import Claims
from fluvial_invoker.instance.credit import CreditedInvocation
from fluvial_invoker.instance.exhaustion import find_shortage
from fluvial_invoker.instance.functions import Functions
from fluvial_invoker.instance.invocations import Admission, Invocation
from fluvial_invoker.instance.metering import instance_meter
from fluvial_invoker.instance.output import report, report_exception
from fluvial_invoker.instance.platform import LinkPlatform
from fluvial_invoker.instance.samples import LAG
from fluvial_invoker.instance.watchdog import Watcher

_HELLO: Final = int(FrameType.HELLO)
_REQUEST: Final = int(FrameType.REQUEST)
_REQUEST_BODY: Final = int(FrameType.REQUEST_BODY)
_CREDIT: Final = int(FrameType.CREDIT)
_CANCEL: Final = int(FrameType.CANCEL)
_INVOKE: Final = int(FrameType.INVOKE)
_FORGET: Final = int(FrameType.FORGET)
_KEEP: Final = int(FrameType.KEEP)
_RESUME: Final = int(FrameType.RESUME)
_WATCH: Final = int(FrameType.WATCH)
_REPLY: Final = int(FrameType.REPLY)
_NACK: Final = int(FrameType.NACK)

_MAX_LINKS: Final = 64  # a gateway has one; more dial only when something is wrong
_HIGH_WATER_BYTES: Final = 1024 * 1024
_MAX_TOKEN_BYTES: Final = 64
_HELLO_TOKEN: Final = 7  # its place in HELLO, to which it was appended
_STUCK_SECONDS: Final = 2.0  # for the code of a lost link's invocations to stop


class Credentials(Protocol):
    """What the invoker has issued for this instance."""

    def redeem(self, credential: bytes, /) -> bool: ...
    @property
    def has_unused_credentials(self) -> bool: ...


class Watch(Protocol):
    """Whoever tells gateways of the instance's health (`watchdog.Watchdog`)."""

    def add(self, watcher: Watcher, /) -> None: ...
    def busy(self) -> None: ...
    def remove(self, watcher: Watcher, /) -> None: ...


class Links:
    """All links of this instance."""

    def __init__(
        self,
        *,
        instance: str,
        functions: Functions,
        admission: Admission,
        credentials: Credentials,
        on_unfit: Callable[[str], None],
        import_ms: int = 0,
        watchdog: Watch | None = None,
    ) -> None:
        self.instance = instance
        self.import_ms = import_ms  # how long the deployment's modules took
        self.functions = functions
        self.admission = admission
        self.credentials = credentials
        self._on_unfit = on_unfit
        self._watchdog = watchdog
        self._watches: dict[bytes, Link] = {}  # whose HELLO has not come, by token
        self._unwatched: dict[bytes, Watcher] = {}  # whose WATCH has not come
        self._is_released = False
        self.goaway_reason: str | None = None
        self._open: set[Link] = set()
        self._ending: set[Invocation] = set()  # of lost links; their code has not stopped yet
        self._waiting: list[Link] = []
        self._changed = asyncio.Event()

    def new_link(self) -> Link:
        return Link(self)

    def go_away(self, reason: str) -> None:
        """Tell every gateway, also those that dial later, to send nothing more."""
        self.goaway_reason = reason
        for link in self._open:
            link.write(pack(FrameType.GOAWAY, 0, reason))

    def released(self) -> None:
        """The invoker hands this instance out no more."""
        self._is_released = True
        self._changed.set()

    async def wait_until_unwanted(self) -> None:
        """Wait until no gateway is connected and none is about to dial."""
        while self._open or not self._is_released or self.credentials.has_unused_credentials:
            self._changed.clear()
            await self._changed.wait()

    def opened(self, link: Link) -> bool:
        """Take a new connection; false: it must wait for those of a lost link to stop."""
        if len(self._open) >= _MAX_LINKS:
            raise WireError(f"more than {_MAX_LINKS} links")
        self._lose_hung_up()
        self._open.add(link)
        if not self._ending:
            return True
        self._waiting.append(link)
        return False

    def _lose_hung_up(self) -> None:
        poll = select.poll()
        by_fd: dict[int, Link] = {}
        for link in list(self._open):
            fd = link.fileno()
            if fd < 0:
                link.lose()
                continue
            by_fd[fd] = link
            poll.register(fd, select.POLLRDHUP)
        for fd, _ in poll.poll(0):
            by_fd[fd].lose()

    def watch_came(self, link: Link) -> None:
        """A connection for the watchdog has come, for the link whose HELLO has its token."""
        watcher = self._unwatched.pop(link.token, None)
        if watcher is None:
            self._watches[link.token] = link
        else:
            self._hand_over(link, watcher)

    def hello_came(self, link: Link) -> None:
        """A gateway is welcome; with a token, it has opened a connection for the watchdog."""
        if not link.token or self._watchdog is None:
            return
        link.watcher = Watcher(link.claims)
        self._watchdog.add(link.watcher)
        watch = self._watches.pop(link.token, None)
        if watch is None:
            self._unwatched[link.token] = link.watcher
        else:
            self._hand_over(watch, link.watcher)

    def _hand_over(self, watch: Link, watcher: Watcher) -> None:
        fd = watch.take_descriptor()
        if fd is not None and self._watchdog is not None:
            watcher.attach(socket.socket(fileno=fd))
            self._watchdog.busy()  # so that the gateway hears at once that it is heard of

    def lost(self, link: Link, invocations: list[Invocation]) -> None:
        """A connection is gone, with these invocations under way."""
        self._open.discard(link)
        if link.watcher is not None and self._watchdog is not None:
            self._watchdog.remove(link.watcher)
        self._unwatched.pop(link.token, None)
        self._watches.pop(link.token, None)
        self._changed.set()
        self._ending.update(invocations)
        for invocation in invocations:
            invocation.stop("cancelled")
        if self._ending:
            asyncio.get_running_loop().call_later(_STUCK_SECONDS, self._check_stuck)

    def _check_stuck(self) -> None:
        """Leave, rather than keep the next gateway waiting for code that does not stop."""
        if self._ending:
            self._on_unfit("stuck")

    def goes_on(self, invocation: Invocation) -> None:
        """An invocation was answered at its deadline, and its thread goes on: leave without it."""
        if self.admission.lasts(invocation):
            report("it does not stop at its deadline: its instance is replaced", invocation)
            self._on_unfit("stuck")

    def check_shortage(self) -> None:
        """Leave if an invocation has kept what another one needed."""
        gc.collect()  # an error is often part of a cycle
        short_of = find_shortage()
        if short_of is not None:
            report(f"the instance is short of {short_of}: it is replaced", instance_meter)
            self._on_unfit(f"short of {short_of}")

    def ended(self, invocation: Invocation) -> None:
        """The code of an invocation has stopped."""
        self.admission.over(invocation)
        if self._ending:
            self._ending.discard(invocation)
            if not self._ending:
                waiting, self._waiting = self._waiting, []
                for link in waiting:
                    link.resume()


class Link(asyncio.Protocol):
    """One gateway's connection."""

    platform: LinkPlatform

    def __init__(self, links: Links) -> None:
        self._links = links
        self._admission = links.admission
        self._functions = links.functions
        self.claims = Claims()
        self.claim = self.claims.claim
        self.token = b""
        self.watcher: Watcher | None = None
        self._reader = FrameReader()
        self._invocations: dict[int, Invocation] = {}
        self._is_welcome = False
        self._is_waiting = False  # for the code of a lost link's invocations to stop
        self._held = b""  # what came meanwhile
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None] = _drop
        self._writable = asyncio.Event()
        self.is_congested = False
        self._keeps = False  # it wants the instance to stay when it is idle

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._write = self._transport.write
        try:
            self._is_waiting = not self._links.opened(self)
        except WireError as error:
            self._break(error)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._is_waiting:
            # Not in `connection_made`: a transport starts to read only after that.
            self._transport.pause_reading()
            self._held += data
            return
        try:
            for header, body in self._reader.feed(data):
                self._frame(header, body)
        except WireError as error:
            self._break(error)
        except (LookupError, TypeError, ValueError) as error:
            report_exception(error, instance_meter, "a gateway sent a malformed frame")
            self._break(WireError("a frame's fields are not what its type asks for"))

    def eof_received(self) -> None:
        self.lose()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()

    def pause_writing(self) -> None:
        self.is_congested = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.is_congested = False
        self._writable.set()

    # What invocations call

    def write(self, frame: bytes, /) -> None:
        """Send a frame; dropped when the gateway is gone."""
        self._write(frame)

    async def wait_until_writable(self) -> None:
        await self._writable.wait()

    def wanted(self, error: BaseException, /) -> None:
        """An invocation has failed for want of something that the process has run out of."""
        # Later: as long as the error lives, so does what the invocation holds.
        asyncio.get_running_loop().call_soon(self._links.check_shortage)

    def goes_on(self, invocation: Invocation, /) -> None:
        """An invocation is over for the gateway, and its code is not."""
        self._links.goes_on(invocation)

    # What the other links cause

    def fileno(self) -> int:
        """The connection's descriptor; only while it is open."""
        fd: int = cast("asyncio.Transport", self._transport).get_extra_info("socket").fileno()
        return fd

    def take_descriptor(self) -> int | None:
        """Give the descriptor away, and end as a link; None: the other side has hung up."""
        if self._transport is None:
            return None
        fd = os.dup(self.fileno())
        self.lose()
        return fd

    def lose(self) -> None:
        """The gateway is gone: drop what was not read, cancel what is under way."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.abort()
        self._write = _drop
        self._keep(wanted=False)
        self.resume_writing()
        if self._is_welcome:
            self.platform.close()
        self._links.lost(self, list(self._invocations.values()))

    def resume(self) -> None:
        """The invocations of a lost link have stopped: serve this one."""
        self._is_waiting = False
        held, self._held = self._held, b""
        if held and self._transport is not None:
            self._transport.resume_reading()
            self.data_received(held)

    # Frames

    def _frame(self, header: list[Any], body: bytes) -> None:
        kind = header[0]
        if not self._is_welcome:
            if kind == _WATCH and not self.token:
                self.token = _token(header[2])
                self._links.watch_came(self)
            else:
                self._hello(kind, header)
        elif kind == _REQUEST:
            self._request(header, body)
        elif kind == _INVOKE:
            self._invoke(header, body)
        elif kind == _REQUEST_BODY:
            invocation = self._invocations.get(header[1])
            if isinstance(invocation, CreditedInvocation):
                invocation.body_arrived(body, more=header[2])
        elif kind == _CREDIT:
            invocation = self._invocations.get(header[1])
            if isinstance(invocation, CreditedInvocation):
                invocation.credit_arrived(header[2])
        elif kind == _CANCEL:
            invocation = self._invocations.get(header[1])
            if invocation is not None:
                invocation.cancel(header[2])
        elif kind == _REPLY:
            self.platform.reply_arrived(header[1], header[2], header[3], body)
        elif kind == _FORGET:
            self._functions.forget(header[2])
        elif kind == _RESUME:
            self.claims.resume(header[2])
        elif kind == _KEEP:
            self._keep(wanted=header[2] is True)
        else:
            raise WireError(f"frame type {kind} does not belong on a link")

    def _hello(self, kind: int, header: list[Any]) -> None:
        if kind != _HELLO or self.token:
            raise WireError(f"a link begins with HELLO, not with frame type {kind}")
        _, _, version, credential, _gateway, partitions, app_url, *_ = header
        if version != PROTOCOL_VERSION:
            raise WireError(f"protocol version {version}, this instance speaks {PROTOCOL_VERSION}")
        if not self._links.credentials.redeem(credential):
            raise WireError("HELLO with a credential that is unknown or was used before")
        self._is_welcome = True
        self.platform = self._functions.platform(self, partitions, app_url)
        self._admission.touch()
        self.token = _token(header[_HELLO_TOKEN]) if len(header) > _HELLO_TOKEN else b""
        links = self._links
        links.hello_came(self)
        welcome = (PROTOCOL_VERSION, links.instance, self._admission.limit.most)
        self._write(pack(FrameType.WELCOME, 0, *welcome, links.import_ms))
        if self._links.goaway_reason is not None:
            self._write(pack(FrameType.GOAWAY, 0, self._links.goaway_reason))

    def _request(self, header: list[Any], body: bytes) -> None:
        conversation: int = header[1]
        refusal = self._admission.refusal() if self.claims.is_open else LAG
        if refusal is not None:
            self._write(pack(_NACK, conversation, refusal))
            return
        self._run(self._functions.http(header, body, self), deadline_ms=header[9])

    def _invoke(self, header: list[Any], body: bytes) -> None:
        conversation: int = header[1]
        refusal = self._admission.refusal() if self.claims.is_open else LAG
        if refusal is None and header[2] != "step" and not self.claim(conversation):
            refusal = LAG  # what runs here and now, and not in a task that claims for itself
        if refusal is not None:
            self._write(pack(_NACK, conversation, refusal))
            return
        invocation = self._functions.invoke(header, body, self)
        if invocation is None:
            self._admission.touch()
        else:
            self._run(invocation, deadline_ms=0)

    def _run(self, invocation: Invocation, *, deadline_ms: int) -> None:
        if invocation.conversation in self._invocations:
            raise WireError(f"id {invocation.conversation} is in use")
        self._invocations[invocation.conversation] = invocation
        invocation.on_end = self._over
        self._admission.start(invocation, deadline_ms)

    def _keep(self, *, wanted: bool) -> None:
        if wanted != self._keeps:
            self._keeps = wanted
            self._admission.keep(wanted=wanted)

    def _over(self, invocation: Invocation) -> None:
        self._invocations.pop(invocation.conversation, None)
        self._links.ended(invocation)

    def _break(self, error: WireError) -> None:
        report(f"closing a gateway's connection: {error}", instance_meter)
        self.lose()


def _token(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) > _MAX_TOKEN_BYTES:
        raise WireError("a token that is none")
    return value


def _drop(_: bytes) -> None:
    return None
