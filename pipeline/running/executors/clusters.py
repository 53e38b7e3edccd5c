"""The Dask cluster that a run is asked to use: local processes, a scheduler that is there already, or batch jobs."""

import ipaddress
import logging
import os
import signal
import threading
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, LocalCluster

from ....manifests.errors import ConfigError, EnvironmentFault
from ..options import RunOptions
from ..threads import num_cores, thread_settings

# Else it takes port 8787, for a batch cluster's on every interface, and warns where that is taken.
NO_DASHBOARD: Mapping[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
PATIENCE = "20s"  # with a scheduler that does not answer

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


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """What a cluster file says: batch jobs of one queue, with options as dask-jobqueue takes them."""

    queue: str
    jobs: int
    options: Mapping[str, Any]


def refuse_early(options: RunOptions) -> None:
    """Refuses what can be seen to be wrong before anything is started."""
    if (options.workers > 0) + bool(options.scheduler) + bool(options.cluster) > 1:
        raise ConfigError("--workers, --scheduler and --cluster are three ways to run; give one of them")
    if options.scheduler:
        refuse_open_port(options.scheduler, options.insecure)
    if options.cluster:
        read_cluster_file(options.cluster)


def refuse_open_port(address: str, insecure: bool) -> None:
    """A Dask scheduler runs whatever reaches its port, so an address that others can reach must be encrypted."""
    host = host_of(address)
    if insecure or address.startswith("tls://"):
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"the Dask scheduler at {address} is neither on this machine nor encrypted, and anybody who reaches it "
            "can run code; use a tls:// address, or pass --insecure on a network you trust"
        )


def host_of(address: str) -> str:
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise ConfigError(f"{address} is no address of a Dask scheduler ({error}); write tcp://HOST:PORT") from error
    if not host:
        raise ConfigError(f"{address} is no address of a Dask scheduler; write tcp://HOST:PORT")
    return host


@contextmanager
def connect_client(options: RunOptions) -> Iterator[Client]:
    """A client of the cluster that the options name; a cluster that was started for it ends with it."""
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if options.scheduler:
            target: Any = options.scheduler
        else:
            target = stack.enter_context(_start_queue(options) if options.cluster else _local(options.workers))
        try:
            client = Client(target, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(
                f"no Dask scheduler answers at {target}: {error}; check the address and that it runs"
            ) from error
        stack.enter_context(client)
        stack.enter_context(client.as_current())
        yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """What waits for a unit sees a connection that breaks; Dask and asyncio would also print each with a traceback."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "tornado", "distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    with ExitStack() as stack:
        stack.enter_context(_restore_environment())  # Dask leaves that of the workers in this process
        # Some numeric libraries count their threads as they are loaded, so a worker must be born with its share.
        os.environ.update(thread_settings(max(1, num_cores() // workers)))
        with _hold_back_signals():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    scheduler_kwargs=NO_DASHBOARD,
                    silence_logs=logging.CRITICAL,
                )
            )
        yield cluster


@contextmanager
def _restore_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _hold_back_signals() -> Iterator[None]:
    """Lets signals wait until the block ends, because a cluster half made cannot be closed; and keeps Ctrl-C from the
    processes started inside for good, because a terminal sends it to them too and this process ends them anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    resource_tracker.ensure_running()  # started later, it would lift the block in the thread that starts workers
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda caught, _: waiting.append(caught))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by threads and processes
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for caught in waiting:
        signal.raise_signal(caught)


@contextmanager
def _start_queue(options: RunOptions) -> Iterator[Any]:
    wanted = read_cluster_file(options.cluster)
    try:
        import dask_jobqueue
        import dask_jobqueue.local
    except ImportError as error:
        raise ConfigError("--cluster needs dask-jobqueue; install it with `pip install 'maskmill[cluster]'`") from error
    made: Any = dask_jobqueue
    for name in JOB_QUEUES[wanted.queue].split("."):
        made = getattr(made, name)
    try:
        scheduler = {**NO_DASHBOARD, **wanted.options.get("scheduler_options", {})}
        cluster = made(**{"cores": 1, "processes": 1, **wanted.options, "scheduler_options": scheduler})
    except (TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"{options.cluster}: dask-jobqueue refuses its [options]: {why}") from error
    with cluster:
        refuse_open_port(cluster.scheduler_address, options.insecure)
        cluster.scale(jobs=wanted.jobs)
        yield cluster


def read_cluster_file(path: str) -> ClusterFile:
    """A TOML file: `queue`, `jobs`, and [options] as dask-jobqueue takes them."""
    try:
        with open(path, "rb") as stream:
            wanted = tomllib.load(stream)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} is no cluster file: {why}; give the path of a TOML file") from error
    queue, jobs, options = (
        wanted.get(name, default) for name, default in [("queue", ""), ("jobs", 0), ("options", {})]
    )
    unknown = sorted(set(wanted) - {"queue", "jobs", "options"})
    if (
        not isinstance(queue, str)
        or queue not in JOB_QUEUES
        or type(jobs) is not int
        or jobs < 1
        or not isinstance(options, dict)
        or unknown
    ):
        raise ConfigError(
            f"{path} has queue = {queue!r} and jobs = {jobs!r}{f' and an unknown {unknown[0]!r}' if unknown else ''}; "
            f"a cluster file needs queue = one of {sorted(JOB_QUEUES)}, jobs = a number from 1, "
            "and an [options] table for dask-jobqueue"
        )
    return ClusterFile(queue, jobs, options)
