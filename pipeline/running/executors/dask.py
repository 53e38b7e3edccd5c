"""Units on the workers of a Dask cluster, each worker one process that runs one unit at a time.

Execution is at least once: a worker that dies may have finished its unit, and one that was thought dead may still be
writing. Units are harmless to repeat, so all that is kept here is which of them are still owed.

A unit whose worker died is suspect, and so is whatever stood in that worker's queue. Suspects are tried again alone,
so that one unit that kills its worker never takes a neighbour with it.
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
from ..threads import num_cores, use_threads
from ..units import UnitReport
from .attempts import attempt, close_log, log, log_give_up
from .clusters import connect_client, host_of

IN_FLIGHT_PER_WORKER = 2  # one running, one waiting: the wait for the scheduler costs nothing, and little is lost
PATIENCE_S = 120.0  # without any worker for so long, they are lost
LOOK_S = 2.0  # how often the workers are counted
KEY = "maskmill-unit-"


def run_on_dask(job: Job, units: Iterator[Unit], report: Callable[[UnitReport], None], options: RunOptions) -> None:
    """Runs every unit, a bounded number at a time. Raises what is wrong with the artifact or the machine."""
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
    """Runs the units and gives those whose worker died."""
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
            else:
                report(result)


def _run_alone(client: Client, workers: "_Workers", job: Job, unit: Unit) -> UnitReport:
    """A suspect with the whole cluster to itself; if its worker dies again and again, its rows fail."""
    for number in range(2, TRIES + 1):
        future = _submit(client, workers, job, unit, careful=number == TRIES)
        workers.first_done([future])
        result = _result(workers, future)
        if result is not None:
            return result
        log(job.at, {"event": "worker died", "unit": unit.index, "try": number})
    return log_give_up(job, unit, Reason.WORKER_LOST)


def _submit(client: Client, workers: "_Workers", job: Job, unit: Unit, careful: bool = False) -> "Future[UnitReport]":
    key = f"{KEY}{unit.index}-{time.monotonic_ns()}"
    return client.submit(_on_worker, job, unit, careful, dict(workers.per_host), key=key, pure=False)


_one_at_a_time = threading.Lock()


def _on_worker(job: Job, unit: Unit, careful: bool, workers_per_host: Mapping[str, int]) -> UnitReport:
    """A unit in a worker process, with its share of the machine's cores. A worker that was started by somebody else
    may have several threads; a stage and what it prepared are for one."""
    with _one_at_a_time:
        use_threads(max(1, num_cores() // workers_per_host.get(host_of(get_worker().address), 1)))
        return attempt(job, unit, careful)


def _result(workers: "_Workers", future: "Future[UnitReport]") -> UnitReport | None:
    """A unit's report, or None if its worker died. Errors of the unit itself are raised."""
    try:
        while True:
            with suppress(TimeoutError):
                return future.result(timeout=LOOK_S)
            workers.count()  # the report was lost with its worker, and Dask runs the unit again where it can
    except KilledWorker:
        return None
    except CancelledError as error:
        raise _scheduler_error() from error
    except ImportError as error:
        raise _cannot_import(error) from error
    finally:
        future.release()


class _Workers:
    """How many workers there are, where, and how long there have been none."""

    def __init__(self, client: Client, queued: bool) -> None:
        self._client: Any = client  # its methods are typed as for asyncio as well
        self._seen = float("inf") if queued else time.monotonic()  # a batch job may wait for days until it starts
        self._looked = float("-inf")
        self._count = 0
        self.per_host: dict[str, int] = {}  # the most that were seen: a worker that died is soon replaced
        self.count()

    def count(self) -> int:
        """The number of workers. Raises EnvironmentFault when the scheduler is gone, or all workers for too long."""
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
                f"all Dask workers have been gone for {PATIENCE_S:.0f} s; what is done is kept, "
                "so see why they ended and run the same command again"
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
    """What Dask raises when its scheduler dies depends on the moment; all of it means the same."""
    try:
        yield
    except MaskmillError:
        raise
    except Exception as error:
        if client.status == "running":
            raise
        raise _scheduler_error() from error


def _scheduler_error() -> EnvironmentFault:
    return EnvironmentFault("the Dask scheduler was lost; what is done is kept, so run the same command again")


def _cannot_import(error: ImportError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the Dask scheduler or its workers cannot run this maskmill: {error}; "
        "install the same version of it where they run"
    )


class _Closing(WorkerPlugin):
    """Ends the log of a worker process with the run, and lets go of what the stage had loaded."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def teardown(self, worker: Worker) -> None:
        close_log(self._job.at)
        forget(self._job)


class _OneDeath(SchedulerPlugin):
    """Reports a unit at once when its worker dies, however many deaths the scheduler would allow: the tries are
    counted here, because Dask counts a death against every unit in the worker's queue."""

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
