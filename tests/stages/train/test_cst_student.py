"""CST's learner trained: every supervision and choice, resumed bit for bit, and the sentence for what cannot work."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from builders.small_dataset import tree
from builders.small_students import BACKBONE, SIZE, extract, publish, train, write_pictures, write_void
from faults.crash import Fault, as_command, in_child, kill, operations
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.errors import ConfigError, Diverged, InputError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.stages.learning import loop
from maskmill.stages.scores.truth import GroundTruth
from maskmill.stages.students.backbone_config import BackboneConfig
from maskmill.stages.students.episodes import Episode, make_pool, training_episode
from maskmill.stages.students.feature_names import PAIR_FIELDS
from maskmill.stages.students.features import Cached, resolve_backbone
from maskmill.stages.students.official import learner_of, official_name, own_name
from maskmill.stages.train import cst, pairs, pool, selection
from maskmill.stages.train.published import PublishedDataset
from maskmill.stages.train.targets import target_builder

ASKED: dict[str, Any] = {"student": "cst", "steps": 4, "batch": 3}


def state(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    return load(checkpoint.file("weights.safetensors"))


def metrics(checkpoint: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in checkpoint.file("metrics.jsonl").splitlines()]


@pytest.fixture(scope="module")
def mixed(home: Path) -> Path:
    publish(home, "mixed", ground_truth=["p00", "p01", "p04"])
    return home


def test_a_checkpoint_says_what_it_is_and_loads_as_the_original_would(home: Path) -> None:
    made = train(home, "cst", **ASKED)
    facts = made.summary.counts
    told = {
        name: facts[name] for name in ("kind", "student", "supervision", "select", "channels", "classes", "kept_step")
    }
    assert told == {
        "kind": "student",
        "student": "cst",
        "supervision": "published",
        "select": "last",
        "channels": 12,
        "classes": [1, 2, 3],
        "kept_step": 4,
    }
    assert facts["sight"] == Cached(open_tokens(home / "tokens"), PAIR_FIELDS).sight.as_json()
    learner = learner_of(state(made), "here")
    assert learner.channels == 12
    names = dict(learner.named_parameters())
    assert {own_name(name) for name in state(made)} == set(names)
    assert {official_name(name) for name in names} == set(state(made))
    assert training_ids(made, "labels") == {f"p{n:02d}" for n in range(24) if n % 9 != 8}
    assert not training_ids(made, "masks")
    assert verify(str(home / "cst")).exit_code == 0
    for line in metrics(made):
        assert line["loss"] == pytest.approx(0.1 * line["presence"] + line["segmentation"], rel=1e-5)
        assert line["undecided"] == 0


@pytest.mark.parametrize("stopped", [0, 3])
@pytest.mark.parametrize("select", ["last", "held-out"])
def test_stopped_and_gone_on_with_it_is_the_same(
    home: Path, stopped: int, select: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**ASKED, "select": select, "supervision": "pseudo"}
    never = home / f"never-{select}"
    train(home, never.name, **asked) if not never.exists() else None
    done: list[int] = []
    monkeypatch.setattr(cst, "mean_losses", _interrupting(done, stopped))
    out = f"stopped-{select}-{stopped}"
    with pytest.raises(KeyboardInterrupt):
        train(home, out, **asked)
    with pytest.raises(StaleArtifact, match=r"seed.*0.*1"):
        train(home, out, **{**asked, "seed": 1})
    monkeypatch.setattr(cst, "mean_losses", _interrupting(done, -1))
    train(home, out, **asked)
    assert len(done) == 4
    assert tree(home / out) == tree(never)


def _interrupting(done: list[int], at: int) -> Callable[..., Any]:
    def losses(*given: Any) -> Any:
        if len(done) == at:
            raise KeyboardInterrupt
        done.append(1)
        return pairs.mean_losses(*given)

    return losses


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_and_gone_on_with_it_is_the_same(home: Path, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At file operations, keeping where it is after every step."""
    monkeypatch.setattr(loop, "KEEP_EVERY_S", 0.0)
    out = home / f"killed-{every}"
    asked = {**ASKED, "steps": 3, "batch": 1}
    train(home, "undisturbed", **asked) if not (home / "undisturbed").exists() else None

    def run() -> None:
        train(home, out.name, **asked)

    points = operations(run, out)
    assert len(points) > 20
    for at in range(1, len(points) + 1, every):
        shutil.rmtree(out, ignore_errors=True)
        assert in_child(as_command(run), Fault(out, at, kill)).signal == signal.SIGKILL, points[at - 1]
        ended = in_child(as_command(run))
        assert ended.code == 0, (points[at - 1], ended)
        assert tree(out) == tree(home / "undisturbed"), points[at - 1]


