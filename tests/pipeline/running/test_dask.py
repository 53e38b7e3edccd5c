"""Units on real worker processes: the bytes of a run in one process, whatever dies on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from builders.mistakes import assert_named
from builders.small_dataset import tree, write_dataset
from builders.small_runs import index, toy
from builders.toy import FAULTS, ToyConfig
from builders.watched_toy import WATCHED
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.errors import ConfigError, CorruptArtifact, EnvironmentFault, MaskmillError
from maskmill.manifests.files.place import place
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.executors import clusters, dask, executor_for
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.threads import num_cores

Scheduler = tuple[str, subprocess.Popen[bytes]]  # its address and its process
UNITS_OF_2 = RunOptions(unit_rows=2, max_bad=1.0)
WITH_PATH = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, so ten units of two."""
    home = tmp_path_factory.mktemp("dask")
    index(write_dataset(home / "pictures", 20), home / "images")
    return home / "images"


@pytest.fixture(scope="module")
def wanted(images: Path) -> dict[str, str]:
    """What one process makes."""
    toy(images, images.parent / "inline", UNITS_OF_2)
    return tree(images.parent / "inline")


@pytest.fixture
def out(images: Path, tmp_path: Path) -> Path:
    """Beside the inputs, because an artifact names them by a relative path."""
    return images.parent / tmp_path.name


