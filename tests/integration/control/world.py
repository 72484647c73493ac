"""A control plane for tests: the real application on the real memory store, with small fakes of
what stands at its edges (instances, builder, invoker)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.applications import Starlette

from fluvial.checks import CheckReport, CheckRequest
from fluvial.crons import CronSpec
from fluvial.encryption import AppKeys, public_key_of
from fluvial.events import Event, EventType, decode_event
from fluvial.ids import partition_of
from fluvial.invocations import Answer, RevealRequest, unpack_list
from fluvial.manifest import InstanceSettings
from fluvial.resealing import ResealRequest, reseal
from fluvial.sealing import Binding
from fluvial_gateway.activity import Activity, Room
from fluvial_gateway.aliases import Aliases
from fluvial_gateway.auth import Scope, Tokens
from fluvial_gateway.builder_client import BuildReport, BuildRequest
from fluvial_gateway.bundle_files import BundleFiles
from fluvial_gateway.calls import Calls
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.aliasing import AliasingOperations
from fluvial_gateway.control.application import control_app
from fluvial_gateway.control.bulk import BulkOperations
from fluvial_gateway.control.checking import CheckingOperations
from fluvial_gateway.control.dead_lettering import DeadLetteringOperations
from fluvial_gateway.control.deploying import DeployingOperations
from fluvial_gateway.control.domains import DomainOperations
from fluvial_gateway.control.environment import EnvironmentOperations
from fluvial_gateway.control.explaining import ExplainingOperations
from fluvial_gateway.control.hooks import HookOperations
from fluvial_gateway.control.keys import KeysOperations
from fluvial_gateway.control.logs import LogOperations
from fluvial_gateway.control.operating import About, PlatformOperations
from fluvial_gateway.control.operations import Operation
from fluvial_gateway.control.reading_runs import ReadingRunsOperations
from fluvial_gateway.control.reading_streams import ReadingStreamsOperations
from fluvial_gateway.control.removing import RemovingOperations
from fluvial_gateway.control.repeating import RepeatingOperations
from fluvial_gateway.control.rolling import RollingOperations
from fluvial_gateway.control.running import RunningOperations
from fluvial_gateway.control.scheduling import SchedulingOperations
from fluvial_gateway.control.starting import StartingOperations
from fluvial_gateway.control.steering import SteeringOperations
from fluvial_gateway.control.talking import TalkingOperations
from fluvial_gateway.control.usage import UsageOperations
from fluvial_gateway.control.views import Addresses
from fluvial_gateway.crons.alarm import LoopAlarm
from fluvial_gateway.crons.service import Crons
from fluvial_gateway.crons.starting import CronRuns
from fluvial_gateway.crons.states import CronStates
from fluvial_gateway.deployments import Deployments
from fluvial_gateway.domains import Domains
from fluvial_gateway.environments import Environments
from fluvial_gateway.explaining import Explaining
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.forks import Forks
from fluvial_gateway.hook_answers import HookAnswers
from fluvial_gateway.hook_calls import HookCalls
from fluvial_gateway.hooks import Hooks
from fluvial_gateway.hosts import HostTable
from fluvial_gateway.invocations import Answered, Outcome, Subject
from fluvial_gateway.invoker_client import RefusedError, Survey
from fluvial_gateway.janitor import Janitor
from fluvial_gateway.keeping import KeepingRule
from fluvial_gateway.key_keeping import KeyKeeping
from fluvial_gateway.keyrings import Key, KeyringOperation, KeyringState
from fluvial_gateway.log_reading import LogReading
from fluvial_gateway.log_watching import LogWatches
from fluvial_gateway.metrics import Metrics
from fluvial_gateway.occupancy import Occupied
from fluvial_gateway.prices import Prices
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.removals import Removals
from fluvial_gateway.replay_checks import ReplayChecks
from fluvial_gateway.reruns import Reruns
from fluvial_gateway.resealer import Resealer
from fluvial_gateway.revealing import Revealer
from fluvial_gateway.rollouts import Rollouts
from fluvial_gateway.routes import RouteTable
from fluvial_gateway.run_calls import RunCalls
from fluvial_gateway.runs import Runs
from fluvial_gateway.scrape import Scrape
from fluvial_gateway.stream_calls import StreamCalls
from fluvial_gateway.streams import Streams
from fluvial_gateway.talking import Talking
from fluvial_gateway.uploads import Uploads
from fluvial_gateway.usage_keeping import UsageKeeping
from fluvial_gateway.usage_ledger import UsageLedger
from fluvial_gateway.waiting import Waiters
from fluvial_gateway.waits import LongWaits
from fluvial_queue.contract import (
    CommitEntry,
    CommitOutcome,
    Lease,
    OutcomeUnknownError,
    RecordKind,
    RunPage,
    RunQuery,
    RunStatus,
    SendOutcome,
    StartOutcome,
    StartRun,
    StoreError,
)
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, decode_message
from fluvial_queue.records import DeploymentFunctions

T = TypeVar("T")
KEY_ID = "k1"
MAX_UPLOAD_BYTES = 64 * 1024


class FaultyStore(MemoryStore):
    """A memory store that can fail, or lose its answers: then the operation happens, and the
    caller does not know."""

    lost_answers = 0
    failure: StoreError | None = None
    sending: asyncio.Event | None = None  # set once something is sent; then that never ends

    def __init__(self, *, partitions: int) -> None:
        super().__init__(partitions=partitions)
        self.sent = asyncio.Event()  # something was sent

    async def now_ms(self) -> int:
        self._fail()
        return await super().now_ms()

    async def query_runs(self, query: RunQuery) -> RunPage:
        self._fail()
        return await super().query_runs(query)

    async def depth(self, partitions: Sequence[int]) -> tuple[int, int]:
        self._fail()
        return await super().depth(partitions)

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        return self._answer(await super().put_record(kind, record_id, value, expect=expect))

    async def start(self, run: StartRun) -> StartOutcome:
        return self._answer(await super().start(run))

    async def send(
        self,
        run_id: str,
        body: bytes,
        *,
        token: str | None = None,
        hook: OpenHook | None = None,
        resume_id: str = "",
        urgent: bool = False,
    ) -> SendOutcome:
        if self.sending is not None:
            self.sending.set()
            await asyncio.Event().wait()
        sent = await super().send(
            run_id, body, token=token, hook=hook, resume_id=resume_id, urgent=urgent
        )
        self.sent.set()
        return self._answer(sent)

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _answer(self, answer: T) -> T:
        if self.lost_answers:
            self.lost_answers -= 1
            raise OutcomeUnknownError("the connection broke before the answer came")
        return answer


class FakeKeyring:
    """The invoker's keyring, whose private side lets tests open what the gateway sealed."""

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.operations: list[tuple[str, KeyringOperation, str]] = []
        self.ended = 0
        self._ids: dict[str, list[str]] = {}
        self._destroyed: dict[str, int] = {}
        self._frozen: dict[str, int] = {}

    def of(self, app: str) -> AppKeys:
        ids = self._ids.setdefault(app, [KEY_ID])
        living = [key_id for key_id in ids if key_id not in self._destroyed]
        return AppKeys(app, {key_id: _root(app, key_id) for key_id in living}, ids[-1])

    async def keyring(
        self, app: str, operation: KeyringOperation = "list", key_id: str = ""
    ) -> KeyringState:
        if self.refusal is not None:
            raise self.refusal
        self.operations.append((app, operation, key_id))
        ids = self._ids.setdefault(app, [KEY_ID])
        match operation:
            case "rotate":
                ids.append(key_id)
            case "destroy":
                self._destroyed[key_id] = 1_700_000_000_000
            case "freeze":
                self._frozen[app] = 1_700_000_000_000
            case "thaw":
                self._frozen.pop(app, None)
            case "rewrap":
                raise RefusedError("kms_not_configured", "no KMS command")
            case "list":
                pass
        keys = tuple(self._key(app, each) for each in ids)
        return KeyringState(
            app=app,
            current=keys[-1],
            keys=keys,
            frozen_ms=self._frozen.get(app),
            ended=self.ended if operation in ("destroy", "freeze") else 0,
        )

    def _key(self, app: str, key_id: str) -> Key:
        destroyed_ms = self._destroyed.get(key_id)
        is_current = key_id == self._ids[app][-1]
        return Key(
            id=key_id,
            state="destroyed" if destroyed_ms else "current" if is_current else "decrypt_only",
            created_ms=1_600_000_000_000,
            public_key=public_key_of(_root(app, key_id), app),
            is_wrapped=False,
            destroyed_ms=destroyed_ms,
        )


