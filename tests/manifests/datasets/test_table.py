"""Tables: columns, labels, masks, and rows that are refused by their line."""

import io
import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from maskmill.manifests.classes import ClassTable
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.datasets.listing import PictureEntry
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.errors import ConfigError, InputError
from maskmill.manifests.pictures.sources import read_source


@pytest.fixture
def csv(tmp_path: Path):
    def write(text: str, encoding: str = "utf-8", **options: Any) -> TableSource:
        (tmp_path / "table.csv").write_bytes(text.encode(encoding))
        return TableSource(file=str(tmp_path / "table.csv"), **options)

    return write


@pytest.fixture
def columns(tmp_path: Path):
    def write(table: dict[str, Any], **options: Any) -> TableSource:
        parquet.write_table(pa.table(table), tmp_path / "table.parquet")
        return TableSource(file=str(tmp_path / "table.parquet"), **options)

    return write


def test_paths_alone(csv, tmp_path):
    listing = list_dataset(csv("path\nb/2.jpg\n./a//1.x.png\n"))
    assert (listing.root, listing.mask_kind, len(listing.classes)) == (str(tmp_path), "none", 0)
    assert list(listing.entries) == [PictureEntry("b/2", "b/2.jpg", ()), PictureEntry("a/1.x", "a/1.x.png", ())]


def test_every_column(csv):
    text = 'id,uri,labels,split,mask\nx,"a, b.jpg",dog|cat,train,m/a.png\ne\u0301,c.jpg,,,\n'
    listing = list_dataset(csv(text))
    assert [(row.index, row.name, row.source_id) for row in listing.classes.rows] == [
        (1, "cat", "cat"),
        (2, "dog", "dog"),
    ]
    assert listing.mask_kind == "indexed"
    assert list(listing.entries) == [
        PictureEntry("x", "a, b.jpg", (1, 2), "train", "m/a.png"),
        PictureEntry("\u00e9", "c.jpg", ()),
    ]


def test_csv_as_other_programs_write_it(csv):
    text = '\ufeffpath, label\r\n"a ""1"".jpg", cat\r\n\r\n"two\nlines.jpg",cat | dog | cat\r\n'
    listing = list_dataset(csv(text))
    assert [(entry.uri, entry.labels) for entry in listing.entries] == [('a "1".jpg', (1,)), ("two\nlines.jpg", (1, 2))]


@pytest.mark.parametrize(
    "labels",
    [
        [["dog", "cat"], ["cat"], None],
        ["dog|cat", "cat", None],
        pa.array(["dog|cat", "cat", None]).dictionary_encode(),
        pa.array([["dog", "cat"], ["cat"], []], pa.large_list(pa.large_string())),
    ],
)
def test_parquet(columns, labels):
    listing = list_dataset(columns({"path": ["1.jpg", "2.jpg", "3.jpg"], "label": labels, "mask": [None, "2.png", ""]}))
    assert list(listing.entries) == [
        PictureEntry("1", "1.jpg", (1, 2)),
        PictureEntry("2", "2.jpg", (1,), mask="2.png"),
        PictureEntry("3", "3.jpg", ()),
    ]


def test_numbers_are_names_too(columns):
    listing = list_dataset(columns({"path": ["1.jpg", "2.jpg"], "label": [10, 9]}))
    assert [row.name for row in listing.classes.rows] == ["10", "9"]
    assert [entry.labels for entry in listing.entries] == [(1,), (2,)]


def test_known_classes_keep_their_index(csv):
    known = ClassTable().with_classes([("dog", "dog")])
    listing = list_dataset(csv("path,label\n1.jpg,cat\n2.jpg,dog\n"), known)
    assert [row.name for row in listing.classes.rows] == ["dog", "cat"]
    assert [entry.labels for entry in listing.entries] == [(2,), (1,)]


