"""Runs units on the workers of a Dask cluster. Each worker is one process that runs one unit at a time.

Execution is at least once: a worker that dies may have finished its unit, and one that seems dead may still be
writing. Units are safe to repeat, so this module only tracks which of them are not done.

A unit whose worker died is suspect, and so is every unit in that worker's queue. Suspects are retried alone, so that a
unit that kills its worker never takes others with it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any

from distributed import (
    Client,
    Future,
    KilledWorker,
    Scheduler,
    SchedulerPlugin,
    Worker,
    WorkerPlugin,
    get_worker,
    wait,
)

from ....manifests.artifact.layout import Unit
from ....manifests.errors import EnvironmentFault, MaskmillError, Reason
from ..job import TRIES, Job, forget
from ..options import RunOptions
from ..progress import LOGGER
from ..threads import num_cores, use_threads
from ..units import UnitReport
from .attempts import attempt, close_log, log, log_give_up
from .clusters import connect_client, host_of

IN_FLIGHT_PER_WORKER = 2  # one runs and one waits, so a worker never waits for the scheduler
PATIENCE_S = 120.0  # without any worker, until the run gives up
LOOK_S = 2.0  # how often the workers are counted
KEY = "maskmill-unit-"


def run_on_dask(job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None], options: RunOptions) -> None:
    """Runs every unit, a bounded number at a time. Raises errors of the artifact or the machine."""
    try:
        with ExitStack() as stack:
            client = stack.enter_context(connect_client(options))
            stack.enter_context(_watch_scheduler(client))
            stack.enter_context(_install_plugins(client, job, stays=bool(options.scheduler)))
            workers = _Workers(client, queued=bool(options.cluster))
            suspects = _run_all(client, workers, job, units, report)
            for unit in suspects:
                report(_run_alone(client, workers, job, unit))
    finally:
        close_log(job.at)


def _run_all(
    client: Client, workers: "_Workers", job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None]
) -> list[Unit]:
    """Runs the units and returns those whose worker died."""
    running: dict[Future[UnitReport], Unit] = {}
    suspects: list[Unit] = []
    while True:
        room = IN_FLIGHT_PER_WORKER * max(1, workers.count()) - len(running)
        for unit in islice(units, max(0, room)):
            running[_submit(client, workers, job, unit)] = unit
        if not running:
            return suspects
        for future in workers.first_done(list(running)):
            unit = running.pop(future)
            result = _result(workers, future)
            if result is None:
                suspects.append(unit)
                log(job.at, {"event": "worker died", "unit": unit.index})
                LOGGER.debug("the worker of unit %d died; the unit is tried again alone", unit.index)
            else:
                report(result)


def _run_alone(client: Client, workers: "_Workers", job: Job, unit: Unit) -> UnitReport:
    """Runs a suspect with nothing else on the cluster. If its worker dies at every try, its rows fail."""
    for number in range(2, TRIES + 1):
        future = _submit(client, workers, job, unit, careful=number == TRIES)
        workers.first_done([future])
        result = _result(workers, future)
        if result is not None:
            return result
        log(job.at, {"event": "worker died", "unit": unit.index, "try": number})
        LOGGER.debug("the worker of unit %d died at try %d of %d", unit.index, number, TRIES)
    return log_give_up(job, unit, Reason.WORKER_LOST)


def _submit(client: Client, workers: "_Workers", job: Job, unit: Unit, careful: bool = False) -> "Future[UnitReport]":
    key = f"{KEY}{unit.index}-{time.monotonic_ns()}"
    return client.submit(_on_worker, job, unit, careful, dict(workers.per_host), key=key, pure=False)


_one_at_a_time = threading.Lock()


def _on_worker(job: Job, unit: Unit, careful: bool, workers_per_host: Mapping[str, int]) -> UnitReport:
    """Runs a unit in a worker process, with its share of the machine's cores. A worker of an existing cluster may have
    several threads; a stage is not thread-safe, so it runs in one at a time."""
    with _one_at_a_time:
        use_threads(max(1, num_cores() // workers_per_host.get(host_of(get_worker().address), 1)))
        return attempt(job, unit, careful)


def _result(workers: "_Workers", future: "Future[UnitReport]") -> UnitReport | None:
    """A unit's report, or None if its worker died. Errors of the unit itself are raised."""
    try:
        while True:
            with suppress(TimeoutError):
                return future.result(timeout=LOOK_S)
            workers.count()  # if the report was lost with its worker, Dask runs the unit again
    except KilledWorker:
        return None
    except CancelledError as error:
        raise _scheduler_error() from error
    except ImportError as error:
        raise _cannot_import(error) from error
    finally:
        future.release()