@pytest.fixture
def window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory through which the toys are told what to do and tell what they did."""
    window = tmp_path / "window"
    window.mkdir()
    monkeypatch.setenv(FAULTS, str(window))
    return window


def watched(images: Path, out: Path, options: RunOptions) -> Outcome:
    return run(WATCHED, ToyConfig(), {"images": str(images)}, str(out), options)


def workers(number: int) -> RunOptions:
    return replace(UNITS_OF_2, workers=number)


def calls(window: Path) -> dict[int, int]:
    """How often each unit was begun."""
    return {int(path.name.partition("-")[2]): int(path.read_text()) for path in window.glob("calls-*")}


def unit_of(images: Path, identifier: str) -> int:
    rows = open_artifact(str(images.parent / "inline")).rows(["id", "unit"]).to_pylist()
    return next(row["unit"] for row in rows if row["id"] == identifier)


def failed(out: Path) -> dict[str, str]:
    rows = open_artifact(str(out)).rows(["id", "status", "reason"]).to_pylist()
    return {row["id"]: row["reason"] for row in rows if row["status"] != "ok"}


def until(reached: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_make_the_bytes_of_one_process(images: Path, wanted: dict[str, str], out: Path, window: Path) -> None:
    environment = dict(os.environ)
    outcome = watched(images, out, workers(2))
    assert (outcome.units_run, tree(out)) == (10, wanted)
    assert verify(str(out)).exit_code == 0
    # one call of `prepare` in each process that ran something, and none here
    ran = [path.name.split("-") for path in window.glob("ran-*")]
    processes = {pid for _, _, pid in ran}
    assert sorted(int(unit) for _, unit, _ in ran) == list(range(10))
    assert {path.name.partition("-")[2]: path.read_text() for path in window.glob("prepared-*")} == dict.fromkeys(
        processes, "p"
    )
    assert str(os.getpid()) not in processes
    # the machine's cores shared out, and nothing of it left here
    threads = [json.loads(path.read_text()) for path in window.glob("ran-*")]
    assert {count for each in threads for count in each.values()} == {str(max(1, num_cores() // 2))}
    assert dict(os.environ) == environment
    assert watched(images, out, workers(2)).units_skipped == 10


def test_units_in_flight_are_bounded(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, in_flight, most = Client.submit, 0, 0

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        return submit(*arguments, **more)

    result = dask._result

    def answered(*arguments: Any) -> Any:
        nonlocal in_flight
        in_flight -= 1
        return result(*arguments)

    monkeypatch.setattr(Client, "submit", counted)
    monkeypatch.setattr(dask, "_result", answered)
    toy(images, out, workers(2))
    assert (in_flight, most) == (0, 2 * dask.IN_FLIGHT_PER_WORKER)


def test_a_worker_that_dies_costs_nothing(images: Path, wanted: dict[str, str], out: Path, window: Path) -> None:
    (window / "kill-cat-4").write_text("1")
    toy(images, out, workers(2))
    assert tree(out) == wanted
    assert calls(window)[unit_of(images, "cat/4")] == 2


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_unit_that_always_kills_its_worker_takes_no_neighbour_with_it(
    images: Path, wanted: dict[str, str], out: Path, window: Path, number: int
) -> None:
    (window / "kill-cat-4").write_text("1000")
    (window / "raise-dog-13").write_text("1000")
    outcome = toy(images, out, workers(number))
    lost, raised = (unit_of(images, identifier) for identifier in ("cat/4", "dog/13"))
    begun = calls(window)
    assert (begun[lost], begun[raised]) == (3, 3)
    assert set(begun) == set(range(10))
    reasons = failed(out)
    assert sorted(reasons.values()) == ["error", "error", "worker_lost", "worker_lost"]
    assert (reasons["cat/4"], reasons["dog/13"]) == ("worker_lost", "error")
    assert outcome.counts["ok"] == 16
    # everything that other units wrote is as if nothing had happened
    theirs = tree(out)
    same = {name for name in wanted if theirs[name] == wanted[name]}
    units = {f"ledger/000/{unit:05d}.json" for unit in range(10) if unit not in (lost, raised)}
    assert units | {f"square.zarr/c/{unit}/0/0" for unit in range(10) if unit not in (lost, raised)} <= same
    for name in ("kill-cat-4", "raise-dog-13"):
        (window / name).unlink()
    assert toy(images, out, workers(number)).units_run == 2
    assert tree(out) == wanted


@pytest.mark.parametrize("error", [EnvironmentFault, CorruptArtifact])
def test_what_is_wrong_for_every_unit_ends_the_run_as_itself(
    images: Path, out: Path, window: Path, error: type[MaskmillError]
) -> None:
    (window / "raise-as").write_text(error.__name__)
    with pytest.raises(error, match=rf"^told to raise {error.__name__} in unit \d$") as raised:
        watched(images, out, workers(1))
    assert raised.value.exit_code == error.exit_code
    assert len(list(window.glob("ran-*"))) <= dask.IN_FLIGHT_PER_WORKER + 1


# ---- a scheduler of somebody else


@contextmanager
def program(module: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)],
        env={**os.environ, **WITH_PATH},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    """The address of a scheduler process on this machine, and the process."""
    file = tmp_path / "scheduler.json"
    arguments = ["--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file]
    with program("dask_scheduler", *arguments) as process:
        until(lambda: file.exists() and file.read_text().strip().endswith("}"))
        yield json.loads(file.read_text())["address"], process


def worker(address: str, *arguments: object) -> Any:
    return program("dask_worker", address, "--host", "127.0.0.1", "--no-dashboard", *arguments)


def test_units_run_on_a_scheduler_that_is_there(
    images: Path, wanted: dict[str, str], out: Path, window: Path, scheduler: Scheduler
) -> None:
    address, _ = scheduler
    with worker(address, "--nthreads", 4, "--nworkers", 1):  # four threads, and still one unit at a time
        assert watched(images, out, replace(UNITS_OF_2, scheduler=address)).units_run == 10
        assert tree(out) == wanted
        assert [path.read_text() for path in window.glob("prepared-*")] == ["p"]
        threads = [json.loads(path.read_text()) for path in window.glob("ran-*")]
        assert {count for each in threads for count in each.values()} == {str(num_cores())}
        # that scheduler allows three deaths, and a unit still kills no more than three workers
        (window / "kill-cat-4").write_text("1000")
        again = out.with_name(f"{out.name}-again")
        assert toy(images, again, replace(UNITS_OF_2, scheduler=address)).counts["reasons"] == {"worker_lost": 2}
        assert calls(window)[unit_of(images, "cat/4")] == 1 + 3
    with Client(address, set_as_default=False) as client:
        left: Any = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins))
    assert not [name for name in left if "maskmill" in name]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run gives up after a second without any worker."""
    monkeypatch.setattr(dask, "PATIENCE_S", 1.0)
    monkeypatch.setattr(dask, "LOOK_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_without_any_worker_the_run_gives_up(images: Path, out: Path, scheduler: Scheduler) -> None:
    with pytest.raises(EnvironmentFault, match=r"Dask workers .*1 s"):
        toy(images, out, replace(UNITS_OF_2, scheduler=scheduler[0]))


@pytest.mark.usefixtures("impatient")
def test_workers_that_all_die_are_given_up(
    images: Path, wanted: dict[str, str], out: Path, window: Path, scheduler: Scheduler
) -> None:
    (window / "kill-cat-4").write_text("1")
    with (
        worker(scheduler[0], "--nthreads", 1, "--no-nanny"),  # nobody starts it again
        pytest.raises(EnvironmentFault, match="Dask workers"),
    ):
        toy(images, out, replace(UNITS_OF_2, scheduler=scheduler[0]))
    toy(images, out, UNITS_OF_2)
    assert tree(out) == wanted


def test_a_scheduler_that_dies_ends_the_run_at_once(
    images: Path, wanted: dict[str, str], out: Path, window: Path, scheduler: Scheduler
) -> None:
    address, process = scheduler
    (window / "wait").write_text("0.3")
    with worker(address, "--nthreads", 1):
        command = start(images, out, {"scheduler": address})
        until(lambda: len(list(window.glob("ran-*"))) >= 3)
        process.kill()
        _, told = command.communicate(timeout=60)
    assert_named(told, "maskmill: Dask scheduler lost")
    assert told.count("\n") == 1
    assert command.returncode == 7
    (window / "wait").unlink()
    assert toy(images, out, UNITS_OF_2).units_skipped >= 2
    assert tree(out) == wanted


def test_an_address_where_nobody_answers(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "PATIENCE", "1s")
    with pytest.raises(EnvironmentFault, match=r"tcp://127\.0\.0\.1:9"):
        toy(images, out, replace(UNITS_OF_2, scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("127.3.2.1:8786", True),
        ("localhost:8786", True),
        ("tcp://[::1]:8786", True),
        ("tls://cluster.example.org:8786", True),
        ("tcp://10.0.0.7:8786", False),
        ("10.0.0.7:8786", False),
        ("tcp://0.0.0.0:8786", False),
        ("tcp://cluster.example.org:8786", False),
        ("tcp://localhost.example.org:8786", False),
        ("tcp://127.0.0.1@10.0.0.7:8786", False),
        ("tcp://[2001:db8::1]:8786", False),
    ],
)
def test_an_open_port_is_refused_unless_told(address: str, allowed: bool) -> None:
    if allowed:
        clusters.refuse_open_port(address, insecure=False)
    else:
        with pytest.raises(ConfigError, match=r"tls://.*--insecure"):
            clusters.refuse_open_port(address, insecure=False)
    clusters.refuse_open_port(address, insecure=True)


def test_a_run_on_an_open_port_is_refused_before_anything_is_written(images: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match=r"10\.0\.0\.7"):
        toy(images, out, replace(UNITS_OF_2, scheduler="tcp://10.0.0.7:8786"))
    assert not out.exists()


@pytest.mark.parametrize("address", ["tcp://", "tcp://[::1", "tcp://127.0.0.1:port"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="tcp://HOST:PORT"):
        clusters.refuse_open_port(address, insecure=True)


# ---- signals


def start(images: Path, out: Path, options: dict[str, Any]) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts one."""
    from builders import watched_toy

    return subprocess.Popen(
        [sys.executable, watched_toy.__file__, str(images), str(out), json.dumps({"unit_rows": 2, **options})],
        env={**os.environ, **WITH_PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(group: int) -> list[int]:
    """The living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("number", "wait", "after"),
    [
        (signal.SIGINT, "0.2", 3),
        (signal.SIGTERM, "0.2", 3),
        pytest.param(signal.SIGINT, "60", 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "60", 2, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_at_once_and_quietly_and_resumes(
    images: Path, wanted: dict[str, str], out: Path, window: Path, number: signal.Signals, wait: str, after: int
) -> None:
    (window / "wait").write_text(wait)
    command = start(images, out, {"workers": 2})
    until(lambda: len(list(window.glob("ran-*"))) >= after)
    os.killpg(command.pid, number)  # as a terminal does it: to every process of the group
    stdout, told = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    how = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert re.fullmatch(rf"maskmill: stopped by {how}; [^\n]+\n", told)
    assert stdout == ""
    until(lambda: not processes_of(command.pid), 5)
    toy(images, out, UNITS_OF_2)
    assert tree(out) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3 * step for step in range(1, 15)])
def test_ctrl_c_at_any_moment_leaves_no_process(images: Path, out: Path, window: Path, delay: float) -> None:
    (window / "wait").write_text("0.2")
    command = start(images, out, {"workers": 2})
    time.sleep(delay)
    os.killpg(command.pid, signal.SIGINT)
    _, told = command.communicate(timeout=60)
    assert command.returncode in (130, -signal.SIGINT, 0)  # before the shell stands, Python's own; or already done
    if command.returncode == 130:
        assert told.splitlines()[-1].startswith("maskmill: stopped by Ctrl-C")
    until(lambda: not processes_of(command.pid), 5)


def test_a_killed_run_leaves_no_worker(images: Path, wanted: dict[str, str], out: Path, window: Path) -> None:
    (window / "wait").write_text("0.2")
    command = start(images, out, {"workers": 2})
    until(lambda: len(list(window.glob("ran-*"))) >= 3)
    command.kill()
    command.communicate(timeout=60)
    until(lambda: not processes_of(command.pid), 10)
    toy(images, out, UNITS_OF_2)
    assert tree(out) == wanted


# ---- batch jobs


def cluster_file(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_batch_jobs_run_units(images: Path, wanted: dict[str, str], out: Path, window: Path, tmp_path: Path) -> None:
    file = cluster_file(
        tmp_path / "cluster.toml",
        f"""
        queue = "local"
        jobs = 1
        [options]
        memory = "1GB"
        local_directory = "{tmp_path}"
        scheduler_options = {{ host = "127.0.0.1" }}
        worker_extra_args = ["--host", "127.0.0.1", "--no-dashboard"]
        """,
    )
    command = start(images, out, {"cluster": file})
    stdout, told = command.communicate(timeout=60)
    assert (command.returncode, json.loads(stdout)["ok"], told) == (0, 20, "")
    assert tree(out) == wanted
    assert {path.name.rpartition("-")[2] for path in window.glob("ran-*")}.isdisjoint({str(command.pid)})
    until(lambda: not processes_of(command.pid), 10)


@pytest.mark.parametrize(("options", "why"), [('memory = "1GB"\ncolour = "red"', "colour"), ("cores = 2", "memory")])
def test_options_that_dask_jobqueue_refuses(images: Path, out: Path, window: Path, options: str, why: str) -> None:
    file = cluster_file(window / "cluster.toml", f'queue = "local"\njobs = 1\n[options]\n{options}')
    command = start(images, out, {"cluster": file})
    _, told = command.communicate(timeout=60)
    assert command.returncode == 2
    assert_named(told, f"{file} dask-jobqueue [options] {why}")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("queue = ", "cluster"),
        ("", "queue jobs 0"),
        ('queue = "cron"\njobs = 2', "queue 'cron'"),
        ('queue = "slurm"\njobs = 0', "jobs 0"),
        ('queue = "slurm"\njobs = "2"', "jobs '2'"),
        ('queue = ["slurm"]\njobs = 2', "queue"),
        ('queue = "slurm"\njobs = 2\noptions = 3', "queue 'slurm' jobs 2"),
        ('queue = "slurm"\njobs = 2\nmemory = "1GB"', "'memory'"),
    ],
)
def test_a_cluster_file_that_cannot_be_is_refused(tmp_path: Path, text: str, named: str) -> None:
    file = cluster_file(tmp_path / "cluster.toml", text)
    with pytest.raises(ConfigError) as refused:
        executor_for(RunOptions(cluster=file), place(tmp_path))
    assert_named(str(refused.value), f"{file} {named}")
    assert "\n" not in str(refused.value)


def test_a_cluster_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        executor_for(RunOptions(cluster=str(tmp_path / "none.toml")), place(tmp_path))


def test_three_ways_to_run_exclude_each_other_and_parts(tmp_path: Path) -> None:
    for options in (
        RunOptions(workers=2, scheduler="127.0.0.1:8786"),
        RunOptions(scheduler="127.0.0.1:8786", cluster="x.toml"),
        RunOptions(workers=2, part=(1, 2)),
    ):
        with pytest.raises(ConfigError):
            executor_for(options, place(tmp_path))