def test_classes_in_the_order_of_the_masks(csv):
    source = csv("path,label,mask\n1.jpg,cat,1.png\n", classes=("dog", "cat"))
    listing = list_dataset(source)
    assert [row.name for row in listing.classes.rows] == ["dog", "cat"]
    assert next(listing.entries).labels == (2,)
    with pytest.raises(InputError, match=r"1\b.*dog\b.*cat"):
        list_dataset(source, ClassTable().with_classes([("cat", "cat")]))
    with pytest.raises(InputError, match=r"line 2\b.*cat"):
        list_dataset(csv("path,label\n1.jpg,cat\n", classes=("dog",)))


def test_labels_off_the_masks(csv):
    text = "path,mask\n1.jpg,1.png\n2.jpg,\n"
    listing = list_dataset(csv(text, classes=("cat",)))
    assert [entry.labels for entry in listing.entries] == [None, ()]
    with pytest.raises(InputError, match="--classes"):
        list_dataset(csv(text))
    binary = list_dataset(csv(text, mask_kind="binary"))
    assert [row.name for row in binary.classes.rows] == ["object"]
    assert [entry.labels for entry in binary.entries] == [(1,), ()]
    assert binary.mask_kind == "binary"


@pytest.mark.parametrize("label", ["", "cat|dog"])
def test_a_binary_mask_shows_one_class(csv, label):
    with pytest.raises(InputError, match=r"line 3 .* binary mask"):
        list_dataset(csv(f"path,label,mask\n1.jpg,cat,1.png\n2.jpg,{label},2.png\n", mask_kind="binary"))


def test_another_root(csv, tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    (root / "1.jpg").write_bytes(b"one")
    listing = list_dataset(csv(f"path\n1.jpg\n{root}/1.jpg\nfile://{root}/1.jpg\n", root=str(root)))
    assert listing.root == str(root)
    for entry in listing.entries:
        assert (entry.id, entry.uri) == ("1", "1.jpg")
        assert read_source(listing.root, entry.uri) == b"one"


def test_urls_and_tar_members(csv):
    text = "path\nmemory://table-test/in/1.jpg\ns3://bucket/a/2.jpg\ntar://cat/3.jpg::sub/x.tar\n"
    listing = list_dataset(csv(text, root="memory://table-test/in"))
    assert [(entry.id, entry.uri) for entry in listing.entries] == [
        ("1", "1.jpg"),
        ("a/2", "s3://bucket/a/2.jpg"),
        ("cat/3", "tar://cat/3.jpg::sub/x.tar"),
    ]
    fsspec.filesystem("memory").pipe_file("/table-test/table.csv", b"path\n1.jpg\n")
    listing = list_dataset(TableSource(file="memory://table-test/table.csv"))
    assert listing.root == "memory://table-test"
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"path": ["1.jpg"]}), buffer)
    fsspec.filesystem("memory").pipe_file("/table-test/table.parquet", buffer.getvalue())
    assert len(list(list_dataset(TableSource(file="memory://table-test/table.parquet")).entries)) == 1


OUTSIDE = [
    ("../x.jpg", r"line 3 .*'\.\.'"),
    ("a/../../x.jpg", r"line 3 .*'\.\.'"),
    ("/etc/x.jpg", r"line 3 .*absolute"),
    ("file:///etc/x.jpg", r"line 3 .*absolute"),
    ("tar://1.jpg::../x.tar", r"line 3 .*'\.\.'"),
    ("tar://1.jpg", r"line 3 .*tar://MEMBER::TAR"),
    ("a\0b.jpg", r"line 3 .*NUL"),
    ("s3://a\0b.jpg", r"line 3 .*NUL"),
]


@pytest.mark.parametrize(("cell", "message"), [*OUTSIDE, ("", r"line 3 .*empty"), ('" "', r"line 3 .*empty")])
def test_paths_that_are_refused_by_their_line(csv, cell, message):
    with pytest.raises(InputError, match=f"path in {message}"):
        list_dataset(csv(f"path,label\n1.jpg,cat\n{cell},cat\n"))


