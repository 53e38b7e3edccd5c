"""The stage as a run drives it: whose maps become which label map, at which size, and what fails or is refused."""

import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from builders.configs import make_config
from builders.single_refinement import refine_picture
from builders.small_dataset import tree, write_picture
from builders.small_tokens import CLASSES, PICTURES, Bench, bench_of
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.layout import Unit
from maskmill.manifests.artifact.ledger import record_name
from maskmill.manifests.errors import ConfigError, StaleArtifact
from maskmill.manifests.files.place import Place
from maskmill.manifests.pictures.palette import VOC_PALETTE, decode_label_map
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.job import Job
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.planning import unit_rows_for
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.units import Computed, compute_unit
from maskmill.stages.maps.background_rules import RowThresholds, TwoScores, parse_background
from maskmill.stages.maps.object_classes import KnownClasses, object_labels
from maskmill.stages.maps.upsampling import upsample_maps
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.joint_bilateral import joint_bilateral_maps
from maskmill.stages.refine.pieces import tidy_labels
from maskmill.stages.refine.presets import (
    MEASURED_JBU,
    TORCH_REFINERS,
    GuidedPreset,
    Refiner,
    find_crf_preset,
    find_par_preset,
    parse_guided,
    parse_jbu,
)
from maskmill.stages.refine.refinement import Refinement
from maskmill.stages.refine.stage import STAGE

BLOCKED = {"broken": "truncated", "changed": "changed"}
UNITS_OF_3 = RunOptions(unit_rows=3, max_bad=0.5)
THRESHOLD = 0.49  # in the middle of what random weights give


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Its pictures and artifacts are only read."""
    return bench_of(tmp_path_factory.mktemp("refine"))


@pytest.fixture
def own_bench(tmp_path: Path) -> Bench:
    """For a test that changes pictures."""
    return bench_of(tmp_path, changed=False)


@pytest.fixture(scope="session")
def by_class(bench: Bench) -> Artifact:
    return bench.mask(bench.tokens(), supports="2")


@pytest.fixture(scope="session")
def objects(bench: Bench) -> Artifact:
    return bench.mask(bench.tokens(), supports="0")


def refine_into(
    out: Path,
    bench: Bench,
    maps: Artifact,
    class_maps: Artifact | None = None,
    options: RunOptions = UNITS_OF_3,
    images: Path | None = None,
    **asked: Any,
) -> Outcome:
    inputs = {"maps": maps.place.uri, "images": str(images or bench.images)}
    inputs |= {"class_maps": class_maps.place.uri} if class_maps else {}
    return run(STAGE, make_config(RefineConfig, **asked), inputs, str(out), options)


def refined(bench: Bench, maps: Artifact, class_maps: Artifact | None = None, **asked: Any) -> Artifact:
    out = bench.new_out()
    refine_into(out, bench, maps, class_maps, **asked)
    return open_artifact(str(out), "labels")


def labels_of(labels: Artifact) -> dict[str, np.ndarray]:
    """id → label map, of the rows that are ok."""
    rows = labels.rows(["id", "status"]).to_pylist()
    cells = labels.cells("label", range(len(rows)))
    found = {row["id"]: cell for row, cell in zip(rows, cells, strict=True) if row["status"] == "ok"}
    return {name: decode_label_map(cell) for name, cell in found.items() if cell is not None}


def rows_of(artifact: Artifact) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in artifact.rows().to_pylist()}


def picture_of(bench: Bench, name: str) -> np.ndarray:
    """Upright, decoded by nobody of ours."""
    with Image.open(bench.home / f"{name}.png") as picture:
        return np.array(ImageOps.exif_transpose(picture).convert("RGB"))


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def maps_by_picture(maps: Artifact) -> dict[str, tuple[np.ndarray, list[dict[str, Any]]]]:
    """id → its maps at the picture's size and their rows, of the pictures that are ok and not without label."""
    found: dict[str, tuple[np.ndarray, list[dict[str, Any]]]] = {}
    rows = maps.rows().to_pylist()
    for name, places in maps.positions_by_id().items():
        own = [rows[place] for place in places]
        if own[0]["status"] == "ok" and own[0]["note"] != "no_label":
            size, box = (own[0]["height"], own[0]["width"]), tuple(own[0]["box"])
            found[name] = upsample_maps(maps.read("map", places), size, box, (16, 16), True), own
    return found


