"""`maskmill evaluate fscs`: what it prints and keeps, whom it believes, and the sentence for each mistake."""

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from builders.mistakes import assert_named
from builders.small_dataset import tree
from builders.small_few_shot import (
    BACKBONE,
    BASE,
    CLASSES,
    NOVEL,
    SIZE,
    mask_of,
    write_checkpoint,
    write_images,
    write_tokens,
)
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.stages.evaluate import few_shot
from maskmill.stages.maps.cst import pair_masks
from maskmill.stages.students.correlation import correlation

Capture = pytest.CaptureFixture[str]
FEW = ("--episodes", "24", "--resamples", "20")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with masks, tokens and a checkpoint, which are only read."""
    home = tmp_path_factory.mktemp("made")
    write_images(home)
    write_tokens(home)
    write_checkpoint(home)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """A copy, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def evaluate(*more: str, checkpoints: Sequence[str] = ("student",), out: str = "metrics") -> int:
    tokens = [] if "--backbone" in more else ["--tokens", "tokens"]
    return main(["evaluate", "fscs", *checkpoints, *tokens, *FEW, "--out", out, *more])


def kept_metrics(out: str = "metrics") -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(open_artifact(out, "metrics").file("metrics.json"))
    return metrics


def episodes(out: str = "metrics") -> list[dict[str, Any]]:
    open_artifact(out, "metrics").file("episodes.parquet")  # whose digest it checks
    rows: list[dict[str, Any]] = pq.read_table(f"{out}/episodes.parquet").to_pylist()
    return rows


