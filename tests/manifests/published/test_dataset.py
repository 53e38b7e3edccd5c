"""The published dataset as it is trained on: what it gives, from where, in which process, and what it refuses."""

import hashlib
import io
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

import maskmill
from builders.small_labels import BROKEN, LABELS, TURNED, make_images, make_labels, publish
from faults.damage import flip, resealed
from maskmill.manifests.artifact import ledger, tables
from maskmill.manifests.artifact.fingerprint import FORMAT_VERSION
from maskmill.manifests.artifact.plan import read_plan
from maskmill.manifests.errors import ConfigError, CorruptArtifact, InputError, MaskmillError, StaleArtifact
from maskmill.manifests.files import digests
from maskmill.manifests.files.digests import FileDigest
from maskmill.manifests.files.place import Place
from maskmill.manifests.files.sealed import Json
from maskmill.manifests.pictures.palette import encode_label_map
from maskmill.manifests.published.dataset import Dataset, open_dataset
from maskmill.manifests.published.schema import OLDER_OBJECT, frame_schema
from maskmill.stages.manifest import stage as manifest

RULE = "area>=0.4"
GOOD = [identifier for identifier in LABELS if identifier != BROKEN]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a dataset of them, which are only read; `inside` has them embedded."""
    home = tmp_path_factory.mktemp("labels")
    make_labels(home)
    publish(home, min_score=RULE)
    publish(home, "inside", min_score=RULE, embed_images=True)
    return home


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of the home for a test that changes it."""
    return shutil.copytree(home, tmp_path / "home")


def rows_of(dataset: Path) -> dict[str, dict[str, Any]]:
    files = sorted((dataset / "data").rglob("*.parquet"))
    return {row["id"]: row for file in files for row in pq.read_table(file).to_pylist()}


def upright(path: Path) -> np.ndarray:
    """A picture decoded by nobody of ours."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def index_of(labels: Dataset, identifier: str) -> int:
    return next(index for index in range(len(labels)) if labels.row(index)["id"] == identifier)


@pytest.mark.parametrize("name", ["dataset", "inside"])
def test_a_picture_its_mask_and_what_is_known_of_it(home: Path, name: str) -> None:
    labels, rows = maskmill.open_dataset(home / name, keep="all"), rows_of(home / name)
    assert len(labels) == len(GOOD)
    for identifier, (image, mask, row) in zip(GOOD, labels, strict=True):
        expected = upright(home / "pictures" / f"{identifier}.jpg")
        assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
        assert image.permute(1, 2, 0).is_contiguous()
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
        with Image.open(io.BytesIO(rows[identifier]["mask"]["bytes"])) as png:
            np.testing.assert_array_equal(mask.numpy(), np.asarray(png))
        assert mask.shape == image.shape[1:]
        wanted = {column: value for column, value in rows[identifier].items() if column not in ("image", "mask")}
        assert row == wanted
        assert row["objects"] == [] or row["objects"][0]["source"] == "pseudo"
    height, width = labels[index_of(labels, TURNED)][1].shape
    assert height > width  # lies on its side in the file


def test_what_the_rule_refused_is_left_out_or_not(home: Path) -> None:
    rows = rows_of(home / "dataset")
    kept = [identifier for identifier in GOOD if rows[identifier]["kept"]]
    labels = open_dataset(home / "dataset")
    assert [row["id"] for _, _, row in labels] == kept
    assert 0 < len(kept) < len(GOOD)
    assert {row["dropped"] for _, _, row in open_dataset(home / "dataset", keep="all")} > {""}
    assert labels.rows.num_rows == len(LABELS)
    assert labels.classes == {1: "cat", 2: "dog"}
    assert [step["kind"] for step in labels.provenance] == ["labels", "maps", "images"]


def test_it_is_a_sequence(home: Path) -> None:
    labels = open_dataset(home / "dataset", keep="all")
    assert labels[-1][2] == labels[len(labels) - 1][2]
    assert labels.row(-1) == labels.row(len(labels) - 1)
    for beyond in (len(labels), -len(labels) - 1):
        with pytest.raises(IndexError):
            labels[beyond]


def test_it_can_be_sent(home: Path) -> None:
    labels = open_dataset(home / "dataset", keep="all")
    _ = labels[0]
    sent = pickle.dumps(labels)
    assert len(sent) < 20_000  # no file, no picture
    again = pickle.loads(sent)
    assert [row for _, _, row in again] == [row for _, _, row in labels]


def same(one: Any, other: Any) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) and one[2] == other[2]


# On a machine of fewer processors than workers torch says so.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    ("start", "workers", "persistent"), [("fork", 4, True), ("fork", 4, False), ("spawn", 2, False)]
)
@pytest.mark.parametrize("name", ["dataset"])
def test_loader_workers_give_the_same(home: Path, name: str, start: str, workers: int, persistent: bool) -> None:
    labels = open_dataset(home / name, keep="all")
    wanted = list(labels)  # before they start: what is open here must not be read through there
    loader = DataLoader(
        labels,
        batch_size=2,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context=start,
        persistent_workers=persistent,
    )
    for _ in range(2 if persistent else 1):
        found = [each for batch in loader for each in batch]
        assert len(found) == len(wanted)
        assert all(map(same, found, wanted))


def test_it_opens_without_dask_and_asking_for_it_costs_no_torch(home: Path) -> None:
    program = f"""
