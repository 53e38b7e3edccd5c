"""The quick classifier: what it is worth on pictures that it has not seen, and what is said where nothing tells."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.mistakes import assert_named
from builders.small_students import BACKBONE, COUNT, SIZE, extract, publish, train, write_pictures, write_void
from builders.small_truth import slow_mious
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids
from maskmill.manifests.errors import ConfigError, InputError
from maskmill.pipeline.answers.verify import verify
from maskmill.stages.scores.truth import GroundTruth
from maskmill.stages.students.backbone_config import BackboneConfig
from maskmill.stages.students.feature_names import ONE_BLOCK
from maskmill.stages.students.features import Cached, resolve_backbone
from maskmill.stages.students.linear import predict_labels
from maskmill.stages.train import patches
from maskmill.stages.train.linear import make_classifier

NAMES = (
    *("the student", "background everywhere", "told the class: the dataset's masks of these pictures"),
    *("told the class: all foreground", "told the class: best fixed ellipse, fitted on other classes"),
)


def lines_of(checkpoint: Artifact) -> dict[str, Any]:
    return {line["name"]: line for line in checkpoint.summary.counts["judged"]["lines"]}


def weights(checkpoint: Artifact) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(checkpoint.file("weights.safetensors"))


def test_it_learns_and_is_judged_on_what_it_has_not_seen(home: Path, tmp_path: Path) -> None:
    made = train(home, "linear", steps=150)
    facts, lines = made.summary.counts, lines_of(made)
    assert (facts["kind"], facts["student"], facts["judged"]["pictures"]) == (
        "student",
        "linear",
        COUNT - facts["fitting"],
    )
    student, nothing, labels, floor, ellipse = (lines[name]["miou"]["estimate"] for name in NAMES)
    assert nothing < ellipse
    assert floor < ellipse < student < labels + 0.1
    assert lines["the student"]["miou"]["low"] < student < lines["the student"]["miou"]["high"]
    seen = training_ids(made, "labels")
    assert len(seen) == facts["fitting"] == 19
    assert not training_ids(made, "masks")
    assert made.summary.warnings == ()
    assert verify(str(home / "linear")).exit_code == 0
    assert not (home / "linear/underway").exists()


def test_its_score_is_counted_pixel_by_pixel(home: Path) -> None:
    made = train(home, "counted", steps=40)
    classifier = make_classifier(64, 4, 0, seed=9)
    classifier.load_state_dict(weights(made))
    images = open_artifact(str(home / "images"))
    truth, features = GroundTruth(images), Cached(_tokens(home), [ONE_BLOCK])
    pairs = {}
    for identifier in sorted(set(truth.ids) - training_ids(made, "labels")):
        read = features.read([identifier], [ONE_BLOCK])
        with torch.no_grad():
            logits = classifier(read.fields[ONE_BLOCK][:, 1:])[0].view(4, 4, 4).numpy()
        true_HW = truth.mask(identifier)
        pairs[identifier] = (true_HW, predict_labels(logits, true_HW.shape[:2], read.boxes[0], (16, 16)))
    line = lines_of(made)["the student"]
    expected = slow_mious({name: (t.astype(np.uint8), p) for name, (t, p) in pairs.items()})
    assert (line["miou"]["estimate"], line["miou_foreground"]["estimate"]) == pytest.approx(expected)


def _tokens(home: Path) -> Any:
    from maskmill.manifests.artifact.tokens import open_tokens

    return open_tokens(home / "tokens")


def test_the_block_is_named_in_the_checkpoint_only_if_it_is_chosen(home: Path) -> None:
    last, first = train(home, "of the last", steps=3), train(home, "of the first", steps=3, block=0)
    assert "block" not in last.plan.config
    assert first.plan.config["block"] == 0
    assert first.summary.counts["sight"]["blocks"] == [0]
    with pytest.raises(ConfigError, match="--block"):
        train(home, "pairs", "cst", block=0)


def test_online_is_cached_and_needs_no_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset alone suffices; what is kept in memory changes no byte."""
    cached = train(home, "cached", steps=12, hidden=5)
    asked = resolve_backbone(BackboneConfig(backbone=BACKBONE, weights="random:0", image_size=SIZE), "cpu")
    online = train(home, "online", steps=12, hidden=5, tokens="", seeing=asked)
    alone = train(home, "alone", steps=12, hidden=5, tokens="", images="", seeing=asked)
    assert alone.summary.counts["fitting"] == COUNT
    monkeypatch.setattr(patches, "KEPT_BYTES", 0)
    again = train(home, "again", steps=12, hidden=5)
    for other in (online, again):
        assert other.summary.counts == cached.summary.counts
        for name, value in weights(cached).items():
            assert torch.equal(weights(other)[name], value), name