class _Workers:
    """Counts the workers, per host, and how long there have been none."""

    def __init__(self, client: Client, queued: bool) -> None:
        self._client: Any = client  # its methods are typed for asyncio too
        self._seen = float("inf") if queued else time.monotonic()  # a batch job may wait in the queue for days
        self._looked = float("-inf")
        self._count = 0
        self.per_host: dict[str, int] = {}  # the maximum so far: Dask replaces a worker that died
        self.count()

    def count(self) -> int:
        """The number of workers. Raises EnvironmentFault if the scheduler is gone, or all workers are for too long."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return self._count
        if self._client.status != "running":
            raise _scheduler_error()
        try:
            hosts = [host_of(address) for address in self._client.nthreads()]
        except (OSError, TimeoutError) as error:
            raise _scheduler_error() from error
        self._looked, self._count = now, len(hosts)
        for host in set(hosts):
            self.per_host[host] = max(self.per_host.get(host, 0), hosts.count(host))
        if hosts:
            self._seen = now
        elif now - self._seen > PATIENCE_S:
            raise EnvironmentFault(
                f"all Dask workers have been gone for {PATIENCE_S:.0f} s; "
                "find out why they ended and run the same command again, which resumes"
            )
        return self._count

    def first_done(self, futures: "list[Future[UnitReport]]") -> "list[Future[UnitReport]]":
        while True:
            try:
                waited: Any = wait(futures, timeout=LOOK_S, return_when="FIRST_COMPLETED")
                return list(waited.done)
            except TimeoutError:
                self.count()
            except CancelledError as error:
                raise _scheduler_error() from error


@contextmanager
def _watch_scheduler(client: Client) -> Iterator[None]:
    """Turns every error that Dask raises when its scheduler dies into one."""
    try:
        yield
    except MaskmillError:
        raise
    except Exception as error:
        if client.status == "running":
            raise
        raise _scheduler_error() from error


def _scheduler_error() -> EnvironmentFault:
    return EnvironmentFault("the Dask scheduler was lost; run the same command again, which resumes")


def _cannot_import(error: ImportError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the Dask scheduler or its workers cannot run this version of maskmill: {error}; "
        "install the same version where they run"
    )


class _Closing(WorkerPlugin):
    """At the end of a run, closes the log of a worker process and frees what the stage had loaded."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def teardown(self, worker: Worker) -> None:
        close_log(self._job.at)
        forget(self._job)


class _OneDeath(SchedulerPlugin):
    """Reports a unit at the first death of its worker, whatever number Dask allows. Tries are counted in this module,
    because Dask counts a death against every unit in the worker's queue."""

    name = "maskmill-one-death"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def transition(self, key: Any, start: Any, finish: Any, *args: Any, **kwargs: Any) -> None:
        if finish == "processing" and str(key).startswith(KEY):
            task: Any = self._scheduler.tasks[key]
            task.suspicious = self._scheduler.allowed_failures


@contextmanager
def _install_plugins(client: Client, job: Job, stays: bool) -> Iterator[None]:
    name = f"maskmill-{job.key()}"
    try:
        client.register_plugin(_OneDeath())
        client.register_plugin(_Closing(job), name=name)
    except ImportError as error:
        raise _cannot_import(error) from error
    try:
        yield
    finally:
        if stays and client.status == "running":  # a cluster that ends with the run ends its plugins
            with suppress(OSError, TimeoutError):
                client.unregister_worker_plugin(name)
