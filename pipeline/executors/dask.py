"""Units on the workers of a Dask cluster, each worker one process that runs one unit at a time.

Execution is at least once: a worker that dies may have finished its unit, and one that was thought dead may still be
writing. Units are harmless to repeat, so all that is kept here is which of them are still owed.

A unit whose worker died is suspect, and so is whatever stood in that worker's queue. Suspects are tried again alone,
so that one unit that kills its worker never takes a neighbour with it.
"""

import ipaddress
import logging
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, WorkerPlugin, wait

from ...manifests.errors import ConfigError, EnvironmentFault, MaskmillError, Reason
from ...manifests.layout import Unit
from ...manifests.place import Place
from ..job import TRIES, Job, RunOptions
from ..threads import num_cores, use_threads
from ..units import UnitReport
from .attempts import attempt, close_log, given_up, log

IN_FLIGHT_PER_WORKER = 2  # one running, one waiting: the wait for the scheduler costs nothing, and little is lost
PATIENCE_S = 120.0  # without any worker for so long, they are lost

# dask-jobqueue's clusters by the name of their scheduler
JOB_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "local": "local.LocalCluster",
}


def run_on_dask(job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None], options: RunOptions) -> None:
    """Runs every unit, a bounded number at a time. Raises what is wrong with the artifact or the machine."""
    try:
        with _client(options) as client:
            client.register_plugin(_Workplace(job.at, _workers_per_host(client)), name=f"maskmill-{job.key()}")
            suspects = _run_all(client, job, units, report)
            for unit in suspects:
                report(_run_alone(client, job, unit))
            client.unregister_worker_plugin(f"maskmill-{job.key()}")
    finally:
        close_log(job.at)


