"""What is published of label maps: every row with its mask and where that came from, and what readers are told."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders import small_labels
from builders.configs import make_command, make_config
from builders.small_labels import (
    BROKEN,
    GRID,
    LABELS,
    OPTIONS,
    PATCH,
    MapsConfig,
    make_images,
    make_labels,
    publish,
    soft_map,
)
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids_json
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.errors import ConfigError, InputError, StaleArtifact
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.manifests.published.schema import frame_schema
from maskmill.pipeline.answers.estimate import estimate
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.making import Order
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import finish_parts, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.manifest import stage as manifest
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.quality import measure_quality
from maskmill.stages.maps.upsampling import upsample_maps
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE
from maskmill.stages.stage import Findings, Inputs, WholeStage, Work


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, images, maps and labels, which are only read."""
    home = tmp_path_factory.mktemp("manifest")
    make_labels(home)
    return home


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """For a test that changes something."""
    make_labels(tmp_path)
    return tmp_path


def published(dataset: Path) -> dict[str, dict[str, Any]]:
    """The rows of the Parquet files, read without this package, by id."""
    files = sorted((dataset / "data").rglob("*.parquet"))
    assert files
    return {row["id"]: row for file in files for row in pq.read_table(file).to_pylist()}


def cells(artifact: Path, field: str) -> dict[str, bytes | None]:
    opened = open_artifact(str(artifact))
    ids = opened.rows(["id"]).column("id").to_pylist()
    return dict(zip(ids, opened.cells(field, range(len(ids))), strict=True))