import sys
import maskmill
assert "torch" not in sys.modules
labels = maskmill.open_dataset({str(home / "inside")!r})
assert labels[0][0].shape[0] == 3
assert not {{"dask", "distributed", "click", "timm"}} & {{name.partition(".")[0] for name in sys.modules}}
try:
    maskmill.open_dataset({str(home / "inside")!r}, keep="none")
except ValueError as error:
    assert str(error).startswith("keep is 'none'") and str(error).endswith('"kept" or "all"'), error
else:
    raise AssertionError("keep 'none' was taken")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_deprecated_names_warn_once_and_still_work(home: Path) -> None:
    program = f"""
import warnings
import maskmill
assert maskmill.Labels is maskmill.Dataset
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    labels = [maskmill.open_labels({str(home / "inside")!r}, keep="all") for _ in range(2)]
(warning,) = [each for each in caught if "open_labels" in str(each.message)]
assert warning.category is DeprecationWarning and "open_dataset" in str(warning.message), warning
assert warning.filename == "<string>", warning
dataset = maskmill.open_dataset({str(home / "inside")!r}, keep="all")
for each in labels:
    assert type(each) is maskmill.Dataset
    assert [each.row(index) for index in range(len(each))] == [dataset.row(index) for index in range(len(dataset))]
"""
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], check=True)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """The first arguments of a function at each call."""
    calls: list[Any] = []
    function = getattr(owner, name)

    def counting(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments[1])
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, counting)
    return calls


def test_neighbours_are_decoded_together_and_a_file_is_hashed_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three units with three rows, each one row group: rows with masks, and pictures, are read once."""
    read = counted(monkeypatch, pq.ParquetFile, "read_row_group")
    hashed = counted(monkeypatch, digests, "fault")
    labels = open_dataset(own / "inside", keep="all")
    assert len(list(labels)) == len(GOOD)
    assert len(read) == 3 * 2
    assert len(list(labels)) == len(GOOD)
    assert sorted(name for name in hashed if name.startswith("data/")) == [
        f"data/000/0000{unit}.parquet" for unit in range(3)
    ]


def test_a_row_group_is_read_and_not_the_file(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 70 rows in one file, the last are in the third row group."""
    monkeypatch.setattr(tables, "FRAME_ROW_GROUP", 1)
    publish(home, str(tmp_path / "small"))
    monkeypatch.setattr("maskmill.manifests.published.frames.FRAME_ROW_GROUP", 1)
    read = counted(monkeypatch, pq.ParquetFile, "read_row_group")
    labels = open_dataset(tmp_path / "small", keep="all")
    assert labels.row(1)["id"] == "p1"
    assert read == [1]


def test_pictures_inside_are_all_that_is_needed(own: Path, tmp_path: Path) -> None:
    wanted = list(open_dataset(own / "inside"))
    (own / "inside").rename(tmp_path / "alone")
    shutil.rmtree(own)
    found = list(open_dataset(tmp_path / "alone"))
    assert found
    assert all(map(same, found, wanted))


def test_a_dataset_that_was_moved_with_what_it_was_made_of_leads_to_its_pictures(home: Path, own: Path) -> None:
    """The images artifact says where they lay; moved as well, they need a root."""
    wanted = list(open_dataset(home / "dataset"))
    assert all(map(same, open_dataset(own / "dataset"), wanted))
    assert all(map(same, open_dataset(own / "dataset", images_root=own / "pictures"), wanted))


