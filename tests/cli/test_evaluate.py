"""`maskmill evaluate masks`: what it prints and keeps, its exit codes, and the sentence for each mistake."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_dataset
from builders.small_labels import LABELS, make_images, make_labels, publish, true_mask, write_pictures
from builders.small_truth import ALL, DECIDED, FLOORS, KEPT, TRUTH, WITHOUT_LABEL, index_truth
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.counts import count_of

Capture = pytest.CaptureFixture[str]
WITH_INTERVAL = r"[01]\.\d{3} \([01]\.\d{3}–[01]\.\d{3}\)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with three masks, maps, labels and a dataset, which are only read; and images that are not theirs."""
    home = tmp_path_factory.mktemp("made")
    make_labels(home)
    publish(home)
    make_images(home, "bare", masks=False)
    index_truth(home, "swapped", {"p0": true_mask("p0", (24, 40))}, classes=("dog", "cat"))
    write_pictures(home / "larger" / "pictures", dict(reversed(LABELS.items())))
    make_images(home / "larger")
    write_dataset(home / "strange" / "pictures", 2, masks=True)
    folder = ["index", "folder", str(home / "strange" / "pictures"), "--out"]
    assert main([*folder, str(home / "strangers"), "--masks", str(home / "strange" / "masks")]) == 0
    assert main([*folder, str(home / "maskless")]) == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A copy, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def evaluate(predicted: str, *more: str) -> int:
    return main(["evaluate", "masks", predicted, "--resamples", "50", "--out", "metrics", *more])


def kept_metrics() -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(open_artifact("metrics", "metrics").file("metrics.json"))
    return metrics


def test_every_line_is_printed_with_its_intervals_and_the_floors_last(home: Path, capsys: Capture) -> None:
    """Against the images that it was made from, unless others are named."""
    assert evaluate("dataset") == 0
    coverage, few, header, *lines, done = capsys.readouterr().out.splitlines()
    assert "10 pictures" in few
    assert coverage == "3 pictures with ground truth: 3 kept, 0 dropped, 0 failed"
    assert re.split(r"\s{2,}", header.strip()) == ["miou", "miou foreground", "miou truth classes", "boundary f"]
    assert re.fullmatch(rf"metrics: done in \d+\.\d s → {home}/metrics", done)
    cells = {name: values for name, *values in (re.split(r"\s{2,}", line.strip()) for line in lines)}
    assert list(cells) == [ALL, KEPT, DECIDED, *FLOORS]
    for line in kept_metrics()["results"]:
        outline = line.get("boundary_f")
        assert (outline is None) == (line["name"] == DECIDED)
        means = [line[name] for name in ("miou", "miou_foreground", "miou_truth_classes")]
        for found, said in zip([*means, outline], cells[line["name"]], strict=True):
            assert found is not None or said == "–"
            if found is not None and found["low"] == found["high"]:
                assert said == f"{found['estimate']:.3f} (–)"
            elif found is not None:
                assert re.fullmatch(WITH_INTERVAL, said)
                assert said.startswith(f"{found['estimate']:.3f} ({found['low']:.3f}–")


def test_it_is_done_once_and_again_where_the_truth_has_changed(home: Path, capsys: Capture) -> None:
    assert evaluate("labels") == 0
    before = tree(home / "metrics")
    assert evaluate("labels", "--against", "images") == 0
    assert "metrics: already done in " in capsys.readouterr().out
    assert tree(home / "metrics") == before
    assert (main(["verify", "metrics"]), main(["status", "metrics"])) == (0, 0)
    assert evaluate("labels", "--seed", "1") == 3
    assert_named(capsys.readouterr().err, "metrics seed 0 1")
    for number in (2, 1):
        shutil.rmtree("truth", ignore_errors=True)
        index_truth(home, "truth", dict(list(TRUTH.items())[:number]))
        assert evaluate("labels", "--against", "truth", "--out", "of-truth") == 0
        assert capsys.readouterr().out.startswith(f"{count_of(number, 'picture')} with ground truth: ")


def test_maps_have_a_sweep_and_labels_have_none(home: Path, capsys: Capture) -> None:
    assert evaluate("maps", "--class-agnostic", "--no-boundary") == 0
    said = capsys.readouterr().out
    assert said.startswith("3 pictures with ground truth, without regard to class: 3 kept, 0 dropped, 0 failed\n")
    assert "boundary" not in said
    assert re.search(r"^  best constant threshold, chosen on the ground truth: 0\.\d+ \(0\.\d{3}\)$", said, re.M)
    assert "--threshold" not in said
    assert evaluate("maps", "--out", "by-class") == 0
    said = capsys.readouterr().out
    options = r"--threshold cat=0\.\d+ --threshold dog=0\.\d+"
    assert re.search(rf"^  best threshold of each class, chosen on the ground truth: {options}$", said, re.M)
    assert evaluate("labels", "--out", "of-labels") == 0
    assert "threshold" not in capsys.readouterr().out


def test_as_json_it_is_what_is_kept(home: Path, capsys: Capture) -> None:
    assert evaluate("labels", "--json") == 0
    assert json.loads(capsys.readouterr().out) == kept_metrics()


def test_what_is_not_defined_is_a_dash(home: Path, capsys: Capture) -> None:
    """The one picture is all undecided."""
    index_truth(home, "alone", {WITHOUT_LABEL: TRUTH[WITHOUT_LABEL]})
    assert evaluate("labels", "--against", "alone") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if DECIDED in line)
    assert line.split(DECIDED)[1].split() == ["–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("predicted", "more", "named"),
    [
        ("images", [], "images maps labels dataset"),
        ("labels", ["--against", "maps"], "maps images"),
        ("labels", ["--against", "nowhere"], "/nowhere"),
        ("labels", ["--against", "bare"], "bare"),
        ("labels", ["--against", "maskless"], "maskless masks"),
        ("dataset", ["--against", "strangers"], "--against ids"),
        ("maps", ["--against", "larger/images"], "--against"),
        ("dataset", ["--against", "swapped"], "1 cat swapped"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, predicted: str, more: list[str], named: str) -> None:
    before = tree(home)
    assert evaluate(predicted, *more) == 2
    said = capsys.readouterr().err
    assert_named(said, named)
    assert said.count("\n") == 1
    assert tree(home) == before


def test_images_that_were_moved_are_asked_for_by_the_option_that_takes_them(home: Path, capsys: Capture) -> None:
    (home / "images").rename(home / "moved")
    assert evaluate("labels") == 2
    assert_named(capsys.readouterr().err, "labels --against")
    assert evaluate("labels", "--against", "moved") == 0


def test_no_resample_is_no_interval(home: Path, capsys: Capture) -> None:
    refused(capsys, ["evaluate", "masks", "labels", "--resamples", "0", "--out", "metrics"], "'--resamples' 0")
    refused(capsys, ["evaluate", "masks", "labels"], "'--out'")
