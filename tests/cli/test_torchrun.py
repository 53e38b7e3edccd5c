"""`maskmill pretrain` by several processes that torchrun started: what they compute is what one does, the first answers
for all, and whatever happens to one of them ends them all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load

from builders.mistakes import assert_named
from builders.small_pretraining import BATCH, command, metrics, stopped_alone, write_home
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.pipeline.answers.verify import verify

TESTS = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def surroundings() -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that two processes answered, and what one process made of the same."""
    home = write_home(tmp_path_factory.mktemp("home"))
    stopped_alone(home, "begun-by-1")
    torchrun = [*TORCHRUN, str(TESTS / "builders/small_pretraining.py"), str(home)]
    ran = subprocess.run(torchrun, env=surroundings(), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    for recipe in ("balanced", "centred"):
        assert main(command(home, f"{recipe}-1", recipe)) in (0, 6)
    return home


def answers(home: Path, case: str) -> list[dict[str, Any]]:
    return [json.loads((home / "answers" / f"{case}-{number}.json").read_text()) for number in range(2)]


def assert_alike(out: Path, other: Path) -> None:
    """Lines and weights to rounding; what is not a number is the same."""
    lines, others = metrics(out), metrics(other)
    assert [list(line) for line in lines] == [list(line) for line in others]
    for line, alike in zip(lines, others, strict=True):
        for name, value in line.items():
            assert value == pytest.approx(alike[name], abs=2e-5), (line["step"], name)
    found, wanted = (load(open_artifact(str(each)).file("weights.safetensors")) for each in (out, other))
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5


@pytest.mark.parametrize("recipe", ["balanced", "centred"])
def test_two_processes_compute_what_one_does(home: Path, recipe: str) -> None:
    assert_alike(home / f"{recipe}-2", home / f"{recipe}-1")
    first, other = answers(home, recipe)
    assert first["out"].startswith("checkpoint: kind backbone")
    assert first["err"].count("maskmill: epoch ") == 2
    assert other == {"code": 0, "out": "", "err": ""}
    assert verify(str(home / f"{recipe}-2")).exit_code == 0
    assert len(list((home / f"{recipe}-2" / "log").iterdir())) == 1


def test_what_is_done_is_not_done_again(home: Path) -> None:
    first, other = answers(home, "again")
    assert "; already done in " in first["out"]
    assert other == {"code": 0, "out": "", "err": ""}


@pytest.mark.parametrize(
    ("case", "code", "named"),
    [
        ("indivisible", 2, "--batch 9 2 processes"),
        ("mistaken", 2, "losses 'mim'"),
        ("other config", 3, "seed 3 4"),
        ("other command", 2, "`maskmill status` torchrun"),
    ],
)
def test_a_mistake_gets_one_sentence_of_the_first(home: Path, case: str, code: int, named: str) -> None:
    first, other = answers(home, case)
    assert (first["code"], first["err"].count("\n")) == (code, 1)
    assert_named(first["err"], named)
    assert other == {"code": 0, "out": "", "err": ""}
    assert not (home / "none").exists()


def test_what_two_began_one_goes_on_with(home: Path) -> None:
    """Both were told to end by a signal that one of them heard, in the middle of step 3."""
    first, other = answers(home, "told to end")
    assert first["code"] == 143
    assert first["err"].splitlines()[-1].startswith("maskmill: stopped by SIGTERM; ")
    assert other == {"code": 0, "out": "", "err": ""}
    assert main(command(home, "ended-by-2")) == 0
    assert resumed(home / "ended-by-2") == [4]
    assert_alike(home / "ended-by-2", home / "centred-1")


def test_what_one_began_two_go_on_with(home: Path) -> None:
    assert [answer["code"] for answer in answers(home, "gone on with")] == [0, 0]
    assert resumed(home / "begun-by-1") == [2]
    assert_alike(home / "begun-by-1", home / "centred-1")


def test_a_loss_of_one_process_that_is_no_number_stops_all_before_the_update(home: Path) -> None:
    first, other = answers(home, "not finite")
    assert first["code"] == 8
    told, _, rest = first["err"].splitlines()[-1].partition(", over ")
    assert_named(told, "loss step 4 nan")
    ids = rest.partition(";")[0].split(", ")
    assert len(set(ids)) == BATCH // 2, "the rows of that process alone"
    assert other == {"code": 0, "out": "", "err": ""}
    assert not (home / "poisoned/artifact.json").exists()


def resumed(out: Path) -> list[int]:
    lines = [json.loads(line) for path in (out / "log").iterdir() for line in path.read_text().splitlines()]
    return [line["step"] for line in lines if line["event"] == "resumed"]


# ---- as a user starts it


@contextmanager
def started(home: Path, *program: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Up to the end of the first epoch; whatever is left of it afterwards is killed."""
    arguments = [*TORCHRUN, *(program or ("-m", "maskmill")), *command(home, **options)]
    running = subprocess.Popen(arguments, env=surroundings(), cwd=home, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("maskmill: epoch 1 of"):
                break
        yield running
    finally:
        running.kill()
        running.wait()


def workers(running: subprocess.Popen[str]) -> list[int]:
    """In the order of their numbers."""
    own = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    ranks = {_environment(pid)["RANK"]: int(pid) for pid in own if "RANK" in _environment(pid)}
    return [ranks["0"], ranks["1"]]


def _environment(pid: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return {name: value for name, _, value in pairs}


def ended(running: subprocess.Popen[str], pids: list[int]) -> str:
    """What it still said; and that nothing of it runs on."""
    _, said = running.communicate(timeout=120)
    assert running.returncode != 0
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    return said


@pytest.mark.slow
def test_ctrl_c_keeps_where_all_are(home: Path) -> None:
    asked: dict[str, Any] = {"epochs": 12, "losses": "reconstruction"}  # without clusters that might collapse
    with started(home, out="ctrl-c", **asked) as running:
        pids = workers(running)
        running.send_signal(signal.SIGINT)
        said = ended(running, pids)
    assert "maskmill: stopped by Ctrl-C; " in said
    assert said.count("maskmill: stopped by") == 1
    (kept,) = (home / "ctrl-c/underway").iterdir()
    assert main(command(home, "ctrl-c", **asked)) == 0
    assert main(command(home, "never-stopped", **asked)) == 0
    assert resumed(home / "ctrl-c") == [int(kept.name.partition(".")[0])]
    assert_alike(home / "ctrl-c", home / "never-stopped")


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_others(home: Path, number: int) -> None:
    with started(home, out=f"killed-{number}", epochs=100) as running:
        pids = workers(running)
        os.kill(pids[number], signal.SIGKILL)
        ended(running, pids)
    assert bool(list((home / f"killed-{number}").glob("underway/*"))) == (number == 1), "kept by the first, if it lives"


IMPATIENT = """
import sys
from maskmill.cli.main import main
from maskmill.manifests.files import torchrun
torchrun.WAIT_S = 10.0
sys.exit(main())
"""


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for_for_ever(home: Path) -> None:
    (home / "impatient.py").write_text(IMPATIENT)
    with started(home, "impatient.py", out="hanging", epochs=100) as running:
        pids = workers(running)
        os.kill(pids[1], signal.SIGSTOP)
        said = ended(running, pids)
    assert "maskmill: process 0 of 2 " in said
    assert list((home / "hanging").glob("underway/*"))