# ---- sizes and bytes


@pytest.mark.parametrize("rows", ["by_class", "objects"])
def test_a_label_map_has_the_size_of_its_picture_upright(
    bench: Bench, rows: str, request: pytest.FixtureRequest
) -> None:
    labels = refined(bench, request.getfixturevalue(rows))
    found, listed = labels_of(labels), rows_of(labels)
    assert list(listed) == list(PICTURES)
    assert found.keys() == PICTURES.keys() - BLOCKED
    for name, label_HW in found.items():
        assert label_HW.shape == picture_of(bench, name).shape[:2]
        assert (listed[name]["height"], listed[name]["width"]) == label_HW.shape
    with Image.open(bench.home / "dog/10.png") as stored:
        assert stored.size == found["dog/10"].shape, "on its side: the width of the file is the height of the label map"


def test_a_label_map_is_a_palette_png_of_class_indices(bench: Bench, by_class: Artifact) -> None:
    labels = refined(bench, by_class)
    found = labels_of(labels)
    for name, (position,) in labels.positions_by_id().items():
        (cell,) = labels.cells("label", [position])
        if name in BLOCKED:
            assert cell is None
            continue
        assert cell is not None
        with Image.open(io.BytesIO(cell)) as png:
            assert (png.format, png.mode, png.getpalette()) == ("PNG", "P", list(VOC_PALETTE))
            np.testing.assert_array_equal(np.asarray(png), found[name])
        assert rows_of(labels)[name]["label_sha256"] == hashlib.sha256(cell).hexdigest()
    values = {int(value) for label_HW in found.values() for value in np.unique(label_HW)}
    assert values == {0, 1, 2, 3, 255}


# ---- thresholds and backgrounds


