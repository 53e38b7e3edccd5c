"""Extraction on worker processes: the bytes of one process, with one model each, whatever kills a worker."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from builders import small_runs
from builders.configs import make_config
from builders.small_dataset import tree, write_dataset
from faults.watched_extract import WATCHED, WINDOW
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.executors.dask import IN_FLIGHT_PER_WORKER
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.threads import num_cores
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE

UNITS = 10  # of two pictures
# Every Python that is started with it has a decoder that takes its process down with a picture of a certain comment.
ABORTING = """
import os
from PIL import ImageFile

load = ImageFile.ImageFile.load

def aborting(self):
    if b"abort" in self.info.get("comment", b""):
        os.abort()
    return load(self)

ImageFile.ImageFile.load = aborting
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("workers")
    small_runs.index(write_dataset(home / "pictures", 2 * UNITS), home / "images")
    return home / "images"


@pytest.fixture(scope="module")
def wanted(images: Path) -> dict[str, str]:
    """What one process makes, on one thread."""
    extracted(images, images.parent / "inline", stage=STAGE)
    return tree(images.parent / "inline")


@pytest.fixture
def out(images: Path, tmp_path: Path) -> Path:
    """Beside the inputs, because an artifact names them by a relative path."""
    return images.parent / tmp_path.name


@pytest.fixture
def window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    window = tmp_path / "window"
    window.mkdir()
    monkeypatch.setenv(WINDOW, str(window))
    return window


def extracted(images: Path, out: Path, workers: int = 0, stage: object = WATCHED) -> Outcome:
    config = make_config(
        ExtractConfig, backbone="test_vit.r160_in1k", weights="random:0", image_size=(32, 48), dtype="float32", batch=2
    )
    options = RunOptions(unit_rows=2, max_bad=1.0, workers=workers)
    return run(stage, config, {"images": str(images)}, str(out), options)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_workers_load_one_model_each_and_share_the_cores(
    images: Path, wanted: dict[str, str], out: Path, window: Path, workers: int
) -> None:
    assert extracted(images, out, workers).units_run == UNITS
    assert tree(out) == wanted
    ran = [path.name.split("-") for path in window.glob("ran-*")]
    assert sorted(int(unit) for _, unit, _ in ran) == list(range(UNITS))
    loaded = {path.name.partition("-")[2]: path.read_text() for path in window.glob("prepared-*")}
    assert loaded == {pid: "p" for _, _, pid in ran}
    assert str(os.getpid()) not in loaded
    assert {path.read_text() for path in window.glob("ran-*")} == {str(max(1, num_cores() // workers))}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_decoder_that_aborts_fails_its_picture_and_no_other(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12: the last try of its unit decodes every picture in a process of its own."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(ABORTING)
    pictures = write_dataset(tmp_path / "pictures", 2 * UNITS)
    poisoned = Image.open(pictures / "dog/9.png")
    poisoned.save(pictures / "dog/9.png", "JPEG", comment=b"abort")  # what it is shows in its bytes
    small_runs.index(pictures, tmp_path / "images")
    extracted(tmp_path / "images", tmp_path / "harmless", stage=STAGE)
    harmless = open_tokens(tmp_path / "harmless")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")]))
    outcome = extracted(tmp_path / "images", tmp_path / "tokens", workers, STAGE)
    assert outcome.counts["reasons"] == {"crashed": 1}
    assert outcome.counts["ok"] == 2 * UNITS - 1
    tokens = open_tokens(tmp_path / "tokens")
    assert [row["id"] for row in tokens.rows.to_pylist() if row["status"] != "ok"] == ["dog/9"]
    others = [identifier for identifier in tokens.rows.column("id").to_pylist() if identifier != "dog/9"]
    for field in tokens.fields:
        assert tokens.read(field, others).tobytes() == harmless.read(field, others).tobytes()
    events = [
        json.loads(line) for path in (tmp_path / "tokens/log").iterdir() for line in path.read_text().splitlines()
    ]
    deaths = [event["unit"] for event in events if event["event"] == "worker died"]
    (poison,) = [row["unit"] for row in tokens.rows.to_pylist() if row["id"] == "dog/9"]
    assert deaths.count(poison) == 2
    assert len(deaths) <= 1 + IN_FLIGHT_PER_WORKER
    assert verify(str(tmp_path / "tokens")).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01])
@pytest.mark.parametrize("begun", range(1, UNITS + 1))
def test_a_worker_that_is_killed_costs_nothing(
    images: Path, wanted: dict[str, str], out: Path, window: Path, begun: int, delay: float
) -> None:
    """Row 10, at twenty moments: when so many units have begun, and a little later."""
    with killed_once(window, begun, delay) as killed:
        extracted(images, out, 2)
    assert len(killed) == 1
    assert tree(out) == wanted
    assert sorted(path.name for path in out.glob("ledger/*/*.json")) == [f"{unit:05d}.json" for unit in range(UNITS)]
    begun_of = Counter(int(path.name.split("-")[1]) for path in window.glob("ran-*"))
    assert set(begun_of) == set(range(UNITS))
    again = sum(begun_of.values()) - UNITS
    assert again <= IN_FLIGHT_PER_WORKER, "no unit but those of the worker that died"
    assert verify(str(out)).exit_code == 0


@contextmanager
def killed_once(window: Path, begun: int, delay: float) -> Iterator[list[int]]:
    """Kills the process that began the latest unit when so many have begun; gives whom it killed."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen = sorted(window.glob("ran-*"), key=lambda path: path.stat().st_mtime_ns)
            if len(seen) >= begun:
                time.sleep(delay)
                killed.append(int(seen[-1].name.rpartition("-")[2]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield killed
    finally:
        over.set()
        watcher.join()
