"""The Dask cluster of a run: local processes, an existing scheduler, or batch jobs."""

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

# Dask's default takes port 8787 (on every interface for batch clusters) and warns if it is in use.
NO_DASHBOARD: Mapping[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
PATIENCE = "20s"  # until a scheduler must have answered

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
    queue: str
    jobs: int
    options: Mapping[str, Any]


def refuse_early(options: RunOptions) -> None:
    if (options.workers > 0) + bool(options.scheduler) + bool(options.cluster) > 1:
        raise ConfigError("--workers, --scheduler and --cluster exclude each other; give one of them")
    if options.scheduler:
        refuse_open_port(options.scheduler, options.insecure)
    if options.cluster:
        read_cluster_file(options.cluster)


def refuse_open_port(address: str, insecure: bool) -> None:
    """Refuses an unencrypted address that others can reach: a Dask scheduler runs any code sent to its port."""
    host = host_of(address)
    if insecure or address.startswith("tls://"):
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigError(
            f"the Dask scheduler at {address} is neither on this machine nor encrypted, so anyone who can reach it "
            "can run code; use a tls:// address, or pass --insecure on a network you trust"
        )


def host_of(address: str) -> str:
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise ConfigError(
            f"{address} is not an address of a Dask scheduler ({error}); write tcp://HOST:PORT"
        ) from error
    if not host:
        raise ConfigError(f"{address} is not an address of a Dask scheduler; write tcp://HOST:PORT")
    return host


@contextmanager
def connect_client(options: RunOptions) -> Iterator[Client]:
    """A client of the cluster that the options name. A cluster started for it ends with it."""
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
    """Silences Dask and asyncio, which print every broken connection with a traceback; the run handles these itself."""
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
        stack.enter_context(_restore_environment())  # Dask leaves its workers' variables in this process
        # Some numeric libraries read their number of threads when they are loaded, so set it before workers start.
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
    """Delays signals until the block ends, because a half-started cluster cannot be closed. Processes started inside
    never see Ctrl-C: a terminal sends it to them too, and this process ends them anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    resource_tracker.ensure_running()  # if started later, it would unblock the signal in the thread that starts workers
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
    cluster_file = read_cluster_file(options.cluster)
    try:
        import dask_jobqueue
        import dask_jobqueue.local
    except ImportError as error:
        raise ConfigError("--cluster needs dask-jobqueue; install it with `pip install 'maskmill[cluster]'`") from error
    make: Any = dask_jobqueue
    for name in JOB_QUEUES[cluster_file.queue].split("."):
        make = getattr(make, name)
    try:
        scheduler = {**NO_DASHBOARD, **cluster_file.options.get("scheduler_options", {})}
        cluster = make(**{"cores": 1, "processes": 1, **cluster_file.options, "scheduler_options": scheduler})
    except (TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"dask-jobqueue refuses the [options] of {options.cluster}: {why}; correct them") from error
    with cluster:
        refuse_open_port(cluster.scheduler_address, options.insecure)
        cluster.scale(jobs=cluster_file.jobs)
        yield cluster


def read_cluster_file(path: str) -> ClusterFile:
    """Reads a TOML file with `queue`, `jobs` and an [options] table for dask-jobqueue."""
    try:
        with open(path, "rb") as stream:
            values = tomllib.load(stream)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} is not a cluster file: {why}; give the path of a TOML file") from error
    queue, jobs, options = values.get("queue", ""), values.get("jobs", 0), values.get("options", {})
    unknown = sorted(set(values) - {"queue", "jobs", "options"})
    is_queue, is_number = isinstance(queue, str) and queue in JOB_QUEUES, type(jobs) is int and jobs > 0
    if unknown or not (is_queue and is_number and isinstance(options, dict)):
        raise ConfigError(
            f"{path} has queue = {queue!r} and jobs = {jobs!r}{f' and an unknown {unknown[0]!r}' if unknown else ''}; "
            f"a cluster file needs queue = one of {sorted(JOB_QUEUES)}, jobs = a number from 1, "
            "and an [options] table for dask-jobqueue"
        )
    return ClusterFile(queue, jobs, options)