def decoded(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"
        return np.asarray(image)


def soft(identifier: str, label: int | None, size: tuple[int, int]) -> np.ndarray:
    view = (0, 0, GRID[0] * PATCH[0], GRID[1] * PATCH[1])
    return upsample_maps(soft_map(identifier, label), size, view, PATCH, False)


def test_every_picture_has_a_row(home: Path) -> None:
    outcome = publish(home, "every")
    assert outcome.counts["rows"] == len(LABELS)
    rows = published(home / "every")
    assert list(rows) == list(LABELS)
    labels = cells(home / "labels", "label")
    for identifier, row in rows.items():
        picture = (home / "pictures" / row["uri"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(picture).hexdigest()
        assert row["split"] == ("val" if int(identifier[1]) > 5 else "train")
        assert row["image"] is None
        if identifier == BROKEN:
            assert (row["status"], row["reason"], row["kept"], row["mask"]) == ("failed", "undecodable", False, None)
        else:
            assert (row["status"], row["reason"], row["kept"], row["dropped"]) == ("ok", "", True, "")
            assert row["mask"] == {"bytes": labels[identifier], "path": f"{identifier}.png"}
            assert decoded(row["mask"]["bytes"]).shape == (row["height"], row["width"])
    assert rows["p2"]["labels"] == [1, 2]
    assert [each["name"] for each in rows["p2"]["objects"]] == ["cat", "dog"]
    assert rows["p3"]["objects"] == []
    assert (decoded(rows["p3"]["mask"]["bytes"]) == 255).all()
    assert verify(str(home / "every")).exit_code == 0


def test_the_row_list_says_the_same(home: Path) -> None:
    publish(home, "listed", min_score="area>=0.4")
    rows = published(home / "listed")
    for row in open_artifact(str(home / "listed"), "dataset").rows().to_pylist():
        same = rows[row["id"]]
        assert (row["kept"], row["dropped"]) == (same["kept"], same["dropped"])
        assert row["classes"] == [each["class"] for each in same["objects"]]
        assert row["sources"] == [each["source"] for each in same["objects"]]
        assert row["status"] == ("ok" if same["status"] == "ok" else "upstream")


def test_ground_truth_is_only_what_was_named(home: Path) -> None:
    """p1 has a mask too, and nobody named it."""
    publish(home, "named", ground_truth=["p0", "p4"])
    rows, masks, labels = published(home / "named"), cells(home / "images", "mask"), cells(home / "labels", "label")
    assert masks["p1"] is not None
    for identifier, row in rows.items():
        sources = {each["source"] for each in row["objects"]}
        if identifier in ("p0", "p4"):
            assert row["mask"]["bytes"] == masks[identifier]
            assert sources == {"gt"}
        elif identifier != BROKEN:
            assert row["mask"]["bytes"] == labels[identifier]
            assert sources <= {"pseudo"}
    assert rows["p0"]["objects"][0]["score"] is None
    assert rows["p0"]["objects"][0]["agreement"] is None


def test_nothing_is_ground_truth_by_having_a_mask(home: Path) -> None:
    publish(home, "unnamed")
    assert {each["source"] for row in published(home / "unnamed").values() for each in row["objects"]} == {"pseudo"}


def test_a_class_that_the_truth_lacks_has_its_source_too(fresh: Path) -> None:
    """The picture is said to show a dog, and its mask shows none."""
    make_images(fresh)
    table = fresh / "pictures" / "table.csv"
    table.write_text(table.read_text().replace("p0.jpg,cat,", "p0.jpg,cat|dog,"))
    make_labels(fresh)
    publish(fresh, ground_truth=["p0"])
    found = published(fresh / "dataset")["p0"]["objects"]
    assert [(each["class"], each["source"], each["area"] > 0) for each in found] == [(1, "gt", True), (2, "gt", False)]


@pytest.mark.parametrize("truth", [(), ("p0",)])
def test_quality_is_what_is_measured(home: Path, truth: tuple[str, ...]) -> None:
    publish(home, f"measured-{len(truth)}", ground_truth=truth)
    compared = 0
    for row in published(home / f"measured-{len(truth)}").values():
        if row["status"] != "ok":
            continue
        label_HW = decoded(row["mask"]["bytes"])
        for each in row["objects"]:
            wanted = measure_quality(label_HW, each["class"], soft(row["id"], each["class"], label_HW.shape))
            assert {name: each[name] for name in dataclasses.asdict(wanted)} == dataclasses.asdict(wanted)
            compared += 1
    assert compared == 7


def test_scores_are_those_of_the_labels(home: Path) -> None:
    publish(home, "scored")
    rows = published(home / "scored")
    for row in open_artifact(str(home / "labels")).rows().to_pylist():
        scores = dict(zip(row["classes"] or (), row["scores"] or (), strict=True))
        assert {each["class"]: each["score"] for each in rows[row["id"]]["objects"]} == scores


@pytest.mark.parametrize(("by_class", "rule"), [(True, "rows"), (True, "constant:0.6"), (False, "rows")])
def test_agreement_is_of_the_labels_before_refining_with_those_after(tmp_path: Path, by_class: bool, rule: str) -> None:
    """Before refining is what the same command gives without a refiner."""
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    (tmp_path / "plain").mkdir()
    maps = MapsConfig(by_class=by_class)
    make_labels(tmp_path, maps, refiner="crf", preset="psa", background=rule)
    make_labels(tmp_path / "plain", maps, background=rule)
    publish(tmp_path)
    before, found = cells(tmp_path / "plain" / "labels", "label"), []
    for identifier, row in published(tmp_path / "dataset").items():
        for each in row["objects"]:
            one = decode_label_map(before[identifier] or b"") == each["class"]
            other = decoded(row["mask"]["bytes"]) == each["class"]
            assert each["agreement"] == pytest.approx((one & other).sum() / (one | other).sum())
            found.append(each["agreement"])
    assert len(found) >= 5
    assert any(0 < each < 1 for each in found)
    publish(tmp_path, "with-truth", ground_truth=["p0"])  # which nobody refined
    assert published(tmp_path / "with-truth")["p0"]["objects"][0]["agreement"] is None


def test_a_threshold_of_refine_is_that_of_the_labels_before(tmp_path: Path) -> None:
    pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    (tmp_path / "plain").mkdir()
    make_labels(tmp_path, refiner="crf", threshold=0.7)
    make_labels(tmp_path / "plain", threshold=0.7)
    publish(tmp_path)
    (found,) = published(tmp_path / "dataset")["p0"]["objects"]
    one = decode_label_map(cells(tmp_path / "plain" / "labels", "label")["p0"] or b"") == 1
    other = decoded(published(tmp_path / "dataset")["p0"]["mask"]["bytes"]) == 1
    assert found["agreement"] == pytest.approx((one & other).sum() / (one | other).sum())


# ---- another method's labels


@pytest.fixture(scope="module")
def two_homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, and others of another background rule; both are only read."""
    home = tmp_path_factory.mktemp("two")
    make_labels(home)
    refine_again(home, "other", background="two:0.4,0.7")
    return home


def refine_again(home: Path, out: str, images: str = "images", maps: str = "maps", **asked: Any) -> None:
    inputs = {"maps": str(home / maps), "images": str(home / images)}
    run(REFINE, make_config(RefineConfig, **asked), inputs, str(home / out), OPTIONS)


def class_iou(one_HW: np.ndarray, other_HW: np.ndarray, label: int) -> float | None:
    one, other = one_HW == label, other_HW == label
    return float((one & other).sum() / (one | other).sum()) if (one | other).any() else None


def test_agreement_with_another_method_is_measured_per_class(two_homes: Path) -> None:
    publish(two_homes, "compared", compared="other", ground_truth=["p0"])
    publish(two_homes, "alone", ground_truth=["p0"])
    others, found = cells(two_homes / "other", "label"), []
    alone = published(two_homes / "alone")
    for identifier, row in published(two_homes / "compared").items():
        for each, same in zip(row["objects"], alone[identifier]["objects"], strict=True):
            if identifier == "p0":  # the truth is no method's
                assert each["method_agreement"] is None
                continue
            label_HW, other_HW = decoded(row["mask"]["bytes"]), decode_label_map(others[identifier] or b"")
            expected = class_iou(label_HW, other_HW, each["class"])
            assert each["method_agreement"] == pytest.approx(expected)
            assert same == {**each, "method_agreement": None}
            found.append(each["method_agreement"])
    assert len(found) >= 5
    assert any(0 < each < 1 for each in found)
    opened = open_artifact(str(two_homes / "compared"))
    assert opened.plan.fingerprint != open_artifact(str(two_homes / "alone")).plan.fingerprint
    assert verify(str(two_homes / "compared")).exit_code == 0


def test_a_rule_asks_for_agreement_with_the_other(two_homes: Path) -> None:
    rule = "method_agreement>=0.5"
    publish(two_homes, "ruled", compared="other", min_score=rule)
    for row in published(two_homes / "ruled").values():
        values = {each["name"]: each["method_agreement"] for each in row["objects"]}
        if row["status"] == "ok" and values:
            assert row["kept"] == all(value is not None and value >= 0.5 for value in values.values())
            assert row["kept"] or " method_agreement " in row["dropped"]
    publish(two_homes, "undefined", min_score=rule)
    dropped = {row["dropped"] for row in published(two_homes / "undefined").values() if row["objects"]}
    assert {each.partition(": ")[2] for each in dropped} == {"method_agreement is not defined, asked >= 0.5"}


def test_what_the_other_has_not_or_has_failed_at_is_not_measured(fresh: Path) -> None:
    """And fails no row here."""
    table = fresh / "pictures" / "fewer.csv"
    lines = (fresh / "pictures" / "table.csv").read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[3:])]) + "\n")  # without p0 and p1
    config = IndexConfig(source=TableSource(file=str(table), classes=("cat", "dog")))
    run(INDEX, config, {}, str(fresh / "fewer"), OPTIONS)
    run(small_labels.MAPS, MapsConfig(), {"images": str(fresh / "fewer")}, str(fresh / "fewer-maps"), OPTIONS)
    Image.new("RGB", (30, 30)).save(fresh / "pictures" / "p7.jpg")
    refine_again(fresh, "fewer-labels", "fewer", "fewer-maps", refiner="guided", preset="2,0.01")
    assert open_artifact(str(fresh / "fewer-labels")).failures().keys() >= {0}, "p7 is not what was indexed"
    publish(fresh, compared="fewer-labels")
    rows = published(fresh / "dataset")
    assert [name for name, row in rows.items() if row["status"] != "ok"] == [BROKEN]
    for name, row in rows.items():
        for each in row["objects"]:
            assert (each["method_agreement"] is None) == (name in ("p0", "p1", "p7"))


def test_labels_of_pictures_of_other_sizes_are_not_measured(
    fresh: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    larger = tmp_path_factory.mktemp("larger")
    small_labels.write_pictures(larger / "pictures", dict(reversed(LABELS.items())))
    make_labels(larger)
    publish(fresh, compared=str(larger / "labels"))
    sizes = {
        row["id"]: (row["height"], row["width"]) for row in open_artifact(str(larger / "labels")).rows().to_pylist()
    }
    same = {name: sizes[name] == (row["height"], row["width"]) for name, row in published(fresh / "dataset").items()}
    assert {True, False} <= set(same.values())
    for name, row in published(fresh / "dataset").items():
        assert all((each["method_agreement"] is not None) == same[name] for each in row["objects"])


def test_changed_labels_of_the_other_rebuild_what_was_measured(fresh: Path) -> None:
    refine_again(fresh, "other", background="constant:0.6")
    publish(fresh, compared="other")
    before = published(fresh / "dataset")["p0"]["objects"][0]["method_agreement"]
    Image.new("RGB", (40, 24)).save(fresh / "pictures" / "p0.jpg")
    make_labels(fresh)
    refine_again(fresh, "other", background="constant:0.6")
    assert publish(fresh, compared="other").units_run >= 1
    assert published(fresh / "dataset")["p0"]["objects"][0]["method_agreement"] == pytest.approx(before)
    with pytest.raises(StaleArtifact, match=r"/dataset.*inputs\.compared"):
        publish(fresh)


def test_labels_that_cannot_be_compared_are_refused(fresh: Path) -> None:
    with pytest.raises(InputError, match=r"/labels.*--compare-with"):
        publish(fresh, compared="labels")
    swapped = IndexConfig(source=TableSource(file=str(fresh / "pictures" / "table.csv"), classes=("dog", "cat")))
    run(INDEX, swapped, {}, str(fresh / "swapped"), OPTIONS)
    run(small_labels.MAPS, MapsConfig(), {"images": str(fresh / "swapped")}, str(fresh / "swapped-maps"), OPTIONS)
    refine_again(fresh, "swapped-labels", "swapped", "swapped-maps")
    with pytest.raises(InputError, match=r"1.*cat.*/labels.*dog.*/swapped-labels.*--compare"):
        publish(fresh, compared="swapped-labels")
    assert not (fresh / "dataset").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_description_says_whom_it_agrees_with(two_homes: Path) -> None:
    publish(two_homes, "described", compared="other")
    described = json.loads((two_homes / "described" / "croissant.json").read_text())
    fields = {field["name"]: field for field in described["recordSet"][0]["field"]}
    urns = [f"urn:sha256:{open_artifact(str(two_homes / name)).digest}" for name in ("labels", "other")]
    assert [fields[name]["prov:wasDerivedFrom"]["@id"] for name in ("mask", "objects")] == urns
    assert {urns[0], urns[1]} <= {each["@id"] for each in described["prov:wasDerivedFrom"]}
    croissant = pytest.importorskip("mlcroissant")
    opened = croissant.Dataset(jsonld=two_homes / "described" / "croissant.json")
    values = [each for record in opened.records("images") for each in objects_of(record, "method_agreement")]
    assert any(0 < each < 1 for each in values)


def test_a_rule_marks_and_deletes_nothing(home: Path) -> None:
    publish(home, "all")
    publish(home, "marked", min_score="area>=0.4,num_components<=1", ground_truth=["p0"])
    everything, marked = published(home / "all"), published(home / "marked")
    assert list(marked) == list(everything)
    for identifier, row in marked.items():
        areas = {each["name"]: each["area"] for each in row["objects"]}
        small = [name for name, area in areas.items() if area < 0.4]
        if identifier == "p0":
            assert small
            assert (row["kept"], row["dropped"]) == (True, "")  # the truth is not judged
        elif identifier == "p3":
            assert (row["kept"], row["dropped"]) == (False, "nothing found")
        elif small:
            assert not row["kept"]
            assert row["dropped"] == f"{small[0]}: area {areas[small[0]]:.3g} < 0.4"
            assert row["mask"] == everything[identifier]["mask"]
        else:
            assert row["kept"] == (row["status"] == "ok")
    assert 0 < sum(row["kept"] for row in marked.values()) < len(LABELS) - 2


def test_a_rule_that_cannot_be_read_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"'aera'.*area"):
        make_config(ManifestConfig, min_score="aera>=0.1")


def test_embedded_pictures_are_the_files_themselves(fresh: Path) -> None:
    publish(fresh, embed_images=True)
    for row in published(fresh / "dataset").values():
        if row["status"] == "ok":
            assert row["image"] == {"bytes": (fresh / "pictures" / row["uri"]).read_bytes(), "path": row["uri"]}


def test_a_picture_that_was_changed_is_not_embedded(fresh: Path) -> None:
    Image.new("RGB", (40, 24)).save(fresh / "pictures" / "p0.jpg")
    publish(fresh, embed_images=True)
    row = published(fresh / "dataset")["p0"]
    assert (row["status"], row["reason"], row["mask"]) == ("failed", "changed", None)


def test_a_mask_of_another_size_than_its_picture_is_not_published(fresh: Path) -> None:
    """The pictures were changed and indexed again, and nothing below them was made again."""
    Image.new("RGB", (30, 30)).save(fresh / "pictures" / "p7.jpg")
    make_images(fresh)
    publish(fresh)
    assert published(fresh / "dataset")["p7"]["reason"] == "changed"


def test_other_maps_than_those_of_the_labels_are_refused(fresh: Path) -> None:
    run(small_labels.MAPS, MapsConfig(threshold=0.3), {"images": str(fresh / "images")}, str(fresh / "other"), OPTIONS)
    with pytest.raises(StaleArtifact, match=r"maps.*/other.*`maskmill refine`"):
        publish(fresh, maps="other")
    assert not (fresh / "dataset").exists()


def test_ground_truth_that_is_not_there_is_refused(fresh: Path) -> None:
    with pytest.raises(InputError, match=r"^1 id named.*/labels.*'p9'"):
        publish(fresh, ground_truth=["p0", "p9"])
    with pytest.raises(InputError, match=r"2 ids.*mask.*/images.*'p6'"):
        publish(fresh, ground_truth=["p0", "p6", "p7"])
    make_images(fresh, "bare", masks=False)
    with pytest.raises(InputError, match=r"^1 id named.*mask.*/bare"):
        publish(fresh, images="bare", ground_truth=["p0"])
    assert not (fresh / "dataset").exists()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FittedConfig:
    fitting: tuple[str, ...] = ()
    stopping: tuple[str, ...] = ()


def fitted(config: FittedConfig, inputs: Inputs, underway: Underway) -> Findings:
    return Findings({"seen.json": training_ids_json(["p2"], [], list(config.fitting), list(config.stopping))})


FITTED = WholeStage(command=make_command("fitted", "checkpoint", FittedConfig, {}), code_version=1, compute=fitted)


def test_what_was_fitted_on_masks_names_them(fresh: Path) -> None:
    """Those it was stopped on as well; of the ids it saw, the ones that are here."""
    config = FittedConfig(fitting=("p0", "elsewhere"), stopping=("p4",))
    run_whole(FITTED, config, {}, str(fresh / "checkpoint"))
    publish(fresh, seen="checkpoint")
    rows = published(fresh / "dataset")
    truth = {name for name, row in rows.items() if any(each["source"] == "gt" for each in row["objects"])}
    assert truth == {"p0", "p4"}
    assert "fitted" in [step["stage"] for step in open_artifact(str(fresh / "dataset")).plan.facts["provenance"]]


def test_what_was_fitted_on_no_mask_is_refused(fresh: Path) -> None:
    run_whole(FITTED, FittedConfig(), {}, str(fresh / "checkpoint"))
    with pytest.raises(InputError, match=r"/checkpoint.*mask.*--ground-truth"):
        publish(fresh, seen="checkpoint")


def test_a_unit_that_is_given_up_is_in_the_files(fresh: Path) -> None:
    def raising(work: Work, config: Any, prepared: Any) -> Any:
        if "p0" in work.ids:
            raise ValueError("told to raise")
        return manifest.run_unit(work, config, prepared)

    stage = dataclasses.replace(manifest.STAGE, run_unit=raising)
    inputs = {role: str(fresh / role) for role in ("labels", "maps", "images")}
    config = make_config(ManifestConfig, embed_images=True)
    run(stage, config, inputs, str(fresh / "dataset"), RunOptions(unit_rows=3, max_bad=1.0))
    rows = published(fresh / "dataset")
    assert [rows[name]["reason"] for name in ("p0", "p1", "p2", "p3")] == ["error", "error", "error", ""]
    files = sorted((fresh / "dataset" / "data").rglob("*.parquet"))
    for schema in map(pq.read_schema, files):
        assert schema.equals(frame_schema())
        assert schema.metadata == frame_schema().metadata


def test_parts_end_in_the_same_files(home: Path) -> None:
    publish(home, "whole")
    for part in ((1, 2), (2, 2)):
        publish(home, "parts", dataclasses.replace(OPTIONS, part=part))
    assert not (home / "parts" / "croissant.json").exists()
    finish_parts(str(home / "parts"), OPTIONS)
    for name in ("croissant.json", "rows.parquet", "artifact.json", "data/000/00000.parquet"):
        assert (home / "parts" / name).read_bytes() == (home / "whole" / name).read_bytes()


@pytest.mark.parametrize("embed_images", [False, True])
def test_files_are_of_about_128_mb(home: Path, embed_images: bool) -> None:
    """By the sizes of what there is, unless that would be more rows than a unit may have."""
    inputs = {role: str(home / role) for role in ("labels", "maps", "images")}
    publish(home, f"sized-{embed_images}", embed_images=embed_images)
    rows = published(home / f"sized-{embed_images}").values()
    inside = [row[name]["bytes"] for row in rows if row["status"] == "ok" for name in ("mask", "image") if row[name]]
    config = make_config(ManifestConfig, embed_images=embed_images)
    found = estimate(
        Order(manifest.STAGE, config, {role: open_artifact(uri) for role, uri in inputs.items()}), RunOptions()
    )
    assert found.unit_rows * sum(map(len, inside)) / len(rows) < 128 * 2**20
    assert sum(map(len, inside)) < found.total_bytes < 1.5 * sum(map(len, inside)) + 400 * len(rows)
    if embed_images:
        assert found.unit_rows * sum(map(len, inside)) / len(rows) > 96 * 2**20
    else:
        assert found.unit_rows == 65_536


def digests(value: Any) -> Iterator[str]:
    """Everything that an entity of the description is derived from."""
    for each in value:
        yield each["@id"].removeprefix("urn:sha256:")


def test_provenance_says_what_every_stage_did(home: Path) -> None:
    publish(home, "proven")
    made = {name: open_artifact(str(home / name)) for name in ("labels", "maps", "images")}
    steps = {step["digest"]: step for step in open_artifact(str(home / "proven")).plan.facts["provenance"]}
    assert set(steps) == {artifact.digest for artifact in made.values()}
    for artifact in made.values():
        step, plan = steps[artifact.digest], artifact.plan
        assert (step["stage"], step["fingerprint"], step["libraries"]) == (plan.stage, plan.fingerprint, plan.libraries)
        assert step["inputs"] == {each.role: each.digest for each in plan.inputs}
    assert steps[made["labels"].digest]["config"] == made["labels"].plan.config
    described = json.loads((home / "proven" / "croissant.json").read_text())
    assert set(digests(described["prov:wasDerivedFrom"])) == set(steps)
    for entity in described["prov:wasDerivedFrom"]:
        (digest,) = digests([entity])
        assert json.loads(entity["prov:wasGeneratedBy"]["prov:value"]) == steps[digest]["config"]
        assert set(digests(entity["prov:wasDerivedFrom"])) == set(steps[digest]["inputs"].values())


def test_no_path_of_the_makers_machine_is_published(home: Path) -> None:
    publish(home, "shared", embed_images=True)
    for path in (home / "shared").rglob("*"):
        if path.is_file() and path.parent.name != "log":
            assert str(home).encode() not in path.read_bytes(), path


def objects_of(record: Mapping[str, Any], name: str) -> list[Any]:
    return [each[f"images/objects/{name}"] for each in record["images/objects"]]


# mlcroissant's own: rdflib's and absl's deprecations, and files it leaves to be closed by the collector.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_croissant_is_valid_and_reads_the_records(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    publish(home, "croissant", embed_images=True, title="cats and dogs", licence="https://spdx.org/licenses/CC-BY-4.0")
    opened = mlcroissant.Dataset(jsonld=home / "croissant" / "croissant.json")
    issues = opened.metadata.ctx.issues
    assert issues.errors == set()
    # Neither is known: nobody cites the dataset yet, and no date is in its bytes.
    assert sorted(each.split('"')[1].rpartition("/")[2] for each in issues.warnings) == [
        "citeAs",
        "datePublished",
        "version",
    ]
    assert "context" not in caplog.text
    metadata = opened.metadata
    assert metadata.name == "cats and dogs"
    assert metadata.license[0] == "https://spdx.org/licenses/CC-BY-4.0"
    assert metadata.license[1].name == "cc-by-nc-4.0"
    assert "1 cat, 2 dog" in metadata.description
    assert any("vit_toy" in each for each in metadata.machine_annotation_tools)
    files = {each.id: each for each in metadata.file_objects}
    on_disk = {
        path.relative_to(home / "croissant").as_posix(): path for path in (home / "croissant/data").rglob("*.parquet")
    }
    assert set(files) == set(on_disk)
    for name, path in on_disk.items():
        assert files[name].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert files[name].content_url == name
        assert files[name].content_size == f"{path.stat().st_size} B"
    rows = published(home / "croissant")
    records = {record["images/id"].decode(): record for record in opened.records("images")}
    assert list(records) == list(rows)
    for identifier, record in records.items():
        row = rows[identifier]
        assert record["images/kept"] == row["kept"]
        assert record["images/labels"] == row["labels"]
        if row["status"] != "ok":
            assert record["images/mask"] is record["images/image"] is None
            continue
        assert record["images/mask"].mode == "P"
        np.testing.assert_array_equal(np.asarray(record["images/mask"]), decoded(row["mask"]["bytes"]))
        assert record["images/image"].format == "JPEG"
        assert objects_of(record, "class") == [each["class"] for each in row["objects"]]
        assert objects_of(record, "area") == [each["area"] for each in row["objects"]]
        assert objects_of(record, "source") == [each["source"].encode() for each in row["objects"]]
    classes = [(each["classes/index"], each["classes/name"]) for each in opened.records("classes")]
    assert classes == [(1, "cat"), (2, "dog")]


def test_a_description_says_only_what_there_is(home: Path) -> None:
    publish(home, "bare")
    described = json.loads((home / "bare" / "croissant.json").read_text())
    assert [each["name"] for each in described["license"]] == ["cc-by-nc-4.0"]
    fields = {field["name"]: field for field in described["recordSet"][0]["field"]}
    assert "image" not in fields
    assert fields["mask"]["dataType"] == ["cr:SegmentationMask", "sc:ImageObject"]
    assert {field["name"] for field in fields["objects"]["subField"]} >= {"class", "source", "agreement"}
    assert described["description"].startswith("Segmentation masks of 7 pictures, 1 more have none and say why.")
    assert "date" not in json.dumps(described).replace("dataType", "").lower().replace("update", "")


def test_hugging_face_reads_masks_as_pictures(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    publish(home, "hugging-face", embed_images=True)
    files = sorted(str(path) for path in (home / "hugging-face" / "data").rglob("*.parquet"))
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["train"]
    rows = published(home / "hugging-face")
    assert loaded["id"][:] == list(rows)
    for row in loaded:
        if row["status"] == "ok":
            assert row["mask"].mode == "P"
            np.testing.assert_array_equal(np.asarray(row["mask"]), decoded(rows[row["id"]]["mask"]["bytes"]))
            assert row["image"].size == row["mask"].size
        assert row["objects"] == rows[row["id"]]["objects"]