def test_without_its_pictures_labels_still_open(own: Path) -> None:
    wanted = list(open_dataset(own / "dataset"))
    (own / "pictures").rename(own / "elsewhere")
    shutil.rmtree(own / "images")
    labels = open_dataset(own / "dataset")
    assert [labels.row(index) for index in range(len(labels))] == [row for _, _, row in wanted]
    assert all(torch.equal(labels.mask(index), mask) for index, (_, mask, _) in enumerate(wanted))
    with pytest.raises(InputError, match=rf"{own}/dataset .*p1\.jpg.*'p1'.*images_root="):
        labels.image(index_of(labels, "p1"))
    with pytest.raises(InputError, match=rf"{own}/nowhere/p0\.jpg.*'p0'.*images_root="):
        open_dataset(own / "dataset", images_root=own / "nowhere")[0]
    assert all(map(same, open_dataset(own / "dataset", images_root=str(own / "elsewhere")), wanted))


def test_a_picture_with_other_bytes_is_refused(own: Path) -> None:
    path = own / "pictures" / "p1.jpg"
    was = hashlib.sha256(path.read_bytes()).hexdigest()
    Image.new("RGB", (40, 25)).save(path)
    labels = open_dataset(own / "dataset", images_root=own / "pictures")
    with pytest.raises(InputError, match=rf"{path} .*'p1'.*{was}"):
        labels[index_of(labels, "p1")]
    assert labels.mask(index_of(labels, "p1")).shape == (25, 40)


def test_a_picture_larger_than_is_trusted_is_refused(home: Path) -> None:
    labels = open_dataset(home / "dataset", max_pixels=900)
    with pytest.raises(InputError, match=r"'p0'.*40×24.*max_pixels="):
        labels[0]
    with pytest.raises(InputError, match="max_pixels="):
        labels.mask(0)
    assert len(list(open_dataset(home / "dataset", max_pixels=2000))) == len(labels)


def test_what_is_no_dataset_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\b.*dataset"):
        open_dataset(home / "labels")
    with pytest.raises(MaskmillError, match=str(tmp_path)):
        open_dataset(tmp_path)


# What somebody may do to a dataset before it is shared, who knows how digests are made.


def rewritten(dataset: Path, change: Callable[[list[dict[str, Json]]], Any], unit: int = 0, extra: str = "") -> None:
    """Rows of a file changed, with every digest above them made right again."""
    name = f"data/000/{unit:05d}.parquet"
    table = pq.read_table(dataset / name)
    rows = table.to_pylist()
    change(rows)
    schema = table.schema.append(pa.field(extra, pa.string())) if extra else table.schema
    vouched(dataset, name, tables.encode_table(pa.Table.from_pylist(rows, schema), tables.FRAME_ROW_GROUP), unit)


def vouched(dataset: Path, name: str, data: bytes, unit: int = 0) -> None:
    (dataset / name).write_bytes(data)
    digest = FileDigest.of(data).as_json()
    resealed(dataset / f"ledger/000/{unit:05d}.json", lambda record: record["files"].update({name: digest}))
    plan = read_plan(Place(str(dataset)))
    units = plan.layout(plan.groups[0]).num_units
    resealed(
        dataset / "artifact.json",
        lambda summary: summary["ledgers"].update(ledger=ledger.ledger_digest(Place(str(dataset)), "ledger", units)),
    )


def set_in_first(**values: Any) -> Callable[[list[dict[str, Json]]], Any]:
    return lambda rows: rows[0].update(values)


ESCAPES = {
    "": "is empty",
    "../p0.jpg": "climbs out with '..'",
    "a/../../p0.jpg": "climbs out with '..'",
    "/etc/passwd": "is absolute",
    "file:///etc/passwd": "is not at a URL of another machine",
    "local:///etc/passwd": "is not at a URL of another machine",
    "simplecache::file:///etc/passwd": "is not at a URL of another machine",
    "tar://../p0.jpg::a.tar": "climbs out with '..'",
    "tar://p0.jpg::../a.tar": "climbs out with '..'",
    "tar://p0.jpg::/a.tar": "is absolute",
    "tar://p0.jpg::file:///a.tar": "is not at a URL of another machine",
    "p0.jpg\0": "holds a NUL byte",
}


@pytest.mark.parametrize("uri", list(ESCAPES))
def test_a_path_that_escapes_is_refused_with_its_row(own: Path, uri: str) -> None:
    rewritten(own / "dataset", set_in_first(uri=uri))
    labels = open_dataset(own / "dataset", images_root=own / "pictures", keep="all")
    for reading in (labels.row, labels.image, labels.__getitem__):
        with pytest.raises(CorruptArtifact) as caught:
            reading(0)
        assert f"the row of 'p0' names {uri!a} as its picture, which {ESCAPES[uri]}; do not trust" in str(caught.value)
    assert labels.row(1)["id"] == "p1"