def stretched(map_RC: np.ndarray, box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Pixel by pixel in float64: corners of the view's first and last pixel aligned, outermost valid patches go on."""
    last_row, last_column = (box[2] + 7) // 16 - 1, (box[3] + 7) // 16 - 1  # more than half of a patch is picture
    found = np.empty(size)
    for i, j in np.ndindex(size):
        y = (box[0] + i * (box[2] - 1 - box[0]) / (size[0] - 1)) * 3 / 63
        x = (box[1] + j * (box[3] - 1 - box[1]) / (size[1] - 1)) * 5 / 95
        y, x = min(y, last_row), min(x, last_column)
        r, c = min(int(y), 2), min(int(x), 4)
        upper = map_RC[r, c] * (c + 1 - x) + map_RC[r, c + 1] * (x - c)
        lower = map_RC[r + 1, c] * (c + 1 - x) + map_RC[r + 1, c + 1] * (x - c)
        found[i, j] = upper * (r + 1 - y) + lower * (y - r)
    return found


@pytest.mark.parametrize("threshold", [None, THRESHOLD])
def test_the_highest_map_above_its_threshold_wins(bench: Bench, by_class: Artifact, threshold: float | None) -> None:
    """From the stored maps in float64, without anything of ours."""
    found = labels_of(refined(bench, by_class, threshold=threshold))
    rows, several = by_class.rows().to_pylist(), 0
    for name, places in by_class.positions_by_id().items():
        if name in BLOCKED or name == "none/7":
            continue
        size = found[name].shape
        scores = {0: np.full(size, -1.0)}
        limits = []
        for place, map_RC in zip(places, by_class.read("map", places), strict=True):
            cut = rows[place]["threshold"] if threshold is None else threshold
            score_HW = stretched(map_RC.astype(np.float64), rows[place]["box"], size)
            limits.append(abs(score_HW - cut) > 1e-6)
            scores[rows[place]["class"]] = np.where(score_HW > cut, score_HW, -2)
        classes = np.array(list(scores))
        stacked = np.stack(list(scores.values()))
        ordered = np.sort(stacked, axis=0)
        clear_HW = np.all(limits, axis=0) & (ordered[-1] - ordered[-2] > 1e-6)
        np.testing.assert_array_equal(found[name][clear_HW], classes[stacked.argmax(axis=0)][clear_HW])
        assert clear_HW.mean() > 0.98
        several += set(np.unique(found[name])) == {0, 2, 3}
    assert several == 1, "the picture of two classes shows both"


def test_a_threshold_of_refine_takes_the_place_of_the_rows_own(bench: Bench, by_class: Artifact) -> None:
    own, other = labels_of(refined(bench, by_class)), labels_of(refined(bench, by_class, threshold=THRESHOLD))
    assert not same(own, other)
    numbered = bench.mask(bench.tokens(), supports="2", threshold=str(THRESHOLD))
    assert same(labels_of(refined(bench, numbered)), other)
    assert same(labels_of(refined(bench, numbered, threshold=0.0)), labels_of(refined(bench, by_class, threshold=0.0)))


def test_a_class_can_have_a_threshold_of_its_own(bench: Bench, by_class: Artifact) -> None:
    """By name or index, with one for all others or their own."""
    for given, others in ((("dog=0.45", "0.52"), 0.52), (("dog=0.45",), None)):
        labels = refined(bench, by_class, threshold=given)
        wanted = {}
        for name, (maps_KHW, rows) in maps_by_picture(by_class).items():
            dog = CLASSES.index("dog") + 1
            own = [row["threshold"] if others is None else others for row in rows]
            cuts = [0.45 if row["class"] == dog else cut for row, cut in zip(rows, own, strict=True)]
            thresholds, classes = np.array(cuts, np.float32).astype(np.float64), [row["class"] for row in rows]
            plain = Refinement(background=RowThresholds())
            wanted[name] = refine_picture(picture_of(bench, name), maps_KHW, thresholds, classes, plain).label_HW
        found = {name: label_HW for name, label_HW in labels_of(labels).items() if name != "none/7"}
        assert same(found, wanted)
        plainly_cut = labels_of(refined(bench, by_class, threshold=others))
        assert not same(labels_of(labels), plainly_cut)
    indexed = make_config(RefineConfig, {"maps": by_class}, threshold=f"{CLASSES.index('dog') + 1}=0.45")
    assert indexed == make_config(RefineConfig, {"maps": by_class}, threshold="dog=0.45")


def test_a_class_that_the_maps_do_not_have_is_refused(bench: Bench, by_class: Artifact, objects: Artifact) -> None:
    with pytest.raises(ConfigError, match=r"--threshold is for dgo.*did you mean dog"):
        refined(bench, by_class, threshold="dgo=0.4")
    with pytest.raises(ConfigError, match=r"--threshold is given for a class.*objects without class"):
        refined(bench, objects, threshold="dog=0.4")


@pytest.mark.parametrize("rule", ["rows", "constant:0.49", "power:0.9", "two:0.47,0.52"])
def test_every_background_rule_reaches_every_picture(bench: Bench, by_class: Artifact, rule: str) -> None:
    found = labels_of(refined(bench, by_class, background=rule))
    refinement = Refinement(background=parse_background(rule))
    wanted = {}
    for name, (maps_KHW, rows) in maps_by_picture(by_class).items():
        thresholds, classes = np.array([row["threshold"] for row in rows]), [row["class"] for row in rows]
        picture = picture_of(bench, name)
        wanted[name] = refine_picture(picture, maps_KHW, thresholds, classes, refinement).label_HW
    assert same({name: label_HW for name, label_HW in found.items() if name != "none/7"}, wanted)
    values = {int(value) for label_HW in wanted.values() for value in np.unique(label_HW)}
    assert values >= ({0, 2, 3, 255} if rule.startswith("two") else {0, 2, 3})


def test_small_pieces_and_holes_go_last_and_are_options_of_later_artifacts(bench: Bench, by_class: Artifact) -> None:
    plain, tidied = refined(bench, by_class), refined(bench, by_class, min_piece=40, fill_holes=20)
    wanted = {name: tidy_labels(label_HW, 40, 20) for name, label_HW in labels_of(plain).items()}
    assert same(labels_of(tidied), wanted)
    assert not same(labels_of(plain), wanted)
    for name, row in rows_of(tidied).items():
        areas = [int((wanted[name] == index).sum()) for index in row["classes"]] if name in wanted else None
        assert row["areas"] == areas
    stored = plain.plan.config, tidied.plan.config
    assert not {"min_piece", "fill_holes"} & stored[0].keys()
    assert stored[1] == {**stored[0], "min_piece": 40, "fill_holes": 20}


def test_classes_areas_and_scores_are_told(bench: Bench, by_class: Artifact) -> None:
    labels = refined(bench, by_class, threshold=0.6)
    found, upright = labels_of(labels), maps_by_picture(by_class)
    nothing = 0
    for name, row in rows_of(labels).items():
        if name in BLOCKED:
            assert (row["classes"], row["areas"], row["scores"]) == (None, None, None)
            continue
        wanted = sorted(CLASSES.index(label) + 1 for label in PICTURES[name][0].split("|") if label)
        assert row["classes"] == wanted
        assert row["areas"] == [int((found[name] == index).sum()) for index in wanted]
        for index, area, score in zip(row["classes"], row["areas"], row["scores"], strict=True):
            (place,) = [place for place, each in enumerate(upright[name][1]) if each["class"] == index]
            mean = upright[name][0][place][found[name] == index].mean() if area else None
            assert score == (pytest.approx(mean) if area else None)
        if wanted:
            assert row["note"] == ("" if sum(row["areas"]) else "no_foreground")
            nothing += row["note"] == "no_foreground"
    assert 0 < nothing < 10


# ---- pictures without label, and objects without class


def test_a_picture_of_which_nothing_is_known_is_undecided(bench: Bench, by_class: Artifact) -> None:
    choices: list[dict[str, Any]] = [{}, {"threshold": 0.0}, {"background": "power:1"}]
    for asked in choices:
        labels = refined(bench, by_class, **asked)
        assert set(np.unique(labels_of(labels)["none/7"])) == {255}
        row = rows_of(labels)["none/7"]
        assert (row["status"], row["note"], row["classes"]) == ("ok", "no_label", [])
        assert (row["height"], row["width"]) == picture_of(bench, "none/7").shape[:2]


def masks_of(maps: Artifact) -> dict[str, np.ndarray]:
    return {name: found[0][0] > found[1][0]["threshold"] for name, found in maps_by_picture(maps).items()}


def test_an_object_takes_the_only_label_of_its_picture(bench: Bench, objects: Artifact) -> None:
    """With more or none it is 255."""
    found = labels_of(refined(bench, objects))
    for name, is_object_HW in masks_of(objects).items():
        assert 0 < is_object_HW.mean() < 1
        labels = PICTURES[name][0].split("|")
        only = CLASSES.index(labels[0]) + 1 if labels != [""] and len(labels) == 1 else 255
        np.testing.assert_array_equal(found[name], np.where(is_object_HW, only, 0))
    assert {int(found[name].max()) for name in ("both/3", "none/7")} == {255}


def test_an_object_is_class_1_where_there_are_no_classes(own_bench: Bench) -> None:
    bench = Bench(own_bench.home / "bare")
    for name in ("cat/0", "dog/10"):
        (bench.home / name).parent.mkdir(parents=True)
        (bench.home / f"{name}.png").write_bytes((own_bench.home / f"{name}.png").read_bytes())
    bench.index(dict.fromkeys(("cat/0", "dog/10"), ("", "")), classes=())
    objects = bench.mask(bench.tokens(), supports="0")
    assert objects.plan.facts["classes"] == []
    labels = refined(bench, objects)
    for name, is_object_HW in masks_of(objects).items():
        np.testing.assert_array_equal(labels_of(labels)[name], is_object_HW)
        assert rows_of(labels)[name]["classes"] == [1]
    sought = refined(bench, bench.mask(bench.tokens()))  # by class, of which no picture has one
    assert all((label_HW == 255).all() for label_HW in labels_of(sought).values())


def test_class_maps_tell_the_class_of_each_segment(bench: Bench, objects: Artifact, by_class: Artifact) -> None:
    labels = refined(bench, objects, by_class)
    found, plain = labels_of(labels), labels_of(refined(bench, objects))
    assert {name for name in found if not np.array_equal(found[name], plain[name])} == {"both/3"}
    class_maps_KHW, rows = maps_by_picture(by_class)["both/3"]
    classes = [row["class"] for row in rows]
    known = KnownClasses(num_classes=3, image_labels=[2, 3], maps_KHW=class_maps_KHW, map_classes=classes)
    np.testing.assert_array_equal(found["both/3"], object_labels(masks_of(objects)["both/3"], known))
    assert set(np.unique(found["both/3"])) <= {0, 2, 3}
    assert (found["none/7"].max(), rows_of(labels)["none/7"]["classes"]) == (255, [])


def test_class_maps_of_a_part_of_the_pictures_help_those(bench: Bench, objects: Artifact, own_bench: Bench) -> None:
    """Pictures that they do not have are as without them."""
    part, name = Bench(own_bench.home / "part"), "both/3"
    some = {each: PICTURES[each] for each in (name, "cat/0", "dog/4")}
    for each in some:
        (part.home / each).parent.mkdir(parents=True)
        (part.home / f"{each}.png").write_bytes((bench.home / f"{each}.png").read_bytes())
    part.index(some)
    few = part.mask(part.tokens(), supports="2")
    found = labels_of(refined(bench, objects, few))
    assert set(np.unique(found[name])) in ({0, 2}, {0, 3}, {0, 2, 3})
    assert found["none/7"].max() == 255
    write_picture(part.home / f"{name}.png", 3, (30, 50))
    part.index(some)
    part.extract(Path(part.tokens().artifact.place.uri))
    labels = refined(bench, objects, part.mask(part.tokens(), supports="2"))
    row = rows_of(labels)[name]
    assert (row["status"], row["reason"]) == ("failed", "changed"), "maps of pictures of different sizes"


# ---- refusals


def test_inputs_of_other_datasets_are_refused(
    bench: Bench, objects: Artifact, by_class: Artifact, tmp_path: Path
) -> None:
    other, out = Bench(tmp_path), bench.new_out()
    write_picture(tmp_path / "a.png", 1)
    other.index({"a": ("cat", "train")})
    with pytest.raises(ConfigError, match=r"'cat/0'.*maps.*--images"):
        refine_into(out, bench, by_class, images=other.images)
    foreign = other.mask(other.tokens(), supports="1")
    with pytest.raises(ConfigError, match=r"maps?.*--class-maps"):
        refine_into(out, bench, objects, foreign)
    renamed = Bench(tmp_path / "renamed")
    for name in PICTURES:
        (renamed.home / name).parent.mkdir(parents=True, exist_ok=True)
        (renamed.home / f"{name}.png").write_bytes((bench.home / f"{name}.png").read_bytes())
    renamed.index(PICTURES, classes=("cat", "bird", "dog"))
    with pytest.raises(ConfigError, match=r"1.*bird.*cat"):
        refine_into(out, bench, objects, renamed.mask(renamed.tokens(), supports="1"))
    with pytest.raises(ConfigError, match=r"1.*bird.*cat"):
        refine_into(out, bench, by_class, images=renamed.images)
    assert not out.exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"threshold": 1.5}, r"threshold.*1\.5.*0.*1"),
        ({"threshold": float("nan")}, r"threshold.*nan.*0.*1"),
        (
            {"threshold": 0.5, "background": "constant:0.4"},
            r"threshold.*0\.5.*background.*con",
        ),
        ({"background": "dark"}, r"background.*'dark'.*rows.*map.*constant:SCORE"),
        ({"preset": "irn"}, r"preset.*--refiner.*crf.*par.*guided"),
        ({"background": "preset"}, r"preset.*--refiner.*crf"),
    ],
)
def test_a_mistake_is_told(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_config(RefineConfig, **asked)


def test_maps_without_a_row_for_the_background_cannot_have_its_rule(bench: Bench, by_class: Artifact) -> None:
    with pytest.raises(ConfigError, match=r"maps.*class 0"):
        refined(bench, by_class, background="map")


# ---- what changes


def test_only_what_has_changed_is_made_again(own_bench: Bench) -> None:
    bench = own_bench
    tokens, maps_at, out = bench.tokens(), bench.new_out(), bench.new_out()
    bench.mask_into(maps_at, tokens, supports="0")
    assert refine_into(out, bench, open_artifact(str(maps_at))).units_run == 5
    before = {row["id"]: (row["label_sha256"], row["unit"]) for row in rows_of(open_artifact(str(out))).values()}
    write_picture(bench.home / "cat/1.png", 77, (27, 21))  # of the size that it had
    write_picture(bench.home / "new.png", 50, (30, 20))
    bench.index({"new": ("bird", "train"), **PICTURES}, update=True)
    bench.extract(Path(tokens.artifact.place.uri))
    bench.mask_into(maps_at, bench.tokens(), supports="0")
    assert refine_into(out, bench, open_artifact(str(maps_at))).units_run == 2
    after = {row["id"]: (row["label_sha256"], row["unit"]) for row in rows_of(open_artifact(str(out))).values()}
    assert list(after) == [*before, "new"]
    assert {name for name in before if before[name] != after[name]} == {"cat/1"}
    assert same(labels_of(open_artifact(str(out))), labels_of(refined(bench, open_artifact(str(maps_at)))))
    assert verify(str(out)).exit_code == 0


def test_another_threshold_of_mask_is_another_configuration(bench: Bench, by_class: Artifact) -> None:
    out = bench.new_out()
    refine_into(out, bench, by_class)
    before = tree(out)
    numbered = bench.mask(bench.tokens(), supports="2", threshold="0.49")
    with pytest.raises(StaleArtifact, match=r"inputs\.maps\.cut"):
        refine_into(out, bench, numbered)
    with pytest.raises(StaleArtifact, match=r"threshold.*nothing.*0\.5"):
        refine_into(out, bench, by_class, threshold=0.5)
    assert tree(out) == before


def test_units_change_no_label(bench: Bench, by_class: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bench.new_out()
    refine_into(whole, bench, by_class, options=RunOptions(max_bad=0.5))
    monkeypatch.setattr("maskmill.stages.refine.stage.PICTURES_AT_ONCE", 2)
    parted = bench.new_out()
    refine_into(parted, bench, by_class, options=RunOptions(max_bad=0.5, unit_rows=5))
    assert same(labels_of(open_artifact(str(whole))), labels_of(open_artifact(str(parted))))
    listed = [{**row, "unit": 0, "row": 0} for row in rows_of(open_artifact(str(parted))).values()]
    assert listed == [{**row, "unit": 0, "row": 0} for row in rows_of(open_artifact(str(whole))).values()]


def test_what_failed_above_stays_failed_above(bench: Bench, by_class: Artifact) -> None:
    rows = rows_of(refined(bench, by_class))
    assert {name: row["reason"] for name, row in rows.items() if row["status"] == "upstream"} == BLOCKED
    assert all(row["status"] == "ok" for name, row in rows.items() if name not in BLOCKED)


# ---- the CRF


@cache
def crf_is_there() -> bool:
    try:
        import pydensecrf.densecrf  # type: ignore[import-untyped]
    except ImportError:
        return False
    return pydensecrf.densecrf is not None


needs_crf = pytest.mark.skipif("not crf_is_there()", reason="needs the extra crf")


@needs_crf
@pytest.mark.parametrize(("preset", "rule"), [("irn", "rows"), ("toco", "constant:0.49"), ("clip-es", "rows")])
def test_the_crf_sees_each_picture_upright(bench: Bench, by_class: Artifact, preset: str, rule: str) -> None:
    found = labels_of(refined(bench, by_class, refiner="crf", preset=preset, background=rule))
    refinement = Refinement(background=parse_background(rule), crf=find_crf_preset(preset))
    for name, (maps_KHW, rows) in maps_by_picture(by_class).items():
        thresholds, classes = np.array([row["threshold"] for row in rows]), [row["class"] for row in rows]
        picture = picture_of(bench, name)
        wanted = refine_picture(picture, maps_KHW, thresholds, classes, refinement)
        np.testing.assert_array_equal(found[name], wanted.label_HW, name)
    assert (found["none/7"] == 255).all()
    assert not same(found, labels_of(refined(bench, by_class, background=rule)))


@needs_crf
def test_a_preset_brings_its_background_if_wanted(bench: Bench) -> None:
    own = make_config(RefineConfig, refiner="crf", preset="toco-cam", background="preset")
    assert own.background == TwoScores(0.25, 0.7)
    assert make_config(RefineConfig, refiner="crf", preset="toco-cam").background == RowThresholds()
    assert (
        make_config(RefineConfig, refiner="crf")
        == make_config(RefineConfig, refiner="crf", preset="irn")
        == make_config(RefineConfig, refiner="crf", preset="weclip")
    )
    with pytest.raises(ConfigError, match=r"'irm'.*irn"):
        make_config(RefineConfig, refiner="crf", preset="irm")


@needs_crf
def test_a_picture_that_is_not_what_was_indexed_fails_under_the_crf_alone(own_bench: Bench) -> None:
    bench = own_bench
    objects = bench.mask(bench.tokens(), supports="0")
    write_picture(bench.home / "cat/1.png", 77, (27, 21))
    (bench.home / "cat/2.png").unlink()
    rows = rows_of(refined(bench, objects, refiner="crf"))
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"cat/1": "changed", "cat/2": "missing"}
    assert all(row["status"] == "ok" for row in rows_of(refined(bench, objects)).values() if row["id"] != "broken")


@needs_crf
def test_what_is_decoded_in_a_process_of_its_own_is_refined_too(bench: Bench, by_class: Artifact) -> None:
    """As after the death of a worker."""
    out = bench.new_out()
    refine_into(out, bench, by_class, refiner="crf")
    cells = open_artifact(str(out)).cells("label", range(3))
    (out / record_name("ledger", 0)).unlink()
    inputs = {"maps": by_class.place, "images": Place(str(bench.images))}
    job = Job(STAGE, make_config(RefineConfig, refiner="crf"), Place(str(out)), inputs, "", "")
    computed = compute_unit(job, Unit(0, 0, 3), careful=True)
    assert isinstance(computed, Computed)
    assert computed.result.cells["label"] == cells
    assert None not in cells


@pytest.mark.parametrize(
    ("refiner", "preset", "rule"),
    [("par", "toco", "rows"), ("par", "afa-coco", "two:0.4,0.6"), ("guided", "3,0.01", "rows")],
)
def test_a_smoother_sees_each_picture_upright(
    bench: Bench, by_class: Artifact, refiner: Refiner, preset: str, rule: str
) -> None:
    found = labels_of(refined(bench, by_class, refiner=refiner, preset=preset, background=rule))
    smoother = find_par_preset(preset) if refiner == "par" else parse_guided(preset)
    refinement = Refinement(background=parse_background(rule), smoother=smoother)
    for name, (maps_KHW, rows) in maps_by_picture(by_class).items():
        thresholds, classes = np.array([row["threshold"] for row in rows]), [row["class"] for row in rows]
        wanted = refine_picture(picture_of(bench, name), maps_KHW, thresholds, classes, refinement)
        np.testing.assert_array_equal(found[name], wanted.label_HW, name)
    assert (found["none/7"] == 255).all()
    assert not same(found, labels_of(refined(bench, by_class, background=rule)))


def test_maps_are_upsampled_along_each_picture_upright_and_then_cut(bench: Bench, by_class: Artifact) -> None:
    """From their patches, of which those beside a padded picture do not count."""
    rows, preset = by_class.rows().to_pylist(), parse_jbu("1,0.1,1")
    for rule in ("rows", "two:0.47,0.52"):
        found = labels_of(refined(bench, by_class, refiner="jbu", preset="1,0.1,1", background=rule))
        for name, (_, own) in maps_by_picture(by_class).items():
            picture, box = picture_of(bench, name), tuple(own[0]["box"])
            maps_KRC = by_class.read("map", by_class.positions_by_id()[name])
            maps_KHW = joint_bilateral_maps(maps_KRC, picture, box, (16, 16), preset)
            thresholds, classes = np.array([row["threshold"] for row in own]), [row["class"] for row in own]
            plain = Refinement(background=parse_background(rule))
            wanted = refine_picture(picture, maps_KHW, thresholds, classes, plain)
            np.testing.assert_array_equal(found[name], wanted.label_HW, name)
        assert (found["none/7"] == 255).all()
        assert not same(found, labels_of(refined(bench, by_class, background=rule)))
    assert {tuple(row["box"]) for row in rows if row["status"] == "ok"} - {(0, 0, 64, 96)}, "some are padded"


@pytest.mark.parametrize("refiner", ["par", "guided", "jbu"])
def test_objects_are_smoothed_too_and_a_changed_picture_fails(own_bench: Bench, refiner: Refiner) -> None:
    bench = own_bench
    objects = bench.mask(bench.tokens(), supports="0")
    write_picture(bench.home / "cat/1.png", 77, (27, 21))
    rows = rows_of(refined(bench, objects, refiner=refiner))
    assert {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"} == {"cat/1": "changed"}
    assert any(row["areas"] and max(row["areas"]) for row in rows.values())


def test_a_smoother_has_its_preset_device_and_libraries_in_the_fingerprint() -> None:
    assert make_config(RefineConfig, refiner="par") == make_config(RefineConfig, refiner="par", preset="toco")
    own = make_config(RefineConfig, refiner="par", preset="afa", background="preset")
    assert own.background == TwoScores(0.35, 0.55)
    assert (
        make_config(RefineConfig, refiner="guided").preset
        == make_config(RefineConfig, refiner="guided", preset=" 15, 1e-3").preset
        == GuidedPreset(15, 0.001)
    )
    assert make_config(RefineConfig, refiner="jbu").preset == MEASURED_JBU
    assert callable(STAGE.libraries)
    for refiner in TORCH_REFINERS:
        config = make_config(RefineConfig, refiner=refiner)
        assert "torch" in STAGE.libraries(config)
        assert STAGE.device(config) == "cpu"
        assert STAGE.device(replace(config, device="cuda:1")) == "cuda"
        assert unit_rows_for(STAGE, config, STAGE.fields(config, {}), RunOptions()) == 64
    assert STAGE.device(make_config(RefineConfig)) == ""
    assert "torch" not in STAGE.libraries(make_config(RefineConfig))


def test_pictures_of_a_crf_go_in_small_units() -> None:
    plain = make_config(RefineConfig)
    fields = STAGE.fields(plain, {})
    assert unit_rows_for(STAGE, plain, fields, RunOptions()) == 256
    assert unit_rows_for(STAGE, replace(plain, refiner="crf", preset="irn"), fields, RunOptions()) == 16


def test_without_the_extra_the_crf_is_refused_before_any_work(
    bench: Bench, by_class: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command's options, and by a run of the configuration that another machine has planned."""
    config, out = replace(make_config(RefineConfig), refiner="crf", preset="irn"), bench.new_out()
    for name in ("pydensecrf", "pydensecrf.densecrf", "pydensecrf.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    told = r"crf.*pydensecrf.*pip install 'maskmill\[crf\]'"
    with pytest.raises(ConfigError, match=told):
        make_config(RefineConfig, refiner="crf")
    with pytest.raises(ConfigError, match=told):
        run(STAGE, config, {"maps": by_class.place.uri, "images": str(bench.images)}, str(out), UNITS_OF_3)
    assert not out.exists()


def test_versions_of_the_crf_matter_where_it_is_used() -> None:
    """Installing the extra later does not make label maps stale that were made without it."""
    assert callable(STAGE.libraries)
    plain = make_config(RefineConfig)
    assert not [name for name in STAGE.libraries(plain) if "crf" in name]
    assert "pydensecrf2" in STAGE.libraries(replace(plain, refiner="crf", preset="irn"))