def test_online_is_cached(home: Path) -> None:
    asked = resolve_backbone(BackboneConfig(backbone=BACKBONE, weights="random:0", image_size=SIZE), "cpu")
    for supervision in ("pseudo", "published"):
        cached = train(home, f"cached-{supervision}", **ASKED, supervision=supervision)
        online = train(home, f"online-{supervision}", **ASKED, supervision=supervision, tokens="", seeing=asked)
        assert online.summary.counts == cached.summary.counts
        for name, value in state(cached).items():
            assert torch.equal(state(online)[name], value), name


EPISODES = [Episode("p00", (1,), (("p03",),), (True,)), Episode("p01", (3,), (("p02",),), (False,))]


@pytest.mark.parametrize("name", ["pseudo", "published", "mask", "mixed"])
def test_what_a_pair_is_supervised_by(mixed: Path, name: Any) -> None:
    published = PublishedDataset(open_artifact(str(mixed / "mixed")))
    truth, features = (
        GroundTruth(open_artifact(str(mixed / "images"))),
        Cached(open_tokens(mixed / "tokens"), PAIR_FIELDS),
    )
    read = [features.read([at(each) for each in EPISODES], PAIR_FIELDS) for at in (_query, _support)]
    supports, queries, is_present = target_builder(name, published, truth, features.sight)(EPISODES, *read)
    assert supports.shape == queries.shape == (2, *SIZE)
    assert not queries[1][queries[1] != 255].any(), "the query does not show the class"
    assert is_present.tolist() == [True, False]
    if name == "pseudo":
        assert set(queries.unique().tolist()) <= {0, 1}
        return
    for masks, place in ((supports, _support), (queries, _query)):
        for found_UV, episode in zip(masks, EPISODES, strict=True):
            identifier = place(episode)
            of_truth = name == "mask" or identifier in ("p00", "p01")  # in the dataset, too
            label_HW = torch.from_numpy(truth.mask(identifier) if of_truth else published.mask(identifier))
            rows, columns = (torch.arange(side) * size // side for side, size in zip(SIZE, label_HW.shape, strict=True))
            expected_UV = label_HW[rows][:, columns] == episode.classes[0]
            assert torch.equal(found_UV == 1, expected_UV)


def _query(episode: Episode) -> str:
    return episode.query


def _support(episode: Episode) -> str:
    return episode.supports[0][0]


def test_every_picture_and_class_is_asked_about_once_in_an_epoch(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Episode] = []

    def noted(*given: Any) -> Any:
        asked.extend(given[-1])
        return pairs.read_pairs(*given)

    monkeypatch.setattr(cst, "read_pairs", noted)
    train(home, "noted", **{**ASKED, "batch": 8})
    shown = PublishedDataset(open_artifact(str(home / "dataset"))).image_labels()
    lines = [(each, label) for each, labels in shown.items() for label in labels]
    drawn = make_pool(lines, (1, 2, 3), "listed", 1, 1)
    assert asked == [training_episode(drawn, 0, place) for place in range(32)]
    assert sorted(each.query for each in asked[: len(lines)]) == sorted(each for each, _ in lines)
    assert all((each.classes[0] in shown[each.query]) == each.is_present[0] for each in asked)


def test_what_is_seen_is_told(mixed: Path) -> None:
    write_pictures(mixed, masked=14, out="some")
    by_mask = train(mixed, "by-mask", **ASKED, supervision="mask", images="some")
    assert (
        training_ids(by_mask, "masks") == training_ids(by_mask, "labels") == {f"p{n:02d}" for n in range(14) if n != 8}
    )
    by_both = train(mixed, "by-both", **ASKED, supervision="mixed", dataset="mixed", images="")
    assert training_ids(by_both, "masks") == {"p00", "p01", "p04"}
    assert len(training_ids(by_both, "labels")) == 22


def test_held_out_pictures_are_not_learned_from_and_choose(home: Path) -> None:
    made = train(home, "chosen", **{**ASKED, "steps": 6, "learning_rate": 0.01}, select="held-out")
    losses = {line["step"] + 1: line["held-out loss"] for line in metrics(made) if "held-out loss" in line}
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[made.summary.counts["kept_step"]] == min(losses.values())
    seen = json.loads(made.file("seen.json"))["labels"]
    assert seen["stopping"]
    assert not set(seen["stopping"]) & set(seen["fitting"])
    assert made.summary.counts["chosen_on"] == "the loss on held-out pictures of the classes learned"


def test_the_originals_choice_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "EPISODES", 6)
    asked = {**ASKED, "classes": ["cat", "2"], "steps": 3, "learning_rate": 0.01, "batch": 16}
    made = train(home, "upstream", **asked, select="upstream")
    found = {line["step"] + 1: line["test mIoU"] for line in metrics(made) if "test mIoU" in line}
    assert list(found) == [1, 2, 3]  # an epoch is 18 queries
    assert found[made.summary.counts["kept_step"]] == max(found.values())
    assert made.summary.counts["classes"] == [1, 2]
    assert made.summary.counts["chosen_on"].startswith("ground truth of the test episodes")
    assert training_ids(made, "masks")
    last = train(home, "not-upstream", **asked)
    assert [line["loss"] for line in metrics(last)] == [line["loss"] for line in metrics(made)], (
        "choosing changes nothing"
    )


