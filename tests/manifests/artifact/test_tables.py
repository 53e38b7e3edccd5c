"""Parquet by position: any part of a table equals that part of the whole, and a flipped bit is found."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.artifact import tables
from maskmill.manifests.artifact.tables import ROW_GROUP
from maskmill.manifests.errors import CorruptArtifact
from maskmill.manifests.files.digests import FileDigest
from maskmill.manifests.files.place import Place, place

ROWS = 2 * ROW_GROUP + 100
SCHEMA = tables.schema_of({"id": "string", "number": "int64", "list": "ints"})
WHOLE = pa.table(
    [[f"image {n}" for n in range(ROWS)], list(range(ROWS)), [[n, n + 1][: n % 3] for n in range(ROWS)]], SCHEMA
)
positions = st.integers(0, ROWS - 1)
near_borders = st.sampled_from([0, 1, ROW_GROUP - 1, ROW_GROUP, ROW_GROUP + 1, 2 * ROW_GROUP, ROWS - 1]) | positions


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> pq.ParquetFile:
    at = place(tmp_path_factory.mktemp("tables"))
    digest, rows = tables.write_batches(at, "x.parquet", SCHEMA, WHOLE.to_batches(max_chunksize=777))
    assert rows == ROWS
    return tables.open_table(at, "x.parquet", digest)


@given(st.tuples(near_borders, near_borders).map(sorted))
def test_rows_between_are_a_slice_of_the_whole(file: pq.ParquetFile, span: list[int]) -> None:
    start, stop = span
    assert tables.rows_between(file, start, stop).equals(WHOLE.slice(start, stop - start))
    assert tables.rows_between(file, start, stop, ["number"]).column("number").to_pylist() == list(range(start, stop))


@given(st.lists(near_borders, min_size=1, max_size=20))
def test_rows_taken_are_those_asked_for_in_that_order(file: pq.ParquetFile, wanted: list[int]) -> None:
    assert tables.take_rows(file, wanted, ["id", "list"]).equals(WHOLE.select(["id", "list"]).take(wanted))


def test_a_table_comes_back_in_batches_and_does_not_depend_on_how_it_came(tmp_path: Path) -> None:
    at = place(tmp_path)
    written = {
        size: tables.write_batches(at, f"{size}.parquet", SCHEMA, WHOLE.to_batches(max_chunksize=size))[0]
        for size in (1000, ROW_GROUP, ROWS)
    }
    assert len(set(written.values())) == 1
    file = tables.open_table(at, "1000.parquet", written[1000])
    assert pa.Table.from_batches(list(tables.batches_of(file))).equals(WHOLE)
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 100]


def test_an_empty_table(tmp_path: Path) -> None:
    digest, rows = tables.write_batches(place(tmp_path), "x.parquet", SCHEMA, [])
    assert rows == 0
    assert tables.open_table(place(tmp_path), "x.parquet", digest).read().equals(SCHEMA.empty_table())


SMALL = WHOLE.slice(0, 50).combine_chunks()


@given(st.data())
def test_a_flipped_bit_is_refused_before_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(tables.encode_table(SMALL))
    expected = FileDigest.of(bytes(whole))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    at = Place(str(tmp_path_factory.mktemp("flip")))
    Path(at.path("x.parquet")).write_bytes(whole)
    with pytest.raises(CorruptArtifact):
        tables.open_table(at, "x.parquet", expected)


def test_a_bit_that_flips_after_the_check_is_found_by_the_page_checksum(tmp_path: Path) -> None:
    table = pa.table({"data": pa.array([bytes(range(256)) * 4] * 4, pa.binary())})
    whole = tables.encode_table(table)
    start = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(0).column(0).dictionary_page_offset
    silent = 0
    for bit in range(start * 8, (len(whole) // 2) * 8, 37):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.parquet").write_bytes(damaged)
        at = Place(str(tmp_path))
        try:
            read = tables.open_table(at, "x.parquet", FileDigest.of(bytes(damaged))).read()
        except (CorruptArtifact, OSError, pa.ArrowException):
            continue
        silent += not read.equals(table)
    assert silent == 0