class _Workplace(WorkerPlugin):
    """Gives each worker process its share of the machine's cores: Dask's nanny allows numeric libraries one thread."""

    def __init__(self, at: Place, workers_per_host: dict[str, int]) -> None:
        self._at, self._workers_per_host = at, workers_per_host

    def setup(self, worker: Worker) -> None:
        sharing = self._workers_per_host.get(_host(worker.address), 1)
        use_threads(max(1, num_cores() // sharing))

    def teardown(self, worker: Worker) -> None:
        close_log(self._at)


def _run_all(client: Client, job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None]) -> list[Unit]:
    """Runs the units and gives those whose worker died."""
    running: dict[Future[UnitReport], Unit] = {}
    suspects: list[Unit] = []
    lost = _Patience(client)
    while True:
        room = IN_FLIGHT_PER_WORKER * max(1, lost.num_workers) - len(running)
        for unit in (unit for unit, _ in zip(units, range(room), strict=False)):
            running[client.submit(attempt, job, unit, pure=False, key=f"unit-{unit.index}-{time.monotonic_ns()}")] = (
                unit
            )
        if not running:
            return suspects
        for future in _first_done(list(running), lost):
            unit = running.pop(future)
            result = _result(future)
            if result is None:
                suspects.append(unit)
                log(job.at, {"event": "worker died", "unit": unit.index})
            else:
                report(result)


def _run_alone(client: Client, job: Job, unit: Unit) -> UnitReport:
    """A suspect with the whole cluster to itself; if its worker dies again and again, its rows fail."""
    lost = _Patience(client)
    for number in range(2, TRIES + 1):
        careful = number == TRIES
        future = client.submit(
            attempt, job, unit, careful, pure=False, key=f"unit-{unit.index}-alone-{number}-{time.monotonic_ns()}"
        )
        _first_done([future], lost)
        result = _result(future)
        if result is not None:
            return result
        log(job.at, {"event": "worker died", "unit": unit.index, "try": number})
    return given_up(job, unit, Reason.WORKER_LOST)


def _result(future: Future[UnitReport]) -> UnitReport | None:
    """A unit's report, or None if its worker died. Errors of the unit itself are raised."""
    try:
        if future.status == "cancelled":
            raise EnvironmentFault("the Dask scheduler was lost; what is done is kept, so run the same command again")
        return future.result()
    except KilledWorker:
        return None
    except MaskmillError:
        raise
    finally:
        future.release()


class _Patience:
    """How many workers there are, and how long there have been none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._seen = time.monotonic()
        self.num_workers = self.look()

    def look(self) -> int:
        """Counts the workers. Raises EnvironmentFault when the scheduler is gone, or all workers for too long."""
        try:
            self.num_workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError) as error:
            raise EnvironmentFault(
                "the Dask scheduler was lost; what is done is kept, so run the same command again"
            ) from error
        if self.num_workers:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > PATIENCE_S or self._client.status != "running":
            raise EnvironmentFault(
                f"all Dask workers have been gone for {PATIENCE_S:.0f} s; what is done is kept, "
                "so see why they ended and run the same command again"
            )
        return self.num_workers


def _first_done(futures: list[Future[UnitReport]], patience: _Patience) -> list[Future[UnitReport]]:
    while True:
        try:
            return list(wait(futures, timeout=5, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            patience.look()


@contextmanager
def _client(options: RunOptions) -> Iterator[Client]:
    with ExitStack() as stack:
        # The first death is reported at once: this module counts the tries, because Dask would count a death against
        # every unit in the worker's queue.
        stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 0}))
        if options.scheduler:
            refuse_open_port(options.scheduler, options.insecure)
            address = options.scheduler
        else:
            cluster = stack.enter_context(_queued(options) if options.cluster else _local(options))
            address = cluster.scheduler_address
            refuse_open_port(address, options.insecure)
        try:
            client = Client(address, timeout="20s", set_as_default=False)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(f"no Dask scheduler answers at {address}: {error}; check the address") from error
        stack.enter_context(client)
        stack.enter_context(client.as_current())
        yield client


def _local(options: RunOptions) -> LocalCluster:
    return LocalCluster(
        n_workers=options.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )


def _queued(options: RunOptions) -> Any:
    """A cluster of batch jobs, from a TOML file: `queue`, `jobs`, and [options] as dask-jobqueue takes them."""
    try:
        with open(options.cluster, "rb") as stream:
            wanted = tomllib.load(stream)
        kind, jobs = wanted["queue"], int(wanted["jobs"])
        path = JOB_QUEUES[kind]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{options.cluster} is no cluster file ({error}); it needs queue = one of {sorted(JOB_QUEUES)}, "
            "jobs = a number, and an [options] table for dask-jobqueue"
        ) from error
    try:
        import dask_jobqueue
        import dask_jobqueue.local
    except ImportError as error:
        raise ConfigError("--cluster needs dask-jobqueue; install it with `pip install 'maskmill[cluster]'`") from error
    found: Any = dask_jobqueue
    for name in path.split("."):
        found = getattr(found, name)
    try:
        cluster = found(**{"cores": 1, "processes": 1, **wanted.get("options", {})})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{options.cluster}: dask-jobqueue refuses its [options]: {error}") from error
    cluster.scale(jobs=jobs)
    return cluster


def refuse_open_port(address: str, insecure: bool) -> None:
    """A Dask scheduler runs whatever reaches its port, so an address that others can reach must be encrypted."""
    if insecure or address.startswith("tls://"):
        return
    host = _host(address)
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"the Dask scheduler at {address} is neither on this machine nor encrypted, and anybody who reaches it can run "
            "code; use a tls:// address, or pass --insecure on a network you trust"
        )


def _workers_per_host(client: Client) -> dict[str, int]:
    hosts: dict[str, int] = {}
    for address in client.scheduler_info(n_workers=-1)["workers"]:
        hosts[_host(address)] = hosts.get(_host(address), 0) + 1
    return hosts


def _host(address: str) -> str:
    return urlsplit(address if "://" in address else f"tcp://{address}").hostname or address
