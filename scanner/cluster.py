"""The Dask cluster that a fleet runs on: one of our own on this host, or an existing one."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed as typed_in_part
from dask.system import CPU_COUNT
from distributed.system import MEMORY_LIMIT

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.appliance.host.scratch import scratch_directory
from fleetscan.scanner import cluster_tls
from fleetscan.scanner.cluster_tls import Certificates

log = logging.getLogger(__name__)

# Any: distributed has types for some of its functions, and none for those used here.
distributed: Any = typed_in_part

SLOT_MEMORY = 700 << 20
"""Memory of one slot, in bytes: an appliance of 512 MiB, its QEMU and its worker."""

WORKER_MEMORY = 1536 << 20
"""Memory, in bytes, at which a worker of ours is killed, its QEMU not counted; its machine is then
tried again, and failed. An honest machine takes a tenth; what guests send is bounded by frame."""

_RESERVED_MEMORY = 1 << 30  # for the coordinator, the page cache and the host itself
_CLOSE_SECONDS = 5

# A worker's death is ours to judge: Dask would run the machine again three times, and blame
# whatever else was on its worker. Nothing here has results worth stealing or balancing.
_CONFIG: dict[str, object] = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.admin.tick.limit": "1 hour",
}

# Only of workers that run nothing but ours.
_LEAN: dict[str, object] = {
    "distributed.worker.preload": ["fleetscan.appliance.host.without_pandas"],
    # Short of killing, Dask would only wait for memory that tasks hold here.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}

# Schedulers and workers serve pages about themselves even without a dashboard.
_NO_PAGES: dict[str, object] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@dataclass(frozen=True)
class ClusterOptions:
    """Where a fleet's tasks run.

    Attributes:
        slots: machines at a time on a cluster of our own; None for what the host can bear.
        scheduler: address of an existing cluster's scheduler, whose workers see the images and
            the facts directory under the same paths; None for a cluster of our own.
        dashboard: address of Dask's dashboard, such as ``127.0.0.1:8787``; None for none.
        connect_seconds: how long an existing cluster's scheduler may take to answer.
        certificates: for a scheduler at ``tls://``; Dask's own configuration when None.
        insecure: use a cluster on other hosts without TLS.
    """

    slots: int | None = None
    scheduler: str | None = None
    dashboard: str | None = None
    connect_seconds: float = 30.0
    certificates: Certificates | None = None
    insecure: bool = False


def default_slots() -> int:
    """Machines that this host can scan at a time: one a CPU, as far as free memory goes."""
    free = min(_available_memory(), int(MEMORY_LIMIT)) - _RESERVED_MEMORY
    return max(1, min(int(CPU_COUNT), free // SLOT_MEMORY))


def _available_memory() -> int:
    """Memory that programs may still take, in bytes, as proc(5) says."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


class WorkerLostError(FleetscanError):
    """The worker that ran a task died."""


class ClusterTask:
    """A function that was handed to a worker."""

    def __init__(self, future: Any) -> None:  # Any: distributed.Future, see above
        self._future = future

    def error(self) -> BaseException | None:
        """How it failed, once it has ended; None when it did not.

        Raises:
            FleetscanError: the cluster was lost.
        """
        if self._future.status == "finished":
            return None
        if self._future.status != "error":
            raise FleetscanError(
                f"the Dask cluster was lost (a task is {self._future.status})",
                hint="resume the run",
            )
        error: BaseException = self._future.exception()
        if isinstance(error, distributed.KilledWorker):
            return WorkerLostError("the worker that scanned it died")
        return error

    def has_ended(self) -> bool:
        """Whether it ended somehow."""
        return bool(self._future.done())

    def result(self) -> Any:
        """What the function returned; ``Any``, as the cluster does not know."""
        return self._future.result()


class Cluster:
    """A running cluster, as the coordinator uses it."""

    def __init__(self, client: Any, local: Any = None) -> None:  # Any: see above
        self._client = client
        self._local = local

    @property
    def scheduler_address(self) -> str:
        """Where its scheduler listens."""
        return str(self._client.scheduler.address)

    @property
    def is_own(self) -> bool:
        """Whether the cluster is only ours, so that each worker that dies did so over our work."""
        return self._local is not None

    @property
    def slots(self) -> int:
        """Tasks that it runs at a time now; at least 1.

        A worker of our own that died does not count until another has taken its place: tasks
        handed out meanwhile would wait at the others, and be blamed for what these die of.
        """
        if self._local is not None:
            return max(1, len(self._local.scheduler.workers))
        return max(1, int(sum(self._client.nthreads().values())))

    def submit(
        self, key: str, ended: Callable[[str], None], function: Callable[..., Any], *args: object
    ) -> ClusterTask:
        """Run a function of an importable module on a worker, once.

        Args:
            key: names the task; unique.
            ended: called with the key, in another thread, when the task has ended somehow.
            function: what to run.
            *args: its arguments, small enough to be sent.
        """
        future = self._client.submit(function, *args, key=key, pure=False)
        future.add_done_callback(lambda _: ended(key))
        return ClusterTask(future)

    def kill_worker_of(self, key: str) -> None:
        """Kill the worker that runs a task, and its children with it; a fresh one follows."""
        running: dict[str, tuple[str, ...]] = self._client.processing()
        addresses = {address for address, keys in running.items() if key in keys}
        if self._local is None:
            self._client.restart_workers(list(addresses), timeout=60, raise_for_error=False)
        for nanny in self._nannies():
            if nanny.worker_address in addresses:
                _kill(nanny.pid)

    def kill(self) -> None:
        """Kill the workers of a cluster of our own with their children; none is started again."""
        for nanny in self._nannies():
            nanny.auto_restart = False
            _kill(nanny.pid)

    def _nannies(self) -> list[Any]:
        return [] if self._local is None else list(self._local.workers.values())


