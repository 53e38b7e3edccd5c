"""What a published dataset says of itself, and the list of ids that a user names."""

from pathlib import Path

import pyarrow as pa
import pytest

from builders.small_labels import MAPS, OPTIONS, MapsConfig, make_labels
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.classes import ClassTable
from maskmill.manifests.errors import InputError
from maskmill.manifests.published.schema import OBJECT, class_names, frame_schema, provenance, read_id_list
from maskmill.pipeline.running.run import run
from maskmill.stages.manifest.quality_rules import Quality


def test_the_measures_are_columns_of_every_class() -> None:
    names = [field.name for field in OBJECT]
    assert names == ["class", "name", "source", "score", *Quality.__dataclass_fields__]


def test_masks_and_pictures_are_image_columns_to_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features.from_arrow_schema(frame_schema())
    assert isinstance(features["mask"], datasets.Image)
    assert isinstance(features["image"], datasets.Image)
    types = {field.name: field.type for field in features.arrow_schema}
    assert types == {field.name: field.type for field in frame_schema()}


def test_a_dataset_without_classes_has_one() -> None:
    assert class_names(ClassTable()) == {1: "object"}
    assert class_names(ClassTable().with_classes([("7", "cat"), ("9", "dog")])) == {1: "cat", 2: "dog"}


def test_provenance_leads_to_the_pictures(tmp_path: Path) -> None:
    labels = open_artifact(str(make_labels(tmp_path)))
    steps = provenance([labels])
    assert [step["kind"] for step in steps] == ["labels", "maps", "images"]
    assert steps[0]["config"] == labels.plan.config
    assert [step["code_version"] for step in steps] == [1, 1, 1]
    by_digest = {step["digest"]: step["kind"] for step in steps}
    assert [sorted(by_digest[each] for each in step["inputs"].values()) for step in steps] == [
        ["images", "maps"],
        ["images"],
        [],
    ]


def test_of_absolute_paths_the_last_part_is_told(tmp_path: Path) -> None:
    images = provenance([open_artifact(str(make_labels(tmp_path)))])[2]
    assert images["config"]["source"]["file"] == "table.csv"
    assert str(tmp_path) not in str(images)


def test_what_has_gone_or_changed_is_a_digest(tmp_path: Path) -> None:
    labels = open_artifact(str(make_labels(tmp_path)))
    whole = provenance([labels])
    (tmp_path / "maps").rename(tmp_path / "moved")
    gone = provenance([labels])
    assert {"digest": whole[1]["digest"]} in gone
    assert sorted(step["digest"] for step in gone) == sorted(step["digest"] for step in whole)
    found_again = provenance([labels, open_artifact(str(tmp_path / "moved"))])
    assert {step["digest"]: step for step in found_again} == {step["digest"]: step for step in whole}
    run(MAPS, MapsConfig(threshold=0.3), {"images": str(tmp_path / "images")}, str(tmp_path / "maps"), OPTIONS)
    assert provenance([labels]) == gone  # something else in its place


def listed(tmp_path: Path, content: bytes) -> list[str]:
    (tmp_path / "ids.txt").write_bytes(content)
    return read_id_list(str(tmp_path / "ids.txt"))


def test_a_list_has_an_id_in_each_line(tmp_path: Path) -> None:
    assert listed(tmp_path, b"cat/1\ndog/2\n\n") == ["cat/1", "dog/2"]
    assert listed(tmp_path, "\ufeffa b\r\n fu\u0308r\r\n".encode()) == ["a b", " f\u00fcr"]
    assert listed(tmp_path, "one\u2028id".encode()) == ["one\u2028id"]


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/nowhere\.txt"):
        read_id_list(str(tmp_path / "nowhere.txt"))
    with pytest.raises(InputError, match="folder"):
        read_id_list(str(tmp_path))
    with pytest.raises(InputError, match=r"ids\.txt"):
        listed(tmp_path, b"\n \n")
    with pytest.raises(InputError, match=r"ids\.txt .*UTF-8"):
        listed(tmp_path, b"\xff\xd8\xff")


def test_every_column_is_of_a_type_that_parquet_keeps() -> None:
    assert all(not pa.types.is_null(field.type) for field in frame_schema())
