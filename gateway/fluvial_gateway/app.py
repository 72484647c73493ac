"""The composition root: makes every part of a gateway, connects them, starts and stops them."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import socket
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Final

from fluvial.log_files import apps_folder
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.aliases import Aliases
from fluvial_gateway.auth import Tokens, read_admin_token
from fluvial_gateway.builder_client import BuilderClient
from fluvial_gateway.bundle_files import BundleFiles
from fluvial_gateway.calls import Calls
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.config import Config
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
from fluvial_gateway.control_server import ControlServer
from fluvial_gateway.crons.alarm import LoopAlarm
from fluvial_gateway.crons.deciding import CronDecisions
from fluvial_gateway.crons.scheduler import PARTITION, CronScheduler
from fluvial_gateway.crons.service import Crons
from fluvial_gateway.crons.starting import CronRuns
from fluvial_gateway.crons.states import CronStates
from fluvial_gateway.data_plane import DataPlane
from fluvial_gateway.deployments import Deployments
from fluvial_gateway.dispatcher import Dispatcher
from fluvial_gateway.domains import Domains
from fluvial_gateway.environments import Environments
from fluvial_gateway.explaining import Explaining
from fluvial_gateway.fingerprints import Fingerprints, load_key
from fluvial_gateway.forks import Forks
from fluvial_gateway.hook_answers import HookAnswers
from fluvial_gateway.hook_calls import HookCalls
from fluvial_gateway.hooks import Hooks
from fluvial_gateway.hosts import HostTable
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.invoker_client import InvokerClient
from fluvial_gateway.janitor import Janitor
from fluvial_gateway.key_keeping import KeyKeeping
from fluvial_gateway.log_reading import LogReading
from fluvial_gateway.log_sweeping import sweep_logs
from fluvial_gateway.log_watching import LogWatches
from fluvial_gateway.metrics import Metrics
from fluvial_gateway.occupancy import Occupancy
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.removals import Removals
from fluvial_gateway.replay_checks import ReplayChecks
from fluvial_gateway.reruns import Reruns
from fluvial_gateway.resealer import Resealer
from fluvial_gateway.revealing import Revealer
from fluvial_gateway.rollouts import Rollouts
from fluvial_gateway.router import Router
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
from fluvial_gateway.waits import LongWaits
from fluvial_gateway.webhook_exchanges import WebhookDesk
from fluvial_gateway.webhook_instances import WebhookInstances
from fluvial_gateway.webhooks import Webhooks
from fluvial_queue import open_store
from fluvial_queue.contract import Store

_LOG = logging.getLogger(__name__)

# What the supervisor grants from SIGTERM to the end, in order of the steps of `_stop`.
HTTP_DRAIN_SECONDS: Final = 10.0
CONTROL_DRAIN_SECONDS: Final = 2.0
DISPATCHER_DRAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Files:
    """What is read from the home before anything is served."""

    fingerprint_key: bytes
    admin_token: str | None


class _DispatcherSignals:
    """The dispatcher's signals, for parts that are made before it: the dispatcher needs the
    router, the router the calls of instances, and those the signals."""

    dispatcher: Dispatcher

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> None:
        await self.dispatcher.wait_for_events(run_id, position, seconds)

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        await self.dispatcher.wait_for_end(run_id, seconds)

    async def wait_for_start(self, run_id: str, seconds: float) -> None:
        await self.dispatcher.wait_for_start(run_id, seconds)


class Gateway:
    """All parts of one gateway."""

    def __init__(self, config: Config, store: Store, files: _Files, uploads: Uploads) -> None:
        about = About(
            version=version("fluvial"),
            http_url=config.http_url,
            domain=config.domain,
            store_url=config.store_url,
        )
        self._ready_fd = config.ready_fd
        self._store = store
        ledger = UsageLedger()
        self._metrics = Metrics(version=about.version, usage=ledger)
        self._catalogue = Catalogue(store)
        self._invoker = InvokerClient(str(config.invoker_socket))
        self._log_folder, self._log_limits = apps_folder(config.home), config.log_limits
        log_watches = LogWatches(self._invoker)
        self._invoker.subscribe_logs(log_watches.logged)
        hosts = HostTable()
        aliases = Aliases(self._catalogue, self._alias_moved)
        self._rollouts = Rollouts(
            self._catalogue, aliases, is_owner=self._owns_first, alarm=LoopAlarm()
        )
        self._routes = RouteTable(
            self._catalogue,
            hosts,
            config.domain,
            keep=lambda least: self._router.keep(least),
            rollouts=self._rollouts,
        )

        signals = _DispatcherSignals()
        fingerprints = Fingerprints(files.fingerprint_key)
        runs = Runs(store, self._catalogue, signals, fingerprints)
        hooks = Hooks(store, self._catalogue, runs)
        talking, hook_answers = Talking(runs, hooks), HookAnswers(runs)
        streams = Streams(store, self._metrics, partitions=store.partitions)
        self._addresses = addresses = Addresses(config.public_url, config.domain)
        occupancy = Occupancy()
        self._router = Router(
            spec=self._spec,
            invoker=self._invoker,
            calls=Calls(
                runs,
                HookCalls(runs, hooks, talking, hook_answers).operations(),
                StreamCalls(streams, runs).operations(),
                RunCalls(runs).operations(),
            ),
            pool_observer=self._metrics,
            http_observer=self._metrics,
            gateway=_name(config),
            partitions=store.partitions,
            app_url=addresses.of_app,
            occupancy=occupancy,
        )
        self._usage = UsageKeeping(
            ledger, self._router, store, writer=f"{_name(config)}.{secrets.token_hex(4)}"
        )
        occupancy.on_busy = self._usage.wake
        self._scheduler, crons = self._crons(runs, signals)
        self._dispatcher = Dispatcher(
            store,
            self._router,
            self._metrics,
            owner=_name(config),
            ownership_changed=self._ownership_changed,
            on_bell=streams.heard,
        )
        signals.dispatcher = self._dispatcher

        environments = Environments(store, self._catalogue, self._invoker)
        self._deployments = Deployments(
            self._catalogue,
            aliases,
            uploads,
            builder=BuilderClient(config.builder_socket),
            keys=self._invoker,
            environments=environments,
        )
        removals = Removals(
            self._catalogue,
            aliases,
            store,
            files=BundleFiles(config.home, config.blobs),
            fleet=self._invoker,
            deploys=self._deployments,
        )
        self._janitor = Janitor(
            self._catalogue,
            removals,
            rule=config.keeping,
            is_owner=self._owns_first,
            alarm=LoopAlarm(),
        )
        self._waits = LongWaits()
        tokens = Tokens(store)
        self._platform = PlatformOperations(
            about=about,
            tokens=tokens,
            store=store,
            is_dispatching=lambda: self._dispatcher.is_ready,
            surveyor=self._invoker,
            scrape=Scrape(self._metrics, store, self._dispatcher, self._invoker, self._router),
        )
        keys = KeyKeeping(
            self._catalogue,
            aliases,
            holder=self._invoker,
            environments=environments,
            runs=runs,
            reader=store,
        )
        deploying = DeployingOperations(
            self._catalogue,
            deployments=self._deployments,
            aliases=aliases,
            uploads=uploads,
            addresses=addresses,
        )
        revealer = Revealer(self._router, self._catalogue)
        resealer = Resealer(self._router)
        operations = [
            *deploying.operations(),
            *AliasingOperations(self._catalogue, aliases, addresses).operations(),
            *DomainOperations(
                Domains(self._catalogue, self._routes.reload, config.domain), addresses
            ).operations(),
            *RemovingOperations(
                self._catalogue, aliases, removals, self._janitor, addresses
            ).operations(),
            *RollingOperations(self._catalogue, self._rollouts).operations(),
            *StartingOperations(runs).operations(),
            *SteeringOperations(runs).operations(),
            *BulkOperations(runs, self._waits).operations(),
            *RepeatingOperations(
                runs,
                Forks(runs, store, resealer),
                Reruns(runs, self._catalogue, resealer),
            ).operations(),
            *RunningOperations(runs).operations(),
            *HookOperations(runs, hooks, revealer).operations(),
            *TalkingOperations(runs, talking, hook_answers, revealer, self._waits).operations(),
            *DeadLetteringOperations(runs).operations(),
            *ExplainingOperations(
                runs, Explaining(runs, store, self._dispatcher, self._router)
            ).operations(),
            *CheckingOperations(
                self._catalogue, ReplayChecks(runs, self._router), self._waits
            ).operations(),
            *ReadingRunsOperations(runs, revealer, self._waits).operations(),
            *ReadingStreamsOperations(runs, streams, revealer, self._waits).operations(),
            *SchedulingOperations(crons).operations(),
            *EnvironmentOperations(environments).operations(),
            *KeysOperations(keys).operations(),
            *LogOperations(
                LogReading(self._log_folder),
                self._catalogue,
                store,
                log_watches,
                self._waits,
            ).operations(),
            *UsageOperations(self._usage, config.prices).operations(),
            *self._platform.operations(),
        ]
        self._control = ControlServer(
            control_app(operations, tokens, version=about.version),
            self._waits,
            listener=socket.socket(fileno=config.control_fd),
            domain=config.domain,
        )
        self._webhooks = WebhookDesk(
            Webhooks(runs, hooks, self._catalogue, hook_answers, WebhookInstances(self._router)),
            self._metrics,
        )
        self._data = DataPlane(
            self._router,
            hosts,
            listener=socket.socket(fileno=config.http_fd),
            limits=HttpLimits(trusted_peers=config.trusted_proxies),
            webhooks=self._webhooks,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then stop in order."""
        await self._routes.reload()
        await self._dispatcher.start()
        async with asyncio.TaskGroup() as serving:
            serving.create_task(self._data.serve(), name="data plane")
            serving.create_task(self._control.serve(), name="control plane")
            serving.create_task(self._routes.sweep(stop), name="route sweep")
            serving.create_task(self._scheduler.run(), name="cron scheduler")
            serving.create_task(self._janitor.run(), name="janitor")
            serving.create_task(self._usage.run(stop), name="usage")
            serving.create_task(
                sweep_logs(self._log_folder, self._log_limits, stop), name="log sweep"
            )
            serving.create_task(self._rollouts.run(), name="rollouts")
            await self._data.started.wait()
            await self._control.started.wait()
            self._tell_ready()
            await stop.wait()
            await self._stop()

    def _tell_ready(self) -> None:
        _LOG.info("ready", extra={"partitions": len(self._dispatcher.partitions_owned)})
        if self._ready_fd is not None:
            os.write(self._ready_fd, b"READY\n")
            os.close(self._ready_fd)

    async def _stop(self) -> None:
        _LOG.info("stopping")
        # 1. Not ready: load balancers look elsewhere from now on, and crons start nothing.
        self._platform.drain()
        await self._scheduler.close()
        self._janitor.close()
        await self._rollouts.close()
        # 2. Data plane: requests under way finish. They may still start runs and wait for them,
        #    so the dispatcher goes on.
        await self._data.drain(HTTP_DRAIN_SECONDS)
        await self._webhooks.close()
        # 3. Control plane: those who wait get their answer; deploys being registered are ended.
        await self._control.drain(CONTROL_DRAIN_SECONDS)
        await self._deployments.close()
        # 4. Dispatcher: steps and turns under way finish and commit; leases are released, so that
        #    another gateway takes over at once.
        await self._dispatcher.stop(DISPATCHER_DRAIN_SECONDS)
        # 5. Links: whatever an instance still executes for us is cancelled there.
        await self._router.close()
        await self._usage.flush()
        self._invoker.close()

    def _crons(self, runs: Runs, signals: _DispatcherSignals) -> tuple[CronScheduler, Crons]:
        states, cron_runs = CronStates(self._store), CronRuns(runs)
        now_ms = self._store.now_ms
        scheduler = CronScheduler(
            self._catalogue,
            CronDecisions(self._catalogue, states, cron_runs, self._metrics, now_ms),
            signals,
            is_owner=self._owns_first,
            now_ms=now_ms,
            alarm=LoopAlarm(),
        )
        crons = Crons(
            self._catalogue,
            states,
            cron_runs,
            self._metrics,
            now_ms=now_ms,
            changed=scheduler.wake,
        )
        return scheduler, crons

    def _owns_first(self) -> bool:
        """Whether this is the one gateway that does what only one has to do."""
        return PARTITION in self._dispatcher.partitions_owned

    def _ownership_changed(self) -> None:
        self._scheduler.wake()
        self._janitor.wake()
        self._rollouts.wake()

    async def _alias_moved(self) -> None:
        self._scheduler.wake()
        await self._routes.reload()

    async def _spec(self, deployment_id: str) -> DeploymentSpec | None:
        try:
            spec = (await self._catalogue.deployment(deployment_id)).spec
        except ProblemError:
            return None
        urls = {
            "FLUVIAL_APP_URL": self._addresses.of_app(spec.app),
            "FLUVIAL_DEPLOYMENT_URL": self._addresses.of_deployment(deployment_id),
        }
        return replace(spec, environment={**spec.environment, **urls})


async def serve(config: Config, stop: asyncio.Event) -> None:
    """Run a gateway until `stop` is set.

    Raises:
        FluvialError: it cannot start: the store is unsafe or cannot be reached, a file is wrong.
    """
    uploads = Uploads(config.blobs)
    files = await asyncio.to_thread(_read_files, config, uploads)
    store = open_store(config.store_url)
    await store.open()
    try:
        if files.admin_token is not None:
            await Tokens(store).adopt_admin(files.admin_token)
        await Gateway(config, store, files, uploads).run(stop)
    finally:
        # Last of all: every part above may still have had something to write.
        await store.close()
    _LOG.info("stopped")


def _read_files(config: Config, uploads: Uploads) -> _Files:
    uploads.prepare()
    return _Files(
        fingerprint_key=load_key(config.fingerprint_key_file),
        admin_token=read_admin_token(config.admin_token_file),
    )


def _name(config: Config) -> str:
    """Return a name that a restart keeps, so that it takes its own partitions back at once."""
    place = hashlib.sha256(str(config.home).encode()).hexdigest()[:8]
    return f"{socket.gethostname()}-{place}"