def test_a_held_out_loss_that_is_no_number_chooses_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*given: Any) -> Any:
        found = pairs.losses_of_pair(*given)
        return dataclasses.replace(found, total=found.total * float("nan"))

    monkeypatch.setattr(selection, "losses_of_pair", lost)
    with pytest.raises(Diverged, match=r"nan.*step 0.*p\d\d, p\d\d"):
        train(home, "chosen-by-nothing", **ASKED, select="held-out")


def test_a_step_is_chosen_where_no_class_is_there_or_painted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that only labels name: nothing to divide by."""
    monkeypatch.setattr(pool, "EPISODES", 2)
    monkeypatch.setattr(selection, "decide_ways", lambda pixels: torch.zeros_like(pixels[:, 0], dtype=torch.uint8))
    known = GroundTruth.mask
    monkeypatch.setattr(GroundTruth, "mask", lambda *given: known(*given) * 0)
    made = train(home, "of-nothing", **{**ASKED, "classes": ["1", "2"]}, select="upstream")
    assert made.summary.counts["kept_step"] > 0
    assert "NaN" not in made.file("metrics.jsonl").decode()


def test_undecided_pairs_are_told_of_however_few_lines_there_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_LINES", 2)
    monkeypatch.setattr(cst, "count_undecided", lambda given: 1)
    made = train(home, "few-lines", student="cst", steps=22, batch=2)
    assert len(metrics(made)) < 22
    assert made.summary.counts["undecided_share"] == pytest.approx(1 / 2)


@pytest.mark.slow
def test_it_learns(home: Path) -> None:
    made = train(home, "learned", student="cst", steps=60, batch=4, supervision="mask")
    lines = metrics(made)
    first, last = (sum(line["segmentation"] for line in some) / len(some) for some in (lines[:10], lines[-10:]))
    assert last < 0.8 * first


@pytest.fixture
def few(home: Path) -> Path:
    write_pictures(home / "few-of-a-class", count=4)  # one dog
    publish(home / "few-of-a-class")
    extract(home / "few-of-a-class")
    return home / "few-of-a-class"


def test_what_cannot_work_is_one_sentence(home: Path, few: Path) -> None:
    write_pictures(home, masked=0, out="without")
    write_void(home)
    extract(home, "padded-pairs", fit="pad")
    extract(home, "of-another", weights="random:1", fields=("tokens", "keys", "cls_query"))
    publish(home, "void", background="two:0,1", is_map_right=False)
    mistakes: list[tuple[Path, dict[str, Any], str]] = [
        (home, {"classes": ["owl"]}, "owl.*only class.*classes"),
        (few, {}, "class 2.*1.*2"),
        (home, {"classes": ["cow"]}, "classes.*'cow'"),
        (home, {"supervision": "mask", "images": "without"}, "ground truth.*--images"),
        (home, {"supervision": "mask", "images": "void-truth"}, r"mask.*void"),
        (home, {"supervision": "mask", "images": ""}, "ground truth.*--images"),
        (home, {"supervision": "mixed"}, "ground truth.*mixed"),
        (home, {"tokens": "padded-pairs"}, "padded.*`maskmill extract .* --fit squash "),
        (home, {"tokens": "of-another"}, "support_tokens.*`maskmill extract .*support_tokens:5"),
        (home, {"dataset": "void"}, r"/void.*255"),
        (home, {"select": "upstream", "images": "without"}, "select.*upstream.*masks.*--images"),
        (home, {"select": "upstream"}, "select.*upstream.*classes"),
        (home, {"steps": 0}, "steps.*0.*1"),
        (home, {"hidden": 4}, "hidden.*linear"),
    ]
    for where, asked, named in mistakes:
        with pytest.raises((ConfigError, InputError), match=named):
            train(where, "never", **{**ASKED, **asked})
        assert not (where / "never").exists(), asked


def test_a_loss_that_is_no_number_ends_it(home: Path) -> None:
    with pytest.raises(Diverged, match=r"step \d.*p\d"):
        train(home, "diverged", **{**ASKED, "learning_rate": 1e30})