def scores(lines: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    return {line["name"]: (line["exact_ratio"]["estimate"], line["miou"]["estimate"]) for line in lines}


# ------------------------------------------------------------------------------------------------ what it finds


def slow_scores(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    both: dict[int, int] = defaultdict(int)
    union: dict[int, int] = defaultdict(int)
    for row in rows:
        for way, label in enumerate(row["classes"]):
            both[label] += row["intersections"][way]
            union[label] += row["unions"][way]
    right = [row["present"] == row["decisions"] for row in rows]
    return sum(right) / len(right), float(np.mean([both[label] / union[label] for label in union if union[label]]))


@pytest.mark.parametrize("more", [[], ["--way", "2", "--void", "ignore"]])
def test_metrics_are_those_of_the_kept_episodes(home: Path, capsys: Capture, more: list[str]) -> None:
    assert evaluate("--save-predictions", *more) == 0
    metrics = kept_metrics()
    assert scores(metrics["mean"])["learner"] == pytest.approx(slow_scores(episodes()))
    assert scores(metrics["folds"][0]["results"]) == scores(metrics["mean"])
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"classes, [12]-way 1-shot, masks of supports pseudo, void (background|ignore)", lines[0])
    assert [line.split("  ")[1] for line in lines[3:7]] == [line["name"] for line in metrics["mean"]]
    assert len(metrics["mean"]) == 4


@pytest.mark.parametrize(
    ("mask", "way", "shot", "void"),
    [
        ("pseudo", 1, 1, "background"),
        ("gt", 2, 1, "ignore"),
        ("gt", 1, 2, "background"),
        ("pseudo", 2, 2, "ignore"),
    ],
)
def test_answers_are_those_of_the_whole_learner_step_by_step(
    home: Path, mask: str, way: int, shot: int, void: str
) -> None:
    """The correlation held whole, and each decision written out."""
    asked = ["--support-mask", mask, "--way", str(way), "--shot", str(shot), "--void", void]
    assert evaluate("--save-predictions", *asked) == 0
    for row in episodes()[:6]:
        wanted = slow_answer(row, mask, void)
        assert row["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-3)
        assert row["decisions"] == [each > 0.5 for each in row["probabilities"]]
        for name in ("intersections", "unions"):  # pixels that lie on a half are few
            assert np.abs(np.subtract(row[name], wanted[name])).max() <= 2, name
        assert row["true"] == wanted["true"]
        assert row["present"] == wanted["present"]


def slow_answer(row: dict[str, Any], mask: str, void: str) -> dict[str, Any]:
    tokens, learner = open_tokens("tokens"), learner_at("student")

    def read(field: str, identifier: str) -> torch.Tensor:
        return torch.from_numpy(tokens.read(field, [identifier])).float()

    truth_HW = mask_of(int(row["query"][1:]))
    probabilities, at_pixels = [], []
    for label, supports in zip(row["classes"], row["supports"], strict=True):
        of_shots, pixels = [], []
        for support in supports:
            keys, queries = read("keys", support), read("cls_query", support)
            pseudo, _ = pair_masks(
                keys, queries, keys, torch.tensor([True]), heads=2, grids=((4, 4), (4, 4)), support_size=SIZE,
                query_size=SIZE, threshold=0.4,
            )  # fmt: skip
            true = torch.from_numpy(mask_of(int(support[1:])))[None, None]
            seen = pseudo if mask == "pseudo" else interpolate(true, SIZE, mode="nearest")[0] == label
            with torch.no_grad():
                pair = correlation(read("tokens", row["query"]), read("support_tokens", support), heads=2)
                found = learner(pair, seen, (4, 4))
                logits = interpolate(found.segmentation, truth_HW.shape, mode="bilinear", align_corners=True)
            of_shots.append(float(found.presence.softmax(dim=1)[0, 1]))
            pixels.append(logits.softmax(dim=1)[0, 1].numpy())
        probabilities.append(np.mean(of_shots))
        at_pixels.append(np.mean(pixels, axis=0))
    painted = np.where(np.max(at_pixels, axis=0) >= 0.5, 1 + np.argmax(at_pixels, axis=0), 0)
    counted = np.ones_like(truth_HW, bool) if void == "background" else truth_HW != 255
    of_ways = [(painted == way, truth_HW == label) for way, label in enumerate(row["classes"], 1)]
    return {
        "probabilities": probabilities,
        "intersections": [int((said & true & counted).sum()) for said, true in of_ways],
        "unions": [int(((said | true) & counted).sum()) for said, true in of_ways],
        "true": [int(true.sum()) for _, true in of_ways],
        "present": [bool(true.any()) for _, true in of_ways],
    }


def learner_at(out: str) -> torch.nn.Module:
    from maskmill.stages.students.official import learner_of

    return learner_of(load_file(f"{out}/weights.safetensors"), out)


def test_a_file_of_the_original_training_is_answered_by_as_an_artifact_is(home: Path) -> None:
    """Lightning's checkpoints hold the backbone, too."""
    state = {f"learner.{name}": value for name, value in load_file("student/weights.safetensors").items()}
    torch.save({"epoch": 3, "state_dict": {**state, "backbone.norm.weight": torch.ones(3)}}, "best.ckpt")
    novel = ",".join(NOVEL)
    assert evaluate("--save-predictions", "--classes", novel) == 0
    assert evaluate("--save-predictions", "--classes", novel, checkpoints=["best.ckpt"], out="of-file") == 0
    assert episodes("of-file") == episodes()
    assert kept_metrics("of-file")["mean"][:3] == kept_metrics()["mean"][:3]


def test_the_backbone_in_the_loop_gives_what_was_stored(home: Path) -> None:
    size = "x".join(map(str, SIZE))
    online = ["--backbone", BACKBONE, "--weights", "random:0", "--image-size", size]
    assert evaluate("--save-predictions", "--episodes", "8") == 0
    assert evaluate("--save-predictions", "--episodes", "8", "--images", "images", *online, out="online") == 0
    assert episodes("online") == episodes()
    assert kept_metrics("online") == kept_metrics()


def test_several_checkpoints_are_one_for_each_fold(home: Path, capsys: Capture) -> None:
    write_checkpoint(home, "other", classes=NOVEL, seed=1)
    assert evaluate("--save-predictions", checkpoints=["student", "other"]) == 0
    metrics, rows = kept_metrics(), episodes()
    assert [(fold["name"], fold["checkpoint"]) for fold in metrics["folds"]] == [
        ("fold 0", "student"),
        ("fold 1", "other"),
    ]
    assert [tuple(fold["classes"]) for fold in metrics["folds"]] == [NOVEL, BASE]
    of_folds = [slow_scores([row for row in rows if row["fold"] == fold["name"]]) for fold in metrics["folds"]]
    assert scores(metrics["mean"])["learner"] == pytest.approx(tuple(np.mean(of_folds, axis=0)))
    assert "\nmean of 2\n" in capsys.readouterr().out
    named = ["--classes", ",".join(NOVEL), "--classes", "1,2,3"]
    assert evaluate("--save-predictions", *named, checkpoints=["student", "other"], out="named") == 0
    assert episodes("named") == rows


def test_enhanced_masks_of_supports_come_from_labels(home: Path, capsys: Capture) -> None:
    assert main(["mask", "tokens", "--supports", "2", "--threshold", "0.5", "--out", "maps"]) == 0
    assert main(["refine", "maps", "--out", "labels"]) == 0
    assert main(["manifest", "labels", "--out", "dataset"]) == 0
    assert evaluate("--save-predictions", "--support-mask", "enhanced", "--labels", "labels") == 0
    assert evaluate("--save-predictions", "--support-mask", "enhanced", "--labels", "dataset", out="of-dataset") == 0
    assert episodes("of-dataset") == episodes()
    assert evaluate("--save-predictions", out="pseudo") == 0
    assert episodes("pseudo") != episodes()
    capsys.readouterr()
    assert evaluate("--support-mask", "enhanced", out="none") == 2
    assert evaluate("--support-mask", "gt", "--labels", "labels", out="none") == 2
    told = capsys.readouterr().err
    assert_named(told, "enhanced label")
    assert told.count("\n") == 2


# ------------------------------------------------------------------------------------------------ what it keeps


def test_it_is_done_once_and_anything_else_is_another(home: Path, capsys: Capture) -> None:
    assert evaluate() == 0
    before = tree(home / "metrics")
    assert evaluate("--images", "images", "--device", "cpu") == 0
    assert "metrics: already done in " in capsys.readouterr().out
    assert tree(home / "metrics") == before
    assert (main(["verify", "metrics"]), main(["status", "metrics"])) == (0, 0)
    for more in (["--way", "2"], ["--shot", "2"], ["--void", "ignore"], ["--support-mask", "gt"]):
        assert evaluate(*more) == 3
    capsys.readouterr()
    assert evaluate("--json") == 0
    assert json.loads(capsys.readouterr().out) == kept_metrics()


def test_stopped_and_started_again_it_is_as_if_undisturbed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate("--save-predictions", out="undisturbed") == 0
    monkeypatch.setattr(few_shot, "KEEP_EVERY_S", 0.0)
    row, asked = few_shot._answer_episode, []

    def stops(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 10:
            raise KeyboardInterrupt
        return row(*arguments)

    monkeypatch.setattr(few_shot, "_answer_episode", stops)
    assert evaluate("--save-predictions") == 130
    assert evaluate("--save-predictions") == 0
    assert len(asked) == 10 + 24 - 9
    assert tree(home / "metrics") == tree(home / "undisturbed")


def test_what_flatters_is_said(home: Path, capsys: Capture) -> None:
    """Pictures that were learned from are left out of a split of classes."""
    write_checkpoint(home, "chosen", select="upstream", seen=("p03", "p09"))
    assert evaluate("--save-predictions", checkpoints=["chosen"]) == 6
    assert_named(capsys.readouterr().err, "warning classes chosen")
    assert not {"p03", "p09"} & {row["query"] for row in episodes()}
    assert kept_metrics()["folds"][0]["select"] == "upstream"


@pytest.mark.parametrize(("select", "is_judged"), [("upstream", True), ("held-out", False)])
def test_pictures_that_a_step_was_chosen_on(home: Path, capsys: Capture, select: str, is_judged: bool) -> None:
    """As the original, one that was chosen on test episodes is judged on them; what was held out is left out."""
    write_checkpoint(home, "stopped", select=select, stopped_on=("p03", "p09"))
    assert evaluate("--save-predictions", checkpoints=["stopped"]) == (6 if is_judged else 0)
    assert ("warning" in capsys.readouterr().err) == is_judged
    assert bool({"p03", "p09"} & {row["query"] for row in episodes()}) == is_judged


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--way", "4"], "way 4 3"),
        (["--shot", "7"], "7 8 classes"),
        (["--classes", "cow"], "classes 'cow'"),
        (["--classes", "ant,dog"], "student ant classes"),
        (["--classes", "dog", "--classes", "eel"], "--classes 2 1"),
        (["--fold", "1"], "--folds --fold"),
        (["--protocol", "pascal-5i"], "trn val --folds"),
        (["--protocol", "pascal-5i", "--folds", "nowhere"], "nowhere/val/fold0.txt"),
        (["--protocol", "pascal-5i", "--folds", "bad"], "bad/val/fold0.txt 1 'p00' ID__CLASS"),
        (["--protocol", "pascal-5i", "--folds", "bad", "--fold", "4"], "fold 4 pascal-5i 0 3"),
        (["--protocol", "coco-20i", "--folds", "bad"], "bad/val/fold0.pkl"),
        (["--image-size", "32"], "--backbone"),
        (["--seed", "-1"], "'--seed' -1"),
        (["--support-mask", "enhanced", "--labels", "strange"], "'p"),
        (["--images", "void"], "void mask"),
        (["--images", "bare"], "bare masks"),
        (["--tokens", "images"], "images tokens"),
        (["--tokens", "fewer"], "keys, cls_query `maskmill extract"),
        (["--tokens", "bare-tokens"], "--fields tokens:all,support_tokens:all --out"),
        (["--tokens", "others"], "weights_sha256"),
    ],
)
def test_a_mistake_is_one_sentence(home: Path, capsys: Capture, more: list[str], named: str) -> None:
    bad = home / "bad/val"
    bad.mkdir(parents=True)
    (bad / "fold0.txt").write_text("p00\n")
    (bad / "fold0.pkl").write_bytes(b"\x80\x04}")
    if "void" in more:
        write_images(home, {number: np.full_like(mask_of(number), 255) for number in range(24)}, out="void")
    if "bare" in more:
        assert main(["index", "folder", "images-pictures", "--out", "bare"]) == 0
    if "strange" in more:
        write_strange_labels(home)
    if "fewer" in more:
        write_tokens(home, "fewer", fields=("tokens:all", "support_tokens:all"))
    if "bare-tokens" in more:
        write_tokens(home, "bare-tokens", fields=("keys", "cls_query"))
    if "others" in more:
        write_tokens(home, "others", weights="random:1")
    capsys.readouterr()
    before = tree(home)
    assert evaluate(*more) == 2
    said = capsys.readouterr().err
    assert_named(said, named)
    assert said.count("\n") == (4 if "Usage" in said else 1)
    assert tree(home) == before


def write_strange_labels(home: Path) -> None:
    """Of other pictures under the same ids."""
    (home / "elsewhere").mkdir()
    write_images(home / "elsewhere", paint=8)
    write_tokens(home / "elsewhere")
    assert main(["mask", "elsewhere/tokens", "--supports", "2", "--threshold", "0.5", "--out", "strange-maps"]) == 0
    assert main(["refine", "strange-maps", "--out", "strange"]) == 0


@pytest.mark.parametrize(
    ("made_as", "named"),
    [
        ({"channels": 8}, "8 channels"),
        ({"classes": CLASSES}, "odd learned class"),
        ({"seen": tuple(f"p{number:02d}" for number in range(24))}, "mask"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    home: Path, capsys: Capture, made_as: dict[str, Any], named: str
) -> None:
    write_checkpoint(home, "odd", **made_as)
    assert evaluate(checkpoints=["odd"]) == 2
    assert_named(capsys.readouterr().err, named)
    torch.save({"weight": torch.ones(3)}, "odd.pt")
    assert evaluate("--classes", "dog", checkpoints=["odd.pt"]) == 2
    assert_named(capsys.readouterr().err, "odd.pt CST")
    assert evaluate(checkpoints=["odd.pt"]) == 2
    assert_named(capsys.readouterr().err, "odd.pt classes")
    assert evaluate(checkpoints=["nowhere"]) == 2
    assert_named(capsys.readouterr().err, "/nowhere")
    assert evaluate(checkpoints=["images"]) == 2
    assert_named(capsys.readouterr().err, "images checkpoint")