class FakeBuilder:
    """Reports whatever it is told to have found in the next archive."""

    def __init__(self) -> None:
        self.workflows: tuple[str, ...] = ("fulfil",)
        self.crons: tuple[CronSpec, ...] = ()
        self.app = "shop"
        self.retention_ms: int | None = None
        self.refusal: ProblemError | None = None
        self.go_on: asyncio.Event | None = None
        self.building = asyncio.Event()
        self.archives: list[bytes] = []
        self.variables: tuple[str, ...] = ()  # of the last request
        self.environment: dict[str, str] = {}

    async def build(self, request: BuildRequest) -> AsyncGenerator[str | BuildReport, None]:
        self.archives.append(request.archive.read_bytes())
        self.variables = request.variables
        self.building.set()
        yield "installing nothing"
        if self.go_on is not None:
            await self.go_on.wait()
        if self.refusal is not None:
            raise self.refusal
        yield BuildReport(
            app=request.name or self.app,
            bundle=request.digest,
            layer="",
            modules=("main",),
            instance=InstanceSettings(),
            retention_ms=self.retention_ms,
            environment=self.environment,
            functions=DeploymentFunctions(
                entrypoint="main:app",
                interface="asgi",
                workflows=self.workflows,
                steps=("charge",),
                crons=self.crons,
            ),
        )