def test_a_link_out_of_the_pictures_is_not_followed(own: Path) -> None:
    (own / "pictures" / "p0.jpg").rename(own / "secret.jpg")
    (own / "pictures" / "p0.jpg").symlink_to(own / "secret.jpg")
    labels = open_dataset(own / "dataset", images_root=own / "pictures", keep="all")
    with pytest.raises(InputError, match=r"'p0\.jpg'.*link"):
        labels.image(0)


def test_a_url_of_another_machine_is_no_escape(own: Path) -> None:
    rewritten(own / "dataset", set_in_first(uri="https://example.org/p0.jpg"))
    assert open_dataset(own / "dataset", keep="all").row(0)["uri"] == "https://example.org/p0.jpg"


def test_digests_of_pictures_that_were_swapped(own: Path) -> None:
    def swap(rows: list[dict[str, Json]]) -> None:
        rows[0]["sha256"], rows[1]["sha256"] = rows[1]["sha256"], rows[0]["sha256"]

    rewritten(own / "dataset", swap)
    rewritten(own / "inside", swap)
    for name in ("dataset", "inside"):
        labels = open_dataset(own / name, images_root=own / "pictures", keep="all")
        for index in (0, 1):
            with pytest.raises(InputError, match=f"'p{index}'"):
                labels.image(index)


def test_files_that_were_swapped(own: Path) -> None:
    """As they are, and with their digests swapped as well."""
    names = [f"data/000/0000{unit}.parquet" for unit in (0, 1)]
    first, second = ((own / "dataset" / name).read_bytes() for name in names)
    (own / "dataset" / names[0]).write_bytes(second)
    with pytest.raises(CorruptArtifact, match=r"00000\.parquet"):
        open_dataset(own / "dataset", keep="all").row(0)
    vouched(own / "dataset", names[0], second, 0)
    vouched(own / "dataset", names[1], first, 1)
    for index in range(len(GOOD)):
        if index < 5:  # rows of both files
            with pytest.raises(CorruptArtifact, match=r"row list.*'p[03]'"):
                open_dataset(own / "dataset", keep="all").row(index)


def test_rows_that_are_there_twice(own: Path) -> None:
    rewritten(own / "dataset", lambda rows: rows.__setitem__(1, rows[0]))
    with pytest.raises(CorruptArtifact, match=r"row list.*'p0'"):
        open_dataset(own / "dataset", keep="all").mask(0)
    table = pq.read_table(own / "inside" / "rows.parquet")
    rows = table.to_pylist()
    rows[1]["id"] = "p0"
    data = tables.encode_table(pa.Table.from_pylist(rows, table.schema))
    (own / "inside" / "rows.parquet").write_bytes(data)
    digest = FileDigest.of(data).as_json()
    resealed(own / "inside" / "artifact.json", lambda summary: summary["files"].update({"rows.parquet": digest}))
    with pytest.raises(CorruptArtifact, match=r"two rows .*'p0'"):
        open_dataset(own / "inside")


def test_rows_that_are_missing(own: Path) -> None:
    rewritten(own / "dataset", lambda rows: rows.pop())
    with pytest.raises(CorruptArtifact, match=r"row list.*None"):
        open_dataset(own / "dataset", keep="all").row(0)


def test_columns_that_nobody_knows(own: Path) -> None:
    rewritten(own / "dataset", lambda rows: None, extra="novelty")
    with pytest.raises(CorruptArtifact, match=r"columns .*novelty"):
        open_dataset(own / "dataset", keep="all").row(0)