def _kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check_options(options: ClusterOptions) -> None:
    """Check what can be checked before anything starts.

    Raises:
        UsageError: the options contradict each other, or would do without TLS between hosts.
    """
    if options.slots is not None and options.slots < 1:
        raise UsageError("there must be at least 1 slot")
    if options.scheduler and (options.slots or options.dashboard):
        raise UsageError("an existing cluster has its own slots and dashboard")
    if (options.certificates or options.insecure) and not options.scheduler:
        raise UsageError("certificates and --insecure are for an existing cluster (--scheduler)")
    if options.dashboard and importlib.util.find_spec("bokeh") is None:
        raise UsageError("Dask's dashboard needs bokeh", hint="install the Python package bokeh")
    if options.scheduler:
        _security_of(options.scheduler, options)


def _security_of(scheduler: str, options: ClusterOptions) -> Any:
    address = cluster_tls.Address.of(scheduler)
    return cluster_tls.of_existing(address, options.certificates, insecure=options.insecure)


@contextlib.contextmanager
def open_cluster(options: ClusterOptions) -> Iterator[Cluster]:
    """A cluster with its workers ready; one of our own is gone when the block ends.

    Raises:
        UsageError: as :func:`check_options`.
        FleetscanError: the cluster cannot be started or reached.
    """
    check_options(options)
    config = _CONFIG if options.dashboard else _CONFIG | _NO_PAGES
    if not options.scheduler:
        config = config | _LEAN
    with dask.config.set(config), _quiet():
        opened = _existing(options.scheduler, options) if options.scheduler else _own(options)
        with opened as cluster:
            yield cluster


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's own words about starting, losing and closing workers from the user."""
    logger = logging.getLogger("distributed")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


@contextlib.contextmanager
def _existing(scheduler: str, options: ClusterOptions) -> Iterator[Cluster]:
    address = cluster_tls.Address.of(scheduler)
    security = _security_of(scheduler, options)
    if address.scheme == "tcp":
        log.warning("without TLS, whoever can reach the Dask scheduler can run code on its workers")
    try:
        client = distributed.Client(
            address.url,
            timeout=options.connect_seconds,
            security=security,
            set_as_default=False,
        )
    except (OSError, ValueError, RuntimeError) as error:  # the last: Dask's configuration forbids
        raise FleetscanError(
            f"the Dask scheduler {scheduler} cannot be reached: {error}",
            hint="give an address such as tls://host:8786; with TLS, one authority (--tls-ca) must "
            "have signed the certificates of both sides",
        ) from error
    with client:
        if address.scheme == "tls":
            cluster_tls.refuse_plain_workers(client.nthreads())
        yield Cluster(client)


@contextlib.contextmanager
def _own(options: ClusterOptions) -> Iterator[Cluster]:
    slots = options.slots or default_slots()
    # Workers may be killed at any time: what they leave behind is here and is removed with it.
    with (
        scratch_directory("workers") as scratch,
        dask.config.set({"temporary-directory": str(scratch)}),
    ):
        security = cluster_tls.of_our_own(scratch)
        with (
            _local_cluster(options, slots, str(scratch), security) as local,
            distributed.Client(
                local, security=security, timeout=options.connect_seconds, set_as_default=False
            ) as client,
        ):
            log.info("%d slots, scheduler at %s", slots, local.scheduler_address)
            yield Cluster(client, local)


@contextlib.contextmanager
def _local_cluster(
    options: ClusterOptions, slots: int, scratch: str, security: Any
) -> Iterator[Any]:
    try:
        with _terminal_signals_blocked():
            local = distributed.LocalCluster(
                n_workers=slots,
                threads_per_worker=1,
                processes=True,
                memory_limit=WORKER_MEMORY,
                host="127.0.0.1",
                protocol="tls://",
                security=security,
                scheduler_kwargs=_dashboard(options.dashboard),
                local_directory=scratch,
                env={"TMPDIR": scratch},
                silence_logs=logging.CRITICAL,
            )
    except (RuntimeError, OSError) as error:
        raise FleetscanError(f"the workers cannot be started: {error}") from error
    try:
        yield local
    finally:
        try:
            local.close(timeout=_CLOSE_SECONDS)
        except TimeoutError:  # on a busy host; all work is already done, and workers end with us
            log.warning("the workers took more than %d s to end", _CLOSE_SECONDS)


def _dashboard(address: str | None) -> dict[str, object]:
    if address is None:
        return {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    if address.startswith(":"):  # which to Dask means every interface
        address = f"127.0.0.1{address}"
    return {"dashboard": True, "dashboard_address": address}


@contextlib.contextmanager
def _terminal_signals_blocked() -> Iterator[None]:
    """Start threads and processes inside the block deaf to Ctrl-C, which is the coordinator's.

    A blocked signal stays so in all that the threads start later, replacements of dead workers
    included; the coordinator gets it when the block ends.
    """
    # Started here, since starting it unblocks the signal for the thread that does.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