@dataclass(slots=True)
class FakeHandle:
    instance: str | None = "ins_1"
    cancelled: str | None = None

    def cancel(self, reason: str) -> None:
        self.cancelled = reason


class FakeInvocations:
    """Instances that reveal, check and seal anew. To a reveal, payloads are JSON in clear."""

    def __init__(self, keyring: FakeKeyring) -> None:
        self._keyring = keyring
        self.outcome: Outcome | None = None
        self.requests: list[RevealRequest] = []
        self.resealed: list[str] = []  # the deployments that were asked to seal anew
        self.checks: list[tuple[str, CheckRequest]] = []  # the deployment, and what it was asked
        self.reports: dict[str, Outcome | CheckReport] = {}  # by run id; the others are ok
        self.is_silent = False
        self.handle = FakeHandle()

    def invoke(
        self,
        deployment: str,
        fields: tuple[str, dict[str, Any], bytes],
        *,
        prefer: str | None,
        deadline_seconds: float,
        done: Callable[[Outcome], None],
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
        isolated: bool = False,
    ) -> FakeHandle:
        kind, meta, body = fields
        if kind == "check":
            check = CheckRequest.from_frame(meta, body)
            self.checks.append((deployment, check))
            found = self.reports.get(check.run_id, CheckReport(verdict="ok"))
            outcome = _reported(found) if isinstance(found, CheckReport) else found
            if not self.is_silent:
                asyncio.get_running_loop().call_soon(done, outcome)
            return self.handle
        if kind == "reseal":
            reseal_request = ResealRequest.from_frame(meta, body)
            self.resealed.append(deployment)
            resealed = reseal(reseal_request, self._keyring.of(reseal_request.app))
            asyncio.get_running_loop().call_soon(
                done, self.outcome or Answered("ins_1", resealed, 10)
            )
            return self.handle
        assert kind == "reveal"
        request = RevealRequest.from_frame(meta, body)
        self.requests.append(request)
        if not self.is_silent:
            asyncio.get_running_loop().call_soon(done, self.outcome or _revealed(request))
        return self.handle

    def forget(self, instance: str, run_ids: Sequence[str]) -> None: ...


class FakeLogNotifier:
    """An invoker that is told whose logs are followed."""

    def __init__(self) -> None:
        self.watched: list[list[str]] = []

    def watch_logs(self, apps: list[str]) -> None:
        self.watched.append(apps)