def test_a_dataset_from_before_method_agreement_is_read(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = frame_schema()
    at = schema.get_field_index("objects")
    older = schema.set(at, schema.field(at).with_type(pa.list_(OLDER_OBJECT)))
    monkeypatch.setattr(manifest, "frame_schema", lambda: older)
    publish(own, "older")
    assert "method_agreement" not in str(pq.read_schema(own / "older" / "data/000/00000.parquet"))
    rows = [row for _, _, row in open_dataset(own / "older", keep="all")]
    assert all("agreement" in each and "method_agreement" not in each for row in rows for each in row["objects"])


def test_a_newer_format(own: Path) -> None:
    resealed(own / "dataset" / "plan.json", lambda plan: plan.update(format=FORMAT_VERSION + 1))
    with pytest.raises(StaleArtifact, match=rf"format\b.*{FORMAT_VERSION + 1}"):
        open_dataset(own / "dataset")


def masks() -> Iterator[tuple[str, Any, str]]:
    label_HW = np.zeros((24, 40), np.uint8)
    label_HW[3, 4] = 9
    yield "of a class that there is not", encode_label_map(label_HW), "mask .*9.*class"
    yield "none", None, "mask"
    yield "of no picture", b"no picture", "mask .*read"
    yield (
        "of another size",
        encode_label_map(label_HW[:9, :9] * 0),
        r"mask .*\(9, 9\).*\(24, 40\)",
    )


@pytest.mark.parametrize(("png", "named"), [each[1:] for each in masks()], ids=[each[0] for each in masks()])
def test_a_mask_that_cannot_be_one(own: Path, png: bytes | None, named: str) -> None:
    rewritten(own / "dataset", set_in_first(mask={"bytes": png, "path": "p0.png"} if png else None))
    labels = open_dataset(own / "dataset", images_root=own / "pictures", keep="all")
    with pytest.raises(CorruptArtifact, match=f"'p0' .*{named}"):
        labels[0]


def test_a_flipped_bit_is_found_after_the_file_was_believed(own: Path) -> None:
    """The digest of a file is compared once per process, the checksum of a page at every reading."""
    labels = open_dataset(own / "inside", keep="all")
    assert labels.row(0)["id"] == "p0"
    path = own / "inside" / "data/000/00000.parquet"
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    pictures = columns["image.bytes"]
    start = pictures.dictionary_page_offset or pictures.data_page_offset
    flip(path, 8 * (start + pictures.total_compressed_size // 2))
    with pytest.raises(CorruptArtifact, match="/inside "):
        labels.image(0)


def test_a_dataset_that_has_grown(tmp_path: Path) -> None:
    """New rows are in files of their own, after a file that is not full."""
    make_labels(tmp_path)
    publish(tmp_path)
    for number in range(4):
        shutil.copyfile(tmp_path / "pictures" / "p1.jpg", tmp_path / "pictures" / f"q{number}.jpg")
    with open(tmp_path / "pictures" / "table.csv", "a") as table:
        table.writelines(f"q{number}.jpg,dog,train,\n" for number in range(4))
    make_labels(tmp_path)
    assert publish(tmp_path).units_run == 2
    labels = open_dataset(tmp_path / "dataset")
    assert [row["id"] for _, _, row in labels] == [*GOOD, "q0", "q1", "q2", "q3"]
    assert torch.equal(labels[-1][0], labels[1][0])
    assert labels.row(-1)["sha256"] == labels.row(1)["sha256"]


def test_pictures_may_be_at_a_url(own: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in (own / "pictures").glob("*.jpg"):
        memory.pipe_file(f"/labels-test/{path.name}", path.read_bytes())
    wanted = list(open_dataset(own / "dataset"))
    shutil.rmtree(own / "pictures")
    found = open_dataset(own / "dataset", images_root="memory://labels-test")
    assert all(map(same, found, wanted))


def test_pictures_in_a_tar(tmp_path: Path) -> None:
    """Named by their member and the tar's place below the root."""
    import tarfile

    make_images(tmp_path)
    table = tmp_path / "pictures" / "table.csv"
    with tarfile.open(tmp_path / "pictures" / "all.tar", "w") as archive:
        for path in sorted((tmp_path / "pictures").glob("*.jpg")):
            archive.add(path, path.name)
            path.unlink()
    table.write_text(table.read_text().replace("\np", "\ntar://p").replace(".jpg,", ".jpg::all.tar,"))
    shutil.rmtree(tmp_path / "images")
    make_labels(tmp_path)
    publish(tmp_path)
    publish(tmp_path, "inside", embed_images=True)
    assert rows_of(tmp_path / "inside")["p0"]["image"]["path"] == "p0.jpg"
    wanted = list(open_dataset(tmp_path / "inside"))
    assert all(map(same, open_dataset(tmp_path / "dataset"), wanted))
    (tmp_path / "pictures").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"pictures/all\.tar::p0\.jpg.*'p0'"):
        open_dataset(tmp_path / "dataset").image(0)
    assert all(map(same, open_dataset(tmp_path / "dataset", images_root=tmp_path / "moved"), wanted))