def test_padded_views_are_learned_from_too(home: Path) -> None:
    extract(home, "padded", fit="pad", fields=("tokens",))
    lines = lines_of(train(home, "of-padded", tokens="padded", steps=60))
    assert lines["the student"]["miou"]["estimate"] > lines["background everywhere"]["miou"]["estimate"] + 0.2


@pytest.mark.parametrize("images", ["", "bare"])
def test_without_ground_truth_it_says_so(home: Path, images: str) -> None:
    if images:
        write_pictures(home, masked=0, out=images)
    made = train(home, f"of-{images or 'none'}", images=images)
    assert made.summary.counts["judged"] == {"pictures": 0, "lines": []}
    assert made.summary.counts["fitting"] == COUNT
    (sentence,) = made.summary.warnings
    assert_named(sentence, "ground truth labels")


def test_ground_truth_that_says_nothing_tells_nothing(home: Path) -> None:
    write_void(home)
    (sentence,) = train(home, "of-void-truth", images="void-truth").summary.warnings
    assert re.match(r".*masks.*\d.*void.*labels", sentence)


def test_what_was_fitted_on_is_not_judged(home: Path) -> None:
    """Neither the truth inside the dataset, nor too few."""
    publish(home, "mostly", ground_truth=[f"p{number:02d}" for number in range(22)])
    made = train(home, "of-mostly", dataset="mostly")
    assert training_ids(made, "masks") == {f"p{number:02d}" for number in range(22)}
    assert re.search(r"no class has 3 pictures with ground truth.*--images", made.summary.warnings[0])


def test_what_cannot_work_is_one_sentence(home: Path) -> None:
    write_pictures(home / "others", noise=100)
    extract(home / "others", "tokens", fields=("tokens",))
    write_pictures(home / "few", count=6)
    extract(home / "few", "tokens", fields=("tokens",))
    extract(home, "keys", fields=("keys",))
    publish(home, "undecided", background="two:0,1", is_map_right=False)
    for asked, named in {
        ("tokens", "others/tokens"): "other pictures.*'p",
        ("tokens", "few/tokens"): "'p06'",
        ("tokens", "keys"): r"tokens.*`maskmill extract .* --fields tokens --out",
        ("dataset", "undecided"): r"/undecided.*255",
    }.items():
        with pytest.raises((ConfigError, InputError), match=named):
            train(home, "never", **dict([asked]))
        assert not (home / "never").exists()
    for wrong, named in {
        "steps": "steps.*0.*1",
        "batch": "batch.*0.*1",
        "learning_rate": "learning_rate.*0.*0",
    }.items():
        with pytest.raises(ConfigError, match=named):
            train(home, "never", **{wrong: 0.0 if wrong == "learning_rate" else 0})
    with pytest.raises(ConfigError, match=r"learning_rate.*1e\+38.*0.*1e\+30"):
        train(home, "never", learning_rate=1e38)
    with pytest.raises(ConfigError, match=r"select.*linear"):
        train(home, "never", select="held-out")


def test_metric_lines_are_there(home: Path) -> None:
    made = train(home, "lines", steps=7)
    lines = [json.loads(line) for line in made.file("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == list(range(7))