class FakeOccupier:
    """One app with two invocations under way."""

    def occupied(self) -> dict[str, Occupied]:
        return {"shop": Occupied(2, 4096.0, 1024)}


class FakeFleet:
    """Instances that end only when a test says so."""

    def __init__(self) -> None:
        self.instances: list[dict[str, Any]] = []
        self.killed: list[str] = []

    async def survey(self) -> Survey:
        return Survey(list(self.instances), [])

    def kill(self, instance: str, grace_ms: int) -> None:
        self.killed.append(instance)


class FakeSurveyor:
    async def survey(self) -> Survey:
        return Survey(
            [{"instance": "ins_1", "app": "shop", "rss_bytes": 1000, "secret": "hidden"}], []
        )


@dataclass(slots=True)
class FakeDispatcherState:
    partitions_owned: list[int]
    is_ready: bool = True

    def activities(self, run_id: str) -> list[Activity] | None:
        return []  # nothing is ever executed here

    def room(self, deployment: str, *, isolated: bool = False) -> Room | None:
        return None


class World:
    """One control plane and what tests do to it."""

    def __init__(self, folder: Path) -> None:
        self.store = FaultyStore(partitions=4)
        self.builder = FakeBuilder()
        self.keyring = FakeKeyring()
        self.invocations = FakeInvocations(self.keyring)
        self.dispatcher = FakeDispatcherState(list(range(4)))
        self.hosts = HostTable()
        self.rule = KeepingRule()
        self.blobs = folder / "blobs"
        self.logs = folder / "logs"
        self.log_notices = FakeLogNotifier()
        self.log_watches = LogWatches(self.log_notices, limit=2)
        self.waits = LongWaits()
        self.waiters = Waiters(self.store)
        self.catalogue = Catalogue(self.store)
        self.tokens = Tokens(self.store)
        self.ledger = UsageLedger()
        self.metrics = Metrics(version="0.0.0", usage=self.ledger)
        self.usage = UsageKeeping(self.ledger, FakeOccupier(), self.store, writer="gateway.1")
        self.runs = Runs(self.store, self.catalogue, self.waiters, Fingerprints(b"k" * 32))
        self.hooks = Hooks(self.store, self.catalogue, self.runs)
        self.talking = Talking(self.runs, self.hooks)
        self.hook_answers = HookAnswers(self.runs)
        self.streams = Streams(self.store, self.metrics, partitions=self.store.partitions)
        self.calls = Calls(
            self.runs,
            HookCalls(self.runs, self.hooks, self.talking, self.hook_answers).operations(),
            RunCalls(self.runs).operations(),
            StreamCalls(self.streams, self.runs).operations(),
        )
        self.crons = Crons(
            self.catalogue,
            CronStates(self.store),
            CronRuns(self.runs),
            self.metrics,
            now_ms=self.store.now_ms,
            changed=self._cron_changed,
        )
        self.cron_changes = 0
        self._leases: dict[int, Lease] = {}
        self.operations = self._operations()
        self.app: Starlette = control_app(self.operations, self.tokens, version="0.0.0")
        self.token = ""
        self.client = httpx.AsyncClient()

    def _operations(self) -> list[Operation]:
        uploads = Uploads(self.blobs, limit_bytes=MAX_UPLOAD_BYTES)
        uploads.prepare()
        aliases = Aliases(self.catalogue, self._reload_routes)
        self.rollouts = Rollouts(self.catalogue, aliases, is_owner=lambda: True, alarm=LoopAlarm())
        self.routes = RouteTable(
            self.catalogue,
            self.hosts,
            "localhost",
            keep=lambda _: None,
            rollouts=self.rollouts,
        )
        environments = Environments(self.store, self.catalogue, self.keyring)
        self.deployments = Deployments(
            self.catalogue,
            aliases,
            uploads,
            builder=self.builder,
            keys=self.keyring,
            environments=environments,
        )
        self.fleet = FakeFleet()
        self.removals = Removals(
            self.catalogue,
            aliases,
            self.store,
            files=BundleFiles(self.blobs.parent, self.blobs),
            fleet=self.fleet,
            deploys=self.deployments,
        )
        self.janitor = Janitor(
            self.catalogue,
            self.removals,
            rule=self.rule,
            is_owner=lambda: True,
            alarm=LoopAlarm(),
        )
        keys = KeyKeeping(
            self.catalogue,
            aliases,
            holder=self.keyring,
            environments=environments,
            runs=self.runs,
            reader=self.store,
        )
        addresses = Addresses("http://127.0.0.1:8080", "localhost")
        deploying = DeployingOperations(
            self.catalogue,
            deployments=self.deployments,
            aliases=aliases,
            uploads=uploads,
            addresses=addresses,
        )
        self.platform = PlatformOperations(
            about=About(
                version="0.0.0",
                http_url="http://127.0.0.1:8080",
                domain="localhost",
                store_url="redis://user:hunter2@db:6379/0?durability=disk",
            ),
            tokens=self.tokens,
            store=self.store,
            is_dispatching=lambda: self.dispatcher.is_ready,
            surveyor=FakeSurveyor(),
            scrape=Scrape(
                self.metrics, self.store, self.dispatcher, FakeSurveyor(), FakeOccupier()
            ),
        )
        resealer = Resealer(self.invocations)
        reading = ReadingRunsOperations(
            self.runs,
            Revealer(self.invocations, self.catalogue),
            self.waits,
            keep_alive_seconds=0.05,
        )
        reading_streams = ReadingStreamsOperations(
            self.runs,
            self.streams,
            Revealer(self.invocations, self.catalogue),
            self.waits,
            keep_alive_seconds=0.05,
        )
        return [
            *deploying.operations(),
            *AliasingOperations(self.catalogue, aliases, addresses).operations(),
            *DomainOperations(
                Domains(self.catalogue, self._reload_routes, "localhost"), addresses
            ).operations(),
            *RemovingOperations(
                self.catalogue, aliases, self.removals, self.janitor, addresses
            ).operations(),
            *RollingOperations(self.catalogue, self.rollouts).operations(),
            *StartingOperations(self.runs).operations(),
            *SteeringOperations(self.runs).operations(),
            *BulkOperations(self.runs, self.waits).operations(),
            *RepeatingOperations(
                self.runs,
                Forks(self.runs, self.store, resealer),
                Reruns(self.runs, self.catalogue, resealer),
            ).operations(),
            *RunningOperations(self.runs).operations(),
            *HookOperations(
                self.runs, self.hooks, Revealer(self.invocations, self.catalogue)
            ).operations(),
            *TalkingOperations(
                self.runs,
                self.talking,
                self.hook_answers,
                Revealer(self.invocations, self.catalogue),
                self.waits,
            ).operations(),
            *DeadLetteringOperations(self.runs).operations(),
            *ExplainingOperations(
                self.runs, Explaining(self.runs, self.store, self.dispatcher, self.dispatcher)
            ).operations(),
            *reading.operations(),
            *reading_streams.operations(),
            *CheckingOperations(
                self.catalogue, ReplayChecks(self.runs, self.invocations), self.waits
            ).operations(),
            *SchedulingOperations(self.crons).operations(),
            *EnvironmentOperations(environments).operations(),
            *KeysOperations(keys).operations(),
            *LogOperations(
                LogReading(self.logs),
                self.catalogue,
                self.store,
                self.log_watches,
                self.waits,
                keep_alive_seconds=0.05,
            ).operations(),
            *UsageOperations(self.usage, Prices()).operations(),
            *self.platform.operations(),
        ]

    async def _reload_routes(self) -> None:
        await self.routes.reload()

    def _cron_changed(self) -> None:
        self.cron_changes += 1

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.post(path, **options)

    async def upload(self, archive: bytes = b"archive", **query: Any) -> httpx.Response:
        return await self.client.post(
            "/v1/deployments",
            params=query,
            content=archive,
            headers={
                "content-type": "application/zstd",
                "x-fluvial-bundle-digest": hashlib.sha256(archive).hexdigest(),
            },
        )

    async def deploy(self, archive: bytes = b"archive", **query: Any) -> dict[str, Any]:
        """Deploy, and return the last line of the answer."""
        response = await self.upload(archive, **query)
        assert response.status_code == 200, response.text
        return lines(response)[-1]

    async def start(self, body: Any = None, **headers: str) -> str:
        """Start a run of `fulfil`; return its id."""
        response = await self.post(
            "/v1/apps/shop/workflows/fulfil/runs", json=body or [], headers=headers
        )
        assert response.status_code == 202, response.text
        return str(response.json()["run_id"])

    async def record(
        self,
        run_id: str,
        *events: Event,
        status: RunStatus,
        hooks: tuple[str, ...] = (),
        reason: str | None = None,
        turn: bytes | None = None,
        state_at: int | None = None,
        effects: tuple[bytes, ...] = (),
    ) -> None:
        """Commit events to a run, as its owner would."""
        partition = partition_of(run_id)
        if partition not in self._leases:
            lease = await self.store.acquire(partition, owner="test", ttl_ms=60_000)
            assert lease is not None
            self._leases[partition] = lease
        found = await self.store.read_run(run_id)
        assert found is not None
        entry = CommitEntry(
            run_id=run_id,
            handled=tuple(message_id for message_id, _ in await self.messages(run_id)),
            base=found.events,
            events=tuple(event.encode() for event in events),
            open_hooks=tuple((t, OpenHook(n, found.events)) for n, t in enumerate(hooks, 1)),
            status=status,
            reason=reason,
            turn=turn,
            state_at=state_at,
            effects=effects,
        )
        reply = await self.store.commit(self._leases[partition], [entry])
        assert reply.answers[0].outcome is CommitOutcome.OK
        self.waiters.wake(run_id)

    async def subject(self, run_id: str, attempt: int = 1) -> Subject:
        """The execution of a step that the run's newest message stands for."""
        message_id, _ = (await self.messages(run_id))[-1]
        return Subject(run_id=run_id, step_id=1, attempt=attempt, message_id=message_id)

    async def messages(self, run_id: str) -> list[tuple[str, Message]]:
        """Return the run's outstanding messages."""
        partition = partition_of(run_id)
        if partition not in self._leases:
            lease = await self.store.acquire(partition, owner="test", ttl_ms=60_000)
            assert lease is not None
            self._leases[partition] = lease
        stored = await self.store.window(self._leases[partition], after="", limit=1000)
        assert stored is not None
        decoded = [(message.id, decode_message(message.body)) for message in stored]
        return [(found, message) for found, message in decoded if message.run_id == run_id]

    async def finish(self, run_id: str, result: str = '"done"') -> None:
        """Let a run begin and complete."""
        await self.record(
            run_id,
            Event(EventType.RUN_STARTED, 1000, 0, b'["in"]', {"workflow": "fulfil"}),
            Event(EventType.RUN_COMPLETED, 2000, 0, result.encode()),
            status=RunStatus.COMPLETED,
        )

    def opened(self, run_id: str, kind: Any, envelope: bytes, place: int | str = 0) -> bytes:
        """Open what the gateway sealed for app `shop`."""
        return self.keyring.of("shop").open(Binding("shop", run_id, kind, place), envelope)


@asynccontextmanager
async def open_world(folder: Path, *scopes: Scope) -> AsyncGenerator[World, None]:
    """A control plane whose client has a token with these scopes, `admin` by default."""
    world = World(folder)
    await world.store.open()
    world.token = await world.tokens.create("test", scopes or (Scope.ADMIN,))
    async with client_of(world, world.token) as client:
        await world.client.aclose()
        world.client = client
        yield world
    await world.store.close()


def client_of(world: World, token: str | None) -> httpx.AsyncClient:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(world.app)
    return httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a newline-delimited answer."""
    return [json.loads(line) for line in response.text.splitlines()]


def _reported(report: CheckReport) -> Outcome:
    texts = unpack_list(report.to_body(), at_most=100)
    return Answered("ins_1", Answer(outcome="ok"), 10, texts)


def _root(app: str, key_id: str) -> bytes:
    return hashlib.sha256(f"{app} {key_id}".encode()).digest()


def _revealed(request: RevealRequest) -> Outcome:
    payloads = [decode_event(event).payload for event in request.events]
    texts = [payload.decode(errors="replace") if payload else None for payload in payloads]
    return Answered("ins_1", Answer(outcome="ok"), 10, texts)