@pytest.mark.parametrize(("cell", "message"), OUTSIDE)
def test_masks_that_are_refused_by_their_line(csv, cell, message):
    with pytest.raises(InputError, match=f"mask in {message}"):
        list_dataset(csv(f"path,label,mask\n1.jpg,cat,1.png\n2.jpg,cat,{cell}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column path"),
        ("id,label\n1,cat\n", "has no column path.* known .*path, uri, id, label, labels, split, mask"),
        ("path,weight\n1.jpg,3\n", "column 'weight'.* path, uri, id, label, labels, split, mask"),
        ("path;label\n1.jpg;cat\n", "column 'path;label'"),
        ("path,uri\n1.jpg,1.jpg\n", "a column twice"),
        ("path,label,labels\n1.jpg,cat,cat\n", "a column twice"),
        ("path,path\n1.jpg,1.jpg\n", "a column twice"),
        ("path,label\n", "rows"),
        ("path,label\n1.jpg,cat\n2.jpg\n", "line 3 .* has 1 value, expected 2"),
        ("path,id\n1.jpg,a\n2.jpg,\n", "line 3 .* has id ''"),
        ("path,id\n1.jpg,a\0b\n", "line 2 .* has id"),
        ('path\n"1.jpg\n', "cannot be read as CSV .* at line"),
        ('path\n"1"x.jpg\n', "cannot be read as CSV .* at line"),
        ("path\n" + "x" * 200_000, "cannot be read as CSV .* at line"),
    ],
)
def test_tables_that_are_wrong(csv, text, message):
    with pytest.raises(InputError, match=message):
        list_dataset(csv(text))


def test_lines_are_counted_as_an_editor_does(csv):
    with pytest.raises(InputError, match="line 6 "):
        list_dataset(csv('path,label\n"a\nb.jpg",cat\n\n1.jpg,cat\n../2.jpg,cat\n'))


def test_another_encoding(csv):
    with pytest.raises(InputError, match="UTF-8"):
        list_dataset(csv("path\ncaf\u00e9.jpg\n", encoding="latin-1"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"path": [1, 2]}, "row 1 .*path.* 1.*text"),
        ({"path": ["1.jpg", None]}, "row 2 .*empty"),
        ({"path": ["1.jpg", "../2.jpg"]}, r"row 2 .*'\.\.'"),
        ({"path": ["1.jpg"], "label": [1.5]}, "row 1 .* labels 1.5"),
        ({"path": ["1.jpg"], "label": [[["cat"]]]}, "row 1 .* labels"),
        ({"path": ["1.jpg"], "score": [1.5]}, "column 'score'"),
        ({"path": pa.array([], pa.string())}, "rows"),
    ],
)
def test_parquet_that_is_wrong(columns, table, message):
    with pytest.raises(InputError, match=message):
        list_dataset(columns(table))


def test_damaged_parquet(columns):
    source = columns({"path": [f"{number}.jpg" for number in range(100)]})
    whole = Path(source.file).read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-1], whole[:-8] + b"\xff" + whole[-7:]):
        Path(source.file).write_bytes(content)
        with pytest.raises(InputError, match="Parquet"):
            list_dataset(source)


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(InputError, match=r"/no\.csv"):
        list_dataset(TableSource(file=f"{tmp_path}/no.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="folder"):
        list_dataset(TableSource(file=f"{tmp_path}/folder.csv"))
    with pytest.raises(ConfigError, match=r"\.csv.*\.parquet"):
        TableSource(file="/data/table.xlsx")
    for classes in (("cat", "cat"), ("cat", "")):
        with pytest.raises(ConfigError, match="--classes"):
            TableSource(file="/data/table.csv", classes=classes)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_table_is_never_in_memory(tmp_path, kind):
    rows, long = 3000, "p" * 5000
    if kind == "csv":
        (tmp_path / "t.csv").write_text("path\n" + "".join(f"{long}/{number}.jpg\n" for number in range(rows)))
    else:
        writer = parquet.ParquetWriter(tmp_path / "t.parquet", pa.schema([("path", pa.string())]))
        for start in range(0, rows, 100):
            writer.write_table(pa.table({"path": [f"{long}/{number}.jpg" for number in range(start, start + 100)]}))
        writer.close()
    entries = list_dataset(TableSource(file=str(tmp_path / f"t.{kind}"))).entries
    tracemalloc.start()
    try:
        count = sum(1 for _ in entries)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == rows
    assert peak < rows * len(long) * 2 / 3
