"""Fitting and applying as a user meets them: what is learned, what is said of it, who has seen what, each mistake."""

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from builders import small_runs
from builders.configs import make_config
from builders.mistakes import assert_named
from builders.small_dataset import tree
from builders.small_heads import (
    CLASSES,
    HEADS,
    OPTIONS,
    UNFITTED,
    UnfittedConfig,
    apply,
    fit,
    labels_of,
    make_maps,
    write_images,
)
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import network_by_held_out_id, training_ids
from maskmill.manifests.artifact.facts import MapsFacts
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.errors import ConfigError, InputError, MaskmillError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.run import run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.enhance import lessons
from maskmill.stages.enhance.applying import enhance_map, load_networks
from maskmill.stages.enhance.cells import cells_of
from maskmill.stages.enhance.config import EnhancerConfig
from maskmill.stages.enhance.enhancer_fit import FIT, METRICS
from maskmill.stages.evaluate.config import EvaluateConfig
from maskmill.stages.evaluate.stage import STAGE as EVALUATE
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.learning.draws import order_by_hash
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.stage import Findings

NAMES = [f"p{number:02d}" for number in range(24)]
LABELLED = [name for number, name in enumerate(NAMES) if labels_of(number)]


def worth(checkpoint: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.summary.counts["held_out"]
    return found


def opened(home: Path, name: str) -> Artifact:
    return open_artifact(str(home / name), "checkpoint")


def metrics_of(home: Path, predicted: str, out: Path, **asked: Any) -> dict[str, Any]:
    inputs = {"predicted": str(home / predicted), "images": str(home / "images")}
    run_whole(EVALUATE, make_config(EvaluateConfig, boundary=False, resamples=20, **asked), inputs, str(out))
    found: dict[str, Any] = json.loads(open_artifact(str(out)).file("metrics.json"))
    return found


def seen(checkpoint: Artifact) -> list[dict[str, Sequence[str]]]:
    found: list[dict[str, Sequence[str]]] = json.loads(checkpoint.file("seen.json"))["networks"]
    return found


# ---- what is learned, and what is said of it


def test_maps_become_better_and_the_report_is_what_evaluate_finds(home: Path, tmp_path: Path) -> None:
    """On the pictures that were not seen, which `evaluate masks` finds by itself."""
    plain, maps = opened(home, "plain"), apply(home, "plain", "enhanced")
    told = worth(plain)
    assert told["after"]["estimate"] > told["before"]["estimate"] + 0.1
    assert told["difference"]["estimate"] == pytest.approx(told["after"]["estimate"] - told["before"]["estimate"])
    assert told["difference"]["low"] > 0
    assert plain.summary.warnings == ()
    assert told["pictures"] == len(LABELLED) - len(training_ids(plain, "masks"))
    unseen = {name for name in LABELLED if name not in training_ids(plain, "masks")}
    after = metrics_of(home, "enhanced", tmp_path / "after")
    assert after["coverage"]["rows"] == len(unseen) + len(NAMES) - len(LABELLED)
    assert (maps.plan.facts["score_kind"], maps.plan.facts["align_corners"]) == ("probability", False)


def test_the_report_counts_the_same_pixels_as_evaluate(tmp_path: Path) -> None:
    """Of pictures that all have a label, so that both judge the same ones."""
    write_images(tmp_path, count=8)
    make_maps(tmp_path)
    fit(tmp_path, "model", gt_list=["p00", "p02"])
    apply(tmp_path, "model", "enhanced")
    told = worth(opened(tmp_path, "model"))
    assert told["pictures"] == 6
    after = metrics_of(tmp_path, "enhanced", tmp_path / "after")
    assert after["results"][0]["miou"]["estimate"] == pytest.approx(told["after"]["estimate"], abs=1e-12)


def test_rows_and_places_stay_as_they_were(home: Path) -> None:
    before, after = open_artifact(str(home / "maps")), apply(home, "plain", "enhanced")
    columns = ["id", "class", "instance", "box", "height", "width", "status", "note"]
    assert after.rows(columns).to_pylist() == before.rows(columns).to_pylist()
    empty = [place for place, row in enumerate(after.rows(["note"]).to_pylist()) if row["note"] == "no_label"]
    assert len(empty) == 2
    assert not after.read("map", empty).any()
    assert set(after.rows(["threshold"]).column("threshold").to_pylist()) == {0.5, 0.0}
    assert apply(home, "plain", "by otsu", threshold="otsu").rows(["threshold"]) != after.rows(["threshold"])


def test_labels_are_made_of_enhanced_maps(home: Path, tmp_path: Path) -> None:
    apply(home, "plain", "enhanced")
    inputs = {"maps": str(home / "enhanced"), "images": str(home / "images")}
    outcome = run(REFINE, make_config(RefineConfig), inputs, str(tmp_path / "labels"), OPTIONS)
    assert outcome.counts["ok"] == len(NAMES)


def test_bytes_depend_on_no_threads_and_no_neighbours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = apply(home, "plain", "enhanced")
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        parted = apply(home, "plain", "parted", unit_rows=3)
        fit(home, "again", gt_per_class=2)
    finally:
        torch.set_num_threads(before)
    assert parted.rows(["id", "map_sha256"]) == whole.rows(["id", "map_sha256"])
    assert tree(home / "again") == tree(home / "plain")


@pytest.mark.parametrize("stopped", [0, 19, 41])
def test_stopped_and_gone_on_with_it_is_the_same(
    home: Path, tmp_path: Path, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    loss_of = lessons.loss_of

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == stopped + 1:
            raise KeyboardInterrupt
        return loss_of(*arguments)

    out = home / f"stopped-{stopped}"
    monkeypatch.setattr(lessons, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(home, out.name, gt_per_class=2)
    with pytest.raises(StaleArtifact, match=r"gt_per_class.*2.*3"):
        fit(home, out.name, gt_per_class=3)
    fit(home, out.name, gt_per_class=2)
    assert tree(out) == tree(home / "plain")
    assert fit(home, out.name, gt_per_class=2).units_run == 0


def test_maps_that_do_not_become_better_are_told(tmp_path: Path) -> None:
    """The maps are as good as they can be, and the heads know nothing."""
    write_images(tmp_path, count=9)
    make_maps(tmp_path, signal=0.0, is_map_right=True)
    outcome = fit(tmp_path, "model", gt_list=["p00", "p01"])
    told = worth(opened(tmp_path, "model"))
    before, after = told["before"]["estimate"], told["after"]["estimate"]
    assert before > after
    (line,) = outcome.warnings
    assert re.search(rf"not better: .*\b6 .*mIoU.*{before:.3f}.*{after:.3f}", line)
    assert outcome.exit_code == 6


def test_all_drawn_and_nothing_left_to_tell(home: Path) -> None:
    outcome = fit(home, "all", gt_fraction=1.0)
    assert outcome.exit_code == 6
    assert re.search(r"every picture with ground truth.*22.*cannot be scored", outcome.warnings[0])
    assert worth(opened(home, "all")) == {"pictures": 0}


def undecided(home: Path, *names: str) -> None:
    """Images and maps of four pictures, of which those named have masks that say nothing."""
    write_images(home, count=4)
    for name in names:
        path = home / f"pictures/{name}-mask.png"
        with Image.open(path) as mask:
            nothing = Image.new("L", mask.size, 255)
        nothing.save(path)
    shutil.rmtree(home / "images")
    source = TableSource(file=str(home / "pictures/images.csv"), classes=CLASSES)
    run(INDEX, IndexConfig(source=source), {}, str(home / "images"), OPTIONS)
    make_maps(home)


def test_masks_that_are_undecided_tell_nothing(tmp_path: Path) -> None:
    """Neither what it is worth, nor when to stop; and nothing can be fitted on them."""
    undecided(tmp_path, "p01", "p02", "p03")
    outcome = fit(tmp_path, "model", gt_list=["p00"])
    assert worth(opened(tmp_path, "model")) == {"pictures": 0}
    (line,) = outcome.warnings
    assert re.search(r"masks of 3 .*255 \(undecided\).*cannot be scored", line)
    refused(tmp_path, r"mask.*fit.*\b1\b.*'p0[12]'.*255 \(undecided\).*gt.list", InputError, gt_list=["p01", "p02"])
    ids = next([name, "p00"] for name in ("p01", "p02", "p03") if order_by_hash([name, "p00"], 0) == [name, "p00"])
    fit(tmp_path, "stopped on nothing", gt_list=ids)
    checkpoint = opened(tmp_path, "stopped on nothing")
    assert seen(checkpoint)[0]["stopping"] == ids[:1]
    assert checkpoint.summary.counts["best_steps"] == [60]


# ---- who has seen what


def test_the_budget_is_fitting_and_stopping_together(home: Path) -> None:
    plain = opened(home, "plain")
    (part,) = seen(plain)
    assert not set(part["fitting"]) & set(part["stopping"])
    assert part["held_out"] == []
    together = [*part["fitting"], *part["stopping"]]
    assert training_ids(plain, "masks") == set(together)
    assert training_ids(plain, "labels") == frozenset()
    shown = [labels_of(NAMES.index(name)) for name in together]
    assert all(sum(name in labels for labels in shown) >= 2 for name in CLASSES)
    assert len(together) <= 2 * len(CLASSES)
    assert (plain.summary.counts["fitting"], plain.summary.counts["stopping"]) == tuple(
        len(part[name]) for name in ("fitting", "stopping")
    )


def test_one_mask_of_a_class_is_enough(home: Path) -> None:
    """It is stopped on one of another class; one mask in all has none to stop on, and the last step is taken."""
    fit(home, "one each", gt_per_class=1)
    (part,) = seen(opened(home, "one each"))
    assert (len(part["fitting"]), len(part["stopping"])) == (2, 1)
    fit(home, "one", gt_list=["p00"])
    checkpoint = opened(home, "one")
    assert seen(checkpoint) == [{"fitting": ["p00"], "stopping": [], "held_out": []}]
    assert checkpoint.summary.counts["best_steps"] == [60]
    assert "stopping loss" not in checkpoint.file(METRICS).decode()


def test_cross_fitted_pictures_are_scored_by_who_has_not_seen_them(home: Path) -> None:
    """To the bit what that network alone makes of them; what nobody has seen is the mean of all."""
    crossed, maps = opened(home, "crossed"), apply(home, "crossed", "cross-enhanced")
    parts = seen(crossed)
    assert len(parts) == 3
    for part in parts:
        assert not {*part["fitting"], *part["stopping"]} & set(part["held_out"])
    own = network_by_held_out_id(crossed)
    assert own.keys() == training_ids(crossed, "masks")
    networks = {row["id"]: row["network"] for row in maps.rows(["id", "network"]).to_pylist()}
    assert {name: number for name, number in networks.items() if number is not None} == own
    alone = [alone_maps(home, number) for number in range(3)]
    for place, row in enumerate(maps.rows(["id", "note"]).to_pylist()):
        if row["note"] == "no_label":
            continue
        (found_RC,) = maps.read("map", [place])
        wanted = [each[place] for each in alone]
        if networks[row["id"]] is None:
            np.testing.assert_allclose(found_RC, np.mean(wanted, axis=0), rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(found_RC, wanted[networks[row["id"]]])


def alone_maps(home: Path, number: int) -> np.ndarray:
    maps = open_artifact(str(home / "maps"))
    network, cells = load_networks(opened(home, "crossed"))[number], cells_of(MapsFacts.of(maps), 1)
    heads = maps.read("head_maps", range(maps.plan.num_rows))
    boxes = maps.rows(["box"]).column("box").to_pylist()
    return np.stack([enhance_map([network], each, tuple(box), cells) for each, box in zip(heads, boxes, strict=True)])


def test_evaluate_leaves_out_what_was_seen_and_keeps_what_was_cross_fitted(home: Path, tmp_path: Path) -> None:
    apply(home, "plain", "enhanced")
    apply(home, "crossed", "cross-enhanced")
    plain = metrics_of(home, "enhanced", tmp_path / "plain")
    assert plain["coverage"]["rows"] == len(NAMES) - len(training_ids(opened(home, "plain"), "masks"))
    crossed = metrics_of(home, "cross-enhanced", tmp_path / "crossed")
    assert crossed["coverage"]["rows"] == len(NAMES)
    assert metrics_of(home, "enhanced", tmp_path / "all", include_fitted=True)["coverage"]["rows"] == len(NAMES)


def test_where_all_were_drawn_each_is_judged_by_who_has_not_seen_it(home: Path) -> None:
    outcome = fit(home, "all crossed", gt_fraction=1.0, cross_fit=2)
    assert worth(opened(home, "all crossed"))["pictures"] == len(LABELLED)
    assert outcome.warnings == ()


def test_only_the_classes_named_are_learned_from(home: Path) -> None:
    fit(home, "owls", gt_per_class=2, classes=["owl"])
    checkpoint = opened(home, "owls")
    shown = [labels_of(NAMES.index(name)) for name in training_ids(checkpoint, "masks")]
    assert shown
    assert all("owl" in labels for labels in shown)
    fit(home, "by number", gt_per_class=2, classes=["3"])
    assert opened(home, "by number").file("weights.safetensors") == checkpoint.file("weights.safetensors")


# ---- what is refused


def refused(home: Path, told: str, error: type[MaskmillError] = ConfigError, **asked: Any) -> None:
    with pytest.raises(error, match=told):
        fit(home, "refused", **asked)
    assert not (home / "refused").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "gt.fraction"),
        ({"gt_fraction": 0.1, "gt_per_class": 1}, "gt.fraction"),
        ({"gt_fraction": 1.5}, "gt.fraction.*1.5.*0.*1"),
        ({"gt_per_class": -1}, "gt.per.class.*-1.*0"),
        ({"gt_per_class": 1, "cross_fit": 1}, "cross.fit.*1.*2"),
        ({"gt_per_class": 1, "seed": -1}, "seed.*-1.*0"),
    ],
)
def test_a_mistake_is_told(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_config(EnhancerConfig, **asked)


def test_what_cannot_be_drawn_is_told(home: Path) -> None:
    refused(home, "classes.*'own'.*owl", gt_per_class=1, classes=["own"])
    refused(home, "2 ids.*gt.list", InputError, gt_list=["p00", "x", "y"])
    refused(home, "gt.list.*classes", InputError, gt_list=["p00"], classes=["dog"])
    refused(home, "cross.fit.*4.*3", gt_per_class=1, cross_fit=4)


def test_images_without_masks_say_how_to_give_some(home: Path, tmp_path: Path) -> None:
    write_images(tmp_path, masked=0)
    make_maps(tmp_path)
    refused(tmp_path, r"/maps.*mask.*/images", InputError, gt_per_class=1)
    small_runs.index(tmp_path / "pictures", tmp_path / "maskless")
    told = r"/maskless.*masks.*`maskmill index folder --masks DIR`"
    refused(tmp_path, told, InputError, gt_per_class=1, images="maskless")


def test_a_class_table_that_says_otherwise_is_refused(home: Path) -> None:
    source = TableSource(file=str(home / "pictures/images.csv"), classes=("dog", "cat", "owl"))
    run(INDEX, IndexConfig(source=source), {}, str(home / "swapped"), OPTIONS)
    told = r"1.*cat.*/maps.*dog"
    refused(home, told, InputError, gt_per_class=1, images="swapped")


def test_classes_with_too_few_pictures_are_named(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="maskmill")
    fit(home, "few", gt_per_class=20)
    shown = Counter(label for name in LABELLED for label in labels_of(NAMES.index(name)))
    few = {label: shown[label] for label in CLASSES if shown[label] < 20}
    assert few
    told = ", ".join(f"{label}: {count}" for label, count in few.items())
    assert_named(caplog.text, f"{len(few)} 20 ({told})")


def test_maps_without_heads_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    make_maps(tmp_path, per_head=False)
    refused(tmp_path, "heads.*toyheads", gt_per_class=1)


def test_masks_of_another_size_are_refused(home: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path, count=8)
    for name in ("p00", "p02"):  # pictures and masks of each other's size
        shutil.copy(tmp_path / "pictures/p05.png", tmp_path / f"pictures/{name}.png")
        shutil.copy(tmp_path / "pictures/p05-mask.png", tmp_path / f"pictures/{name}-mask.png")
    source = TableSource(file=str(tmp_path / "pictures/images.csv"), classes=CLASSES)
    run(INDEX, IndexConfig(source=source), {}, str(other), replace(OPTIONS, update=True))
    with pytest.raises(InputError, match=r"p00.*14×13.*--images"):
        run_whole_fit(home, other, tmp_path / "out")


def run_whole_fit(home: Path, images: Path, out: Path) -> None:
    run_whole(
        FIT, make_config(EnhancerConfig, gt_list=["p00"]), {"maps": str(home / "maps"), "images": str(images)}, str(out)
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"supports": "0"}, r"supports.*8.*0"),
        ({"method": "other"}, r"method.*toy.*other"),
    ],
)
def test_maps_of_another_kind_are_refused(home: Path, asked: dict[str, str], told: str) -> None:
    name = "-".join(asked.values())
    make_maps(home, name, **asked)
    with pytest.raises(ConfigError, match=told):
        apply(home, "plain", "refused", maps=name)
    assert not (home / "refused").exists()


def test_a_checkpoint_that_is_no_enhancer_is_refused(home: Path) -> None:
    other = replace(UNFITTED, compute=lambda config, inputs, underway: Findings({}, {"kind": "backbone"}))
    run_whole(other, UnfittedConfig(), {"maps": str(home / "maps")}, str(home / "backbone"))
    with pytest.raises(ConfigError, match=r"/backbone.*enhancer"):
        apply(home, "backbone", "refused")


def test_what_is_stored_is_sound(home: Path) -> None:
    apply(home, "plain", "enhanced")
    for name in ("plain", "enhanced"):
        assert verify(str(home / name)).exit_code == 0
    lines = [json.loads(line) for line in opened(home, "plain").file(METRICS).splitlines()]
    assert [line["step"] for line in lines] == list(range(60))
    assert [line["step"] for line in lines if "stopping loss" in line] == [19, 39, 59]
    assert opened(home, "plain").summary.counts["heads"] == HEADS
