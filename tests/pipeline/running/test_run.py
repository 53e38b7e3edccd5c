"""A run and its artifact: grown, tried again, refused before anything is made, and read by id."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.small_dataset import tree, write_dataset, write_picture
from builders.toy import ECHO, FAULTS, TOY, EchoConfig, ToyConfig
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.errors import (
    ConfigError,
    EnvironmentFault,
    InputError,
    MissingArtifact,
    StaleArtifact,
    UnfinishedArtifact,
)
from maskmill.pipeline.answers.estimate import estimate
from maskmill.pipeline.answers.status import list_failed_rows, status
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.job import PreparationError
from maskmill.pipeline.running.making import Order
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, retry, run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.stage import Inputs

UNITS_OF_4 = RunOptions(unit_rows=4, max_bad=0.5)


def index(root: Path, out: Path, options: RunOptions = UNITS_OF_4) -> Outcome:
    return run(INDEX, IndexConfig(source=FolderSource(root=str(root))), {}, str(out), options)


def toy(images: Path, out: Path, config: ToyConfig | None = None, options: RunOptions = UNITS_OF_4) -> Outcome:
    return run(TOY, config or ToyConfig(), {"images": str(images)}, str(out), options)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    index(write_dataset(tmp_path / "pictures"), tmp_path / "images")
    return tmp_path / "images"


def expected(pictures: Path, identifier: str, length: int = 12) -> np.ndarray:
    """What the toy computes, from the file itself."""
    from PIL import Image

    with Image.open(pictures / f"{identifier}.png") as picture:
        return np.resize(np.asarray(picture, np.float32).ravel(), length) + 1


def test_every_row_reads_back_by_its_id(images: Path, tmp_path: Path) -> None:
    outcome = toy(images, tmp_path / "toys")
    assert (outcome.units_run, outcome.counts["ok"]) == (3, 10)
    toys = open_artifact(str(tmp_path / "toys"), "toys")
    ids = ["dog/9", "cat/0", "dog/3"]
    squares = toys.read("square", toys.positions(ids))
    for identifier, square in zip(ids, squares, strict=True):
        np.testing.assert_array_equal(square.ravel(), expected(tmp_path / "pictures", identifier))
    means = toys.rows_of(ids, ["mean"]).column("mean").to_pylist()
    assert means == pytest.approx([float(expected(tmp_path / "pictures", i, 20).mean()) for i in ids])


def test_fields_are_added_without_touching_those_that_are_there(images: Path, tmp_path: Path) -> None:
    toys = tmp_path / "toys"
    toy(images, toys)
    shards = {name: digest for name, digest in tree(toys).items() if name.startswith(("square.zarr", "ledger/"))}
    both = ToyConfig(fields=("square", "wide"))
    outcome = toy(images, toys, both, RunOptions(unit_rows=3))
    assert (outcome.units_run, outcome.units_skipped) == (4, 3)  # units of 3 for the new field, of 4 for the old
    assert {name: tree(toys)[name] for name in shards} == shards
    opened = open_artifact(str(toys))
    wide = opened.read("wide", opened.positions(["dog/5"]))[0]
    np.testing.assert_array_equal(wide.ravel(), expected(tmp_path / "pictures", "dog/5", 10))
    added = tree(toys)
    for held in (("square", "wide"), ("square",), ("wide",)):  # fewer fields than are there is done, too
        assert toy(images, toys, ToyConfig(fields=held)).units_run == 0
    assert tree(toys) == added


def test_an_added_picture_is_a_new_unit_at_the_end(images: Path, tmp_path: Path) -> None:
    toys, echoes = tmp_path / "toys", tmp_path / "echoes"
    toy(images, toys, ToyConfig(fields=("square", "wide")))
    run(ECHO, EchoConfig(), {"toys": str(toys)}, str(echoes), UNITS_OF_4)
    shards = {name: digest for name, digest in tree(toys).items() if "/c/" in name or name.startswith("ledger")}
    write_picture(tmp_path / "pictures/cat/0a.png", 99)  # sorts between the others
    with pytest.raises(StaleArtifact, match=r"rows.*\b1\b.*\b0\b.*--update"):
        index(tmp_path / "pictures", images)
    assert index(tmp_path / "pictures", images, replace(UNITS_OF_4, update=True)).units_run == 1
    assert toy(images, toys).units_run == 1
    assert run(ECHO, EchoConfig(), {"toys": str(toys)}, str(echoes), UNITS_OF_4).units_run == 1
    assert {name: tree(toys)[name] for name in shards} == shards
    opened = open_artifact(str(toys))
    assert opened.rows(["id"]).column("id").to_pylist()[-1] == "cat/0a"
    assert opened.rows(["row"]).column("row").to_pylist()[-1] == 12  # ten rows fill slots 0–9, units begin at 12
    np.testing.assert_array_equal(opened.read("square", [10])[0].ravel(), expected(tmp_path / "pictures", "cat/0a"))
    assert verify(str(toys)).faults == verify(str(echoes)).faults == ()


def test_a_vanished_picture_keeps_its_row(images: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures/dog/3.png").unlink()
    with pytest.raises(StaleArtifact, match=r"rows.*\b0\b.*\b1\b.*--update"):
        index(tmp_path / "pictures", images)
    outcome = index(tmp_path / "pictures", images, replace(UNITS_OF_4, update=True))
    assert (outcome.rows, outcome.counts["reasons"]) == (10, {"missing": 1})
    assert toy(images, tmp_path / "toys").counts["upstream"] == 1
    assert [(row.id, row.status, row.reason) for row in list_failed_rows(str(tmp_path / "toys"))] == [
        ("dog/3", "upstream", "missing")
    ]


def test_retry_runs_only_units_with_failed_rows(images: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures/dog/3.png", 77, (23, 16))
    toy(images, tmp_path / "toys")
    assert retry(str(tmp_path / "toys"), UNITS_OF_4).units_run == 1
    write_picture(tmp_path / "pictures/dog/3.png", 3, (23, 16))  # as it was
    outcome = retry(str(tmp_path / "toys"), UNITS_OF_4)
    assert (outcome.units_run, outcome.counts["failed"]) == (1, 0)
    toy(images, tmp_path / "untroubled")
    assert tree(tmp_path / "toys") == tree(tmp_path / "untroubled")


def test_status_and_estimate_say_what_is_there(images: Path, tmp_path: Path) -> None:
    planned = estimate(Order(TOY, ToyConfig(), {"images": open_artifact(str(images))}), UNITS_OF_4)
    outcome = toy(images, tmp_path / "toys")
    files = tree(tmp_path / "toys")
    assert (planned.rows, planned.units, planned.files) == (10, 3, len(files))
    assert planned.bytes_per_field == {"square": 10 * 12 * 4}
    found = status(str(tmp_path / "toys"))
    assert (found.state, found.units_done, found.counts) == ("finished", 3, outcome.counts)
    assert found.fingerprint == planned.fingerprint
    assert found.inputs == ({"role": "images", "uri": str(images), "state": "as read"},)
    write_picture(tmp_path / "pictures/cat/0.png", 98)
    index(tmp_path / "pictures", images)
    assert status(str(tmp_path / "toys")).inputs[0]["state"] == "changed since"


def test_what_cannot_work_is_refused_before_anything_is_made(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        index(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(MissingArtifact):
        toy(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"images\b.*toys"):
        run(ECHO, EchoConfig(), {"toys": str(images)}, str(tmp_path / "out"))
    (images / "artifact.json").unlink()
    with pytest.raises(UnfinishedArtifact):
        toy(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="empty"):
        index(tmp_path / "pictures", tmp_path / "pictures")
    with pytest.raises(EnvironmentFault, match="file"):
        index(tmp_path / "pictures", tmp_path / "pictures/cat/0.png/out")


def test_a_unit_that_was_given_up_is_tried_again_and_no_other(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys, faults = tmp_path / "toys", tmp_path / "faults"
    faults.mkdir()
    monkeypatch.setenv(FAULTS, str(faults))
    (faults / "raise-cat-0").write_text("1000")
    assert toy(images, toys).counts["reasons"] == {"error": 4}
    echo = {"toys": str(toys)}
    assert run(ECHO, EchoConfig(), echo, str(tmp_path / "echoes"), UNITS_OF_4).counts["upstream"] == 4
    assert run(ECHO, EchoConfig(), echo, str(tmp_path / "echoes"), UNITS_OF_4).units_run == 0
    (faults / "raise-cat-0").unlink()
    outcome = toy(images, toys, options=replace(UNITS_OF_4, trust=True))
    assert (outcome.units_run, outcome.units_skipped, outcome.counts["ok"]) == (1, 2, 10)


def test_a_model_is_loaded_only_when_a_unit_runs(images: Path, tmp_path: Path) -> None:
    loaded = []
    loading = replace(TOY, prepare=lambda config, inputs: loaded.append(config))
    for _ in range(2):
        run(loading, ToyConfig(), {"images": str(images)}, str(tmp_path / "toys"), UNITS_OF_4)
    assert loaded == [ToyConfig()]


def test_a_model_that_cannot_be_loaded_ends_the_run_at_once(images: Path, tmp_path: Path) -> None:
    def fail(config: ToyConfig, inputs: Inputs) -> None:
        raise ValueError("no such layer")

    with pytest.raises(PreparationError, match=r"toy .*no such layer"):
        run(replace(TOY, prepare=fail), ToyConfig(), {"images": str(images)}, str(tmp_path / "toys"), UNITS_OF_4)
    assert status(str(tmp_path / "toys")).units_done == 0
